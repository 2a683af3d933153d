"""Fit kitchens and bathrooms into rooms: runs of units along whole walls, tubs, showers."""
from __future__ import annotations

import numpy as np

from scenes import clutter, glass
from scenes.bodies import cylinder, ellipsoid, lathe, rod, rounded_box
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, Mesh, panel
from scenes.rooms import place_new, place_some, Room
from scenes.scene_builder import SceneBuilder
from scenes.walls import Wall

TOP_M = 0.9


def fit_kitchen(b: SceneBuilder, room: Room) -> bool:
    """
    Add a run of kitchen units along the free part of a wall, sometimes of two walls.

    Returns
    -------
    bool
        Whether a wall had a part long enough.
    """
    fitted = 0
    look = (b.palette.one_of('paint', 'wood', 'plastic', 'ceramic'),
            b.palette.one_of('granite', 'wood', 'marble', 'metal'), b.palette.get('tiles'))
    for i in b.rng.permutation(4):
        wall = room.walls[i]
        left, right = _free_span(wall, TOP_M)
        # Another run may occupy either end.
        for gap in (0.02, 0.66):
            span = (left + gap, right - gap)
            n = min(int((span[1] - span[0]) / 0.6), int(b.rng.integers(4, 9)))
            if n < 3:
                continue
            run = kitchen_run(b, wall, span[0], n, look)
            if b.add_if_free('kitchen', wall.to_map(run), margin=0.0):
                fitted += 1
                break
        if fitted == 2 or (fitted and b.rng.random() < 0.5):
            break
    return fitted > 0


def _free_span(wall: Wall, height: float) -> tuple[float, float]:
    """Return the longest part of a wall without an opening below a height, m."""
    low = sorted((o.left, o.right) for o in wall.openings if o.low < height + 0.05)
    edges = [0.0, *(e for pair in low for e in (pair[0] - 0.1, pair[1] + 0.1)), wall.length]
    spans = list(zip(edges[::2], edges[1::2]))
    return max(spans, key=lambda s: s[1] - s[0])


def kitchen_run(b: SceneBuilder, wall: Wall, left: float, n: int,
                look: tuple[int, int, int]) -> Mesh:
    """
    Build kitchen units in a wall's frame: base units, worktop, hob, sink, oven, wall units.

    Parameters
    ----------
    b : SceneBuilder
    wall : Wall
    left : float
        Start of the run along the wall, m.
    n : int
        Number of units, 0.6 m each.
    look : (int, int, int)
        Materials of the fronts, the worktop and the splashback.

    Returns
    -------
    Mesh
    """
    p, rng = b.palette, b.rng
    front, work, splash = look
    w, d = 0.6, 0.6
    x = left + (np.arange(n) + 0.5) * w
    width, middle = n * w, left + n * w / 2
    metal = p.one_of('metal', 'black')
    rows = rng.integers(1, 4, n)
    fronts = [(a, d + 0.005, 0.1 + 0.76 * (k + 0.5) / m, 0.76 / m)
              for a, m in zip(x, rows) for k in range(m)]
    parts = [box((width, d - 0.06, 0.1), (middle, d / 2 - 0.03, 0.05), p.get('black')),
             box((width, d - 0.02, 0.76), (middle, d / 2, 0.48), front),
             boxes([(w - 0.008, 0.02, h - 0.008) for *_, h in fronts], [f[:3] for f in fronts],
                   front),
             boxes([(0.2, 0.03, 0.014)] * len(fronts),
                   [(a, y + 0.02, z + h / 2 - 0.06) for a, y, z, h in fronts], metal),
             box((width, d + 0.04, 0.04), (middle, d / 2 + 0.01, TOP_M - 0.02), work)]
    hob, sink = (int(i) for i in rng.choice(n, 2, replace=False))
    parts += [*_hob(p, rng, x[hob]), *_sink(p, x[sink])]
    for i, a in enumerate(x):
        clear = wall.is_clear(a - 0.3, a + 0.3, TOP_M, 2.2)
        if clear:
            parts.append(box((w, 0.012, 0.55), (a, 0.006, TOP_M + 0.275), splash))
        if clear and i == hob:
            parts += _hood(p, rng, a, wall.height)
        elif clear and rng.random() < 0.75:
            parts += wall_unit(p, rng, a, front, metal)
        if i not in (hob, sink):
            items = clutter.scatter(p, rng, clutter.KITCHEN, w, 0.5, int(rng.integers(0, 6)))
            parts += [t.moved((a, d / 2, TOP_M)) for t in items]
    return join(parts)


