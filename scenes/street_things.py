"""Make what stands on and along streets: vehicles, trees, posts, fences, people, houses."""
from __future__ import annotations

import numpy as np

from scenes.bodies import cylinder, ellipsoid, grid, lathe, rod, rounded_box
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, Mesh, panel


def car(p: Palette, rng: Rng) -> Mesh:
    """Build a car or van along y."""
    length, w, h = rng.uniform(3.7, 4.8), rng.uniform(1.65, 1.85), rng.uniform(1.4, 1.55)
    van = rng.random() < 0.25
    paint, glass, tyre = p.one_of('plastic', 'ceramic', 'metal', 'black'), p.get('black'), (
        p.solid((0.015, 0.015, 0.015)))
    waist = 0.62 if not van else 0.7
    if van:
        h = rng.uniform(1.9, 2.4)
    hood, boot = (0.12, 0.02) if van else (0.27, rng.uniform(0.02, 0.2))
    rear, front = -length / 2 + boot * length, length / 2 - hood * length
    half = w / 2 * 0.96
    top, slope = half * 0.85, 0.35 if van else 0.65
    roof = np.array([[-half, rear, waist], [-top, rear + 0.35 * (1 - van), h],
                     [-top, front - slope, h], [-half, front, waist]])
    other = roof * [-1, 1, 1]
    parts = [rounded_box((w, length, 0.58), (0, 0, waist - 0.21), paint, 0.14)]
    for a, b_, side in ((0, 1, glass), (1, 2, paint), (2, 3, glass)):
        parts.append(grid(np.stack([[roof[a], other[a]], [roof[b_], other[b_]]]), side,
                          smooth=False))
    for face in (roof, other[::-1]):
        parts.append(grid(np.stack([[face[0], face[3]], [face[1], face[2]]]),
                          paint if van else glass, smooth=False))
    for y in (-length * 0.3, length * 0.31):
        for s in (-1, 1):
            x = s * (w / 2 - 0.1)
            parts += [rod((x - 0.1, y, 0.31), (x + 0.1, y, 0.31), 0.31, tyre, sides=16),
                      rod((x - 0.105, y, 0.31), (x + 0.105, y, 0.31), 0.19, p.get('metal'),
                          sides=12)]
    lamps = [(s * w * 0.36, e * length * 0.497, waist - 0.05) for s in (-1, 1) for e in (-1, 1)]
    parts.append(boxes((0.3, 0.05, 0.14), lamps,
                       p.one_of('ceramic', 'plastic')))
    return join(parts)


