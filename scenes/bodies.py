"""Make round and curved bodies: rounded boxes, ellipsoids, lathes, lofts, tubes, cloths."""
from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
import trimesh

from scenes.meshes import (
    box_uv,
    cell_corners,
    cross,
    Floats,
    halve_cells,
    join,
    lengths,
    Mesh,
    normalize,
    repeat_material,
    turned,
)

Matrix = NDArray[np.floating[Any]]


def rounded_box(size: ArrayLike, center: ArrayLike, material: int, radius: float,
                bulge: float = 0.0) -> Mesh:
    """
    Make a box with rounded edges, for upholstery, appliances and cars.

    Parameters
    ----------
    size, center : [3] float
        Metres.
    material : int
    radius : float
        Radius of the edges, m; limited to 0.98 times half the smallest side.
    bulge : float
        Outward displacement of the middle of each face, m.

    Returns
    -------
    Mesh
    """
    normal, side = _cube_sphere()
    half = np.asarray(size, np.float32) / 2
    radius = min(radius, float(half.min()) * 0.98)
    local = side * (half - radius) + normal * radius
    if bulge:
        within = np.clip(1 - np.abs(local / half), 0, 1) + (np.abs(normal) > 0.99)
        local = local + normal * (bulge * np.minimum(np.prod(within, axis=-1), 1)[..., None])
    triangles = (local + np.asarray(center)).astype(np.float32)
    return Mesh(triangles, normal, box_uv(triangles, normal),
                repeat_material(material, len(normal)))


def ellipsoid(size: ArrayLike, center: ArrayLike, material: int, subdivisions: int = 2) -> Mesh:
    """
    Make an ellipsoid; `size` is the full length of its axes.

    Parameters
    ----------
    size, center : [3] float
        Metres.
    material : int
    subdivisions : int
        Level of detail: ``20 * 4**subdivisions`` triangles.

    Returns
    -------
    Mesh
    """
    sphere = _unit_sphere(subdivisions)
    half = np.asarray(size, np.float32) / 2
    triangles = (sphere * half + np.asarray(center)).astype(np.float32)
    return Mesh(triangles, normalize(sphere / half), box_uv(triangles, sphere),
                repeat_material(material, len(sphere)))


def grid(points: ArrayLike, material: int, *, smooth: bool = True) -> Mesh:
    """
    Make a surface through a grid of points, for curtains and cloths.

    Parameters
    ----------
    points : [r,c,3] float
        Metres; columns run to the right and rows upwards seen from the front.
    material : int
    smooth : bool
        Whether to smooth the normals across rows too.

    Returns
    -------
    Mesh
        2 (r-1) (c-1) triangles.
    """
    p = np.asarray(points, np.float32)
    across = _slope(p.swapaxes(0, 1)).swapaxes(0, 1)
    if (np.abs(p[:, 0] - p[:, -1]) <= 1e-8 + 1e-5 * np.abs(p[:, -1])).all():
        across[:, 0] = across[:, -1] = (p[:, 1] - p[:, -2]) / 2
    uv = np.zeros((*p.shape[:2], 2), np.float32)
    uv[:, 1:, 0] = np.cumsum(lengths(p[:, 1:] - p[:, :-1]).max(0))
    uv[1:, :, 1] = np.cumsum(lengths(p[1:] - p[:-1]).max(1))[:, None]
    if smooth:
        normals = cell_corners(normalize(cross(across, _slope(p))))
    else:
        row = normalize(cross((across[:-1] + across[1:]) / 2, p[1:] - p[:-1]))
        normals = np.stack([row[:, :-1], row[:, 1:], row[:, 1:], row[:, :-1]], 2)
    triangles, uvs = (halve_cells(cell_corners(a)) for a in (p, uv))
    return Mesh(triangles, halve_cells(normals).astype(np.float32), uvs,
                repeat_material(material, len(triangles)))


def lathe(profile: Sequence[Sequence[float]] | Matrix, center: ArrayLike, material: int, *,
          smooth: bool = False, sides: int = 20) -> Mesh:
    """
    Make a surface of revolution about the vertical axis, for lamps, vases and bottles.

    Parameters
    ----------
    profile : [k,2] float
        Radius and height of each ring, m, upwards along the outside.
    center : [3] float
        Position of radius 0 and height 0, m.
    material : int
    smooth : bool
        Whether to smooth the normals along the profile too.
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
    Make a closed upright cylinder or cone with the centre of its base at `center`; all in m.

    Returns
    -------
    Mesh
    """
    top = radius if top_radius is None else top_radius
    return lathe([[0, 0], [radius, 0], [top, height], [0, height]], center, material, sides=sides)


