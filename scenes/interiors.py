"""Make furnished rooms of homes and workplaces, and choose among all kinds of rooms."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scenes import (
    clutter,
    furniture,
    glass,
    kitchens_bathrooms,
    lighting,
    rooms,
    seats,
    shells,
    storage,
    strewing,
    workplaces,
)
from scenes.clutter import Maker
from scenes.draws import pick, pick_by_share
from scenes.meshes import box, join, Mesh
from scenes.rooms import place_against_wall, place_in_front, Room
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Scene
from scenes.shells import Finish

Span = tuple[float, float]


def _place_more(b: SceneBuilder, room: Room, wall_pieces: tuple[Maker, ...],
                floor_pieces: tuple[Maker, ...], walls_n: int, floor_n: int) -> None:
    """Place numbers of random pieces at the walls and on the floor."""
    rooms.place_random(b, room, wall_pieces, walls_n)
    rooms.place_random_on_floor(b, room, floor_pieces, floor_n)


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
    _place_more(b, room,
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
    wardrobe = storage.cabinet(p, rng, rng.uniform(1, 2), 2.1)
    if rng.random() < 0.3:
        front = glass.mirror(p, rng, 0.5, 1.9).moved((0, float(wardrobe.bounds[1, 1]), 1.05))
        wardrobe = join([wardrobe, front])
    place_against_wall(b, room, 'wardrobe', wardrobe, tries=20)
    _place_more(b, room,
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
    """Add runs of kitchen units, a fridge and a dining table with chairs."""
    p, rng = b.palette, b.rng
    kitchens_bathrooms.fit_kitchen(b, room)
    place_against_wall(b, room, 'fridge', storage.refrigerator(p, rng), tries=25)
    place_dining(b, room)
    _place_more(b, room,
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
                b.add(chair.moved((*at, 0), yaw), 'chair')
            return


def furnish_canteen(b: SceneBuilder, room: Room) -> None:
    """Add rows of tables with their chairs, a counter and cabinets to a large hall."""
    rng = b.rng
    kitchens_bathrooms.fit_kitchen(b, room)
    groups = [join([top, *chairs]) for top, chairs in (dining_group(b) for _ in range(3))]
    workplaces.place_rows(b, room, 'dining_table', groups, rng.uniform(0.5, 1.5))
    _place_more(b, room, (storage.cabinet, furniture.plant, storage.refrigerator),
                (seats.chair, furniture.bin_basket), int(rng.integers(1, 6)), 3)


def furnish_office(b: SceneBuilder, room: Room) -> None:
    """Add desks with office chairs, shelves, cabinets and boxes."""
    p, rng = b.palette, b.rng
    for _ in range(int(rng.integers(1, 5))):
        spot = place_against_wall(b, room, 'desk', furniture.desk(p, rng), tries=20)
        if spot is not None:
            chair = seats.office_chair(p, rng).moved(yaw=np.pi + rng.normal(0, 0.5))
            place_in_front(b, spot, 'office_chair', chair, rng.uniform(1.0, 1.3))
    _place_more(b, room,
                (storage.bookshelf, storage.bookshelf, storage.cabinet, furniture.plant,
                 furniture.boxes_pile),
                (seats.office_chair, furniture.bin_basket, furniture.boxes_pile,
                 furniture.floor_clutter, seats.chair),
                int(rng.integers(1, 5)), int(rng.integers(0, 5)))


def furnish_storage(b: SceneBuilder, room: Room) -> None:
    """Add shelves, boxes and stored furniture; sometimes hardly any."""
    amount = float(b.rng.random())
    _place_more(b, room,
                (storage.bookshelf, storage.cabinet, furniture.boxes_pile,
                 furniture.table_with_tools),
                (furniture.boxes_pile, furniture.floor_clutter, seats.chair, seats.pouf,
                 furniture.boxes_pile, seats.armchair),
                int(6 * amount), int(14 * amount))


@dataclass(frozen=True)
class RoomKind:
    """
    A kind of room: how it is furnished, what it is made of, its size and its lamps.

    Attributes
    ----------
    furnish : callable
    share : float
        Of the rooms.
    finish : Finish
    size_m : ((float, float), (float, float), (float, float))
        Least and largest width, depth and height, m.
    lamps : tuple of callables
        Usual lamps; any if empty.
    """

    furnish: Callable[[SceneBuilder, Room], None]
    share: float
    finish: Finish = shells.HOME
    size_m: tuple[Span, Span, Span] = ((3.0, 6.5), (2.8, 5.5), (2.35, 3.0))
    lamps: tuple[lighting.Lamps, ...] = ()


KINDS: dict[str, RoomKind] = {
    'living_room': RoomKind(furnish_living, 0.17),
    'bedroom': RoomKind(furnish_bedroom, 0.14),
    'kitchen': RoomKind(furnish_kitchen, 0.15, shells.KITCHEN, ((2.3, 5.0), (2.4, 5), (2.35, 3))),
    'office': RoomKind(furnish_office, 0.09, shells.HOME),
    'storage_room': RoomKind(furnish_storage, 0.04),
    'bathroom': RoomKind(kitchens_bathrooms.furnish_bathroom, 0.09, shells.BATH,
                         ((1.9, 3.6), (1.8, 3.2), (2.3, 2.8)),
                         (lighting.add_domes, lighting.add_spots)),
    'workshop': RoomKind(workplaces.furnish_workshop, 0.09, shells.WORKS,
                         ((3.0, 8.0), (3.0, 7.0), (2.4, 3.8)),
                         (lighting.add_tubes, lighting.add_tubes, lighting.add_bare_bulb)),
    'cellar': RoomKind(workplaces.furnish_cellar, 0.08, shells.CELLAR,
                       ((2.4, 6.0), (2.4, 6.0), (1.95, 2.35)),
                       (lighting.add_bare_bulb, lighting.add_bare_bulb, lighting.add_tubes)),
    'open_office': RoomKind(workplaces.furnish_open_office, 0.05, shells.OFFICE,
                            ((5.5, 11.0), (5.5, 13.0), (2.6, 3.4)),
                            (lighting.add_panels, lighting.add_tubes)),
    'classroom': RoomKind(workplaces.furnish_classroom, 0.04, shells.OFFICE,
                          ((5.0, 8.5), (5.5, 9.5), (2.7, 3.6)),
                          (lighting.add_tubes, lighting.add_panels)),
    'canteen': RoomKind(furnish_canteen, 0.03, shells.OFFICE,
                        ((7.0, 15.0), (8.0, 18.0), (2.8, 5.0)),
                        (lighting.add_panels, lighting.add_tubes, lighting.add_pendants)),
    'stairwell': RoomKind(workplaces.furnish_stairwell, 0.03, shells.HOME,
                          ((2.2, 4.0), (4.2, 6.0), (2.4, 3.2)))}


def sample_room(b: SceneBuilder) -> Scene:
    """
    Make a furnished room of a random kind.

    Returns
    -------
    Scene
    """
    shares = {name: kind.share for name, kind in KINDS.items()}
    return make_room_of_kind(b, pick_by_share(b.rng, shares))


def make_room_of_kind(b: SceneBuilder, place: str) -> Scene:
    """
    Make a furnished room of a kind of `KINDS`.

    Returns
    -------
    Scene
    """
    rng, kind = b.rng, KINDS[place]
    width, depth, height = (rng.uniform(*span) for span in kind.size_m)
    room = shells.make_room(b, width, depth, height, windows=int(rng.integers(0, 4)),
                            doors=int(rng.integers(1, 4)), finish=kind.finish)
    usual = pick(rng, kind.lamps) if kind.lamps else None
    sky = lighting.light_room(b, room, usual)
    kind.furnish(b, room)
    rooms.hang_pictures(b, room, int(rng.integers(0, 8 if kind.finish is shells.HOME else 4)))
    if rng.random() < 0.12:
        place_against_wall(b, room, 'mirror', workplaces.mirror_on_wall(b.palette, rng))
    strewing.strew(b, room, rng.beta(0.6, 0.6))
    return b.build(place, sky, [room.view], sky_irradiates=False)
