"""Make ceilings of several forms: plain, with beams, joists, panels or ducts, and attic slopes."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scenes import openings
from scenes.bodies import rod
from scenes.draws import pick
from scenes.meshes import box, boxes, panel
from scenes.rooms import Room, slab
from scenes.scene_builder import SceneBuilder

Form = Callable[[SceneBuilder, Room], None]


def add_plain(b: SceneBuilder, room: Room, *kinds: str) -> None:
    """Add a flat ceiling."""
    b.add(slab(room, room.height + 0.05,
               b.palette.one_of(*(kinds or ('paper', 'paper', 'whitewash')))))


def add_cornice(b: SceneBuilder, room: Room) -> None:
    """Add a flat ceiling with mouldings along the walls."""
    add_plain(b, room)
    side, m = b.rng.uniform(0.05, 0.15), b.palette.get('paper')
    for wall in room.walls:
        b.add(wall.to_map(boxes([(wall.length, side, side / 2), (wall.length, side / 2, side)],
                                [(wall.length / 2, side / 2, room.height - side / 4),
                                 (wall.length / 2, side / 4, room.height - side / 2)], m)))


def add_beams(b: SceneBuilder, room: Room) -> None:
    """Add a flat ceiling with heavy beams across it."""
    add_plain(b, room, 'paper', 'plaster', 'planks')
    w, h = b.rng.uniform(0.1, 0.2), b.rng.uniform(0.12, 0.25)
    ys = np.arange(0.4, room.depth, b.rng.uniform(0.7, 1.3))
    b.add(boxes((room.width, w, h), [(room.width / 2, y, room.height - h / 2) for y in ys],
                b.palette.one_of('wood', 'wood', 'paint', 'concrete')))


def add_joists(b: SceneBuilder, room: Room) -> None:
    """Add the bare joists and boards of the floor above, with pipes below."""
    add_plain(b, room, 'planks', 'wood', 'concrete')
    ys = np.arange(0.2, room.depth, 0.45)
    b.add(boxes((room.width, 0.06, 0.16),
                [(room.width / 2, y, room.height - 0.08) for y in ys], b.palette.get('wood')))
    add_pipes(b, room, 0.2)


def add_ducts(b: SceneBuilder, room: Room) -> None:
    """Add a bare ceiling with an air duct, cable trays and pipes below it."""
    p, rng = b.palette, b.rng
    add_plain(b, room, 'concrete', 'concrete', 'paint')
    metal, side = p.get('metal'), rng.uniform(0.15, 0.4)
    x, z = rng.uniform(0.2, 0.8) * room.width, room.height - 0.05 - side / 2
    if rng.random() < 0.5:
        b.add(rod((x, 0, z), (x, room.depth, z), side / 2, metal, sides=20))
    else:
        b.add(box((side * 1.4, room.depth, side), (x, room.depth / 2, z), metal))
    ys = np.arange(0.6, room.depth, 1.2)
    b.add(boxes((side * 1.5, 0.04, side * 1.06), [(x, y, z) for y in ys], metal))
    add_pipes(b, room, 0.08)


def add_pipes(b: SceneBuilder, room: Room, gap: float) -> None:
    """Add pipes below the ceiling along walls; some run down to the floor."""
    p, rng = b.palette, b.rng
    for _ in range(int(rng.integers(2, 6))):
        wall, r = pick(rng, room.walls), rng.uniform(0.012, 0.06)
        m = p.one_of('metal', 'rust', 'paint', 'plastic', 'brick')
        y, z = r + rng.uniform(0.02, 0.3), room.height - gap - r - rng.uniform(0, 0.1)
        b.add(wall.to_map(rod((0, y, z), (wall.length, y, z), r, m, sides=10)))
        x = rng.uniform(0.1, wall.length - 0.1)
        if wall.is_clear(x - 0.1, x + 0.1, 0, room.height) and rng.random() < 0.6:
            b.add(wall.to_map(rod((x, y, 0), (x, y, z), r, m, sides=10)))


def add_panels(b: SceneBuilder, room: Room) -> None:
    """Add a suspended ceiling: square panels in a grid of rails, some with air outlets."""
    p, rng = b.palette, b.rng
    add_plain(b, room, 'paper', 'paper', 'whitewash')
    rail, step = p.one_of('ceramic', 'metal', 'black'), float(rng.choice([0.6, 0.625, 1.2]))
    xs, ys = np.arange(0.3, room.width, step), np.arange(0.3, room.depth, step)
    z = room.height - 0.004
    b.add(boxes((0.024, room.depth, 0.008), [(x, room.depth / 2, z) for x in xs], rail))
    b.add(boxes((room.width, 0.024, 0.008), [(room.width / 2, y, z) for y in ys], rail))
    for _ in range(int(rng.integers(0, 4))):
        at = (rng.choice(xs) + step / 2, rng.choice(ys) + step / 2, z)
        b.add(box((0.4, 0.4, 0.012), at, p.one_of('metal', 'black', 'ceramic')))


def add_attic(b: SceneBuilder, room: Room) -> None:
    """
    Add a ceiling that slopes down at one side or both, with rafters or skylights.

    A skylight is a bright pane of frosted glass, with a depth of its own; one of them shines.
    """
    p, rng = b.palette, b.rng
    add_plain(b, room)
    surface = p.one_of('paper', 'planks', 'plaster', 'wood')
    knee, run = rng.uniform(0.7, 1.5), min(room.width * 0.48, rng.uniform(1.2, 2.2))
    radiance = (np.array([0.9, 1.0, 1.1]) * rng.uniform(2, 8)).astype(np.float32)
    bright = p.emissive(radiance)
    frame = p.one_of('wood', 'ceramic')
    for wall in (room.walls[1], room.walls[3])[:int(rng.integers(1, 3))]:
        rise = np.array([0, run, room.height - knee])
        shines = len(b.lights) > 1
        # Seen from the room, the slope runs to the left along the wall.
        b.add(wall.to_map(panel((0, 0, knee), rise, (wall.length, 0, 0), surface, fit=False)))
        for x in np.arange(0.6, wall.length - 0.9, rng.uniform(1.4, 2.6)):
            inset = np.array([0, 0.012, -0.012])
            if rng.random() < 0.6:
                low = np.array([x, 0, knee]) + 0.3 * rise
                for grow, m, k in ((0.05, frame, 1), (0.0, bright, 2)):
                    pane = wall.to_map(panel(low + inset * k - [grow, 0, 0] - grow * rise,
                                             (0.45 + 2 * grow) * rise, (0.7 + 2 * grow, 0, 0), m))
                    b.add(pane)
                if not shines:
                    below = np.array([0, 0, -0.03], np.float32)
                    b.lights.append(openings.panel_light(pane, below, radiance))
                    shines = True
            else:
                start = np.array([x, 0.03, knee - 0.03])
                b.add(wall.to_map(rod(start, start + rise, 0.07, p.get('wood'), sides=4)))


FORMS: dict[str, Form] = {
    'plain': add_plain, 'cornice': add_cornice, 'beams': add_beams, 'joists': add_joists,
    'ducts': add_ducts, 'panels': add_panels, 'attic': add_attic}
