"""Triangle meshes with texture coordinates: the primitives that furniture and buildings are made of."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
import trimesh

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

# The two coordinates that texture a face whose normal points along x, y, z.
_BOX_UV_AXES = np.array([[1, 2], [0, 2], [0, 1]])


@dataclass(frozen=True)
class Mesh:
    """
    Triangles of one material each, metres, z up.

    Attributes
    ----------
    triangles : [n,3,3] float32
        Corners, counter-clockwise seen from outside.
    normals : [n,3,3] float32
        Unit shading normals at the corners.
    uv : [n,3,2] float32
        Texture coordinates in metres (one tile is the material's `tile_m`), or 0..1 over a face
        that a picture fills.
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
        return Mesh(self.triangles @ rotation.T + np.asarray(xyz, np.float32),
                    self.normals @ rotation.T, self.uv, self.material)

    @property
    def bounds(self) -> Floats:
        """
        Corners of the axis-aligned box.

        Returns
        -------
        [2,3] float32
        """
        points = self.triangles.reshape(-1, 3)
        return np.stack([points.min(0), points.max(0)])


def rotation_z(yaw: float) -> Floats:
    """
    Make the matrix that turns by `yaw` radians about z.

    Returns
    -------
    [3,3] float32
    """
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)


def join(parts: Sequence[Mesh]) -> Mesh:
    """
    Put several meshes into one.

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
    Make many boxes at once.

    Parameters
    ----------
    sizes, centers : [k,3] float
        Metres.
    materials : int or [k] int
    yaws : float or [k] float
        Turn about each box's own vertical axis, radians.
    fit : bool
        Let the texture fill each face once.
    upright : bool
        Let the texture's u run along z on the sides (the grain of a table leg).

    Returns
    -------
    Mesh
        12 triangles a box.
    """
    corner, normal, axis = _unit_box()
    size = np.asarray(sizes, np.float32).reshape(-1, 1, 3)
    center = np.asarray(centers, np.float32).reshape(-1, 1, 3)
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
    turned = local @ rotation.transpose(0, 2, 1) + center
    normals = np.broadcast_to(normal.reshape(1, -1, 3), local.shape) @ rotation.transpose(0, 2, 1)
    material = np.broadcast_to(np.asarray(materials, np.int32), (count,))
    return Mesh(turned.reshape(-1, 3, 3), normals.reshape(-1, 3, 3), uv.reshape(-1, 3, 2),
                np.repeat(material, 12))


def box(size: ArrayLike, center: ArrayLike, material: int, *, fit: bool = False,
        upright: bool = False) -> Mesh:
    """
    Make one box; see `boxes`.

    Returns
    -------
    Mesh
    """
    return boxes([size], [center], material, fit=fit, upright=upright)


def rounded_box(size: ArrayLike, center: ArrayLike, material: int, radius: float,
                bulge: float = 0.0) -> Mesh:
    """
    Make a box with rounded edges: upholstery, mattresses, appliances, cars.

    Parameters
    ----------
    size, center : [3] float
        Metres.
    material : int
    radius : float
        Of the edges, m; at most half the smallest side is used.
    bulge : float
        How far the middle of each face swells, m.

    Returns
    -------
    Mesh
    """
    normal, side = _cube_sphere()
    half = np.asarray(size, np.float32) / 2
    radius = min(radius, float(half.min()) * 0.98)
    local = side * (half - radius) + normal * radius
    if bulge:
        inside = np.prod(np.clip(1 - np.abs(local / half), 0, 1) + (np.abs(normal) > 0.99), axis=-1)
        local = local + normal * (bulge * np.minimum(inside, 1)[..., None])
    triangles = local.astype(np.float32) + np.asarray(center, np.float32)
    return Mesh(triangles, normal, _box_uv(triangles, normal), _constant(material, len(normal)))


