"""Trace rays through a scene: first hits, occlusion and sky radiance."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scenes.meshes import Floats, normalize
from scenes.scene_types import Scene


@dataclass(frozen=True)
class Hits:
    """
    First intersections of rays with the scene; rays that miss are left out.

    Attributes
    ----------
    scene : Scene
    ray : [k] int64
        Index of each ray.
    t : [k] float32
        Distance in multiples of the ray's direction.
    triangle : [k] int32
    weights : [2,k,1] float32
        Barycentric weights of the triangle's second and third corner.
    point : [k,3] float32
        Hit points in the map frame, m.
    to_viewer : [k,3] float32
        Unit direction from the hit point to the ray's origin.
    """

    scene: Scene
    ray: NDArray[np.int64]
    t: Floats
    triangle: NDArray[np.int32]
    weights: Floats
    point: Floats
    to_viewer: Floats

    @cached_property
    def material(self) -> NDArray[np.int32]:
        """Return the row of each hit in the material table, [k]."""
        return self.scene.mesh.material[self.triangle]

    @cached_property
    def face_normal(self) -> Floats:
        """Return the geometric normal that faces the viewer, [k,3]."""
        return self.scene.face_normals[self.triangle] * self._side

    @cached_property
    def normal(self) -> Floats:
        """Return the shading normal on the side that faces the viewer, [k,3]."""
        return normalize(self._interpolate(self.scene.mesh.normals)) * self._side

    @cached_property
    def uv(self) -> Floats:
        """Return the texture coordinates, [k,2]."""
        return self._interpolate(self.scene.mesh.uv)

    @cached_property
    def cosine(self) -> Floats:
        """Return the cosine between normal and direction to the viewer, at least 0.001, [k]."""
        return np.asarray(np.clip(np.einsum('ij,ij->i', self.normal, self.to_viewer), 1e-3, 1))

    @cached_property
    def offset_point(self) -> Floats:
        """Return the points 1 mm above the surface, where secondary rays start, [k,3]."""
        return np.asarray(self.point + np.float32(1e-3) * self.face_normal)

    @cached_property
    def _side(self) -> Floats:
        facing = np.einsum('ij,ij->i', self.scene.face_normals[self.triangle], self.to_viewer)
        return np.asarray(np.where(facing < 0, -1, 1)[:, None], np.float32)

    def _interpolate(self, corners: Floats) -> Floats:
        c = corners[self.triangle]
        first = c[:, 0]
        return np.asarray(first + self.weights[0] * (c[:, 1] - first)
                          + self.weights[1] * (c[:, 2] - first))


def trace(scene: Scene, origins: Floats, directions: Floats) -> Hits:
    """
    Find the first intersection of each ray.

    Parameters
    ----------
    scene : Scene
    origins, directions : [n,3] float32
        In the map frame, m; directions of any length.

    Returns
    -------
    Hits
    """
    found = scene.embree.run(origins, directions, query='INTERSECT', output=True)
    ray = np.flatnonzero(found['primID'] >= 0)
    t, along = found['tfar'][ray], directions[ray]
    weights = np.stack([found['u'][ray], found['v'][ray]])[..., None]
    return Hits(scene=scene, ray=ray, t=t, triangle=found['primID'][ray], weights=weights,
                point=origins[ray] + along * t[:, None], to_viewer=normalize(-along))


def occluded(scene: Scene, origins: Floats, segments: Floats) -> NDArray[np.bool_]:
    """
    Check whether the segment from each origin to origin + segment is blocked.

    Returns
    -------
    [n] bool
    """
    ends = np.full(len(origins), 0.999, np.float32)
    return np.asarray(scene.embree.run(origins, np.ascontiguousarray(segments, np.float32), ends,
                                       query='OCCLUDED') >= 0)


def sky_radiance(scene: Scene, directions: Floats) -> Floats:
    """
    Look up the radiance of the sky in given directions, [n,3].

    Returns
    -------
    [n,3] float32
    """
    h, w = scene.sky.shape[:2]
    d = normalize(directions)
    x = (np.arctan2(d[:, 1], d[:, 0]) / (2 * np.pi) % 1) * w - 0.5
    y = np.clip(np.arccos(np.clip(d[:, 2], -1, 1)) / np.pi * h - 0.5, 0, h - 1.001)
    x0, y0 = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
    upper = scene.sky[y0, x0 % w] * (1 - fx) + scene.sky[y0, (x0 + 1) % w] * fx
    lower = scene.sky[y0 + 1, x0 % w] * (1 - fx) + scene.sky[y0 + 1, (x0 + 1) % w] * fx
    return np.asarray(upper * (1 - fy) + lower * fy, np.float32)
