"""Fill openings: windows with glass and blinds, doors ajar, and what is seen through them."""
from __future__ import annotations

import numpy as np

from scenes import clutter, furniture, glass, noise, seats, storage, walls
from scenes.bodies import cylinder
from scenes.draws import pick, Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, Floats, join, Mesh, panel
from scenes.rooms import keep_way_free
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light
from scenes.walls import Opening, THICKNESS_M, Wall


def add_window(b: SceneBuilder, wall: Wall, o: Opening, *, private: bool = False) -> None:
    """Add a window with panes, and perhaps blinds, curtains or a radiator below it."""
    p, rng = b.palette, b.rng
    pane = glass.frosted(p, rng) if private else glass.clear(p, rng)
    width, height = o.right - o.left, o.high - o.low
    parts = [_sashes(p, rng, o),
             panel((o.right, -THICKNESS_M * 0.6, o.low), (-width, 0, 0), (0, 0, height), pane)]
    dress = rng.random()
    if dress < 0.35:
        parts += [walls.curtain(p, rng, o, side) for side in (-1, 1)]
        parts.append(box((width + 0.5, 0.03, 0.03), ((o.left + o.right) / 2, 0.09, o.high + 0.12),
                         p.one_of('metal', 'wood', 'black')))
    elif dress < 0.55:
        parts.append(_venetian_blind(p, rng, o))
    elif dress < 0.68:
        drop = height * rng.uniform(0.15, 0.9)
        parts.append(box((width - 0.02, 0.01, drop), ((o.left + o.right) / 2, -0.03,
                                                      o.high - drop / 2),
                         p.one_of('fabric', 'paper', 'paint')))
    if o.low > 0.7 and rng.random() < 0.6:
        heater = furniture.radiator(p, rng).moved(((o.left + o.right) / 2, 0.07, 0))
        left, right = heater.bounds[:, 0].tolist()
        if wall.is_clear(left, right, 0, 0.7):
            b.add_if_free('radiator', wall.to_map(heater), margin=0.0)
    b.add(wall.to_map(join(parts)))


def _sashes(p: Palette, rng: Rng, o: Opening) -> Mesh:
    """Build the frame, bars, handle and sill of a window."""
    frame = p.one_of('ceramic', 'ceramic', 'wood', 'black', 'paint')
    w, h, x, z = o.right - o.left, o.high - o.low, (o.left + o.right) / 2, (o.low + o.high) / 2
    y, t = -THICKNESS_M * 0.6, rng.uniform(0.04, 0.09)
    uprights = np.linspace(o.left + t / 2, o.right - t / 2, 2 + int(w / rng.uniform(0.5, 1.6)))
    levels = [o.low + t / 2, o.high - t / 2]
    if rng.random() < 0.3:
        levels.append(o.low + h * rng.uniform(0.4, 0.75))
    parts = [boxes((t, 0.06, h), [(u, y, z) for u in uprights],
                   frame),
             boxes((w, 0.06, t), [(x, y, v) for v in levels], frame),
             box((0.02, 0.06, 0.13), (uprights[1], y + 0.05, z), p.get('metal'))]
    if o.low > 0.2:
        sill = p.one_of('marble', 'wood', 'ceramic')
        parts.append(box((w + 0.1, 0.24, 0.03), (x, 0.02, o.low - 0.012), sill))
        things = clutter.scatter(p, rng, clutter.LIVING, w * 0.9, 0.16, int(rng.integers(0, 4)))
        parts += [t.moved((x, 0.03, o.low + 0.003)) for t in things]
        if rng.random() < 0.3:
            pot = cylinder(0.07, 0.12, (0, 0, 0), p.one_of('ceramic', 'brick'), top_radius=0.09)
            leaves = clutter.foliage(p, rng, 0.22, 25, 0.12).moved((0, 0, 0.12))
            parts.append(join([pot, leaves]).moved((rng.uniform(o.left + 0.1, o.right - 0.1), 0.03,
                                                    o.low)))
    return join(parts)


