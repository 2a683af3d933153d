"""Depth metrics: formulas on hand-made pixels, alignment, and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.protocol_a import align, depth_metrics, vertical_ramp

RANGE = {'min_depth_m': 1e-3, 'max_depth_m': 10.0}


def test_formulas_on_two_pixels_without_alignment():
    target = np.array([[1.0, 2.0]])
    prediction = np.array([[2.0, 2.0]])
    metrics = depth_metrics(
        prediction, target, np.ones((1, 2), bool), alignment=None, **RANGE)
    assert metrics['abs_rel'] == pytest.approx(0.5)                    # (1/1 + 0/2) / 2
    assert metrics['sq_rel'] == pytest.approx(0.5)                     # (1/1 + 0/2) / 2
    assert metrics['rmse'] == pytest.approx(math.sqrt(0.5))
    assert metrics['rmse_log'] == pytest.approx(math.log(2) / math.sqrt(2))
    assert metrics['log10'] == pytest.approx(math.log10(2) / 2)
    assert metrics['silog'] == pytest.approx(100 * math.log(2) / 2)    # sqrt(L^2/2 - L^2/4)
    assert [metrics[f'delta{power}'] for power in (1, 2, 3)] == [0.5, 0.5, 0.5]


def test_delta_thresholds_are_powers_of_1_25_and_strict():
    target = np.ones((1, 4))
    prediction = np.array([[1.25, 1.5, 1.9, 2.0]])
    metrics = depth_metrics(
        prediction, target, np.ones((1, 4), bool), alignment=None, **RANGE)
    assert metrics['delta1'] == 0.0         # 1.25 itself is outside
    assert metrics['delta2'] == 0.5         # below 1.5625: 1.25, 1.5
    assert metrics['delta3'] == 0.75        # below 1.953: also 1.9


def test_least_square_removes_scale_and_shift_of_depth():
    target = np.array([[1.0, 2.0], [4.0, 8.0]])
    metrics = depth_metrics(
        (target - 3.0) / 7.0, target, np.ones((2, 2), bool), alignment='least_square', **RANGE)
    assert metrics['abs_rel'] == pytest.approx(0.0, abs=1e-9)
    assert metrics['delta1'] == 1.0


def test_least_square_fits_the_valid_pixels_only():
    target = np.array([[1.0, 2.0, 3.0, 100.0]])
    prediction = np.array([[0.1, 0.2, 0.3, -5.0]])
    valid = np.array([[True, True, True, False]])
    metrics = depth_metrics(prediction, target, valid, alignment='least_square', **RANGE)
    assert metrics['abs_rel'] == pytest.approx(0.0, abs=1e-9)


def test_disparity_alignment_removes_scale_and_shift():
    target = np.array([[1.0, 2.0], [4.0, 8.0]])
    disparity = 5.0 / target + 2.0
    metrics = depth_metrics(
        disparity, target, np.ones((2, 2), bool), alignment='least_square_disparity', **RANGE)
    assert metrics['abs_rel'] == pytest.approx(0.0, abs=1e-9)


def published_disparity_metrics(prediction, target_m, valid, min_depth_m, max_depth_m):
    """
    Score as `script/depth/eval.py --alignment least_square_disparity` does (b1dffaa).

    AbsRel and SqRel are `abs_relative_difference` and `squared_relative_difference` of
    `src/util/metric.py`.
    """
    valid = valid & (target_m > min_depth_m) & (target_m < max_depth_m)
    fitted = valid & (target_m > 0) & (prediction > 0)
    columns = np.stack([prediction[fitted], np.ones(fitted.sum())], axis=1)
    scale, shift = np.linalg.lstsq(columns, 1 / target_m[fitted], rcond=None)[0]
    disparity = np.clip(scale * prediction + shift, 1e-3, None)
    depth_m = np.clip(np.clip(1 / disparity, min_depth_m, max_depth_m), 1e-6, None)
    difference = np.abs(depth_m - target_m)[valid]
    return (np.mean(difference / target_m[valid]), np.mean(difference ** 2 / target_m[valid]),
            scale, shift)


@pytest.mark.parametrize('zeros', [0.0, 0.1, 0.5])
def test_disparities_of_0_or_less_are_excluded_from_the_fit(zeros):
    """The published script leaves such pixels out of the fit, but compares them."""
    rng = np.random.default_rng(5)
    target_m = rng.uniform(0.5, 9.0, (20, 30))
    prediction = 1 / target_m + rng.normal(0.0, 0.05, target_m.shape)
    prediction[rng.random(target_m.shape) < zeros] = 0.0
    valid = rng.random(target_m.shape) > 0.2
    abs_rel, sq_rel, scale, shift = published_disparity_metrics(prediction, target_m, valid, **{
        name: RANGE[name] for name in ('min_depth_m', 'max_depth_m')})
    found = depth_metrics(prediction, target_m, valid, alignment='least_square_disparity', **RANGE)
    assert (found['abs_rel'], found['sq_rel']) == pytest.approx((abs_rel, sq_rel), rel=1e-5)
    aligned = align(prediction, target_m, valid, alignment='least_square_disparity', **RANGE)
    assert aligned[1:] == pytest.approx((scale, shift), rel=1e-5)


def test_a_disparity_without_a_pixel_above_0_cannot_be_fitted():
    with pytest.raises(InputError, match='must have a pixel to fit, above 0; got none'):
        depth_metrics(np.zeros((2, 2)), np.ones((2, 2)), np.ones((2, 2), bool),
                      alignment='least_square_disparity', **RANGE)


def test_range_is_strict_and_the_prediction_is_clipped_to_it():
    target = np.array([[10.0, 5.0, 1.0]])
    prediction = np.array([[0.0, 20.0, 1.0]])
    metrics = depth_metrics(
        prediction, target, np.ones((1, 3), bool), alignment=None, min_depth_m=0.5,
        max_depth_m=10.0)
    assert metrics['abs_rel'] == pytest.approx(0.5)    # 10 m is out; |10 - 5| / 5 and 0


def test_a_constant_prediction_is_fitted_by_the_mean():
    target = np.array([[1.0, 3.0]])
    metrics = depth_metrics(
        np.full((1, 2), 0.4), target, np.ones((1, 2), bool), alignment='least_square', **RANGE)
    assert metrics['rmse'] == pytest.approx(1.0)


def test_align_applies_the_fit_to_every_pixel():
    target = np.array([[1.0, 2.0, 3.0, np.inf, np.nan]])
    prediction = np.array([[0.1, 0.2, 0.3, 0.5, 9.0]])
    valid = np.isfinite(target)
    depth_m, scale, shift = align(prediction, target, valid, alignment='least_square', **RANGE)
    assert depth_m[0].tolist() == pytest.approx([1.0, 2.0, 3.0, 5.0, 10.0])  # clipped
    assert (scale, shift) == pytest.approx((10.0, 0.0))


def test_a_given_fit_is_applied():
    target = np.array([[1.0, 2.0]])
    depth_m, *fit = align(np.array([[0.1, 0.2]]), target, target > 0, alignment='least_square',
                          fit=(5.0, 0.5), **RANGE)
    assert (depth_m[0].tolist(), fit) == (pytest.approx([1.0, 1.5]), [5.0, 0.5])


@pytest.mark.parametrize(('change', 'message'), [
    ({'target_m': np.ones((2, 3))}, r'one shape; got \(2, 2\), \(2, 3\)'),
    ({'valid': np.zeros((2, 2), bool)}, 'must have a valid pixel'),
    ({'valid': np.ones((2, 2))}, 'must be bool; got float64'),
    ({'prediction': np.full((2, 2), np.nan)}, '`prediction` must be finite'),
    ({'target_m': np.full((2, 2), np.nan)}, '`target_m` must not be NaN'),
    ({'alignment': 'median'}, "got 'median'"),
])
def test_invalid_input_is_rejected(change, message):
    arguments = {
        'prediction': np.ones((2, 2)), 'target_m': np.ones((2, 2)),
        'valid': np.ones((2, 2), bool), 'alignment': 'least_square', **RANGE} | change
    with pytest.raises(InputError, match=message):
        depth_metrics(**arguments)


def test_the_vertical_ramp_falls_from_1_to_0():
    assert vertical_ramp(3, 2).tolist() == [[1.0, 1.0], [0.5, 0.5], [0.0, 0.0]]
