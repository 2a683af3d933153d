"""Make what lines roads: parked rows, trucks, trees, signs, fences, hedges, rails, crossings."""
from __future__ import annotations

import numpy as np

from scenes import streets
from scenes.bodies import cylinder, rod, rounded_box
from scenes.draws import pick, Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, Mesh
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light


def truck(p: Palette, rng: Rng) -> Mesh:
    """Build a truck or bus along y: a long body behind a cab, or all of one piece."""
    length, w, h = rng.uniform(5.5, 11), rng.uniform(2.1, 2.5), rng.uniform(2.6, 3.6)
    paint, glass = p.one_of('plastic', 'ceramic', 'metal', 'paint'), p.get('black')
    tyre = p.solid((0.015, 0.015, 0.015))
    cab, front = rng.uniform(1.5, 2.0), length / 2
    load = p.one_of('plastic', 'ceramic', 'paint', 'packaging')
    parts = [rounded_box((w, cab, h * 0.75), (0, front - cab / 2, 0.4 + h * 0.375), paint, 0.1),
             box((w * 0.9, 0.02, 0.75), (0, front + 0.005, 0.4 + h * 0.55), glass),
             boxes((0.02, cab * 0.5, 0.6),
                   [(s * (w / 2 + 0.003), front - cab * 0.45, 0.4 + h * 0.55) for s in (-1, 1)],
                   glass),
             box((w, length - cab - 0.15, h - 0.7), (0, -cab / 2 - 0.08, 0.75 + (h - 0.7) / 2),
                 load),
             box((w * 0.8, length * 0.95, 0.2), (0, 0, 0.6), p.get('black')),
             boxes((0.25, 0.04, 0.15),
                   [(s * w * 0.4, e * (length / 2 + 0.01), 0.75) for s in (-1, 1)
                    for e in (-1, 1)], p.one_of('ceramic', 'plastic'))]
    for y in (front - cab * 0.6, -length * 0.22, -length * 0.34):
        for x in (-w / 2 + 0.14, w / 2 - 0.14):
            parts.append(rod((x - 0.13, y, 0.45), (x + 0.13, y, 0.45), 0.45, tyre, sides=16))
    return join(parts)


def traffic_sign(p: Palette, rng: Rng) -> Mesh:
    """Build a round or square sign, or a traffic light, on a pole; it faces -y."""
    h, steel = rng.uniform(2.2, 3.2), p.get('metal')
    red, blue, white = p.solid((0.6, 0.02, 0.02)), p.solid((0.02, 0.1, 0.5)), p.get('paper')
    parts = [cylinder(0.035, h + 0.4, (0, 0, 0), steel, sides=10)]
    kind = rng.random()
    if kind < 0.3:
        parts.append(box((0.28, 0.2, 0.85), (0, -0.12, h), p.get('black')))
        shining = int(rng.integers(3))
        for i, colour in enumerate(((1, 0.05, 0.02), (1, 0.5, 0.02), (0.05, 1, 0.2))):
            m = p.emissive(np.array(colour) * (6 if i == shining else 0.02))
            parts.append(rod((0, -0.24, h + 0.27 - 0.27 * i), (0, -0.215, h + 0.27 - 0.27 * i),
                             0.1, m, sides=14))
    elif kind < 0.65:
        rim, middle = (red, white) if rng.random() < 0.6 else (blue, blue)
        parts += [rod((0, -0.06, h), (0, -0.04, h), 0.32, rim, sides=24),
                  rod((0, -0.065, h), (0, -0.045, h), 0.24, middle, sides=24)]
    else:
        parts.append(box((0.6, 0.02, rng.uniform(0.3, 0.8)), (0, -0.05, h),
                         p.one_of('packaging', 'plastic', 'paper'), fit=True))
    return join(parts)


def fence(p: Palette, rng: Rng, length: float) -> Mesh:
    """
    Build a fence of pickets, a wall or a hedge along y from y = 0.

    Returns
    -------
    Mesh
    """
    h, draw = rng.uniform(0.8, 1.7), rng.random()
    if draw < 0.35:
        m, n = p.get('leaf'), int(length * 60)
        wide = rng.uniform(0.4, 0.8)
        at = rng.random((n, 3)) * [wide, length, h] - [wide / 2, 0, 0]
        leaves = boxes((0.16, 0.14, 0.02), at, m, yaws=rng.uniform(0, 6.3, n))
        return join([box((wide * 0.8, length, h * 0.95), (0, length / 2, h * 0.475), m), leaves])
    m = p.one_of('wood', 'metal', 'black', 'paint', 'brick')
    if draw < 0.55:
        return box((0.2, length, h), (0, length / 2, h / 2), p.one_of('brick', 'concrete'))
    ys = np.arange(0, length, rng.uniform(0.12, 0.3))
    return join([boxes((0.03, 0.07, h), [(0, y, h / 2) for y in ys], m,
                       upright=True),
                 boxes((0.04, length, 0.07),
                       [(0.03, length / 2, z) for z in (h * 0.25, h * 0.8)], m)])


