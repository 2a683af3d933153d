"""The scale of a camera over time: states, rejected references, constant sources."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import GaugeChange
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.tracker import ScaleTracker
from marigold_ros.metric.types import ScaleFrame

SECOND = 10 ** 9
RELATIVE = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))
ROWS, COLUMNS = (each.ravel() for each in np.mgrid[:30, :40])
K = np.array([[40.0, 0.0, 19.5], [0.0, 40.0, 14.5], [0.0, 0.0, 1.0]])


def update(tracker, seconds: float, depth_m=None, *, lag_s: float = 0.0, problem: str = '',
           camera: str = 'front'):
    """Update a tracker with a frame, and with anchors of the given depth if there is one."""
    stamp_ns = round(seconds * SECOND)
    anchors = {} if depth_m is None else {'depth': Anchors(
        ROWS, COLUMNS, np.asarray(depth_m, np.float32).ravel(), stamp_ns - round(lag_s * SECOND))}
    return tracker.update(ScaleFrame(camera, stamp_ns, RELATIVE, None, K, anchors,
                                     {'depth': InputError(problem)} if problem else {}))


@pytest.fixture
def tracker():
    return ScaleTracker(ScaleConfig(('depth',)))


TRUE_M = 3 * RELATIVE + 1


def test_the_states_while_a_reference_starts_and_stops(tracker):
    states = [update(tracker, 0.0).state]
    states.append(update(tracker, 1.0, TRUE_M).state)
    states.append(update(tracker, 1.5).state)
    states.append(update(tracker, 3.0).state)
    gone = update(tracker, 12.0)
    states += [gone.state, update(tracker, 13.0, TRUE_M).state]
    assert states == ['waiting', 'tracking', 'tracking', 'holding', 'expired', 'tracking']
    assert gone.metric_scale is None and gone.detail == ''


def test_a_held_scale_is_the_last_one_with_decreasing_confidence(tracker):
    tracked = update(tracker, 0.0, TRUE_M)
    held = update(tracker, 5.0)
    assert (held.metric_scale.scale, held.metric_scale.shift) == (
        tracked.metric_scale.scale, tracked.metric_scale.shift)
    assert held.metric_scale.confidence < tracked.metric_scale.confidence
    assert held.age_s == 5.0
    assert (held.metric_scale.sources, held.metric_scale.assumed) == (('depth',), False)


def test_millimetres_published_as_metres_are_rejected_at_once(tracker):
    report = update(tracker, 0.0, 1000 * TRUE_M)
    assert (report.state, report.metric_scale) == ('rejected', None)
    assert 'between 0.05 and 200 m; got 2500 m: check whether' in report.detail


def test_metres_published_as_millimetres_are_rejected(tracker):
    report = update(tracker, 0.0, 0.001 * TRUE_M)
    assert report.state == 'rejected' and 'got 0.0025' in report.detail


def test_a_change_of_unit_is_rejected_and_the_scale_is_kept(tracker):
    near_m = 0.05 * TRUE_M
    update(tracker, 0.0, near_m)
    report = update(tracker, 0.1, 1000 * near_m)  # a median of 125, which would be plausible
    assert report.state == 'rejected'
    assert 'jumped to 1e+03 times the previous depth' in report.detail
    assert report.metric_scale.scale == pytest.approx(0.15, rel=1e-3)
    assert update(tracker, 0.2, near_m).state == 'tracking'


def test_a_reference_without_depth_is_rejected(tracker):
    assert 'got nan' in update(tracker, 0.0, np.full_like(RELATIVE, np.nan)).detail


def test_the_problem_of_a_reference_is_reported(tracker):
    update(tracker, 0.0, TRUE_M)
    report = update(tracker, 0.5, problem='the clocks disagree')
    assert (report.state, report.detail) == ('rejected', 'the clocks disagree')
    assert report.metric_scale is not None
    assert update(tracker, 11.0, problem='the clocks disagree').state == 'expired'


def test_an_older_reference_has_less_weight_and_then_none(tracker):
    assert update(tracker, 0.0, TRUE_M, lag_s=1.5).state == 'waiting'
    moved = []
    for lag_s in (0.0, 0.9):
        tracker.reset()
        update(tracker, 0.0, TRUE_M)
        moved.append(update(tracker, 0.1, 1.005 * TRUE_M, lag_s=lag_s).metric_scale.scale - 3.0)
    assert 0 < moved[1] < 0.6 * moved[0]


def test_a_depth_that_does_not_fit_its_reference_is_rejected(tracker):
    noise = np.random.default_rng(0).choice([0.3, 30.0], RELATIVE.shape)
    report = update(tracker, 0.0, noise)
    assert report.state == 'rejected' and 'does not fit the reference' in report.detail


def test_a_reset_discards_the_scale_and_cameras_do_not_share_one(tracker):
    update(tracker, 0.0, TRUE_M)
    assert update(tracker, 0.1, camera='rear').state == 'waiting'
    tracker.reset()
    assert update(tracker, 0.2).state == 'waiting'


def test_the_confidence_of_a_pixel_is_the_weight_of_its_anchor(tracker):
    depth_m = TRUE_M.copy()
    depth_m[:, :20] *= 1.6  # half of the image disagrees
    confidence = np.where(np.arange(40) < 20, 0.0, 1.0).astype(np.float32) * np.ones((30, 1))
    report = tracker.update(ScaleFrame(
        'front', 0, RELATIVE, confidence.astype(np.float32), K,
        {'depth': Anchors(ROWS, COLUMNS, depth_m.ravel(), 0)}))
    scale = report.metric_scale
    assert scale.scale * 0.75 + scale.shift == pytest.approx(3.25, rel=0.03)


def test_metric_depth_does_not_jump_with_the_gauge_of_a_run(tracker):
    """The next run shows the same scene by half the relative depth; the limit is 1 % in 0.1 s."""
    update(tracker, 0.0, TRUE_M)
    anchors = Anchors(ROWS, COLUMNS, TRUE_M.ravel(), SECOND // 10)
    run = ScaleFrame('front', SECOND // 10, 0.5 * RELATIVE + np.float32(0.1), None, K,
                     {'depth': anchors}, gauge_change=GaugeChange(0.5, 0.1))
    scale = tracker.update(run).metric_scale
    np.testing.assert_allclose(scale.to_metric_depth(run.affine_invariant_depth), TRUE_M,
                               rtol=0.005)


def test_the_gauge_of_runs_without_a_reference_counts_at_the_next_fit(tracker):
    update(tracker, 0.0, TRUE_M)
    for number, change in ((1, GaugeChange(0.5, 0.05)), (2, GaugeChange(0.8, 0.06)), (3, None)):
        # In the end 0.8 * (0.5 * relative + 0.05) + 0.06.
        anchors = Anchors(ROWS, COLUMNS, TRUE_M.ravel(), number * SECOND // 10)
        run = ScaleFrame('front', number * SECOND // 10, 0.4 * RELATIVE + np.float32(0.1), None,
                         K, {'depth': anchors} if number == 3 else {}, gauge_change=change)
        scale = tracker.update(run).metric_scale
    np.testing.assert_allclose(scale.to_metric_depth(run.affine_invariant_depth), TRUE_M,
                               rtol=0.005)


# Constant sources

def frame(camera: str = 'front', stamp_ns: int = 0) -> ScaleFrame:
    return ScaleFrame(camera, stamp_ns, np.zeros((2, 2), np.float32), None, K)


def fixed(low: float, high: float) -> ScaleTracker:
    return ScaleTracker(ScaleConfig(('fixed',), low, high))


def test_fixed_maps_0_to_1_onto_the_range():
    scale = fixed(0.5, 8.0).update(frame()).metric_scale
    np.testing.assert_array_equal(
        scale.to_metric_depth(np.array([[0.0, 1.0]], np.float32)), [[0.5, 8.0]])


def test_fixed_is_assumed_and_has_confidence_0():
    scale = fixed(0.5, 8.0).update(frame()).metric_scale
    assert scale.assumed and scale.confidence == 0.0 and scale.sources == ('fixed',)


def test_fixed_is_unchanged_by_a_reset():
    tracker = fixed(0.5, 8.0)
    before = tracker.update(frame())
    tracker.reset()
    assert asdict(tracker.update(frame('rear', 10))) == asdict(before)


def test_none_has_no_scale_even_with_a_range():
    tracker = ScaleTracker(ScaleConfig(('none',), 0.5, 8.0))
    tracker.reset()
    assert tracker.update(frame()).metric_scale is None
