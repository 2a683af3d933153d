"""Make large things of thin parts that stand on z = 0: racks, stands, cycles, folding frames."""
from __future__ import annotations

import numpy as np

from scenes.bodies import cloth, cylinder, ellipsoid, lathe, loft, rounded_box, tube
from scenes.clutter import Maker
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import boxes, join, Mesh

Points = np.ndarray


def _ring(radius: float, x: float, z: float, count: int = 19) -> Points:
    """Return a closed circle in the plane y = 0."""
    t = np.linspace(0, 2 * np.pi, count)
    return np.stack([x + radius * np.cos(t), 0 * t, z + radius * np.sin(t)], -1)


def _wheel(p: Palette, radius: float, x: float, tyre: float) -> list[Mesh]:
    """Build a spoked wheel that stands on z = 0."""
    spokes = [tube([(x, 0, radius), (x + radius * np.cos(a), 0, radius + radius * np.sin(a))],
                   0.0018, p.get('metal'), 3) for a in np.arange(12) * np.pi / 6]
    return [tube(_ring(radius - tyre, x, radius), tyre, p.get('black'), 7), *spokes]


def bicycle(p: Palette, rng: Rng) -> Mesh:
    """Build a bicycle along x."""
    s, paint, black = rng.uniform(0.6, 1.0), p.one_of('plastic', 'black', 'metal'), p.get('black')
    crank, seat, rear, front = (np.array(a) * s for a in (
        (-0.08, 0, 0.3), (-0.25, 0, 0.78), (-0.52, 0, 0.34), (0.52, 0, 0.34)))
    head, fork = np.array([0.33, 0, 0.86]) * s, np.array([0.36, 0, 0.72]) * s
    pipes = [(crank, seat), (seat * 0.97, head), (crank, fork), (rear, seat * 0.95),
             (rear, crank), (front, head), (head, head + [-0.02, 0, 0.12])]
    bar = head + np.array([(0.06, -0.28, 0.1), (0.0, -0.1, 0.13), (0.0, 0.1, 0.13),
                           (0.06, 0.28, 0.1)])
    parts = [tube(pipe, 0.015 * s, paint) for pipe in pipes]
    parts += [tube(bar, 0.012, black), *_wheel(p, 0.34 * s, rear[0], 0.02 * s),
              *_wheel(p, 0.34 * s, front[0], 0.02 * s),
              ellipsoid((0.26, 0.14, 0.07), seat + [0, 0, 0.04], black),
              tube(_ring(0.09 * s, crank[0], crank[2], 13), 0.008, black, 4)]
    for side in (-1, 1):
        end = crank + [side * 0.12 * s, side * 0.09, side * -0.1 * s]
        parts += [tube([crank + [0, side * 0.06, 0], end], 0.01, black, 4),
                  boxes([[0.09, 0.08, 0.02]], [end], black)]
    if rng.random() < 0.3:
        parts.append(boxes([[0.3, 0.25, 0.2]], [head + [0.2, 0, 0.05]], p.one_of('wood', 'black')))
    bike = join(parts)
    return bike.moved((0, 0, -bike.bounds[0, 2]))


def stroller(p: Palette, rng: Rng) -> Mesh:
    """Build a pushchair that faces +y."""
    frame, m = p.one_of('metal', 'black'), p.one_of('cloth', 'fabric', 'black')
    parts = []
    for s in (-1, 1):
        x = 0.24 * s
        parts += [tube([(x, 0.38, 0.09), (x, -0.1, 0.62), (x, -0.42, 1.0)], 0.012, frame),
                  tube([(x, -0.32, 0.09), (x, 0.05, 0.5)], 0.012, frame)]
        for y in (0.38, -0.32):
            wheel = join(_wheel(p, 0.09, 0, 0.018)).moved(yaw=np.pi / 2)
            parts.append(wheel.moved((x + 0.03 * s, y, 0)))
    u, v = np.meshgrid(np.linspace(0, np.pi, 13), np.linspace(-0.2, 1.3, 6))
    hood = np.stack([0.26 * np.cos(u), -0.15 - 0.3 * np.sin(v) * np.sin(u) + 0.15,
                     0.68 + 0.32 * np.cos(v) * np.sin(u)], -1)
    parts += [tube([(-0.24, -0.42, 1.0), (0.24, -0.42, 1.0)], 0.016, p.get('black')),
              rounded_box((0.42, 0.36, 0.08), (0, 0.08, 0.45), m, 0.03),
              rounded_box((0.42, 0.07, 0.5), (0, -0.13, 0.66), m, 0.03), cloth(hood, m)]
    return join(parts)


