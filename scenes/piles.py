"""Strew a furnished room with things: on floors and furniture, in heaps, leaning and hanging."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from scenes import hanging, household, leaning, people, rooms, soft_things, stacks, thin_things
from scenes.bodies import cloth, tube
from scenes.clutter import Maker, Rng
from scenes.meshes import boxes, Mesh, rotation_z
from scenes.resting import bounding_block, Surroundings
from scenes.rooms import Room
from scenes.scene_builder import SceneBuilder
from scenes.walls import Wall

_LARGE = (*stacks.LARGE, *soft_things.LARGE, *thin_things.LARGE)
_MEDIUM = (*stacks.MEDIUM, *soft_things.FLOOR, *household.FLOOR)
_SMALL = (household.KITCHEN, household.DESK, household.LIVING, household.WORKSHOP)
_SEATS = ('chair', 'office_chair', 'sofa', 'armchair', 'bed', 'pouf')
_ROUNDS = 7
_PER_ROUND = 200

Poses = Callable[[Rng, int], np.ndarray]


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
    rng, p = b.rng, b.palette
    count = round(amount ** 1.5 * min(420.0, 170 + 13 * room.width * room.depth))
    if count == 0:
        return
    for _ in range(rng.poisson(2.5 * amount)):
        maker = stacks.AT_WALL[int(rng.integers(len(stacks.AT_WALL)))]
        rooms.place_against_wall(b, room, maker.__name__, maker(p, rng), tries=8)
    around = Surroundings(b.mesh_so_far())
    _seat_people(b, around, int(rng.poisson(0.8 * amount)))
    _hang_on_walls(b, around, room, int(rng.poisson(9 * amount)))
    _lean(b, around, room, int(rng.poisson(9 * amount)))
    _hang_from_ceiling(b, around, room, int(rng.poisson(1.5 * amount)))
    spots = _Spots(b, room)
    heap = Heap(b, around)
    heap.drop(_stock(b, people.PEOPLE, 2), int(rng.poisson(0.7 * amount)), spots.floor, (0, 0.03))
    heap.drop(_stock(b, _LARGE, 10), count // 20, spots.floor, (0, 0.03))
    _drape(b, around, int(rng.poisson(5 * amount)))
    medium = _stock(b, _MEDIUM, 22)
    heap.drop(medium, count // 3, spots.anywhere, (0, 2.3), 1.1)
    _lay_cables(b, around, room, int(rng.poisson(6 * amount)))
    makers = _SMALL[int(rng.integers(len(_SMALL)))] + _SMALL[int(rng.integers(len(_SMALL)))]
    small = _stock(b, (*makers, *soft_things.SURFACE), 26)
    heap.drop(small, count * 2 // 3, spots.furniture, (0.15, 2.3), 1.15)
    heap.drop(medium, count // 5, spots.anywhere, (0, 0.6), 1.2)


def heap_on(b: SceneBuilder, low: ArrayLike, high: ArrayLike, makers: Sequence[Maker],
            count: int, *, tumbled: bool = False) -> None:
    """
    Heap things on a table or in a bin.

    Parameters
    ----------
    b : SceneBuilder
        With what carries the things.
    low, high : [3] float
        Corners of the space in which the things rest, m.
    makers : sequence of functions
    count : int
        Number of things, as far as there is space.
    tumbled : bool
        Whether things lie in any pose, and on each other.
    """
    first, last = np.asarray(low, float), np.asarray(high, float)
    stock = _stock(b, makers, min(count, 24))
    if tumbled:
        stock = [Thing(one.mesh.moved(tilt=angle)) for one in stock
                 for angle in b.rng.choice([0.0, 0.4, np.pi / 2, 2.0], 2)]

    def poses(rng: Rng, n: int) -> np.ndarray:
        drawn = rng.uniform([*first[:2], 0], [*last[:2], 2 * np.pi], (n, 3))
        return np.column_stack([drawn, np.full(n, last[2])])

    heap = Heap(b, Surroundings(b.mesh_so_far()), true_shapes=tumbled)
    heap.drop(stock, count, poses, (first[2], last[2]), 1.1, share=0.12 if tumbled else 0.5)


class Thing:
    """
    A thing to copy, on the middle of the origin.

    Parameters
    ----------
    mesh : Mesh
        At any place.
    """

    def __init__(self, mesh: Mesh) -> None:
        low, high = mesh.bounds
        self.mesh = mesh.moved((*(-(low + high)[:2] / 2), -low[2]))
        self.size = high - low
        self.block = boxes([np.maximum(self.size, 1e-3)], [(0, 0, self.size[2] / 2)], 0)
        self.is_flat = _has_flat_top(self.mesh)


class Heap:
    """
    Let things down one after the other.

    Parameters
    ----------
    b : SceneBuilder
    around : Surroundings
        What the things may rest on; they are added to it.
    true_shapes : bool
        Whether things rest on the shapes of others, not on flat tops only.
    """

    def __init__(self, b: SceneBuilder, around: Surroundings, *,
                 true_shapes: bool = False) -> None:
        self._b, self._around, self._true_shapes = b, around, true_shapes

    def drop(self, stock: Sequence[Thing], count: int, poses: Poses, levels: tuple[float, float],
             spread: float = 1.0, share: float = 0.5) -> None:
        """
        Add copies of things where they rest.

        Parameters
        ----------
        stock : sequence of Thing
            Things to copy.
        count : int
            How many to add, as far as there is space.
        poses : function
            Draws poses to try.
        levels : (float, float)
            Lowest and highest surface that may carry them, m.
        spread : float
            Largest factor of their size, and 1 over the smallest.
        share : float
            How much of a footprint must be supported.
        """
        rng = self._b.rng
        sizes = np.array([thing.size for thing in stock])
        for _ in range(_ROUNDS if count else 0):
            tries = min(2 * count + 8, _PER_ROUND)
            which = rng.integers(len(stock), size=tries)
            scales = spread ** rng.uniform(-1, 1, tries)
            drawn = poses(rng, tries)
            tops = self._around.rest(sizes[which] * scales[:, None], drawn, share)
            usable = np.flatnonzero((tops > levels[0] - 0.01) & (tops < levels[1]))
            chosen = usable[_apart(drawn[usable, :2], 0.01 + scales[usable] * np.hypot(
                *sizes[which[usable], :2].T) / 2)][:count]
            blocks = []
            for i in chosen:
                thing, at = stock[which[i]], (*drawn[i, :2], tops[i])
                copy = _scaled(thing.mesh, scales[i]).moved(at, drawn[i, 2])
                self._b.add(copy)
                blocks.append((copy, True) if self._true_shapes else (
                    _scaled(thing.block, scales[i]).moved(at, drawn[i, 2]), thing.is_flat))
            self._around.add(blocks)
            count -= len(chosen)
            if count <= 0:
                break


def _apart(xy: np.ndarray, radii: np.ndarray) -> list[int]:
    """Return the numbers of circles that do not touch a chosen one before them."""
    chosen: list[int] = []
    for i in range(len(xy)):
        if (np.hypot(*(xy[chosen] - xy[i]).T) > radii[chosen] + radii[i]).all():
            chosen.append(i)
    return chosen


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
        pulled = rng.random((n, 2)) < [0.5, 0.5]
        return np.where(pulled, away, xy)

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


def _stock(b: SceneBuilder, makers: Sequence[Maker], count: int) -> list[Thing]:
    """Make things to copy, of as many kinds as possible."""
    kinds = np.concatenate([b.rng.permutation(len(makers))
                            for _ in range(-(-count // len(makers)))])[:count]
    return [Thing(makers[int(i)](b.palette, b.rng)) for i in kinds]


def _scaled(mesh: Mesh, factor: float) -> Mesh:
    return Mesh(mesh.triangles * np.float32(factor), mesh.normals, mesh.uv, mesh.material)


def _has_flat_top(mesh: Mesh) -> bool:
    """Check whether other things can stand on a thing."""
    low, high = mesh.bounds
    top = mesh.triangles[(mesh.triangles[:, :, 2] > high[2] - 0.015).all(1)]
    edges = np.diff(top[:, :, :2], axis=1)
    area = (edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]) / 2
    return bool(area.clip(0).sum() > 0.6 * np.prod((high - low)[:2]))


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


def _hang_on_walls(b: SceneBuilder, around: Surroundings, room: Room, count: int) -> None:
    rng = b.rng
    for _ in range(count):
        thing = hanging.ON_WALL[int(rng.integers(len(hanging.ON_WALL)))](b.palette, rng)
        low, high = thing.bounds
        blocks = []
        for _ in range(6):
            wall = room.walls[int(rng.integers(len(room.walls)))]
            at = rng.uniform(0.05 - low[0], max(0.06 - low[0], wall.length - 0.05 - high[0]))
            z = rng.uniform(1.2, min(2.1, room.height - 0.1))
            if z + low[2] > 0.03 and at + high[0] < wall.length and _wall_is_bare(
                    around, wall, at + low[0], at + high[0], z + low[2], z + high[2],
                    float(high[1]) + 0.02):
                hung = wall.to_map(thing.moved((at, 0, z)))
                b.add(hung)
                blocks.append((bounding_block(hung), False))
                break
        around.add(blocks)


def _lean(b: SceneBuilder, around: Surroundings, room: Room, count: int) -> None:
    rng = b.rng
    for _ in range(count):
        maker = leaning.LEANING[int(rng.integers(len(leaning.LEANING)))]
        thing = maker(b.palette, rng).moved(tilt=rng.uniform(0.05, 0.3))
        low, high = thing.bounds
        thing = thing.moved((0, 0.002 - low[1], -low[2]))
        width, reach, tall = float(high[0] - low[0]), float(high[1] - low[1]), float(
            high[2] - low[2])
        for _ in range(6):
            wall = room.walls[int(rng.integers(len(room.walls)))]
            if tall > wall.height - 0.05 or width > wall.length - 0.1:
                continue
            at = rng.uniform(0.05, wall.length - width - 0.05) - float(low[0])
            left, right = at + float(low[0]), at + float(high[0])
            if _wall_is_bare(around, wall, left, right, 0.04, tall, reach + 0.02):
                # The skirting board keeps low backs off the wall.
                leaned = wall.to_map(thing.moved((at, 0.015, 0)))
                b.add(leaned)
                around.add([(bounding_block(leaned), False)])
                break


def _hang_from_ceiling(b: SceneBuilder, around: Surroundings, room: Room, count: int) -> None:
    rng = b.rng
    for _ in range(count):
        thing = hanging.ON_CEILING[int(rng.integers(len(hanging.ON_CEILING)))](b.palette, rng)
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
            b.add(thing.moved((x, y, room.height)))
            around.add([(bounding_block(thing.moved((x, y, room.height))), False)])


def _seat_people(b: SceneBuilder, around: Surroundings, count: int) -> None:
    """Seat people on chairs, sofas and beds, where there is room for their legs."""
    rng = b.rng
    seats = [o for o in b.obstacles if o.name in _SEATS]
    hips = np.tile([0.32, 0.26, 0.85], (24, 1))
    shins = np.stack(np.meshgrid([-0.15, 0, 0.15], [0.36, 0.45, 0.55]), -1).reshape(-1, 2)
    for _ in range(min(count, len(seats))):
        seat = seats[int(rng.integers(len(seats)))]
        xy = rng.uniform(np.array(seat.min_m[:2]) + 0.15, np.array(seat.max_m[:2]) - 0.1, (24, 2))
        poses = np.column_stack([xy, rng.uniform(0, 2 * np.pi, 24), np.full(24, 1.6)])
        for pose, top in zip(poses, around.rest(hips, poses, 0.4)):
            if not 0.34 < top < 0.62:
                continue
            at = shins @ rotation_z(pose[2])[:2, :2].T + pose[:2]
            if (around.heights(at, float(top) + 0.1) < 0.03).all():
                person = people.sitting(b.palette, rng)
                factor = min(1.0, float(top / -person.bounds[0, 2]))
                body = _scaled(person, factor).moved((*pose[:2], top), pose[2])
                b.add(body)
                around.add([(bounding_block(body), False)])
                break


def _drape(b: SceneBuilder, around: Surroundings, count: int) -> None:
    """Throw blankets and clothes over furniture."""
    rng = b.rng
    bearers = [o for o in b.obstacles if 0.35 < o.max_m[2] < 1.3]
    for _ in range(count if bearers else 0):
        bearer = bearers[int(rng.integers(len(bearers)))]
        w, d = rng.uniform(0.4, 1.1), rng.uniform(0.35, 0.9)
        n, yaw = 18, rng.uniform(0, 2 * np.pi)
        u, v = np.meshgrid(np.linspace(-w / 2, w / 2, n), np.linspace(-d / 2, d / 2, n))
        c, s = np.cos(yaw), np.sin(yaw)
        centre = rng.uniform(bearer.min_m[:2], bearer.max_m[:2])
        xy = np.stack([c * u - s * v, s * u + c * v], -1) + centre
        z = around.heights(xy.reshape(-1, 2), 1.9).reshape(n, n)
        if np.isnan(z).any() or not 0.3 < z.max() < 1.4 or np.median(z) < 0.2:
            continue
        z = np.maximum(z, z.max() - rng.uniform(0.25, 0.5))
        padded = np.pad(z, 1, mode='edge')
        z = np.max([padded[i:i + n, j:j + n] for i in range(3) for j in range(3)], axis=0) + 0.012
        z += 0.008 * np.sin(u * rng.uniform(15, 40)) * np.sin(v * rng.uniform(15, 40)) + 0.008
        blanket = cloth(np.concatenate([xy, z[..., None]], -1),
                        b.palette.one_of('cloth', 'cloth', 'fabric'))
        b.add(blanket)
        around.add([(blanket, True)])


def _lay_cables(b: SceneBuilder, around: Surroundings, room: Room, count: int) -> None:
    """Lay cables over the floor and over the edges of desks."""
    rng = b.rng
    for _ in range(count):
        n = int(rng.integers(12, 60))
        turn = np.cumsum(rng.normal(0, 0.3, n) + rng.normal(0, 0.08)) + rng.uniform(0, 2 * np.pi)
        start = rng.random(2) * [room.width, room.depth]
        xy = start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], -1) * 0.05, axis=0)
        z = around.heights(xy, float(rng.choice([0.3, 1.1])))
        usable = int(np.argmax(np.append(np.isnan(z), True)))
        if usable > 5:
            r = rng.uniform(0.0025, 0.005)
            b.add(tube(np.column_stack([xy, z + r])[:usable], r,
                       b.palette.one_of('black', 'black', 'paper', 'plastic'), 5))
