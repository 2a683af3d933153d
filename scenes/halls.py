"""Make corridors and warehouses."""
from __future__ import annotations

import numpy as np

from scenes import clutter, furniture, lighting, piles, rooms, seats, shells, skies, storage
from scenes.bodies import lathe, rod
from scenes.draws import pick, Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, Mesh, panel
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light, Scene, View


def add_tube_lights(b: SceneBuilder, x: float, ys: np.ndarray, z: float, length: float,
                    brightness: float) -> None:
    """Add tube lights at `ys` along y; at most four of them illuminate the scene, for speed."""
    colour = np.array([1.0, b.rng.uniform(0.85, 1), b.rng.uniform(0.7, 1.05)], np.float32)
    glow = b.palette.emissive(colour * np.float32(brightness))
    u, v = np.array([0, length, 0], np.float32), np.array([0.18, 0, 0], np.float32)
    for y in ys:
        corner = np.array([x, y, z], np.float32) - u / 2 - v / 2
        b.add(panel(corner, u, v, glow))
    chosen = ys[np.linspace(0, len(ys) - 1, min(4, len(ys))).astype(int)]
    gain = len(ys) / len(chosen)
    for y in chosen:
        b.lights.append(Light('rect', np.array([x, y, z - 0.02], np.float32),
                              colour * np.float32(brightness * gain), u, v))


def sample_corridor(b: SceneBuilder) -> Scene:
    """
    Make a corridor with doors and with furniture along its walls.

    Returns
    -------
    Scene
    """
    rng = b.rng
    finish = pick(rng, (shells.OFFICE, shells.OFFICE, shells.HOME, shells.CELLAR))
    room = shells.make_room(b, rng.uniform(1.4, 2.8), rng.uniform(7, 22), rng.uniform(2.3, 3.2),
                            windows=int(rng.integers(0, 4)), doors=int(rng.integers(3, 12)),
                            finish=finish)
    lamps = (lighting.add_tubes, lighting.add_panels, lighting.add_domes, lighting.add_spots)
    sky = lighting.light_room(b, room, pick(rng, lamps))
    makers = (furniture.radiator, furniture.plant, storage.cabinet, seats.chair,
              furniture.boxes_pile, furniture.bin_basket, storage.bookshelf,
              furniture.floor_clutter)
    for _ in range(int(rng.integers(0, 9))):
        maker = pick(rng, makers)
        mesh = maker(b.palette, rng)
        if np.ptp(mesh.bounds[:, 1]) < room.width - 0.9:
            rooms.place_against_wall(b, room, maker.__name__, mesh)
    rooms.hang_pictures(b, room, int(rng.integers(0, 8)))
    if rng.random() < 0.3:
        rooms.lay_rug(b, room, room.width / 2, room.depth * rng.random())
    piles.strew(b, room, 0.6 * rng.beta(0.6, 0.9))
    return b.build('corridor', sky, [room.view], sky_irradiates=False)


def pallet(p: Palette, rng: Rng) -> Mesh:
    """Build a pallet that carries cartons, drums or nothing."""
    m = p.get('wood')
    parts = [boxes((1.2, 0.1, 0.022), [(0, (i - 3) * 0.115, 0.13) for i in range(7)], m),
             boxes((0.1, 0.8, 0.1), [(x, 0, 0.06) for x in (-.55, 0, .55)], m)]
    load = rng.random()
    if load < 0.6:
        nx, ny, nz = (int(n) for n in rng.integers([2, 2, 1], [5, 4, 5]))
        size = np.array([1.16 / nx, 0.78 / ny, rng.uniform(0.2, 0.4)])
        cells = np.array([(i, j, k) for k in range(nz) for i in range(nx) for j in range(ny)
                          if k < nz - 1 or rng.random() < 0.8])
        if len(cells):  # a single layer may lose all its cartons
            centers = (cells - [(nx - 1) / 2, (ny - 1) / 2, -0.5]) * size + [0, 0, 0.142]
            centers[:, :2] += rng.normal(0, 0.006, (len(cells), 2))
            parts.append(boxes(np.tile(size * 0.985, (len(cells), 1)), centers,
                               p.get('cardboard'), yaws=rng.normal(0, 0.015, len(cells)),
                               fit=True))
    elif load < 0.8:
        for x in (-0.29, 0.29):
            parts.append(drum(p, rng).moved((x, rng.uniform(-0.08, 0.08), 0.142)))
    return join(parts)


def drum(p: Palette, rng: Rng) -> Mesh:
    """Build a steel drum with its hoops."""
    r, h = 0.285, 0.86
    return lathe([[0, 0], [r, 0], [r, h / 3 - .02], [r + .015, h / 3], [r, h / 3 + .02],
                  [r, 2 * h / 3 - .02], [r + .015, 2 * h / 3], [r, 2 * h / 3 + .02], [r, h],
                  [r - .02, h], [r - .02, h - .02], [0, h - .02]], (0, 0, 0),
                 p.one_of('rust', 'plastic'), sides=24)


