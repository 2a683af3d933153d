"""Make streets, squares and highways with houses, pavements, parked cars and trees."""
from __future__ import annotations

import numpy as np

from scenes import clutter, skies
from scenes.bodies import cylinder, rod
from scenes.clutter import Maker
from scenes.draws import pick, pick_by_share
from scenes.meshes import box, boxes, Floats, join, Mesh
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light, Scene, View
from scenes.street_things import (
    bench,
    car,
    crash_barrier,
    fence,
    house,
    lamp_post,
    pedestrian,
    traffic_sign,
    tree,
    truck,
)
from scenes.warehouse_things import cone


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
    _line_road(b, road, path, length, highway=kind == 'highway')
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
        _light_dusk(b, road, path)
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


def _light_dusk(b: SceneBuilder, road: float, path: float) -> None:
    """Add a pair of lit street lamps."""
    p, rng = b.palette, b.rng
    h, colour = rng.uniform(4, 7), np.array([1.0, rng.uniform(0.6, 0.95), rng.uniform(0.25, 0.85)])
    glow = p.emissive(colour * 20)
    for s, y in ((-1, rng.uniform(4, 10)), (1, rng.uniform(14, 26))):
        x = s * (road / 2 + 0.5 * path)
        b.add(join([cylinder(0.07, h, (x, y, 0), p.get('metal'), sides=10),
                    rod((x, y, h), (x - s * 1.2, y, h + 0.2), 0.04, p.get('metal')),
                    box((0.5, 0.2, 0.08), (x - s * 1.2, y, h + 0.16), glow)]))
        b.lights.append(Light('bulb', np.array([x - s * 1.2, y, h - 0.05], np.float32),
                              (colour * rng.uniform(8, 25)).astype(np.float32), radius_m=0.1))


def _add_houses(b: SceneBuilder, sides: list[int], road: float, path: float,
                length: float) -> None:
    """Add houses in a row on each of the sides."""
    p, rng = b.palette, b.rng
    for s in sides:
        y = -10.0
        while y < length:
            width = rng.uniform(6, 16)
            if rng.random() < 0.9:
                mesh = house(p, rng, width * rng.uniform(0.8, 1.0), rng.uniform(7, 11))
                x = s * (road / 2 + path + rng.choice([0.0, 0.0, 2.5]))
                at, yaw = ((x, y, 0), 0.0) if s < 0 else ((x, y + width, 0), np.pi)
                b.add(mesh.moved(at, yaw), 'house')
            y += width


def _furnish_street(b: SceneBuilder, road: float, path: float, length: float) -> None:
    """Add parked cars, trees, posts, benches, cones, boxes and pedestrians."""
    p, rng = b.palette, b.rng
    makers: list[Maker] = [maker for maker, share in (
        (car, 8), (tree, 5), (lamp_post, 5), (bench, 2), (pedestrian, 6), (traffic_sign, 2),
        (cone, 2), (clutter.tote, 1), (clutter.case, 1)) for _ in range(share)]
    for _ in range(int(rng.integers(8, 40))):
        maker = pick(rng, makers)
        s = int(rng.choice([-1, 1]))
        y = rng.uniform(-5, min(length, 45))
        if maker is car:
            x, z, yaw = s * (road / 2 - rng.uniform(0.95, 1.3)), 0.0, (0 if s > 0 else np.pi)
        else:
            x, z = s * (road / 2 + rng.uniform(0.3, path + 0.5)), 0.08
            yaw = rng.uniform(0, 6.3)
        b.add_if_free(maker.__name__, maker(p, rng).moved((x, y, z), yaw + rng.normal(0, 0.03)))


def _line_road(b: SceneBuilder, road: float, path: float, length: float, *, highway: bool) -> None:
    """Add rows of parked cars and trees, traffic on the road, fences, signs and crossings."""
    p, rng = b.palette, b.rng
    # The traffic and what is parked repeats few models, which saves time and memory.
    models = [car(p, rng) for _ in range(4)] + [truck(p, rng)]
    for s in (-1, 1):
        edge = s * (road / 2 + path)
        if highway:
            barrier = crash_barrier(p, length + 40)
            b.add(barrier.moved((s * (road / 2 + 0.6), -10, 0)))
        elif rng.random() < 0.5:
            hedge = fence(p, rng, rng.uniform(8, 30))
            b.add(hedge.moved((edge - s * 0.3, rng.uniform(-3, 20), 0)))
        if rng.random() < (0.1 if highway else 0.45):
            _park_row(b, models, s * (road / 2 - 1.1), 0.0 if s > 0 else np.pi, length)
        if rng.random() < 0.4:
            model, step = tree(p, rng), rng.uniform(6, 12)
            for y in np.arange(rng.uniform(0, 6), min(length, 60), step):
                b.add(model.moved((edge + s * rng.uniform(0.2, 0.6), y, 0), rng.uniform(0, 6.3)))
    for _ in range(int(rng.integers(0, 5))):
        s = int(rng.choice([-1, 1]))
        at = (s * road * rng.uniform(0.15, 0.3), rng.uniform(6, length), 0)
        b.add_if_free('traffic', pick(rng, models).moved(at, 0 if s > 0 else np.pi))
    for _ in range(int(rng.integers(1, 5))):
        place = (int(rng.choice([-1, 1])) * (road / 2 + 0.4), rng.uniform(2, 35), 0.05)
        b.add_if_free('sign', traffic_sign(p, rng).moved(place, rng.normal(0, 0.2)))
    if not highway and rng.random() < 0.5:
        xs, y = np.arange(-road / 2 + 0.4, road / 2 - 0.2, 1.0), rng.uniform(3, 25)
        b.add(boxes((0.5, 3.0, 0.004), [(x, y, 0.004) for x in xs],
                    p.get('paper')))


def _park_row(b: SceneBuilder, models: list[Mesh], x: float, yaw: float, length: float) -> None:
    """Park cars behind each other along the kerb."""
    y = b.rng.uniform(-5, 5)
    while y < min(length, 60):
        mesh = pick(b.rng, models)
        reach = float(np.ptp(mesh.bounds[:, 1]))
        if b.rng.random() < 0.85:
            b.add_if_free('car', mesh.moved((x + b.rng.normal(0, 0.08), y + reach / 2, 0),
                                            yaw + b.rng.normal(0, 0.02)))
        y += reach + b.rng.uniform(0.6, 1.6)
