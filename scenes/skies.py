"""Make cloudy skies above a horizon of trees and houses, and suns."""
from __future__ import annotations

import numpy as np

from scenes import noise
from scenes.meshes import Floats
from scenes.scene_types import Light

_SIZE = 512


def make_sky(rng: np.random.Generator, brightness: float = 1.0) -> Floats:
    """
    Make a sky as radiance by direction.

    Parameters
    ----------
    rng : numpy.random.Generator
    brightness : float
        Approximate radiance at the middle of the sky.

    Returns
    -------
    [256,512,3] float32
        Linear radiance; rows from zenith to nadir, columns by azimuth.
    """
    v = np.linspace(0, 1, _SIZE // 2, dtype=np.float32)[:, None]
    blue = noise.hsv(rng.uniform(0.54, 0.62), rng.uniform(0.15, 0.65), rng.uniform(0.5, 0.9))
    haze = noise.hsv(rng.uniform(0.05, 0.6), rng.uniform(0, 0.25), rng.uniform(0.8, 1.0))
    sky = noise.mix(blue, haze, np.repeat(np.clip(v * 2, 0, 1) ** 2, _SIZE, 1))
    cover = rng.uniform(-1.2, 1.2)
    clouds = np.clip(noise.noise(rng, _SIZE, (6, 12), 6)[:_SIZE // 2] * 0.9 + cover, 0, 1)
    sky = noise.mix(sky, np.full(3, rng.uniform(0.75, 1.1)), clouds * np.clip(3 - 5 * v, 0, 1))
    ground = noise.random_colour(rng, 0.4) ** 2 * 0.5 + 0.03
    sky = np.where(v[..., None] > 0.502, ground, sky)
    for shade, height in ((0.5, 0.05), (0.3, 0.03)):
        skyline = rng.uniform(0, height) + height * np.abs(
            noise.noise(rng, _SIZE, (16, 1), 6, 0.7)[0])
        if rng.random() < 0.5:
            skyline = np.repeat(skyline[::12], 12)[:_SIZE]
        colour = noise.random_colour(rng, 0.5) * shade
        sky = np.where(((v > 0.5 - skyline) & (v < 0.52))[..., None], colour, sky)
    return np.asarray(sky * brightness, np.float32)


def make_sun(rng: np.random.Generator, irradiance: float, azimuth: float | None = None) -> Light:
    """
    Make a sun between 15 and 65 degrees above the horizon.

    Parameters
    ----------
    rng : numpy.random.Generator
    irradiance : float
        On a surface that faces the sun.
    azimuth : float or None
        Direction to the sun, radians; random if None.

    Returns
    -------
    Light
    """
    height = rng.uniform(0.26, 1.13)
    around = rng.uniform(0, 2 * np.pi) if azimuth is None else azimuth
    towards = np.array([np.cos(height) * np.cos(around), np.cos(height) * np.sin(around),
                        np.sin(height)], np.float32)
    colour = np.array([1.0, 0.78 + 0.2 * np.sin(height), 0.5 + 0.45 * np.sin(height)], np.float32)
    return Light('sun', towards, colour * np.float32(irradiance), radius_m=0.008)
