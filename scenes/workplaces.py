"""Furnish workshops, cellars, offices, classrooms and stairs."""
from __future__ import annotations

import numpy as np

from scenes import clutter, furniture, glass, kitchens_bathrooms, seats, storage
from scenes.bodies import cylinder, rod, rounded_box
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, legs, Mesh, panel
from scenes.rooms import (
    place_against_wall,
    place_new,
    place_on_floor,
    place_random,
    place_random_on_floor,
    place_some,
    Room,
)
from scenes.scene_builder import SceneBuilder
from scenes.warehouse_things import drum, shelving


def workbench(p: Palette, rng: Rng) -> Mesh:
    """Build a workbench with drawers, parts, a vice and a wall of tools above it."""
    w, d, h = rng.uniform(1.4, 2.6), rng.uniform(0.6, 0.75), rng.uniform(0.84, 0.95)
    top, base = p.one_of('wood', 'wood', 'metal'), p.one_of('wood', 'metal', 'plastic')
    parts = [box((w, d, 0.06), (0, 0, h - 0.03), top), legs(w, d, h - 0.06, 0.08, base),
             box((w, d * 0.8, 0.03), (0, 0, 0.18), top)]
    if rng.random() < 0.6:
        parts.append(storage.cabinet(p, rng, 0.5, h - 0.08, d * 0.9).moved((w / 2 - 0.3, 0, 0)))
    items = clutter.scatter(p, rng, clutter.WORKSHOP, w * 0.95, d * 0.9, int(rng.integers(8, 30)))
    parts += [i.moved((0, 0, h)) for i in items]
    below = clutter.scatter(p, rng, (clutter.tote, clutter.case, clutter.tin), w * 0.5, d * 0.7, 4)
    parts += [i.moved((-w * 0.2, 0, 0.195)) for i in below]
    iron = p.one_of('metal', 'plastic')
    x = rng.uniform(-0.4, 0.4) * w
    y, z = d / 2 + 0.06, h + 0.05
    parts += [box((0.12, 0.2, 0.12), (x, d / 2 - 0.08, h + 0.06), iron),
              rod((x - 0.1, y, z), (x + 0.1, y, z), 0.008, iron)]
    if rng.random() < 0.7:
        parts.append(tool_wall(p, rng, w, 0.9).moved((0, -d / 2, h + 0.25)))
    return join(parts)


def tool_wall(p: Palette, rng: Rng, width: float, height: float) -> Mesh:
    """
    Build a board of hanging tools in front of the plane y = 0, from z = 0.

    Returns
    -------
    Mesh
    """
    board = p.one_of('wood', 'plastic', 'metal', 'paint')
    parts = [box((width, 0.02, height), (0, 0.01, height / 2), board)]
    x = -width / 2 + 0.08
    while x < width / 2 - 0.1:
        for z in (height * 0.92, height * 0.45):
            long, kind = rng.uniform(0.12, 0.36), rng.random()
            if kind < 0.2:
                continue
            grip, steel = p.one_of('plastic', 'wood', 'black'), p.get('metal')
            a, split = np.array([x, 0.035, z]), rng.uniform(0.35, 0.6) * long
            parts.append(rod(a, a - [0, 0, split], 0.014, grip if kind < 0.6 else steel, 6))
            parts.append(rod(a - [0, 0, split], a - [0, 0, long], 0.008, steel, 6))
            if kind > 0.45:
                parts.append(box((rng.uniform(0.05, 0.12), 0.02, 0.035), a - [0, 0, long], steel))
        x += rng.uniform(0.06, 0.16)
    return join(parts)


def metal_shelf(p: Palette, rng: Rng) -> Mesh:
    """Build a shelf full of boxes, totes and tins that stands along a wall."""
    low = shelving(p, rng, rng.uniform(0.9, 2.4), rng.uniform(1.5, 2.0)).moved(yaw=np.pi / 2)
    middle = low.bounds.mean(0)
    return low.moved((-middle[0], 0, 0))


