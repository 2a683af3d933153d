"""Conversion of relative depth to the metric depth that is published."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.metric.field import DepthField
from marigold_ros.metric.outputs import (
    depth_sigma,
    metric_confidence,
    metric_depth,
    PointFilter,
    select_points,
)
from marigold_ros.metric.types import MetricScale

K = np.array([[100.0, 0.0, 0.0], [0.0, 100.0, 0.0], [0.0, 0.0, 1.0]])
SCALE = MetricScale(scale=10.0, shift=0.05, confidence=1.0, sources=('depth',))


def row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_every_pixel_is_metric_depth_or_marked_invalid():
    relative = row(0.0, 0.195, 0.195, 0.195, np.nan, 0.995, 2.5, 2.5)
    confidence = row(1.0, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0, 1.0)
    depth_m = metric_depth(relative, confidence, K, SCALE, DepthFilter(confidence_min=0.5))
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(
        depth_m, row(-np.inf, 2.0, np.nan, 2.0, np.nan, 10.0, np.inf, np.inf), rtol=1e-6)


def test_depth_0_is_too_near():
    at_camera = MetricScale(scale=1.0, shift=0.0, confidence=1.0, sources=('depth',))
    depth_m = metric_depth(np.zeros((3, 3), np.float32), None, K, at_camera, DepthFilter())
    assert (depth_m == -np.inf).all()


def test_sky_is_masked_by_relative_depth():
    depth_m = metric_depth(row(0.5, 0.99), None, K, SCALE, DepthFilter(max_relative_depth=0.98))
    np.testing.assert_allclose(depth_m, row(5.05, np.inf))


def test_depth_that_is_not_covered_is_unknown_before_edges_are_sought():
    relative, confidence = row(0.1, 0.1, 0.3, 0.6, 0.6, 3.0), np.ones((1, 6), np.float32)
    for hidden in range(6):
        covered = np.arange(6)[None] != hidden
        known = np.where(covered, relative, np.float32(np.nan))
        np.testing.assert_array_equal(
            metric_depth(relative, confidence, K, SCALE, DepthFilter(), covered=covered),
            metric_depth(known, confidence, K, SCALE, DepthFilter()))


def test_metric_depth_is_written_to_given_memory():
    out = np.empty((1, 2), np.float32)
    assert metric_depth(row(0.5, 0.9), None, K, SCALE, DepthFilter(), out=out) is out
    np.testing.assert_allclose(out, row(5.05, 9.05))


# The local correction of a frame

def field(factor: float = 1.0, sigma: float = 0.1) -> DepthField:
    """Return a correction of the right half of the image."""
    factors = np.ones((60, 80), np.float32)
    factors[:, 40:] = factor
    return DepthField(factors, np.full((30, 40), sigma, np.float32), np.ones(1, np.float32))


def test_metric_depth_is_corrected_by_the_field_before_it_is_limited():
    """By 2 in the right half, which brings 6 m beyond the range of 10 m."""
    scale = replace(SCALE, shift=1.0, field=field(2.0))
    relative = np.tile(np.array([[0.1], [0.5]], np.float32), (60, 160))
    depth_m = metric_depth(relative, None, K, scale, DepthFilter(max_depth_m=10.0))
    np.testing.assert_allclose(depth_m[:2, [10, 150]], [[2.0, 4.0], [6.0, np.inf]], rtol=1e-6)


def test_depth_without_a_field_is_not_corrected():
    depth_m = metric_depth(row(0.195, 0.195), None, K, SCALE, DepthFilter())
    np.testing.assert_allclose(depth_m, row(2.0, 2.0))


def test_confidence_is_that_of_the_field_and_else_of_the_prediction():
    predicted, size = np.full((120, 160), 0.3, np.float32), (120, 160)
    for scale in (None, SCALE):  # unknown, and assumed
        assert metric_confidence(predicted, scale, size) is predicted
        assert metric_confidence(None, scale, size) is None
    for given in (predicted, None):
        found = metric_confidence(given, replace(SCALE, field=field()), size)
        assert (found.shape, found.dtype) == (size, np.float32)
        # log 1.25 = 0.2231 is 2.231 standard deviations: 97.4 %.
        assert found == pytest.approx(0.974, abs=1e-3)


def test_sigma_is_proportional_to_depth_and_unknown_where_depth_is_not_finite():
    sigma_m = depth_sigma(row(2.0, 5.0, np.nan, np.inf, -np.inf), field(sigma=0.1))
    np.testing.assert_allclose(sigma_m, row(0.2, 0.5, np.nan, np.nan, np.nan), rtol=1e-6)


def test_sigma_is_written_to_given_memory():
    out = np.empty((1, 2), np.float32)
    assert depth_sigma(row(2.0, np.inf), field(), out) is out
    np.testing.assert_allclose(out, row(0.2, np.nan))


# Points

def test_every_stride_th_pixel_becomes_a_point():
    depth_m = np.arange(1.0, 26.0, dtype=np.float32).reshape(5, 5)
    found = select_points(depth_m, None, K, PointFilter(stride=2, min_surface_angle_deg=0.0))
    np.testing.assert_array_equal(found, [[1, 3, 5], [11, 13, 15], [21, 23, 25]])
    assert depth_m[0, 1] == 2.0


@pytest.mark.parametrize(('angle_deg', 'removed'), [(0.0, False), (20.0, False), (25.0, True)])
def test_a_ramp_steeper_than_the_angle_becomes_no_point(angle_deg, removed):
    """
    A ramp of 2.0, 2.2, 2.42 m: it rises by 10 % a point.

    Points 4 px apart at a focal length of 100 px have f = 25 px, so that tan(angle) of the ray and
    the ramp is 1 / (25 * 0.1) = 0.4, which is 21.8 degrees.
    """
    depth_m = np.repeat(row(2.0, 2.0, 2.2, 2.42, 2.42), 4, axis=1)
    found = select_points(depth_m, None, K, PointFilter(4, angle_deg))
    np.testing.assert_allclose(found, row(2.0, 2.0, np.nan if removed else 2.2, 2.42, 2.42))


def test_depth_of_a_low_or_unknown_confidence_becomes_no_point():
    confidence = row(0.9, 0.5, 0.49, np.nan)
    found = select_points(row(1.0, 2.0, 3.0, 4.0), confidence, K, PointFilter(1, 0.0, 0.5))
    np.testing.assert_array_equal(found, row(1.0, 2.0, np.nan, np.nan))


def test_confidence_does_not_matter_without_a_limit_or_a_confidence():
    depth_m = row(1.0, 2.0)
    for confidence, limit in ((row(0.0, np.nan), 0.0), (None, 0.9)):
        np.testing.assert_array_equal(
            select_points(depth_m, confidence, K, PointFilter(1, 0.0, limit)), depth_m)


def test_the_selection_keeps_the_depth_that_it_is_made_from():
    depth_m = row(1.0, 2.0, 3.0)
    points_m = select_points(depth_m, row(1.0, 1.0, 0.0), K, PointFilter(2, 0.0, 0.5))
    np.testing.assert_array_equal(points_m, row(1.0, np.nan))
    np.testing.assert_array_equal(depth_m, row(1.0, 2.0, 3.0))
