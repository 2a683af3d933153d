"""The living and dining room of the sample drive, with a fixed layout."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from scenes import clutter, furniture, rooms, seats, skies, storage, walls
from scenes.meshes import box, Mesh
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light, Scene
from scenes.walls import Opening

WIDTH_M, DEPTH_M, HEIGHT_M = 7.6, 4.8, 2.6
PICTURES = ((0, 4.3, 1.55, 1.0, 0.65), (0, 2.2, 1.5, 0.6, 0.8), (0, 3.0, 1.5, 0.5, 0.65),
            (2, 2.2, 1.6, 1.2, 0.7), (2, 3.9, 1.55, 0.5, 0.7), (3, 0.8, 1.6, 0.6, 0.5))


def make_drive_room(seed: int, texture_size: int) -> Scene:
    """
    Make the room: dining table and bookshelf in the west, sofa, television and window in the east.

    Parameters
    ----------
    seed : int
        Seed of the colours, textures and small objects; the layout is fixed.
    texture_size : int
        Side of each texture, px, a power of two.

    Returns
    -------
    Scene
    """
    b = SceneBuilder(np.random.default_rng(seed), texture_size)
    east, west = Opening('window', 0.5, 2.4, 0.8, 2.25), Opening('window', 1.7, 3.4, 0.8, 2.25)
    room = rooms.build_room(b, WIDTH_M, DEPTH_M, HEIGHT_M,
                            [[Opening('door', 5.7, 6.6, 0.0, 2.03)], [east], [], [west]])
    _furnish_dining(b)
    _furnish_lounge(b)
    hang_pictures(b, room, PICTURES)
    sky = skies.make_sky(b.rng, 3.0)
    for wall, window in ((room.walls[1], east), (room.walls[3], west)):
        b.lights.append(walls.window_light(wall, window, np.array([3.6, 4.0, 4.6], np.float32)))
    drop = 0.75
    b.add(furniture.pendant(b.palette, b.rng, drop).moved((1.25, 2.75, HEIGHT_M)))
    b.lights.append(Light('bulb', np.array([1.25, 2.75, HEIGHT_M - drop + 0.02], np.float32),
                          np.array([3.2, 2.6, 1.7], np.float32), radius_m=0.08))
    return b.build('living_room', sky, [room.view], sky_irradiates=False)


def _furnish_dining(b: SceneBuilder) -> None:
    p, rng = b.palette, b.rng
    add_obstacle(b, 'bookshelf', storage.bookshelf(p, rng, 1.7, 2.05), 1.75, DEPTH_M - 0.2, np.pi)
    add_obstacle(b, 'dining_table', furniture.table(p, rng, 1.5, 0.85, 0.74, clutter.KITCHEN, 12),
                 1.25, 2.75, np.pi / 2)
    chair = seats.chair(p, rng)
    for x, y, yaw in ((0.55, 2.4, -1.6), (0.5, 3.1, -1.5), (1.98, 2.35, 1.75), (2.0, 3.1, 1.5),
                      (1.35, 1.72, 0.25)):
        add_obstacle(b, 'chair', chair, x, y, yaw)
    add_obstacle(b, 'plant', furniture.plant(p, rng), 0.4, DEPTH_M - 0.45, 0.0)
    add_obstacle(b, 'cabinet', storage.cabinet(p, rng, 1.2, 0.95, 0.42), 0.25, 0.95, -np.pi / 2)


def _furnish_lounge(b: SceneBuilder) -> None:
    p, rng = b.palette, b.rng
    b.add(box((2.3, 2.2, 0.012), (5.6, 3.35, 0.006), p.get('rug'), fit=True))
    add_obstacle(b, 'sofa', seats.sofa(p, rng, 3), 4.2, 3.58, -np.pi / 2)
    add_obstacle(b, 'coffee_table', furniture.coffee_table(p, rng), 5.6, 3.4, np.pi / 2)
    add_obstacle(b, 'tv_stand', storage.tv_stand(p, rng), WIDTH_M - 0.25, 3.65, np.pi / 2)
    add_obstacle(b, 'armchair', seats.armchair(p, rng), 6.35, 1.65, 0.75)
    add_obstacle(b, 'sideboard', storage.cabinet(p, rng, 1.6, 0.75, 0.42), 4.3, 0.25, 0.0)
    add_obstacle(b, 'floor_lamp', furniture.floor_lamp(p, rng), 4.0, DEPTH_M - 0.25, 0.0)
    add_obstacle(b, 'plant', furniture.plant(p, rng), WIDTH_M - 0.4, 0.4, 0.0)
    add_obstacle(b, 'radiator', furniture.radiator(p, rng), WIDTH_M - 0.08, 1.45, np.pi / 2)
    add_obstacle(b, 'ball', clutter.ball(p, rng), 5.25, 0.75, 0.0)
    add_obstacle(b, 'toy_blocks', clutter.toy_blocks(p, rng), 5.0, 2.05, 0.4)


def hang_pictures(b: SceneBuilder, room: rooms.Room,
                  places: Iterable[tuple[int, float, float, float, float]]) -> None:
    """
    Add pictures to the walls.

    Parameters
    ----------
    b : SceneBuilder
    room : Room
    places : iterable of (wall, along, z, width, height)
        Number of the wall, centre along it and above the floor, and size, m.
    """
    for side, at, z, w, h in places:
        picture = walls.picture_mesh(b.palette, b.rng, w, h)
        b.add(room.walls[side].to_map(picture.moved((at, 0, z))))


def add_obstacle(b: SceneBuilder, name: str, mesh: Mesh, x: float, y: float, yaw: float) -> None:
    """Add an obstacle with the centre of its bounding box at a point of the floor."""
    turned = mesh.moved(yaw=yaw)
    middle = turned.bounds.mean(0)
    b.add(turned.moved((x - middle[0], y - middle[1], 0)), name)
