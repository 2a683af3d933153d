"""Drape cloths and cables over what is in a room."""
from __future__ import annotations

import numpy as np

from scenes.bodies import cloth, tube
from scenes.draws import pick
from scenes.meshes import rotation_z
from scenes.resting import Surroundings
from scenes.rooms import Room
from scenes.scene_builder import SceneBuilder


def drape(b: SceneBuilder, around: Surroundings, count: int) -> None:
    """Throw blankets and clothes over furniture."""
    rng, n = b.rng, 18
    bearers = [o for o in b.obstacles if 0.35 < o.max_m[2] < 1.3]
    for _ in range(count if bearers else 0):
        bearer = pick(rng, bearers)
        size = rng.uniform([0.4, 0.35], [1.1, 0.9])
        u, v = np.meshgrid(*np.outer(size, np.linspace(-0.5, 0.5, n)))
        turn = rotation_z(rng.uniform(0, 2 * np.pi))[:2, :2]
        centre = rng.uniform(bearer.min_m[:2], bearer.max_m[:2])
        xy = np.stack([u, v], -1).reshape(-1, 2) @ turn.T + centre
        z = around.heights(xy, 1.9)
        if np.isnan(z).any() or not 0.3 < z.max() < 1.4:
            continue
        bumps = np.sin(u * rng.uniform(15, 40)) * np.sin(v * rng.uniform(15, 40))
        points = _let_hang(xy, z, float(size.max()) / (n - 1)).reshape(n, n, 3)
        points[..., 2] += 0.009 + 0.006 * bumps
        blanket = cloth(points, b.palette.one_of('cloth', 'cloth', 'fabric'))
        b.add(blanket)
        around.add([(blanket, True)])


def _let_hang(xy: np.ndarray, z: np.ndarray, pitch: float) -> np.ndarray:
    """Return the points of a cloth [n,3] that lies on heights and hangs down at their edges."""
    lies = z > z.max() - 0.4
    offset = xy[:, None] - xy[lies]
    far = np.linalg.norm(offset, axis=-1)
    nearest = far.argmin(1)
    away, out = far.min(1), offset[np.arange(len(xy)), nearest]
    out *= (np.minimum(away, 1.2 * pitch) / np.maximum(away, 1e-9))[:, None]
    # A point between two supports must not cut through the higher one.
    close = np.linalg.norm(xy[:, None] - xy, axis=-1) < 1.5 * pitch
    smooth = np.where(close, z, 0).max(1)
    edge = smooth[lies][nearest]
    hung = np.maximum(edge - np.maximum(away - pitch, 0), z.min())
    return np.column_stack([xy[lies][nearest] + out, np.where(lies, smooth, hung)])


def lay_cables(b: SceneBuilder, around: Surroundings, room: Room, count: int) -> None:
    """Lay cables over the floor and over the edges of desks."""
    rng = b.rng
    for _ in range(count):
        n = int(rng.integers(12, 60))
        turn = np.cumsum(rng.normal(0, 0.3, n) + rng.normal(0, 0.08)) + rng.uniform(0, 2 * np.pi)
        start = rng.random(2) * [room.width, room.depth]
        xy = start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], -1) * 0.05, axis=0)
        z = around.heights(xy, float(rng.choice([0.3, 1.1])))
        usable = int(np.argmax(np.append(np.isnan(z), True)))
        if usable > 5:
            r = rng.uniform(0.0025, 0.005)
            b.add(tube(np.column_stack([xy, z + r])[:usable], r,
                       b.palette.one_of('black', 'black', 'paper', 'plastic'), 5))
