"""Make seats that stand on the origin and face +y."""
from __future__ import annotations

import numpy as np

from scenes.bodies import cylinder, ellipsoid, rod, rounded_box
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import box, join, legs, Mesh


def sofa(p: Palette, rng: Rng, seats: int | None = None) -> Mesh:
    """Build a sofa or armchair with cushions."""
    n = int(rng.integers(2, 4)) if seats is None else seats
    cover = p.one_of('fabric', 'fabric', 'leather')
    seat, depth, arm = rng.uniform(0.58, 0.75), rng.uniform(0.8, 0.95), rng.uniform(0.12, 0.24)
    low, high, back = rng.uniform(0.05, 0.15), rng.uniform(0.38, 0.46), rng.uniform(0.72, 0.95)
    width = n * seat + 2 * arm
    parts = [rounded_box((width, depth, high * 0.7 - low), (0, 0, low + (high * 0.7 - low) / 2),
                         cover, 0.03),
             rounded_box((width, 0.22, back - low), (0, -depth / 2 + 0.11, (back + low) / 2),
                         cover, 0.07), legs(width * 0.94, depth * 0.9, low, 0.05, p.get('wood'))]
    arm_top = rng.uniform(0.52, 0.66)
    for s in (-1, 1):
        parts.append(rounded_box((arm, depth, arm_top - low),
                                 (s * (width - arm) / 2, 0, (arm_top + low) / 2), cover, 0.06))
    for i in range(n):
        x = (i - (n - 1) / 2) * seat
        parts.append(rounded_box((seat - 0.01, depth - 0.24, high * 0.34),
                                 (x, 0.11, high * 0.85), cover, 0.05, 0.03))
        parts.append(rounded_box((seat - 0.02, 0.2, back - high + 0.06), (0, 0, 0), cover, 0.07,
                                 0.04).moved((x, -depth / 2 + 0.29, (back + high) / 2), tilt=0.18))
    for _ in range(int(rng.integers(0, 4))):
        pillow = rounded_box((0.42, 0.14, 0.4), (0, 0, 0), p.get('fabric'), 0.06, 0.05)
        x = rng.uniform(-0.5, 0.5) * n * seat * 0.9
        parts.append(pillow.moved((x, -depth / 2 + 0.45, high + 0.2), rng.normal(0, 0.3), 0.4))
    return join(parts)


def armchair(p: Palette, rng: Rng) -> Mesh:
    """Build an armchair: a sofa with one seat."""
    return sofa(p, rng, 1)


def pouf(p: Palette, rng: Rng) -> Mesh:
    """Build a fully upholstered stool."""
    w, h = rng.uniform(0.4, 0.6), rng.uniform(0.32, 0.45)
    if rng.random() < 0.5:
        return rounded_box((w, w, h), (0, 0, h / 2), p.one_of('fabric', 'leather'), 0.07, 0.02)
    return ellipsoid((w * 1.5, w * 1.5, h * 1.4), (0, 0, h * 0.6), p.get('fabric'), 3)


def chair(p: Palette, rng: Rng) -> Mesh:
    """Build a dining chair."""
    frame = p.one_of('wood', 'wood', 'metal', 'paint', 'plastic')
    seat = frame if rng.random() < 0.5 else p.get('fabric')
    w, d, h = rng.uniform(0.4, 0.48), rng.uniform(0.4, 0.48), rng.uniform(0.43, 0.47)
    back = rng.uniform(0.82, 1.0)
    parts = [rounded_box((w, d, 0.05), (0, 0, h - 0.025), seat, 0.02),
             legs(w, d, h - 0.05, 0.035, frame)]
    for s in (-1, 1):
        parts.append(box((0.035, 0.03, back - h), (s * (w / 2 - 0.018), -d / 2 + 0.015,
                                                   (back + h) / 2), frame, upright=True))
    if rng.random() < 0.5:
        for z in np.linspace(h + 0.12, back - 0.05, int(rng.integers(2, 5))):
            parts.append(box((w - 0.05, 0.018, 0.06), (0, -d / 2 + 0.015, z), frame))
    else:
        parts.append(rounded_box((w - 0.06, 0.03, (back - h) * 0.75),
                                 (0, -d / 2 + 0.02, h + (back - h) * 0.6), seat, 0.012))
    return join(parts)


def office_chair(p: Palette, rng: Rng) -> Mesh:
    """Build a swivel chair on five castors."""
    cover, black = p.one_of('fabric', 'leather', 'black'), p.get('black')
    h = rng.uniform(0.43, 0.52)
    parts = [rounded_box((0.5, 0.48, 0.09), (0, 0, h), cover, 0.04, 0.01),
             rounded_box((0.46, 0.08, 0.58), (0, 0, 0), cover, 0.035, 0.01).moved(
                 (0, -0.26, h + 0.4), tilt=0.12),
             cylinder(0.03, h - 0.1, (0, 0, 0.08), p.get('metal'), sides=10)]
    for a in np.arange(5) * 2 * np.pi / 5:
        end = np.array([0.3 * np.cos(a), 0.3 * np.sin(a), 0.07])
        parts += [rod((0, 0, 0.1), end, 0.018, black),
                  ellipsoid((0.06, 0.06, 0.06), end - [0, 0, 0.04], black, 1)]
    for s in (-1, 1):
        parts += [box((0.05, 0.28, 0.03), (s * 0.28, -0.02, h + 0.2), black),
                  box((0.03, 0.05, 0.22), (s * 0.28, -0.05, h + 0.1), black)]
    return join(parts)
