"""Make things that hang: on a wall at y = 0 from a hook at z = 0, or from a ceiling at z = 0."""
from __future__ import annotations

import numpy as np

from scenes import clutter, household
from scenes.bodies import cloth, cylinder, ellipsoid, lathe, loft, tube
from scenes.clutter import Maker
from scenes.draws import pick, Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, Mesh
from scenes.soft_things import backpack, handbag


def hook(p: Palette) -> Mesh:
    """Build a hook on the wall."""
    return tube([(0, 0, -0.03), (0, 0.03, -0.04), (0, 0.05, -0.01)], 0.006, p.get('metal'), 5)


def coat(p: Palette, rng: Rng) -> Mesh:
    """Build a coat or robe on a hook."""
    drop, w = rng.uniform(0.55, 1.15), rng.uniform(0.15, 0.25)
    m = p.one_of('cloth', 'cloth', 'black', 'fabric')
    d = rng.uniform(0.05, 0.09)
    rings = [(0, d * 1.2, -drop, w * 1.1, d), (0, d * 1.2, -drop * 0.6, w, d),
             (0, d * 1.2, -0.2, w * 0.9, d), (0, d * 1.2, -0.1, w * 0.6, d * 0.8),
             (0, 0.06, -0.02, 0.03, 0.03)]
    sleeves = [tube([(s * w * 0.6, d * 1.3, -0.13), (s * w * 1.1, d * 1.4, -0.35),
                     (s * w * 1.15, d * 1.3, -0.62)], [0.05, 0.055, 0.04], m, 8)
               for s in (-1, 1) if drop > 0.65]
    return join([hook(p), loft(rings, m, folds=0.1, sides=18), *sleeves])


def coat_rack(p: Palette, rng: Rng) -> Mesh:
    """Build a board with hooks, coats and bags."""
    n = int(rng.integers(3, 8))
    pitch = rng.uniform(0.12, 0.2)
    parts = [box((n * pitch, 0.02, 0.1), (0, 0.01, 0), p.one_of('wood', 'black', 'ceramic'))]
    for i in range(n):
        x = (i - (n - 1) / 2) * pitch
        thing = (hook(p) if rng.random() < 0.25 else
                 pick(rng, (coat, coat, hung_bag, towel))(p, rng))
        parts.append(thing.moved((x, 0.02, 0)))
    return join(parts)


def on_hanger(p: Palette, rng: Rng) -> Mesh:
    """Build a shirt or dress on a hanger that faces the room."""
    w, drop = rng.uniform(0.19, 0.25), rng.uniform(0.5, 1.2)
    m, d = p.one_of('cloth', 'cloth', 'fabric'), 0.035
    rings = [(0, 0.05, -drop, w * 1.05, d), (0, 0.05, -drop / 2, w * 0.92, d),
             (0, 0.05, -0.2, w, d), (0, 0.05, -0.12, w * 0.95, d * 0.8), (0, 0.05, -0.08, 0.06, d)]
    return join([tube([(0, 0, -0.02), (0, 0.05, 0), (0, 0.05, -0.09)], 0.003, p.get('metal'), 4),
                 loft(rings, m, folds=0.05, sides=20)])


def hung_bag(p: Palette, rng: Rng) -> Mesh:
    """Build a bag on a hook."""
    bag = (backpack if rng.random() < 0.5 else handbag)(p, rng)
    low, high = bag.bounds
    return join([hook(p), bag.moved((0, 0.01 - low[1], -high[2]))])


def towel(p: Palette, rng: Rng) -> Mesh:
    """Build a towel, apron or cloth on a hook."""
    drop, w = rng.uniform(0.35, 0.8), rng.uniform(0.1, 0.2)
    v, u = np.linspace(0, 1, 7)[:, None], np.linspace(-1, 1, 13)
    spread = 0.02 + w * (1 - v) ** 0.6
    y = 0.05 + 0.02 * (1 - v) * np.sin(u * rng.uniform(5, 11) + rng.uniform(0, 6))
    points = np.stack([-u * spread, y, -0.02 - drop * (1 - v) * (1 - 0.25 * np.abs(u))], -1)
    return join([hook(p), cloth(points, p.one_of('cloth', 'fabric'))])


