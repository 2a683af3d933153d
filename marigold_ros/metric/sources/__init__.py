"""Where metres come from, one kind of source a file."""

from __future__ import annotations

from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.sources.constant import ConstantScale
from marigold_ros.metric.sources.ground_plane import GroundPlaneScale
from marigold_ros.metric.sources.measured import MeasuredScale
from marigold_ros.metric.sources.reference import ReferenceScale

ScaleSource = ConstantScale | MeasuredScale


def make_scale_source(config: ScaleConfig) -> ScaleSource:
    """Build the scale source that the parameters ask for."""
    if config.reference is not None:
        return ReferenceScale(config)
    if config.source == 'ground_plane':
        return GroundPlaneScale(config)
    low_m, high_m = config.min_depth_m, config.max_depth_m
    if config.source == 'fixed' and low_m is not None and high_m is not None:
        return ConstantScale.fixed(low_m, high_m)
    return ConstantScale.none()
