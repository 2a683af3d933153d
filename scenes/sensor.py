"""Convert linear radiance to an 8-bit image: exposure, lens, noise and tone curve."""
from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.meshes import Floats
from scenes.scene_types import Sensor


def sample_sensor(rng: np.random.Generator) -> Sensor:
    """
    Sample the parameters of a camera sensor.

    Returns
    -------
    Sensor
    """
    warmth, magenta = rng.normal(0, 0.06), rng.normal(0, 0.02)
    return Sensor(exposure_ev=float(np.clip(rng.normal(0.1, 0.6), -1.5, 1.5)),
                  white_balance=(1 + warmth, 1 + magenta, 1 - warmth),
                  noise=float(rng.exponential(0.012)),
                  vignette=float(max(0, rng.normal(0.1, 0.12))),
                  blur_px=float(max(0, rng.normal(0.15, 0.3))),
                  contrast=float(rng.uniform(0.85, 1.25)), seed=int(rng.integers(1 << 31)))


def develop(radiance: Floats, sensor: Sensor) -> NDArray[np.uint8]:
    """
    Convert radiance to an image.

    Parameters
    ----------
    radiance : [H,W,3] float32
        Linear radiance in any unit.
    sensor : Sensor

    Returns
    -------
    [H,W,3] uint8
        sRGB.
    """
    rng = np.random.default_rng([sensor.seed, 2])
    height, width = radiance.shape[:2]
    gain = meter_exposure(radiance) if sensor.gain is None else sensor.gain
    light = radiance * (gain * 2.0 ** sensor.exposure_ev)
    light = light * np.array(sensor.white_balance, np.float32)
    if sensor.vignette:
        y, x = np.ogrid[-1:1:height * 1j, -1:1:width * 1j]
        light = light * (1 - sensor.vignette * (x * x + y * y) / 2)[..., None].astype(np.float32)
    if sensor.blur_px > 0.2:
        light = cv2.GaussianBlur(np.minimum(light, 8), (0, 0), sensor.blur_px)
    if sensor.noise:
        sigma = sensor.noise * np.sqrt(np.maximum(light, 0) * 0.16 + 0.008)
        light = light + sigma * rng.standard_normal(light.shape, dtype=np.float32)
    light = np.maximum(light, 0)
    # Extended Reinhard tone mapping: highlights saturate at 6 times the metered white.
    light = light * (1 + light / 36) / (1 + 0.6 * light)
    display = np.clip(light, 0, 1) ** np.float32(1 / 2.2)
    display += (sensor.contrast - 1) * 0.6 / np.pi * np.sin(2 * np.pi * (display - 0.5))
    return np.asarray(np.clip(display, 0, 1) * 255 + 0.5, np.uint8)


def meter_exposure(radiance: Floats) -> float:
    """
    Compute the gain that maps the mean luminance to middle grey, limited by the highlights.

    Parameters
    ----------
    radiance : [H,W,3] float32

    Returns
    -------
    float
    """
    grey = radiance @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    bright = float(np.percentile(grey, 90))
    middle = float(np.exp(np.mean(np.log(np.clip(grey, bright * 1e-3 + 1e-8, bright + 1e-8)))))
    return min(0.2 / (middle + 1e-8), 1.6 / (bright + 1e-8))
