"""Make tables, beds, lamps and plants that stand on the origin and face +y."""
from __future__ import annotations

import numpy as np

from scenes import clutter
from scenes.bodies import cylinder, grid, lathe, rod, rounded_box
from scenes.draws import pick, Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, legs, Mesh
from scenes.storage import cabinet


def table(p: Palette, rng: Rng, width: float, depth: float, height: float,
          things: tuple[clutter.Maker, ...], count: int) -> Mesh:
    """
    Build a table with objects on it; the top is rectangular or round.

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
    """Build a coffee table with objects on it."""
    return table(p, rng, rng.uniform(0.8, 1.3), rng.uniform(0.5, 0.75), rng.uniform(0.35, 0.48),
                 clutter.LIVING, int(rng.integers(1, 8)))


def side_table(p: Palette, rng: Rng) -> Mesh:
    """Build a small table beside a seat."""
    side = rng.uniform(0.38, 0.55)
    return table(p, rng, side, side, rng.uniform(0.45, 0.6),
                 (clutter.table_lamp, clutter.vase, clutter.book_stack), 2)


def bed(p: Palette, rng: Rng) -> Mesh:
    """Build a bed with headboard, duvet and pillows; the head is at -y."""
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
    wrinkle = 0.02 * np.sin(9 * u * rng.uniform(0.6, 1.4) + 5 * v)
    wrinkle *= np.sin(7 * v + rng.uniform(0, 6))
    z = h + 0.15 + wrinkle - 1.6 * drop
    x = np.clip(x, -w / 2 - 0.03, w / 2 + 0.03)
    y = length / 2 - 0.01 - (1 - v) * length * rng.uniform(0.6, 0.75)
    parts.append(grid(np.stack([x, y, z], -1), cover))
    n = 1 if w < 1.2 else 2
    for i in range(n):
        pillow = rounded_box((0.62, 0.42, 0.16), (0, 0, 0), p.one_of('paper', 'fabric'), 0.07,
                             0.05)
        parts.append(pillow.moved(((i - (n - 1) / 2) * 0.72, -length / 2 + 0.3, h + 0.17),
                                  rng.normal(0, 0.08), 0.15))
    return join(parts)


def desk(p: Palette, rng: Rng) -> Mesh:
    """Build a desk with monitor, keyboard and clutter; the user sits at +y."""
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
    """Build a standard lamp."""
    h, r = rng.uniform(1.4, 1.75), rng.uniform(0.15, 0.24)
    metal = p.one_of('metal', 'black')
    shade = p.emissive(np.array([1.0, 0.85, 0.6]) * rng.uniform(0.4, 3), 'plain')
    return standard_lamp(h, r, metal, shade)


def standard_lamp(height: float, radius: float, metal: int, shade: int) -> Mesh:
    """
    Build a standard lamp of a height and a radius of its shade, m, and of two materials.

    Returns
    -------
    Mesh
    """
    return join([cylinder(0.14, 0.025, (0, 0, 0), metal),
                 cylinder(0.012, height - 0.2, (0, 0, 0), metal, sides=8),
                 lathe([[radius, height - 0.3], [radius * 0.7, height]], (0, 0, 0), shade)])


def plant(p: Palette, rng: Rng) -> Mesh:
    """Build a potted plant on the floor."""
    h, r = rng.uniform(0.2, 0.4), rng.uniform(0.12, 0.2)
    reach = rng.uniform(0.3, 0.8)
    pot = clutter.flower_pot(p, r, h)
    return join([pot, clutter.foliage(p, rng, reach, int(rng.integers(20, 70)),
                                      rng.uniform(0.12, 0.32)).moved((0, 0, h * 0.9))])


def radiator(p: Palette, rng: Rng) -> Mesh:
    """Build a ribbed radiator."""
    n, h = int(rng.integers(8, 22)), rng.uniform(0.45, 0.65)
    return boxes((0.045, 0.09, h),
                 [((i - (n - 1) / 2) * 0.06, 0, 0.12 + h / 2) for i in range(n)], p.get('ceramic'))


def bin_basket(p: Palette, rng: Rng) -> Mesh:
    """Build a waste-paper basket."""
    r, h = rng.uniform(0.11, 0.17), rng.uniform(0.26, 0.42)
    return lathe([[0, 0], [r * 0.8, 0], [r, h], [r * 0.96, h], [r * 0.77, 0.01], [0, 0.01]],
                 (0, 0, 0), p.one_of('plastic', 'metal', 'black'))


def boxes_pile(p: Palette, rng: Rng) -> Mesh:
    """Build a pile of cardboard boxes."""
    parts, z = [], 0.0
    for _ in range(int(rng.integers(1, 4))):
        item = clutter.case(p, rng)
        parts.append(item.moved((*rng.normal(0, 0.03, 2), z), rng.normal(0, 0.15)))
        z += float(item.bounds[1, 2] if item.bounds[1, 2] < 0.6 else 0.6)
    return join(parts)


def floor_clutter(p: Palette, rng: Rng) -> Mesh:
    """Build a random object that lies on the floor."""
    public = clutter.public_makers(p, 'floor')
    if public and rng.random() < clutter.PUBLIC_SHARE:
        return public[0](p, rng)
    return pick(rng, clutter.FLOOR)(p, rng)


def pendant(p: Palette, rng: Rng, drop: float) -> Mesh:
    """
    Build a lamp that hangs `drop` metres below z = 0.

    Returns
    -------
    Mesh
    """
    r = rng.uniform(0.12, 0.25)
    shade = (p.emissive(np.array([1, 0.88, 0.7]) * rng.uniform(0.5, 2.5)) if rng.random() < 0.5
             else p.one_of('black', 'metal', 'plastic'))
    return join([rod((0, 0, -drop + r), (0, 0, 0), 0.006, p.get('black')),
                 lathe([[r, -drop], [r * 0.75, -drop + r * 0.6], [0.03, -drop + r]], (0, 0, 0),
                       shade, smooth=True)])


def table_with_tools(p: Palette, rng: Rng) -> Mesh:
    """Build a work bench with tools and parts."""
    return table(p, rng, rng.uniform(1.2, 2.0), rng.uniform(0.55, 0.8), rng.uniform(0.8, 0.92),
                 clutter.WORKSHOP, int(rng.integers(4, 16)))
