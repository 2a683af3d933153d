"""Rules of scale sources: no metres without a reason."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import ConfigError
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.sources import make_scale_source, ScaleSource
from marigold_ros.metric.types import MetricScale, ScaleFrame


def frame(camera: str = 'front', stamp_ns: int = 0) -> ScaleFrame:
    return ScaleFrame(camera, stamp_ns, np.zeros((2, 2), np.float32), None, np.eye(3))


def fixed(low: float, high: float) -> ScaleSource:
    return make_scale_source(ScaleConfig('fixed', low, high))


def test_metres_are_scale_times_depth_plus_shift_in_float32():
    scale = MetricScale(scale=4.0, shift=0.5, confidence=1.0, source='depth', assumed=False)
    depth_m = scale.to_metres(np.array([[0.0, 0.25, 1.0, np.nan]], np.float32))
    assert depth_m.dtype == np.float32
    np.testing.assert_array_equal(depth_m, [[0.5, 1.5, 4.5, np.nan]])


def test_the_relative_depth_is_not_changed():
    relative = np.array([[0.25]], np.float32)
    fixed(1.0, 3.0).update(frame()).metric.to_metres(relative)
    assert relative[0, 0] == 0.25


def test_fixed_spreads_zero_to_one_over_the_range():
    scale = fixed(0.5, 8.0).update(frame()).metric
    np.testing.assert_array_equal(
        scale.to_metres(np.array([[0.0, 1.0]], np.float32)), [[0.5, 8.0]])


def test_fixed_is_labelled_as_an_assumption_without_confidence():
    scale = fixed(0.5, 8.0).update(frame()).metric
    assert scale.assumed and scale.confidence == 0.0 and scale.source == 'fixed'


def test_fixed_outlives_a_reset():
    source = fixed(0.5, 8.0)
    before = source.update(frame())
    source.reset()
    assert source.update(frame('rear', 10)) == before


def test_none_never_knows_metres_whatever_the_range():
    source = make_scale_source(ScaleConfig('none', 0.5, 8.0))
    source.reset()
    assert source.update(frame()).metric is None


@pytest.mark.parametrize('source, low, high, match', [
    ('lidar', None, None, "`scale.source` must be one of none, fixed, .*; got 'lidar'"),
    ('fixed', None, 8.0, '`scale.min_depth_m` and `scale.max_depth_m` must be set .* got None'),
    ('fixed', 0.5, None, 'must be set in metres .* got 0.5 and None'),
    ('fixed', 0.0, 8.0, '`scale.min_depth_m` must be finite and above 0 m; got 0.0'),
    ('fixed', float('nan'), 8.0, '`scale.min_depth_m` .* got nan'),
    ('fixed', 2.0, 2.0, r'`scale.max_depth_m` .* \(2.0 m\); got 2.0'),
    ('fixed', 2.0, float('inf'), '`scale.max_depth_m` must be finite'),
])
def test_wrong_settings_are_refused_by_parameter_name(source, low, high, match):
    with pytest.raises(ConfigError, match=match):
        make_scale_source(ScaleConfig(source, low, high))
