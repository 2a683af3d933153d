"""Make clothed people of all ages who face +y: standing on z = 0 or sitting with hips on it."""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenes.bodies import ellipsoid, loft, rounded_box, tube
from scenes.clutter import Maker
from scenes.draws import pick, Rng
from scenes.materials import Palette
from scenes.meshes import join, Mesh

Points = NDArray[np.floating[Any]]

_HAIR = ((0.01, 0.008, 0.006), (0.03, 0.015, 0.008), (0.12, 0.06, 0.02), (0.5, 0.33, 0.13),
         (0.4, 0.4, 0.4), (0.2, 0.05, 0.015))


def standing(p: Palette, rng: Rng) -> Mesh:
    """Build a standing person, sometimes a child."""
    h = rng.uniform(0.95, 1.4) if rng.random() < 0.2 else rng.normal(1.7, 0.09)
    step = rng.uniform(-0.06, 0.06)
    legs = [np.array([[s * 0.045, 0, 0.5], [s * 0.055, 0.012 + s * step / 2, 0.27],
                      [s * 0.058, s * step, 0.04]]) for s in (-1, 1)]
    return _dress(p, rng, h, legs, np.array([0, 0, 0.47])).moved(yaw=rng.uniform(0, 2 * np.pi))


def sitting(p: Palette, rng: Rng) -> Mesh:
    """Build a person who sits on z = 0, with the lower legs below it and in front."""
    h = rng.normal(1.7, 0.08)
    reach = rng.uniform(-0.03, 0.09)
    legs = [np.array([[s * 0.05, 0, 0.045], [s * 0.075, 0.24, 0.055],
                      [s * 0.07, 0.25 + reach, -0.21]]) for s in (-1, 1)]
    return _dress(p, rng, h, legs, np.array([0, 0, 0.02]))


def _dress(p: Palette, rng: Rng, height: float, legs: list[Points], hip: Points) -> Mesh:
    """Build a person from the joints of the legs and the hip, in heights of the person."""
    top, trousers, skin = p.get('cloth'), p.get('cloth'), p.get('skin')
    wide = rng.uniform(0.9, 1.25)
    bare = rng.random() < 0.2
    parts = []
    for leg in legs:
        parts += [tube(leg[:2], [0.048 * wide, 0.038 * wide], trousers, 9),
                  tube(leg[1:], [0.037 * wide, 0.024], skin if bare else trousers, 9),
                  ellipsoid((0.08 * wide,) * 3, leg[1], trousers, 1),
                  rounded_box((0.055, 0.15, 0.045), leg[2] + [0, 0.03, -0.0175],
                              p.one_of('black', 'cloth', 'leather'), 0.02)]
    lean = rng.uniform(-0.02, 0.06)
    low = -0.015 if rng.random() < 0.7 else -0.1 * (hip[2] > 0.3)
    rings = [(0, 0, low, 0.098, 0.07), (0, 0, 0.06, 0.096, 0.068),
             (0, lean / 3, 0.13, 0.088, 0.06), (0, lean * 0.8, 0.25, 0.105, 0.068),
             (0, lean, 0.32, 0.118, 0.058), (0, lean, 0.35, 0.08, 0.045),
             (0, lean, 0.372, 0.036, 0.036)]
    parts.append(loft(np.array(rings) * [1, 1, 1, wide, wide] + [*hip, 0, 0], top, folds=0.02))
    neck = hip + [0, lean, 0.36]
    parts += _head(p, rng, neck, skin)
    for s in (-1, 1):
        parts += _arm(rng, neck + [s * 0.112 * wide, 0, -0.05], s, top,
                      skin if rng.random() < 0.4 else top, skin)
    return join(parts).scaled(height)


def _head(p: Palette, rng: Rng, neck: Points, skin: int) -> list[Mesh]:
    hair = p.solid(pick(rng, _HAIR))
    head = neck + [0, 0.012, 0.105]
    parts = [tube(neck + [[0, 0, -0.03], [0, 0.005, 0.06]], 0.031, skin, 9),
             ellipsoid((0.088, 0.112, 0.135), head, skin, 2),
             ellipsoid((0.018, 0.03, 0.03), head + [0, 0.055, -0.008], skin, 1)]
    style = rng.random()
    if style < 0.85:
        parts.append(ellipsoid((0.096, 0.115, 0.11), head + [0, -0.013, 0.022], hair, 2))
    if style < 0.4:
        parts.append(ellipsoid((0.1, 0.06, rng.uniform(0.12, 0.22)), head - [0, 0.045, 0.04],
                               hair, 2))
    return parts


def _arm(rng: Rng, shoulder: Points, side: int, upper: int, lower: int, skin: int) -> list[Mesh]:
    out, forward = rng.uniform(0.02, 0.06), rng.uniform(-0.03, 0.08)
    elbow = shoulder + [side * out, forward, -0.165]
    bend = rng.uniform(0.1, 1.5)
    inward = -side * rng.uniform(0, 0.07)
    hand = elbow + [inward, 0.15 * np.sin(bend), -0.15 * np.cos(bend)]
    return [ellipsoid((0.07, 0.07, 0.07), shoulder, upper, 1),
            tube(np.array([shoulder, elbow]), [0.034, 0.028], upper, 8),
            tube(np.array([elbow, hand]), [0.028, 0.018], lower, 8),
            ellipsoid((0.06, 0.06, 0.06), elbow, lower, 1),
            ellipsoid((0.035, 0.045, 0.06), hand + (hand - elbow) * 0.15, skin, 1)]


def on_stool(p: Palette, rng: Rng) -> Mesh:
    """Build a person who sits on a stool of their own."""
    body = sitting(p, rng)
    seat = float(-body.bounds[0, 2])
    wood = p.one_of('wood', 'metal', 'plastic')
    legs = [tube([(0.8 * x, 0.8 * y, seat - 0.03), (x, y, 0)], 0.015, wood)
            for x in (-0.17, 0.17) for y in (-0.2, 0.12)]
    return join([body.moved((0, 0, seat)), *legs,
                 rounded_box((0.36, 0.36, 0.05), (0, -0.03, seat - 0.025), wood, 0.02)])


PEOPLE: tuple[Maker, ...] = (standing, standing, on_stool)
