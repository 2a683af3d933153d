"""Draw tileable textures of building and furniture materials: wood, stone, cloth, metal."""
from __future__ import annotations

import numpy as np

from scenes.draws import Rng
from scenes.noise import (
    coordinates,
    hsv,
    Image,
    mix,
    noise,
    random_colour,
    warm_white,
    wood_colours,
)


def _grain(rng: Rng, size: int) -> Image:
    """Draw wood grain along u, values in about 0..1."""
    _, v = coordinates(size)
    bend = noise(rng, size, (1, 2), 3)
    rings = np.sin(2 * np.pi * (v * int(rng.integers(4, 12)) + bend * rng.uniform(0.3, 1.2)))
    streaks = noise(rng, size, (3, 96), 3, 0.7)
    weight = rng.uniform(0.15, 0.35)
    return np.asarray(0.5 + weight * rings + 0.16 * streaks + 0.1 * bend, np.float32)


def wood(rng: Rng, size: int) -> Image:
    """Draw solid wood with grain along u."""
    light, dark = wood_colours(rng)
    return mix(light, dark, _grain(rng, size))


def planks(rng: Rng, size: int) -> Image:
    """Draw floor boards or laminate, each board with its own grain."""
    light, dark = wood_colours(rng)
    rows = int(rng.choice([5, 6, 8, 10, 14]))
    per_row = int(rng.choice([1, 2, 2, 3]))
    u, v = coordinates(size)
    row = np.minimum((v * rows).astype(int), rows - 1)
    along = u * per_row + rng.random(rows)[row]
    board = along.astype(int) % per_row
    shade = rng.normal(0, 0.13, (rows, per_row))[row, board]
    grain = _grain(rng, size)
    shift_x, shift_y = rng.integers(0, size, (2, rows, per_row))
    x = (np.arange(size)[None] + shift_x[row, board]) % size
    y = (np.arange(size)[:, None] + shift_y[row, board]) % size
    colour = mix(light, dark, grain[y, x] + shade)
    edge_v = np.minimum(v * rows % 1, 1 - v * rows % 1) / rows
    edge_u = np.minimum(along % 1, 1 - along % 1) / per_row
    gap = 1 - np.clip(np.minimum(edge_u, edge_v) * size / rng.uniform(1.0, 2.5), 0, 1)
    return np.asarray(colour * (1 - rng.uniform(0.3, 0.8) * gap[..., None]))


def tiles(rng: Rng, size: int) -> Image:
    """Draw square or oblong tiles with grout, plain or chequered."""
    nx = int(rng.choice([2, 4, 4, 6, 8]))
    ny = nx * int(rng.choice([1, 1, 1, 2]))
    u, v = coordinates(size)
    offset = 0.5 if ny > nx and rng.random() < 0.6 else 0.0
    row = (v * ny).astype(int) % ny
    x = u * nx + offset * (row % 2)
    column = x.astype(int) % nx
    first = warm_white(rng)
    colour = np.broadcast_to(first, (size, size, 3)).copy()
    if rng.random() < 0.35:
        second = random_colour(rng, 0.5)
        colour = np.where(((row + column) % 2 == 0)[..., None], colour, second)
    mottle = noise(rng, size, (4, 4), 5, 0.6) * rng.uniform(0, 0.06)
    jitter = rng.normal(0, rng.uniform(0, 0.06), (ny, nx))[row, column]
    colour = colour * (1 + mottle + jitter)[..., None]
    edge = np.minimum(np.minimum(x % 1, 1 - x % 1) / nx,
                      np.minimum(v * ny % 1, 1 - v * ny % 1) / ny)
    grout = edge < rng.uniform(0.002, 0.006)
    return np.where(grout[..., None], hsv(0.1, 0.06, rng.uniform(0.3, 0.85)), colour)