def clothes_horse(p: Palette, rng: Rng) -> Mesh:
    """Build a drying rack with towels and clothes on it."""
    m = p.one_of('metal', 'plastic', 'wood')
    h, w = rng.uniform(0.8, 1.1), rng.uniform(0.7, 1.1)
    parts = []
    for s in (-1, 1):
        for t in (-1, 1):
            parts.append(tube([(s * w / 2, t * 0.3, 0.012), (s * w / 2, -t * 0.3, h)], 0.009, m,
                              5))
        parts.append(tube([(s * w / 2, -0.45, h), (s * w / 2, 0.45, h)], 0.009, m, 5))
    rails = np.linspace(-0.43, 0.43, 9)
    parts += [tube([(-w / 2, y, h), (w / 2, y, h)], 0.004, m, 4) for y in rails]
    for y in rng.choice(rails, int(rng.integers(0, 7)), replace=False):
        wide = rng.uniform(0.15, 0.45) * w
        x = rng.uniform(-1, 1) * (w / 2 - wide / 2)
        parts.append(over_rail(p, rng, wide, rng.uniform(0.2, 0.55)).moved((x, y, h + 0.005)))
    return join(parts)


def over_rail(p: Palette, rng: Rng, width: float, drop: float) -> Mesh:
    """
    Build a cloth that hangs over a rail along x at z = 0, `drop` metres down in front.

    Returns
    -------
    Mesh
    """
    v = np.array([-0.85, -0.5, -0.2, -0.03, 0, 0.03, 0.2, 0.5, 1.0])[:, None]
    u = np.linspace(-0.5, 0.5, 13)
    wave = 0.014 * np.sin(u * rng.uniform(8, 25) + rng.uniform(0, 6)) * np.abs(v)
    y = np.sign(v) * 0.008 * np.minimum(np.abs(v) * 30, 1) * np.ones_like(u) + wave + 0.012 * v
    points = np.stack([u * width * np.ones_like(v), -y, -drop * np.abs(v) * np.ones_like(u)], -1)
    return cloth(points, p.one_of('cloth', 'cloth', 'fabric')).moved((0, 0, 0.004))


def tripod(p: Palette, rng: Rng) -> Mesh:
    """Build a tripod with a camera, lamp or music stand on it."""
    m, h, spread = p.one_of('black', 'metal'), rng.uniform(0.7, 1.6), rng.uniform(0.25, 0.45)
    parts = [tube([(spread * np.cos(a), spread * np.sin(a), 0.01), (0, 0, h * 0.75)], 0.011, m, 5)
             for a in np.arange(3) * 2 * np.pi / 3 + 0.3]
    parts.append(tube([(0, 0, h * 0.5), (0, 0, h)], 0.012, m, 6))
    top = int(rng.integers(3))
    if top == 0:
        parts.append(boxes([[0.14, 0.09, 0.1], [0.07, 0.12, 0.07]],
                           [(0, 0, h + 0.05), (0, 0.08, h + 0.05)], p.get('black')))
    elif top == 1:
        parts.append(boxes([[0.48, 0.01, 0.33], [0.48, 0.05, 0.01]],
                           [(0, 0, h + 0.16), (0, 0.02, h)], m))
    else:
        parts.append(lathe([[0.16, h - 0.1], [0.05, h + 0.1], [0, h + 0.1]], (0, 0, 0),
                           p.get('black')))
    return join(parts)


def coat_stand(p: Palette, rng: Rng) -> Mesh:
    """Build a coat stand with coats and bags."""
    m, h = p.one_of('wood', 'black', 'metal'), rng.uniform(1.6, 1.85)
    parts = [cylinder(0.17, 0.03, (0, 0, 0), m), tube([(0, 0, 0.02), (0, 0, h)], 0.02, m, 8)]
    for a in np.arange(6) * np.pi / 3:
        tip = np.array([0.16 * np.cos(a), 0.16 * np.sin(a), h - 0.06])
        parts.append(tube(np.array([(0, 0, h - 0.15), tip]), 0.009, m, 5))
        if rng.random() < 0.6:
            drop = rng.uniform(0.5, 1.1)
            rings = [(0, 0, -drop, 0.19, 0.08), (0, 0, -drop * 0.5, 0.17, 0.09),
                     (0, 0, -0.16, 0.17, 0.08), (0, 0, -0.03, 0.05, 0.05)]
            coat = loft(rings, p.one_of('cloth', 'cloth', 'black'), folds=0.12, sides=18)
            parts.append(coat.moved(tip, a + np.pi / 2))
    return join(parts)


