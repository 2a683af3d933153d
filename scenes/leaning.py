"""Make tall things to lean against a wall: upright on z = 0, the back at the wall's y = 0."""
from __future__ import annotations

import numpy as np

from scenes.bodies import cylinder, ellipsoid, lathe, loft, rounded_box, tube
from scenes.clutter import Maker
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, legs, Mesh
from scenes.thin_things import bicycle
from scenes.walls import picture_mesh


def board(p: Palette, rng: Rng) -> Mesh:
    """Build a board, panel or sheet of cardboard."""
    w, t, h = rng.uniform([0.12, 0.008, 0.5], [0.9, 0.03, 2.0])
    return box((w, t, h), (0, t / 2, h / 2), p.one_of('wood', 'paint', 'cardboard', 'plastic'),
               upright=True)


def boards(p: Palette, rng: Rng) -> Mesh:
    """Build several boards in front of each other."""
    y, parts = 0.0, []
    for _ in range(int(rng.integers(2, 7))):
        one = board(p, rng)
        parts.append(one.moved((rng.normal(0, 0.12), y, 0)))
        y += float(one.bounds[1, 1])
    return join(parts)


def frame(p: Palette, rng: Rng) -> Mesh:
    """Build a picture in its frame, put down on the floor."""
    w, h = rng.uniform(0.3, 1.1), rng.uniform(0.35, 1.0)
    return join([picture_mesh(p, rng, w, h).moved((0, 0, h / 2)),
                 box((w, 0.008, h), (0, 0.004, h / 2), p.get('cardboard'))])


def ladder(p: Palette, rng: Rng) -> Mesh:
    """Build a ladder."""
    w, h, m = rng.uniform(0.3, 0.45), rng.uniform(1.3, 2.1), p.one_of('metal', 'wood', 'plastic')
    n = int(h / 0.27)
    return join([boxes((0.025, 0.06, h), [(s * w / 2, 0.03, h / 2) for s in (-1, 1)], m,
                       upright=True),
                 *(tube([(-w / 2, 0.03, z), (w / 2, 0.03, z)], 0.014, m)
                   for z in 0.2 + 0.27 * np.arange(n))])


def folded_steps(p: Palette, rng: Rng) -> Mesh:
    """Build folded step ladders."""
    one = ladder(p, rng)
    deep = boxes((0.34, 0.1, 0.02), [(0, 0.11, z) for z in (0.3, 0.6, 0.9)],
                 p.one_of('metal', 'black'))
    return join([one, one.moved((0, 0.07, 0)), deep])


def broom(p: Palette, rng: Rng) -> Mesh:
    """Build a broom or rake."""
    h, w = rng.uniform(1.2, 1.6), rng.uniform(0.25, 0.5)
    return join([tube([(0, 0.035, 0.07), (0, 0.035, h)], 0.012, p.one_of('wood', 'plastic'), 7),
                 box((w, 0.06, 0.03), (0, 0.035, 0.09), p.one_of('wood', 'plastic')),
                 box((w * 0.95, 0.05, 0.08), (0, 0.035, 0.04), p.one_of('black', 'cloth'))])


def mop(p: Palette, rng: Rng) -> Mesh:
    """Build a mop."""
    h, m = rng.uniform(1.2, 1.5), p.one_of('cloth', 'paper')
    strings = [tube([(0, 0.08, 0.16), (x, 0.08 + y, 0.1), (x * 1.3, 0.08 + y * 1.1, 0.008)], 0.01,
                    m, 4) for x, y in rng.uniform(-0.07, 0.07, (16, 2))]
    return join([tube([(0, 0.08, 0.13), (0, 0.08, h)], 0.012, p.one_of('wood', 'metal'), 7),
                 cylinder(0.03, 0.05, (0, 0.08, 0.13), p.get('plastic'), sides=10), *strings])


def shovel(p: Palette, rng: Rng) -> Mesh:
    """Build a shovel or spade."""
    h = rng.uniform(0.9, 1.4)
    return join([tube([(0, 0.04, 0.25), (0, 0.04, h)], 0.015, p.get('wood'), 7),
                 tube([(-0.07, 0.04, h), (0.07, 0.04, h)], 0.016, p.get('black')),
                 rounded_box((0.2, 0.03, 0.3), (0, 0.03, 0.15), p.one_of('metal', 'rust'), 0.014)])