def rack(p: Palette, rng: Rng, bays: int, height: float) -> Mesh:
    """
    Build loaded pallet racking along y, centred at x = 0.

    Returns
    -------
    Mesh
    """
    bay, depth = 2.7, 1.0
    post, beam = p.get('metal'), p.get('plastic')
    levels = np.arange(0, height - 1.0, rng.uniform(1.3, 1.9))
    ys = np.arange(bays + 1) * bay
    parts = [boxes((0.09, 0.09, height),
                   [(s * depth / 2, y, height / 2) for y in ys for s in (-1, 1)], post)]
    for y in ys:
        for z in np.arange(0.4, height - 0.5, 1.2):
            parts.append(rod((-depth / 2, y, z), (depth / 2, y, z + 0.6), 0.02, post, sides=5))
    shelf = p.one_of('wood', 'metal')
    for z in levels:
        if z > 0:
            parts.append(boxes((0.05, bays * bay, 0.12),
                               [(s * depth / 2, bays * bay / 2, z - 0.06) for s in (-1, 1)], beam))
            parts.append(box((depth, bays * bay, 0.02), (0, bays * bay / 2, z - 0.01), shelf))
        for k in range(2 * bays):
            if rng.random() < 0.8:
                parts.append(pallet(p, rng).moved((rng.normal(0, 0.03), (k + 0.5) * bay / 2, z),
                                                  np.pi / 2))
    return join(parts)


def shelving(p: Palette, rng: Rng, length: float, height: float) -> Mesh:
    """
    Build metal shelving along y with boxes, totes and tins.

    Returns
    -------
    Mesh
    """
    depth, m = 0.45, p.one_of('metal', 'rust', 'black')
    levels = np.arange(0.1, height - 0.2, rng.uniform(0.35, 0.55))
    ys = np.linspace(0, length, max(2, int(length / 1.0) + 1))
    parts = [boxes((0.04, 0.04, height),
                   [(s * depth / 2, y, height / 2) for y in ys for s in (-1, 1)], m),
             boxes((depth, length, 0.025), [(0, length / 2, z) for z in levels], m)]
    makers = (clutter.case, clutter.tote, clutter.carton, clutter.tin, clutter.case)
    for z in levels:
        items = clutter.scatter(p, rng, makers, depth * 1.1, length, int(length * 2.5))
        parts += [i.moved((0, length / 2, z + 0.0125)) for i in items]
    return join(parts)


def cone(p: Palette, rng: Rng) -> Mesh:
    """Build a traffic cone."""
    m, white = p.solid((0.9, 0.15, 0.02)), p.get('paper')
    return join([box((0.36, 0.36, 0.03), (0, 0, 0.015), m),
                 lathe([[0.14, 0.03], [0.09, 0.3]], (0, 0, 0), m),
                 lathe([[0.09, 0.3], [0.06, 0.45]], (0, 0, 0), white),
                 lathe([[0.06, 0.45], [0.025, 0.65], [0, 0.65]], (0, 0, 0), m)])


def sample_warehouse(b: SceneBuilder) -> Scene:
    """
    Make a warehouse with aisles between racking or shelving.

    Returns
    -------
    Scene
    """
    p, rng = b.palette, b.rng
    tall = rng.random() < 0.6
    height = rng.uniform(5, 9) if tall else rng.uniform(2.6, 4)
    aisle = rng.uniform(2.4, 3.6) if tall else rng.uniform(1.1, 2.2)
    bays = int(rng.integers(4, 9))
    length = 2.7 * bays if tall else rng.uniform(6, 14)
    rows, pitch = int(rng.integers(2, 4)), aisle + (1.0 if tall else 0.5)
    for i in range(rows):
        mesh = (rack(p, rng, bays, height * rng.uniform(0.6, 0.85)) if tall else
                shelving(p, rng, length, rng.uniform(1.6, 2.2)))
        b.add_if_free('rack', mesh.moved((i * pitch, 2.0, 0)))
    width, depth = (rows - 1) * pitch + 2 * aisle, length + 5
    left = -aisle
    floor = p.one_of('concrete', 'concrete', 'asphalt')
    b.add(box((width + 2, depth + 2, 0.1), (left + width / 2, depth / 2, -0.05), floor))
    wall, roof = p.one_of('metal', 'concrete', 'brick', 'plaster'), p.one_of('metal', 'paint')
    b.add(boxes([[width, 0.2, height], [width, 0.2, height], [0.2, depth, height],
                 [0.2, depth, height], [width, depth, 0.1]],
                [[left + width / 2, -0.1, height / 2], [left + width / 2, depth + 0.1, height / 2],
                 [left - 0.1, depth / 2, height / 2], [left + width + 0.1, depth / 2, height / 2],
                 [left + width / 2, depth / 2, height + 0.05]], [wall] * 4 + [roof]))
    for i in range(rows - 1):
        add_tube_lights(b, (i + 0.5) * pitch, np.arange(1.5, depth, 3.2), height - 0.3, 1.4,
                        rng.uniform(15, 40) * height / 5)
    for y in np.arange(0.5, depth, 4.0):
        b.add(box((width, 0.15, 0.3), (left + width / 2, y, height - 0.15), p.get('metal')))
    for i in range(rows - 1):
        for x in (i * pitch + 0.65, (i + 1) * pitch - 0.65):
            b.add(box((0.08, length, 0.002), (x, 2 + length / 2, 0.001), p.solid((.7, .5, .02))))
    makers = (pallet, drum, cone, furniture.boxes_pile, clutter.tote, clutter.case)
    for _ in range(int(rng.integers(0, 10))):
        mesh = pick(rng, makers)(p, rng).moved(yaw=rng.uniform(0, 6.3))
        at = (rng.uniform(left + 1, left + width - 1), rng.uniform(0.7, depth - 0.7), 0)
        b.add_if_free('load', mesh.moved(at))
    far = pitch * (rows - 1)
    view = View(np.array([[0.6, 0.6, 0.15], [far - 0.6, depth - 1, 1.8]], np.float32),
                np.array([[-0.5, 0, 0.0], [far + 0.5, depth, 3]], np.float32), floor_m=0.0)
    return b.build('warehouse', skies.make_sky(rng, 2.0), [view], sky_irradiates=False)
