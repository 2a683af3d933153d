"""Depth metrics, each by a protocol that its result names."""

from marigold_ros.evaluation.metrics.protocol_a import depth_metrics

__all__ = ['depth_metrics']