def tree(p: Palette, rng: Rng) -> Mesh:
    """Build a street tree or bush."""
    h, r = rng.uniform(1.8, 3.5), rng.uniform(0.9, 2.2)
    bark, m = p.get('bark'), p.get('leaf')
    parts = [lathe([[0.22, 0], [0.13, h * 0.5], [0.1, h + r * 0.5]], (0, 0, 0), bark, sides=10)]
    n = 900
    direction = rng.standard_normal((n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wave, other = (np.sin(direction @ rng.normal(0, 4, 3)) for _ in range(2))
    reach = r * (1 + 0.25 * wave * other)[:, None] * rng.uniform(0.55, 1, (n, 1)) ** 0.5
    centers = direction * reach * [1, 1, 0.85]
    size = np.tile([[0.28, 0.24, 0.02]], (n, 1)) * rng.uniform(0.6, 1.3, (n, 1))
    parts.append(boxes(size, centers + [0, 0, h + r * 0.75], m, yaws=rng.uniform(0, 6.3, n)))
    core = ellipsoid((1.3 * r, 1.3 * r, 1.1 * r), (0, 0, h + r * 0.75), m, 1)
    return join([*parts, core])


def lamp_post(p: Palette, rng: Rng) -> Mesh:
    """Build a lamp post or a sign post."""
    m, h = p.one_of('metal', 'black'), rng.uniform(2.4, 5.5)
    top = ellipsoid((0.3, 0.3, 0.35), (0, 0, h), p.get('ceramic')) if h > 3.2 else (
        box((0.5, 0.03, 0.5), (0, 0, h - 0.25), p.get('packaging'), fit=True))
    return join([cylinder(0.06, h, (0, 0, 0), m, sides=10), cylinder(0.1, 0.5, (0, 0, 0), m), top])


def bench(p: Palette, rng: Rng) -> Mesh:
    """Build a park bench."""
    wood, iron = p.get('wood'), p.get('black')
    slats = [(0, -0.2 + 0.12 * i, 0.45) for i in range(4)] + [(0, -0.28, 0.6), (0, -0.3, 0.75)]
    sizes = [[1.6, 0.09, 0.03]] * 4 + [[1.6, 0.03, 0.1]] * 2
    return join([boxes(sizes, slats, wood),
                 boxes((0.05, 0.5, 0.45), [(s * 0.7, 0, 0.22) for s in (-1, 1)],
                       iron)])


def pedestrian(p: Palette, rng: Rng, stride: float | None = None) -> Mesh:
    """
    Build a standing or walking person who faces +y.

    Parameters
    ----------
    p, rng
        Palette and random generator.
    stride : float or None
        How far the foot at +x is in front, and the other behind, m; random if None.

    Returns
    -------
    Mesh
    """
    h, random_stride = rng.uniform(1.55, 1.9), rng.uniform(0, 0.3)
    stride = random_stride if stride is None else stride
    skin = p.solid(np.array([0.45, 0.27, 0.18]) * rng.uniform(0.3, 1.5))
    shirt, trousers, shoes = p.get('fabric'), p.get('fabric'), p.get('black')
    hip, neck = 0.5 * h, 0.82 * h
    parts = [ellipsoid((0.17, 0.21, 0.24), (0, 0, h - 0.12), skin),
             ellipsoid((0.18, 0.22, 0.16), (0, -0.015, h - 0.07), p.get('black')),
             ellipsoid((0.46, 0.27, neck - hip + 0.16), (0, 0, (neck + hip) / 2), shirt, 3),
             rod((0, 0, neck - 0.04), (0, 0, h - 0.18), 0.055, skin)]
    for s in (-1, 1):
        foot = np.array([s * 0.11, s * stride, 0.08])
        elbow = np.array([s * 0.28, -s * stride * 0.4, 0.63 * h])
        parts += [rod((s * 0.1, 0, hip + 0.05), foot, 0.075, trousers, sides=10),
                  rounded_box((0.1, 0.27, 0.09), foot + [0, 0.06, -0.035], shoes, 0.03),
                  rod((s * 0.21, 0, neck - 0.06), elbow, 0.05, shirt),
                  rod(elbow, elbow + [0, 0.12, -0.24], 0.038, skin),
                  ellipsoid((0.08, 0.09, 0.1), (s * 0.21, 0, neck - 0.06), shirt)]
    return join(parts)


def house(p: Palette, rng: Rng, width: float, depth: float) -> Mesh:
    """
    Build a house whose front is at x = 0, faces +x and spans y = 0 to `width`, m.

    Returns
    -------
    Mesh
    """
    storeys, storey = int(rng.integers(1, 6)), rng.uniform(2.8, 3.4)
    n, h = max(1, round(width / rng.uniform(2.2, 3.2))), storeys * storey
    wall, bay = p.one_of('plaster', 'brick', 'concrete'), p.get('facade')
    ground = bay if rng.random() < 0.5 else p.get('facade')
    parts = [box((depth, width, h), (-depth / 2 - 0.02, width / 2, h / 2), wall)]
    for k in range(storeys):
        for i in range(n):
            parts.append(panel((0, i * width / n, k * storey), (0, width / n, 0), (0, 0, storey),
                               ground if k == 0 else bay))
            if k and rng.random() < 0.15:
                y = (i + 0.5) * width / n
                parts.append(boxes([[0.9, 1.8, 0.12], [0.05, 1.8, 0.9]],
                                   [[0.45, y, k * storey], [0.88, y, k * storey + 0.5]],
                                   p.one_of('concrete', 'black')))
    door = rng.uniform(0.8, max(width - 0.8, 0.9))
    parts += [box((0.1, 1.1, 2.2), (0.0, door, 1.1), p.one_of('wood', 'plastic'), upright=True),
              box((0.3, width, 0.2), (0.05, width / 2, h), p.one_of('paint', 'concrete'))]
    if rng.random() < 0.6:
        ridge = h + depth * rng.uniform(0.25, 0.5)
        roof = p.one_of('brick', 'tiles', 'black')
        for s, x in ((1, 0.3), (-1, -depth - 0.3)):
            eave, top = np.array([x, 0, h]), np.array([-depth / 2, 0, ridge])
            along = np.array([0, width, 0]) * s
            start = eave if s > 0 else eave + [0, width, 0]
            parts.append(panel(start, along, top - eave, roof, fit=False))
    return join(parts)


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
