"""Conversion of relative depth to the metric depth that is published."""

from __future__ import annotations

import numpy as np

from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.metric.outputs import metric_depth
from marigold_ros.metric.types import MetricScale

K = np.array([[100.0, 0.0, 0.0], [0.0, 100.0, 0.0], [0.0, 0.0, 1.0]])
SCALE = MetricScale(scale=10.0, shift=0.05, confidence=1.0, source='depth', assumed=False)


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
    at_camera = MetricScale(scale=1.0, shift=0.0, confidence=1.0, source='depth', assumed=False)
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
