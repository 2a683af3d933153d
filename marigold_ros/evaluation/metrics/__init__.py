"""Depth metrics; every result names the protocol that produced it."""

from marigold_ros.evaluation.metrics.protocol_a import depth_metrics

__all__ = ['depth_metrics']
