"""Light rooms: daylight, low sun, evening, and lamps from rows of tubes to a single bulb."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scenes import furniture, noise, openings, skies, walls
from scenes.bodies import cylinder, ellipsoid, lathe, rod
from scenes.draws import pick, pick_by_share
from scenes.meshes import box, boxes, Floats, join, panel
from scenes.rooms import place_against_wall, Room
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light

# Adds lamps of a strength to a room.
Lamps = Callable[[SceneBuilder, Room, float], None]

# Share of each mood by day, and by night or without windows.
_DAY = {'day': 0.5, 'low_sun': 0.22, 'mixed': 0.28}
_NIGHT = {'lamps': 0.62, 'one_lamp': 0.2, 'glow': 0.18}


def light_room(b: SceneBuilder, room: Room, lamps: Lamps | None = None) -> Floats:
    """
    Choose a mood at random; add window lights, sun and lamps.

    Parameters
    ----------
    b : SceneBuilder
    room : Room
    lamps : callable or None
        Adds the lamps of this kind of room at a given strength; of any kind if None.

    Returns
    -------
    [h,w,3] float32
        The sky outside.
    """
    rng = b.rng
    windows = [(w, o) for w in room.walls for o in w.openings if o.kind == 'window']
    day = bool(windows) and rng.random() < 0.7
    shares = _DAY if day else _NIGHT
    mood = pick_by_share(rng, shares)
    if mood == 'glow' and lamps is not None:
        mood = 'one_lamp'  # bathrooms and workshops have no television
    if not day and room.width * room.depth > 30:
        mood = 'lamps'  # a single lamp leaves a hall black
    add_lamps = lamps or add_any_lamps
    if not day:
        # What is left of the day, or the light of a street.
        blue = np.array([0.7, 0.85, 1.25], np.float32)
        sky = skies.make_sky(rng, rng.choice([0.002, 0.02, 0.15])) * blue
        if mood == 'lamps':
            add_lamps(b, room, rng.uniform(0.5, 1.5))
        elif mood == 'one_lamp':
            add_floor_lamp(b, room, rng.uniform(0.5, 2.0))
        else:
            add_screen(b, room)
            if rng.random() < 0.6 and b.lights_left > 0:
                add_neon(b, room)
        return sky
    sky = skies.make_sky(rng, rng.uniform(1.5, 5))
    _add_daylight(b, windows, sky)
    if mood == 'low_sun' and b.lights_left > 0:
        _add_low_sun(b, windows)
    else:
        wall, o = pick(rng, windows)
        if rng.random() < 0.5:
            openings.add_outlook(b, wall, o, float(sky[:100].mean()))
        if mood == 'mixed' and b.lights_left > 0:
            add_lamps(b, room, rng.uniform(0.3, 1.5))
    # Below the horizon are streets and gardens, less colourful than a plain in a painting.
    ground = sky[len(sky) // 2:]
    ground += 0.75 * (ground.mean(-1, keepdims=True) - ground)
    # The sky itself is brighter than its light that reaches the room through panes and blinds.
    return np.asarray(sky * np.float32(rng.choice([1.0, 2.0, 5.0])), np.float32)


def _add_daylight(b: SceneBuilder, windows: list[tuple[walls.Wall, walls.Opening]],
                  sky: Floats) -> None:
    """Make the largest windows shine; what they emit stands for all of them."""
    rng = b.rng
    windows = sorted(windows, key=lambda each: -(each[1].right - each[1].left))
    for wall, o in windows[:max(1, min(2, b.lights_left - 1))]:
        colour = sky[60:128].mean((0, 1)) * rng.uniform(0.4, 1.2)
        b.lights.append(walls.window_light(wall, o, np.asarray(colour, np.float32)))


def _add_low_sun(b: SceneBuilder, windows: list[tuple[walls.Wall, walls.Opening]]) -> None:
    """Add a sun that shines through a window far into the room, warm where it is low."""
    rng = b.rng
    wall, _ = pick(rng, windows)
    height = rng.uniform(0.12, 0.75)
    around = wall.yaw - np.pi / 2 + rng.uniform(-0.9, 0.9)
    towards = np.array([np.cos(height) * np.cos(around), np.cos(height) * np.sin(around),
                        np.sin(height)], np.float32)
    warm = np.clip(height / 0.75, 0, 1)
    colour = np.array([1.0, 0.6 + 0.35 * warm, 0.3 + 0.6 * warm], np.float32)
    b.lights.append(Light('sun', towards, colour * np.float32(rng.uniform(8, 40)),
                          radius_m=0.006))


def warm_colour(b: SceneBuilder) -> Floats:
    """
    Draw the colour of a lamp, from a candle's to a cold tube's.

    Returns
    -------
    [3] float32
        Its largest channel is 1.
    """
    warmth = b.rng.random() ** 1.5
    return np.array([1.0, 0.97 - 0.28 * warmth, 1.0 - 0.6 * warmth], np.float32)


def add_any_lamps(b: SceneBuilder, room: Room, strength: float) -> None:
    """Add ceiling lamps of a random form."""
    forms = {add_pendants: 0.3, add_panels: 0.15, add_domes: 0.3, add_spots: 0.15, add_tubes: 0.1}
    pick_by_share(b.rng, forms)(b, room, strength)


def _spread(b: SceneBuilder, room: Room, area_m2: float) -> Floats:
    """Return positions of lamps over the floor, at most as many as lights are left, [k,2]."""
    rng = b.rng
    n = int(np.clip(round(room.width * room.depth / area_m2), 1,
                    max(1, min(2, b.lights_left))))
    long = int(room.depth > room.width)
    at = np.empty((n, 2), np.float32)
    size = (room.width, room.depth)
    at[:, long] = size[long] * ((np.arange(n) + 0.5) / n + rng.uniform(-0.1, 0.1))
    at[:, 1 - long] = size[1 - long] * rng.uniform(0.35, 0.65)
    return at


def add_bulb(b: SceneBuilder, xyz: Floats, intensity: Floats, radius: float = 0.035) -> None:
    """Add a bulb that is visible and shines."""
    # A camera sees the filament's radiance behind frosted glass: far above white.
    glow = intensity / np.float32(np.pi * radius ** 2) * np.float32(0.2)
    b.add(ellipsoid((2 * radius,) * 3, xyz, b.palette.emissive(np.minimum(glow, 60)), 1))
    b.lights.append(Light('bulb', np.asarray(xyz, np.float32), intensity, radius_m=1.3 * radius))


def add_pendants(b: SceneBuilder, room: Room, strength: float) -> None:
    """Add lamps with shades that hang from the ceiling."""
    for x, y in _spread(b, room, 18):
        drop = min(b.rng.uniform(0.3, 0.9), room.height - 1.7)
        b.add(furniture.pendant(b.palette, b.rng, drop).moved((x, y, room.height)))
        add_bulb(b, np.array([x, y, room.height - drop + 0.03], np.float32),
                 warm_colour(b) * np.float32(5 * strength))


def add_bare_bulb(b: SceneBuilder, room: Room, strength: float) -> None:
    """Add a bare bulb on its cable, not always in the middle."""
    x, y = b.rng.uniform(0.25, 0.75, 2) * [room.width, room.depth]
    drop = b.rng.uniform(0.05, 0.5)
    b.add(rod((x, y, room.height - drop + 0.03), (x, y, room.height), 0.008,
              b.palette.get('black')))
    add_bulb(b, np.array([x, y, room.height - drop], np.float32),
             warm_colour(b) * np.float32(3.5 * strength))


def add_domes(b: SceneBuilder, room: Room, strength: float) -> None:
    """Add bowls of milk glass under the ceiling."""
    for x, y in _spread(b, room, 18):
        r, colour = b.rng.uniform(0.12, 0.25), warm_colour(b)
        glow = b.palette.emissive(colour * np.float32(4 * strength / r))
        b.add(lathe([[0, -0.11], [0.6 * r, -0.09], [0.9 * r, -0.05], [r, 0]],
                    (x, y, room.height), glow, smooth=True))
        side = np.float32(1.6 * r)
        _shine(b, (x, y, room.height - 0.12), (side, side),
               colour * np.float32(5 * strength / side ** 2))


def _shine(b: SceneBuilder, xyz: tuple[float, float, float], size: tuple[float, float],
           radiance: Floats) -> None:
    """Add a light that faces down, without a visible lamp."""
    b.lights.append(Light('rect', np.array(xyz, np.float32), np.asarray(radiance, np.float32),
                          np.array([0, size[1], 0], np.float32),
                          np.array([size[0], 0, 0], np.float32)))


def add_panels(b: SceneBuilder, room: Room, strength: float) -> None:
    """Add square panels in rows, as in offices."""
    rng, side = b.rng, b.rng.uniform(0.45, 0.62)
    n = np.maximum(1, np.round(np.array([room.width, room.depth]) / rng.uniform(1.6, 2.6)))
    xs, ys = _spaced(room.width, n[0]), _spaced(room.depth, n[1])
    _add_rows(b, room, xs, ys, (side, side), strength)


def add_tubes(b: SceneBuilder, room: Room, strength: float) -> None:
    """Add rows of tube lamps."""
    rng = b.rng
    xs = _spaced(room.width, max(1, round(room.width / 3)))
    ys = _spaced(room.depth, max(1, round(room.depth / 2.4)))
    _add_rows(b, room, xs, ys, (rng.uniform(0.08, 0.2), 1.25), strength)


def _spaced(length: float, count: float) -> np.ndarray:
    """Return the middles of `count` equal parts of a length, [count]."""
    return (np.arange(count) + 0.5) * length / count


def _add_rows(b: SceneBuilder, room: Room, xs: np.ndarray, ys: np.ndarray,
              size: tuple[float, float], strength: float) -> None:
    """Add lamps at a grid of positions; one light per half of the room stands for them."""
    w, d = size
    places = [(x, y) for x in xs for y in ys]
    colour = warm_colour(b)
    power = strength * room.width * room.depth * 0.35
    radiance = colour * np.float32(max(power / (len(places) * w * d), 2.0))
    glow, z = b.palette.emissive(radiance), room.height - 0.05
    b.add(join([boxes([(w + 0.04, d + 0.04, 0.05)] * len(places),
                      [(x, y, z + 0.025) for x, y in places], b.palette.get('ceramic')),
                *(panel((x - w / 2, y - d / 2, z - 0.002), (0, d, 0), (w, 0, 0), glow)
                  for x, y in places)]))
    # Nine tenths of a half room's length: the light of a row is even below it.
    halves = min(2, max(1, b.lights_left), len(ys))
    span = max(d, 0.9 * room.depth / halves * (len(ys) > 1))
    wide = max(w, 0.7 * room.width * (len(xs) > 1))
    for y in _spaced(room.depth, halves):
        _shine(b, (room.width / 2, y, z - 0.01), (wide, span),
               colour * np.float32(power / halves / (wide * span)))


def add_spots(b: SceneBuilder, room: Room, strength: float) -> None:
    """Add a rail of spot lamps, two of which shine."""
    p, rng = b.palette, b.rng
    n, colour = int(rng.integers(2, 6)), warm_colour(b)
    glow, shell = p.emissive(colour * np.float32(25)), p.one_of('metal', 'black', 'ceramic')
    y, z = room.depth * rng.uniform(0.3, 0.7), room.height
    xs = room.width * np.linspace(0.2, 0.8, n)
    b.add(box((room.width * 0.65, 0.03, 0.02), (room.width / 2, y, z - 0.01), shell))
    for x in xs:
        b.add(join([cylinder(0.045, 0.13, (x, y, z - 0.15), shell, sides=12),
                    cylinder(0.035, 0.004, (x, y, z - 0.155), glow, sides=12)]))
    for x in (xs[0], xs[-1])[:max(1, b.lights_left)]:
        _shine(b, (float(x), y, z - 0.17), (0.12, 0.12),
               colour * np.float32(2.5 * strength / 0.12 ** 2))


def add_floor_lamp(b: SceneBuilder, room: Room, strength: float) -> None:
    """Add a standard lamp, or a work lamp on a stand, whose bulb shines out of its shade."""
    p, rng = b.palette, b.rng
    h, r, metal = rng.uniform(0.9, 1.7), rng.uniform(0.15, 0.24), p.one_of('metal', 'black')
    colour = warm_colour(b)
    shade = p.emissive(colour * np.float32(3 * strength))
    lamp = furniture.standard_lamp(h, r, metal, shade)
    spot = place_against_wall(b, room, 'floor_lamp', lamp, tries=30, gap=0.05)
    at = np.array([room.width / 2, room.depth / 2, room.height - 0.4], np.float32)
    if spot is not None:
        wall, along = spot
        at = wall.to_map(box((0.02, 0.02, 0.02), (along, 0.05 + r, h - 0.12), 0)).bounds.mean(0)
    add_bulb(b, np.asarray(at, np.float32), colour * np.float32(5 * strength))


def add_screen(b: SceneBuilder, room: Room) -> None:
    """Add a television on a wall, which lights a dark room in its colour."""
    p, rng = b.palette, b.rng
    w = rng.uniform(0.9, 1.6)
    h, z = w * 0.57, rng.uniform(1.1, 1.5)
    colour = noise.hsv(rng.uniform(0.5, 0.7), rng.uniform(0.1, 0.6), 1).astype(np.float32)
    for _ in range(20):
        wall = pick(rng, room.walls)
        x = rng.uniform(w / 2, max(wall.length - w / 2, w / 2 + 0.01))
        if wall.is_clear(x - w / 2 - 0.1, x + w / 2 + 0.1, 0, z + h):
            break
    radiance = colour * np.float32(rng.uniform(2, 8))
    b.add(wall.to_map(box((w, 0.05, h), (x, 0.03, z), p.get('black'))))
    screen = wall.to_map(panel((x + w / 2 - 0.02, 0.058, z - h / 2 + 0.02), (0.04 - w, 0, 0),
                               (0, 0, h - 0.04), p.emissive(radiance, 'screen')))
    b.add(screen)
    # The back of the light would face the wall; it starts just before the screen.
    outward = 0.02 * np.array([-np.sin(wall.yaw), np.cos(wall.yaw), 0], np.float32)
    b.lights.append(openings.panel_light(screen, outward, radiance * np.float32(0.5)))


def add_neon(b: SceneBuilder, room: Room) -> None:
    """Add a coloured tube along a wall, below the ceiling."""
    rng = b.rng
    wall = pick(rng, room.walls)
    colour = noise.hsv(rng.random(), rng.uniform(0.6, 1), 1).astype(np.float32)
    length, z = wall.length * rng.uniform(0.4, 0.9), room.height - rng.uniform(0.08, 0.4)
    middle = wall.length / 2
    b.add(wall.to_map(rod((middle - length / 2, 0.04, z), (middle + length / 2, 0.04, z), 0.02,
                          b.palette.emissive(colour * np.float32(8)))))
    centre = wall.to_map(box((0.01, 0.01, 0.01), (middle, 0.08, z - 0.03), 0)).bounds.mean(0)
    along = wall.to_map(box((1, 0.001, 0.001), (0, 0, 0), 0)).bounds
    u = (along[1] - along[0]).round(3) * np.float32(length)
    v = np.cross(np.array([0, 0, -1], np.float32), u / np.float32(length)) * np.float32(0.2)
    b.lights.append(Light('rect', np.asarray(centre, np.float32),
                          colour * np.float32(rng.uniform(2, 8)), u, np.asarray(v, np.float32)))
