"""Conversion of relative depth to the metric depth that is published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.geometry.filters import DepthFilter, iterate_strips
from marigold_ros.metric.types import MetricScale

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, Mask

# Default distance between the pixels that become points of the cloud, along both axes.
POINT_STRIDE = 4


def metric_depth(affine_invariant_depth: FloatImage, confidence: FloatImage | None,
                 K: NDArray[np.float64], scale: MetricScale, depth_filter: DepthFilter, *,
                 covered: Mask | None = None, out: FloatImage | None = None) -> FloatImage:
    """
    Convert the relative depth of one frame to metric depth and mask invalid pixels.

    Parameters
    ----------
    affine_invariant_depth : float32 [H, W]
        0 near, 1 far; NaN unknown.
    confidence : float32 [H, W] or None
        Confidence of that depth, in [0, 1], 1 is certain.
    K : float64 [3, 3]
        Intrinsics of the rectified image, px.
    scale : MetricScale
        Scale of this frame.
    depth_filter : DepthFilter
    covered : bool [H, W] or None
        Pixels whose depth is known; None: all that are not NaN.
    out : float32 [H, W] or None
        Output array; None: a new one.

    Returns
    -------
    float32 [H, W]
        Depth along Z, m, by REP-117: NaN unknown, -Inf too near, +Inf beyond the range or sky.

    Examples
    --------
    >>> relative = np.array([[0.0, 0.25, 1.0, np.nan]], np.float32)
    >>> K = np.array([[100.0, 0.0, 2.0], [0.0, 100.0, 0.5], [0.0, 0.0, 1.0]])
    >>> scale = MetricScale(scale=8.0, shift=1.0, confidence=1.0, source='depth', assumed=False)
    >>> depth_filter = DepthFilter(min_depth_m=0.1, max_depth_m=5.0, min_surface_angle_deg=0.0)
    >>> metric_depth(relative, None, K, scale, depth_filter)
    array([[ 1.,  3., inf, nan]], dtype=float32)
    """
    depth_m = np.empty_like(affine_invariant_depth) if out is None else out
    for rows in iterate_strips(*depth_m.shape):
        scale.to_metric_depth(affine_invariant_depth[rows], depth_m[rows])
        depth_filter.mark_single_pixels(depth_m[rows], affine_invariant_depth[rows],
                                        None if confidence is None else confidence[rows])
        if covered is not None:
            np.copyto(depth_m[rows], np.nan, where=~covered[rows])
    depth_filter.mark_flying_pixels(depth_m, K)
    return depth_m