def _hob(p: Palette, rng: Rng, x: float) -> list[Mesh]:
    """Build a hob with pots above an oven."""
    black, metal = p.get('black'), p.get('metal')
    parts = [box((0.56, 0.5, 0.01), (x, 0.3, TOP_M + 0.005), black),
             box((0.57, 0.03, 0.5), (x, 0.612, 0.45), black),
             box((0.57, 0.03, 0.1), (x, 0.614, 0.78), metal),
             rod((x - 0.24, 0.66, 0.68), (x + 0.24, 0.66, 0.68), 0.01, metal)]
    for sx, sy in ((-0.14, 0.17), (0.14, 0.17), (-0.14, 0.42), (0.14, 0.42)):
        parts.append(lathe([[0.09, 0], [0.09, 0.012], [0.07, 0.012]], (x + sx, sy, TOP_M + 0.01),
                           metal))
        if rng.random() < 0.3:
            parts.append(clutter.pot(p, rng).moved((x + sx, sy, TOP_M + 0.02)))
    return parts


def _sink(p: Palette, x: float) -> list[Mesh]:
    """Build a sink: a rim around a dark, shiny floor, and a tap."""
    steel = p.get('metal')
    rim = clutter.tray(np.array([0.5, 0.42, 0.02]), steel, 0.03)
    return [rim.moved((x, 0.32, TOP_M - 0.002)),
            rod((x, 0.07, TOP_M), (x, 0.07, TOP_M + 0.28), 0.012, steel),
            rod((x, 0.07, TOP_M + 0.28), (x, 0.26, TOP_M + 0.25), 0.012, steel)]


def _hood(p: Palette, rng: Rng, x: float, height: float) -> list[Mesh]:
    """Build an extractor hood with its chimney."""
    m = p.one_of('metal', 'metal', 'black', 'ceramic')
    return [box((0.6, 0.48, 0.06), (x, 0.25, 1.58), m),
            box((0.5, 0.38, 0.08), (x, 0.2, 1.65), m),
            box((rng.uniform(0.2, 0.3), 0.25, height - 1.6), (x, 0.13, (height + 1.6) / 2), m)]


def wall_unit(p: Palette, rng: Rng, x: float, front: int, metal: int) -> list[Mesh]:
    """
    Build a wall unit: closed, open with its contents, or behind glass.

    Returns
    -------
    list of Mesh
    """
    w, d, low, high = 0.6, 0.33, 1.45, 2.15
    z, tall = (low + high) / 2, high - low
    draw = rng.random()
    if draw < 0.55:
        return [box((w, d, tall), (x, d / 2, z), front),
                box((w - 0.008, 0.02, tall - 0.008), (x, d + 0.01, z), front),
                box((0.014, 0.03, 0.16), (x + 0.24, d + 0.03, low + 0.14), metal)]
    t = 0.018
    parts = [boxes([[t, d, tall]] * 2 + [[w, d, t]] * 3 + [[w, 0.008, tall]],
                   [(x + s * (w - t) / 2, d / 2, z) for s in (-1, 1)]
                   + [(x, d / 2, v) for v in (low + t / 2, z, high - t / 2)] + [(x, 0.004, z)],
                   front)]
    for level in (low + t, z + t / 2):
        items = clutter.scatter(p, rng, clutter.KITCHEN, w - 0.06, d * 0.85,
                                int(rng.integers(2, 7)))
        parts += [i.moved((x, d / 2, level)) for i in items if i.bounds[1, 2] < tall / 2 - t]
    if draw < 0.75:
        parts.append(panel((x + w / 2, d + 0.005, low), (-w, 0, 0), (0, 0, tall),
                           glass.clear(p, rng)))
        parts.append(boxes((0.045, 0.02, tall),
                           [(x + s * (w / 2 - 0.025), d + 0.005, z) for s in (-1, 1)], front))
    elif draw < 0.9:
        door = box((w, 0.02, tall), (w / 2, 0, 0), front)
        parts.append(door.moved((x - w / 2, d + 0.01, z), rng.uniform(0.4, 1.9)))
    return parts


