"""The scale filter on simulated stamps: smoothing, rate limit, hold and expiry."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.types import GaugeChange
from marigold_ros.metric.filter import FilterConfig, ScaleFilter
from marigold_ros.metric.fit import ScaleFit

SECOND = 10 ** 9


def fit(scale: float = 3.0, shift: float = 1.0) -> ScaleFit:
    return ScaleFit(scale, shift, residual=0.0, inlier_fraction=1.0, anchor_count=10 ** 6,
                    scale_only=False)


def test_the_first_fit_is_used_unfiltered():
    scales = ScaleFilter(FilterConfig())
    assert scales.scale_shift is None
    scales.add(fit(), 0)
    assert scales.scale_shift == (3.0, 1.0)


def test_no_depth_changes_faster_than_the_limit():
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


def test_the_scale_converges_to_constant_fits():
    scales = ScaleFilter(FilterConfig(max_change_per_s=10.0))
    scales.add(fit(3.0, 1.0), 0)
    for step in range(1, 100):
        scales.add(fit(4.0, 2.0), step * SECOND // 10)
    assert scales.scale_shift == (pytest.approx(4.0, rel=1e-3), pytest.approx(2.0, rel=1e-3))


def test_a_fit_of_low_confidence_changes_the_scale_less():
    moved = []
    for confidence in (1.0, 0.2):
        scales = ScaleFilter(FilterConfig(max_change_per_s=10.0))
        scales.add(fit(3.0, 1.0), 0)
        scales.add(ScaleFit(4.0, 1.0, 0.0, confidence, 10 ** 6, False), SECOND // 10)
        moved.append(scales.scale_shift[0] - 3.0)
    assert 0 < moved[1] < 0.5 * moved[0]


def test_a_scale_is_held_then_expires_and_restarts_unfiltered():
    scales = ScaleFilter(FilterConfig(hold_s=1.0, expire_s=10.0))
    scales.add(fit(3.0, 1.0), 0)
    assert not scales.is_held(SECOND)
    assert scales.is_held(2 * SECOND) and scales.scale_shift is not None
    full = scales.confidence(SECOND)
    assert scales.confidence(int(5.5 * SECOND)) == pytest.approx(full / 2)
    assert not scales.expire(10 * SECOND) and scales.expire(11 * SECOND)
    assert scales.scale_shift is None
    scales.add(fit(30.0, 10.0), 12 * SECOND)
    assert scales.scale_shift == (30.0, 10.0)


def test_a_change_of_the_gauge_alone_does_not_change_metric_depth():
    scales = ScaleFilter(FilterConfig(max_change_per_s=0.1))
    old = np.array([0.2, 0.6, 1.0])
    scales.add(fit(3.0, 1.5), 0)
    # old = (new - 0.2) / 0.5, so 3 * old + 1.5 = 6 * new + 0.3.
    scales.add(fit(6.0, 0.3), SECOND // 10, gauge_change=GaugeChange(0.5, 0.2))
    scale, shift = scales.scale_shift
    np.testing.assert_allclose(scale * (0.5 * old + 0.2) + shift, 3.0 * old + 1.5)
    # Without another change of the gauge, the same fit is a change of depth, which is limited.
    scales.add(fit(3.0, 1.5), SECOND // 5)
    assert scales.scale_shift == (pytest.approx(6.0, abs=0.05), pytest.approx(0.3, abs=0.01))


def test_what_the_gauge_does_not_explain_stays_limited():
    """It doubles the scale; the far end, at 4 m, then at 7 m, may go on by 1 % in 0.1 s."""
    scales = ScaleFilter(FilterConfig(max_change_per_s=0.1))
    scales.add(fit(3.0, 1.0), 0)
    scales.add(fit(20.0, 1.0), SECOND // 10, gauge_change=GaugeChange(0.5, 0.0))
    scale, shift = scales.scale_shift
    assert 7.0 < scale + shift <= 7.0 * 1.01 and shift == pytest.approx(1.0)


def test_a_gauge_with_which_the_fit_disagrees_is_not_followed():
    scales = ScaleFilter(FilterConfig(max_change_per_s=0.1))
    scales.add(fit(3.0, 1.0), 0)
    scales.add(fit(3.0, 1.0), SECOND // 10, gauge_change=GaugeChange(0.5, 0.0))
    assert scales.scale_shift == (3.0, 1.0)


def test_a_gauge_that_leads_behind_the_camera_is_followed_up_to_the_fit():
    """The new relative 0 would lie at 1 m - 3 m * 0.9 / 0.5."""
    scales = ScaleFilter(FilterConfig())
    scales.add(fit(3.0, 1.0), 0)
    scales.add(fit(4.0, 0.1), SECOND // 10, gauge_change=GaugeChange(0.5, 0.9))
    scale, shift = scales.scale_shift
    assert shift == pytest.approx(0.1) and scale > 0.0


def test_a_validation_error_names_the_parameter():
    with pytest.raises(ConfigError, match='`scale.hold_s` must be .* got 3'):
        FilterConfig(hold_s=3.0, expire_s=2.0)
    with pytest.raises(ConfigError, match='`scale.max_change_per_s` .* got 0'):
        FilterConfig(max_change_per_s=0.0)
