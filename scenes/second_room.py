"""The parlour of the second drive: a fixed layout, in which things move and a lamp goes on."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scenes import bodies, clutter, furniture, rooms, seats, skies, storage, street_things, walls
from scenes.drive_room import add_obstacle, hang_pictures
from scenes.meshes import box, boxes, Floats, panel, rotation_z
from scenes.moving import MovingScene, MovingThing, Placement
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light, Scene
from scenes.walls import Opening, Wall

WIDTH_M, DEPTH_M, HEIGHT_M = 7.4, 5.0, 2.6

# When things move, s.  The ball comes after a frame: where it is there, it changes the light.
BALL_S, PERSON_S, DOOR_S, LAMP_S = (8.65, 10.6), (13.0, 16.0), (22.5, 25.0), 27.0

BALL_RADIUS_M = 0.11
BALL_FROM, BALL_TO = (3.93, 0.72), (3.93, 3.28)
STEP_M = 0.56
DOOR_SWING = np.radians(85.0)
DOOR = Opening('passage', 3.0, 3.9, 0.0, 2.03)
LAMP_SIDE_M = 0.6


@dataclass(frozen=True)
class Walk:
    """The way of a person: from where to where on the floor, m, and when, s."""

    start: tuple[float, float]
    end: tuple[float, float]
    start_s: float
    end_s: float


PERSON_WALK = Walk((5.65, 4.2), (5.65, 0.6), *PERSON_S)


def make_second_room(seed: int, texture_size: int, crowd: Sequence[Walk] = ()) -> MovingScene:
    """
    Make the room: sofa in the south, television in the east, door in the north, table in the west.

    Parameters
    ----------
    seed : int
        Seed of the colours, textures and small objects; the layout is fixed.
    texture_size : int
        Side of each texture, px, a power of two.
    crowd : sequence of Walk
        Further people, who walk through the furniture if their ways lead there.

    Returns
    -------
    MovingScene
    """
    b = SceneBuilder(np.random.default_rng(seed), texture_size)
    east, west = Opening('window', 0.5, 1.6, 0.8, 2.2), Opening('window', 2.9, 4.4, 0.8, 2.2)
    room = rooms.build_room(b, WIDTH_M, DEPTH_M, HEIGHT_M, [[], [east], [DOOR], [west]])
    _furnish(b)
    hang_pictures(b, room, ((0, 4.5, 1.5, 0.8, 0.6), (0, 6.0, 1.55, 0.5, 0.7),
                            (2, 0.6, 1.6, 0.5, 0.6), (2, 5.0, 1.5, 1.0, 0.7),
                            (3, 1.6, 1.55, 0.6, 0.8)))
    things = (_make_ball(b), _make_person(b, 'person', PERSON_WALK),
              _make_door(b, room.walls[2]),
              *(_make_person(b, f'person_{i}', walk) for i, walk in enumerate(crowd, 2)))
    sky = skies.make_sky(b.rng, 2.8)
    for wall, window in ((room.walls[1], east), (room.walls[3], west)):
        b.lights.append(walls.window_light(wall, window, np.array([3.9, 4.1, 4.5], np.float32)))
    lamp, shade = _add_lamp(b)
    dark = b.build('parlour', sky, [room.view], sky_irradiates=False)
    b.lights.append(lamp)
    lit = b.build('parlour', sky, [room.view], sky_irradiates=False)
    return MovingScene(_switch_off(dark, lit, shade), lit, LAMP_S, things)


def _furnish(b: SceneBuilder) -> None:
    p, rng = b.palette, b.rng
    b.add(box((2.0, 1.5, 0.012), (3.2, 2.2, 0.006), p.get('rug'), fit=True))
    add_obstacle(b, 'sofa', seats.sofa(p, rng, 2), 1.7, 0.55, 0.0)
    add_obstacle(b, 'floor_lamp', furniture.floor_lamp(p, rng), 2.95, 0.3, 0.0)
    add_obstacle(b, 'sideboard', storage.cabinet(p, rng, 1.2, 0.75, 0.42), 4.65, 0.25, 0.0)
    add_obstacle(b, 'armchair', seats.armchair(p, rng), 6.75, 0.8, 0.6)
    add_obstacle(b, 'tv_stand', storage.tv_stand(p, rng), WIDTH_M - 0.25, 2.65, np.pi / 2)
    add_obstacle(b, 'plant', furniture.plant(p, rng), WIDTH_M - 0.5, 4.2, 0.0)
    add_obstacle(b, 'bookshelf', storage.bookshelf(p, rng, 1.2, 2.05), 5.85, DEPTH_M - 0.2, np.pi)
    add_obstacle(b, 'boxes', furniture.boxes_pile(p, rng), 3.15, DEPTH_M - 0.35, 0.2)
    add_obstacle(b, 'table', furniture.table(p, rng, 1.3, 0.8, 0.74, clutter.KITCHEN, 10),
                 1.15, 4.0, 0.0)
    chair = seats.chair(p, rng)
    for x, y, yaw in ((0.8, 3.45, 0.1), (1.5, 3.4, -0.2), (2.1, 4.05, 1.6)):
        add_obstacle(b, 'chair', chair, x, y, yaw)
    add_obstacle(b, 'cabinet', storage.cabinet(p, rng, 1.0, 0.95, 0.42), 0.25, 2.3, -np.pi / 2)
    add_obstacle(b, 'toy_blocks', clutter.toy_blocks(p, rng), 4.75, 1.2, 0.4)
    add_obstacle(b, 'pouf', seats.pouf(p, rng), 6.55, 1.85, 0.0)


def _make_ball(b: SceneBuilder) -> MovingThing:
    """Make a ball that rolls across the room to the robot's left."""
    mesh = bodies.ellipsoid((2 * BALL_RADIUS_M,) * 3, (0, 0, 0), b.palette.get('packaging'), 3)
    # It rolls along +y, and turns by its way over its radius about -x.
    turned = (BALL_TO[1] - BALL_FROM[1]) / BALL_RADIUS_M
    return MovingThing('ball', mesh, *BALL_S, Placement((*BALL_FROM, BALL_RADIUS_M)),
                       Placement((*BALL_TO, BALL_RADIUS_M), tilt=-turned))


