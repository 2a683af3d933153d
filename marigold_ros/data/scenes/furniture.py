"""Furniture: each maker stands its piece on the origin, its back to -y and its front to +y."""
from __future__ import annotations

import numpy as np

from marigold_ros.data.scenes import clutter
from marigold_ros.data.scenes.clutter import Rng
from marigold_ros.data.scenes.materials import Palette
from marigold_ros.data.scenes.meshes import (box, boxes, cylinder, ellipsoid, grid, join, lathe, Mesh,
                                             panel, rod, rounded_box)


def legs(width: float, depth: float, height: float, thick: float, material: int) -> Mesh:
    """
    Make four legs under a rectangle, standing on z = 0.

    Returns
    -------
    Mesh
    """
    x, y = width / 2 - thick / 2, depth / 2 - thick / 2
    centers = [(sx * x, sy * y, height / 2) for sx in (-1, 1) for sy in (-1, 1)]
    return boxes(np.tile([[thick, thick, height]], (4, 1)), centers, material, upright=True)


def sofa(p: Palette, rng: Rng, seats: int | None = None) -> Mesh:
    """A sofa or armchair with cushions."""
    n = int(rng.integers(2, 4)) if seats is None else seats
    cover = p.one_of('fabric', 'fabric', 'leather')
    seat, depth, arm = rng.uniform(0.58, 0.75), rng.uniform(0.8, 0.95), rng.uniform(0.12, 0.24)
    low, high, back = rng.uniform(0.05, 0.15), rng.uniform(0.38, 0.46), rng.uniform(0.72, 0.95)
    width = n * seat + 2 * arm
    parts = [rounded_box((width, depth, high * 0.7 - low), (0, 0, low + (high * 0.7 - low) / 2),
                         cover, 0.03),
             rounded_box((width, 0.22, back - low), (0, -depth / 2 + 0.11, (back + low) / 2),
                         cover, 0.07), legs(width * 0.94, depth * 0.9, low, 0.05, p.get('wood'))]
    arm_top = rng.uniform(0.52, 0.66)
    for s in (-1, 1):
        parts.append(rounded_box((arm, depth, arm_top - low),
                                 (s * (width - arm) / 2, 0, (arm_top + low) / 2), cover, 0.06))
    for i in range(n):
        x = (i - (n - 1) / 2) * seat
        parts.append(rounded_box((seat - 0.01, depth - 0.24, high * 0.34),
                                 (x, 0.11, high * 0.85), cover, 0.05, 0.03))
        parts.append(rounded_box((seat - 0.02, 0.2, back - high + 0.06), (0, 0, 0), cover, 0.07,
                                 0.04).moved((x, -depth / 2 + 0.29, (back + high) / 2), tilt=0.18))
    for _ in range(int(rng.integers(0, 4))):
        pillow = rounded_box((0.42, 0.14, 0.4), (0, 0, 0), p.get('fabric'), 0.06, 0.05)
        x = rng.uniform(-0.5, 0.5) * n * seat * 0.9
        parts.append(pillow.moved((x, -depth / 2 + 0.45, high + 0.2), rng.normal(0, 0.3), 0.4))
    return join(parts)


def armchair(p: Palette, rng: Rng) -> Mesh:
    """A sofa for one."""
    return sofa(p, rng, 1)


def pouf(p: Palette, rng: Rng) -> Mesh:
    """A stool upholstered all over."""
    w, h = rng.uniform(0.4, 0.6), rng.uniform(0.32, 0.45)
    if rng.random() < 0.5:
        return rounded_box((w, w, h), (0, 0, h / 2), p.one_of('fabric', 'leather'), 0.07, 0.02)
    return ellipsoid((w * 1.5, w * 1.5, h * 1.4), (0, 0, h * 0.6), p.get('fabric'), 3)


