"""The engine of tests that do not look at its depth."""

from __future__ import annotations

from checkpoints import make_checkpoint
import pytest

from marigold_ros.depth.engine import DepthEngine


@pytest.fixture(scope='module')
def engine(tmp_path_factory):
    """Load a tiny checkpoint of random weights; tests that change it undo that."""
    folder = make_checkpoint(tmp_path_factory.mktemp('checkpoint'))
    return DepthEngine.load(str(folder), device='cpu', dtype='float32')
