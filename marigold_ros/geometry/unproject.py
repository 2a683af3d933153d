"""Pinhole geometry: unproject depth images to organized points and project points to pixels."""

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
    Unproject a depth image to organized points.

    x = (u - cx) z / fx, y = (v - cy) z / fy, as in depth_image_proc's convertDepth; pixel centres
    have integer coordinates.

    Parameters
    ----------
    depth_m : float32 [H, W]
        Depth along Z of the rectified image, m.
    K : float64 [3, 3]
        Intrinsics of that image, px; skew is assumed to be 0, as in CameraInfo.
    stride : int
        Use pixels 0, stride, 2 stride, ... of both axes.
    out : float32 [ceil(H / stride), ceil(W / stride), 3] or None
        Output array, for example the data of a message.

    Returns
    -------
    float64 [ceil(H / stride), ceil(W / stride), 3], or `out`
        x right, y down, z forward in the optical frame, m.  All three are NaN if the depth is
        not finite or not above 0.  The default is float64, since rounding to float32 moves a
        point by up to ``abs(u - cx) / 2^24`` px, which exceeds 1e-4 px in images wider than
        3 354 px.

    Raises
    ------
    InputError
        If the depth is not 2-D, the stride is below 1, K has no focal length or `out` has another
        shape.

    Examples
    --------
    >>> K = np.array([[100.0, 0.0, 1.0], [0.0, 100.0, 0.0], [0.0, 0.0, 1.0]])
    >>> unproject(np.array([[2.0, 2.0, np.nan]], np.float32), K).tolist()
    [[[-0.02, 0.0, 2.0], [0.0, 0.0, 2.0], [nan, nan, nan]]]
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
    # Without skew a ray's x depends only on the column and its y only on the row.  These two
    # vectors take microseconds to compute, so they are not cached.
    ray_x = (np.arange(0, width, stride) - K[0, 2]) / K[0, 0]
    ray_y = (np.arange(0, height, stride) - K[1, 2]) / K[1, 1]
    z = np.array(z)
    np.copyto(z, np.nan, where=~((z > 0) & (z < np.inf)))
    np.multiply(z, ray_x, out=points[..., 0], casting='same_kind')
    np.multiply(z, ray_y[:, None], out=points[..., 1], casting='same_kind')
    points[..., 2] = z
    return points


def unproject_pixels(rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]],
                     z: NDArray[np.floating[Any]], K: NDArray[np.float64]
                     ) -> NDArray[np.float64]:
    """
    Unproject single pixels to points, as `unproject` does whole images.

    Parameters
    ----------
    rows, columns : int [...]
        Pixels of the rectified image.
    z : float [...]
        Their depth, m; NaN stays NaN.
    K : float64 [3, 3]
        Intrinsics, px; skew is assumed to be 0.

    Returns
    -------
    float64 [..., 3]
        Points in the optical frame, m.

    Examples
    --------
    >>> K = np.array([[100.0, 0.0, 32.0], [0.0, 100.0, 24.0], [0.0, 0.0, 1.0]])
    >>> unproject_pixels(np.array([24, 29]), np.array([32, 42]), np.array([2.0, 2.0]), K).tolist()
    [[0.0, 0.0, 2.0], [0.2, 0.1, 2.0]]
    """
    z = np.asarray(z, np.float64)
    return np.stack([(columns - K[0, 2]) / K[0, 0] * z, (rows - K[1, 2]) / K[1, 1] * z, z],
                    axis=-1)


def project(points: Points, K: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Project points into the rectified image.

    Parameters
    ----------
    points : float [..., 3]
        Points in the optical frame, m.
    K : float64 [3, 3]
        Intrinsics, px; skew is assumed to be 0.

    Returns
    -------
    float64 [..., 2]
        Column u and row v, px; NaN for points that are NaN or not in front of the camera.

    Examples
    --------
    >>> K = np.array([[100.0, 0.0, 32.0], [0.0, 100.0, 24.0], [0.0, 0.0, 1.0]])
    >>> project(np.array([[0.0, 0.0, 2.0], [0.2, 0.1, 2.0], [0.0, 0.0, -1.0]]), K).tolist()
    [[32.0, 24.0], [42.0, 29.0], [nan, nan]]
    """
    xyz = np.asarray(points, np.float64)
    z = np.where(xyz[..., 2:] > 0, xyz[..., 2:], np.nan)
    return np.asarray(xyz[..., :2] / z * (K[0, 0], K[1, 1]) + (K[0, 2], K[1, 2]), np.float64)
