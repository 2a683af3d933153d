"""Accuracy and completeness of depth edges: distances between hand-made walls."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.edges import edge_errors

SHAPE = (60, 80)


def step(column, near_m=1.0, far_m=4.0):
    """Return a wall at near_m before one at far_m, the edge left of a column."""
    depth_m = np.full(SHAPE, far_m)
    depth_m[:, :column] = near_m
    return depth_m


def test_the_same_edges_have_no_distance_at_any_scale():
    assert edge_errors(step(40), step(40)) == (0.0, 0.0)
    assert edge_errors(5 * step(40) + 1, step(40)) == (0.0, 0.0)


@pytest.mark.parametrize('shift', [1, 3, 8])
def test_an_edge_beside_its_place_is_as_far_off_as_it_is_shifted(shift):
    assert edge_errors(step(40 + shift), step(40)) == pytest.approx((shift, shift))


def test_what_is_farther_than_10_px_is_no_match():
    # As published: without any match both are 10.
    assert edge_errors(step(60), step(40)) == (10.0, 10.0)


def test_a_flat_prediction_has_no_edge():
    assert edge_errors(np.full(SHAPE, 2.0), step(40)) == (10.0, 10.0)


def test_missed_edges_cost_completeness_alone():
    two = step(20)
    two[:, 60:] = 7.0
    accuracy_px, completeness_px = edge_errors(step(20), two)
    assert accuracy_px == 0.0
    # One column of edges is found with 0 px, the other one is 10 px or more away from any: three
    # columns in all, of which one counts 10.
    assert completeness_px == pytest.approx(10 / 3, abs=0.2)


def test_a_truth_without_edges_or_too_sparse_to_show_them_tells_nothing():
    assert np.isnan(edge_errors(step(40), np.full(SHAPE, 2.0))).all()
    sparse = np.full(SHAPE, np.nan)
    sparse[::4, ::4] = step(40)[::4, ::4]
    assert np.isnan(edge_errors(step(40), sparse)).all()


def test_edges_beside_gaps_of_the_sensor_do_not_count():
    gap = step(40)
    gap[:, 36:44] = np.nan    # the shadow of a Kinect at every border
    assert np.isnan(edge_errors(step(40), gap)).all()
    hole = step(40)
    hole[20:30, 10:20] = np.nan
    assert edge_errors(step(40), hole) == (0.0, 0.0)


def test_sky_is_as_far_as_the_farthest_measurement():
    sky = step(40)
    sky[:, 40:] = np.inf
    sky[0, 79] = 4.0
    assert edge_errors(step(40), sky) == (0.0, 0.0)


def test_shapes_that_differ_are_named():
    with pytest.raises(InputError, match='must have one shape'):
        edge_errors(np.ones((2, 2)), np.ones((3, 2)))