def clothes_rail(p: Palette, rng: Rng) -> Mesh:
    """Build a rail on two feet, full of clothes on hangers."""
    m, w, h = p.one_of('metal', 'black'), rng.uniform(0.8, 1.4), rng.uniform(1.4, 1.7)
    parts = [tube([(-w / 2, 0, h), (w / 2, 0, h)], 0.014, m)]
    for s in (-1, 1):
        parts += [tube([(s * w / 2, 0, 0.02), (s * w / 2, 0, h)], 0.014, m),
                  tube([(s * w / 2, -0.24, 0.015), (s * w / 2, 0.24, 0.015)], 0.015, m)]
    for x in np.sort(rng.uniform(-w / 2 + 0.08, w / 2 - 0.08, int(rng.integers(3, 16)))):
        drop = rng.uniform(0.5, 1.1)
        parts.append(loft([(x, 0, h - drop, 0.025, 0.22), (x, 0, h - 0.22, 0.03, 0.2),
                           (x, 0, h - 0.1, 0.02, 0.14), (x, 0, h - 0.06, 0.01, 0.03)],
                          p.one_of('cloth', 'cloth', 'fabric'), folds=0.08))
    return join(parts)


def stool(p: Palette, rng: Rng) -> Mesh:
    """Build a three- or four-legged stool, or a bar stool with rungs."""
    m, h = p.one_of('wood', 'metal', 'black'), rng.choice([0.35, 0.45, 0.7])
    n, r = int(rng.integers(3, 5)), 0.16
    feet = [(1.3 * r * np.cos(a), 1.3 * r * np.sin(a), 0) for a in np.arange(n) * 2 * np.pi / n]
    parts = [tube([foot, (foot[0] * 0.6, foot[1] * 0.6, h - 0.02)], 0.014, m) for foot in feet]
    parts += [tube([np.multiply(a, 0.8) + [0, 0, h / 3], np.multiply(b, 0.8) + [0, 0, h / 3]],
                   0.009, m, 5) for a, b in zip(feet, feet[1:] + feet[:1])]
    return join([*parts, cylinder(r, 0.035, (0, 0, h - 0.035), p.one_of('wood', 'plastic'))])


def fan(p: Palette, rng: Rng) -> Mesh:
    """Build a standing fan with its cage."""
    h, r, m = rng.uniform(0.6, 1.3), rng.uniform(0.16, 0.22), p.one_of('black', 'ceramic', 'metal')
    parts = [cylinder(0.17, 0.03, (0, 0, 0), m), tube([(0, 0, 0.02), (0, -0.05, h)], 0.013, m),
             ellipsoid((0.12, 0.16, 0.12), (0, -0.05, h), m)]
    for y, scale in ((0.09, 0.55), (0.05, 0.95), (-0.01, 1.0)):
        parts.append(tube(_ring(r * scale, 0, h) + [0, y, 0], 0.003, m, 4))
    for a in np.arange(16) * np.pi / 8:
        c, s = r * np.cos(a), r * np.sin(a)
        parts.append(tube([(0, 0.1, h), (c * 0.55, 0.09, h + s * 0.55),
                           (c, -0.01, h + s), (0.2 * c, -0.06, h + 0.2 * s)], 0.0022, m, 3))
    blades = p.one_of('plastic', 'black')
    for a in np.arange(3) * 2 * np.pi / 3:
        c, s = np.cos(a), np.sin(a)
        parts.append(ellipsoid((0.55 * r, 0.02, 0.55 * r), (0.5 * r * c, 0.03, h + 0.5 * r * s),
                               blades, 1))
    return join(parts)


def railing(p: Palette, rng: Rng) -> Mesh:
    """Build a stair gate, playpen side or fire guard."""
    m, w, h = p.one_of('wood', 'metal', 'black', 'ceramic'), rng.uniform(0.6, 1.4), rng.uniform(
        0.5, 0.95)
    n = int(w / rng.uniform(0.06, 0.11))
    parts = [tube([(x, 0, 0.04), (x, 0, h)], 0.008, m, 5) for x in np.linspace(-w / 2, w / 2, n)]
    parts += [tube([(-w / 2, 0, z), (w / 2, 0, z)], 0.012, m, 6) for z in (0.04, h)]
    return join([*parts, boxes((0.04, 0.36, 0.028),
                               [(s * w * 0.45, 0, 0.014) for s in (-1, 1)], m)])


LARGE: tuple[Maker, ...] = (bicycle, stroller, clothes_horse, clothes_horse, tripod, coat_stand,
                            clothes_rail, stool, stool, fan, railing)
