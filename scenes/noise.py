"""Periodic noise and random colours for textures."""
from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from scenes.draws import Rng

Image = NDArray[np.floating[Any]]


def noise(rng: Rng, size: int, cells: tuple[int, int], octaves: int = 5,
          gain: float = 0.5) -> Image:
    """
    Generate periodic value noise summed over octaves.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int
        Side of the image, px.
    cells : (int, int)
        Noise cells across u and v in the first octave.
    octaves : int
    gain : float
        Ratio of the amplitudes of successive octaves.

    Returns
    -------
    [size,size] float32
        Zero mean and about unit standard deviation.
    """
    # A separate generator, so that later draws do not depend on the texture size.
    own = np.random.default_rng(rng.integers(1 << 63))
    total = np.zeros((size, size), np.float32)
    amplitude, energy = 1.0, 0.0
    for octave in range(octaves):
        nx, ny = (min(c << octave, size) for c in cells)
        coarse = own.standard_normal((ny, nx)).astype(np.float32)
        total += amplitude * _enlarge(coarse, size)
        energy += amplitude ** 2
        amplitude *= gain
        if nx == ny == size:
            break
    return np.asarray(total / np.sqrt(energy), np.float32)


def _enlarge(coarse: Image, size: int) -> Image:
    """Enlarge a periodic grid with a cubic filter and keep it periodic."""
    pads = []
    for n in coarse.shape:
        # Pad each side by a number of cells whose width in pixels is an integer.
        whole = n // math.gcd(n, size)
        pads.append(whole * -(-2 // whole))
    wrapped = np.pad(coarse, [(pad, pad) for pad in pads], mode='wrap')
    ratio_y, ratio_x = size / coarse.shape[0], size / coarse.shape[1]
    large = cv2.resize(wrapped, None, fx=ratio_x, fy=ratio_y, interpolation=cv2.INTER_CUBIC)
    y, x = round(pads[0] * ratio_y), round(pads[1] * ratio_x)
    return np.asarray(large[y:y + size, x:x + size], np.float32)


def coordinates(size: int) -> tuple[Image, Image]:
    """
    Return the texture coordinates of the pixel centres.

    Returns
    -------
    u, v : [size,size] float32
        In 0..1; v points up.
    """
    t = (np.arange(size, dtype=np.float32) + 0.5) / size
    u, v = np.meshgrid(t, 1 - t)
    return u.astype(np.float32), v.astype(np.float32)


def mix(a: ArrayLike, b: ArrayLike, weight: Image) -> Image:
    """
    Blend two colours or images; weight 0 gives `a`, 1 gives `b`.

    Returns
    -------
    [size,size,3] float32
    """
    w = np.clip(weight, 0, 1)[..., None]
    return np.asarray(np.asarray(a, np.float32) * (1 - w) + np.asarray(b, np.float32) * w)


def hsv(h: float, s: float, v: float) -> Image:
    """
    Convert hue, saturation, value in 0..1 to RGB.

    Returns
    -------
    [3] float32
    """
    k = (np.array([5.0, 3.0, 1.0]) + h * 6) % 6
    return np.asarray(v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1), np.float32)


def random_colour(rng: Rng, saturation: float = 0.8) -> Image:
    """
    Sample a colour of any hue, saturation and value, RGB in 0..1.

    Returns
    -------
    [3] float32
    """
    return hsv(rng.random(), saturation * rng.random() ** 1.8, 0.12 + 0.85 * rng.random())


def warm_white(rng: Rng) -> Image:
    """
    Sample a wall colour: white or grey, sometimes a muted hue; RGB in 0..1.

    Returns
    -------
    [3] float32
    """
    if rng.random() < 0.65:
        return hsv(rng.uniform(0.05, 0.16), rng.uniform(0, 0.18), rng.uniform(0.72, 0.95))
    return hsv(rng.random(), rng.uniform(0.1, 0.4), rng.uniform(0.45, 0.85))


def wood_colours(rng: Rng) -> tuple[Image, Image]:
    """
    Sample the light and dark colour of a wood, RGB in 0..1.

    Returns
    -------
    light, dark : [3] float32
    """
    value = rng.uniform(0.3, 0.9)
    light = hsv(rng.uniform(0.05, 0.105), rng.uniform(0.25, 0.6) * (1.25 - 0.5 * value), value)
    if rng.random() < 0.12:
        light = light.mean() * np.array([1, 0.98, 0.95], np.float32)
    return light, light * np.array([0.62, 0.52, 0.45], np.float32) ** rng.uniform(0.4, 1.1)
