"""The one way from relative depth to the metric depth that is published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.metric.types import MetricScale

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

# Every how many pixels, along both axes, a cloud has a point unless the user says otherwise.
POINT_STRIDE = 4


def metric_depth(affine_invariant_depth: FloatImage, confidence: FloatImage | None,
                 K: NDArray[np.float64], scale: MetricScale, depth_filter: DepthFilter
                 ) -> FloatImage:
    """
    Turn the relative depth of one frame into metres, and mark what must not be an obstacle.

    Parameters
    ----------
    affine_invariant_depth : float32 [H, W]
        0 near, 1 far; NaN is unknown.
    confidence : float32 [H, W] or None
        Of that depth, in [0, 1], 1 sure.
    K : float64 [3, 3]
        Intrinsics of the rectified image, px.
    scale : MetricScale
        Of this frame.
    depth_filter : DepthFilter

    Returns
    -------
    float32 [H, W]
        Depth along Z, m, by REP-117: NaN unknown, -Inf too near, +Inf beyond the range or sky.
    """
    return depth_filter.apply(scale.to_metres(affine_invariant_depth), K,
                              affine_invariant_depth=affine_invariant_depth,
                              confidence=confidence)
