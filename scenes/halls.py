"""Make corridors and warehouses."""
from __future__ import annotations

import numpy as np

from scenes import clutter, furniture, lighting, rooms, seats, shells, skies, storage, strewing
from scenes.draws import pick
from scenes.meshes import box, boxes, panel
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light, Scene, View
from scenes.warehouse_things import cone, drum, pallet, rack, shelving


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
    strewing.strew(b, room, 0.6 * rng.beta(0.6, 0.9))
    return b.build('corridor', sky, [room.view], sky_irradiates=False)


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