def locker(p: Palette, rng: Rng) -> Mesh:
    """Build a row of steel lockers."""
    n, m = int(rng.integers(2, 6)), p.one_of('metal', 'plastic', 'paint')
    x = (np.arange(n) - (n - 1) / 2) * 0.32
    return join([box((n * 0.32, 0.48, 1.85), (0, 0, 0.925), m),
                 boxes((0.3, 0.02, 1.75), [(a, 0.245, 0.95) for a in x], m),
                 boxes([[0.18, 0.024, 0.01]] * (3 * n),
                       [(a, 0.246, z) for a in x for z in (1.5, 1.54, 1.58)], p.get('black')),
                 boxes((0.02, 0.03, 0.08), [(a + 0.11, 0.26, 1.0) for a in x],
                       p.get('black'))])


def machine(p: Palette, rng: Rng) -> Mesh:
    """Build a standing machine: a drill, a saw or a compressor."""
    m, iron = p.one_of('plastic', 'paint', 'metal', 'rust'), p.get('metal')
    if rng.random() < 0.4:
        tank = rod((-0.4, 0, 0.35), (0.4, 0, 0.35), 0.2, m, sides=20)
        return join([tank, rounded_box((0.35, 0.25, 0.3), (0, 0, 0.68), p.get('black'), 0.05),
                     rod((0.15, -0.15, 0.1), (0.15, 0.15, 0.1), 0.1, iron, sides=14),
                     boxes((0.04, 0.3, 0.2), [(s * 0.3, 0, 0.1) for s in (-1, 1)], iron)])
    h = rng.uniform(1.3, 1.8)
    return join([rounded_box((0.5, 0.6, 0.12), (0, 0, 0.06), iron, 0.02),
                 rounded_box((0.32, 0.34, h * 0.5), (0, -0.1, h * 0.3), m, 0.03),
                 cylinder(0.05, h, (0, -0.12, 0), iron),
                 rounded_box((0.3, 0.55, 0.28), (0, 0, h), m, 0.05),
                 cylinder(0.02, 0.3, (0, 0.15, h - 0.4), iron),
                 box((0.4, 0.4, 0.03), (0, 0.12, h * 0.55), iron)])


def boiler(p: Palette, rng: Rng) -> Mesh:
    """Build a boiler or a hot-water tank with its pipes up to the ceiling."""
    shell, pipe = p.one_of('ceramic', 'metal', 'plastic'), p.one_of('metal', 'rust', 'paint')
    top, r = rng.uniform(1.2, 1.7), rng.uniform(0.25, 0.33)
    body = (cylinder(r, top, (0, 0, 0.05), shell, sides=28) if rng.random() < 0.5 else
            rounded_box((2 * r, 0.55, top), (0, 0, top / 2 + 0.03), shell, 0.02))
    parts = [body, box((0.18, 0.02, 0.12), (0, max(r, 0.28), top * 0.75), p.get('black'))]
    for x in (-0.15, 0.0, 0.15):
        reach, out = rng.uniform(0.15, 0.4), rng.uniform(-0.2, 0.1)
        parts += [rod((x, out, top), (x, out, top + reach), 0.016, pipe),
                  rod((x, out, top + reach), (x, -0.28, top + reach), 0.016, pipe)]
    return join(parts)


