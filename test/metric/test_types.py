"""The map from relative to metric depth."""

from __future__ import annotations

import numpy as np

from marigold_ros.metric.types import MetricScale

SCALE = MetricScale(scale=4.0, shift=0.5, confidence=1.0, sources=('depth',))


def test_metric_depth_is_scale_times_relative_depth_plus_shift():
    depth_m = SCALE.to_metric_depth(np.array([[0.0, 0.25, 1.0, np.nan]], np.float32))
    assert depth_m.dtype == np.float32
    np.testing.assert_array_equal(depth_m, [[0.5, 1.5, 4.5, np.nan]])


def test_the_relative_depth_is_not_modified():
    relative = np.array([[0.25]], np.float32)
    SCALE.to_metric_depth(relative)
    assert relative[0, 0] == 0.25
