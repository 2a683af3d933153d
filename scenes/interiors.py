"""Make furnished rooms: living rooms, bedrooms, kitchens, offices, storage rooms."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scenes import clutter, furniture, piles, rooms, seats, storage
from scenes.meshes import box, join, Mesh
from scenes.rooms import Piece, place_against_wall, place_in_front, place_on_floor, Room
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Scene


def _place_random(b: SceneBuilder, room: Room, wall_pieces: tuple[Piece, ...],
                  floor_pieces: tuple[Piece, ...], walls_n: int, floor_n: int) -> None:
    for _ in range(walls_n):
        piece = wall_pieces[int(b.rng.integers(len(wall_pieces)))]
        place_against_wall(b, room, piece.__name__, piece(b.palette, b.rng))
    for _ in range(floor_n):
        piece = floor_pieces[int(b.rng.integers(len(floor_pieces)))]
        place_on_floor(b, room, piece.__name__, piece(b.palette, b.rng))


def furnish_living(b: SceneBuilder, room: Room) -> None:
    """Add a sofa with coffee table and rug, a television, shelves, lamps and plants."""
    p, rng = b.palette, b.rng
    spot = place_against_wall(b, room, 'sofa', seats.sofa(p, rng), tries=30)
    if spot is not None:
        place_in_front(b, spot, 'coffee_table', furniture.coffee_table(p, rng),
                       rng.uniform(1.5, 1.8))
        if rng.random() < 0.7:
            wall, at = spot
            middle = wall.to_map(box((0, 0, 0), (at, 1.5, 0), 0)).bounds[0]
            rooms.lay_rug(b, room, float(middle[0]), float(middle[1]))
    place_against_wall(b, room, 'tv_stand', storage.tv_stand(p, rng), tries=20)
    place_against_wall(b, room, 'bookshelf', storage.bookshelf(p, rng), tries=20)
    _place_random(b, room,
                  (storage.bookshelf, storage.cabinet, furniture.plant, furniture.floor_lamp,
                   furniture.side_table, seats.armchair, furniture.radiator),
                  (seats.armchair, seats.pouf, furniture.plant, furniture.floor_clutter,
                   furniture.floor_clutter, seats.chair),
                  int(rng.integers(1, 6)), int(rng.integers(0, 6)))


def furnish_bedroom(b: SceneBuilder, room: Room) -> None:
    """Add a bed with nightstands, a wardrobe, cabinets, chairs and clutter."""
    p, rng = b.palette, b.rng
    spot = place_against_wall(b, room, 'bed', furniture.bed(p, rng), tries=40, gap=0.04)
    if spot is not None:
        for side in (-1.35, 1.35):
            place_in_front(b, (spot[0], spot[1] + side), 'nightstand', storage.nightstand(p, rng),
                           0.24)
    if rng.random() < 0.6:
        rooms.lay_rug(b, room, room.width * rng.random(), room.depth * rng.random())
    place_against_wall(b, room, 'wardrobe', storage.cabinet(p, rng, rng.uniform(1, 2), 2.1),
                       tries=20)
    _place_random(b, room,
                  (storage.cabinet, storage.bookshelf, furniture.desk, seats.armchair,
                   furniture.plant, furniture.floor_lamp),
                  (seats.chair, seats.pouf, furniture.floor_clutter, furniture.floor_clutter,
                   furniture.bin_basket),
                  int(rng.integers(1, 4)), int(rng.integers(0, 5)))


def dining_group(b: SceneBuilder) -> tuple[Mesh, list[Mesh]]:
    """
    Build a dining table with dishes and the chairs around it.

    Returns
    -------
    table : Mesh
        Centred on the origin.
    chairs : list of Mesh
    """
    p, rng = b.palette, b.rng
    w, d = rng.uniform(1.1, 2.0), rng.uniform(0.75, 0.95)
    makers = clutter.KITCHEN
    top = furniture.table(p, rng, w, d, rng.uniform(0.72, 0.77), makers, int(rng.integers(2, 14)))
    per_side = max(1, int(w / 0.65))
    chair = seats.chair(p, rng)
    chairs = []
    for side in (-1, 1):
        for i in range(per_side):
            x = (i - (per_side - 1) / 2) * w / per_side
            out = d / 2 + rng.uniform(0.08, 0.4)
            yaw = (np.pi if side > 0 else 0.0) + rng.normal(0, 0.15)
            chairs.append(chair.moved((x, side * out, 0), yaw))
    return top, chairs


def furnish_kitchen(b: SceneBuilder, room: Room) -> None:
    """Add a kitchen row, a fridge and a dining table with chairs."""
    p, rng = b.palette, b.rng
    place_against_wall(b, room, 'kitchen', storage.kitchen_row(p, rng, rng.uniform(1.8, 3.6)),
                       tries=40)
    place_against_wall(b, room, 'fridge', storage.refrigerator(p, rng), tries=25)
    place_dining(b, room)
    _place_random(b, room,
                  (storage.cabinet, storage.bookshelf, storage.refrigerator, furniture.radiator,
                   furniture.plant),
                  (seats.chair, furniture.bin_basket, furniture.floor_clutter, furniture.plant),
                  int(rng.integers(0, 4)), int(rng.integers(0, 4)))


def place_dining(b: SceneBuilder, room: Room, tries: int = 15) -> None:
    """Add a dining table with its chairs at a free position, if one is found."""
    rng = b.rng
    top, chairs = dining_group(b)
    low, high = join([top, *chairs]).bounds[:, :2]
    for _ in range(tries):
        yaw = np.pi / 2 * int(rng.integers(2))
        size = (high - low) if yaw == 0 else (high - low)[::-1]
        space = np.array([room.width, room.depth]) - size
        if (space < 0).any():
            continue
        at = size / 2 + rng.random(2) * space
        if b.is_free(at - size / 2, at + size / 2):
            b.reserve(at - size / 2, at + size / 2)
            b.add(top.moved((*at, 0), yaw), 'dining_table')
            for chair in chairs:
                b.add(chair.moved().moved((*at, 0), yaw), 'chair')
            return


def furnish_office(b: SceneBuilder, room: Room) -> None:
    """Add desks with office chairs, shelves, cabinets and boxes."""
    p, rng = b.palette, b.rng
    for _ in range(int(rng.integers(1, 5))):
        spot = place_against_wall(b, room, 'desk', furniture.desk(p, rng), tries=20)
        if spot is not None:
            chair = seats.office_chair(p, rng).moved(yaw=np.pi + rng.normal(0, 0.5))
            place_in_front(b, spot, 'office_chair', chair, rng.uniform(1.0, 1.3))
    _place_random(b, room,
                  (storage.bookshelf, storage.bookshelf, storage.cabinet, furniture.plant,
                   furniture.boxes_pile),
                  (seats.office_chair, furniture.bin_basket, furniture.boxes_pile,
                   furniture.floor_clutter, seats.chair),
                  int(rng.integers(1, 5)), int(rng.integers(0, 5)))


def furnish_storage(b: SceneBuilder, room: Room) -> None:
    """Add shelves, boxes and stored furniture; sometimes hardly any."""
    amount = float(b.rng.random())
    _place_random(b, room,
                  (storage.bookshelf, storage.cabinet, furniture.boxes_pile,
                   furniture.table_with_tools),
                  (furniture.boxes_pile, furniture.floor_clutter, seats.chair, seats.pouf,
                   furniture.boxes_pile, seats.armchair),
                  int(6 * amount), int(14 * amount))


_FURNISH: dict[str, tuple[Callable[[SceneBuilder, Room], None], float]] = {
    'living_room': (furnish_living, 0.34), 'bedroom': (furnish_bedroom, 0.2),
    'kitchen': (furnish_kitchen, 0.2), 'office': (furnish_office, 0.16),
    'storage_room': (furnish_storage, 0.1)}


def sample_room(b: SceneBuilder) -> Scene:
    """
    Make a furnished room of a random kind.

    Returns
    -------
    Scene
    """
    rng = b.rng
    names = list(_FURNISH)
    place = str(rng.choice(names, p=[_FURNISH[n][1] for n in names]))
    size = (rng.uniform(3.0, 6.5), rng.uniform(2.8, 5.5), rng.uniform(2.35, 3.0))
    room = rooms.make_room(b, *size, windows=int(rng.integers(0, 4)),
                           doors=int(rng.integers(1, 3)))
    sky = rooms.light_room(b, room)
    _FURNISH[place][0](b, room)
    rooms.hang_pictures(b, room, int(rng.integers(0, 8)))
    piles.strew(b, room, rng.beta(0.6, 0.6))
    return b.build(place, sky, [room.view], sky_irradiates=False)