def desk_block(p: Palette, rng: Rng, seed: int) -> Mesh:
    """
    Build two desks face to face with a screen between them, monitors, and chairs.

    Parameters
    ----------
    p, rng
        Palette and random generator.
    seed : int
        Of what all the desks of a room have in common.

    Returns
    -------
    Mesh
    """
    common = np.random.default_rng(seed)
    w, d, h = common.uniform(1.2, 1.6), common.uniform(0.65, 0.8), 0.73
    screen_m, style = common.uniform(0.25, 0.6), common.random()
    parts = []
    for yaw in (0.0, np.pi):
        place = [box((w, d, 0.03), (0, d / 2 + 0.02, h), p.one_of('wood', 'paint')),
                 boxes((0.04, d * 0.9, h),
                       [(s * (w / 2 - 0.06), d / 2 + 0.02, h / 2) for s in (-1, 1)],
                       p.one_of('metal', 'paint'))]
        for x in rng.permutation([-0.3, 0.3])[:int(rng.integers(1, 3))]:
            place.append(clutter.monitor(p, rng).moved((x, 0.2, h + 0.015), rng.normal(0, 0.15)))
        place.append(clutter.keyboard(p, rng).moved((0, d - 0.15, h + 0.015)))
        items = clutter.scatter(p, rng, clutter.DESK, w * 0.9, d * 0.5, int(rng.integers(0, 6)))
        place += [i.moved((0, d * 0.65, h + 0.015)) for i in items]
        chair = seats.office_chair(p, rng).moved(
            (rng.normal(0, 0.1), d + rng.uniform(0.2, 0.5), 0), np.pi + rng.normal(0, 0.5))
        parts += [m.moved(yaw=yaw) for m in (*place, chair)]
    if style < 0.6:
        parts.append(box((w, 0.03, screen_m), (0, 0, h + screen_m / 2), p.get('fabric')))
    elif style < 0.8:
        parts.append(panel((w / 2, 0, h), (-w, 0, 0), (0, 0, screen_m), glass.clear(p, rng)))
    return join(parts)


def place_rows(b: SceneBuilder, room: Room, name: str, meshes: list[Mesh], gap: float) -> None:
    """Place meshes of about one size in rows over the floor, the longer way of the room."""
    size = np.ptp(np.stack([m.bounds[:, :2] for m in meshes]), axis=(0, 1)) + [gap * 0.3, gap]
    n = np.maximum(((np.array([room.width, room.depth]) - 1.0) / size).astype(int), 1)
    k = 0
    for j in range(n[1]):
        for i in range(n[0]):
            at = (np.array([i, j]) - (n - 1) / 2) * size + [room.width / 2, room.depth / 2]
            if b.rng.random() < 0.9:
                b.add_if_free(name, meshes[k % len(meshes)].moved((*at, 0)), margin=0.0)
                k += 1


def glass_partition(b: SceneBuilder, room: Room) -> None:
    """Part a room by a glazed wall across it, with a gap to walk through."""
    p, rng = b.palette, b.rng
    pane = glass.clear(p, rng) if rng.random() < 0.7 else glass.frosted(p, rng)
    frame, x = p.one_of('metal', 'black', 'wood'), rng.uniform(0.6, 0.8) * room.width
    gap = rng.uniform(0.9, 1.4)
    start = rng.uniform(0.3, room.depth - gap - 0.3)
    for low, high in ((0.0, start), (start + gap, room.depth)):
        n = max(2, int((high - low) / 1.1) + 1)
        ys = np.linspace(low, high, n)
        mesh = join([boxes([[0.05, 0.05, room.height]] * n + [[0.05, high - low, 0.08]] * 2,
                           [(x, y, room.height / 2) for y in ys]
                           + [(x, (low + high) / 2, z) for z in (0.04, 2.1)], frame),
                     panel((x, low, 0), (0, high - low, 0), (0, 0, room.height), pane)])
        b.add_if_free('partition', mesh, margin=0.0)


def furnish_open_office(b: SceneBuilder, room: Room) -> None:
    """Add rows of desks with screens between them, shelves, a glazed partition, plants."""
    p, rng = b.palette, b.rng
    if rng.random() < 0.5:
        glass_partition(b, room)
    seed = int(rng.integers(1 << 31))
    blocks = [desk_block(p, rng, seed) for _ in range(3)]
    place_rows(b, room, 'desk', blocks, rng.uniform(0.4, 1.0))
    place_some(b, room, [(maker, 0.6) for maker in (
        storage.bookshelf, storage.cabinet, furniture.plant, furniture.boxes_pile, locker,
        furniture.bin_basket)])