def loops(p: Palette, rng: Rng) -> Mesh:
    """Build coiled cable, hose or rope on a hook."""
    turns, r = int(rng.integers(3, 8)), rng.uniform(0.08, 0.17)
    t = np.linspace(0, 2 * np.pi * turns, 14 * turns)
    x = r * np.sin(t) * (1 + 0.1 * np.sin(t * 0.37))
    z = -r * 1.6 + r * 1.6 * np.cos(t) * (1 + 0.06 * np.sin(t * 0.51))
    points = np.stack([x, 0.03 + 0.012 * np.sin(t * 0.23), z - r * 0.1], -1)
    return join([hook(p), tube(points, rng.uniform(0.003, 0.009),
                               p.one_of('black', 'plastic', 'paper'), 5)])


def pans(p: Palette, rng: Rng) -> Mesh:
    """Build a rail with pans and ladles."""
    n = int(rng.integers(3, 7))
    w = n * 0.22
    parts = [tube([(-w / 2, 0.03, 0), (w / 2, 0.03, 0)], 0.007, p.get('metal'), 6),
             boxes((0.02, 0.03, 0.02), [(s * w / 2, 0.015, 0) for s in (-1, 1)],
                   p.get('metal'))]
    for i in range(n):
        x, maker = (i - (n - 1) / 2) * 0.22, rng.random()
        if maker < 0.55:
            one = household.pan(p, rng).moved(yaw=-np.pi / 2).moved(tilt=np.pi / 2)
            one = one.moved(yaw=np.pi) if one.bounds[1, 2] > 0.2 else one
        else:
            one = join([tube([(0, 0, 0), (0, 0, -0.25)], 0.006, p.one_of('wood', 'metal')),
                        ellipsoid((0.07, 0.03, 0.09), (0, 0, -0.28), p.one_of('wood', 'metal'))])
        low, high = one.bounds
        parts.append(one.moved((x - (low[0] + high[0]) / 2, 0.005 - low[1], 0.01 - high[2])))
    return join(parts)


def tool_board(p: Palette, rng: Rng) -> Mesh:
    """Build a board with rows of hung tools."""
    w, h = rng.uniform(0.6, 1.4), rng.uniform(0.5, 0.9)
    parts = [box((w, 0.018, h), (0, 0.009, -h / 2), p.one_of('wood', 'metal', 'paint'))]
    for z in np.arange(0.06, h - 0.25, 0.3):
        x = -w / 2 + 0.06
        while x < w / 2 - 0.06:
            if rng.random() < 0.8:
                one = _hung_tool(p, rng, rng.uniform(0.12, 0.26))
                parts.append(one.moved((x, 0.02, -z)))
            x += rng.uniform(0.05, 0.13)
    return join(parts)


def _hung_tool(p: Palette, rng: Rng, length: float) -> Mesh:
    """Build a hammer, saw, screwdriver, pair of pliers or spanner with its top at z = 0."""
    grip, steel, kind = p.one_of('plastic', 'wood', 'black'), p.get('metal'), int(rng.integers(5))
    if kind == 0:
        return join([tube([(0, 0.015, -0.02), (0, 0.015, -length)], 0.011, grip),
                     box((0.09, 0.025, 0.026), (0, 0.015, -0.013), steel)])
    if kind == 1:
        return boxes([[0.05, 0.004, length], [0.07, 0.022, 0.09]],
                     [(0, 0.012, -length / 2), (0, 0.012, -0.045)], [steel, grip])
    if kind == 2:
        return join([tube([(0, 0.018, 0), (0, 0.018, -length * 0.45)], 0.014, grip),
                     tube([(0, 0.018, -length * 0.45), (0, 0.018, -length)], 0.004, steel)])
    if kind == 3:
        return join([tube([(s * 0.012, 0.012, 0), (s * 0.02, 0.012, -length * 0.4),
                           (-s * 0.006, 0.012, -length * 0.7), (-s * 0.003, 0.012, -length * 0.9)],
                          0.007, grip, 5) for s in (-1, 1)])
    return join([box((0.018, 0.008, length), (0, 0.01, -length / 2), steel),
                 box((0.045, 0.012, 0.035), (0, 0.01, -0.0175), steel),
                 box((0.035, 0.012, 0.03), (0, 0.01, -length + 0.015), steel)])


