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


def test_least_square_disparity_removes_scale_and_shift_of_inverse_depth():
    target = np.array([[1.0, 2.0], [4.0, 8.0]])
    disparity = 5.0 / target + 2.0
    metrics = depth_metrics(
        disparity, target, np.ones((2, 2), bool), alignment='least_square_disparity', **RANGE)
    assert metrics['abs_rel'] == pytest.approx(0.0, abs=1e-9)


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


def test_align_brings_every_pixel_into_metres_but_fits_the_valid_ones():
    target = np.array([[1.0, 2.0, 3.0, np.inf, np.nan]])
    prediction = np.array([[0.1, 0.2, 0.3, 0.5, 9.0]])
    valid = np.isfinite(target)
    aligned = align(prediction, target, valid, alignment='least_square', **RANGE)
    assert aligned[0].tolist() == pytest.approx([1.0, 2.0, 3.0, 5.0, 10.0])  # clipped


@pytest.mark.parametrize(('change', 'message'), [
    ({'target_m': np.ones((2, 3))}, r'one shape; got \(2, 2\), \(2, 3\)'),
    ({'valid': np.zeros((2, 2), bool)}, 'must have a valid pixel'),
    ({'valid': np.ones((2, 2))}, 'must be bool; got float64'),
    ({'prediction': np.full((2, 2), np.nan)}, '`prediction` must be finite'),
    ({'target_m': np.full((2, 2), np.nan)}, '`target_m` must not be NaN'),
    ({'alignment': 'median'}, "got 'median'"),
])
def test_bad_input_is_named(change, message):
    arguments = {
        'prediction': np.ones((2, 2)), 'target_m': np.ones((2, 2)),
        'valid': np.ones((2, 2), bool), 'alignment': 'least_square', **RANGE} | change
    with pytest.raises(InputError, match=message):
        depth_metrics(**arguments)


def test_vertical_ramp_is_far_above_and_near_below():
    assert vertical_ramp(3, 2).tolist() == [[1.0, 1.0], [0.5, 0.5], [0.0, 0.0]]