def table(p: Palette, rng: Rng, width: float, depth: float, height: float,
          things: tuple[clutter.Maker, ...], count: int) -> Mesh:
    """
    Make a table with things on it: rectangular on four legs, or round on one.

    Returns
    -------
    Mesh
    """
    top = p.one_of('wood', 'wood', 'marble', 'paint', 'black')
    leg = p.one_of('wood', 'metal', 'black')
    thick = rng.uniform(0.02, 0.05)
    if rng.random() < 0.25 and width < 1.3:
        r = depth * 0.62
        parts = [cylinder(r, thick, (0, 0, height - thick), top, sides=32),
                 lathe([[0, 0], [0.55 * r, 0], [0.5 * r, 0.02], [0.05, 0.05],
                        [0.04, height - thick]], (0, 0, 0), leg)]
        width = depth = 1.2 * r
    else:
        parts = [box((width, depth, thick), (0, 0, height - thick / 2), top),
                 legs(width * 0.96, depth * 0.94, height - thick, rng.uniform(0.03, 0.09), leg)]
        if rng.random() < 0.4:
            parts.append(box((width * 0.9, depth * 0.88, 0.09),
                             (0, 0, height - thick - 0.045), top))
    if rng.random() < 0.15:
        parts.append(box((width * 0.6, depth * 0.5, 0.003), (0, 0, height + 0.0015),
                         p.get('fabric')))
    items = clutter.scatter(p, rng, things, width * 0.94, depth * 0.94, count)
    return join([*parts, *(i.moved((0, 0, height)) for i in items)])


def coffee_table(p: Palette, rng: Rng) -> Mesh:
    """A low table before a sofa."""
    return table(p, rng, rng.uniform(0.8, 1.3), rng.uniform(0.5, 0.75), rng.uniform(0.35, 0.48),
                 clutter.LIVING, int(rng.integers(1, 8)))


def side_table(p: Palette, rng: Rng) -> Mesh:
    """A small table beside a seat."""
    side = rng.uniform(0.38, 0.55)
    return table(p, rng, side, side, rng.uniform(0.45, 0.6),
                 (clutter.table_lamp, clutter.vase, clutter.book_stack), 2)


def chair(p: Palette, rng: Rng) -> Mesh:
    """A dining chair."""
    frame = p.one_of('wood', 'wood', 'metal', 'paint', 'plastic')
    seat = frame if rng.random() < 0.5 else p.get('fabric')
    w, d, h = rng.uniform(0.4, 0.48), rng.uniform(0.4, 0.48), rng.uniform(0.43, 0.47)
    back = rng.uniform(0.82, 1.0)
    parts = [rounded_box((w, d, 0.05), (0, 0, h - 0.025), seat, 0.02),
             legs(w, d, h - 0.05, 0.035, frame)]
    for s in (-1, 1):
        parts.append(box((0.035, 0.03, back - h), (s * (w / 2 - 0.018), -d / 2 + 0.015,
                                                   (back + h) / 2), frame, upright=True))
    if rng.random() < 0.5:
        for z in np.linspace(h + 0.12, back - 0.05, int(rng.integers(2, 5))):
            parts.append(box((w - 0.05, 0.018, 0.06), (0, -d / 2 + 0.015, z), frame))
    else:
        parts.append(rounded_box((w - 0.06, 0.03, (back - h) * 0.75),
                                 (0, -d / 2 + 0.02, h + (back - h) * 0.6), seat, 0.012))
    return join(parts)


def office_chair(p: Palette, rng: Rng) -> Mesh:
    """A swivel chair on five castors."""
    cover, black = p.one_of('fabric', 'leather', 'black'), p.get('black')
    h = rng.uniform(0.43, 0.52)
    parts = [rounded_box((0.5, 0.48, 0.09), (0, 0, h), cover, 0.04, 0.01),
             rounded_box((0.46, 0.08, 0.58), (0, 0, 0), cover, 0.035, 0.01).moved(
                 (0, -0.26, h + 0.4), tilt=0.12),
             cylinder(0.03, h - 0.1, (0, 0, 0.08), p.get('metal'), sides=10)]
    for a in np.arange(5) * 2 * np.pi / 5:
        end = np.array([0.3 * np.cos(a), 0.3 * np.sin(a), 0.07])
        parts += [rod((0, 0, 0.1), end, 0.018, black), ellipsoid((0.06, 0.06, 0.06),
                                                                end - [0, 0, 0.04], black, 1)]
    for s in (-1, 1):
        parts += [box((0.05, 0.28, 0.03), (s * 0.28, -0.02, h + 0.2), black),
                  box((0.03, 0.05, 0.22), (s * 0.28, -0.05, h + 0.1), black)]
    return join(parts)