def crash_barrier(p: Palette, length: float) -> Mesh:
    """
    Build the steel barrier beside a highway along y from y = 0.

    Returns
    -------
    Mesh
    """
    m, ys = p.get('metal'), np.arange(0, length, 3.0)
    return join([boxes((0.1, 0.12, 0.7), [(0, y, 0.35) for y in ys], m),
                 box((0.06, length, 0.13), (0.06, length / 2, 0.67), m),
                 box((0.06, length, 0.13), (0.06, length / 2, 0.5), m)])


def line_road(b: SceneBuilder, road: float, path: float, length: float, *, highway: bool) -> None:
    """Add rows of parked cars and trees, traffic on the road, fences, signs and crossings."""
    p, rng = b.palette, b.rng
    # The traffic and what is parked repeats few models, which saves time and memory.
    models = [streets.car(p, rng) for _ in range(4)] + [truck(p, rng)]
    for s in (-1, 1):
        edge = s * (road / 2 + path)
        if highway:
            barrier = crash_barrier(p, length + 40)
            b.add(barrier.moved((s * (road / 2 + 0.6), -10, 0)))
        elif rng.random() < 0.5:
            hedge = fence(p, rng, rng.uniform(8, 30))
            b.add(hedge.moved((edge - s * 0.3, rng.uniform(-3, 20), 0)))
        if rng.random() < (0.1 if highway else 0.45):
            _park_row(b, models, s * (road / 2 - 1.1), 0.0 if s > 0 else np.pi, length)
        if rng.random() < 0.4:
            tree, step = streets.tree(p, rng), rng.uniform(6, 12)
            for y in np.arange(rng.uniform(0, 6), min(length, 60), step):
                b.add(tree.moved((edge + s * rng.uniform(0.2, 0.6), y, 0), rng.uniform(0, 6.3)))
    for _ in range(int(rng.integers(0, 5))):
        s = int(rng.choice([-1, 1]))
        at = (s * road * rng.uniform(0.15, 0.3), rng.uniform(6, length), 0)
        b.add_if_free('traffic', pick(rng, models).moved(at, 0 if s > 0 else np.pi))
    for _ in range(int(rng.integers(1, 5))):
        place = (int(rng.choice([-1, 1])) * (road / 2 + 0.4), rng.uniform(2, 35), 0.05)
        b.add_if_free('sign', traffic_sign(p, rng).moved(place, rng.normal(0, 0.2)))
    if not highway and rng.random() < 0.5:
        xs, y = np.arange(-road / 2 + 0.4, road / 2 - 0.2, 1.0), rng.uniform(3, 25)
        b.add(boxes((0.5, 3.0, 0.004), [(x, y, 0.004) for x in xs],
                    p.get('paper')))


def _park_row(b: SceneBuilder, models: list[Mesh], x: float, yaw: float, length: float) -> None:
    """Park cars behind each other along the kerb."""
    y = b.rng.uniform(-5, 5)
    while y < min(length, 60):
        mesh = pick(b.rng, models)
        reach = float(np.ptp(mesh.bounds[:, 1]))
        if b.rng.random() < 0.85:
            b.add_if_free('car', mesh.moved((x + b.rng.normal(0, 0.08), y + reach / 2, 0),
                                            yaw + b.rng.normal(0, 0.02)))
        y += reach + b.rng.uniform(0.6, 1.6)


def light_dusk(b: SceneBuilder, road: float, path: float) -> None:
    """Add a pair of lit street lamps."""
    p, rng = b.palette, b.rng
    h, colour = rng.uniform(4, 7), np.array([1.0, rng.uniform(0.6, 0.95), rng.uniform(0.25, 0.85)])
    glow = p.emissive(colour * 20)
    for s, y in ((-1, rng.uniform(4, 10)), (1, rng.uniform(14, 26))):
        x = s * (road / 2 + 0.5 * path)
        b.add(join([cylinder(0.07, h, (x, y, 0), p.get('metal'), sides=10),
                    rod((x, y, h), (x - s * 1.2, y, h + 0.2), 0.04, p.get('metal')),
                    box((0.5, 0.2, 0.08), (x - s * 1.2, y, h + 0.16), glow)]))
        b.lights.append(Light('bulb', np.array([x - s * 1.2, y, h - 0.05], np.float32),
                              (colour * rng.uniform(8, 25)).astype(np.float32), radius_m=0.1))