def brick(rng: Rng, size: int) -> Image:
    """Draw brickwork in running bond."""
    ny = int(rng.choice([10, 12, 16]))
    nx = ny // 2 - ny // 2 % 2
    u, v = coordinates(size)
    wobble = noise(rng, size, (24, 24), 2) * 0.0016
    y = (v + wobble) * ny
    row = np.floor(y).astype(int) % ny
    x = (u + wobble) * nx + 0.5 * (row % 2)
    column = np.floor(x).astype(int) % nx
    base = hsv(rng.uniform(0.0, 0.09), rng.uniform(0.2, 0.65), rng.uniform(0.35, 0.75))
    if rng.random() < 0.25:
        base = warm_white(rng)
    shade = rng.normal(1, 0.14, (ny, nx))[row, column] + 0.08 * noise(rng, size, (16, 16), 5, 0.8)
    edge = np.minimum(np.minimum(x % 1, 1 - x % 1) / nx, np.minimum(y % 1, 1 - y % 1) / ny)
    mortar = np.clip((edge - 0.004) * size / 2, 0, 1)
    joint = hsv(0.1, 0.08, rng.uniform(0.45, 0.8)) * np.ones((size, size, 3), np.float32)
    return mix(joint, base * shade[..., None], mortar)


def plaster(rng: Rng, size: int) -> Image:
    """Draw a painted wall: almost plain, with faint blotches."""
    fine = noise(rng, size, (48, 48), 4, 0.8) * rng.uniform(0.004, 0.03)
    blotch = noise(rng, size, (2, 2), 3) * rng.uniform(0.0, 0.03)
    return warm_white(rng) * (1 + fine + blotch)[..., None]


def whitewash(rng: Rng, size: int) -> Image:
    """Draw a wall painted white, grey or in a pale tint, with grime, scuffs and filled holes."""
    tint = rng.uniform(0, 0.06) if rng.random() < 0.8 else rng.uniform(0.06, 0.3)
    base = hsv(rng.choice([0.1, 0.12, 0.15, 0.35, 0.58]), tint, rng.uniform(0.72, 0.97))
    fine = noise(rng, size, (64, 64), 3, 0.8) * rng.uniform(0.003, 0.015)
    grime = np.clip(noise(rng, size, (3, 3), 5) - rng.uniform(0.2, 1.2), 0, 1)
    scuffs = np.clip(noise(rng, size, (4, 24), 4, 0.7) - rng.uniform(1.2, 2.5), 0, 1)
    wear = grime * rng.uniform(0, 0.15) + scuffs * rng.uniform(0, 0.4)
    image = mix(base * (1 + fine)[..., None], hsv(0.09, 0.3, 0.4), wear)
    u, v = coordinates(size)
    for x, y in rng.random((int(rng.integers(0, 5)), 2)):
        spot = (np.hypot(u - x, v - y) < rng.uniform(0.003, 0.015))[..., None]
        image = np.where(spot, image * rng.choice([0.5, 0.9, 1.04]), image)
    return image


def wallpaper(rng: Rng, size: int) -> Image:
    """Draw wallpaper with stripes or a repeated motif."""
    ground = warm_white(rng)
    ink = np.clip(ground * rng.uniform(0.55, 1.15) + rng.normal(0, 0.06, 3), 0, 1)
    u, v = coordinates(size)
    if rng.random() < 0.45:
        n = int(rng.choice([4, 8, 12]))
        pattern = np.clip(3 * np.sin(2 * np.pi * n * u) + rng.uniform(-2, 2), 0, 1)
    else:
        n = int(rng.choice([4, 6, 8]))
        column = np.floor(u * n)
        x, y = u * n % 1 - 0.5, (v * n + 0.5 * (column % 2)) % 1 - 0.5
        petals = int(rng.integers(3, 8))
        angle, radius = np.arctan2(y, x), np.hypot(x, y)
        pattern = np.clip((0.3 + 0.13 * np.cos(petals * angle) - radius) * 20, 0, 1)
        pattern = pattern - 0.7 * np.clip((0.12 - radius) * 20, 0, 1)
    return mix(ground, ink, pattern) * (1 + 0.01 * noise(rng, size, (64, 64), 2))[..., None]


