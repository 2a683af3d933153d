"""Metric anchors: image pixels whose metric depth another sensor measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.unproject import project, unproject_pixels

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

Matrix = NDArray[np.float64]

# More anchors do not improve the fit and cost time.
MAX_ANCHORS = 4000
# A sensor beside the camera sees surfaces that the camera does not.  In each cell of this width
# only points within 10 % of the nearest one are kept.
CELL_PX, MAX_DEPTH_RATIO = 16, 1.1
# Sensors closer to each other than this see the same surfaces.
MIN_BASELINE_M = 0.01
# Rows and columns of the grid that measures the coverage.
COVERAGE_GRID = (6, 8)


@dataclass(frozen=True, eq=False)
class Anchors:
    """
    Pixels with known metric depth.

    Attributes
    ----------
    rows, columns : int64 [n]
        Pixel indices in the camera's rectified image.
    depth_m : float32 [n]
        Depth along the camera's Z, m, above 0.
    stamp_ns : int
        Time of the measurement, ns.
    sigma_log : float32 [n] or None
        Standard deviation of the logarithm of each depth; None: small.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    depth_m: NDArray[np.float32]
    stamp_ns: int = 0
    sigma_log: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of anchors."""
        return len(self.depth_m)

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Anchors:
        """Return some of the anchors."""
        return Anchors(self.rows[chosen], self.columns[chosen], self.depth_m[chosen],
                       self.stamp_ns, None if self.sigma_log is None else self.sigma_log[chosen])

    def joined(self, other: Anchors) -> Anchors:
        """Return these anchors and others after them; the time is that of the newer ones."""
        sigma_log = None
        if self.sigma_log is not None or other.sigma_log is not None:
            sigma_log = np.concatenate([
                np.zeros(len(each), np.float32) if each.sigma_log is None else each.sigma_log
                for each in (self, other)])
        return Anchors(np.concatenate([self.rows, other.rows]),
                       np.concatenate([self.columns, other.columns]),
                       np.concatenate([self.depth_m, other.depth_m]),
                       max(self.stamp_ns, other.stamp_ns), sigma_log)

    def points(self, K: Matrix) -> Matrix:
        """Return their points in the optical frame of a camera with intrinsics K, [n, 3], m."""
        return unproject_pixels(self.rows, self.columns, self.depth_m, K)

    def coverage(self, size: tuple[int, int]) -> float:
        """Compute the fraction of grid cells with anchors in an image of (height, width) px."""
        down, across = COVERAGE_GRID
        cells = (self.rows * down // size[0]) * across + self.columns * across // size[1]
        return len(np.unique(cells)) / (down * across)


def anchors_from_points(points: FloatImage, camera_from_sensor: Matrix, K: Matrix,
                        size: tuple[int, int], stamp_ns: int = 0) -> Anchors:
    """
    Project 3D points, for example of a lidar, into the image.

    Parameters
    ----------
    points : float32 [..., 3]
        Points in the sensor's coordinate frame, m; points that are not finite are ignored, and
        of several on one pixel only the nearest counts.
    camera_from_sensor : float64 [4, 4]
        Pose of the sensor in the camera's optical frame.
    K : float64 [3, 3]
        Intrinsics of the rectified image, px.
    size : (int, int)
        Height and width of the image, px.
    stamp_ns : int
        Time of the measurement, ns.

    Returns
    -------
    Anchors
        At most `MAX_ANCHORS`, spread evenly over the points, without occluded points.

    Raises
    ------
    InputError
        If the points are not [..., 3], none is finite, or none projects into the image.

    Examples
    --------
    A point 2 m ahead and 0.5 m below the optical axis, and one behind the camera:

    >>> K = np.array([[100.0, 0.0, 80.0], [0.0, 100.0, 60.0], [0.0, 0.0, 1.0]])
    >>> points = np.array([[0.0, 0.5, 2.0], [0.0, 0.0, -1.0]], np.float32)
    >>> anchors = anchors_from_points(points, np.eye(4), K, size=(120, 160))
    >>> anchors.rows, anchors.columns, anchors.depth_m
    (array([85]), array([80]), array([2.], dtype=float32))
    """
    if points.ndim < 2 or points.shape[-1] != 3:
        raise InputError(f'`points` must have the shape [..., 3]; got {points.shape}')
    xyz = np.asarray(points, np.float64).reshape(-1, 3)
    xyz = xyz[np.isfinite(xyz).all(axis=1)]
    if not len(xyz):
        raise InputError('the reference has no measured point: each is NaN, Inf or "no return"')
    xyz = xyz @ camera_from_sensor[:3, :3].T + camera_from_sensor[:3, 3]
    z = xyz[:, 2]
    columns, rows = np.rint(project(xyz, K)).T  # NaN behind the camera
    seen = (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])
    if not seen.any():
        raise InputError("no point of the reference projects into the camera's image: check the "
                         "sensor's extrinsics and the camera's intrinsics")
    rows, columns, z = rows[seen].astype(np.int64), columns[seen].astype(np.int64), z[seen]
    nearest = _nearest_per_pixel(rows * size[1] + columns, z)
    rows, columns, z = rows[nearest], columns[nearest], z[nearest]
    if np.linalg.norm(camera_from_sensor[:3, 3]) > MIN_BASELINE_M:
        visible = find_unoccluded(rows, columns, z, size)
        rows, columns, z = rows[visible], columns[visible], z[visible]
    chosen = choose_evenly(len(z), MAX_ANCHORS)
    return Anchors(rows[chosen], columns[chosen], z[chosen].astype(np.float32), stamp_ns)


def anchors_from_depth(depth_m: FloatImage, reference_K: Matrix, camera_from_reference: Matrix,
                       K: Matrix, size: tuple[int, int], stamp_ns: int = 0) -> Anchors:
    """
    Project the depth image of another camera into the image.

    Parameters
    ----------
    depth_m : float32 [h, w]
        Depth along Z of the other camera, rectified, m; NaN unknown.
    reference_K : float64 [3, 3]
        Intrinsics of the other camera, px.
    camera_from_reference : float64 [4, 4]
        Pose of the other camera's optical frame in this camera's optical frame.
    K, size, stamp_ns
        See `anchors_from_points`.

    Returns
    -------
    Anchors

    Raises
    ------
    InputError
        If the depth is not [h, w], has no finite pixel, or none projects into the image.

    Examples
    --------
    A depth image of half the width and height, from the same optical centre:

    >>> K = np.array([[100.0, 0.0, 80.0], [0.0, 100.0, 60.0], [0.0, 0.0, 1.0]])
    >>> reference_K = np.array([[50.0, 0.0, 40.0], [0.0, 50.0, 30.0], [0.0, 0.0, 1.0]])
    >>> depth_m = np.full((60, 80), np.nan, np.float32)
    >>> depth_m[10, 20] = 3.0
    >>> anchors = anchors_from_depth(depth_m, reference_K, np.eye(4), K, size=(120, 160))
    >>> anchors.rows, anchors.columns, anchors.depth_m
    (array([20]), array([40]), array([3.], dtype=float32))
    """
    if depth_m.ndim != 2:
        raise InputError(f'`depth_m` must have the shape [h, w]; got {depth_m.shape}')
    stride = max(1, int(np.sqrt(depth_m.size / (2 * MAX_ANCHORS))))
    rows, columns = np.mgrid[stride // 2:depth_m.shape[0]:stride,
                             stride // 2:depth_m.shape[1]:stride]
    z = depth_m[rows, columns].astype(np.float64)
    if not np.isfinite(z).any():
        raise InputError('the reference depth has no finite pixel')
    points = unproject_pixels(rows, columns, z, reference_K)
    return anchors_from_points(points.astype(np.float32), camera_from_reference, K, size, stamp_ns)


def choose_evenly(length: int, count: int) -> NDArray[np.int64]:
    """Return `count` indices of `length` values or, if these are fewer, all; evenly spread."""
    return np.linspace(0, length - 1, min(length, count)).astype(np.int64)


def _nearest_per_pixel(pixel: NDArray[np.int64], z: Matrix) -> NDArray[np.int64]:
    """Return the indices, in order, of the nearest point of every pixel that has points [n]."""
    by_depth = np.argsort(z, kind='stable')
    _, first = np.unique(pixel[by_depth], return_index=True)
    return np.sort(by_depth[first])


def find_unoccluded(rows: NDArray[np.int64], columns: NDArray[np.int64], z: Matrix,
                    size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which points [n] are close in depth to the nearest point of their cell."""
    if not len(z):
        return np.zeros(0, bool)
    across = size[1] // CELL_PX + 1
    cell = rows // CELL_PX * across + columns // CELL_PX
    nearest = np.full(int(cell.max()) + 1, np.inf)
    np.minimum.at(nearest, cell, z)
    return np.asarray(z <= MAX_DEPTH_RATIO * nearest[cell])