def wall_shelf(p: Palette, rng: Rng) -> Mesh:
    """Build a shelf on brackets, with things on it."""
    w, d = rng.uniform(0.4, 1.2), rng.uniform(0.15, 0.28)
    m = p.one_of('wood', 'paint', 'black')
    brackets = [tube([(s * w * 0.38, 0.004, -0.17 - 0.35), (s * w * 0.38, d * 0.8, -0.375)], 0.007,
                     p.get('metal'), 5) for s in (-1, 1)]
    makers = household.KITCHEN if rng.random() < 0.4 else household.LIVING
    things = [t.moved((0, d / 2, -0.35)) for t in clutter.scatter(p, rng, makers, w, d, 7)
              if t.bounds[1, 2] < 0.35]
    return join([box((w, d, 0.022), (0, d / 2, -0.361), m), *brackets, *things])


def clock(p: Palette, rng: Rng) -> Mesh:
    """Build a wall clock or plate."""
    r = rng.uniform(0.1, 0.2)
    face = join([cylinder(r, 0.03, (0, 0, 0), p.one_of('black', 'metal', 'wood')),
                 cylinder(r * 0.9, 0.032, (0, 0, 0), p.get('paper'))])
    hands = [tube([(0, 0.036, -r), (x, 0.036, -r + z)], 0.004, p.get('black'), 4)
             for x, z in rng.uniform(-0.6, 0.6, (2, 2)) * r + 0.001]
    return join([face.moved((0, 0, -r), np.pi, np.pi / 2), *hands])


def notices(p: Palette, rng: Rng) -> Mesh:
    """Build a pin board or a wall with notes."""
    n = int(rng.integers(3, 16))
    w, h = rng.uniform(0.4, 1.0), rng.uniform(0.3, 0.7)
    sizes = np.stack([rng.uniform(0.06, 0.21, n), np.full(n, 0.002), rng.uniform(0.06, 0.29, n)],
                     -1)
    at = np.stack([rng.uniform(-0.4, 0.4, n) * w, 0.008 + 0.002 * np.arange(n) % 0.02,
                   -h / 2 + rng.uniform(-0.3, 0.3, n) * h], -1)
    return join([box((w, 0.012, h), (0, 0.006, -h / 2), p.one_of('wood', 'cardboard', 'paint')),
                 boxes(sizes, at + [0, 0.006, 0],
                       [p.one_of('paper', 'packaging', 'picture') for _ in range(n)], fit=True)])


def garland(p: Palette, rng: Rng) -> Mesh:
    """Build a sagging string of pennants or lights."""
    w, m = rng.uniform(0.8, 2.2), p.get('black')
    x = np.linspace(-w / 2, w / 2, 17)
    z = -rng.uniform(0.1, 0.3) * (1 - (2 * x / w) ** 2) - 0.01
    parts = [tube(np.stack([x, np.full(17, 0.02), z], -1), 0.003, m, 4)]
    for i in range(1, 16):
        parts.append(ellipsoid((0.05, 0.03, 0.07), (x[i], 0.03, z[i] - 0.035),
                               p.one_of('plastic', 'cloth', 'paper'), 1))
    return join(parts)


