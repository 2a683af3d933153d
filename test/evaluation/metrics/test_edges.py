"""Boundary F1 counted by hand, and distances between the edges of walls."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.edges import TrueBoundaries, TrueEdges

SHAPE = (60, 80)


def near_centre(near_m=1.0, far_m=2.0):
    """Return 3x3 px with one near pixel in the middle: one boundary in each direction."""
    depth_m = np.full((3, 3), far_m)
    depth_m[1, 1] = near_m
    return depth_m


def boundary_f1(depth_m, target_m):
    return TrueBoundaries(target_m).compute_f1(depth_m)


def edge_errors(depth_m, target_m):
    return TrueEdges(target_m).compute_errors(depth_m)


def test_correct_boundaries_score_1_at_any_scale():
    assert boundary_f1(7.0 * near_centre(), near_centre()) == pytest.approx(1.0)


def test_a_flat_prediction_scores_0():
    assert boundary_f1(np.ones((3, 3)), near_centre()) == 0.0


def test_the_wrong_side_in_front_scores_0():
    assert boundary_f1(near_centre(2.0, 1.0), near_centre()) == 0.0


def test_false_boundaries_reduce_precision():
    prediction = near_centre()
    prediction[0, 0] = 1.0
    # The corner adds a boundary with the left and one with the upper pixel in front:
    # precision (1/2 + 1/2 + 1 + 1) / 4 = 3/4, recall 1.
    assert boundary_f1(prediction, near_centre()) == pytest.approx(2 * 0.75 / 1.75)


def test_missed_boundaries_reduce_recall():
    truth = near_centre()
    truth[0, 0] = 1.0
    assert boundary_f1(near_centre(), truth) == pytest.approx(2 * 0.75 / 1.75)


def test_a_direction_without_a_boundary_counts_0():
    near_left = np.array([[1.0, 2.0], [1.0, 2.0]])
    assert boundary_f1(near_left, near_left) == pytest.approx(0.25)    # left in front only


def test_thresholds_are_weighted_by_their_value():
    # A ratio of 1.1 passes the first three of ten thresholds, 1.05 + 0.2 k / 9.
    passed = 1.05 + (1.05 + 0.2 / 9) + (1.05 + 0.4 / 9)
    assert boundary_f1(near_centre(1.0, 1.1), near_centre()) == pytest.approx(passed / 11.5)


def test_boundary_f1_equals_the_published_code():
    y, x = np.mgrid[:12, :16]
    truth = 2 + np.sin(1.3 * x) * np.cos(0.9 * y) + 0.05 * x
    prediction = 2 + np.sin(1.3 * x + 0.4) * np.cos(0.9 * y) + 0.04 * x
    # What SI_boundary_F1 of apple/ml-depth-pro (9efe5c1) returns for these two maps.
    assert boundary_f1(prediction, truth) == pytest.approx(0.7899608888763016, rel=1e-9)


def test_unknown_pixels_and_their_boundaries_are_ignored():
    truth, prediction = np.pad(near_centre(), 1, mode='edge'), np.full((5, 5), 2.0)
    truth[0, 0] = np.nan
    prediction[1:4, 1:4] = near_centre()
    prediction[0, 0] = 0.1     # a false boundary, but next to an unknown pixel
    assert boundary_f1(prediction, truth) == pytest.approx(1.0)


def test_sky_is_behind_objects_and_has_no_inner_boundary():
    assert boundary_f1(near_centre(), near_centre(far_m=np.inf)) == pytest.approx(1.0)
    assert np.isnan(boundary_f1(near_centre(), np.full((3, 3), np.inf)))


def test_boundary_f1_without_true_boundaries_is_nan():
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
def test_invalid_maps_are_rejected_by_boundary_f1(depth_m, target_m, message):
    with pytest.raises(InputError, match=message):
        boundary_f1(depth_m, target_m)


def step(column, near_m=1.0, far_m=4.0):
    """Return a wall at near_m before one at far_m, the edge left of a column."""
    depth_m = np.full(SHAPE, far_m)
    depth_m[:, :column] = near_m
    return depth_m


def test_equal_edges_have_distance_0():
    assert edge_errors(step(40), step(40)) == (0.0, 0.0)
    assert edge_errors(5 * step(40) + 1, step(40)) == (0.0, 0.0)


@pytest.mark.parametrize('shift', [1, 3, 8])
def test_the_distance_of_a_shifted_edge_is_its_shift(shift):
    assert edge_errors(step(40 + shift), step(40)) == pytest.approx((shift, shift))


def test_an_edge_farther_than_10_px_is_no_match():
    # As published: without any match both are 10.
    assert edge_errors(step(60), step(40)) == (10.0, 10.0)


def test_a_flat_prediction_has_no_edge():
    assert edge_errors(np.full(SHAPE, 2.0), step(40)) == (10.0, 10.0)


def test_missed_edges_affect_completeness_only():
    two = step(20)
    two[:, 60:] = 7.0
    accuracy_px, completeness_px = edge_errors(step(20), two)
    assert accuracy_px == 0.0
    # One column of edges is found with 0 px, the other one is 10 px or more away from any: three
    # columns in all, of which one counts 10.
    assert completeness_px == pytest.approx(10 / 3, abs=0.2)


def test_edge_errors_without_true_edges_are_nan():
    assert np.isnan(edge_errors(step(40), np.full(SHAPE, 2.0))).all()
    sparse = np.full(SHAPE, np.nan)
    sparse[::4, ::4] = step(40)[::4, ::4]
    assert np.isnan(edge_errors(step(40), sparse)).all()


def test_edges_next_to_unknown_pixels_are_ignored():
    gap = step(40)
    gap[:, 36:44] = np.nan    # the shadow of a Kinect at every edge
    assert np.isnan(edge_errors(step(40), gap)).all()
    hole = step(40)
    hole[20:30, 10:20] = np.nan
    assert edge_errors(step(40), hole) == (0.0, 0.0)


def test_sky_is_as_far_as_the_farthest_measurement():
    sky = step(40)
    sky[:, 40:] = np.inf
    sky[0, 79] = 4.0
    assert edge_errors(step(40), sky) == (0.0, 0.0)


def test_different_shapes_are_rejected():
    with pytest.raises(InputError, match='must have one shape'):
        edge_errors(np.ones((2, 2)), np.ones((3, 2)))