def books(p: Palette, rng: Rng, width: float, height: float, depth: float) -> list[Mesh]:
    """
    Fill a shelf board with standing books, a leaning end and the odd ornament.

    Parameters
    ----------
    p, rng
        Palette and random generator.
    width, height, depth : float
        Of the space above the board, m, centred at x = 0, y = 0, from z = 0.

    Returns
    -------
    list of Mesh
    """
    fill = rng.uniform(0.25, 1.0) * width
    thick = rng.uniform(0.014, 0.055, int(fill / 0.03))
    start = -width / 2 + rng.uniform(0, 1) * (width - fill)
    x = start + np.cumsum(thick) - thick / 2
    keep = x + thick / 2 < width / 2
    x, thick = x[keep], thick[keep]
    n = len(x)
    parts = []
    if n:
        tall = np.minimum(rng.normal(0.24, 0.035, n), height * 0.97).clip(0.08)
        deep = rng.uniform(0.5, 0.85, n) * depth
        parts.append(boxes(np.stack([thick * 0.96, deep, tall], -1),
                           np.stack([x, depth * 0.42 - deep / 2, tall / 2], -1),
                           [p.get('book') for _ in range(n)], fit=True))
    if fill < 0.7 * width:
        free = (width - fill) * 0.8
        side = width / 2 - free / 2 if start < -width / 2 + (width - fill) / 2 else (
            -width / 2 + free / 2)
        makers = (clutter.vase, clutter.tin, clutter.book_stack, clutter.bowl, clutter.carton,
                  clutter.case)
        for thing in clutter.scatter(p, rng, makers, free, depth * 0.9, 2):
            if thing.bounds[1, 2] < height:
                parts.append(thing.moved((side, 0, 0)))
    return parts


def bookshelf(p: Palette, rng: Rng, width: float | None = None,
              height: float | None = None) -> Mesh:
    """An open shelf full of books and ornaments."""
    w = rng.uniform(0.6, 1.6) if width is None else width
    h = rng.choice([0.8, 1.2, 1.8, 2.05]) if height is None else height
    d, thick = rng.uniform(0.26, 0.36), 0.022
    m = p.one_of('wood', 'wood', 'paint', 'black')
    rows = max(2, int(round(h / rng.uniform(0.32, 0.42))))
    levels = np.linspace(0.06, h - thick, rows + 1)
    columns = max(1, int(round(w / 0.8)))
    posts = np.linspace(-w / 2, w / 2, columns + 1)
    parts = [boxes(np.tile([[w, d, thick]], (rows + 1, 1)),
                   [(0, 0, z + thick / 2) for z in levels], m),
             boxes(np.tile([[thick, d, h]], (columns + 1, 1)),
                   [(x, 0, h / 2) for x in posts], m, upright=True)]
    if rng.random() < 0.7:
        parts.append(box((w, 0.01, h), (0, -d / 2 + 0.005, h / 2), m))
    for below, above in zip(levels[:-1], levels[1:]):
        for left, right in zip(posts[:-1], posts[1:]):
            if rng.random() < 0.93:
                space = books(p, rng, right - left - 0.05, above - below - thick, d)
                parts += [b.moved(((left + right) / 2, 0, below + thick)) for b in space]
    return join(parts)


def cabinet(p: Palette, rng: Rng, width: float | None = None, height: float | None = None,
            depth: float | None = None) -> Mesh:
    """A chest of drawers, wardrobe or sideboard with fronts and handles."""
    w = rng.uniform(0.6, 1.8) if width is None else width
    h = rng.choice([0.75, 0.95, 1.3, 2.0, 2.2]) if height is None else height
    d = rng.uniform(0.38, 0.6) if depth is None else depth
    body = p.one_of('wood', 'wood', 'paint')
    front = body if rng.random() < 0.6 else p.one_of('paint', 'wood')
    foot = rng.choice([0.0, 0.06, 0.14])
    columns = max(1, int(round(w / rng.uniform(0.4, 0.6))))
    rows = 1 if h > 1.5 or rng.random() < 0.3 else int(rng.integers(2, 5))
    cw, ch = w / columns, (h - foot - 0.03) / rows
    centers = np.array([[(i - (columns - 1) / 2) * cw, d / 2 + 0.008, foot + (j + 0.5) * ch]
                        for i in range(columns) for j in range(rows)])
    parts = [box((w, d, h - foot), (0, 0, (h + foot) / 2), body),
             boxes(np.tile([[cw - 0.012, 0.02, ch - 0.012]], (len(centers), 1)), centers, front)]
    if foot:
        parts.append(legs(w * 0.96, d * 0.9, foot, 0.04, p.one_of('wood', 'black')))
    handle = p.one_of('metal', 'black')
    if rows == 1:
        side = np.where(np.arange(len(centers)) % 2, -1, 1)[:, None] * [cw * 0.4, 0, 0]
        parts.append(boxes(np.tile([[0.012, 0.03, 0.16]], (len(centers), 1)),
                           centers + side + [0, 0.02, 0], handle))
    else:
        parts.append(boxes(np.tile([[0.14, 0.03, 0.012]], (len(centers), 1)),
                           centers + [0, 0.02, ch * 0.25], handle))
    if h < 1.4:
        items = clutter.scatter(p, rng, clutter.LIVING + (clutter.table_lamp,), w * 0.9, d * 0.9,
                                int(rng.integers(0, 6)))
        parts += [i.moved((0, 0, h)) for i in items]
    return join(parts)


