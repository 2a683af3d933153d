"""Validation of the parameters `scale.*`."""

from __future__ import annotations

import pytest

from marigold_ros.depth.errors import ConfigError
from marigold_ros.metric.config import ScaleConfig


@pytest.mark.parametrize('source, low, high, match', [
    ('lidar', None, None, "`scale.source` must be one of none, fixed, .*; got 'lidar'"),
    ('fixed', None, 8.0, '`scale.min_depth_m` and `scale.max_depth_m` must be set .* got None'),
    ('fixed', 0.5, None, 'must be set in metres .* got 0.5 and None'),
    ('fixed', 0.0, 8.0, '`scale.min_depth_m` must be finite and above 0 m; got 0.0'),
    ('fixed', float('nan'), 8.0, '`scale.min_depth_m` .* got nan'),
    ('fixed', 2.0, 2.0, r'`scale.max_depth_m` .* \(2.0 m\); got 2.0'),
    ('fixed', 2.0, float('inf'), '`scale.max_depth_m` must be finite'),
])
def test_a_validation_error_names_the_parameter(source, low, high, match):
    with pytest.raises(ConfigError, match=match):
        ScaleConfig(source, low, high)
