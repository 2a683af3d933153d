"""Make shelves, cabinets and refrigerators that stand on the origin and face +y."""
from __future__ import annotations

from itertools import pairwise

import numpy as np

from scenes import clutter
from scenes.bodies import rod, rounded_box
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, legs, Mesh, panel


def books(p: Palette, rng: Rng, width: float, height: float, depth: float) -> list[Mesh]:
    """
    Build a row of standing books and a few ornaments for one shelf board.

    Parameters
    ----------
    p, rng
        Palette and random generator.
    width, height, depth : float
        Size of the space above the board, m, centred at x = 0, y = 0, from z = 0.

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
    """Build an open shelf full of books and ornaments."""
    w = rng.uniform(0.6, 1.6) if width is None else width
    h = rng.choice([0.8, 1.2, 1.8, 2.05]) if height is None else height
    d, thick = rng.uniform(0.26, 0.36), 0.022
    m = p.one_of('wood', 'wood', 'paint', 'black')
    rows = max(2, round(h / rng.uniform(0.32, 0.42)))
    levels = np.linspace(0.06, h - thick, rows + 1)
    columns = max(1, round(w / 0.8))
    posts = np.linspace(-w / 2, w / 2, columns + 1)
    parts = [boxes((w, d, thick), [(0, 0, z + thick / 2) for z in levels], m),
             boxes((thick, d, h), [(x, 0, h / 2) for x in posts], m, upright=True)]
    if rng.random() < 0.7:
        parts.append(box((w, 0.01, h), (0, -d / 2 + 0.005, h / 2), m))
    for below, above in pairwise(levels):
        for left, right in pairwise(posts):
            if rng.random() < 0.93:
                space = books(p, rng, right - left - 0.05, above - below - thick, d)
                parts += [b.moved(((left + right) / 2, 0, below + thick)) for b in space]
    return join(parts)


def cabinet(p: Palette, rng: Rng, width: float | None = None, height: float | None = None,
            depth: float | None = None) -> Mesh:
    """Build a chest of drawers, wardrobe or sideboard with fronts and handles."""
    w = rng.uniform(0.6, 1.8) if width is None else width
    h = rng.choice([0.75, 0.95, 1.3, 2.0, 2.2]) if height is None else height
    d = rng.uniform(0.38, 0.6) if depth is None else depth
    body = p.one_of('wood', 'wood', 'paint')
    front = body if rng.random() < 0.6 else p.one_of('paint', 'wood')
    foot = rng.choice([0.0, 0.06, 0.14])
    columns = max(1, round(w / rng.uniform(0.4, 0.6)))
    rows = 1 if h > 1.5 or rng.random() < 0.3 else int(rng.integers(2, 5))
    cw, ch = w / columns, (h - foot - 0.03) / rows
    centers = np.array([[(i - (columns - 1) / 2) * cw, d / 2 + 0.008, foot + (j + 0.5) * ch]
                        for i in range(columns) for j in range(rows)])
    parts = [box((w, d, h - foot), (0, 0, (h + foot) / 2), body),
             boxes((cw - 0.012, 0.02, ch - 0.012), centers, front)]
    if foot:
        parts.append(legs(w * 0.96, d * 0.9, foot, 0.04, p.one_of('wood', 'black')))
    handle = p.one_of('metal', 'black')
    if rows == 1:
        side = np.where(np.arange(len(centers)) % 2, -1, 1)[:, None] * [cw * 0.4, 0, 0]
        parts.append(boxes((0.012, 0.03, 0.16), centers + side + [0, 0.02, 0], handle))
    else:
        parts.append(boxes((0.14, 0.03, 0.012), centers + [0, 0.02, ch * 0.25], handle))
    if h < 1.4:
        items = clutter.scatter(p, rng, clutter.LIVING + (clutter.table_lamp,), w * 0.9, d * 0.9,
                                int(rng.integers(0, 6)))
        parts += [i.moved((0, 0, h)) for i in items]
    return join(parts)


def nightstand(p: Palette, rng: Rng) -> Mesh:
    """Build a small cabinet with a lamp."""
    h = rng.uniform(0.45, 0.6)
    return join([cabinet(p, rng, 0.45, h, 0.38), clutter.table_lamp(p, rng).moved((0, 0, h))])


def tv_stand(p: Palette, rng: Rng) -> Mesh:
    """Build a low sideboard with a television."""
    w, h = rng.uniform(1.3, 2.0), rng.uniform(0.4, 0.55)
    tv = rng.uniform(0.9, 1.4)
    glow = p.emissive(np.full(3, 0.7), 'screen') if rng.random() < 0.5 else p.get('black')
    return join([cabinet(p, rng, w, h, 0.42),
                 box((tv, 0.04, tv * 0.57), (0, -0.08, h + 0.06 + tv * 0.285), p.get('black')),
                 panel((tv * 0.49, -0.058, h + 0.07), (-tv * 0.98, 0, 0), (0, 0, tv * 0.55), glow),
                 box((0.4, 0.2, 0.06), (0, -0.08, h + 0.03), p.get('black'))])


def refrigerator(p: Palette, rng: Rng) -> Mesh:
    """Build a fridge-freezer with notes on its door."""
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