def bathtub(p: Palette, rng: Rng) -> Mesh:
    """Build a bathtub along a wall, with a glass screen or a curtain at its head."""
    length, w, h, t = rng.uniform(1.5, 1.8), rng.uniform(0.68, 0.8), rng.uniform(0.5, 0.6), 0.07
    shell, steel = p.one_of('ceramic', 'paper'), p.get('metal')
    side = p.one_of('tiles', 'ceramic')
    parts = [clutter.tray(np.array([length, w, h]), shell, t),
             boxes([[length, 0.01, h - 0.03], [0.01, w, h - 0.03], [0.01, w, h - 0.03]],
                   [(0, w / 2 + 0.005, h / 2 - 0.015), (length / 2 + 0.005, 0, h / 2 - 0.015),
                    (-length / 2 - 0.005, 0, h / 2 - 0.015)], side),
             rod((-length / 2 + 0.25, -w / 2, h + 0.2), (-length / 2 + 0.25, -w / 2 + 0.16,
                                                         h + 0.17), 0.02, steel)]
    draw = rng.random()
    if draw < 0.4:
        parts.append(panel((length / 2, w / 2 - 0.03, h), (-length * 0.5, 0, 0), (0, 0, 1.4),
                           glass.clear(p, rng)))
        parts.append(box((0.02, 0.03, 1.4), (0, w / 2 - 0.03, h + 0.7), steel))
    elif draw < 0.7:
        parts += [rod((-length / 2, w / 2, 2.0), (length / 2, w / 2, 2.0), 0.012, steel),
                  box((length * rng.uniform(0.2, 0.5), 0.03, 1.7), (length * 0.25, w / 2, 1.15),
                      p.one_of('fabric', 'paper', 'plastic'))]
    return join(parts)


def shower(p: Palette, rng: Rng) -> Mesh:
    """Build a shower: a tray, clear or frosted walls in a metal frame, a head on a rail."""
    w, h = rng.uniform(0.8, 1.1), rng.uniform(1.9, 2.0)
    steel, half = p.one_of('metal', 'black'), w / 2
    pane = glass.clear(p, rng) if rng.random() < 0.65 else glass.frosted(p, rng)
    return join([
        box((w, w, 0.06), (0, 0, 0.03), p.get('ceramic')),
        panel((half, half, 0.06), (-w, 0, 0), (0, 0, h), pane),
        panel((half, -half, 0.06), (0, w, 0), (0, 0, h), pane),
        boxes([[0.035, 0.035, h]] * 3 + [[w, 0.03, 0.03], [0.03, w, 0.03]],
              [(-half, half, h / 2), (half, half, h / 2), (half, -half, h / 2),
               (0, half, h + 0.06), (half, 0, h + 0.06)], steel),
        rod((0, -half + 0.06, 0.9), (0, -half + 0.06, 2.0), 0.012, steel),
        rod((0, -half + 0.06, 2.0), (0, -half + 0.3, 2.05), 0.012, steel),
        cylinder(0.1, 0.02, (0, -half + 0.3, 2.02), steel)])


def toilet(p: Palette, rng: Rng) -> Mesh:
    """Build a toilet with cistern."""
    m, lid = p.one_of('ceramic', 'paper'), p.one_of('ceramic', 'paper', 'black')
    return join([rounded_box((0.38, 0.17, 0.38), (0, -0.25, 0.62), m, 0.04),
                 cylinder(0.13, 0.36, (0, 0.02, 0), m, top_radius=0.18),
                 ellipsoid((0.38, 0.5, 0.2), (0, 0.06, 0.34), m),
                 ellipsoid((0.39, 0.51, 0.05), (0, 0.06, 0.43), lid),
                 rod((0.3, -0.3, 0.75), (0.42, -0.3, 0.75), 0.055, p.get('paper'))])


