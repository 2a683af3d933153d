"""Conversion of relative depth to what is published in metres: depth, its sigma, and points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.geometry.filters import DepthFilter, find_flying_pixels, iterate_strips
from marigold_ros.metric.types import MetricScale

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, Mask
    from marigold_ros.metric.field import DepthField

# Default distance between the pixels that become points of the cloud, along both axes.
POINT_STRIDE = 4


@dataclass(frozen=True)
class PointFilter:
    """
    What of the metric depth becomes points of the cloud, by which a robot navigates.

    The defaults are depth_node's.

    Attributes
    ----------
    stride : int
        Distance between the pixels that become points, along both axes, px.
    min_surface_angle_deg : float
        See `find_flying_pixels`, between pixels that are `stride` apart; larger than for depth, as
        an edge that is predicted too soft is an obstacle that does not exist.  0 disables this
        filter.
    confidence_min : float
        In [0, 1]; depth of a lower confidence becomes no point.
    """

    stride: int = POINT_STRIDE
    min_surface_angle_deg: float = 25.0
    confidence_min: float = 0.0

    def intrinsics(self, K: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the intrinsics of every stride-th pixel, px."""
        return np.asarray(K / np.array([[self.stride], [self.stride], [1.0]]), np.float64)


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
        Confidence of the metric depth, in [0, 1], see `metric_confidence`.
    K : float64 [3, 3]
        Intrinsics of the rectified image, px.
    scale : MetricScale
        Scale and field of this frame.
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
    >>> scale = MetricScale(scale=8.0, shift=1.0, confidence=1.0, sources=('depth',))
    >>> depth_filter = DepthFilter(min_depth_m=0.1, max_depth_m=5.0, min_surface_angle_deg=0.0)
    >>> metric_depth(relative, None, K, scale, depth_filter)
    array([[ 1.,  3., inf, nan]], dtype=float32)
    """
    depth_m = np.empty_like(affine_invariant_depth) if out is None else out
    factor = None if scale.field is None else scale.field.resize_factor(depth_m.shape)
    for rows in iterate_strips(*depth_m.shape):
        scale.to_metric_depth(affine_invariant_depth[rows], depth_m[rows])
        if factor is not None:
            depth_m[rows] *= factor[rows]
        depth_filter.mark_single_pixels(depth_m[rows], affine_invariant_depth[rows],
                                        None if confidence is None else confidence[rows])
        if covered is not None:
            np.copyto(depth_m[rows], np.nan, where=~covered[rows])
    depth_filter.mark_flying_pixels(depth_m, K)
    return depth_m


def metric_confidence(confidence: FloatImage | None, scale: MetricScale | None,
                      size: tuple[int, int]) -> FloatImage | None:
    """
    Return the confidence of the depth of a frame.

    Parameters
    ----------
    confidence : float32 [H, W] or None
        Of the prediction.
    scale : MetricScale or None
        None while the scale is unknown.
    size : (int, int)
        Height and width of the image, px.

    Returns
    -------
    float32 [H, W] or None
        In [0, 1].  Where the scale is measured, the probability that metric depth is right within
        a factor of 1.25; else that of the prediction.
    """
    if scale is None or scale.field is None:
        return confidence
    return scale.field.confidence(size)


def depth_sigma(depth_m: FloatImage, field: DepthField, out: FloatImage | None = None
                ) -> FloatImage:
    """
    Compute the standard deviation of metric depth.

    Parameters
    ----------
    depth_m : float32 [H, W]
        From `metric_depth`, m.
    field : DepthField
        Of the same frame.
    out : float32 [H, W] or None
        Output array; None: a new one.

    Returns
    -------
    float32 [H, W]
        m; NaN where depth is not finite.
    """
    sigma_m: FloatImage = np.multiply(depth_m, field.resize_sigma(depth_m.shape), out=out)
    np.copyto(sigma_m, np.nan, where=np.isinf(depth_m))
    return sigma_m


def select_points(depth_m: FloatImage, confidence: FloatImage | None, K: NDArray[np.float64],
                  point_filter: PointFilter) -> FloatImage:
    """
    Select the depth that becomes points.

    Parameters
    ----------
    depth_m : float32 [H, W]
        From `metric_depth`, m.
    confidence : float32 [H, W] or None
        From `metric_confidence`.
    K : float64 [3, 3]
        Intrinsics of the image, px.
    point_filter : PointFilter

    Returns
    -------
    float32 [ceil(H / stride), ceil(W / stride)]
        Depth of every stride-th pixel, m; NaN where it becomes no point.
    """
    stride = point_filter.stride
    points_m: FloatImage = np.array(depth_m[::stride, ::stride])
    if point_filter.min_surface_angle_deg > 0.0:
        np.copyto(points_m, np.nan, where=find_flying_pixels(
            points_m, point_filter.intrinsics(K), point_filter.min_surface_angle_deg))
    if confidence is not None and point_filter.confidence_min > 0.0:
        np.copyto(points_m, np.nan,
                  where=~(confidence[::stride, ::stride] >= point_filter.confidence_min))
    return points_m
