"""Mark depth that must not become an obstacle: out of range, or not trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from marigold_ros.depth.errors import InputError

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage


def limit_range(depth_m: FloatImage, min_depth_m: float, max_depth_m: float) -> FloatImage:
    """
    Mark depth outside a range by REP-117.

    Parameters
    ----------
    depth_m : float32 [H, W]
        Depth along Z, m; NaN is unknown and stays so.
    min_depth_m, max_depth_m : float
        Range that is kept, both ends included, m.

    Returns
    -------
    float32 [H, W]
        A new array: -Inf below the range, +Inf above it.

    Raises
    ------
    InputError
        Unless 0 < min_depth_m < max_depth_m: a depth of 0 would be a point at the origin.
    """
    if not 0 < min_depth_m < max_depth_m:
        raise InputError('`min_depth_m` must be above 0 and below `max_depth_m`; '
                         f'got {min_depth_m} and {max_depth_m}')
    limited = np.array(depth_m, np.float32)
    np.copyto(limited, -np.inf, where=limited < np.float32(min_depth_m))
    np.copyto(limited, np.inf, where=limited > np.float32(max_depth_m))
    return limited


def mask_low_confidence(depth_m: FloatImage, confidence: FloatImage,
                        confidence_min: float) -> FloatImage:
    """
    Mark depth that the model does not trust as unknown.

    Parameters
    ----------
    depth_m : float32 [H, W]
        Depth along Z, m.
    confidence : float32 [H, W]
        In [0, 1], 1 sure.
    confidence_min : float
        Lowest confidence that is kept.

    Returns
    -------
    float32 [H, W]
        A new array: NaN where the confidence is lower or itself NaN.

    Raises
    ------
    InputError
        If the two images differ in size.
    """
    if confidence.shape != depth_m.shape:
        raise InputError(f'`confidence` must have the shape {depth_m.shape} of the depth; '
                         f'got {confidence.shape}')
    masked = np.array(depth_m, np.float32)
    np.copyto(masked, np.nan, where=~(confidence >= confidence_min))
    return masked