def rod(start: ArrayLike, end: ArrayLike, radius: float, material: int, sides: int = 8) -> Mesh:
    """
    Make a round rod between two points, m.

    Returns
    -------
    Mesh
    """
    a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
    axis = (b - a) / np.linalg.norm(b - a)
    helper = np.array([0, 0, 1] if abs(axis[2]) < 0.9 else [1, 0, 0], np.float32)
    x = normalize(cross(helper, axis))
    turn = np.stack([x, cross(axis, x), axis], 1)
    part = cylinder(radius, float(np.linalg.norm(b - a)), (0, 0, 0), material, sides=sides)
    return Mesh(turned(part.triangles, turn) + a, turned(part.normals, turn), part.uv,
                part.material)


def tube(points: ArrayLike, radius: ArrayLike, material: int, sides: int = 6) -> Mesh:
    """
    Make a closed round tube along a path, for limbs, cables, frames and handles.

    Parameters
    ----------
    points : [k,3] float
        Metres; no two neighbours are equal.
    radius : float or [k] float
        Metres.
    material : int
    sides : int

    Returns
    -------
    Mesh
    """
    p = np.asarray(points, np.float32)
    along = normalize(_slope(p))
    # Seen along the direction in which the path extends least, it does not turn back on itself.
    spread = p - p.mean(0)
    x = normalize(cross(np.linalg.eigh(spread.T @ spread)[1][:, 0], along))
    angle = np.linspace(0, 2 * np.pi, sides + 1, dtype=np.float32)[:, None]
    out = np.cos(angle) * x[:, None] + np.sin(angle) * cross(along, x)[:, None]
    r = np.broadcast_to(np.asarray(radius, np.float32), (len(p),))[:, None, None]
    # Each end is a flat cap: the last ring once more, facing along, and its middle.
    first, last = np.broadcast_to(along[[0, -1], None], (2, *out.shape[1:]))
    rings = p[:, None] + r * out
    middle = np.broadcast_to(p[[0, -1], None], (2, *out.shape[1:]))
    rows = np.concatenate([middle[:1], rings[:1], rings, rings[-1:], middle[1:]])
    normals = np.stack([-first, -first, *out, last, last])
    way = np.concatenate([[0], np.cumsum(lengths(rows[1:, 0] - rows[:-1, 0]))])
    uv = np.stack(np.broadcast_arrays(angle[:, 0] * r.max(), way[:, None]), -1)
    corners, shading, uvs = (halve_cells(cell_corners(a)) for a in (rows, normals, uv))
    return Mesh(corners, shading, uvs, repeat_material(material, len(corners)))


def loft(rings: ArrayLike, material: int, *, sides: int = 14, folds: float = 0.0) -> Mesh:
    """
    Make a closed body of stacked ellipses, for torsos, bags and garments.

    Parameters
    ----------
    rings : [k,5] float
        Centre and half width and half depth of each ellipse, upwards, m.
    material : int
    sides : int
    folds : float
        Depth of vertical folds, as a share of the width.

    Returns
    -------
    Mesh
    """
    r = np.asarray(rings, np.float32)
    angle = np.linspace(0, 2 * np.pi, sides + 1, dtype=np.float32)
    wave = 1 + folds * np.sin(angle * max(3, sides // 3))
    points = np.stack([r[:, 0, None] + r[:, 3, None] * np.cos(angle) * wave,
                       r[:, 1, None] + r[:, 4, None] * np.sin(angle) * wave,
                       np.broadcast_to(r[:, 2, None], (len(r), sides + 1))], -1)
    ends = np.repeat(r[[0, -1], None, :3], sides + 1, axis=1)
    return grid(np.concatenate([ends[:1], points, ends[1:]]), material, smooth=False)


def cloth(points: ArrayLike, material: int) -> Mesh:
    """
    Make a cloth with a front and a back 4 mm apart through a grid of points; see `grid`.

    Returns
    -------
    Mesh
    """
    p = np.asarray(points, np.float32)
    out = normalize(cross(_slope(p.swapaxes(0, 1)).swapaxes(0, 1), _slope(p))) * np.float32(0.002)
    return join([grid(p + out, material), grid((p - out)[:, ::-1], material)])


def _slope(p: Floats) -> Floats:
    """Return the differences of neighbours along the first axis, as the slower `np.gradient`."""
    out = np.empty_like(p)
    out[1:-1] = (p[2:] - p[:-2]) / 2
    out[0], out[-1] = p[1] - p[0], p[-1] - p[-2]
    return out


@cache
def _unit_sphere(subdivisions: int) -> Floats:
    return normalize(np.asarray(trimesh.creation.icosphere(subdivisions=subdivisions).triangles))


@cache
def _cube_sphere() -> tuple[Floats, Floats]:
    """Return normals and corner signs of a cube with rounded edges, both [n,3,3]."""
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
            parts.append((halve_cells(cell_corners(normalize(direction))),
                          halve_cells(cell_corners(side))))
    return (np.concatenate([p[0] for p in parts]),
            np.concatenate([p[1] for p in parts]).astype(np.float32))
