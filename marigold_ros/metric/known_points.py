"""Points of the world whose place is known: each image gets those that it sees, by its pose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.geometry.unproject import project
from marigold_ros.metric.anchors import Anchors, CELL_PX, find_unoccluded

if TYPE_CHECKING:
    from marigold_ros.geometry.poses import Matrix

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]

# Depth that is not measured any more becomes less certain by so much a second, in log depth, for
# poses drift and things move.  Points count less and less until they reach the largest sigma, from
# which on they are not used: so they do not vanish all at once.
SIGMA_LOG_PER_S, MAX_SIGMA_LOG = 0.05, 0.2


@dataclass(frozen=True, eq=False)
class KnownPoints:
    """
    Points in a fixed coordinate frame.

    Attributes
    ----------
    points : float64 [n, 3]
        In a fixed coordinate frame, m.
    sigma_log : float64 [n]
        Standard deviation of the logarithm of the measured depth.
    measured_ns : int64 [n]
        When; -1: never.
    """

    points: Vector
    sigma_log: Vector
    measured_ns: Indices

    @classmethod
    def unknown(cls, count: int = 0) -> KnownPoints:
        """Return points of which nothing is known yet."""
        return cls(np.full((count, 3), np.nan), np.full(count, np.nan),
                   np.full(count, -1, np.int64))

    def select(self, chosen: NDArray[np.bool_] | Indices) -> KnownPoints:
        """Return some of the points."""
        return KnownPoints(self.points[chosen], self.sigma_log[chosen], self.measured_ns[chosen])

    def joined(self, other: KnownPoints) -> KnownPoints:
        """Return these points and others after them."""
        return KnownPoints(np.concatenate([self.points, other.points]),
                           np.concatenate([self.sigma_log, other.sigma_log]),
                           np.concatenate([self.measured_ns, other.measured_ns]))

    def find_visible(self, K: Matrix, world_from_camera: Matrix, stamp_ns: int,
                     size: tuple[int, int]) -> tuple[Anchors, Indices, NDArray[np.bool_]]:
        """
        Project the points into an image.

        Parameters
        ----------
        K : float64 [3, 3]
            Intrinsics of the image, px.
        world_from_camera : float64 [4, 4]
            Pose of its optical frame in the fixed coordinate frame, m.
        stamp_ns : int
            Its stamp, ns.
        size : (int, int)
            Its height and width, px.

        Returns
        -------
        anchors : Anchors
            Of the points that are certain enough and visible.
        visible : int64 [m]
            Which points these are.
        in_image : bool [n]
            Which points are certain enough and in the image; some of them are hidden by others.
        """
        camera_from_world = np.linalg.inv(world_from_camera)
        points = self.points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
        age_s = 1e-9 * np.maximum(stamp_ns - self.measured_ns, 0)
        sigma_log = np.hypot(self.sigma_log, SIGMA_LOG_PER_S * age_s)
        columns, rows = np.rint(project(points, K)).T
        in_image = ((self.measured_ns >= 0) & (sigma_log < MAX_SIGMA_LOG)
                    & (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0]))
        chosen = np.flatnonzero(in_image)
        rows, columns = rows[chosen].astype(np.int64), columns[chosen].astype(np.int64)
        unoccluded = find_unoccluded(rows, columns, points[chosen, 2], size)
        visible = chosen[unoccluded]
        newest_ns = int(self.measured_ns[visible].max(initial=0))
        fading = np.sqrt(1.0 - (sigma_log[visible] / MAX_SIGMA_LOG) ** 2)
        return Anchors(rows[unoccluded], columns[unoccluded],
                       points[visible, 2].astype(np.float32), newest_ns,
                       (sigma_log[visible] / fading).astype(np.float32)), visible, in_image


class HeldAnchors:
    """
    The anchors of one source over time: what it does not measure any more is held.

    Held points move into each image by its pose, and are replaced by newer ones in the same part
    of the image.
    """

    def __init__(self) -> None:
        """Start without points."""
        self._known = KnownPoints.unknown()

    def update(self, anchors: Anchors | None, K: Matrix, world_from_camera: Matrix | None,
               stamp_ns: int, size: tuple[int, int]) -> Anchors | None:
        """
        Add held anchors to those of a frame.

        Parameters
        ----------
        anchors : Anchors or None
            Of the frame; None if the source has measured nothing.
        K, stamp_ns, size
            See `KnownPoints.find_visible`.
        world_from_camera : float64 [4, 4] or None
            None where it is unknown: then nothing that is held can be used in this image.

        Returns
        -------
        Anchors or None
            Those of the frame, and those that are held; None if there are none.
        """
        if world_from_camera is None:
            return anchors
        held, visible, _ = self._known.find_visible(K, world_from_camera, stamp_ns, size)
        self._known = self._known.select(visible)
        if anchors is None:
            return held if len(held) else None
        is_free = ~np.isin(_cells(held, size), _cells(anchors, size))
        self._known = self._known.select(is_free).joined(
            _place(anchors, K, world_from_camera, size))
        return anchors.joined(held.select(is_free))


def _cells(anchors: Anchors, size: tuple[int, int]) -> Indices:
    """Return the number of the part of the image in which each anchor lies."""
    return anchors.rows // CELL_PX * (size[1] // CELL_PX + 1) + anchors.columns // CELL_PX


def _place(anchors: Anchors, K: Matrix, world_from_camera: Matrix, size: tuple[int, int]
           ) -> KnownPoints:
    """Return one point for each part of the image that has anchors."""
    _, first = np.unique(_cells(anchors, size), return_index=True)
    one = anchors.select(first)
    sigma_log = np.zeros(len(one)) if one.sigma_log is None else one.sigma_log.astype(np.float64)
    return KnownPoints(one.points(K) @ world_from_camera[:3, :3].T + world_from_camera[:3, 3],
                       sigma_log, np.full(len(one), one.stamp_ns))
