"""Rooms: the shell with windows and doors, its light, and places for furniture."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scenes import furniture, skies, walls
from scenes.builder import SceneBuilder
from scenes.meshes import box, Mesh, panel
from scenes.types import Light, View
from scenes.walls import Opening, Wall

Piece = Callable[..., Mesh]


@dataclass(frozen=True)
class Room:
    """The shell of a room: x from 0 to `width`, y from 0 to `depth`, its four walls in order."""

    width: float
    depth: float
    height: float
    walls: tuple[Wall, ...]

    @property
    def view(self) -> View:
        """Cameras anywhere in the room, looking anywhere in it."""
        return View(np.array([[0.25, 0.25, 0.1], [self.width - 0.25, self.depth - 0.25, 1.8]],
                             np.float32),
                    np.array([[0, 0, 0.0], [self.width, self.depth, 1.5]], np.float32))


def make_room(b: SceneBuilder, width: float, depth: float, height: float, *,
              windows: int = 2, doors: int = 1) -> Room:
    """
    Build a room with openings wherever they fall.

    Parameters
    ----------
    b : SceneBuilder
    width, depth, height : float
        Inside, m.
    windows, doors : int
        How many to try.

    Returns
    -------
    Room
    """
    rng = b.rng
    lengths = (width, depth, width, depth)
    openings: list[list[Opening]] = [[], [], [], []]
    for kind in ['door'] * doors + ['window'] * windows:
        side = int(rng.integers(4))
        w = rng.uniform(0.8, 0.95) if kind == 'door' else rng.uniform(0.7, 2.4)
        low, high = (0.0, 2.03) if kind == 'door' else (
            float(rng.choice([0.05, 0.8, 0.9])), rng.uniform(2.0, height - 0.15))
        if lengths[side] < w + 0.6:
            continue
        left = rng.uniform(0.3, lengths[side] - w - 0.3)
        if all(left > o.right + 0.2 or left + w < o.left - 0.2 for o in openings[side]):
            openings[side].append(Opening(kind, left, left + w, low, high))
    return build_room(b, width, depth, height, openings)


def build_room(b: SceneBuilder, width: float, depth: float, height: float,
               openings: Sequence[Sequence[Opening]]) -> Room:
    """
    Build floor, ceiling and walls with the given openings.

    Parameters
    ----------
    b : SceneBuilder
    width, depth, height : float
        Inside, m.
    openings : four sequences of Opening
        Of the walls at y = 0, x = width, y = depth and x = 0; each runs counter-clockwise.

    Returns
    -------
    Room
    """
    rng, p = b.rng, b.palette
    lengths = (width, depth, width, depth)
    corners = np.array([[0, 0, 0], [width, 0, 0], [width, depth, 0], [0, depth, 0]], np.float32)
    shell = tuple(Wall(corners[i], i * np.pi / 2, lengths[i], height, tuple(openings[i]))
                  for i in range(4))
    main = p.one_of('plaster', 'plaster', 'plaster', 'wallpaper', 'brick', 'concrete')
    other = main if rng.random() < 0.6 else p.one_of('plaster', 'wallpaper', 'brick', 'wood')
    skirting = p.one_of('ceramic', 'wood', 'paint')
    for i, wall in enumerate(shell):
        b.add(walls.wall_mesh(wall, other if i == 0 else main, skirting))
        for o in wall.openings:
            _fit_opening(b, wall, o)
    t = walls.THICKNESS_M
    floor = p.one_of('planks', 'planks', 'tiles', 'carpet', 'concrete', 'marble')
    b.add(box((width + 2 * t, depth + 2 * t, 0.1), (width / 2, depth / 2, -0.05), floor))
    b.add(box((width + 2 * t, depth + 2 * t, 0.1), (width / 2, depth / 2, height + 0.05),
              p.one_of('ceramic', 'plaster')))
    return Room(width, depth, height, shell)


def _fit_opening(b: SceneBuilder, wall: Wall, o: Opening) -> None:
    """Furnish a window or door, and keep the floor before a door free."""
    if o.kind == 'door':
        b.add(wall.to_map(walls.door_mesh(b.palette, b.rng, o)))
        zone = wall.to_map(box((o.right - o.left, 0.8, 0.1), ((o.left + o.right) / 2, 0.4, 0), 0))
        b.reserve(*zone.bounds[:, :2])
    else:
        b.add(wall.to_map(walls.window_mesh(b.palette, b.rng, o)))


def light_room(b: SceneBuilder, room: Room) -> np.ndarray:
    """
    Choose day or night, window light, sun and lamps.

    Returns
    -------
    [h,w,3] float32
        The sky outside.
    """
    rng = b.rng
    windows = [(w, o) for w in room.walls for o in w.openings if o.kind == 'window']
    day = bool(windows) and rng.random() < 0.75
    sky = skies.make_sky(rng, rng.uniform(1.5, 5) if day else 0.01)
    if day:
        for wall, o in windows[:3]:
            colour = sky[60:128].mean((0, 1)) * rng.uniform(0.7, 1.2)
            b.lights.append(walls.window_light(wall, o, colour))
        if rng.random() < 0.5:
            wall, o = windows[int(rng.integers(len(windows)))]
            outward = wall.yaw - np.pi / 2 + rng.uniform(-0.9, 0.9)
            b.lights.append(skies.sun(rng, rng.uniform(8, 30), outward))
    if not day or rng.random() < 0.5:
        _add_lamps(b, room)
    return sky


def _add_lamps(b: SceneBuilder, room: Room) -> None:
    """Hang pendants or fix ceiling panels."""
    rng = b.rng
    warm = np.array([1.0, rng.uniform(0.7, 0.98), rng.uniform(0.4, 0.95)], np.float32)
    n = 1 if room.width * room.depth < 22 else 2
    for i in range(n):
        x = room.width * ((i + 0.5) / n + rng.uniform(-0.1, 0.1))
        y = room.depth * rng.uniform(0.35, 0.65)
        if rng.random() < 0.5:
            drop = rng.uniform(0.4, 0.8)
            b.add(furniture.pendant(b.palette, rng, drop).moved((x, y, room.height)))
            b.lights.append(Light('bulb', np.array([x, y, room.height - drop + 0.02], np.float32),
                                  warm * np.float32(rng.uniform(4, 10)), radius_m=0.08))
        else:
            side = rng.uniform(0.3, 0.9)
            radiance = warm * np.float32(rng.uniform(5, 12) / side ** 2)
            b.add(box((side + 0.04, side + 0.04, 0.04), (x, y, room.height - 0.02),
                      b.palette.get('metal')))
            down = np.array([x, y, room.height - 0.05], np.float32)
            u, v = np.array([0, side, 0], np.float32), np.array([side, 0, 0], np.float32)
            b.add(panel(down - u / 2 - v / 2 + [0, 0, 0.005], u, v, b.palette.light(radiance)))
            b.lights.append(Light('rect', down, radiance, u, v))


def against_wall(b: SceneBuilder, room: Room, name: str, mesh: Mesh, *, tries: int = 12,
                 gap: float = 0.02) -> tuple[Wall, float] | None:
    """
    Stand a piece with its back to a wall, clear of doors and, if tall, of windows.

    Returns
    -------
    (Wall, float) or None
        The wall and where along it the piece's middle stands; None if no place was found.
    """
    low, high = mesh.bounds
    width = float(high[0] - low[0])
    for _ in range(tries):
        wall = room.walls[int(b.rng.integers(4))]
        if wall.length < width + 0.1:
            continue
        at = b.rng.uniform(width / 2 + 0.05, wall.length - width / 2 - 0.05)
        if not wall.is_clear(at - width / 2, at + width / 2, 0, float(high[2])):
            continue
        x = at - (low[0] + high[0]) / 2
        if b.place(name, wall.to_map(mesh.moved((x, gap - low[1], 0)))):
            return wall, at
    return None


def on_floor(b: SceneBuilder, room: Room, name: str, mesh: Mesh, tries: int = 10) -> bool:
    """
    Stand a piece anywhere on the floor.

    Returns
    -------
    bool
        Whether a place was found.
    """
    for _ in range(tries):
        turned = mesh.moved(yaw=b.rng.uniform(0, 2 * np.pi))
        low, high = turned.bounds[:, :2]
        room_for = np.array([room.width, room.depth]) - (high - low) - 0.2
        if (room_for > 0).all():
            at = 0.1 + b.rng.random(2) * room_for - low
            if b.place(name, turned.moved((*at, 0))):
                return True
    return False


def before(b: SceneBuilder, spot: tuple[Wall, float], name: str, mesh: Mesh, away: float) -> bool:
    """
    Stand a piece `away` metres in front of a spot at a wall.

    Returns
    -------
    bool
        Whether it was free.
    """
    wall, at = spot
    return b.place(name, wall.to_map(mesh.moved((at, away, 0))))


def lay_rug(b: SceneBuilder, room: Room, x: float, y: float) -> None:
    """Lay a rug around a point, within the room."""
    half = b.rng.uniform([0.7, 0.5], [1.4, 1.0])
    centre = np.clip([x, y], half + 0.05, np.maximum([room.width, room.depth] - half - 0.05,
                                                     half + 0.05))
    b.add(box((*(2 * half), 0.012), (*centre, 0.006), b.palette.get('rug'), fit=True))


def hang_pictures(b: SceneBuilder, room: Room, count: int) -> None:
    """Hang pictures where no opening, tall piece or other picture is."""
    rng = b.rng
    hung: list[tuple[Wall, float, float]] = []
    for _ in range(count):
        wall = room.walls[int(rng.integers(4))]
        w, h = rng.uniform(0.25, 1.1), rng.uniform(0.25, 0.8)
        at, z = rng.uniform(w / 2 + 0.1, wall.length - w / 2 - 0.1), rng.uniform(1.4, 1.75)
        probe = wall.to_map(box((w, 0.1, h), (at, 0.08, z), 0)).bounds
        blocked = any((np.array(o.min_m) < probe[1]).all() and (probe[0] < np.array(o.max_m)).all()
                      for o in b.obstacles)
        apart = all(a is not wall or abs(at - s) > (w + v) / 2 + 0.1 for a, s, v in hung)
        if not blocked and apart and wall.is_clear(at - w / 2, at + w / 2, z - h / 2, z + h / 2):
            hung.append((wall, at, w))
            b.add(wall.to_map(walls.picture_mesh(b.palette, rng, w, h).moved((at, 0, z))))
