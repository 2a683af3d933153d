"""Draw textures that fill a face once: packages, book spines, pictures, screens, facades."""
from __future__ import annotations

import cv2
import numpy as np

from scenes.draws import Rng
from scenes.noise import coordinates, hsv, Image, mix, noise, random_colour, warm_white
from scenes.surfaces import brick, concrete, plaster


def cardboard(rng: Rng, size: int) -> Image:
    """Draw a face of a cardboard box: flutes, tape, sometimes a label."""
    base = hsv(rng.uniform(0.07, 0.1), rng.uniform(0.3, 0.5), rng.uniform(0.5, 0.75))
    image = base * (1 + 0.03 * noise(rng, size, (2, 96), 2)
                    + 0.04 * noise(rng, size, (3, 3), 5))[..., None]
    _, v = coordinates(size)
    tape = np.abs(v - 0.5) < rng.uniform(0.03, 0.06)
    image = np.where(tape[..., None], image * 0.3 + 0.65 * hsv(0.1, 0.25, 0.8), image)
    if rng.random() < 0.7:
        _draw_label(rng, image)
    return image


def _draw_label(rng: Rng, image: Image) -> None:
    """Draw a label with lines of text and a bar code into an image, in place."""
    size = len(image)
    h, w = (int(s * size) for s in rng.uniform(0.15, 0.35, 2))
    y, x = int(rng.integers(1, size - h)), int(rng.integers(1, size - w))
    label = image[y:y + h, x:x + w]
    label[:] = hsv(rng.random(), 0.1 * rng.random(), 0.92)
    _draw_text(rng, label[: h // 2], 3)
    bars = np.repeat(rng.random(w // 2 + 1) < 0.5, 2)[:w]
    label[int(h * 0.6):int(h * 0.9), bars] = 0.1


def _draw_text(rng: Rng, image: Image, lines: int) -> None:
    """Draw lines of text as dark bars, in place."""
    h, w = image.shape[:2]
    pitch = max(2, h // (lines + 1))
    for y in range(pitch // 2, h - pitch // 2, pitch):
        words = np.repeat(rng.random(w // 3 + 1) < 0.75, 3)[:w]
        words[int(w * rng.uniform(0.5, 0.97)):] = False
        words[:w // 20] = False
        image[y:y + max(1, pitch // 2), words] = 0.15


def book(rng: Rng, size: int) -> Image:
    """Draw a grey book spine with bands and a title, to be tinted."""
    image = np.repeat((0.8 + 0.03 * noise(rng, size, (4, 4), 5))[..., None], 3, -1)
    u, v = coordinates(size)
    for _ in range(int(rng.integers(1, 4))):
        at, width = rng.uniform(0.05, 0.95), rng.uniform(0.01, 0.06)
        image[np.abs(v - at) < width] = hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.4, 1))
    title = (np.abs(u - 0.5) < rng.uniform(0.1, 0.25)) & (np.abs(v - 0.55) < rng.uniform(0.1, 0.3))
    letters = np.repeat(rng.random((size // 8, 1)) < 0.75, 8, axis=0)
    image[title & letters] = hsv(0.13, rng.uniform(0, 0.6), rng.uniform(0.6, 1))
    return image


def packaging(rng: Rng, size: int) -> Image:
    """Draw a printed package: coloured shapes and lines of text."""
    image = np.broadcast_to(random_colour(rng), (size, size, 3)).copy()
    for _ in range(int(rng.integers(2, 7))):
        colour = [float(c) for c in random_colour(rng)]
        x, y = (int(p) for p in rng.integers(0, size, 2))
        if rng.random() < 0.5:
            cv2.circle(image, (x, y), int(size * rng.uniform(0.05, 0.3)), colour, -1, cv2.LINE_AA)
        else:
            w, h = (int(p) for p in rng.uniform(0.1, 0.9, 2) * size)
            cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
    _draw_text(rng, image[int(size * 0.7):int(size * 0.92), size // 8:-size // 8], 4)
    return np.asarray(image)


def picture(rng: Rng, size: int) -> Image:
    """Draw a landscape, abstract painting or portrait, sometimes with a mount."""
    style = rng.random()
    if style < 0.45:
        image = _draw_landscape(rng, size)
    elif style < 0.8:
        image = packaging(rng, size) * (1 + 0.05 * noise(rng, size, (32, 32), 3))[..., None]
    else:
        image = _draw_portrait(rng, size)
    if rng.random() < 0.5:
        mount = int(size * rng.uniform(0.08, 0.18))
        framed = np.full((size, size, 3), 0.92, np.float32)
        framed[mount:-mount, mount:-mount] = image[mount:-mount, mount:-mount]
        return framed
    return image


def _draw_landscape(rng: Rng, size: int) -> Image:
    _, v = coordinates(size)
    sky = mix(hsv(rng.uniform(0.02, 0.65), rng.uniform(0.1, 0.5), 0.95),
              hsv(rng.uniform(0.5, 0.66), rng.uniform(0.2, 0.6), 0.7), (v - 0.4) * 1.8)
    image = mix(sky, np.full(3, 0.95), np.clip(noise(rng, size, (3, 6), 5) * 0.6, 0, 1))
    for i in range(int(rng.integers(2, 5))):
        ridge = 0.55 - 0.13 * i + 0.06 * noise(rng, size, (3, 1), 6, 0.5)[size // 2]
        colour = hsv(rng.uniform(0.15, 0.65), rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6))
        shade = colour * (1 + 0.15 * noise(rng, size, (12, 12), 4))[..., None]
        image = np.where((v < ridge[None])[..., None], shade, image)
    return np.asarray(image, np.float32)


def _draw_portrait(rng: Rng, size: int) -> Image:
    image = random_colour(rng, 0.5) * (1 + 0.1 * noise(rng, size, (3, 3), 4))[..., None]
    image = np.ascontiguousarray(image, np.float32)
    skin = hsv(rng.uniform(0.04, 0.08), rng.uniform(0.25, 0.5), rng.uniform(0.35, 0.9))
    for colour, centre, axes in ((random_colour(rng), (0.5, 1.0), (0.34, 0.32)),
                                 (skin * 0.9, (0.5, 0.68), (0.08, 0.12)),
                                 (random_colour(rng) * 0.4, (0.5, 0.4), (0.2, 0.24)),
                                 (skin, (0.5, 0.46), (0.155, 0.2))):
        cv2.ellipse(image, [int(c * size) for c in centre], [int(a * size) for a in axes],
                    0, 0, 360, [float(c) for c in colour], -1, cv2.LINE_AA)
    return image


def screen(rng: Rng, size: int) -> Image:
    """Draw a screen: windows with text on a desktop, or a landscape."""
    if rng.random() < 0.3:
        return _draw_landscape(rng, size) * 0.9
    image = np.broadcast_to(random_colour(rng) * 0.5, (size, size, 3)).copy()
    for _ in range(int(rng.integers(1, 4))):
        x, y = (int(p) for p in rng.uniform(0.02, 0.5, 2) * size)
        w, h = (int(p) for p in rng.uniform(0.3, 0.48, 2) * size)
        window = image[y:y + h, x:x + w]
        window[:] = rng.choice([0.12, 0.95])
        _draw_text(rng, window[size // 20:], int(rng.integers(6, 14)))
        window[:size // 24] = random_colour(rng)
    return np.asarray(image)


def facade(rng: Rng, size: int) -> Image:
    """Draw one bay of one storey of a building: wall and window."""
    wall = brick(rng, size) if rng.random() < 0.4 else (
        plaster(rng, size) if rng.random() < 0.6 else concrete(rng, size))
    u, v = coordinates(size)
    half_w, half_h = rng.uniform(0.15, 0.38), rng.uniform(0.2, 0.36)
    x, y = np.abs(u - 0.5) / half_w, np.abs(v - 0.52) / half_h
    frame = np.full(3, rng.choice([0.9, 0.25, 0.5]), np.float32) * warm_white(rng)
    glass = mix(hsv(0.6, 0.2, 0.15), hsv(0.58, rng.uniform(0.1, 0.4), rng.uniform(0.3, 0.8)),
                v + 0.2 * noise(rng, size, (3, 3), 3))
    image = np.where((np.maximum(x, y) < 1.12)[..., None], wall * 0.8, wall)
    image = np.where((np.maximum(x, y) < 1)[..., None], frame, image)
    panes = (np.maximum(x, y) < 0.92) & (np.abs(u - 0.5) > 0.008)
    if rng.random() < 0.5:
        panes &= np.abs(v - 0.52 - half_h * 0.3) > 0.008
    return np.where(panes[..., None], glass, image)


def fridge(rng: Rng, size: int) -> Image:
    """Draw a refrigerator door with notes on it."""
    image = np.repeat((0.85 + 0.02 * noise(rng, size, (2, 64), 3))[..., None], 3, -1)
    for _ in range(int(rng.integers(0, 7))):
        h, w = (int(p) for p in rng.uniform(0.04, 0.14, 2) * size)
        y, x = (int(p) for p in rng.integers(0, size - max(h, w), 2))
        image[y:y + h, x:x + w] = random_colour(rng)
        _draw_text(rng, image[y:y + h, x:x + w], 4)
    return np.asarray(image)
