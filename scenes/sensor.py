"""Convert linear radiance to an 8-bit image: exposure, lens, noise, tone curve, compression."""
from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.meshes import Floats
from scenes.scene_types import Sensor

Image = NDArray[np.uint8]

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
# Light of this exposure saturates a pixel of the sensor.
_FULL_WELL = 8.0


def sample_sensor(rng: np.random.Generator) -> Sensor:
    """
    Sample a camera, from a good one in daylight to a cheap one that is moved in the dark.

    Returns
    -------
    Sensor
    """
    # One quality for the whole camera: a noisy one is also blurred and compressed more.
    cheapness = float(rng.beta(1.2, 1.8))
    warmth, magenta = rng.normal(0, 0.05 + 0.12 * cheapness), rng.normal(0, 0.03)
    moves = rng.random() < 0.25
    speed, direction = rng.exponential(1.5) if moves else 0.0, rng.uniform(0, 2 * np.pi)
    return Sensor(
        exposure_ev=float(np.clip(rng.normal(0.1, 0.6), -1.5, 1.5)),
        keeps_highlights=bool(rng.random() < 0.4),
        white_balance=(1 + warmth, 1 + magenta, 1 - warmth),
        noise=float(rng.exponential(0.006 + 0.03 * cheapness)),
        mosaic=bool(rng.random() < 0.5),
        vignette=float(max(0, rng.normal(0.1, 0.15))),
        blur_px=float(max(0, rng.normal(0.1 + 0.5 * cheapness, 0.3))),
        motion_px=(float(speed * np.cos(direction)), float(speed * np.sin(direction))),
        colour_fringe=float(rng.normal(0, 0.004)) if rng.random() < 0.2 else 0.0,
        contrast=float(rng.uniform(0.8, 1.3)), saturation=float(rng.uniform(0.6, 1.4)),
        sharpening=float(rng.uniform(0.0, 1.5)) if rng.random() < 0.4 else 0.0,
        jpeg_quality=int(rng.integers(30, 96)) if rng.random() < 0.6 else None,
        border=_sample_border(rng), border_grey=int(rng.choice([0, 0, 255])),
        seed=int(rng.integers(1 << 31)))


