"""The slowed engine: real depth after a longer time, and faults when they are due."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks.slowed_node import is_due, slow_down
from marigold_ros.depth import engine

RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
FAST = engine.DepthEngine


@pytest.fixture
def load_slowed(monkeypatch):
    def load(run_s=0.0, fail_every=0, hang_every=0, hang_s=0.0):
        monkeypatch.setattr(engine, 'DepthEngine', FAST)  # undone after the test
        slow_down(run_s, fail_every, hang_every, hang_s)
        return load_warm()

    return load


def load_warm():
    loaded = engine.DepthEngine.load(device='cpu')
    loaded.warm_up([RGB.shape[:2]], [1], 1)
    loaded.prepare_in_background()
    return loaded


def duration_s(slowed):
    started_s = time.monotonic()
    slowed.infer_batch([RGB], [1])
    return time.monotonic() - started_s


def test_every_nth_run_is_due():
    assert [is_due(number, 3) for number in range(1, 7)] == 2 * [False, False, True]
    assert not is_due(1, 0)


def test_a_run_takes_longer_and_its_stages_tell(load_slowed):
    slowed = load_slowed(run_s=0.5)
    started_s = time.monotonic()
    slow, = slowed.infer_batch([RGB], [1])
    assert time.monotonic() - started_s >= 0.5
    assert slow.timing.total_s == pytest.approx(0.5, abs=0.1)
    fast, = FAST.load(device='cpu').infer_batch([RGB], [1])
    np.testing.assert_array_equal(slow.affine_invariant_depth, fast.affine_invariant_depth)


def test_runs_fail_and_hang_in_turn_also_after_the_engine_is_loaded_anew(load_slowed):
    """Of five runs the second and fourth hang, and the third fails."""
    slowed = load_slowed(fail_every=3, hang_every=2, hang_s=0.6)
    assert duration_s(slowed) < 0.6 <= duration_s(slowed)
    with pytest.raises(OSError, match='simulated fault'):
        slowed.infer_batch([RGB], [1])
    again = load_warm()
    assert duration_s(again) >= 0.6 > duration_s(again)
