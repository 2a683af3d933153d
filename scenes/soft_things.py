"""Make soft things that lie or stand on z = 0: bags, shoes, clothes, towels, cushions."""
from __future__ import annotations

import numpy as np

from scenes.bodies import ellipsoid, grid, loft, rounded_box, tube
from scenes.clutter import Maker
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import boxes, join, Mesh


def _arch(width: float, rise: float, z: float, y: float = 0.0, points: int = 9) -> np.ndarray:
    """Return the points of a handle above (0, y, z) in the plane of x and z."""
    t = np.linspace(0, np.pi, points)
    return np.stack([-width / 2 * np.cos(t), np.full(points, y), z + rise * np.sin(t) ** 0.7], -1)


def handbag(p: Palette, rng: Rng) -> Mesh:
    """Build a shopping bag or handbag with two handles."""
    w, d, h = rng.uniform([0.12, 0.05, 0.22], [0.22, 0.1, 0.42])
    m = p.one_of('leather', 'cloth', 'cloth', 'packaging')
    body = loft([(0, 0, 0, w * 0.9, d * 0.9), (0, 0, 0.03, w, d), (0, 0, h * 0.6, w * 1.03, d),
                 (0, 0, h, w * 0.95, d * 0.3)], m, folds=0.04)
    rise = rng.uniform(0.08, 0.2)
    return join([body, *(tube(_arch(w, rise, h * 0.95, s * d * 0.25), 0.006, m, 5)
                         for s in (-1, 1))])


def backpack(p: Palette, rng: Rng) -> Mesh:
    """Build a backpack with a pocket in front and straps behind."""
    w, d, h = rng.uniform([0.27, 0.14, 0.38], [0.36, 0.22, 0.55])
    m, trim = p.get('cloth'), p.one_of('cloth', 'black')
    parts = [rounded_box((w, d, h), (0, 0, h / 2), m, 0.07, 0.02),
             rounded_box((w * 0.75, 0.09, h * 0.45), (0, d / 2 + 0.02, h * 0.3), trim, 0.04, 0.01),
             tube(_arch(0.1, 0.05, h - 0.01, -d * 0.3), 0.008, trim, 5)]
    t = np.linspace(0, 1, 7)
    for s in (-1, 1):
        parts.append(tube(np.stack([s * w * (0.2 + 0.08 * t), -d / 2 - 0.07 * np.sin(np.pi * t),
                                    h * (0.92 - 0.8 * t)], -1), 0.018, trim))
    return join(parts)


def suitcase(p: Palette, rng: Rng) -> Mesh:
    """Build an upright suitcase with wheels and a pulled handle."""
    w, d, h = rng.uniform([0.34, 0.2, 0.5], [0.5, 0.3, 0.72])
    m, black = p.one_of('plastic', 'cloth', 'black', 'leather'), p.get('black')
    up = h + rng.uniform(0.03, 0.4)
    return join([rounded_box((w, d, h), (0, 0, h / 2 + 0.04), m, 0.04, 0.008),
                 boxes((0.03, 0.05, 0.05),
                       [(x * w * 0.4, y * d * 0.35, 0.025) for x in (-1, 1) for y in (-1, 1)],
                       black),
                 tube([(-0.1, -d * 0.4, h), (-0.1, -d * 0.4, up), (0.1, -d * 0.4, up),
                       (0.1, -d * 0.4, h)], 0.009, p.get('metal'))])


def waste_bag(p: Palette, rng: Rng) -> Mesh:
    """Build a full rubbish bag or sack with a knot."""
    r, h = rng.uniform(0.17, 0.3), rng.uniform(0.3, 0.55)
    rings = [(0, 0, 0, 0.8, 0.8), (0.02, 0, 0.18, 1, 1), (0, 0.02, 0.5, 0.97, 0.95),
             (0.03, 0, 0.74, 0.7, 0.7), (0.02, 0, 0.87, 0.16, 0.16), (0, 0, 1, 0.3, 0.24)]
    turn = rng.normal(0, 0.07, (6, 2))
    at = np.array(rings) + np.pad(turn, ((0, 0), (0, 3)))
    return loft(at * [r, r, h, r, r * rng.uniform(0.75, 1)],
                p.one_of('black', 'black', 'cloth', 'plastic', 'paper'), sides=21, folds=0.06)


def shoes(p: Palette, rng: Rng) -> Mesh:
    """Build a pair of shoes or boots, kicked off."""
    m, sole = p.one_of('leather', 'cloth', 'black', 'plastic'), p.one_of('black', 'paper')
    length, boot = rng.uniform(0.17, 0.31), rng.uniform(0.07, 0.12)
    if rng.random() < 0.25:
        boot = rng.uniform(0.2, 0.38)
    w = length * 0.18
    one = join([rounded_box((2 * w, length, 0.025), (0, 0, 0.0125), sole, 0.012),
                ellipsoid((1.9 * w, length * 0.7, 0.12), (0, length * 0.12, 0.035), m),
                loft([(0, -length * 0.23, 0.02, w * 0.9, length * 0.24),
                      (0, -length * 0.25, boot * 0.6, w * 0.8, length * 0.2),
                      (0, -length * 0.25, boot, w * 0.85, length * 0.21)], m)])
    pair = join([one.moved((s * rng.uniform(0.06, 0.09), rng.uniform(-0.06, 0.06), 0),
                           rng.normal(0, 0.3)) for s in (-1, 1)])
    return pair.moved((0, 0, -pair.bounds[0, 2]))


