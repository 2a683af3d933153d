"""The robust scale fit on synthetic anchors: accuracy, outliers and degenerate cases."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.fit import fit_scale, TYPICAL_PROPORTION


def anchors(count: int = 200, scale: float = 3.0, shift: float = 1.0):
    """Anchors that lie exactly on depth = scale * relative + shift."""
    relative = np.linspace(0, 1, count, dtype=np.float32)
    return relative, scale * relative + np.float32(shift)


@pytest.mark.parametrize(('scale', 'shift'), [(3.0, 1.0), (0.4, 0.3), (60.0, 2.0), (0.2, 1.8)])
def test_a_known_scale_and_shift_are_recovered(scale, shift):
    fit = fit_scale(*anchors(scale=scale, shift=shift))
    assert fit.scale == pytest.approx(scale, rel=1e-3)
    assert fit.shift == pytest.approx(shift, rel=1e-3)
    assert (fit.inlier_fraction, fit.anchor_count, fit.scale_only) == (1.0, 200, False)
    assert fit.residual < 1e-3 and fit.confidence > 0.9


@pytest.mark.parametrize('wrong_m', [0.1, 40.0, 'spread', 'a plane behind'])
def test_30_percent_outliers_do_not_change_the_fit(wrong_m):
    relative, depth_m = anchors(1000)
    rng = np.random.default_rng(3)
    wrong = rng.choice(1000, 300, replace=False)
    depth_m[wrong] = {'spread': rng.uniform(0.1, 20.0, 300),
                      'a plane behind': 1.5 * depth_m[wrong]}.get(wrong_m, wrong_m)
    fit = fit_scale(relative, depth_m)
    assert fit.scale == pytest.approx(3.0, rel=0.01)
    assert fit.shift == pytest.approx(1.0, rel=0.01)
    assert 0.69 < fit.inlier_fraction < 0.73


def test_noise_and_outliers_together_change_the_fit_little():
    relative, depth_m = anchors(1000)
    rng = np.random.default_rng(4)
    depth_m = depth_m * np.exp(rng.normal(0, 0.05, 1000)).astype(np.float32)
    depth_m[rng.choice(1000, 300, replace=False)] = 12.0
    fit = fit_scale(relative, depth_m)
    for a in (0.0, 0.5, 1.0):
        assert fit.scale * a + fit.shift == pytest.approx(3.0 * a + 1.0, rel=0.05)


def test_anchors_of_one_depth_keep_the_proportion():
    relative = np.full(50, 0.5, np.float32)
    fit = fit_scale(relative, np.full(50, 3.0, np.float32), proportion=1.0)
    assert fit.scale_only
    # k (0.5 + 1) = 3
    assert (fit.scale, fit.shift) == (pytest.approx(2.0), pytest.approx(2.0))
    typical = fit_scale(relative, np.full(50, 3.0, np.float32))
    assert typical.shift / typical.scale == pytest.approx(TYPICAL_PROPORTION)


def test_a_single_far_anchor_does_not_determine_the_shift():
    relative = np.append(np.full(50, 0.5), 1.0).astype(np.float32)
    assert fit_scale(relative, np.append(np.full(50, 3.0), 4.0).astype(np.float32)).scale_only


def test_scale_is_above_0_for_an_upside_down_prediction():
    relative, depth_m = anchors()
    fit = fit_scale(relative, depth_m[::-1])
    assert fit.scale > 0 and fit.shift > 0
    assert fit.confidence < 0.6


def test_the_shift_is_above_0():
    relative = np.linspace(0.5, 1, 100, dtype=np.float32)
    fit = fit_scale(relative, 4 * relative - 1)  # the line goes through -1 m at 0
    assert fit.shift > 0 and fit.scale > 0


def test_anchors_of_weight_0_are_ignored():
    relative, depth_m = anchors(100)
    depth_m[50:] = 9.0
    weight = np.array([1.0] * 50 + [0.0] * 50, np.float32)
    fit = fit_scale(relative, depth_m, weight)
    assert (fit.scale, fit.shift) == (pytest.approx(3.0, rel=1e-3), pytest.approx(1.0, rel=1e-3))
    assert fit.anchor_count == 50


def test_values_that_are_not_finite_or_not_above_0_are_ignored():
    relative, depth_m = anchors(100)
    depth_m[:40:4], depth_m[1:40:4] = np.nan, np.inf
    depth_m[2:40:4], relative[3:40:4] = 0.0, np.nan
    fit = fit_scale(relative, depth_m)
    assert fit.anchor_count == 60 and fit.scale == pytest.approx(3.0, rel=1e-3)


def test_confidence_grows_with_agreement_and_count():
    relative, depth_m = anchors(300)
    rng = np.random.default_rng(5)
    confidences = [fit_scale(relative, depth_m * np.exp(rng.normal(0, sigma, 300))).confidence
                   for sigma in (0.02, 0.1, 0.3)]
    assert confidences == sorted(confidences, reverse=True)
    assert fit_scale(*anchors(12)).confidence < 0.5 < fit_scale(*anchors(200)).confidence


def test_too_few_anchors_and_unequal_lengths_are_rejected():
    with pytest.raises(InputError, match='at least 10 anchors .* got 9'):
        fit_scale(*anchors(9))
    with pytest.raises(InputError, match='the same length; got 9, 10 and 9'):
        fit_scale(np.zeros(9, np.float32), np.ones(10, np.float32), np.ones(9, np.float32))


def test_the_same_anchors_give_the_same_fit():
    relative, depth_m = anchors(3000)
    depth_m = depth_m + np.random.default_rng(6).normal(0, 0.3, 3000).astype(np.float32)
    first = fit_scale(relative, depth_m)
    assert fit_scale(relative, depth_m) == first


@pytest.mark.filterwarnings('error')
def test_carried_depth_may_be_nearer_than_0():
    """Small proportions would put some anchors behind the camera."""
    relative = np.linspace(-0.2, 1.0, 200, dtype=np.float32)
    found = fit_scale(relative, 3.0 * relative + 1.0)
    assert (found.scale, found.shift) == pytest.approx((3.0, 1.0), rel=0.01)
    behind = fit_scale(np.where(np.arange(200) % 10, relative, -2.0), 3.0 * relative + 1.0)
    assert (behind.scale, behind.shift) == pytest.approx((3.0, 1.0), rel=0.01)
    assert behind.inlier_fraction == pytest.approx(0.9)
