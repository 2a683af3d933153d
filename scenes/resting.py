"""Find by rays where things can rest on what is already in a room."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scenes.meshes import boxes, Floats, join, Mesh

# A thing stands if so much of its footprint, steadily or loosely, lies at most so far below its
# highest support.
_SHARE = (0.45, 0.06)
_SUPPORT_M = 0.012
_RAY_PITCH_M = 0.05
_MARGIN_M = 0.006


class _Bodies:
    """Triangles to cast rays at, each with whether things may rest on it."""

    def __init__(self, mesh: Mesh, carries: NDArray[np.bool_]) -> None:
        self._carries = carries
        self._normals, self._embree = mesh.face_normals, mesh.embree

    def cast(self, origins: Floats, directions: Floats) -> Hit:
        """Cast rays [n,3] with directions of unit length."""
        found = self._embree.run(origins, directions, query='INTERSECT', output=True)
        index = found['primID']
        slope = -np.einsum('ij,ij->i', self._normals[index], directions)
        distance = np.where(index >= 0, np.where(slope > 0, found['tfar'], -1.0), np.inf)
        return Hit(distance.astype(np.float32), slope, self._carries[index])


@dataclass(frozen=True)
class Hit:
    """
    What rays hit first.

    Attributes
    ----------
    distance : [n] float32
        Metres; inf without a hit, -1 on the inside of a body.
    slope : [n] float32
        Cosine between the surface's normal and the way back along the ray.
    carries : [n] bool
        Whether things may rest on it.
    """

    distance: Floats
    slope: Floats
    carries: NDArray[np.bool_]


class Surroundings:
    """
    Things already in a room, and those added later.

    Parameters
    ----------
    mesh : Mesh
        What was there before.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._before = _Bodies(mesh, np.ones(len(mesh.triangles), np.bool_))
        # Each group has more than twice the triangles of the next one, so that few triangles are
        # put into a new hierarchy when a thing is added.
        self._later: list[tuple[list[tuple[Mesh, bool]], _Bodies]] = []

    def add(self, blocks: Sequence[tuple[Mesh, bool]]) -> None:
        """Add bodies, each with whether things may rest on it."""
        if blocks:
            group = list(blocks)
            while self._later and _size(self._later[-1][0]) <= 2 * _size(group):
                group = self._later.pop()[0] + group
            carries = np.repeat([carries for _, carries in group],
                                [len(mesh.triangles) for mesh, _ in group])
            self._later.append((group, _Bodies(join([mesh for mesh, _ in group]), carries)))

    def cast(self, origins: NDArray[np.floating[Any]], directions: NDArray[np.floating[Any]]
             ) -> Hit:
        """
        Cast rays.

        Parameters
        ----------
        origins, directions : [n,3] float
            In the map frame, m; directions of unit length.

        Returns
        -------
        Hit
        """
        rays = [np.ascontiguousarray(a, np.float32) for a in (origins, directions)]
        first = self._before.cast(rays[0], rays[1])
        for _, bodies in self._later:
            hit = bodies.cast(rays[0], rays[1])
            nearer = hit.distance < first.distance
            first = Hit(np.minimum(first.distance, hit.distance),
                        np.where(nearer, hit.slope, first.slope),
                        np.where(nearer, hit.carries, first.carries))
        return first

    def heights(self, xy: NDArray[np.floating[Any]], start: ArrayLike) -> Floats:
        """
        Return the height of the surface below points [n,2] at heights `start`; nan inside bodies.

        Returns
        -------
        [n] float32
        """
        start = np.broadcast_to(np.asarray(start, np.float32), (len(xy),))
        distance = self._cast_down(xy, start).distance
        usable = (distance >= 0) & np.isfinite(distance)
        return np.where(usable, start - np.where(usable, distance, 0), np.nan).astype(np.float32)

    def rest(self, sizes: NDArray[np.floating[Any]], poses: NDArray[np.floating[Any]],
             *, loose: bool = False) -> Floats:
        """
        Let things down at their poses until they touch something.

        Parameters
        ----------
        sizes : [n,3] float
            Size of each thing's bounding box, m.
        poses : [n,4] float
            Middle of its footprint, yaw, and the height from which it is let down, m, radians.
        loose : bool
            Whether a few points may carry a thing, also on a slope, as in a full bin.

        Returns
        -------
        [n] float32
            Height on which each thing stands; nan where it would be unsteady or in something.
        """
        if not len(sizes):
            return np.zeros(0, np.float32)
        n = int(np.clip(np.ceil(sizes[:, :2].max() / _RAY_PITCH_M) + 1, 4, 13))
        unit = np.stack(np.meshgrid(*[np.linspace(-1, 1, n)] * 2), -1).reshape(-1, 2)
        offset = _footprints(unit, sizes, poses)
        # The corners, the edges' middles and the middle already rule out most poses.
        i = np.array([0, n // 2, n - 1])
        few = (i[:, None] * n + i).ravel()
        hit = self._cast_down((poses[:, None, :2] + offset[:, few]).reshape(-1, 2),
                              np.repeat(poses[:, 3], len(few)))
        distance = hit.distance.reshape(-1, len(few))
        hopeful = (distance >= sizes[:, 2:] + 0.01).all(1) & np.isfinite(distance).all(1)
        tops = np.full(len(sizes), np.nan, np.float32)
        if hopeful.any():
            tops[hopeful] = self._rest_on(unit, sizes[hopeful], poses[hopeful], loose=loose)
        return tops

    def _rest_on(self, unit: NDArray[np.floating[Any]], sizes: NDArray[np.floating[Any]],
                 poses: NDArray[np.floating[Any]], *, loose: bool) -> Floats:
        count_rays = len(unit)
        offset = _footprints(unit, sizes, poses)
        start = np.repeat(poses[:, 3], count_rays)
        hit = self._cast_down((poses[:, None, :2] + offset).reshape(-1, 2), start)
        distance, slope, carries = (a.reshape(-1, count_rays)
                                    for a in (hit.distance, hit.slope, hit.carries))
        z = poses[:, 3, None] - distance
        top = z.max(1)
        below = z > top[:, None] - _SUPPORT_M
        count = np.maximum(below.sum(1), 1)
        tip = np.abs((unit * below[..., None]).sum(1) / count[:, None]).max(1)
        good = ((distance >= 0).all(1) & np.isfinite(distance).all(1)
                & (tip < (0.6 if loose else 0.3))
                & (count >= _SHARE[loose] * count_rays) & (carries | ~below).all(1)
                & (((below & (slope > 0.85)).sum(1) > 0.9 * count) | loose)
                & (top + sizes[:, 2] + 0.01 < poses[:, 3]))
        # From inside a body that stands on the floor, a ray may find the floor.
        xy = (poses[:, None, :2] + offset)[good].reshape(-1, 2)
        up = self.cast(np.column_stack([xy, np.repeat(top[good] + 0.004, count_rays)]),
                       np.tile([0.0, 0.0, 1.0], (len(xy), 1))).distance
        good[good] = (up >= 0).reshape(-1, count_rays).all(1)
        return np.where(good, top, np.nan).astype(np.float32)

    def _cast_down(self, xy: NDArray[np.floating[Any]], start: NDArray[np.floating[Any]]) -> Hit:
        return self.cast(np.column_stack([xy, start]),
                         np.tile([0.0, 0.0, -1.0], (len(xy), 1)))


def _size(group: Sequence[tuple[Mesh, bool]]) -> int:
    return sum(len(mesh.triangles) for mesh, _ in group)


def _footprints(unit: NDArray[np.floating[Any]], sizes: NDArray[np.floating[Any]],
                poses: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return where rays leave from, relative to the middle of each footprint, [n,r,2]."""
    local = unit * (sizes[:, None, :2] / 2 + _MARGIN_M)
    c, s = np.cos(poses[:, 2, None]), np.sin(poses[:, 2, None])
    return np.stack([c * local[..., 0] - s * local[..., 1],
                     s * local[..., 0] + c * local[..., 1]], -1)


def bounding_block(mesh: Mesh) -> Mesh:
    """
    Return the axis-aligned bounding box of a mesh as a mesh.

    Returns
    -------
    Mesh
    """
    low, high = mesh.bounds
    return boxes([np.maximum(high - low, 1e-3)], [(low + high) / 2], 0)