def ellipsoid(size: ArrayLike, center: ArrayLike, material: int, subdivisions: int = 2) -> Mesh:
    """
    Make an ellipsoid of the given full axes.

    Parameters
    ----------
    size, center : [3] float
        Metres.
    material : int
    subdivisions : int
        20 * 4**subdivisions triangles.

    Returns
    -------
    Mesh
    """
    sphere = _unit_sphere(subdivisions)
    half = np.asarray(size, np.float32) / 2
    triangles = sphere * half + np.asarray(center, np.float32)
    return Mesh(triangles, unit(sphere / half), _box_uv(triangles, sphere),
                _constant(material, len(sphere)))


def grid(points: ArrayLike, material: int, *, smooth: bool = True) -> Mesh:
    """
    Make a surface through a grid of points: curtains, cloths, terrain.

    Parameters
    ----------
    points : [r,c,3] float
        Metres; rows then columns turn counter-clockwise seen from the front.
    material : int
    smooth : bool
        Share normals between neighbouring cells along the rows' direction.

    Returns
    -------
    Mesh
        2 (r-1) (c-1) triangles.
    """
    p = np.asarray(points, np.float32)
    across = np.gradient(p, axis=1)
    if np.allclose(p[:, 0], p[:, -1]):
        across[:, 0] = across[:, -1] = (p[:, 1] - p[:, -2]) / 2
    length_u = np.linalg.norm(np.diff(p, axis=1), axis=-1).max(0)
    length_v = np.linalg.norm(np.diff(p, axis=0), axis=-1).max(1)
    u, v = np.meshgrid(np.concatenate([[0], np.cumsum(length_u)]),
                       np.concatenate([[0], np.cumsum(length_v)]))
    uv = np.stack([u, v], -1).astype(np.float32)
    cells = [_cell_corners(a) for a in (p, uv)]
    if smooth:
        normals = _cell_corners(unit(np.cross(across, np.gradient(p, axis=0))))
    else:
        down = np.diff(p, axis=0)
        rows = [unit(np.cross((across[:-1] + across[1:]) / 2, down))] * 2
        normals = np.stack([rows[0][:, :-1], rows[0][:, 1:], rows[1][:, 1:], rows[1][:, :-1]], 2)
    order = [0, 1, 2, 0, 2, 3]
    triangles, uvs, normals = (a[:, :, order].reshape(-1, 3, a.shape[-1])
                               for a in (cells[0], cells[1], normals))
    return Mesh(triangles, normals.astype(np.float32), uvs, _constant(material, len(triangles)))


def lathe(profile: ArrayLike, center: ArrayLike, material: int, *, smooth: bool = False,
          sides: int = 20) -> Mesh:
    """
    Turn a profile about the vertical axis: legs, lamps, vases, plates, bottles.

    Parameters
    ----------
    profile : [k,2] float
        Radius and height of each ring, from below to above along the outside, m.
    center : [3] float
        Where radius 0, height 0 stands, m.
    material : int
    smooth : bool
        Smooth along the profile too.
    sides : int

    Returns
    -------
    Mesh
    """
    radius, height = np.asarray(profile, np.float32).T
    angle = np.linspace(0, 2 * np.pi, sides + 1, dtype=np.float32)
    points = np.stack([radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle),
                       np.broadcast_to(height[:, None], (len(radius), sides + 1))], -1)
    return grid(points + np.asarray(center, np.float32), material, smooth=smooth)


def cylinder(radius: float, height: float, center: ArrayLike, material: int, *,
             top_radius: float | None = None, sides: int = 20) -> Mesh:
    """
    Make an upright closed cylinder or cone standing on `center`.

    Returns
    -------
    Mesh
    """
    top = radius if top_radius is None else top_radius
    return lathe([[0, 0], [radius, 0], [top, height], [0, height]], center, material, sides=sides)


