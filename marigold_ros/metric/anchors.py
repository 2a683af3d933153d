"""Metric anchors: pixels of the camera's image whose depth another sensor knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.unproject import project

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

Matrix = NDArray[np.float64]

# More say nothing new, and cost time.
MAX_ANCHORS = 4000
# Sensors that sit apart see past each other's edges: of a cell of the image this wide, only what
# lies within 10 % of its nearest point is kept.
CELL_PX, OCCLUSION = 16, 1.1
APART_M = 0.01
# Parts of the image, down and across, for the coverage.
GRID = (6, 8)


@dataclass(frozen=True, eq=False)
class Anchors:
    """
    Pixels with a known depth.

    Attributes
    ----------
    rows, columns : int64 [n]
        Of the camera's rectified image.
    depth_m : float32 [n]
        Along the camera's Z, m, above 0.
    stamp_ns : int
        When they were measured, ns.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    depth_m: NDArray[np.float32]
    stamp_ns: int = 0

    def coverage(self, size: tuple[int, int]) -> float:
        """Share of the image, height and width in px, in whose parts there are anchors."""
        parts = (self.rows * GRID[0] // size[0]) * GRID[1] + self.columns * GRID[1] // size[1]
        return len(np.unique(parts)) / (GRID[0] * GRID[1])


def anchors_from_points(points: FloatImage, camera_from_sensor: Matrix, K: Matrix,
                        size: tuple[int, int], stamp_ns: int = 0) -> Anchors:
    """
    Project the points of a lidar, a scanner or a map into the image.

    Parameters
    ----------
    points : float32 [..., 3]
        In the sensor's frame, m; what is not finite is left out.
    camera_from_sensor : float64 [4, 4]
        Pose of the sensor in the camera's optical frame.
    K : float64 [3, 3]
        Intrinsics of the rectified image, px.
    size : (int, int)
        Height and width of the image, px.
    stamp_ns : int
        Of the measurement.

    Returns
    -------
    Anchors
        At most `MAX_ANCHORS`, spread evenly over the points; none hidden behind a nearer one.

    Raises
    ------
    InputError
        If the points are not [..., 3], none is finite, or none falls into the image.
    """
    if points.ndim < 2 or points.shape[-1] != 3:
        raise InputError(f'`points` must have the shape [..., 3]; got {points.shape}')
    xyz = np.asarray(points, np.float64).reshape(-1, 3)
    xyz = xyz[np.isfinite(xyz).all(axis=1)]
    if not len(xyz):
        raise InputError('the reference has no finite point')
    xyz = xyz @ camera_from_sensor[:3, :3].T + camera_from_sensor[:3, 3]
    z = xyz[:, 2]
    columns, rows = np.rint(project(xyz, K)).T  # NaN behind the camera
    seen = (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])
    if not seen.any():
        raise InputError("no point of the reference falls into the camera's image: are the "
                         'transform and the intrinsics right?')
    rows, columns, z = rows[seen].astype(np.int64), columns[seen].astype(np.int64), z[seen]
    if np.linalg.norm(camera_from_sensor[:3, 3]) > APART_M:
        front = _in_front(rows, columns, z, size)
        rows, columns, z = rows[front], columns[front], z[front]
    few = np.linspace(0, len(z) - 1, min(len(z), MAX_ANCHORS)).astype(np.int64)
    return Anchors(rows[few], columns[few], z[few].astype(np.float32), stamp_ns)


def anchors_from_depth(depth_m: FloatImage, reference_K: Matrix, camera_from_reference: Matrix,
                       K: Matrix, size: tuple[int, int], stamp_ns: int = 0) -> Anchors:
    """
    Register the depth image of another camera.

    Parameters
    ----------
    depth_m : float32 [h, w]
        Along Z of the other camera, rectified, m; NaN unknown.
    reference_K : float64 [3, 3]
        Its intrinsics, px.
    camera_from_reference : float64 [4, 4]
        Pose of the other camera's optical frame in this one's.
    K, size, stamp_ns
        See `anchors_from_points`.

    Returns
    -------
    Anchors

    Raises
    ------
    InputError
        If the depth is not [h, w], has no measurement, or none falls into the image.
    """
    if depth_m.ndim != 2:
        raise InputError(f'`depth_m` must have the shape [h, w]; got {depth_m.shape}')
    stride = max(1, int(np.sqrt(depth_m.size / (2 * MAX_ANCHORS))))
    rows, columns = np.mgrid[stride // 2:depth_m.shape[0]:stride,
                             stride // 2:depth_m.shape[1]:stride]
    z = depth_m[rows, columns].astype(np.float64)
    if not np.isfinite(z).any():
        raise InputError('the reference depth has no finite pixel')
    points = np.stack([(columns - reference_K[0, 2]) / reference_K[0, 0] * z,
                       (rows - reference_K[1, 2]) / reference_K[1, 1] * z, z], axis=-1)
    return anchors_from_points(points.astype(np.float32), camera_from_reference, K, size, stamp_ns)


def _in_front(rows: NDArray[np.int64], columns: NDArray[np.int64], z: Matrix,
              size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which points lie close to the nearest of their cell."""
    across = size[1] // CELL_PX + 1
    cell = rows // CELL_PX * across + columns // CELL_PX
    nearest = np.full(int(cell.max()) + 1, np.inf)
    np.minimum.at(nearest, cell, z)
    return np.asarray(z <= OCCLUSION * nearest[cell])
