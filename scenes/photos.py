"""Turn photographs into textures: crop, make tileable, flip, recolour."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import MarigoldError
from scenes import textures
from scenes.draws import Rng

# Kinds that fill a face once; the others repeat.
PRINTS = frozenset(('picture', 'screen', 'packaging', 'book', 'cardboard', 'facade', 'fridge',
                    'rug'))
# Kinds that come in many colours; a photograph of them takes the mean colour of a procedural one.
DYED = frozenset(('fabric', 'carpet', 'wallpaper', 'plaster', 'wood', 'planks', 'brick', 'tiles',
                  'leather'))
DYED_SHARE = 0.5
# Share of the width over which the opposite edges of a crop are blended.
SEAM = 0.15
# An image is seamless if its edges differ at most this many times more than its neighbouring rows.
SEAMLESS_RATIO = 2.0
# Mean difference of the channels below which a photograph counts as grey, 0..255.
GREY = 6.0

Pixels = NDArray[np.uint8]


def make_texture(file: Path, kind: str, rng: Rng, size: int) -> Pixels:
    """
    Make a texture of a photograph.

    Parameters
    ----------
    file : Path
    kind : str
        A key of `textures.KINDS`.
    rng : numpy.random.Generator
        Draws the crop, the flips and the colour.
    size : int
        Side of the texture, px.

    Returns
    -------
    [size,size,3] uint8
        sRGB; tileable unless the kind is a print.

    Raises
    ------
    MarigoldError
        If the file is not an image.
    """
    image = read_image(file, 2 * size)
    if kind in PRINTS:
        cropped = _resize(_crop(image, rng, 0.75), size)
    elif _is_seamless(image):
        shift = rng.integers(0, size, 2)
        cropped = np.roll(_resize(image, size), (int(shift[0]), int(shift[1])), (0, 1))
    else:
        cropped = _blend_edges(_crop(image, rng, 0.6), size)
    if kind not in PRINTS and rng.random() < 0.5:
        cropped = cropped[::-1]
    # Prints keep their direction of reading.
    if kind not in ('packaging', 'book', 'cardboard') and rng.random() < 0.5:
        cropped = cropped[:, ::-1]
    return _recolour(cropped, kind, rng)


@lru_cache(maxsize=128)
def read_image(file: Path, limit: int) -> Pixels:
    """
    Read an image, reduced so that its shorter side has at most `limit` pixels.

    Returns
    -------
    [h,w,3] uint8
        sRGB.

    Raises
    ------
    MarigoldError
        If the file is not an image.
    """
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise MarigoldError(f'`textures` must match image files; got {str(file)!r}')
    scale = limit / min(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(image[..., ::-1], np.uint8)


def _crop(image: Pixels, rng: Rng, smallest: float) -> Pixels:
    """Cut a random square whose side is at least `smallest` of the shorter side."""
    side = max(1, int(min(image.shape[:2]) * rng.uniform(smallest, 1)))
    top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
    return image[top:top + side, left:left + side]


def _resize(image: Pixels, size: int) -> Pixels:
    smooth = cv2.INTER_AREA if min(image.shape[:2]) > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=smooth),
                      np.uint8)


def _is_seamless(image: Pixels) -> bool:
    """Check whether the edges fit together as well as neighbouring rows and columns do."""
    if not 0.8 < image.shape[0] / image.shape[1] < 1.25:
        return False
    values = image.astype(np.float32)
    for turned in (values, values.transpose(1, 0, 2)):
        inside = np.abs(np.diff(turned, axis=0)).mean()
        if np.abs(turned[0] - turned[-1]).mean() > SEAMLESS_RATIO * inside + 1:
            return False
    return True


def _blend_edges(image: Pixels, size: int) -> Pixels:
    """Resize a square and fade its opposite edges into each other, so that it tiles."""
    margin = max(1, int(SEAM * size))
    values = _resize(image, size + margin).astype(np.float32)
    fade = np.linspace(0, 1, margin, dtype=np.float32)[:, None, None]
    for _ in range(2):
        inner = values[:size].copy()
        inner[:margin] = values[size:] * (1 - fade) + inner[:margin] * fade
        values = inner.transpose(1, 0, 2)
    return np.asarray(values, np.uint8)


def _recolour(image: Pixels, kind: str, rng: Rng) -> Pixels:
    """Give dyed kinds the mean colour of a procedural texture; vary the tint of all."""
    mean = image.reshape(-1, 3).mean(0)
    dyed = kind in DYED and (float(np.ptp(mean)) < GREY or rng.random() < DYED_SHARE)
    if dyed:
        target = textures.bake(kind, rng, 16).reshape(-1, 3).mean(0)
        gain = np.clip(target / np.maximum(mean, 1), 0.25, 3.0)
    else:
        gain = rng.uniform(0.8, 1.15) * (1 + rng.normal(0, 0.03, 3))
    # Bright texels saturate softly, not to flat white.
    scaled = image / 255.0 * gain
    return np.asarray(255 * np.where(scaled < 0.8, scaled, 1 - 0.2 * np.exp(
        -(np.maximum(scaled, 0.8) - 0.8) / 0.2)), np.uint8)