def nightstand(p: Palette, rng: Rng) -> Mesh:
    """A small cabinet with a lamp."""
    h = rng.uniform(0.45, 0.6)
    return join([cabinet(p, rng, 0.45, h, 0.38), clutter.table_lamp(p, rng).moved((0, 0, h))])


def tv_stand(p: Palette, rng: Rng) -> Mesh:
    """A low sideboard with a television."""
    w, h = rng.uniform(1.3, 2.0), rng.uniform(0.4, 0.55)
    tv = rng.uniform(0.9, 1.4)
    glow = p.light(np.full(3, 0.7), 'screen') if rng.random() < 0.5 else p.get('black')
    return join([cabinet(p, rng, w, h, 0.42),
                 box((tv, 0.04, tv * 0.57), (0, -0.08, h + 0.06 + tv * 0.285), p.get('black')),
                 panel((tv * 0.49, -0.058, h + 0.07), (-tv * 0.98, 0, 0), (0, 0, tv * 0.55), glow),
                 box((0.4, 0.2, 0.06), (0, -0.08, h + 0.03), p.get('black'))])


def bed(p: Palette, rng: Rng) -> Mesh:
    """A bed with headboard, duvet and pillows; the head is at -y."""
    w, length = rng.choice([0.95, 1.45, 1.65, 1.85]), rng.uniform(1.95, 2.15)
    h = rng.uniform(0.4, 0.58)
    frame, sheet, cover = p.one_of('wood', 'fabric', 'paint'), p.one_of('paper', 'fabric'), (
        p.get('fabric'))
    parts = [box((w + 0.06, length, 0.16), (0, 0, h * 0.5), frame),
             legs(w, length, h * 0.5, 0.07, frame),
             rounded_box((w + 0.08, 0.07, rng.uniform(0.8, 1.25)),
                         (0, -length / 2 - 0.03, 0.5), frame, 0.02),
             rounded_box((w, length - 0.06, 0.22), (0, 0, h), sheet, 0.06)]
    v, u = np.meshgrid(np.linspace(0, 1, 14), np.linspace(0, 1, 18), indexing='ij')
    x = (u - 0.5) * (w + 0.3)
    drop = np.clip(np.abs(x) - w / 2 + 0.02, 0, 1)
    wrinkle = 0.02 * np.sin(9 * u * rng.uniform(0.6, 1.4) + 5 * v) * np.sin(7 * v + rng.uniform(0, 6))
    z = h + 0.15 + wrinkle - 1.6 * drop
    x = np.clip(x, -w / 2 - 0.03, w / 2 + 0.03)
    y = length / 2 - 0.01 - (1 - v) * length * rng.uniform(0.6, 0.75)
    parts.append(grid(np.stack([x, y, z], -1), cover))
    n = 1 if w < 1.2 else 2
    for i in range(n):
        pillow = rounded_box((0.62, 0.42, 0.16), (0, 0, 0), p.one_of('paper', 'fabric'), 0.07, 0.05)
        parts.append(pillow.moved(((i - (n - 1) / 2) * 0.72, -length / 2 + 0.3, h + 0.17),
                                  rng.normal(0, 0.08), 0.15))
    return join(parts)