def carpet(rng: Rng, size: int) -> Image:
    """Draw a pile carpet with fine tufts and wear."""
    base = random_colour(rng, 0.5)
    tufts = noise(rng, size, (size // 3, size // 3), 2, 0.7) * rng.uniform(0.06, 0.2)
    wear = noise(rng, size, (3, 3), 4) * rng.uniform(0.02, 0.08)
    return base * (1 + tufts + wear)[..., None]


def rug(rng: Rng, size: int) -> Image:
    """Draw a rug: a border around mirrored ornaments."""
    u, v = coordinates(size)
    x, y = np.abs(u - 0.5) * 2, np.abs(v - 0.5) * 2
    colours = np.stack([random_colour(rng) for _ in range(4)])
    if rng.random() < 0.6:
        colours[0] = hsv(rng.uniform(0.95, 1.06) % 1, rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.6))
    medallion = np.hypot(x, y * rng.uniform(0.8, 1.5))
    waves = (np.sin(medallion * rng.uniform(10, 30)) + np.cos(x * rng.integers(6, 24))
             * np.cos(y * rng.integers(6, 24)) + 0.4 * np.sin((x - y) ** 2 * rng.uniform(20, 60)))
    index = np.digitize(waves, [-0.7, 0.1, 0.9])
    edge = np.maximum(x, y)
    band = (edge > 0.8).astype(int)
    index = np.where(band, ((edge - 0.8) * 20).astype(int) % 4, index)
    index = np.where((edge > 0.84) & (edge < 0.94),
                     (np.sin((x + 3 * y) * 20) * np.sin((y + 3 * x) * 20) > 0) * 2 + 1, index)
    weave = 1 + 0.08 * noise(rng, size, (size // 4, size // 4), 2, 0.7)
    return np.asarray(colours[index] * weave[..., None])


def fabric(rng: Rng, size: int) -> Image:
    """Draw upholstery fabric: plain, striped, checked or blotched."""
    base, second = random_colour(rng, 0.7), random_colour(rng, 0.7)
    u, v = coordinates(size)
    threads = noise(rng, size, (96, 24), 3, 0.8) + noise(rng, size, (24, 96), 3, 0.8)
    colour = np.broadcast_to(base, (size, size, 3))
    style = rng.random()
    if style < 0.2:
        n = int(rng.integers(3, 14))
        colour = mix(base, second, (np.sin(2 * np.pi * n * u) > rng.uniform(-0.5, 0.8)) * 1.0)
    elif style < 0.32:
        n = int(rng.integers(2, 6))
        cross = (np.sin(2 * np.pi * n * u) > 0.2) * 0.5 + (np.sin(2 * np.pi * n * v) > 0.2) * 0.5
        colour = mix(base, second, cross)
    elif style < 0.45:
        blotch = noise(rng, size, (5, 5), 3)
        colour = mix(base, second, np.clip(blotch * 6, 0, 1))
    return colour * (1 + rng.uniform(0.03, 0.1) * threads)[..., None]


def leather(rng: Rng, size: int) -> Image:
    """Draw creased leather."""
    base = hsv(rng.uniform(0.02, 0.1), rng.uniform(0.1, 0.7), rng.uniform(0.1, 0.7))
    creases = np.abs(noise(rng, size, (24, 24), 4, 0.6))
    return np.asarray(base * (0.8 + 0.25 * np.clip(creases * 2, 0, 1))[..., None])


def marble(rng: Rng, size: int) -> Image:
    """Draw veined stone, light or dark."""
    veins = np.abs(noise(rng, size, (3, 3), 7, 0.55))
    ground = warm_white(rng) if rng.random() < 0.7 else random_colour(rng, 0.3) * 0.4
    ink = np.clip(ground * rng.uniform(0.4, 0.8) + rng.normal(0, 0.03, 3), 0, 1)
    cloud = 0.3 * np.clip(noise(rng, size, (4, 4), 5), -1, 1)
    return mix(ground, ink, np.clip(1 - veins * rng.uniform(3, 8), 0, 1) + cloud)


def granite(rng: Rng, size: int) -> Image:
    """Draw speckled stone or terrazzo."""
    colours = np.stack([random_colour(rng, 0.3) for _ in range(3)])
    speckle = noise(rng, size, (64, 64), 2, 0.6)
    return colours[np.digitize(speckle, [-0.5, 0.8])] * (
        1 + 0.05 * noise(rng, size, (4, 4), 3))[..., None]


def concrete(rng: Rng, size: int) -> Image:
    """Draw concrete with stains and cracks."""
    base = hsv(rng.uniform(0.08, 0.6), rng.uniform(0, 0.08), rng.uniform(0.35, 0.75))
    cloud = noise(rng, size, (3, 3), 7, 0.6) * rng.uniform(0.04, 0.1)
    stains = np.clip(noise(rng, size, (4, 4), 4) - 1.2, 0, 1) * rng.uniform(0, 0.3)
    crack = np.clip(1 - np.abs(noise(rng, size, (2, 2), 6, 0.6)) * 60, 0, 1) * rng.uniform(0, 0.4)
    return np.asarray(base * (1 + cloud - stains - crack)[..., None])


def asphalt(rng: Rng, size: int) -> Image:
    """Draw a road surface with grit, patches and cracks."""
    base = hsv(rng.uniform(0.05, 0.65), 0.04, rng.uniform(0.2, 0.45))
    grit = noise(rng, size, (size // 2, size // 2), 2, 0.9) * 0.14
    patches = noise(rng, size, (2, 3), 5) * 0.09
    crack = np.clip(1 - np.abs(noise(rng, size, (3, 3), 6, 0.6)) * 50, 0, 1) * rng.uniform(0, 0.4)
    return np.asarray(base * (1 + grit + patches - crack)[..., None])


def paving(rng: Rng, size: int) -> Image:
    """Draw paving slabs."""
    return tiles(rng, size) * 0.35 + concrete(rng, size) * 0.45


def grass(rng: Rng, size: int) -> Image:
    """Draw a lawn with bare patches."""
    green = hsv(rng.uniform(0.2, 0.32), rng.uniform(0.4, 0.7), rng.uniform(0.3, 0.5))
    blades = noise(rng, size, (size // 4, size // 4), 3, 0.8) * 0.25
    patch = np.clip(noise(rng, size, (4, 4), 5) * 0.5, 0, 0.7)
    return mix(green, hsv(0.12, 0.4, 0.45), patch) * (1 + blades)[..., None]


def leaf(rng: Rng, size: int) -> Image:
    """Draw a leaf with veins."""
    u, v = coordinates(size)
    green = hsv(rng.uniform(0.2, 0.4), rng.uniform(0.35, 0.8), rng.uniform(0.2, 0.55))
    veins = np.clip(np.sin((u + np.abs(v - 0.5)) * 80) * 2 - 1, 0, 1)
    return mix(green, green * 1.5, 0.5 * veins + 0.25 * noise(rng, size, (8, 8), 4))


def plain(rng: Rng, size: int) -> Image:
    """Draw almost white paint or plastic, to be tinted."""
    return np.repeat((0.93 + 0.02 * noise(rng, size, (4, 4), 6, 0.75))[..., None], 3, -1)


def brushed(rng: Rng, size: int) -> Image:
    """Draw brushed grey metal, to be tinted."""
    streaks = noise(rng, size, (2, size // 2), 3, 0.7) * 0.05 + 0.04 * noise(rng, size, (4, 4), 4)
    return np.repeat((0.75 + streaks)[..., None], 3, -1)


def rust(rng: Rng, size: int) -> Image:
    """Draw painted steel with scratches and rust."""
    paint = random_colour(rng)
    spots = np.clip(noise(rng, size, (6, 6), 7, 0.7) * 2 - rng.uniform(1.5, 4), 0, 1)
    scratch = np.clip(noise(rng, size, (3, 64), 3, 0.8) * 2 - 3.4, 0, 1)
    return mix(mix(paint, hsv(0.06, 0.7, 0.3), spots), np.full(3, 0.75), scratch)
