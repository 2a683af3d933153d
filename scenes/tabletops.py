"""Make table tops and bins seen from above, as by the camera of a robot arm."""
from __future__ import annotations

from functools import partial

import numpy as np

from scenes import (
    clutter,
    furniture,
    heaps,
    household,
    interiors,
    lighting,
    rooms,
    shells,
    stacks,
)
from scenes.draws import pick, Rng
from scenes.materials import Palette
from scenes.meshes import box, join, Mesh
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Scene, View

# What tables of each kind carry, and what else full ones do.
_KINDS = ((clutter.KITCHEN, household.KITCHEN), (clutter.DESK, household.DESK),
          (clutter.LIVING, household.LIVING), (clutter.WORKSHOP, household.WORKSHOP))


def _same(maker: clutter.Maker, seed: int, p: Palette, _: Rng) -> Mesh:
    """Build the same thing every time."""
    return maker(p, np.random.default_rng(seed))


def sample_tabletop(b: SceneBuilder) -> Scene:
    """
    Make a table with clutter in a room, seen from close above and from the side.

    Returns
    -------
    Scene
    """
    p, rng = b.palette, b.rng
    width, depth = rng.uniform(2.6, 4.5), rng.uniform(2.6, 4.5)
    b.reserve([width / 2 - 0.95, depth * 0.1], [width / 2 + 0.95, depth * 0.8])
    room = shells.make_room(b, width, depth, rng.uniform(2.4, 2.9),
                            windows=int(rng.integers(0, 3)))
    sky = lighting.light_room(b, room)
    makers, more = pick(rng, _KINDS)
    w, d, h = rng.uniform(0.9, 1.8), rng.uniform(0.6, 1.0), rng.uniform(0.68, 0.92)
    x, y = room.width / 2, room.depth * rng.uniform(0.3, 0.6)
    bench = furniture.table(p, rng, w, d, h, makers, int(rng.integers(3, 30)))
    b.add(bench.moved((x, y, 0)), 'table')
    heaps.heap_on(b, (x - w / 2, y - d / 2, h - 0.02), (x + w / 2, y + d / 2, h + 0.35),
                  (*makers, *more, *stacks.MEDIUM[:2]), int(60 * rng.beta(0.6, 0.8)))
    interiors.furnish_storage(b, room)
    rooms.hang_pictures(b, room, int(rng.integers(0, 5)))
    top = np.array([[x - w / 3, y - d / 3, h], [x + w / 3, y + d / 3, h + 0.1]], np.float32)
    above = View(np.array([[x - 0.7, y - 0.9, h + 0.25], [x + 0.7, y + 0.7, h + 1.1]], np.float32),
                 top)
    beside = View(np.array([[x - 1.2, y - 1.3, h + 0.1], [x + 1.2, y - 0.5, h + 0.6]], np.float32),
                  np.array([[x - w / 3, y - 0.2, h], [x + w / 3, y + 0.6, h + 0.4]], np.float32))
    return b.build('table_top', sky, [above, above, beside], sky_irradiates=False)


def sample_bin(b: SceneBuilder) -> Scene:
    """
    Make a bin filled with parts or groceries, seen from above.

    Returns
    -------
    Scene
    """
    p, rng = b.palette, b.rng
    width, depth = rng.uniform(2.5, 4), rng.uniform(2.5, 4)
    b.reserve([width / 2 - 0.9, depth / 2 - 0.9], [width / 2 + 0.9, depth / 2 + 0.9])
    room = shells.make_room(b, width, depth, 2.6, windows=1)
    sky = lighting.light_room(b, room)
    centre = np.array([room.width / 2, room.depth / 2, 0])
    base = rng.uniform(0.4, 0.9)
    top = box((rng.uniform(1.0, 1.6), rng.uniform(0.7, 1.1), 0.04), (0, 0, base - 0.02),
              p.one_of('metal', 'wood', 'plastic'))
    size = rng.uniform([0.4, 0.3, 0.12], [0.75, 0.55, 0.35])
    parts = [top, clutter.tray(size, p.one_of('plastic', 'cardboard', 'metal'), 0.012).moved(
        (0, 0, base))]
    one_kind = rng.random() < 0.4
    makers = (clutter.part, clutter.tin, clutter.carton, clutter.ball, clutter.tool,
              clutter.bottle)
    chosen = pick(rng, makers)
    seed = int(rng.integers(1 << 31))
    level = base + 0.012
    for _ in range(int(rng.integers(0, 5))):
        for _ in range(int(rng.integers(2, 14))):
            thing = (chosen(p, np.random.default_rng(seed)) if one_kind else
                     pick(rng, makers)(p, rng))
            thing = thing.moved(yaw=rng.uniform(0, 6.3), tilt=rng.choice([0, 0, np.pi / 2, 0.5]))
            low, high = thing.bounds
            reach = (size[:2] - 0.03 - (high - low)[:2]) / 2
            if (reach > 0).all() and high[2] - low[2] < size[2] * 0.9:
                at = rng.uniform(-reach, reach) - (low + high)[:2] / 2
                parts.append(thing.moved((*at, level - low[2])))
        level += 0.05
    b.add(join(parts).moved(centre), 'bin')
    # No thing lies on the rim.
    inside = np.array([*(size[:2] / 2 - 0.04), 0.95 * size[2]])
    fillers = (partial(_same, chosen, seed),) if one_kind else (*makers, clutter.part, clutter.cup)
    heaps.heap_on(b, centre + [*-inside[:2], base], centre + [0, 0, base] + inside, fillers,
                  int(60 * rng.beta(0.6, 0.8)), tumbled=True)
    eye = np.array([-0.25, -0.35, base + 0.5]) + centre + [[0, 0, 0], [0.5, 0.6, 0.6]]
    target = np.array([-0.1, -0.1, base]) + centre + [[0, 0, 0], [0.2, 0.2, 0.05]]
    view = View(eye.astype(np.float32), target.astype(np.float32))
    return b.build('bin', sky, [view], sky_irradiates=False)
