"""Make household goods that stand on z = 0: appliances, vessels, cleaning and office things."""
from __future__ import annotations

import numpy as np

from scenes import clutter
from scenes.bodies import cylinder, ellipsoid, lathe, rod, rounded_box, tube
from scenes.clutter import Maker
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, Mesh, panel


def kettle(p: Palette, rng: Rng) -> Mesh:
    """Build a kettle with handle and spout."""
    h, r, m = rng.uniform(0.18, 0.24), rng.uniform(0.07, 0.09), p.one_of('metal', 'plastic')
    black = p.get('black')
    t = np.linspace(-1.3, 1.3, 7)
    grip = np.stack([-r - 0.05 * np.cos(t), 0 * t, h * 0.55 + h * 0.36 * np.sin(t)], -1)
    body: list[list[float]] = [[0, 0], [r, 0], [r, h * 0.2], [r * 0.75, h * 0.92], [0, h]]
    return join([lathe(body, (0, 0, 0), m), tube(grip, 0.011, black),
                 cylinder(0.012, 0.025, (0, 0, h * 0.98), black, sides=8),
                 tube([(r * 0.7, 0, h * 0.6), (r * 1.4, 0, h * 0.85)], [0.024, 0.014], m, 8)])


def toaster(p: Palette, rng: Rng) -> Mesh:
    """Build a toaster with two slots."""
    m = p.one_of('metal', 'plastic', 'ceramic')
    return join([rounded_box((0.28, 0.17, 0.18), (0, 0, 0.09), m, 0.035),
                 boxes((0.2, 0.028, 0.004), [(0, -0.035, 0.181), (0, 0.035, 0.181)],
                       p.get('black')),
                 box((0.03, 0.04, 0.02), (0.15, 0, 0.12), p.get('black'))])


def microwave(p: Palette, rng: Rng) -> Mesh:
    """Build a microwave oven or a hi-fi unit."""
    w, d, h = rng.uniform([0.4, 0.3, 0.22], [0.54, 0.4, 0.32])
    return join([box((w, d, h), (0, 0, h / 2), p.one_of('metal', 'ceramic', 'black')),
                 box((w * 0.7, 0.012, h * 0.8), (-w * 0.11, d / 2 + 0.005, h / 2), p.get('black')),
                 rod((w * 0.3, d / 2, h * 0.25), (w * 0.3, d / 2 + 0.02, h * 0.25), 0.02,
                     p.get('metal'))])


def dish_rack(p: Palette, rng: Rng) -> Mesh:
    """Build a wire rack with plates in it."""
    wire = p.one_of('metal', 'black', 'plastic')
    parts = [tube(np.array([(-.2, -.14), (.2, -.14), (.2, .14), (-.2, .14), (-.2, -.14)]) @ np.eye(
        2, 3) + [0, 0, z], 0.004, wire, 4) for z in (0.005, 0.11)]
    for x in np.linspace(-0.2, 0.2, 10):
        parts.append(tube([(x, -0.14, 0.11), (x, -0.14, 0.005), (x, 0.14, 0.005), (x, 0.14, 0.11)],
                          0.003, wire, 4))
    plate = clutter.plate(p, np.random.default_rng(1)).moved(tilt=np.pi / 2 - 0.15)
    for x in np.linspace(-0.17, 0.15, int(rng.integers(2, 8))):
        up = plate.moved(yaw=np.pi / 2)
        parts.append(up.moved((x - up.bounds.mean(0)[0], -up.bounds.mean(0)[1],
                               0.008 - up.bounds[0, 2])))
    return join(parts)


def pan(p: Palette, rng: Rng) -> Mesh:
    """Build a frying pan."""
    r, m = rng.uniform(0.1, 0.15), p.one_of('black', 'metal')
    return join([lathe([[0, 0], [r * 0.8, 0], [r, 0.05], [r * 0.97, 0.05], [r * 0.78, 0.006],
                        [0, 0.006]], (0, 0, 0), m),
                 tube([(r * 0.95, 0, 0.042), (r + 0.19, 0, 0.065)], 0.011, p.get('black'))])