def washstand(p: Palette, rng: Rng) -> Mesh:
    """Build a basin on a cabinet or a column below a mirror and its lamp."""
    w = rng.uniform(0.5, 1.2)
    ceramic, steel = p.get('ceramic'), p.get('metal')
    base = p.one_of('wood', 'paint', 'black')
    parts = [clutter.tray(np.array([w, 0.46, 0.14]), ceramic, 0.035).moved((0, 0, 0.74)),
             rod((0, -0.2, 0.85), (0, -0.2, 1.02), 0.014, steel),
             rod((0, -0.2, 1.02), (0, -0.06, 1.0), 0.012, steel)]
    if rng.random() < 0.7:
        low = float(rng.choice([0.08, 0.3]))
        parts += [box((w - 0.02, 0.42, 0.74 - low), (0, 0, (0.74 + low) / 2), base),
                  boxes((w / 2 - 0.02, 0.02, 0.7 - low),
                        [(s * w / 4, 0.215, (0.74 + low) / 2) for s in (-1, 1)], base)]
    else:
        parts.append(cylinder(0.1, 0.74, (0, -0.08, 0), ceramic, top_radius=0.12))
    tall = rng.uniform(0.5, 0.9)
    parts.append(glass.mirror(p, rng, w * rng.uniform(0.8, 1.2), tall).moved(
        (0, -0.225, 1.15 + tall / 2)))
    if rng.random() < 0.6:
        parts.append(box((w * 0.5, 0.05, 0.05), (0, -0.19, 1.25 + tall), p.emissive(
            np.array([1.0, 0.9, 0.75]) * rng.uniform(2, 10))))
    items = clutter.scatter(p, rng, (clutter.bottle, clutter.cup, clutter.bottle), w, 0.1, 4)
    return join([*parts, *(i.moved((0, -0.19, 0.88)) for i in items)])


def towel_rail(p: Palette, rng: Rng) -> Mesh:
    """Build a heated rail with towels."""
    w, n = rng.uniform(0.45, 0.6), int(rng.integers(6, 14))
    m, z = p.one_of('ceramic', 'metal', 'black'), np.linspace(0.5, 1.6, n)
    parts = [boxes([[w, 0.025, 0.03]] * n + [[0.03, 0.03, 1.2]] * 2,
                   [(0, 0.03, v) for v in z] + [(s * w / 2, 0.0, 1.05) for s in (-1, 1)], m)]
    for v in rng.choice(z[n // 3:], int(rng.integers(0, 3)), replace=False):
        drop = rng.uniform(0.25, 0.5)
        parts.append(rounded_box((w * rng.uniform(0.4, 0.9), 0.05, drop), (0, 0.05, v - drop / 2),
                                 p.get('fabric'), 0.015))
    return join(parts)


def washing_machine(p: Palette, rng: Rng) -> Mesh:
    """Build a washing machine or a dryer with its door, drawer and dial."""
    shell, dark = p.one_of('ceramic', 'paper', 'metal'), p.get('black')
    front = 0.3
    ring = lathe([[0.19, 0], [0.19, 0.03], [0.14, 0.04], [0.13, 0.02]], (0, 0, 0),
                 p.one_of('metal', 'ceramic'), sides=24)
    pane = ellipsoid((0.28, 0.28, 0.1), (0, 0, 0), dark)
    return join([rounded_box((0.6, 0.6, 0.85), (0, 0, 0.425), shell, 0.01),
                 ring.moved((0, front, 0.44), np.pi, np.pi / 2),
                 pane.moved((0, front, 0.44), 0, np.pi / 2),
                 box((0.2, 0.01, 0.1), (-0.17, front + 0.005, 0.77), p.get('paper')),
                 cylinder(0.03, 0.03, (0, 0, 0), dark).moved((0.15, front, 0.77), np.pi,
                                                             np.pi / 2)])


def furnish_bathroom(b: SceneBuilder, room: Room) -> None:
    """Add a tub or a shower, a washstand with its mirror, a toilet and more."""
    rng = b.rng
    first = (bathtub, shower) if rng.random() < 0.4 else (
        (bathtub,) if rng.random() < 0.5 else (shower,))
    for maker in (*first, washstand, toilet):
        place_new(b, room, maker, tries=40)
    place_some(b, room, ((towel_rail, 0.7), (washing_machine, 0.5)), tries=20)