def _school_desk(p: Palette, rng: Rng, lab: bool) -> Mesh:
    """Build a desk with a chair on its side at -y, or a high bench with stools."""
    w, d, h = (1.8, 0.75, 0.9) if lab else (1.25, 0.55, 0.72)
    top = p.one_of('wood', 'paint') if not lab else p.one_of('black', 'ceramic', 'granite')
    parts = [box((w, d, 0.03), (0, 0, h), top)]
    parts.append(box((w * 0.96, d * 0.8, h - 0.05), (0, 0, h / 2), p.get('paint')) if lab else
                 legs(w, d, h - 0.015, 0.035, p.one_of('metal', 'black')))
    makers = (clutter.bottle, clutter.bottle, clutter.tin, clutter.cup, clutter.papers,
              clutter.monitor) if lab else clutter.DESK
    count = int(rng.integers(0, 9 if lab else 4))
    items = clutter.scatter(p, rng, makers, w * 0.9, d * 0.9, count)
    parts += [i.moved((0, 0, h + 0.015)) for i in items]
    for x in (-w / 4, w / 4):
        if lab:
            parts += [cylinder(0.17, 0.04, (x, -0.6, 0.6), p.one_of('wood', 'black')),
                      cylinder(0.025, 0.6, (x, -0.6, 0), p.get('metal'))]
        else:
            parts.append(seats.chair(p, rng).moved((x, -0.45 - rng.uniform(0, 0.2), 0),
                                                   rng.normal(0, 0.15)))
    return join(parts)


def furnish_classroom(b: SceneBuilder, room: Room) -> None:
    """Add rows of school desks or laboratory benches, a board, cabinets with glass doors."""
    p, rng = b.palette, b.rng
    lab = rng.random() < 0.45
    wall = room.walls[2]
    board = rng.uniform(1.6, max(1.7, wall.length * 0.6))
    if wall.is_clear(wall.length / 2 - board / 2, wall.length / 2 + board / 2, 0.9, 2.0):
        m = p.one_of('paper', 'ceramic') if rng.random() < 0.5 else p.solid((0.02, 0.06, 0.04))
        b.add(wall.to_map(join([
            box((board, 0.03, 1.1), (wall.length / 2, 0.02, 1.5), m),
            box((board, 0.09, 0.02), (wall.length / 2, 0.06, 0.94), p.get('metal'))])))
    place_rows(b, room, 'bench' if lab else 'desk',
               [_school_desk(p, rng, lab) for _ in range(4)], rng.uniform(0.35, 0.7))
    for maker in (glass_cabinet, storage.bookshelf, storage.cabinet, furniture.desk):
        place_new(b, room, maker)


def glass_cabinet(p: Palette, rng: Rng) -> Mesh:
    """Build a cabinet of shelves behind clear glass."""
    w, h, d = rng.uniform(0.7, 1.5), rng.uniform(1.6, 2.1), 0.38
    m = p.one_of('wood', 'black', 'metal', 'paint')
    levels = np.linspace(0.06, h, int(rng.integers(4, 7)))
    parts = [boxes([[0.025, d, h]] * 2 + [[w, 0.01, h]] + [[w, d - 0.03, 0.02]] * len(levels)
                   + [[0.04, 0.02, h]],
                   [(s * w / 2, 0, h / 2) for s in (-1, 1)] + [(0, -d / 2, h / 2)]
                   + [(0, -0.01, z) for z in levels] + [(0, d / 2, h / 2)], m),
             panel((w / 2, d / 2, 0.06), (-w, 0, 0), (0, 0, h - 0.06), glass.clear(p, rng))]
    for z in levels[:-1]:
        room = levels[1] - levels[0] - 0.05
        items = clutter.scatter(p, rng, clutter.LIVING + clutter.KITCHEN, w * 0.9, d * 0.7,
                                int(rng.integers(2, 8)))
        parts += [i.moved((0, 0, z + 0.01)) for i in items if i.bounds[1, 2] < room]
    return join(parts)