def _sample_border(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Sample the letterbox of a film, the frame of a registered image, or mostly no border."""
    kind, width = rng.random(), float(rng.uniform(0.02, 0.12))
    if kind < 0.03:
        return 0.0, width, 0.0, width
    if kind < 0.06:
        return width / 3, width / 2, width / 2, width / 3
    return 0.0, 0.0, 0.0, 0.0


def develop(radiance: Floats, sensor: Sensor) -> Image:
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
    # 1. Expose, through the lens.
    gain = (meter_exposure(radiance, keep_highlights=sensor.keeps_highlights)
            if sensor.gain is None else sensor.gain)
    light = radiance * (gain * 2.0 ** sensor.exposure_ev)
    light = _pass_lens(light * np.array(sensor.white_balance, np.float32), sensor)
    # 2. Measure it, with noise that grows with the square root of the light.
    if sensor.noise:
        rng = np.random.default_rng([sensor.seed, 2])
        sigma = sensor.noise * np.sqrt(np.maximum(light, 0) * 0.16 + 0.008)
        light = light + sigma * rng.standard_normal(light.shape, dtype=np.float32)
    light = np.maximum(light, 0)
    if sensor.mosaic:
        light = _interpolate_mosaic(light)
    # 3. Process it as cameras do.
    return _compress(_process(light, sensor), sensor.jpeg_quality)


def _pass_lens(light: Floats, sensor: Sensor) -> Floats:
    """Darken the corners, blur, and shift red against blue."""
    height, width = light.shape[:2]
    if sensor.vignette:
        y, x = np.ogrid[-1:1:height * 1j, -1:1:width * 1j]
        light = light * (1 - sensor.vignette * (x * x + y * y) / 2)[..., None].astype(np.float32)
    if sensor.blur_px > 0.2:
        light = np.asarray(cv2.GaussianBlur(np.minimum(light, _FULL_WELL), (0, 0),
                                            sensor.blur_px), np.float32)
    if np.hypot(*sensor.motion_px) > 0.5:
        light = np.asarray(cv2.filter2D(np.minimum(light, _FULL_WELL), -1,
                                        _motion_kernel(sensor.motion_px)), np.float32)
    return _shift_colours(light, sensor.colour_fringe) if sensor.colour_fringe else light


def _shift_colours(light: Floats, fringe: float) -> Floats:
    """Enlarge the red image and shrink the blue one, as a lens that bends colours unequally."""
    height, width = light.shape[:2]
    shifted = light.copy()
    for channel, scale in ((0, 1 + fringe), (2, 1 - fringe)):
        matrix = np.array([[scale, 0, (1 - scale) * width / 2],
                           [0, scale, (1 - scale) * height / 2]])
        shifted[..., channel] = cv2.warpAffine(
            np.ascontiguousarray(light[..., channel]), matrix, (width, height),
            borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(shifted, np.float32)


def _motion_kernel(motion_px: tuple[float, float]) -> Floats:
    """Draw a line of the given length and direction, [n,n], with sum 1."""
    radius = int(np.ceil(np.abs(motion_px).max() / 2))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    steps = np.linspace(-0.5, 0.5, 8 * radius + 1)
    x, y = (np.rint(radius + steps * motion).astype(int) for motion in motion_px)
    np.add.at(kernel, (y, x), 1.0)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _interpolate_mosaic(light: Floats) -> Floats:
    """Keep one colour of each pixel, red, green, green, blue, and interpolate the others."""
    scale = 65535 / _FULL_WELL
    raw = np.empty(light.shape[:2], np.float32)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        raw[row::2, column::2] = light[row::2, column::2, channel]
    measured = np.asarray(np.minimum(raw, _FULL_WELL) * scale, np.uint16)
    return np.asarray(cv2.cvtColor(measured, cv2.COLOR_BayerRGGB2RGB), np.float32) / scale


def _process(light: Floats, sensor: Sensor) -> Image:
    """Apply the tone curve, contrast, saturation and sharpening."""
    # Extended Reinhard tone mapping: highlights saturate at 6 times the metered white.
    light = light * (1 + light / 36) / (1 + 0.6 * light)
    display = np.clip(light, 0, 1) ** np.float32(1 / 2.2)
    display += (sensor.contrast - 1) * 0.6 / np.pi * np.sin(2 * np.pi * (display - 0.5))
    if sensor.saturation != 1.0:
        grey = (display @ _LUMINANCE)[..., None]
        display = grey + sensor.saturation * (display - grey)
    if sensor.sharpening:
        display += sensor.sharpening * (display - cv2.GaussianBlur(display, (0, 0), 1.0))
    return np.asarray(np.clip(display, 0, 1) * 255 + 0.5, np.uint8)


def _compress(image: Image, jpeg_quality: int | None) -> Image:
    """Compress as JPEG with half the resolution in colour, and decompress."""
    if jpeg_quality is None:
        return image
    bgr = np.ascontiguousarray(image[..., ::-1])
    _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]


def add_border(rgb: Image, depth_m: Floats, sensor: Sensor) -> None:
    """
    Cover the edges of an image with the sensor's plain border, in place; the depth there is 0.

    Parameters
    ----------
    rgb : [H,W,3] uint8
    depth_m : [H,W] float32
    sensor : Sensor
    """
    height, width = depth_m.shape
    left, top, right, bottom = np.rint(
        np.array(sensor.border) * [width, height, width, height]).astype(int)
    covered = np.ones((height, width), bool)
    covered[top:height - bottom, left:width - right] = False
    rgb[covered], depth_m[covered] = sensor.border_grey, 0.0


def meter_exposure(radiance: Floats, *, keep_highlights: bool = True) -> float:
    """
    Compute the gain that maps the mean luminance to middle grey.

    Parameters
    ----------
    radiance : [H,W,3] float32
    keep_highlights : bool
        Whether the brightest tenth of the image limits the gain.

    Returns
    -------
    float
    """
    grey = radiance @ _LUMINANCE
    bright = float(np.percentile(grey, 90))
    middle = float(np.exp(np.mean(np.log(np.clip(grey, bright * 1e-3 + 1e-8, bright + 1e-8)))))
    gain = 0.2 / (middle + 1e-8)
    return min(gain, 1.6 / (bright + 1e-8)) if keep_highlights else gain