def desk(p: Palette, rng: Rng) -> Mesh:
    """A desk with a monitor and the usual mess; one sits at +y."""
    w, d, h = rng.uniform(1.1, 1.8), rng.uniform(0.6, 0.8), rng.uniform(0.7, 0.77)
    parts = [box((w, d, 0.03), (0, 0, h - 0.015), p.one_of('wood', 'paint', 'black')),
             legs(w, d, h - 0.03, 0.05, p.one_of('metal', 'wood', 'black'))]
    if rng.random() < 0.5:
        parts.append(cabinet(p, rng, 0.42, h - 0.05, d * 0.85).moved((w / 2 - 0.26, 0, 0)))
    x = rng.uniform(-0.2, 0.2)
    parts += [clutter.monitor(p, rng).moved((x, -d * 0.28, h), rng.normal(0, 0.1)),
              clutter.keyboard(p, rng).moved((x, d * 0.22, h), rng.normal(0, 0.06))]
    for side in (-1, 1):
        free = w / 2 - 0.36
        items = clutter.scatter(p, rng, clutter.DESK, free, d * 0.9, int(rng.integers(1, 4)))
        parts += [i.moved((side * (w / 2 - free / 2 - 0.02), 0, h)) for i in items]
    return join(parts)


def floor_lamp(p: Palette, rng: Rng) -> Mesh:
    """A standard lamp."""
    h, r = rng.uniform(1.4, 1.75), rng.uniform(0.15, 0.24)
    metal = p.one_of('metal', 'black')
    shade = p.light(np.array([1.0, 0.85, 0.6]) * rng.uniform(0.4, 3), 'plain')
    return join([cylinder(0.14, 0.025, (0, 0, 0), metal),
                 cylinder(0.012, h - 0.2, (0, 0, 0), metal, sides=8),
                 lathe([[r, h - 0.3], [r * 0.7, h]], (0, 0, 0), shade)])


def plant(p: Palette, rng: Rng) -> Mesh:
    """A potted plant on the floor."""
    h, r = rng.uniform(0.2, 0.4), rng.uniform(0.12, 0.2)
    reach = rng.uniform(0.3, 0.8)
    pot = lathe([[0, 0], [r * 0.75, 0], [r, h], [r * 0.9, h], [r * 0.85, h * 0.9], [0, h * 0.9]],
                (0, 0, 0), p.one_of('ceramic', 'brick', 'plastic'))
    return join([pot, clutter.foliage(p, rng, reach, int(rng.integers(20, 70)),
                                      rng.uniform(0.12, 0.32)).moved((0, 0, h * 0.9))])


def kitchen_row(p: Palette, rng: Rng, width: float) -> Mesh:
    """
    Make a kitchen along a wall: base units, worktop, splashback, wall units, hob, sink, fridge.

    Returns
    -------
    Mesh
    """
    depth, top = 0.6, 0.9
    front, work = p.one_of('paint', 'wood', 'plastic'), p.one_of('granite', 'wood', 'marble')
    n = max(2, int(width / 0.6))
    unit_w = width / n
    x = (np.arange(n) - (n - 1) / 2) * unit_w
    parts = [box((width, depth - 0.06, 0.1), (0, -0.03, 0.05), p.get('black')),
             box((width, depth - 0.03, top - 0.14), (0, -0.015, 0.1 + (top - 0.14) / 2), front),
             boxes(np.tile([[unit_w - 0.008, 0.02, top - 0.16]], (n, 1)),
                   [(a, depth / 2 - 0.01, 0.1 + (top - 0.14) / 2) for a in x], front),
             boxes(np.tile([[0.18, 0.03, 0.014]], (n, 1)),
                   [(a, depth / 2 + 0.015, top - 0.14) for a in x], p.get('metal')),
             box((width, depth + 0.03, 0.04), (0, 0.0, top - 0.02), work),
             panel((width / 2, -depth / 2 + 0.012, top), (-width, 0, 0), (0, 0, 0.6),
                   p.get('tiles'), fit=False)]
    hob, sink = rng.choice(n, 2, replace=False)
    parts += [box((0.56, 0.5, 0.01), (x[hob], 0.02, top + 0.005), p.get('black')),
              box((0.5, 0.4, 0.008), (x[sink], 0.02, top + 0.004), p.get('metal')),
              rod((x[sink], -0.2, top), (x[sink], -0.2, top + 0.28), 0.012, p.get('metal')),
              rod((x[sink], -0.2, top + 0.28), (x[sink], 0.0, top + 0.25), 0.012, p.get('metal'))]
    for i in range(n):
        if i == hob:
            parts.append(box((unit_w * 0.9, 0.45, 0.12), (x[i], -0.07, 1.65), p.get('metal')))
        elif rng.random() < 0.75:
            parts += [box((unit_w, 0.33, 0.7), (x[i], -depth / 2 + 0.165, 1.85), front),
                      box((unit_w - 0.01, 0.02, 0.69), (x[i], -depth / 2 + 0.34, 1.85), front)]
        items = clutter.scatter(p, rng, clutter.KITCHEN, unit_w, 0.5, int(rng.integers(0, 4)))
        parts += [t.moved((x[i], 0, top + 0.01)) for t in items]
    return join(parts)


