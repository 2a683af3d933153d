"""Make stacks of boxes and books, filled crates, stuffed shelves and open cupboards on z = 0."""
from __future__ import annotations

from itertools import pairwise

import numpy as np

from scenes import clutter, household, soft_things
from scenes.clutter import Maker, scatter
from scenes.draws import pick, Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, Mesh


def _pile_up(parts: list[Mesh], rng: Rng, shift: float, turn: float) -> Mesh:
    """Put each thing on the one before, with a small shift (m) and turn (radians)."""
    z, placed = 0.0, []
    for one in parts:
        low, high = one.bounds
        x, y = -(low + high)[:2] / 2 + rng.normal(0, shift, 2)
        placed.append(one.moved((x, y, 0)).moved((0, 0, z - low[2]), rng.normal(0, turn)))
        z += float(high[2] - low[2])
    return join(placed)


def box_stack(p: Palette, rng: Rng) -> Mesh:
    """Build a stack of cardboard boxes and crates, the larger ones below."""
    n = int(rng.integers(2, 6))
    sizes = np.sort(rng.uniform([0.22, 0.2, 0.12], [0.6, 0.5, 0.42], (n, 3)), axis=0)[::-1]
    return _pile_up([box(s, (0, 0, 0), p.one_of('cardboard', 'cardboard', 'packaging', 'plastic'),
                         fit=True) for s in sizes], rng, 0.02, 0.15)


def crate_stack(p: Palette, rng: Rng) -> Mesh:
    """Build a stack of equal crates, the topmost open and filled."""
    size, n = rng.uniform([0.3, 0.25, 0.15], [0.6, 0.4, 0.3]), int(rng.integers(1, 5))
    m = p.one_of('plastic', 'wood', 'metal')
    below = [box(size, (0, 0, 0), m) for _ in range(n)]
    return _pile_up([*below, filled_crate(p, rng, size)], rng, 0.008, 0.05)


def filled_crate(p: Palette, rng: Rng, size: np.ndarray | None = None) -> Mesh:
    """Build an open box with things in it that stick out."""
    size = rng.uniform([0.25, 0.22, 0.12], [0.55, 0.4, 0.32]) if size is None else size
    m = p.one_of('cardboard', 'plastic', 'wood')
    makers = pick(rng, (household.KITCHEN, household.WORKSHOP, household.LIVING))
    x, y, z = size
    floor = rng.uniform(0.1, 0.6) * z
    things = scatter(p, rng, makers, x - 0.03, y - 0.03, 6)
    return join([clutter.tray(size, m, 0.01), box((x - 0.02, y - 0.02, 0.01), (0, 0, floor), m),
                 *(t.moved((0, 0, floor + 0.005)) for t in things)])


def book_tower(p: Palette, rng: Rng) -> Mesh:
    """Build a tall pile of books or magazines."""
    n = int(rng.integers(4, 22))
    sizes = rng.uniform([0.14, 0.19, 0.012], [0.23, 0.31, 0.05], (n, 3))
    z = np.cumsum(sizes[:, 2]) - sizes[:, 2] / 2
    return boxes(sizes * [1, 1, 0.98], np.stack([*rng.normal(0, 0.012, (2, n)), z], -1),
                 [p.one_of('book', 'book', 'packaging', 'paper') for _ in range(n)],
                 yaws=rng.normal(0, 0.2, n))


def nested(p: Palette, rng: Rng) -> Mesh:
    """Build buckets, bowls or plates put into each other."""
    one = pick(rng, (household.bucket, clutter.bowl, clutter.plate))(p, rng)
    rise = float(one.bounds[1, 2]) * 0.25
    return join([one.moved((0, 0, i * rise), rng.uniform(0, 6))
                 for i in range(int(rng.integers(3, 9)))])