def jars(p: Palette, rng: Rng) -> Mesh:
    """Build a row of jars."""
    r, h = rng.uniform(0.03, 0.055), rng.uniform(0.08, 0.2)
    parts = []
    for i in range(int(rng.integers(2, 6))):
        at = (i * 2.15 * r, rng.normal(0, 0.005), 0)
        body = p.one_of('ceramic', 'plastic', 'leaf', 'wood')
        parts += [lathe([[0, 0], [r, 0], [r, h * 0.8], [r * 0.8, h * 0.88]], at, body, sides=14),
                  cylinder(r * 0.85, h * 0.12, np.add(at, (0, 0, h * 0.88)),
                           p.one_of('metal', 'plastic', 'black'), sides=14)]
    return join(parts)


def cutlery(p: Palette, rng: Rng) -> Mesh:
    """Build a jug with spoons and brushes in it."""
    r, h = rng.uniform(0.04, 0.06), rng.uniform(0.1, 0.16)
    parts = [lathe([[0, 0], [r, 0], [r, h], [r * 0.9, h], [r * 0.85, 0.01], [0, 0.01]], (0, 0, 0),
                   p.one_of('ceramic', 'metal', 'plastic'), sides=14)]
    for _ in range(int(rng.integers(3, 9))):
        a, tall = rng.uniform(0, 6.3), h + rng.uniform(0.04, 0.18)
        tip = np.array([r * np.cos(a), r * np.sin(a), h]) * tall / h * [0.85, 0.85, 1]
        parts += [tube(np.array([(0, 0, 0.012), tip]), 0.004,
                       p.one_of('wood', 'metal', 'plastic'), 5),
                  ellipsoid((0.035, 0.035, 0.06), tip, p.one_of('wood', 'metal', 'plastic'), 1)]
    return join(parts)


def bucket(p: Palette, rng: Rng) -> Mesh:
    """Build a bucket with its bail."""
    r, h = rng.uniform(0.11, 0.17), rng.uniform(0.2, 0.32)
    t = np.linspace(0, np.pi, 11)
    fall = rng.choice([-1.2, 0.2, 1.2])
    bail = np.stack([r * np.cos(t), r * np.sin(t) * np.sin(fall),
                     h * 0.94 + r * np.sin(t) * np.cos(fall)], -1)
    return join([lathe([[0, 0], [r * 0.75, 0], [r, h], [r * 1.05, h], [r * 0.95, h - 0.004],
                        [r * 0.72, 0.008], [0, 0.008]], (0, 0, 0), p.one_of('plastic', 'metal')),
                 tube(bail, 0.004, p.get('metal'), 5)])


def paint_can(p: Palette, rng: Rng) -> Mesh:
    """Build a paint can with label, lid and drips."""
    r, h = rng.uniform(0.05, 0.1), rng.uniform(0.1, 0.24)
    drips = p.get('plastic')
    parts = [lathe([[0, 0], [r, 0], [r, h], [r * 0.9, h], [r * 0.9, h - 0.006], [0, h - 0.006]],
                   (0, 0, 0), p.get('metal')),
             lathe([[r * 1.01, h * 0.12], [r * 1.01, h * 0.8]], (0, 0, 0), p.get('packaging'))]
    for a in rng.uniform(0, 6.3, 3):
        x, y = 1.01 * r * np.cos(a), 1.01 * r * np.sin(a)
        parts.append(tube([(x, y, h * rng.uniform(0.4, 0.8)), (x, y, h)], 0.005, drips, 5))
    return join(parts)


