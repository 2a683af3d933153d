"""Triangle meshes with texture coordinates; boxes and panels."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from embreex import mesh_construction, rtcore_scene
import numpy as np
from numpy.typing import ArrayLike, NDArray
import trimesh

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

# The two coordinates that serve as texture coordinates of a face with its normal along x, y, z.
_BOX_UV_AXES = np.array([[1, 2], [0, 2], [0, 1]])


@dataclass(frozen=True)
class Mesh:
    """
    Triangles, each of one material; metres, z up.

    Attributes
    ----------
    triangles : [n,3,3] float32
        Corners, counter-clockwise seen from outside.
    normals : [n,3,3] float32
        Unit shading normals at the corners.
    uv : [n,3,2] float32
        Texture coordinates in metres (one tile is the material's `tile_m`), or 0..1 over a face
        that the texture fills once.
    material : [n] int32
        Row of the scene's material table.
    """

    triangles: Floats
    normals: Floats
    uv: Floats
    material: Ints

    def moved(self, xyz: ArrayLike = (0, 0, 0), yaw: float = 0.0, tilt: float = 0.0) -> Mesh:
        """
        Rotate about x by `tilt`, then about z by `yaw` (radians), then translate by `xyz` (m).

        Returns
        -------
        Mesh
        """
        rotation = rotation_z(yaw)
        if tilt:
            c, s = np.cos(tilt), np.sin(tilt)
            rotation = rotation @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]], np.float32)
        return Mesh(turned(self.triangles, rotation) + np.asarray(xyz, np.float32),
                    turned(self.normals, rotation), self.uv, self.material)

    def scaled(self, factor: float) -> Mesh:
        """
        Return the mesh enlarged by a factor about the origin; its texture keeps its size.

        Returns
        -------
        Mesh
        """
        return Mesh(self.triangles * np.float32(factor), self.normals, self.uv, self.material)

    def selected(self, which: NDArray[np.bool_]) -> Mesh:
        """
        Return the mesh of some of the triangles.

        Returns
        -------
        Mesh
        """
        return Mesh(self.triangles[which], self.normals[which], self.uv[which],
                    self.material[which])

    @cached_property
    def embree(self) -> rtcore_scene.EmbreeScene:
        """Build the ray-tracing hierarchy, which scenes of the same mesh share."""
        scene = rtcore_scene.EmbreeScene()
        mesh_construction.TriangleMesh(scene, np.ascontiguousarray(self.triangles))
        return scene

    @cached_property
    def face_normals(self) -> Floats:
        """Compute the unit geometric normal of each triangle, [n,3]."""
        a, b, c = (self.triangles[:, i] for i in range(3))
        normals = cross(b - a, c - b)
        return np.asarray(normals / np.maximum(lengths(normals), 1e-20)[:, None], np.float32)

    @property
    def bounds(self) -> Floats:
        """
        Return the corners of the axis-aligned box.

        Returns
        -------
        [2,3] float32
        """
        # Reducing along contiguous rows is many times as fast.
        points = np.ascontiguousarray(self.triangles.reshape(-1, 3).T)
        return np.stack([points.min(1), points.max(1)])


def rotation_z(yaw: float) -> Floats:
    """
    Return the rotation by `yaw` radians about z.

    Returns
    -------
    [3,3] float32
    """
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)


def turned(vectors: Floats, rotation: Floats) -> Floats:
    """
    Rotate vectors [n,3,3], in one product instead of one for each triangle.

    Returns
    -------
    [n,3,3] float32
    """
    return np.asarray(vectors.reshape(-1, 3) @ rotation.T).reshape(vectors.shape)


def join(parts: Sequence[Mesh]) -> Mesh:
    """
    Concatenate meshes.

    Returns
    -------
    Mesh
    """
    return Mesh(np.concatenate([p.triangles for p in parts]),
                np.concatenate([p.normals for p in parts]),
                np.concatenate([p.uv for p in parts]),
                np.concatenate([p.material for p in parts]))


def boxes(sizes: ArrayLike, centers: ArrayLike, materials: ArrayLike, *,
          yaws: ArrayLike = 0.0, fit: bool = False, upright: bool = False) -> Mesh:
    """
    Make several boxes as one mesh.

    Parameters
    ----------
    sizes : [3] or [k,3] float
        Metres; one size for all boxes, or one for each.
    centers : [k,3] float
        Metres.
    materials : int or [k] int
    yaws : float or [k] float
        Rotation about each box's own vertical axis, radians.
    fit : bool
        Whether the texture fills each face once.
    upright : bool
        Whether the texture's u axis runs along z on the sides (the grain of a table leg).

    Returns
    -------
    Mesh
        12 triangles per box.
    """
    corner, normal, axis = _unit_box()
    size, center = np.broadcast_arrays(*(np.asarray(a, np.float32).reshape(-1, 1, 3)
                                         for a in (sizes, centers)))
    count = len(size)
    local = corner.reshape(1, -1, 3) * size
    source = corner.reshape(1, -1, 3) + 0.5 if fit else local + center
    columns = np.repeat(_BOX_UV_AXES[axis], 3, axis=0)
    if upright:
        columns = np.where(np.repeat(axis, 3)[:, None] < 2, columns[:, ::-1], columns)
    uv = np.take_along_axis(np.broadcast_to(source, local.shape),
                            np.broadcast_to(columns, (count, 36, 2)), axis=2)
    yaw = np.broadcast_to(np.asarray(yaws, np.float32), (count,))
    rotation = np.zeros((count, 3, 3), np.float32)
    rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(yaw)
    rotation[:, 1, 0] = np.sin(yaw)
    rotation[:, 0, 1] = -rotation[:, 1, 0]
    rotation[:, 2, 2] = 1
    corners = local @ rotation.transpose(0, 2, 1) + center
    normals = np.broadcast_to(normal.reshape(1, -1, 3), local.shape) @ rotation.transpose(0, 2, 1)
    material = np.broadcast_to(np.asarray(materials, np.int32), (count,))
    return Mesh(corners.reshape(-1, 3, 3), normals.reshape(-1, 3, 3), uv.reshape(-1, 3, 2),
                np.repeat(material, 12))


def box(size: ArrayLike, center: ArrayLike, material: int, *, fit: bool = False,
        upright: bool = False) -> Mesh:
    """
    Make one box; see `boxes`.

    Returns
    -------
    Mesh
    """
    return boxes(np.asarray(size)[None], np.asarray(center)[None], material, fit=fit,
                 upright=upright)


def panel(origin: ArrayLike, u_edge: ArrayLike, v_edge: ArrayLike, material: int, *,
          fit: bool = True) -> Mesh:
    """
    Make a parallelogram that faces along u_edge x v_edge.

    Parameters
    ----------
    origin, u_edge, v_edge : [3] float
        A corner and the two edges from it, m.
    material : int
    fit : bool
        Whether the texture fills it once; otherwise texture coordinates are metres from `origin`.

    Returns
    -------
    Mesh
    """
    o, u, v = (np.asarray(a, np.float32) for a in (origin, u_edge, v_edge))
    corners = np.stack([o, o + u, o + u + v, o + v])
    scale = (1.0, 1.0) if fit else (float(np.linalg.norm(u)), float(np.linalg.norm(v)))
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * np.array(scale, np.float32)
    order = np.array([[0, 1, 2], [0, 2, 3]])
    normals = np.broadcast_to(normalize(np.cross(u, v)), (2, 3, 3)).astype(np.float32)
    return Mesh(corners[order], normals, uv[order], repeat_material(material, 2))


def legs(width: float, depth: float, height: float, thick: float, material: int) -> Mesh:
    """
    Make four legs under the corners of a rectangle, from z = 0 upwards; all in m.

    Returns
    -------
    Mesh
    """
    x, y = width / 2 - thick / 2, depth / 2 - thick / 2
    centers = [(sx * x, sy * y, height / 2) for sx in (-1, 1) for sy in (-1, 1)]
    return boxes((thick, thick, height), centers, material, upright=True)


def normalize(vectors: NDArray[np.floating]) -> Floats:
    """
    Normalize vectors [...,3]; zero vectors stay zero.

    Returns
    -------
    [...,3] float32
    """
    return np.asarray(vectors / np.maximum(lengths(vectors), 1e-12)[..., None], np.float32)


def cross(a: Floats, b: Floats) -> Floats:
    """
    Compute cross products of vectors [...,3], faster than `np.cross`.

    Returns
    -------
    [...,3] float32
    """
    out = np.empty(np.broadcast_shapes(a.shape, b.shape), np.float32)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        out[..., i] = a[..., j] * b[..., k] - a[..., k] * b[..., j]
    return out


def repeat_material(material: int, count: int) -> Ints:
    """
    Return the material indices of `count` triangles of one material.

    Returns
    -------
    [count] int32
    """
    return np.full(count, material, np.int32)


def box_uv(triangles: Floats, normals: Floats) -> Floats:
    """
    Project triangles along the main axis of their normals to texture coordinates, m.

    Returns
    -------
    [n,3,2] float32
    """
    axis = np.abs(normals.mean(1)).argmax(-1)
    columns = np.broadcast_to(_BOX_UV_AXES[axis][:, None], (len(triangles), 3, 2))
    return np.take_along_axis(triangles, columns, axis=2)


def cell_corners(values: NDArray[np.floating[Any]]) -> Floats:
    """
    Return the corners of every cell of a grid [r,c,k], counter-clockwise.

    Returns
    -------
    [r-1,c-1,4,k] float32
    """
    return np.stack([values[:-1, :-1], values[:-1, 1:], values[1:, 1:], values[1:, :-1]],
                    2).astype(np.float32)


def halve_cells(corners: Floats) -> Floats:
    """
    Split cells, as of `cell_corners`, into two triangles each.

    Returns
    -------
    [n,3,k] float32
    """
    return corners[:, :, [0, 1, 2, 0, 2, 3]].reshape(-1, 3, corners.shape[-1])


def lengths(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """
    Compute the lengths of vectors [...,3], several times as fast as `np.linalg.norm`.

    Returns
    -------
    [...] float
    """
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.asarray(np.sqrt(x * x + y * y + z * z))


@cache
def _unit_box() -> tuple[Floats, Floats, NDArray[np.int64]]:
    mesh = trimesh.creation.box(extents=(1, 1, 1))
    triangles = np.asarray(mesh.triangles, np.float32)
    normal = np.repeat(np.round(mesh.face_normals)[:, None], 3, axis=1).astype(np.float32)
    return triangles, normal, np.abs(mesh.face_normals).argmax(-1)
