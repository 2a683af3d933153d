"""Rules of a scale over time: smooth, bounded, held and forgotten, on a simulated clock."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import ConfigError
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.filter import FilterConfig, ScaleFilter
from marigold_ros.metric.fit import ScaleFit
from marigold_ros.metric.sources import make_scale_source
from marigold_ros.metric.types import ScaleFrame

SECOND = 10 ** 9


def fit(scale: float = 3.0, shift: float = 1.0) -> ScaleFit:
    return ScaleFit(scale, shift, residual=0.0, inliers=1.0, count=10 ** 6, scale_only=False)


def test_the_first_fit_is_taken_as_it_is():
    scales = ScaleFilter(FilterConfig())
    assert not scales.known
    scales.add(fit(), 0)
    assert scales.scale_shift == (3.0, 1.0)


def test_no_depth_changes_faster_than_allowed():
    scales = ScaleFilter(FilterConfig(max_change_per_s=0.1))
    scales.add(fit(3.0, 1.0), 0)
    before = np.array([1.0, 2.5, 4.0])
    for step in range(1, 50):
        scales.add(fit(9.0, 3.0), step * SECOND // 10)
        scale, shift = scales.scale_shift
        now = scale * np.array([0.0, 0.5, 1.0]) + shift
        assert (np.abs(now / before - 1) <= 0.1 * 0.1 + 1e-9).all() and (now >= before).all()
        before = now
    assert before[2] == pytest.approx(4.0 * 1.01 ** 49, rel=0.02)  # as fast as it may


def test_it_arrives_and_stays_where_the_fits_are():
    scales = ScaleFilter(FilterConfig(max_change_per_s=10.0))
    scales.add(fit(3.0, 1.0), 0)
    for step in range(1, 60):
        scales.add(fit(4.0, 2.0), step * SECOND // 10)
    assert scales.scale_shift == (pytest.approx(4.0, rel=1e-3), pytest.approx(2.0, rel=1e-3))


def test_a_fit_of_little_confidence_moves_it_less():
    moved = []
    for confidence in (1.0, 0.2):
        scales = ScaleFilter(FilterConfig(max_change_per_s=10.0))
        scales.add(fit(3.0, 1.0), 0)
        scales.add(ScaleFit(4.0, 1.0, 0.0, confidence, 10 ** 6, False), SECOND // 10)
        moved.append(scales.scale_shift[0] - 3.0)
    assert 0 < moved[1] < 0.5 * moved[0]


def test_it_is_held_then_expires_and_starts_afresh_at_once():
    scales = ScaleFilter(FilterConfig(hold_s=1.0, expire_s=10.0))
    scales.add(fit(3.0, 1.0), 0)
    assert not scales.held(SECOND)
    assert scales.held(2 * SECOND) and scales.known
    full = scales.confidence(SECOND)
    assert scales.confidence(int(5.5 * SECOND)) == pytest.approx(full / 2)
    assert not scales.expire(10 * SECOND) and scales.expire(11 * SECOND)
    assert not scales.known
    scales.add(fit(30.0, 10.0), 12 * SECOND)
    assert scales.scale_shift == (30.0, 10.0)


def test_wrong_times_are_refused_by_parameter_name():
    with pytest.raises(ConfigError, match='`scale.hold_s` must be .* got 3'):
        FilterConfig(hold_s=3.0, expire_s=2.0)
    with pytest.raises(ConfigError, match='`scale.max_change_per_s` .* got 0'):
        FilterConfig(max_change_per_s=0.0)


# The same through a whole source

RELATIVE = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))
ROWS, COLUMNS = (each.ravel() for each in np.mgrid[:30, :40])


def show(source, seconds: float, depth_m=None, *, lag_s: float = 0.0, problem: str = '',
         camera: str = 'front'):
    """Show a frame and anchors of depth_m = 3 a + 1 times a factor, or none."""
    stamp_ns = round(seconds * SECOND)
    anchors = None if depth_m is None else Anchors(
        ROWS, COLUMNS, np.asarray(depth_m, np.float32).ravel(), stamp_ns - round(lag_s * SECOND))
    return source.update(ScaleFrame(camera, stamp_ns, RELATIVE, None, np.eye(3), anchors, problem))


@pytest.fixture
def source():
    return make_scale_source(ScaleConfig('depth'))


TRUE_M = 3 * RELATIVE + 1


def test_the_states_of_a_reference_that_comes_goes_and_comes_back(source):
    states = [show(source, 0.0).state]
    states.append(show(source, 1.0, TRUE_M).state)
    states.append(show(source, 1.5).state)
    states.append(show(source, 3.0).state)
    gone = show(source, 12.0)
    states += [gone.state, show(source, 13.0, TRUE_M).state]
    assert states == ['waiting', 'tracking', 'tracking', 'holding', 'expired', 'tracking']
    assert gone.metric is None and gone.detail == ''


def test_a_held_scale_is_the_last_one_and_ever_less_sure(source):
    tracked = show(source, 0.0, TRUE_M)
    held = show(source, 5.0)
    assert (held.metric.scale, held.metric.shift) == (tracked.metric.scale, tracked.metric.shift)
    assert held.metric.confidence < tracked.metric.confidence
    assert held.age_s == 5.0
    assert (held.metric.source, held.metric.assumed) == ('depth', False)


def test_millimetres_called_metres_are_refused_from_the_first_reference_on(source):
    report = show(source, 0.0, 1000 * TRUE_M)
    assert (report.state, report.metric) == ('refused', None)
    assert 'between 0.05 and 200 m; got 2500: millimetres called metres' in report.detail


def test_metres_called_millimetres_are_refused(source):
    report = show(source, 0.0, 0.001 * TRUE_M)
    assert report.state == 'refused' and 'got 0.0025' in report.detail


def test_a_unit_that_changes_on_the_way_is_refused_by_the_ratio_and_metres_go_on(source):
    near_m = 0.05 * TRUE_M
    show(source, 0.0, near_m)
    report = show(source, 0.1, 1000 * near_m)  # a median of 125, which would be plausible
    assert report.state == 'refused'
    assert '1e+03 times the depth that it said before' in report.detail
    assert report.metric.scale == pytest.approx(0.15, rel=1e-3)
    assert show(source, 0.2, near_m).state == 'tracking'


def test_a_reference_without_any_depth_is_refused(source):
    assert 'got nan' in show(source, 0.0, np.full_like(RELATIVE, np.nan)).detail


def test_what_the_node_finds_wrong_with_a_reference_is_passed_on(source):
    show(source, 0.0, TRUE_M)
    report = show(source, 0.5, problem='the clocks disagree')
    assert (report.state, report.detail) == ('refused', 'the clocks disagree')
    assert report.metric is not None
    assert show(source, 11.0, problem='the clocks disagree').state == 'expired'


def test_a_reference_of_another_time_is_not_used_and_an_older_one_counts_less(source):
    assert show(source, 0.0, TRUE_M, lag_s=1.5).state == 'waiting'
    moved = []
    for lag_s in (0.0, 0.9):
        source.reset()
        show(source, 0.0, TRUE_M)
        moved.append(show(source, 0.1, 1.005 * TRUE_M, lag_s=lag_s).metric.scale - 3.0)
    assert 0 < moved[1] < 0.6 * moved[0]


def test_a_relative_depth_that_says_nothing_of_the_reference_is_refused(source):
    noise = np.random.default_rng(0).choice([0.3, 30.0], RELATIVE.shape)
    report = show(source, 0.0, noise)
    assert report.state == 'refused' and 'does not fit the reference' in report.detail


def test_a_reset_forgets_and_cameras_do_not_share_a_scale(source):
    show(source, 0.0, TRUE_M)
    assert show(source, 0.1, camera='rear').state == 'waiting'
    source.reset()
    assert show(source, 0.2).state == 'waiting'


def test_confidence_of_the_pixels_weighs_the_anchors(source):
    depth_m = TRUE_M.copy()
    depth_m[:, :20] *= 1.6  # half of the image disagrees
    confidence = np.where(np.arange(40) < 20, 0.0, 1.0).astype(np.float32) * np.ones((30, 1))
    report = source.update(ScaleFrame('front', 0, RELATIVE, confidence.astype(np.float32),
                                      np.eye(3), Anchors(ROWS, COLUMNS, depth_m.ravel(), 0)))
    assert report.metric.scale * 0.75 + report.metric.shift == pytest.approx(3.25, rel=0.03)
