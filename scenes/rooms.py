"""The rectangular room: its plan, a plain shell for drives, and places for furniture in it."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from scenes import walls
from scenes.clutter import Maker
from scenes.draws import pick
from scenes.meshes import box, Mesh
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import View
from scenes.walls import Opening, Wall


@dataclass(frozen=True)
class Room:
    """The shell of a room: x from 0 to `width`, y from 0 to `depth`, m; four walls in order."""

    width: float
    depth: float
    height: float
    walls: tuple[Wall, ...]

    @property
    def view(self) -> View:
        """Return a view with cameras anywhere in the room that look anywhere in it."""
        return View(np.array([[0.25, 0.25, 0.1], [self.width - 0.25, self.depth - 0.25, 1.8]],
                             np.float32),
                    np.array([[0, 0, 0.0], [self.width, self.depth, 1.5]], np.float32),
                    floor_m=0.0)


def plan_room(width: float, depth: float, height: float,
              openings: Sequence[Sequence[Opening]]) -> Room:
    """
    Return the room of four walls with the given openings, without a mesh.

    Parameters
    ----------
    width, depth, height : float
        Inner size, m.
    openings : four sequences of Opening
        Openings of the walls at y = 0, x = width, y = depth and x = 0, which run
        counter-clockwise.

    Returns
    -------
    Room
    """
    lengths = (width, depth, width, depth)
    corners = np.array([[0, 0, 0], [width, 0, 0], [width, depth, 0], [0, depth, 0]], np.float32)
    return Room(width, depth, height, tuple(
        Wall(corners[i], i * np.pi / 2, lengths[i], height, tuple(openings[i])) for i in range(4)))


def slab(room: Room, z: float, material: int) -> Mesh:
    """
    Build a floor or ceiling 0.1 m thick, also under or over the walls, with its middle at z (m).

    Returns
    -------
    Mesh
    """
    t = walls.THICKNESS_M
    return box((room.width + 2 * t, room.depth + 2 * t, 0.1),
               (room.width / 2, room.depth / 2, z), material)


def build_room(b: SceneBuilder, width: float, depth: float, height: float,
               openings: Sequence[Sequence[Opening]]) -> Room:
    """
    Build a plain room, as of a drive; `shells.make_room` makes those of random places.

    Parameters
    ----------
    b : SceneBuilder
    width, depth, height, openings
        See `plan_room`.

    Returns
    -------
    Room
    """
    rng, p = b.rng, b.palette
    room = plan_room(width, depth, height, openings)
    main = p.one_of('plaster', 'plaster', 'plaster', 'wallpaper', 'brick', 'concrete')
    other = main if rng.random() < 0.6 else p.one_of('plaster', 'wallpaper', 'brick', 'wood')
    skirting = p.one_of('ceramic', 'wood', 'paint')
    for i, wall in enumerate(room.walls):
        b.add(walls.wall_mesh(wall, other if i == 0 else main, skirting))
        for o in wall.openings:
            _add_opening(b, wall, o)
    floor = p.one_of('planks', 'planks', 'tiles', 'carpet', 'concrete', 'marble')
    b.add(slab(room, -0.05, floor))
    b.add(slab(room, height + 0.05, p.one_of('ceramic', 'plaster')))
    return room


def _add_opening(b: SceneBuilder, wall: Wall, o: Opening) -> None:
    """Add a window or a door, nothing in a passage; reserve the floor in front of a door."""
    if o.kind == 'door':
        b.add(wall.to_map(walls.door_mesh(b.palette, b.rng, o)))
        keep_way_free(b, wall, o)
    elif o.kind == 'window':
        b.add(wall.to_map(walls.window_mesh(b.palette, b.rng, o)))


def keep_way_free(b: SceneBuilder, wall: Wall, o: Opening) -> None:
    """Reserve the floor in front of a door."""
    zone = wall.to_map(box((o.right - o.left, 0.8, 0.1), ((o.left + o.right) / 2, 0.4, 0), 0))
    b.reserve(*zone.bounds[:, :2])


def place_against_wall(b: SceneBuilder, room: Room, name: str, mesh: Mesh, *, tries: int = 12,
                       gap: float = 0.02) -> tuple[Wall, float] | None:
    """
    Place an object with its back to a wall where it covers no door or window.

    Returns
    -------
    (Wall, float) or None
        The wall and the position of the object's centre along it, m; None if none is free.
    """
    low, high = mesh.bounds
    width = float(high[0] - low[0])
    for _ in range(tries):
        wall = pick(b.rng, room.walls)
        if wall.length < width + 0.1:
            continue
        at = b.rng.uniform(width / 2 + 0.05, wall.length - width / 2 - 0.05)
        if not wall.is_clear(at - width / 2, at + width / 2, 0, float(high[2])):
            continue
        x = at - (low[0] + high[0]) / 2
        if b.add_if_free(name, wall.to_map(mesh.moved((x, gap - low[1], 0)))):
            return wall, at
    return None


def place_new(b: SceneBuilder, room: Room, maker: Maker, tries: int = 12) -> None:
    """Make a thing, named like its maker, and place it at a wall, if there is space."""
    place_against_wall(b, room, maker.__name__, maker(b.palette, b.rng), tries=tries)


def place_some(b: SceneBuilder, room: Room, shares: Iterable[tuple[Maker, float]],
               tries: int = 12) -> None:
    """Place things at the walls, each with its own probability."""
    for maker, share in shares:
        if b.rng.random() < share:
            place_new(b, room, maker, tries)


def place_random(b: SceneBuilder, room: Room, makers: Sequence[Maker], count: int,
                 tries: int = 12) -> None:
    """Place `count` things of random makers at the walls, as far as there is space."""
    for _ in range(count):
        place_new(b, room, pick(b.rng, makers), tries)


def place_random_on_floor(b: SceneBuilder, room: Room, makers: Sequence[Maker],
                          count: int) -> None:
    """Place `count` things of random makers anywhere on the floor, as far as there is space."""
    for _ in range(count):
        maker = pick(b.rng, makers)
        place_on_floor(b, room, maker.__name__, maker(b.palette, b.rng))


def place_on_floor(b: SceneBuilder, room: Room, name: str, mesh: Mesh, tries: int = 10) -> bool:
    """
    Place an object at a random free position on the floor.

    Returns
    -------
    bool
        Whether a free position was found.
    """
    for _ in range(tries):
        turned = mesh.moved(yaw=b.rng.uniform(0, 2 * np.pi))
        low, high = turned.bounds[:, :2]
        room_for = np.array([room.width, room.depth]) - (high - low) - 0.2
        if (room_for > 0).all():
            at = 0.1 + b.rng.random(2) * room_for - low
            if b.add_if_free(name, turned.moved((*at, 0))):
                return True
    return False


def place_in_front(b: SceneBuilder, spot: tuple[Wall, float], name: str, mesh: Mesh,
                   away: float) -> bool:
    """
    Place an object `away` metres in front of a position at a wall.

    Returns
    -------
    bool
        Whether the position was free.
    """
    wall, at = spot
    return b.add_if_free(name, wall.to_map(mesh.moved((at, away, 0))))


def lay_rug(b: SceneBuilder, room: Room, x: float, y: float) -> None:
    """Add a rug around a point, within the room."""
    half = b.rng.uniform([0.7, 0.5], [1.4, 1.0])
    centre = np.clip([x, y], half + 0.05, np.maximum([room.width, room.depth] - half - 0.05,
                                                     half + 0.05))
    b.add(box((*(2 * half), 0.012), (*centre, 0.006), b.palette.get('rug'), fit=True))


def hang_pictures(b: SceneBuilder, room: Room, count: int) -> None:
    """Add pictures to the walls where no opening, obstacle or other picture is."""
    rng = b.rng
    hung: list[tuple[Wall, float, float]] = []
    for _ in range(count):
        wall = pick(rng, room.walls)
        w, h = rng.uniform(0.25, 1.1), rng.uniform(0.25, 0.8)
        at, z = rng.uniform(w / 2 + 0.1, wall.length - w / 2 - 0.1), rng.uniform(1.4, 1.75)
        probe = wall.to_map(box((w, 0.1, h), (at, 0.08, z), 0)).bounds
        blocked = any((np.array(o.min_m) < probe[1]).all() and (probe[0] < np.array(o.max_m)).all()
                      for o in b.obstacles)
        apart = all(a is not wall or abs(at - s) > (w + v) / 2 + 0.1 for a, s, v in hung)
        if not blocked and apart and wall.is_clear(at - w / 2, at + w / 2, z - h / 2, z + h / 2):
            hung.append((wall, at, w))
            b.add(wall.to_map(walls.picture_mesh(b.palette, rng, w, h).moved((at, 0, z))))