def rod(start: ArrayLike, end: ArrayLike, radius: float, material: int, sides: int = 8) -> Mesh:
    """
    Make a round rod between two points.

    Returns
    -------
    Mesh
    """
    a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
    axis = (b - a) / np.linalg.norm(b - a)
    helper = np.array([0, 0, 1] if abs(axis[2]) < 0.9 else [1, 0, 0], np.float32)
    x = unit(np.cross(helper, axis))
    turn = np.stack([x, np.cross(axis, x), axis], 1)
    part = cylinder(radius, float(np.linalg.norm(b - a)), (0, 0, 0), material, sides=sides)
    return Mesh(part.triangles @ turn.T + a, part.normals @ turn.T, part.uv, part.material)


def panel(origin: ArrayLike, u_edge: ArrayLike, v_edge: ArrayLike, material: int, *,
          fit: bool = True) -> Mesh:
    """
    Make a flat parallelogram that faces along u_edge x v_edge.

    Parameters
    ----------
    origin, u_edge, v_edge : [3] float
        A corner and the two edges from it, m.
    material : int
    fit : bool
        Let the texture fill it once; else its coordinates are metres from `origin`.

    Returns
    -------
    Mesh
    """
    o, u, v = (np.asarray(a, np.float32) for a in (origin, u_edge, v_edge))
    corners = np.stack([o, o + u, o + u + v, o + v])
    scale = (1.0, 1.0) if fit else (float(np.linalg.norm(u)), float(np.linalg.norm(v)))
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * np.array(scale, np.float32)
    order = np.array([[0, 1, 2], [0, 2, 3]])
    normals = np.broadcast_to(unit(np.cross(u, v)), (2, 3, 3)).astype(np.float32)
    return Mesh(corners[order], normals, uv[order], _constant(material, 2))


def unit(vectors: NDArray[np.floating]) -> Floats:
    """
    Scale vectors along the last axis to length 1; zero stays zero.

    Returns
    -------
    float32
    """
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(length, 1e-12)).astype(np.float32)


def _constant(material: int, count: int) -> Ints:
    return np.full(count, material, np.int32)


def _box_uv(triangles: Floats, normals: Floats) -> Floats:
    axis = np.abs(normals.mean(1)).argmax(-1)
    columns = np.broadcast_to(_BOX_UV_AXES[axis][:, None], (len(triangles), 3, 2))
    return np.take_along_axis(triangles, columns, axis=2)


def _cell_corners(values: Floats) -> Floats:
    return np.stack([values[:-1, :-1], values[:-1, 1:], values[1:, 1:], values[1:, :-1]], 2)


@lru_cache(maxsize=None)
def _unit_box() -> tuple[Floats, Floats, NDArray[np.int64]]:
    mesh = trimesh.creation.box(extents=(1, 1, 1))
    triangles = np.asarray(mesh.triangles, np.float32)
    normal = np.repeat(np.round(mesh.face_normals)[:, None], 3, axis=1).astype(np.float32)
    return triangles, normal, np.abs(mesh.face_normals).argmax(-1)


@lru_cache(maxsize=None)
def _unit_sphere(subdivisions: int) -> Floats:
    return unit(np.asarray(trimesh.creation.icosphere(subdivisions=subdivisions).triangles))


@lru_cache(maxsize=None)
def _cube_sphere() -> tuple[Floats, Floats]:
    """Directions of a cube-shaped sphere whose faces' middle cells are flat, and their signs."""
    t = np.array([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0])
    s = np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    parts: list[tuple[Floats, Floats]] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            first, second = (axis + 1) % 3, (axis + 2) % 3
            direction = np.zeros((6, 6, 3))
            side = np.zeros((6, 6, 3))
            direction[..., axis] = side[..., axis] = sign
            direction[..., first], direction[..., second] = np.meshgrid(t, t * sign)
            side[..., first], side[..., second] = np.meshgrid(s, s * sign)
            order = [0, 1, 2, 0, 2, 3]
            parts.append((_cell_corners(unit(direction))[:, :, order].reshape(-1, 3, 3),
                          _cell_corners(side)[:, :, order].reshape(-1, 3, 3)))
    return (np.concatenate([p[0] for p in parts]),
            np.concatenate([p[1] for p in parts]).astype(np.float32))
