"""Load single objects from mesh files: upright on z = 0, of plausible size, not too detailed."""
from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from marigold_ros.depth.errors import MarigoldError
from scenes.mesh_files import load_bodies, make_part, Matrix, Part
from scenes.meshes import Floats, normalize

# Above this number of triangles, corners within one cell of a grid are merged.
MAX_TRIANGLES = 2000
CELLS = 20
# Corners are shaded smoothly where the neighbours turn by less than 45 degrees.
SMOOTH_COSINE = 0.7
# Rotation that turns a model with y up to z up.
_Y_UP = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)


@lru_cache(maxsize=512)
def load_model(file: Path, up: str, size_m: tuple[float, float],
               texture_size: int) -> tuple[Part, ...]:
    """
    Load an object.

    Parameters
    ----------
    file : Path
    up : str
        Upward axis of the file, 'y' or 'z'.
    size_m : (float, float)
        Range of the longest side, m; an object outside it is scaled to the nearer end.
    texture_size : int
        Side of its textures, px.

    Returns
    -------
    tuple of Part
        Centred on the z axis, standing on z = 0.

    Raises
    ------
    MarigoldError
        If the file has no triangles.
    """
    turn: Matrix = _Y_UP if up == 'y' else np.eye(4)
    bodies = [(turn @ pose, body) for pose, body in load_bodies(file)]
    parts = [make_part(pose, body, texture_size) for pose, body in bodies]
    if not parts:
        raise MarigoldError(f'`meshes` must match files with triangles; got {str(file)!r}')
    points = np.concatenate([part.triangles.reshape(-1, 3) for part in parts])
    low, high = points.min(0), points.max(0)
    longest = float((high - low).max())
    if longest <= 0:
        raise MarigoldError(f'`meshes` must match objects with an extent; got {str(file)!r}')
    scale = float(np.clip(longest, *size_m)) / longest
    origin = np.array([*(low + high)[:2] / 2, low[2]], np.float32)
    detailed = sum(len(part.triangles) for part in parts) > MAX_TRIANGLES
    cell = longest / CELLS if detailed else longest * 1e-5
    merged = [_merge_corners(part, cell, detailed) for part in parts]
    return tuple(replace(part, triangles=np.asarray((part.triangles - origin) * scale,
                                                    np.float32))
                 for part in merged if len(part.triangles))


def _merge_corners(part: Part, cell: float, simplify: bool) -> Part:
    """Move the corners within a cell to their mean if asked to; shade across shared corners."""
    points = part.triangles.reshape(-1, 3)
    keys = np.round(points / cell).astype(np.int64)
    _, owner = np.unique(keys, axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    if simplify:
        count = np.bincount(owner)
        mean = np.stack([np.bincount(owner, points[:, i]) / count for i in range(3)], -1)
        moved = mean[owner].reshape(-1, 3, 3).astype(np.float32)
        corner = owner.reshape(-1, 3)
        # Drop triangles that are merged to a line, and thin ones that turn to stand out.
        kept = np.einsum('ij,ij->i', normalize(_areas(moved)),
                         normalize(_areas(part.triangles))) > 0.5
        part = replace(part, triangles=moved[kept], uv=part.uv[kept])
        owner = corner[kept].reshape(-1)
    return replace(part, normals=_smooth_normals(part.triangles, owner))


def _areas(triangles: Floats) -> Floats:
    """Return vectors along the normals, of twice the area of each triangle, [n,3]."""
    return np.asarray(np.cross(triangles[:, 1] - triangles[:, 0],
                               triangles[:, 2] - triangles[:, 0]), np.float32)


def _smooth_normals(triangles: Floats, owner: np.ndarray) -> Floats:
    """Average the normals of the triangles around each corner, except across sharp edges."""
    area = _areas(triangles)
    flat = np.repeat(normalize(area), 3, axis=0)
    weighted = np.repeat(area, 3, axis=0)
    total = np.stack([np.bincount(owner, weighted[:, i]) for i in range(3)], -1) if len(
        owner) else np.zeros((0, 3))
    smooth = normalize(total[owner])
    sharp = (smooth * flat).sum(-1, keepdims=True) < SMOOTH_COSINE
    return np.asarray(np.where(sharp, flat, smooth), np.float32).reshape(-1, 3, 3)