def _venetian_blind(p: Palette, rng: Rng, o: Opening) -> Mesh:
    """Build a blind of tilted slats that covers the upper part of a window."""
    w, x = o.right - o.left - 0.02, (o.left + o.right) / 2
    n = max(2, int((o.high - o.low) * rng.uniform(0.2, 1.0) / 0.045))
    slat, tilt = p.one_of('ceramic', 'metal', 'wood', 'paint'), rng.uniform(-1.1, 1.1)
    board = box((w, 0.04, 0.003), (0, 0, 0), slat).moved(tilt=tilt)
    return join([board.moved((x, -0.03, o.high - 0.03 - 0.045 * i)) for i in range(n)])


def add_outlook(b: SceneBuilder, wall: Wall, o: Opening, brightness: float) -> None:
    """
    Add a house or a hedge across the street from a window.

    It glows as in the daylight that the scene, where the sky irradiates nothing, does not have.
    """
    rng = b.rng
    away, wide, tall = rng.uniform(6, 18), rng.uniform(6, 20), rng.uniform(2, 9)
    kind = str(rng.choice(['facade', 'facade', 'leaf', 'brick']))
    colour = np.full(3, brightness * rng.uniform(0.4, 1.2)) * noise.warm_white(rng)
    front = b.palette.emissive(colour, kind)
    x, base = (o.left + o.right) / 2 + rng.uniform(-6, 6), rng.uniform(-6, -0.5)
    count = max(1, round(wide / 3)) if kind == 'facade' else 8
    rows = max(1, round(tall / 3)) if kind == 'facade' else 4
    step = np.array([wide / count, (tall - base) / rows])
    panels = [panel((x + wide / 2 - i * step[0], -away, base + k * step[1]), (-step[0], 0, 0),
                    (0, 0, step[1]), front) for i in range(count) for k in range(rows)]
    b.add(wall.to_map(join(panels)))


def add_door(b: SceneBuilder, wall: Wall, o: Opening) -> None:
    """Add a door: closed, ajar before the next room, or a passage into it; keep its way free."""
    rng, p = b.rng, b.palette
    keep_way_free(b, wall, o)
    frame, leaf = walls.door_parts(p, rng, o)
    b.add(wall.to_map(frame))
    limits = _annex_limits(wall, o)
    opened = rng.random() < 0.6 and limits[1] - limits[0] > 1.3
    if opened:
        add_annex(b, wall, o, limits)
    if not opened or rng.random() < 0.75:
        swing = rng.uniform(0.25, 1.75) * (1 if rng.random() < 0.6 else -1) if opened else 0.0
        b.add(wall.to_map(leaf.moved(walls.hinge(o), swing)))


def _annex_limits(wall: Wall, o: Opening) -> tuple[float, float]:
    """Return how far a room behind a door may reach along the wall, m: halfway to other doors."""
    lows, highs = [0.0], [wall.length]
    for other in wall.openings:
        share = 0.5 if other.kind == 'door' else 1.0
        if other.right <= o.left:
            lows.append(o.left + share * (other.right - o.left))
        elif other.left >= o.right:
            highs.append(o.right + share * (other.left - o.right))
    return max(lows) + 0.1, min(highs) - 0.1


