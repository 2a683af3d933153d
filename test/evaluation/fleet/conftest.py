"""A fleet of three bags, and what it gives when nothing goes wrong."""

from __future__ import annotations

import os

from fleet_fixtures import FRAMES, PoolWithoutProcesses, write_fleet
import pytest

from marigold_ros import progress
from marigold_ros.evaluation import evaluate
from marigold_ros.evaluation.fleet import command


@pytest.fixture(scope='session')
def fleet(tmp_path_factory):
    """Write a list of a short bag, one of three parts, and one that ends in the middle."""
    path = write_fleet(tmp_path_factory.mktemp('fleet') / 'fleet', {**FRAMES, 'torn': 10})
    torn = path.parent / 'torn.mcap'
    os.truncate(torn, torn.stat().st_size // 2)
    return path


@pytest.fixture(scope='session')
def undisturbed(fleet, tmp_path_factory):
    """Evaluate the fleet in this process, where nothing is killed, without pages."""
    out = tmp_path_factory.mktemp('undisturbed') / 'out'
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(progress, '_shown', True)  # a task hides the bars of its process
        patched.setattr(evaluate, 'write_report', lambda *_: None)
        patched.setattr(command, '_open_pool', lambda address, runs: PoolWithoutProcesses())
        assert evaluate.main(['fleet', str(fleet), '--out', str(out)]) == 2
    return out
