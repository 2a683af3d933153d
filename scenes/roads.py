"""Make streets, squares and highways with houses, pavements, parked cars and trees."""
from __future__ import annotations

import numpy as np

from scenes import clutter, halls, roadside, skies, streets
from scenes.draws import pick_by_share
from scenes.meshes import box, boxes, Floats
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Scene, View


def sample_street(b: SceneBuilder) -> Scene:
    """
    Make a street, a wide square or a highway along y, by day, at dusk or under an overcast sky.

    Returns
    -------
    Scene
    """
    p, rng = b.palette, b.rng
    kind = pick_by_share(rng, {'street': 0.65, 'square': 0.15, 'highway': 0.2})
    road = {'street': rng.uniform(5, 9), 'square': rng.uniform(14, 35),
            'highway': rng.uniform(8, 20)}[kind]
    path, length = rng.uniform(1.5, 4), rng.uniform(40, 90)
    b.add(box((400, 400, 0.2), (0, length / 2, -0.12), p.one_of('grass', 'grass', 'concrete')))
    b.add(box((road, length + 60, 0.1), (0, length / 2, -0.05),
              p.one_of('asphalt', 'asphalt', 'paving')))
    for s in (-1, 1):
        b.add(box((path, length + 60, 0.16), (s * (road + path) / 2, length / 2, 0.0),
                  p.get('paving')))
        b.add(box((0.15, length + 60, 0.17), (s * road / 2, length / 2, 0.0), p.get('concrete')))
    if rng.random() < 0.6:
        n = int((length + 20) / 6)
        b.add(boxes((0.12, 3, 0.004), [(0, 6 * i - 5, 0.003) for i in range(n)],
                    p.get('paper')))
    sides = [s for s in (-1, 1) if rng.random() < (0.1 if kind == 'highway' else 0.8)]
    _add_houses(b, sides, road, path, length)
    roadside.line_road(b, road, path, length, highway=kind == 'highway')
    _furnish_street(b, road, path, length)
    sky = _light_street(b, road, path)
    x = road / 2 + path * 0.7
    walker = View(np.array([[-x, 0, 0.2], [x, length * 0.5, 1.8]], np.float32),
                  np.array([[-x - 2, length * 0.3, 0.2], [x + 2, length, 2.5]], np.float32))
    lane = road * 0.3
    driver = View(np.array([[-lane, 0, 1.1], [lane, length * 0.4, 2.2]], np.float32),
                  np.array([[-lane, length * 0.9, 0.8], [lane, length, 2.2]], np.float32))
    return b.build('street', sky, [walker, driver], sky_irradiates=True)


def _light_street(b: SceneBuilder, road: float, path: float) -> Floats:
    """Add sun or street lamps; return the sky."""
    rng = b.rng
    draw = rng.random()
    if draw < 0.15:
        roadside.light_dusk(b, road, path)
        return np.asarray(skies.make_sky(rng, rng.uniform(0.02, 0.15))
                          * np.array([0.75, 0.85, 1.2]), np.float32)
    sky = skies.make_sky(rng, rng.uniform(0.8, 1.5))
    if draw < 0.4:
        # Overcast: hardly any colour is left in the sky.
        grey = sky.mean(-1, keepdims=True)
        return np.asarray(grey + 0.15 * (sky - grey), np.float32)
    if draw < 0.9:
        b.lights.append(skies.make_sun(rng, rng.uniform(3, 9)))
    return sky


def _add_houses(b: SceneBuilder, sides: list[int], road: float, path: float,
                length: float) -> None:
    """Add houses in a row on each of the sides."""
    p, rng = b.palette, b.rng
    for s in sides:
        y = -10.0
        while y < length:
            width = rng.uniform(6, 16)
            if rng.random() < 0.9:
                mesh = streets.house(p, rng, width * rng.uniform(0.8, 1.0), rng.uniform(7, 11))
                x = s * (road / 2 + path + rng.choice([0.0, 0.0, 2.5]))
                at, yaw = ((x, y, 0), 0.0) if s < 0 else ((x, y + width, 0), np.pi)
                b.add(mesh.moved(at, yaw), 'house')
            y += width


def _furnish_street(b: SceneBuilder, road: float, path: float, length: float) -> None:
    """Add parked cars, trees, posts, benches, cones, boxes and pedestrians."""
    p, rng = b.palette, b.rng
    makers = ((streets.car, 8), (streets.tree, 5), (streets.lamp_post, 5), (streets.bench, 2),
              (streets.pedestrian, 6), (roadside.traffic_sign, 2), (halls.cone, 2),
              (clutter.tote, 1), (clutter.case, 1))
    names = np.repeat(np.arange(len(makers)), [m[1] for m in makers])
    for _ in range(int(rng.integers(8, 40))):
        maker = makers[int(rng.choice(names))][0]
        s = int(rng.choice([-1, 1]))
        y = rng.uniform(-5, min(length, 45))
        if maker is streets.car:
            x, z, yaw = s * (road / 2 - rng.uniform(0.95, 1.3)), 0.0, (0 if s > 0 else np.pi)
        else:
            x, z = s * (road / 2 + rng.uniform(0.3, path + 0.5)), 0.08
            yaw = rng.uniform(0, 6.3)
        b.add_if_free(maker.__name__, maker(p, rng).moved((x, y, z), yaw + rng.normal(0, 0.03)))