def folded_table(p: Palette, rng: Rng) -> Mesh:
    """Build a folded table or chair with its legs to the room."""
    w, h = rng.uniform(0.45, 0.8), rng.uniform(0.7, 1.2)
    m = p.one_of('metal', 'wood', 'black')
    parts = [box((w, 0.03, h), (0, 0.015, h / 2), p.one_of('wood', 'plastic', 'paint'))]
    for s in (-1, 1):
        x = s * w * 0.4
        parts.append(tube([(x, 0.05, 0.1), (x, 0.05, h * 0.95)], 0.012, m))
        parts.append(tube([(x * 0.9, 0.075, 0.05), (x * 0.9, 0.075, h * 0.85)], 0.012, m))
    parts.append(tube([(-w * 0.4, 0.05, h * 0.5), (w * 0.4, 0.05, h * 0.5)], 0.01, m))
    return join(parts)


def ironing_board(p: Palette, rng: Rng) -> Mesh:
    """Build a folded ironing board."""
    h = rng.uniform(1.2, 1.4)
    top = loft([(0, 0.03, 0, 0.17, 0.025), (0, 0.03, h * 0.7, 0.17, 0.025),
                (0, 0.03, h * 0.9, 0.12, 0.025), (0, 0.03, h, 0.05, 0.02)],
               p.one_of('fabric', 'cloth'), sides=20)
    m = p.get('metal')
    return join([top, tube([(-0.14, 0.075, 0.03), (0.1, 0.075, h * 0.9)], 0.01, m),
                 tube([(0.14, 0.1, 0.03), (-0.1, 0.1, h * 0.9)], 0.01, m)])


def rolled_rug(p: Palette, rng: Rng) -> Mesh:
    """Build a rolled rug, mat or poster tube."""
    r, h = rng.uniform(0.03, 0.11), rng.uniform(0.6, 1.9)
    return lathe([[0, 0], [r, 0], [r, h], [r * 0.6, h], [r * 0.6, h - 0.04], [r * 0.3, h - 0.04],
                  [0, h]], (0, r, 0), p.one_of('rug', 'cloth', 'cardboard'), sides=14)


def guitar(p: Palette, rng: Rng) -> Mesh:
    """Build a guitar."""
    m, black = p.get('wood'), p.get('black')
    return join([ellipsoid((0.37, 0.09, 0.4), (0, 0.05, 0.2), m, 2),
                 ellipsoid((0.28, 0.09, 0.3), (0, 0.05, 0.4), m, 2),
                 cylinder(0.045, 0.004, (0, 0, 0), black).moved((0, 0.094, 0.34),
                                                                tilt=-np.pi / 2),
                 box((0.05, 0.02, 0.45), (0, 0.07, 0.72), black),
                 box((0.075, 0.02, 0.15), (0, 0.06, 1.0), m)])


def poles(p: Palette, rng: Rng) -> Mesh:
    """Build a bundle of poles, rods or slats."""
    m, h = p.one_of('metal', 'wood', 'plastic'), rng.uniform(0.9, 2.0)
    parts = []
    for i in range(int(rng.integers(2, 8))):
        r = rng.uniform(0.008, 0.022)
        parts.append(tube([(i * 0.05 + rng.normal(0, 0.01), 0.025, 0),
                           (i * 0.04 + rng.normal(0, 0.03), 0.025, h * rng.uniform(0.7, 1))],
                          r, m))
    return join(parts)


def tipped_table(p: Palette, rng: Rng) -> Mesh:
    """Build a table top with its legs on, tipped up."""
    w, h = rng.uniform(0.5, 0.8), rng.uniform(0.6, 1.1)
    feet = legs(w, h, rng.uniform(0.2, 0.4), 0.04, p.one_of('wood', 'metal'))
    upright = feet.moved(tilt=np.pi / 2)
    low = upright.bounds[0]
    return join([box((w, 0.03, h), (0, 0.015, h / 2), p.one_of('wood', 'paint')),
                 upright.moved((0, 0.03 - low[1], -low[2]))])


def upright_cycle(p: Palette, rng: Rng) -> Mesh:
    """Build a bicycle along the wall."""
    bike = bicycle(p, rng)
    return bike.moved((0, -bike.bounds[0, 1], 0))


LEANING: tuple[Maker, ...] = (board, boards, boards, frame, frame, ladder, folded_steps, broom,
                              mop, shovel, folded_table, ironing_board, rolled_rug, rolled_rug,
                              guitar, poles, tipped_table, upright_cycle)