def add_annex(b: SceneBuilder, wall: Wall, o: Opening, limits: tuple[float, float]) -> None:
    """Add a furnished and perhaps lit room or corridor behind an opening of a wall."""
    rng, p = b.rng, b.palette
    left = max(limits[0], o.left - rng.uniform(0.1, 2.5))
    right = min(limits[1], o.right + rng.uniform(0.1, 2.5))
    wide, deep, tall = right - left, rng.uniform(1.4, 5.5), max(wall.height, o.high + 0.1)
    x, t = (left + right) / 2, THICKNESS_M
    y = -t - deep / 2
    surface = p.one_of('whitewash', 'whitewash', 'plaster', 'wallpaper', 'brick', 'tiles')
    floor = p.one_of('planks', 'tiles', 'carpet', 'concrete')
    above = p.one_of('paper', 'whitewash')
    # The side walls face inwards as panels, so that neighbouring annexes may touch.
    shell = [box((wide, 0.05, tall), (x, -t - deep - 0.025, tall / 2), surface),
             boxes((0.05, deep, tall), [(left - 0.025, y, tall / 2),
                                        (right + 0.025, y, tall / 2)], surface),
             box((wide, deep + t, 0.1), (x, y + t / 2, -0.05), floor),
             box((wide, deep, 0.1), (x, y, tall + 0.05), above)]
    b.add(wall.to_map(join(shell)))
    _furnish_annex(b, wall, (left, right), deep, (o.left - 0.1, o.right + 0.1))
    if rng.random() < 0.75 and b.lights_left > 2:
        _light_annex(b, wall, (x, y), tall, min(wide, deep) * 0.4)


def _furnish_annex(b: SceneBuilder, wall: Wall, span: tuple[float, float], deep: float,
                   way: tuple[float, float]) -> None:
    """Stand furniture at the back and along the sides of an annex."""
    rng, p = b.rng, b.palette
    makers = (storage.bookshelf, storage.cabinet, furniture.plant, seats.chair, furniture.desk,
              storage.refrigerator, furniture.boxes_pile, furniture.radiator, seats.armchair)
    at, back = span[0] + 0.05, -THICKNESS_M - deep + 0.05
    while at < span[1] - 0.4:
        mesh = pick(rng, makers)(p, rng)
        low, high = mesh.bounds
        at += rng.uniform(0, 0.5)
        if at + high[0] - low[0] > span[1] or high[1] - low[1] > deep - 0.7:
            break
        b.add(wall.to_map(mesh.moved((at - low[0], back - low[1], 0))))
        at += float(high[0] - low[0])
    for side, room in ((span[0], way[0] - span[0]), (span[1], span[1] - way[1])):
        mesh = pick(rng, makers)(p, rng).moved(
            yaw=-np.pi / 2 if side == span[0] else np.pi / 2)
        low, high = mesh.bounds
        if high[0] - low[0] < room and high[1] - low[1] < deep - 1.2:
            x = side - low[0] if side == span[0] else side - high[0]
            b.add(wall.to_map(mesh.moved((x, -THICKNESS_M - 0.1 - high[1], 0))))
    picture = walls.picture_mesh(p, rng, rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.8))
    b.add(wall.to_map(picture.moved(((way[0] + way[1]) / 2, back - 0.05, 1.6))))


def _light_annex(b: SceneBuilder, wall: Wall, at: tuple[float, float], height: float,
                 side: float) -> None:
    """Add a lamp under the ceiling of an annex."""
    colour = noise.hsv(b.rng.uniform(0.06, 0.14), b.rng.uniform(0.05, 0.5), 1)
    radiance = np.asarray(colour * b.rng.uniform(3, 25) / side ** 2, np.float32)
    lamp = wall.to_map(panel((at[0] - side / 2, at[1] - side / 2, height - 0.03), (0, side, 0),
                             (side, 0, 0), b.palette.emissive(radiance)))
    b.add(lamp)
    b.lights.append(panel_light(lamp, np.array([0, 0, -0.01], np.float32), radiance))


def panel_light(lamp: Mesh, offset: Floats, radiance: Floats) -> Light:
    """
    Make the light of a panel.

    Parameters
    ----------
    lamp : Mesh
        As of `meshes.panel`, with edges along or across a wall of the room.
    offset : [3] float32
        From the panel to the light, which must not be in or behind it, m.
    radiance : [3] float32

    Returns
    -------
    Light
    """
    a, b, c = lamp.triangles[0]
    return Light('rect', lamp.bounds.mean(0) + offset, radiance, b - a, c - b)