def cord(p: Palette, rng: Rng) -> Mesh:
    """Build a bare bulb on a cord."""
    drop = rng.uniform(0.2, 0.7)
    glass = p.emissive(np.array([1, 0.85, 0.6]) * rng.uniform(0.3, 2.0))
    return join([tube([(0, 0, 0), (0.01, 0, -drop / 2), (0, 0, -drop)], 0.004, p.get('black'), 5),
                 cylinder(0.02, 0.06, (0, 0, -drop - 0.02), p.get('black'), sides=10),
                 ellipsoid((0.07, 0.07, 0.1), (0, 0, -drop - 0.05), glass)])


def hanging_plant(p: Palette, rng: Rng) -> Mesh:
    """Build a plant in a hanging basket."""
    drop, r = rng.uniform(0.3, 0.7), rng.uniform(0.09, 0.16)
    basket = lathe([[0, -drop - r], [r * 0.6, -drop - r], [r, -drop], [0, -drop]], (0, 0, 0),
                   p.one_of('brick', 'wood', 'ceramic', 'plastic'), sides=14)
    strings = [tube([(0, 0, 0), (r * np.cos(a), r * np.sin(a), -drop)], 0.003, p.get('black'), 4)
               for a in np.arange(3) * 2 * np.pi / 3]
    few = clutter.foliage(p, rng, r * 2, 6, r * 1.3)
    return join([basket, *strings, *(few.moved((0, 0, -drop), yaw)
                                     for yaw in rng.uniform(0, 2 * np.pi, 4))])


def mobile(p: Palette, rng: Rng) -> Mesh:
    """Build a mobile with hanging shapes."""
    drop = rng.uniform(0.2, 0.45)
    parts = [tube([(0, 0, 0), (0, 0, -drop)], 0.002, p.get('black'), 4)]
    for a in np.arange(3) * np.pi / 3:
        c, s = 0.2 * np.cos(a), 0.2 * np.sin(a)
        parts.append(tube([(-c, -s, -drop), (c, s, -drop)], 0.003, p.one_of('wood', 'metal'), 4))
        for sign in (-1, 1):
            low = drop + rng.uniform(0.05, 0.3)
            parts += [tube([(sign * c, sign * s, -drop), (sign * c, sign * s, -low)], 0.0015,
                           p.get('black'), 3),
                      ellipsoid((0.07, 0.03, 0.07), (sign * c, sign * s, -low), p.get('plastic'),
                                1)]
    return join(parts)


def hung_laundry(p: Palette, rng: Rng) -> Mesh:
    """Build a rod below the ceiling with clothes on it."""
    w, drop = rng.uniform(0.5, 1.1), rng.uniform(0.08, 0.3)
    parts = [tube([(-w / 2, 0, -drop), (w / 2, 0, -drop)], 0.012, p.one_of('wood', 'metal'))]
    parts += [tube([(s * w * 0.45, 0, 0), (s * w * 0.45, 0, -drop)], 0.004, p.get('metal'), 4)
              for s in (-1, 1)]
    for x in np.arange(-w / 2 + 0.1, w / 2 - 0.05, 0.13):
        if rng.random() < 0.7:
            fall = rng.uniform(0.3, 0.6)
            parts.append(loft([(x, 0, -drop - fall, 0.03, 0.2), (x, 0, -drop - 0.12, 0.03, 0.17),
                               (x, 0, -drop, 0.012, 0.04)], p.get('cloth'), folds=0.1))
    return join(parts)


ON_WALL: tuple[Maker, ...] = (coat, coat_rack, coat_rack, on_hanger, hung_bag, towel, loops, pans,
                              tool_board, wall_shelf, wall_shelf, wall_shelf, clock, notices,
                              garland)
ON_CEILING: tuple[Maker, ...] = (cord, hanging_plant, mobile, hung_laundry)