def _make_person(b: SceneBuilder, name: str, walk: Walk) -> MovingThing:
    """Make a person who walks across the room."""
    draw = int(b.rng.integers(1 << 31))
    poses = [street_things.pedestrian(b.palette, np.random.default_rng(draw), stride)
             for stride in (0.28, -0.28)]
    x, y = np.subtract(walk.start, walk.end)
    yaw = float(np.arctan2(x, -y))  # a pedestrian faces +y
    start, end = (Placement((*xy, 0.0), yaw) for xy in (walk.start, walk.end))
    return MovingThing(name, poses[0], walk.start_s, walk.end_s, start, end, stride=poses[1],
                       steps=float(np.hypot(x, y)) / STEP_M)


def _make_door(b: SceneBuilder, wall: Wall) -> MovingThing:
    """Make a door that opens into the room; add its frame, and a hall behind it."""
    frame, leaf = walls.door_parts(b.palette, b.rng, DOOR)
    b.add(wall.to_map(frame))
    middle, back, top = (DOOR.left + DOOR.right) / 2, -1.9, 2.3
    deep = -walls.THICKNESS_M - back
    y = (back - walls.THICKNESS_M) / 2
    plaster = b.palette.get('plaster')
    b.add(wall.to_map(boxes(
        [(2.2, 0.1, top), (0.1, deep, top), (0.1, deep, top), (2.2, deep, 0.1), (2.2, deep, 0.1)],
        [(middle, back, top / 2), (middle - 1.1, y, top / 2), (middle + 1.1, y, top / 2),
         (middle, y, -0.05), (middle, y, top + 0.05)],
        [plaster, plaster, plaster, b.palette.get('planks'), plaster])))
    x, y, z = (float(v) for v in rotation_z(wall.yaw) @ np.array(walls.hinge(DOOR)) + wall.origin)
    closed = Placement((x, y, z), wall.yaw)
    return MovingThing('door', leaf, *DOOR_S, closed,
                       replace(closed, yaw=wall.yaw + float(DOOR_SWING)), stays=True)


def _add_lamp(b: SceneBuilder) -> tuple[Light, int]:
    """Add a panel under the ceiling; return its light and its material."""
    radiance, centre = np.array([17.0, 14.5, 11.0], np.float32), (3.9, 2.5, HEIGHT_M - 0.02)
    shade = b.palette.emissive(radiance)
    b.add(box((LAMP_SIDE_M + 0.04, LAMP_SIDE_M + 0.04, 0.04), centre, b.palette.get('metal')))
    u, v = np.eye(3, dtype=np.float32)[[1, 0]] * np.float32(LAMP_SIDE_M)
    down: Floats = np.asarray(centre, np.float32) - np.array([0, 0, 0.03], np.float32)
    b.add(panel(down - u / 2 - v / 2 + [0, 0, 0.005], u, v, shade))
    return Light('rect', down, radiance, u, v), shade


def _switch_off(dark: Scene, lit: Scene, shade: int) -> Scene:
    """Return the dark scene with the textures of the lit one, and a shade that emits nothing."""
    emission = lit.materials.emission.copy()
    emission[shade] = 0
    return replace(dark, materials=replace(lit.materials, emission=emission))