def toolbox(p: Palette, rng: Rng) -> Mesh:
    """Build a closed tool box with a handle."""
    w, d, h = rng.uniform([0.35, 0.18, 0.16], [0.55, 0.26, 0.28])
    return join([box((w, d, h * 0.7), (0, 0, h * 0.35), p.one_of('black', 'plastic')),
                 rounded_box((w * 1.01, d * 1.02, h * 0.32), (0, 0, h * 0.85),
                             p.one_of('plastic', 'rust'), 0.02),
                 tube([(-0.1, 0, h), (-0.1, 0, h + 0.05), (0.1, 0, h + 0.05), (0.1, 0, h)], 0.01,
                      p.get('black')),
                 boxes((0.04, 0.02, 0.06), [(s * w * 0.35, d / 2 + 0.005, h * 0.7)
                                            for s in (-1, 1)], p.get('metal'))])


def vacuum(p: Palette, rng: Rng) -> Mesh:
    """Build a vacuum cleaner with hose, tube and floor head."""
    m, black = p.get('plastic'), p.get('black')
    t = np.linspace(0, 1, 16)
    hose = np.stack([0.2 + 0.5 * t, 0.22 * np.sin(t * 4.5),
                     0.2 + 0.55 * np.sin(t * np.pi) * (1 - 0.4 * t)], -1)
    return join([rounded_box((0.42, 0.28, 0.2), (0, 0, 0.14), m, 0.09, 0.01),
                 *(cylinder(0.075, 0.04, (0, 0, -0.02), black).moved((-0.12, s * 0.13, 0.075),
                                                                     tilt=np.pi / 2)
                   for s in (-1, 1)),
                 tube(hose, 0.019, black, 7),
                 tube([hose[-1], (1.05, 0.1, 0.03)], 0.016, p.get('metal'), 7),
                 box((0.1, 0.28, 0.035), (1.07, 0.1, 0.0175), black)])


def speaker(p: Palette, rng: Rng) -> Mesh:
    """Build a loudspeaker."""
    w, d = rng.uniform(0.14, 0.26), rng.uniform(0.16, 0.3)
    h = rng.uniform(1.5 * w, 0.95)
    parts = [box((w, d, h), (0, 0, h / 2), p.one_of('wood', 'black'))]
    for z, r in ((h - 0.06, 0.03), (h - 0.06 - 0.6 * w, 0.35 * w)):
        parts.append(cylinder(r, 0.008, (0, 0, 0), p.get('black')).moved((0, d / 2, z),
                                                                         tilt=-np.pi / 2))
    return join(parts)


def printer(p: Palette, rng: Rng) -> Mesh:
    """Build a printer with paper in its tray."""
    m = p.one_of('black', 'ceramic', 'paper')
    tray = panel((-0.105, -0.12, 0.19), (0.21, 0, 0), (0, -0.1, 0.2), p.get('paper'))
    return join([rounded_box((0.44, 0.34, 0.2), (0, 0, 0.1), m, 0.02), tray,
                 panel((0.105, -0.12, 0.19), (-0.21, 0, 0), (0, -0.1, 0.2), p.get('paper')),
                 boxes([[0.3, 0.1, 0.01], [0.36, 0.02, 0.06]],
                       [(0, 0.21, 0.05), (0, 0.165, 0.1)], p.get('black'))])


def pen_pot(p: Palette, rng: Rng) -> Mesh:
    """Build a pot with pens."""
    m = p.one_of('metal', 'black', 'plastic')
    parts = [lathe([[0, 0], [0.04, 0], [0.04, 0.1], [0.036, 0.1], [0.036, 0.005], [0, 0.005]],
                   (0, 0, 0), m, sides=12)]
    for _ in range(int(rng.integers(3, 10))):
        x, y = rng.uniform(-0.03, 0.03, 2)
        parts.append(tube([(x / 2, y / 2, 0.006), (x, y, rng.uniform(0.12, 0.17))], 0.004,
                          p.get('plastic'), 5))
    return join(parts)