def crumple(p: Palette, rng: Rng, radius: float, height: float) -> Mesh:
    """
    Build a crumpled cloth that covers the origin, without an underside.

    Returns
    -------
    Mesh
    """
    rows, columns = 10, 33
    a, t = np.linspace(0, 2 * np.pi, columns), np.linspace(0, 1, rows)[:, None]
    shape = 1.0 + sum(rng.uniform(0.05, 0.22) * np.sin(k * a + rng.uniform(0, 6))
                      for k in range(1, 5))
    # Folds run outwards in bends, with sharp crests.
    lumps = sum(rng.uniform(0.1, 0.3) * (1 - 2 * np.abs(np.sin(
        k * a / 2 + rng.uniform(-4, 4) * t + rng.uniform(0, 6)))) for k in range(2, 11, 2))
    z = height * (np.sin(t * np.pi / 2) ** 0.8 + np.minimum(t * 3, 1) * (1 - t ** 2) * lumps)
    r = radius * (1 - t) * shape
    points = np.stack([r * np.cos(a), rng.uniform(0.6, 1) * r * np.sin(a),
                       np.maximum(z, 0.001 + 0.01 * t)], -1)
    points[0, :, 2] = 0
    return grid(points, p.one_of('cloth', 'cloth', 'cloth', 'fabric'), smooth=False)


def garment(p: Palette, rng: Rng) -> Mesh:
    """Build a piece of clothing dropped on the floor."""
    return crumple(p, rng, rng.uniform(0.14, 0.3), rng.uniform(0.04, 0.13))


def laundry(p: Palette, rng: Rng) -> Mesh:
    """Build a heap of clothes."""
    parts = [crumple(p, rng, rng.uniform(0.3, 0.45), rng.uniform(0.15, 0.35))]
    for _ in range(int(rng.integers(3, 9))):
        r = rng.uniform(0.12, 0.24)
        parts.append(crumple(p, rng, r, rng.uniform(0.1, 0.3)).moved(
            (*rng.normal(0, 0.17, 2), 0), rng.uniform(0, 6)))
    return join(parts)


def bedding(p: Palette, rng: Rng) -> Mesh:
    """Build a crumpled blanket or duvet."""
    return crumple(p, rng, rng.uniform(0.35, 0.55), rng.uniform(0.1, 0.25))


def folded(p: Palette, rng: Rng) -> Mesh:
    """Build a pile of folded towels or clothes."""
    n = int(rng.integers(1, 8))
    w, d = rng.uniform(0.2, 0.36), rng.uniform(0.18, 0.3)
    z, parts = 0.0, []
    for _ in range(n):
        t = rng.uniform(0.02, 0.055)
        x, y = rng.normal(0, 0.008, 2)
        parts.append(rounded_box((w * rng.uniform(0.9, 1), d * rng.uniform(0.9, 1), t),
                                 (x, y, z + t / 2), p.one_of('cloth', 'cloth', 'fabric'), 0.02))
        z += t * 0.97
    return join(parts)


def cushion(p: Palette, rng: Rng) -> Mesh:
    """Build a cushion that lies flat."""
    w = rng.uniform(0.35, 0.6)
    h = rng.uniform(0.1, 0.16)
    body = rounded_box((w, w * rng.uniform(0.7, 1), h), (0, 0, h / 2),
                       p.one_of('cloth', 'fabric'), 0.06, 0.035)
    return body.moved((0, 0, -body.bounds[0, 2]))


def teddy(p: Palette, rng: Rng) -> Mesh:
    """Build a sitting soft toy."""
    m, s = p.one_of('cloth', 'fabric'), rng.uniform(0.5, 1.5)
    balls = [((0.2, 0.17, 0.22), (0, 0, 0.11)), ((0.16, 0.15, 0.15), (0, 0.01, 0.27)),
             *(((0.05, 0.03, 0.05), (x * 0.06, 0, 0.345)) for x in (-1, 1)),
             *(((0.07, 0.15, 0.07), (x * 0.08, 0.11, 0.035)) for x in (-1, 1)),
             *(((0.06, 0.13, 0.06), (x * 0.1, 0.06, 0.17)) for x in (-1, 1)),
             ((0.06, 0.05, 0.05), (0, 0.085, 0.26))]
    return join([ellipsoid(np.array(size) * s, np.array(at) * s, m, 2 if size[0] > 0.1 else 1)
                 for size, at in balls])


FLOOR: tuple[Maker, ...] = (garment, garment, garment, shoes, shoes, handbag, backpack, waste_bag,
                            cushion, teddy, folded)
LARGE: tuple[Maker, ...] = (laundry, suitcase, waste_bag, waste_bag, bedding, laundry)
SURFACE: tuple[Maker, ...] = (folded, folded, garment, garment, handbag, cushion, teddy)