def _fill(p: Palette, rng: Rng, makers: tuple[Maker, ...], width: float, height: float,
          depth: float) -> list[Mesh]:
    """Fill the space above a board, centred at x = 0, y = 0, from z = 0, densely from left."""
    parts, x = [], -width / 2 + 0.01
    stock = [makers[int(i)](p, rng) for i in rng.integers(len(makers), size=4)]
    while x < width / 2 - 0.04:
        one = pick(rng, stock)
        low, high = one.bounds
        size = high - low
        scale = min(1.0, 0.95 * height / size[2], 0.95 * depth / size[1])
        if scale > 0.5 and x + scale * size[0] < width / 2:
            copies = max(1, int(0.9 * height / (scale * size[2]))) if rng.random() < 0.3 else 1
            y = (rng.uniform(-1, 1) * (depth - scale * size[1]) - scale * (low + high)[1]) / 2
            copy = one.scaled(scale)
            parts += [copy.moved((x - scale * low[0], y, k * scale * size[2] - scale * low[2]))
                      for k in range(copies)]
            x += scale * float(size[0])
        x += rng.uniform(0.0, 0.05) if scale > 0.5 else 0.03
    return parts


_STOCK = (clutter.case, clutter.tote, clutter.carton, clutter.carton, household.jars,
          household.paint_can, clutter.tin, clutter.book_stack, household.toolbox,
          soft_things.folded, household.paper_pile)
_PANTRY = (household.jars, household.jars, clutter.bottle, clutter.carton, clutter.tin,
           clutter.bowl, clutter.pot, clutter.cup, clutter.carton)
_LINEN = (soft_things.folded, soft_things.folded, soft_things.handbag, clutter.case,
          clutter.carton)


def _carcass(width: float, depth: float, height: float, levels: np.ndarray, m: int) -> Mesh:
    """Build the sides, back and boards (at their tops) of a cupboard without doors."""
    sides = boxes([[0.02, depth, height]] * 2 + [[width, 0.01, height]],
                  [(s * width / 2, 0, height / 2) for s in (-1, 1)]
                  + [(0, -depth / 2 + 0.005, height / 2)], m, upright=True)
    return join([sides, boxes((width, depth, 0.02), [(0, 0, z - 0.01) for z in levels], m)])


def stuffed_shelf(p: Palette, rng: Rng) -> Mesh:
    """Build a shelf stuffed with boxes, jars and tools, also on its top."""
    w, d, h = rng.uniform([0.6, 0.3, 0.9], [1.4, 0.5, 2.0])
    levels = np.append(np.arange(0.08, h - 0.2, rng.uniform(0.26, 0.45)), h)
    parts = [_carcass(w, d, h, levels, p.one_of('wood', 'metal', 'paint', 'black'))]
    for low, high in pairwise([*levels, h + rng.uniform(0.25, 0.4)]):
        parts += [t.moved((0, 0, low)) for t in _fill(p, rng, _STOCK, w - 0.04, high - low - 0.03,
                                                      d)]
    return join(parts)


def open_cupboard(p: Palette, rng: Rng) -> Mesh:
    """Build a cupboard or wardrobe with its doors ajar and things inside."""
    w, d, h = rng.uniform([0.6, 0.35, 0.9], [1.1, 0.55, 2.1])
    levels = np.append(np.arange(0.08, h - 0.25, rng.uniform(0.28, 0.42)), h)
    m = p.one_of('wood', 'paint', 'paint')
    stock = pick(rng, (_STOCK, _PANTRY, _LINEN))
    parts = [_carcass(w, d, h, levels, m)]
    for low, high in pairwise(levels):
        parts += [t.moved((0, -0.01, low)) for t in _fill(p, rng, stock, w - 0.04,
                                                          high - low - 0.03, d - 0.03)]
    for s in (-1, 1):
        leaf = join([box((w / 2, 0.018, h - 0.06), (-s * w / 4, 0.009, h / 2 + 0.02), m,
                         upright=True),
                     box((0.012, 0.03, 0.14), (-s * w * 0.44, 0.03, h * 0.55), p.get('metal'))])
        parts.append(leaf.moved((s * w / 2, d / 2 + 0.005, 0), -s * rng.uniform(0.05, 1.9)))
    return join(parts)


LARGE: tuple[Maker, ...] = (box_stack, box_stack, crate_stack, filled_crate, book_tower)
MEDIUM: tuple[Maker, ...] = (filled_crate, book_tower, book_tower, nested, clutter.case,
                             clutter.tote)
AT_WALL: tuple[Maker, ...] = (stuffed_shelf, open_cupboard)