def paper_pile(p: Palette, rng: Rng) -> Mesh:
    """Build an untidy pile of papers and folders."""
    n = int(rng.integers(3, 14))
    t = rng.uniform(0.002, 0.025, n)
    centers = np.stack([*rng.normal(0, 0.012, (2, n)), np.cumsum(t) - t / 2], -1)
    return boxes(np.stack([np.full(n, 0.21), np.full(n, 0.297), t], -1), centers,
                 [p.one_of('paper', 'paper', 'book', 'cardboard') for _ in range(n)],
                 yaws=rng.normal(0, 0.12, n), fit=True)


def desk_lamp(p: Palette, rng: Rng) -> Mesh:
    """Build a jointed desk lamp."""
    m = p.one_of('black', 'metal', 'plastic')
    bend, reach = rng.uniform(0.3, 0.9), rng.uniform(0.22, 0.36)
    knee = np.array([0, -reach * np.sin(bend), 0.03 + reach * np.cos(bend)])
    head = knee + [0, reach * 0.9, reach * 0.35]
    return join([cylinder(0.09, 0.025, (0, 0, 0), m),
                 tube(np.array([(0, 0, 0.02), knee, head]), 0.008, m),
                 lathe([[0.07, -0.09], [0.05, -0.02], [0.02, 0.0], [0, 0]], head, m)])


def globe(p: Palette, rng: Rng) -> Mesh:
    """Build a globe or trophy on a foot."""
    d = rng.uniform(0.14, 0.3)
    return join([lathe([[0, 0], [d * 0.35, 0], [d * 0.3, 0.02], [0.015, 0.03], [0.012, 0.09]],
                       (0, 0, 0), p.one_of('wood', 'black', 'metal'), smooth=True),
                 ellipsoid((d, d, d), (0, 0, 0.08 + d / 2), p.one_of('plastic', 'packaging'), 3)])


def toy_car(p: Palette, rng: Rng) -> Mesh:
    """Build a toy car."""
    s = rng.uniform(0.4, 1.6)
    m, black = p.get('plastic'), p.get('black')
    return join([rounded_box(np.array([0.2, 0.09, 0.05]) * s, (0, 0, 0.045 * s), m, 0.015 * s),
                 rounded_box(np.array([0.1, 0.08, 0.05]) * s, (-0.01 * s, 0, 0.085 * s), black,
                             0.02 * s),
                 *(rod((x * 0.06 * s, y * 0.03 * s, 0.025 * s), (x * 0.06 * s, y * 0.05 * s,
                                                                 0.025 * s), 0.025 * s, black, 10)
                   for x in (-1, 1) for y in (-1, 1))])


def potted_plant(p: Palette, rng: Rng) -> Mesh:
    """Build a plant of any size in a pot."""
    r = rng.uniform(0.04, 0.16)
    h = r * rng.uniform(1.4, 2.2)
    pot = clutter.flower_pot(p, r, h, sides=14)
    few = clutter.foliage(p, rng, r * rng.uniform(1.5, 4), 6, r * rng.uniform(0.8, 2))
    turns = rng.uniform(0, 2 * np.pi, int(rng.integers(2, 6)))
    return join([pot, *(few.moved((0, 0, h * 0.9), yaw) for yaw in turns)])


KITCHEN: tuple[Maker, ...] = (kettle, toaster, microwave, dish_rack, pan, jars, cutlery, jars,
                              *clutter.KITCHEN)
DESK: tuple[Maker, ...] = (printer, pen_pot, paper_pile, paper_pile, desk_lamp, speaker,
                           clutter.monitor, potted_plant, globe, *clutter.DESK)
LIVING: tuple[Maker, ...] = (speaker, globe, potted_plant, potted_plant, toy_car, paper_pile,
                             clutter.table_lamp, *clutter.LIVING)
WORKSHOP: tuple[Maker, ...] = (paint_can, paint_can, toolbox, bucket, jars, *clutter.WORKSHOP)
FLOOR: tuple[Maker, ...] = (bucket, paint_can, toolbox, toy_car, toy_car, speaker, potted_plant,
                            paper_pile, vacuum, *clutter.FLOOR)
