"""Pinhole geometry: depth image to organized points, and back to pixels."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

Points = NDArray[np.floating[Any]]


def unproject(depth_m: FloatImage, K: NDArray[np.float64], *, stride: int = 1,
              out: NDArray[np.float32] | None = None) -> Points:
    """
    Turn a depth image into organized points.

    x = (u - cx) z / fx, y = (v - cy) z / fy, as depth_image_proc's convertDepth; pixel centres
    have integer coordinates.

    Parameters
    ----------
    depth_m : float32 [H, W]
        Depth along Z of the rectified image, m.
    K : float64 [3, 3]
        Intrinsics of that image, px; skew is taken for 0, as in CameraInfo.
    stride : int
        Take pixels 0, stride, 2 stride, ... of both axes, at their exact coordinates.
    out : float32 [ceil(H / stride), ceil(W / stride), 3] or None
        Memory to write to, a message's for example.

    Returns
    -------
    float64 [ceil(H / stride), ceil(W / stride), 3], or `out`
        x right, y down, z forward in the optical frame, m.  All three are NaN where the depth is
        not finite or not above 0.  float32 has each coordinate rounded once, which moves a point
        by up to |u - cx| / 2^24 px: less than 1e-4 px only in images up to 3 354 px wide, which is
        why float64 is the default.

    Raises
    ------
    InputError
        If the depth is not 2-D, the stride is below 1, K has no focal length or `out` has another
        shape.
    """
    if depth_m.ndim != 2:
        raise InputError(f'`depth_m` must have the shape [H, W]; got {depth_m.shape}')
    if stride < 1:
        raise InputError(f'`stride` must be at least 1; got {stride}')
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise InputError(f'`K` must have focal lengths above 0; got fx={K[0, 0]}, fy={K[1, 1]}')
    height, width = depth_m.shape
    z = depth_m[::stride, ::stride]
    points: Points = np.empty((*z.shape, 3), np.float64) if out is None else out
    if points.shape != (*z.shape, 3):
        raise InputError(f'`out` must have the shape {(*z.shape, 3)}; got {points.shape}')
    # Without skew a ray's x depends on the column and its y on the row alone: two short vectors
    # that cost microseconds, so there is nothing to cache.
    ray_x = (np.arange(0, width, stride) - K[0, 2]) / K[0, 0]
    ray_y = (np.arange(0, height, stride) - K[1, 2]) / K[1, 1]
    z = np.where((z > 0) & (z < np.inf), z, np.nan)
    np.multiply(z, ray_x, out=points[..., 0], casting='same_kind')
    np.multiply(z, ray_y[:, None], out=points[..., 1], casting='same_kind')
    points[..., 2] = z
    return points


def project(points: Points, K: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Project points into the rectified image.

    Parameters
    ----------
    points : float [..., 3]
        Points in the optical frame, m.
    K : float64 [3, 3]
        Intrinsics, px; skew is taken for 0.

    Returns
    -------
    float64 [..., 2]
        Column u and row v, px; NaN for points that are NaN or not in front of the camera.
    """
    xyz = np.asarray(points, np.float64)
    z = np.where(xyz[..., 2:] > 0, xyz[..., 2:], np.nan)
    return np.asarray(xyz[..., :2] / z * (K[0, 0], K[1, 1]) + (K[0, 2], K[1, 2]), np.float64)
