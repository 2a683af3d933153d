"""Pictures in a page: colours for depth and errors, and data URIs that need no other file."""

from __future__ import annotations

import base64
from typing import Any

import cv2
from matplotlib import colormaps
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.types import FloatImage, RgbImage

# Perceptually uniform and safe for red-green colour blindness.
DEPTH_COLORS, ERROR_COLORS = 'viridis_r', 'PuOr_r'
LARGEST_ERROR = 0.5
COLOR_PERCENTILES = (1.0, 99.0)
UNKNOWN_GREY = 217
JPEG_QUALITY = 80
KINDS = {'.jpg': 'jpeg', '.png': 'png'}


def colorize(values: NDArray[Any], colors: str, low: float, high: float) -> RgbImage:
    """Colour values [h, w]; NaN is grey, +inf (sky) the farthest colour; uint8 [h, w, 3]."""
    unit = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    rgb = colormaps[colors](np.nan_to_num(unit), bytes=True)[..., :3]
    rgb[np.isnan(values)] = UNKNOWN_GREY
    return np.asarray(rgb, np.uint8)


def color_limits(depth_m: FloatImage) -> tuple[float, float]:
    """Return the depths between which colours change, so that outliers do not stretch them."""
    known = depth_m[np.isfinite(depth_m)]
    low, high = np.percentile(known, COLOR_PERCENTILES) if known.size else (0.0, 1.0)
    return float(low), float(high)


def thumbnail_size(shape: tuple[int, ...], width_px: int) -> tuple[int, int]:
    """Return (width, height) of an image of a shape [H, W, ...] with at most so many columns."""
    reduction = max(1.0, shape[1] / width_px)
    return max(1, round(shape[1] / reduction)), max(1, round(shape[0] / reduction))


def resize_image(rgb: RgbImage, size: tuple[int, int]) -> RgbImage:
    """Resize an image to (width, height)."""
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def resize_map(values: NDArray[Any], size: tuple[int, int]) -> FloatImage:
    """Resize a map to (width, height); nearest neighbour mixes no depths and no NaN."""
    return np.asarray(cv2.resize(values.astype(np.float32), size,
                                 interpolation=cv2.INTER_NEAREST), np.float32)


def encode_picture(rgb: RgbImage, extension: str = '.jpg', quality: int = JPEG_QUALITY) -> bytes:
    """Encode an image, uint8 [h, w, 3], as JPEG of a quality, or as PNG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if extension == '.jpg' else []
    return bytes(cv2.imencode(extension, np.ascontiguousarray(rgb[..., ::-1]), options)[1])


def data_uri(picture: bytes, extension: str = '.jpg') -> str:
    """Return an encoded picture as the source of an <img>."""
    return f'data:image/{KINDS[extension]};base64,{base64.b64encode(picture).decode()}'


def scale_bar(colors: str) -> str:
    """Return a colour scale from low to high as a data URI."""
    bar = colorize(np.linspace(0, 1, 160)[None], colors, 0, 1)
    return data_uri(encode_picture(bar, '.png'), '.png')
