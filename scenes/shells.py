"""Make the shells of rooms: surfaces, openings, ceilings, columns, beams, slopes, fittings."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenes import ceilings, openings, walls
from scenes.draws import pick
from scenes.meshes import box, boxes
from scenes.rooms import plan_room, Room, slab
from scenes.scene_builder import SceneBuilder
from scenes.walls import Opening, Wall


@dataclass(frozen=True)
class Finish:
    """
    What the surfaces of a kind of room are made of, as kinds of materials.

    Attributes
    ----------
    walls, floor : tuple of str
    ceilings : tuple of str
        Forms of the ceiling, see `ceilings.FORMS`.
    dado : tuple of str
        Of a lower part of the walls that is clad otherwise; empty if there is none.
    dado_m : float
        Height of that part, m.
    private : bool
        Whether the windows are frosted.
    sill_m : float
        Least height of the windows above the floor, m.
    """

    walls: tuple[str, ...] = ('whitewash',) * 5 + ('plaster', 'plaster', 'wallpaper', 'brick')
    floor: tuple[str, ...] = ('planks', 'planks', 'planks', 'tiles', 'carpet', 'carpet', 'marble')
    ceilings: tuple[str, ...] = ('plain', 'plain', 'plain', 'cornice', 'beams', 'attic')
    dado: tuple[str, ...] = ()
    dado_m: float = 1.0
    private: bool = False
    sill_m: float = 0.05


HOME = Finish()
KITCHEN = Finish(floor=('tiles', 'tiles', 'planks', 'planks'),
                 ceilings=('plain', 'plain', 'beams'), sill_m=1.0)
BATH = Finish(walls=('whitewash', 'plaster'), floor=('tiles', 'tiles', 'marble'),
              ceilings=('plain',), dado=('tiles', 'tiles', 'marble'), dado_m=2.0, private=True,
              sill_m=1.1)
CELLAR = Finish(walls=('concrete', 'brick', 'whitewash', 'whitewash'), floor=('concrete', 'tiles'),
                ceilings=('joists', 'plain', 'ducts', 'ducts'), sill_m=1.5)
WORKS = Finish(walls=('concrete', 'brick', 'whitewash', 'metal'), floor=('concrete', 'concrete'),
               ceilings=('ducts', 'joists', 'plain'), sill_m=1.0)
OFFICE = Finish(walls=('whitewash', 'whitewash', 'plaster', 'concrete'),
                floor=('carpet', 'carpet', 'tiles'),
                ceilings=('panels', 'panels', 'ducts', 'plain'), sill_m=0.8)


def make_room(b: SceneBuilder, width: float, depth: float, height: float, *, windows: int = 2,
              doors: int = 1, finish: Finish = HOME) -> Room:
    """
    Build a room with openings at random positions, and the rooms behind its open doors.

    Parameters
    ----------
    b : SceneBuilder
    width, depth, height : float
        Inner size, m.
    windows, doors : int
        Number of attempts to add one.
    finish : Finish

    Returns
    -------
    Room
    """
    p, rng = b.palette, b.rng
    form = str(rng.choice(finish.ceilings))
    lengths = (width, depth, width, depth)
    # The slopes of an attic leave no height for openings below them.
    sides = (0, 2) if form == 'attic' else (0, 1, 2, 3)
    planned = _plan_openings(b, lengths, height, sides, windows, doors, finish)
    room = plan_room(width, depth, height, planned)
    main = p.one_of(*finish.walls)
    other = main if rng.random() < 0.6 else p.one_of(*finish.walls)
    skirting = p.one_of('ceramic', 'wood', 'paint')
    dado = p.one_of(*finish.dado) if finish.dado else (
        p.one_of('whitewash', 'wood', 'wood', 'paint') if rng.random() < 0.1 else None)
    for i, wall in enumerate(room.walls):
        b.add(walls.wall_mesh(wall, other if i == 0 else main, skirting))
        if dado is not None:
            _clad(b, wall, dado, finish.dado_m)
        for o in wall.openings:
            if o.kind == 'door':
                openings.add_door(b, wall, o)
            else:
                openings.add_window(b, wall, o, private=finish.private)
        _add_sockets(b, wall)
    b.add(slab(room, -0.05, p.one_of(*finish.floor)))
    ceilings.FORMS[form](b, room)
    _add_blocks(b, room, main)
    return room


def _plan_openings(b: SceneBuilder, lengths: tuple[float, ...], height: float,
                   sides: tuple[int, ...], windows: int, doors: int,
                   finish: Finish) -> list[list[Opening]]:
    """Choose openings that keep apart."""
    rng = b.rng
    planned: list[list[Opening]] = [[], [], [], []]
    for kind in ['door'] * doors + ['window'] * windows:
        side = int(rng.choice(sides))
        w = rng.uniform(0.8, 0.95) if kind == 'door' else rng.uniform(0.6, 2.4)
        if lengths[side] < w + 0.6:
            continue
        low = max(finish.sill_m, float(rng.choice([0.05, 0.5, 0.8, 0.9])))
        high = min(height - 0.15, max(rng.uniform(1.9, 2.4), low + 0.35))
        low, high = (0.0, min(2.03, height - 0.05)) if kind == 'door' else (min(low, high - 0.3),
                                                                            high)
        left = rng.uniform(0.3, lengths[side] - w - 0.3)
        if all(left > o.right + 0.2 or left + w < o.left - 0.2 for o in planned[side]):
            planned[side].append(Opening(kind, left, left + w, low, high))
    return planned


def _clad(b: SceneBuilder, wall: Wall, material: int, height: float) -> None:
    """Clad the lower part of a wall between its openings."""
    at = 0.0
    spans = []
    for o in sorted(wall.openings, key=lambda o: o.left):
        spans += [(at, o.left, height), (o.left, o.right, min(o.low, height))]
        at = o.right
    for left, right, top in [*spans, (at, wall.length, height)]:
        if right - left > 0.02 and top > 0.02:
            b.add(wall.to_map(box((right - left, 0.016, top),
                                  ((left + right) / 2, 0.008, top / 2), material)))


def _add_sockets(b: SceneBuilder, wall: Wall) -> None:
    """Add sockets near the floor and switches beside the doors."""
    rng = b.rng
    places = [(rng.uniform(0.2, wall.length - 0.2), 0.3, float(rng.choice([0.08, 0.16, 0.24])))
              for _ in range(int(rng.integers(0, 3)))]
    places += [(o.right + 0.15, 1.1, 0.08) for o in wall.openings if o.kind == 'door']
    for x, z, w in places:
        if x < wall.length - 0.1 and wall.is_clear(x - w, x + w, z - 0.1, z + 0.1):
            b.add(wall.to_map(box((w, 0.03, 0.08), (x, 0.01, z), b.palette.get('ceramic'))))


def _add_blocks(b: SceneBuilder, room: Room, material: int) -> None:
    """Fill a corner, so that the room is L-shaped, or add columns, chimneys or pilasters."""
    rng = b.rng
    size = np.array([room.width, room.depth])
    draw = rng.random()
    if draw < 0.18 and size.min() > 3.2:
        _add_corner(b, room, rng.uniform(0.25, 0.5, 2) * size, material)
    elif draw < 0.3 and size.min() > 3.5:
        column = b.palette.one_of('concrete', 'plaster', 'wood', 'paint')
        side = rng.uniform(0.15, 0.45)
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.uniform(0.25, 0.75, 2) * size
            b.add_if_free('column', box((side, side, room.height), (x, y, room.height / 2),
                                        column, upright=True))
    elif draw < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            wall = pick(rng, room.walls)
            w, d = rng.uniform(0.25, 1.3), rng.uniform(0.12, 0.45)
            x = rng.uniform(w / 2, wall.length - w / 2)
            if wall.is_clear(x - w / 2 - 0.1, x + w / 2 + 0.1, 0, room.height):
                b.add_if_free('pilaster', wall.to_map(box((w, d, room.height),
                                                          (x, d / 2, room.height / 2), material)))


def _add_corner(b: SceneBuilder, room: Room, size: np.ndarray, material: int) -> None:
    """Fill a corner whose walls have no openings there."""
    for corner in b.rng.permutation(4):
        wall, before = room.walls[corner], room.walls[corner - 1]
        along = size if corner % 2 == 0 else size[::-1]
        block = wall.to_map(boxes(
            [(along[0], along[1], room.height), (along[0] + 0.015, along[1] + 0.015, 0.08)],
            [(along[0] / 2, along[1] / 2, room.height / 2), (along[0] / 2, along[1] / 2, 0.04)],
            material))
        if (wall.is_clear(0, along[0] + 0.1, 0, room.height)
                and before.is_clear(before.length - along[1] - 0.1, before.length, 0, room.height)
                and b.add_if_free('corner', block)):
            return