def staircase(p: Palette, rng: Rng, height: float) -> Mesh:
    """
    Build a straight flight of stairs along a wall up to a height, with a rail; back at -y.

    Returns
    -------
    Mesh
    """
    w, rise, run = rng.uniform(0.8, 1.0), rng.uniform(0.17, 0.2), rng.uniform(0.22, 0.28)
    n = int(height / rise)
    tread = p.one_of('wood', 'concrete', 'marble', 'metal')
    rail = p.one_of('metal', 'wood', 'black')
    x = (np.arange(n) - (n - 1) / 2) * run
    tops = (np.arange(n) + 1) * rise
    solid = rng.random() < 0.6
    parts = [boxes((run + 0.03, w, 0.04), [(a, 0, z - 0.02) for a, z in zip(x, tops)],
                   tread)]
    if solid:
        under = p.one_of('plaster', 'concrete', 'wood', 'paint')
        parts.append(boxes([[run, w - 0.02, min(z - 0.03, 0.5)] for z in tops],
                           [(a, 0, z - 0.03 - min(z - 0.03, 0.5) / 2)
                            for a, z in zip(x, tops)], under))
    low, high = np.array([x[0], w / 2 - 0.03, tops[0]]), np.array([x[-1], w / 2 - 0.03, tops[-1]])
    up = np.array([0, 0, 0.9])
    parts.append(rod(low + up, high + up, 0.025, rail))
    parts += [rod(low + (high - low) * i / (n - 1), low + (high - low) * i / (n - 1) + up, 0.01,
                  rail, sides=6) for i in range(0, n, int(rng.integers(1, 4)))]
    return join(parts)


def furnish_workshop(b: SceneBuilder, room: Room) -> None:
    """Add workbenches below tools, shelves, machines, lockers; sometimes a table in the middle."""
    p, rng = b.palette, b.rng
    for _ in range(int(rng.integers(1, 4))):
        place_against_wall(b, room, 'workbench', workbench(p, rng), tries=25)
    for _ in range(int(rng.integers(1, 4))):
        place_against_wall(b, room, 'shelf', metal_shelf(p, rng), tries=20)
    if rng.random() < 0.6:
        place_on_floor(b, room, 'bench', furniture.table_with_tools(p, rng))
    place_random(b, room, (machine, locker, storage.cabinet, drum, furniture.boxes_pile,
                           machine), int(rng.integers(2, 7)))
    place_random_on_floor(b, room, (drum, seats.chair, machine, furniture.boxes_pile),
                          int(rng.integers(0, 4)))


def furnish_cellar(b: SceneBuilder, room: Room) -> None:
    """Add a boiler, a washing machine, shelves, stored furniture and boxes."""
    p, rng = b.palette, b.rng
    if rng.random() < 0.3:
        place_against_wall(b, room, 'stairs', staircase(p, rng, room.height), tries=30)
    washer = kitchens_bathrooms.washing_machine
    place_some(b, room, ((boiler, 0.8), (washer, 0.75), (washer, 0.3), (metal_shelf, 0.9),
                         (metal_shelf, 0.6), (workbench, 0.3)), tries=20)
    place_random(b, room, (furniture.boxes_pile, storage.bookshelf, storage.cabinet, drum,
                           seats.armchair, furniture.boxes_pile, seats.chair, furniture.bed,
                           storage.refrigerator), int(rng.integers(2, 9)))
    place_random_on_floor(b, room, (furniture.boxes_pile, furniture.floor_clutter, seats.chair),
                          int(rng.integers(0, 6)))


def furnish_stairwell(b: SceneBuilder, room: Room) -> None:
    """Add a flight of stairs, a wardrobe, a bench and a mirror: the hall of a house."""
    p, rng = b.palette, b.rng
    place_against_wall(b, room, 'stairs', staircase(p, rng, room.height), tries=60)
    place_some(b, room, [(maker, 0.7) for maker in (
        storage.cabinet, furniture.radiator, seats.chair, furniture.plant, mirror_on_wall,
        storage.bookshelf)])


def mirror_on_wall(p: Palette, rng: Rng) -> Mesh:
    """Build a tall mirror that leans or hangs at a wall, as on wardrobes."""
    w, h = rng.uniform(0.4, 1.2), rng.uniform(1.0, 1.9)
    low = rng.uniform(0.05, 0.4)
    return glass.mirror(p, rng, w, h).moved((0, 0, low + h / 2))
