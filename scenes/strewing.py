"""Strew a furnished room with things: on floors and furniture, in heaps, leaning and hanging."""
from __future__ import annotations

import numpy as np

from scenes import hanging, household, leaning, people, rooms, soft_things, stacks, thin_things
from scenes.draping import drape, lay_cables
from scenes.draws import pick, Rng
from scenes.heaps import Heap, make_stock, mix_in_public
from scenes.meshes import Mesh, rotation_z
from scenes.resting import bounding_block, Surroundings
from scenes.rooms import Room
from scenes.scene_builder import SceneBuilder
from scenes.walls import Wall

_LARGE = (*stacks.LARGE, *soft_things.LARGE, *thin_things.LARGE)
_MEDIUM = (*stacks.MEDIUM, *soft_things.FLOOR, *household.FLOOR)
_SMALL = (household.KITCHEN, household.DESK, household.LIVING, household.WORKSHOP)
_SEATS = ('chair', 'office_chair', 'sofa', 'armchair', 'bed', 'pouf')


def strew(b: SceneBuilder, room: Room, amount: float) -> None:
    """
    Fill a furnished room with things that rest, lean and hang.

    Parameters
    ----------
    b : SceneBuilder
        With the room and its furniture.
    room : Room
    amount : float
        From 0, a tidy room, to 1, hundreds of things.
    """
    rng = b.rng
    count = round(amount ** 1.5 * min(420.0, 170 + 13 * room.width * room.depth))
    if count == 0:
        return
    rooms.place_random(b, room, stacks.AT_WALL, rng.poisson(2.5 * amount), tries=8)
    around = Surroundings(b.mesh_so_far())
    _seat_people(b, around, int(rng.poisson(0.8 * amount)))
    _hang_on_walls(b, around, room, int(rng.poisson(9 * amount)))
    _lean(b, around, room, int(rng.poisson(9 * amount)))
    _hang_from_ceiling(b, around, room, int(rng.poisson(1.5 * amount)))
    spots = _Spots(b, room)
    heap = Heap(b, around)
    heap.drop(make_stock(b, people.PEOPLE, 2), int(rng.poisson(0.7 * amount)), spots.floor,
              (0, 0.03))
    heap.drop(make_stock(b, mix_in_public(b, _LARGE, 'floor'), 10), count // 20, spots.floor,
              (0, 0.03))
    drape(b, around, int(rng.poisson(5 * amount)))
    medium = make_stock(b, mix_in_public(b, _MEDIUM, 'floor'), 22)
    heap.drop(medium, count // 3, spots.anywhere, (0, 2.3), 1.1)
    lay_cables(b, around, room, int(rng.poisson(6 * amount)))
    makers = pick(rng, _SMALL) + pick(rng, _SMALL)
    small = make_stock(b, mix_in_public(b, (*makers, *soft_things.SURFACE), 'small'), 26)
    heap.drop(small, count * 2 // 3, spots.furniture, (0.15, 2.3), 1.15)
    heap.drop(medium, count // 5, spots.anywhere, (0, 0.6), 1.2)


class _Spots:
    """Draw poses in a room: in heaps, along walls, in corners and on furniture."""

    def __init__(self, b: SceneBuilder, room: Room) -> None:
        self._size = np.array([room.width, room.depth])
        self._top = room.height - 0.03
        self._heaps = b.rng.random((5, 2)) * self._size
        furniture = [np.array([o.min_m[:2], o.max_m[:2]]) for o in b.obstacles]
        self._boxes = np.array(furniture or [np.array([[0.0, 0.0], [room.width, room.depth]])])

    def floor(self, rng: Rng, n: int) -> np.ndarray:
        """Draw poses on the floor, most of them at a wall."""
        return self._poses(rng, self._near_walls(rng, n))

    def anywhere(self, rng: Rng, n: int) -> np.ndarray:
        """Draw poses at walls, in heaps, on and under furniture."""
        kind = rng.random(n)[:, None]
        heap = self._heaps[rng.integers(len(self._heaps), size=n)] + rng.normal(0, 0.4, (n, 2))
        xy = np.where(kind < 0.35, heap, self._near_walls(rng, n))
        return self._poses(rng, np.where(kind > 0.75, self._on_furniture(rng, n), xy))

    def furniture(self, rng: Rng, n: int) -> np.ndarray:
        """Draw poses on and under furniture."""
        return self._poses(rng, self._on_furniture(rng, n))

    def _near_walls(self, rng: Rng, n: int) -> np.ndarray:
        xy = rng.random((n, 2)) * self._size
        away = rng.exponential(0.3, (n, 2))
        away = np.where(rng.random((n, 2)) < 0.5, away, self._size - away)
        return np.where(rng.random((n, 2)) < 0.5, away, xy)

    def _on_furniture(self, rng: Rng, n: int) -> np.ndarray:
        chosen = self._boxes[rng.integers(len(self._boxes), size=n)]
        return np.asarray(rng.uniform(chosen[:, 0], chosen[:, 1]))

    def _poses(self, rng: Rng, xy: np.ndarray) -> np.ndarray:
        n = len(xy)
        square = np.pi / 2 * rng.integers(4, size=n) + rng.normal(0, 0.12, n)
        yaw = np.where(rng.random(n) < 0.6, square, rng.uniform(0, 2 * np.pi, n))
        start = np.where(rng.random(n) < 0.55, self._top, rng.uniform(0.2, 1.5, n))
        xy = np.clip(xy, 0.03, self._size - 0.03)
        return np.column_stack([xy, yaw, start])


def _wall_is_bare(around: Surroundings, wall: Wall, left: float, right: float, low: float,
                  high: float, reach: float) -> bool:
    """Check by rays that a box at a wall is empty and that the wall behind it is bare."""
    x, z = np.meshgrid(np.linspace(left, right, max(4, int((right - left) / 0.06))),
                       np.linspace(low, high, max(4, int((high - low) / 0.06))))
    points = np.stack([x.ravel(), np.full(x.size, reach), z.ravel()], -1)
    turn = rotation_z(wall.yaw)
    towards = np.tile(turn @ [0, -1, 0], (len(points), 1))
    distance = around.cast(points @ turn.T + wall.origin, towards).distance
    # A skirting board stands out by 15 mm.
    slack = np.where(points[:, 2] < 0.1, 0.018, 0.005)
    return bool((np.abs(distance - reach) < slack).all())


def _put(b: SceneBuilder, around: Surroundings, mesh: Mesh) -> None:
    """Add a mesh on which nothing can rest."""
    b.add(mesh)
    around.add([(bounding_block(mesh), False)])


def _hang_on_walls(b: SceneBuilder, around: Surroundings, room: Room, count: int) -> None:
    rng = b.rng
    for _ in range(count):
        thing = pick(rng, hanging.ON_WALL)(b.palette, rng)
        low, high = thing.bounds
        for _ in range(6):
            wall = pick(rng, room.walls)
            at = rng.uniform(0.05 - low[0], max(0.06 - low[0], wall.length - 0.05 - high[0]))
            z = rng.uniform(1.2, min(2.1, room.height - 0.1))
            if z + low[2] > 0.03 and at + high[0] < wall.length and _wall_is_bare(
                    around, wall, at + low[0], at + high[0], z + low[2], z + high[2],
                    float(high[1]) + 0.02):
                _put(b, around, wall.to_map(thing.moved((at, 0, z))))
                break


def _lean(b: SceneBuilder, around: Surroundings, room: Room, count: int) -> None:
    rng = b.rng
    for _ in range(count):
        maker = pick(rng, leaning.LEANING)
        thing = maker(b.palette, rng).moved(tilt=rng.uniform(0.05, 0.3))
        low, high = thing.bounds
        thing = thing.moved((0, 0.002 - low[1], -low[2]))
        width, reach, tall = float(high[0] - low[0]), float(high[1] - low[1]), float(
            high[2] - low[2])
        for _ in range(6):
            wall = pick(rng, room.walls)
            if tall > wall.height - 0.05 or width > wall.length - 0.1:
                continue
            at = rng.uniform(0.05, wall.length - width - 0.05) - float(low[0])
            left, right = at + float(low[0]), at + float(high[0])
            if _wall_is_bare(around, wall, left, right, 0.04, tall, reach + 0.02):
                # The skirting board keeps low backs off the wall.
                _put(b, around, wall.to_map(thing.moved((at, 0.015, 0))))
                break


def _hang_from_ceiling(b: SceneBuilder, around: Surroundings, room: Room, count: int) -> None:
    rng = b.rng
    for _ in range(count):
        thing = pick(rng, hanging.ON_CEILING)(b.palette, rng)
        thing = thing.moved(yaw=rng.uniform(0, 2 * np.pi))
        low, high = thing.bounds
        space = np.array([room.width, room.depth]) - (high - low)[:2] - 0.1
        if (space < 0).any():
            continue
        x, y = 0.05 - low[:2] + rng.random(2) * space
        grid = np.stack(np.meshgrid(*np.linspace(low, high, 8).T[:2]), -1).reshape(-1, 2)
        grid = grid + [x, y]
        below = around.heights(grid, room.height - 0.01)
        if (below < room.height + low[2] - 0.1).all():
            _put(b, around, thing.moved((x, y, room.height)))


def _seat_people(b: SceneBuilder, around: Surroundings, count: int) -> None:
    """Seat people on chairs, sofas and beds, where there is room for their legs."""
    rng = b.rng
    seats = [o for o in b.obstacles if o.name in _SEATS]
    hips = np.tile([0.32, 0.26, 0.85], (24, 1))
    shins = np.stack(np.meshgrid([-0.15, 0, 0.15], [0.36, 0.45, 0.55]), -1).reshape(-1, 2)
    for _ in range(min(count, len(seats))):
        seat = pick(rng, seats)
        xy = rng.uniform(np.array(seat.min_m[:2]) + 0.15, np.array(seat.max_m[:2]) - 0.1, (24, 2))
        poses = np.column_stack([xy, rng.uniform(0, 2 * np.pi, 24), np.full(24, 1.6)])
        for pose, top in zip(poses, around.rest(hips, poses)):
            if not 0.34 < top < 0.62:
                continue
            at = shins @ rotation_z(pose[2])[:2, :2].T + pose[:2]
            if (around.heights(at, float(top) + 0.1) < 0.03).all():
                person = people.sitting(b.palette, rng)
                factor = min(1.0, float(top / -person.bounds[0, 2]))
                _put(b, around, person.scaled(factor).moved((*pose[:2], top), pose[2]))
                break