def refrigerator(p: Palette, rng: Rng) -> Mesh:
    """A fridge-freezer with notes on its door."""
    h = rng.uniform(1.6, 2.0)
    shell, metal = p.one_of('ceramic', 'metal', 'plastic'), p.get('metal')
    split = h * rng.uniform(0.3, 0.68)
    parts = [rounded_box((0.6, 0.6, h), (0, 0, h / 2), shell, 0.015)]
    for low, high in ((0.05, split - 0.006), (split + 0.006, h - 0.01)):
        parts += [box((0.59, 0.04, high - low), (0, 0.31, (low + high) / 2), p.get('fridge'),
                      fit=True),
                  rod((0.25, 0.36, low + 0.15), (0.25, 0.36, min(low + 0.5, high - 0.05)), 0.01,
                      metal)]
    return join(parts)


def radiator(p: Palette, rng: Rng) -> Mesh:
    """A ribbed radiator."""
    n, h = int(rng.integers(8, 22)), rng.uniform(0.45, 0.65)
    return boxes(np.tile([[0.045, 0.09, h]], (n, 1)),
                 [((i - (n - 1) / 2) * 0.06, 0, 0.12 + h / 2) for i in range(n)], p.get('ceramic'))


def bin_basket(p: Palette, rng: Rng) -> Mesh:
    """A waste-paper basket."""
    r, h = rng.uniform(0.11, 0.17), rng.uniform(0.26, 0.42)
    return lathe([[0, 0], [r * 0.8, 0], [r, h], [r * 0.96, h], [r * 0.77, 0.01], [0, 0.01]],
                 (0, 0, 0), p.one_of('plastic', 'metal', 'black'))


def boxes_pile(p: Palette, rng: Rng) -> Mesh:
    """Removal boxes on one another."""
    parts, z = [], 0.0
    for _ in range(int(rng.integers(1, 4))):
        item = clutter.case(p, rng)
        parts.append(item.moved((*rng.normal(0, 0.03, 2), z), rng.normal(0, 0.15)))
        z += float(item.bounds[1, 2] if item.bounds[1, 2] < 0.6 else 0.6)
    return join(parts)


def floor_clutter(p: Palette, rng: Rng) -> Mesh:
    """Something left on the floor."""
    return clutter.FLOOR[int(rng.integers(len(clutter.FLOOR)))](p, rng)


def pendant(p: Palette, rng: Rng, drop: float) -> Mesh:
    """
    Make a lamp that hangs `drop` metres below z = 0.

    Returns
    -------
    Mesh
    """
    r = rng.uniform(0.12, 0.25)
    shade = p.light(np.array([1, 0.88, 0.7]) * rng.uniform(0.5, 2.5)) if rng.random() < 0.5 else (
        p.one_of('black', 'metal', 'plastic'))
    return join([rod((0, 0, -drop + r), (0, 0, 0), 0.006, p.get('black')),
                 lathe([[r, -drop], [r * 0.75, -drop + r * 0.6], [0.03, -drop + r]], (0, 0, 0),
                       shade, smooth=True)])


def table_with_tools(p: Palette, rng: Rng) -> Mesh:
    """A work bench with tools and parts."""
    return table(p, rng, rng.uniform(1.2, 2.0), rng.uniform(0.55, 0.8), rng.uniform(0.8, 0.92),
                 clutter.WORKSHOP, int(rng.integers(4, 16)))
