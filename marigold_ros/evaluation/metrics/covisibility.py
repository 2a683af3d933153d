"""The pixels of a surface that two frames both see, and how much predicted depth jumps on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.geometry.unproject import project, unproject

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, RgbImage

# A point nearer or farther than what the frame before saw there, by more than this part, was
# hidden.
OCCLUSION = 0.05
# So that a pixel of the border which has not moved is not lost.
ROUNDING_PX = 1e-3
# Without poses, a pixel is static whose true depth and brightness change by no more than that.
STATIC_DEPTH, STATIC_GREY = 0.01, 8

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Covisible:
    """
    Where the pixels of a frame lie in the frame before.

    Attributes
    ----------
    seen : bool [H, W]
        Pixels of the current frame that the frame before saw.
    u, v : float32 [H, W]
        Their columns and rows there, px; NaN where the depth is unknown.
    gain : float64 [H, W]
    offset_m : float
        A depth d there is the depth gain * d + offset_m here: the point moves along its old ray.
    """

    seen: NDArray[np.bool_]
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    gain: NDArray[np.float64]
    offset_m: float


def covisible(depth_m: FloatImage, previous_depth_m: FloatImage, K: Matrix,
              previous_from_current: Matrix) -> Covisible:
    """
    Find the pixels of a frame in the frame before.

    Parameters
    ----------
    depth_m, previous_depth_m : float32 [H, W]
        True depth of both, m; NaN unknown.
    K : float64 [3, 3]
        Intrinsics of both.
    previous_from_current : float64 [4, 4]
        Motion of the optical frame.
    """
    points = unproject(depth_m, K).astype(np.float64)
    moved = points @ previous_from_current[:3, :3].T + previous_from_current[:3, 3]
    pixels = project(moved, K)
    height, width = depth_m.shape
    border = (width - 1 + ROUNDING_PX, height - 1 + ROUNDING_PX)
    inside = ((pixels >= -ROUNDING_PX) & (pixels <= border)).all(axis=-1)
    there = _sample(previous_depth_m, pixels[..., 0], pixels[..., 1])
    with np.errstate(invalid='ignore'):
        seen = inside & (np.abs(there - moved[..., 2]) <= OCCLUSION * moved[..., 2])
    current_from_previous = np.linalg.inv(previous_from_current)
    u, v = pixels[..., 0].astype(np.float32), pixels[..., 1].astype(np.float32)
    with np.errstate(divide='ignore', invalid='ignore'):
        gain = moved / moved[..., 2:] @ current_from_previous[2, :3]
    return Covisible(seen, u, v, gain, float(current_from_previous[2, 3]))


def unchanged(depth_m: FloatImage, previous_depth_m: FloatImage, rgb: RgbImage,
              previous_rgb: RgbImage) -> Covisible:
    """
    Find the pixels in which nothing moved, for a camera whose pose is unknown.

    Parameters
    ----------
    depth_m, previous_depth_m : float32 [H, W]
        True depth of both, m; NaN unknown.
    rgb, previous_rgb : uint8 [H, W, 3]
        Of the same size.
    """
    grey, previous_grey = (image.astype(np.float32).mean(axis=-1) for image in (rgb, previous_rgb))
    with np.errstate(invalid='ignore'):
        seen = ((np.abs(depth_m - previous_depth_m) <= STATIC_DEPTH * depth_m)
                & (np.abs(grey - previous_grey) <= STATIC_GREY))
    v, u = np.meshgrid(*(np.arange(edge, dtype=np.float32) for edge in depth_m.shape),
                       indexing='ij')
    return Covisible(seen, u, v, np.ones(depth_m.shape), 0.0)


def flicker(map_m: NDArray[Any], previous_m: NDArray[Any], depth_m: FloatImage,
            pixels: Covisible) -> float:
    """
    Compare a prediction with the one before it.

    Parameters
    ----------
    map_m, previous_m : float [H, W]
        Predictions in m.
    depth_m : float32 [H, W]
        True depth of the current frame, m.
    pixels : Covisible

    Returns
    -------
    float
        Mean of |prediction - moved previous prediction| / truth; NaN if nothing was seen twice.
    """
    if not pixels.seen.any():
        return float('nan')
    moved = pixels.gain * _sample(previous_m, pixels.u, pixels.v) + pixels.offset_m
    return float(np.mean((np.abs(map_m - moved) / depth_m)[pixels.seen]))


def _sample(image: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float32]:
    """Read an image between its pixels, bilinearly; beyond the border it goes on."""
    return np.asarray(cv2.remap(
        image.astype(np.float32), np.nan_to_num(u).astype(np.float32),
        np.nan_to_num(v).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
