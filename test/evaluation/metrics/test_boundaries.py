"""Boundary F1: the published definition on maps small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.boundaries import boundary_f1


def near_centre(near_m=1.0, far_m=2.0):
    """Return 3x3 px with one near pixel in the middle: one border in each direction."""
    depth_m = np.full((3, 3), far_m)
    depth_m[1, 1] = near_m
    return depth_m


def test_all_borders_found_and_no_other_is_1_at_any_scale():
    assert boundary_f1(7.0 * near_centre(), near_centre()) == pytest.approx(1.0)


def test_a_flat_prediction_is_0():
    assert boundary_f1(np.ones((3, 3)), near_centre()) == 0.0


def test_the_wrong_side_in_front_is_0():
    assert boundary_f1(near_centre(2.0, 1.0), near_centre()) == 0.0


def test_false_borders_cost_precision():
    prediction = near_centre()
    prediction[0, 0] = 1.0
    # The corner adds a border with the left and one with the upper pixel in front:
    # precision (1/2 + 1/2 + 1 + 1) / 4 = 3/4, recall 1.
    assert boundary_f1(prediction, near_centre()) == pytest.approx(2 * 0.75 / 1.75)


def test_missed_borders_cost_recall():
    truth = near_centre()
    truth[0, 0] = 1.0
    assert boundary_f1(near_centre(), truth) == pytest.approx(2 * 0.75 / 1.75)


def test_a_direction_without_a_border_counts_0_as_published():
    near_left = np.array([[1.0, 2.0], [1.0, 2.0]])
    assert boundary_f1(near_left, near_left) == pytest.approx(0.25)    # left in front only


def test_thresholds_run_from_1_05_to_1_25_with_weights_proportional_to_them():
    # A ratio of 1.1 passes the first three of ten thresholds, 1.05 + 0.2 k / 9.
    passed = 1.05 + (1.05 + 0.2 / 9) + (1.05 + 0.4 / 9)
    assert boundary_f1(near_centre(1.0, 1.1), near_centre()) == pytest.approx(passed / 11.5)


def test_it_equals_the_published_code():
    y, x = np.mgrid[:12, :16]
    truth = 2 + np.sin(1.3 * x) * np.cos(0.9 * y) + 0.05 * x
    prediction = 2 + np.sin(1.3 * x + 0.4) * np.cos(0.9 * y) + 0.04 * x
    # What SI_boundary_F1 of apple/ml-depth-pro (9efe5c1) returns for these two maps.
    assert boundary_f1(prediction, truth) == pytest.approx(0.7899608888763016, rel=1e-9)


def test_unknown_pixels_and_their_borders_do_not_count():
    truth, prediction = np.pad(near_centre(), 1, mode='edge'), np.full((5, 5), 2.0)
    truth[0, 0] = np.nan
    prediction[1:4, 1:4] = near_centre()
    prediction[0, 0] = 0.1     # a false border, but beside a pixel that nobody knows
    assert boundary_f1(prediction, truth) == pytest.approx(1.0)


def test_sky_lies_behind_everything_and_has_no_border_within():
    assert boundary_f1(near_centre(), near_centre(far_m=np.inf)) == pytest.approx(1.0)
    assert np.isnan(boundary_f1(near_centre(), np.full((3, 3), np.inf)))


def test_a_truth_without_borders_or_too_sparse_to_show_them_is_nan():
    sparse = np.full((10, 10), np.nan)
    sparse[4:7, 4:7] = near_centre()    # 12 of 180 pairs are known
    assert np.isnan(boundary_f1(np.ones((10, 10)), sparse))
    assert np.isnan(boundary_f1(near_centre(), np.ones((3, 3))))


@pytest.mark.parametrize(('depth_m', 'target_m', 'message'), [
    (np.ones((2, 3)), np.ones((2, 2)), r'one shape \[H, W\]; got \(2, 3\) and \(2, 2\)'),
    (np.zeros((2, 2)), np.ones((2, 2)), '`depth_m` must be above 0'),
    (np.full((2, 2), np.nan), np.ones((2, 2)), '`depth_m` must be above 0'),
    (np.ones((2, 2)), np.zeros((2, 2)), '`target_m` must be above 0'),
])
def test_bad_maps_are_named(depth_m, target_m, message):
    with pytest.raises(InputError, match=message):
        boundary_f1(depth_m, target_m)
