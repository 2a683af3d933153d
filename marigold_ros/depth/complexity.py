"""
Complexity C of a frame, from which the step policy computes the number of denoising steps.

Both measures use the grey image (Rec. 601), reduced by area averaging to at most 320 px on its
longest edge.  C is then comparable between camera resolutions and takes less than 1 ms.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import FloatImage, RgbImage

LONGEST_EDGE_PX = 320


def check_rgb(rgb: RgbImage) -> None:
    """
    Check that an array is an RGB image.

    Raises
    ------
    InputError
        If `rgb` is not uint8 [H, W, 3] with at least one pixel.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise InputError(f'`rgb` must be uint8 [H, W, 3] and not empty; '
                         f'got {rgb.dtype} {list(rgb.shape)}')


def _reduced_grey(rgb: RgbImage) -> RgbImage:
    """Return the grey image, uint8 [H', W'], with max(H', W') <= LONGEST_EDGE_PX."""
    check_rgb(rgb)
    height, width = rgb.shape[:2]
    reduction = max(height, width) / LONGEST_EDGE_PX
    if reduction > 1.0:
        size = (max(1, round(width / reduction)), max(1, round(height / reduction)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def gradient_energy(rgb: RgbImage) -> float:
    """
    Compute the mean squared gradient magnitude of the grey image.

    The gradient is the forward difference of the grey image in [0, 1], averaged over the pixels
    that have both a right and a lower neighbour.

    Parameters
    ----------
    rgb : uint8 [H, W, 3]

    Returns
    -------
    float
        In [0, 2], squared grey levels per squared pixel of the reduced image; 0 for an image
        with a single row or column.

    Examples
    --------
    >>> board = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)
    >>> gradient_energy(np.dstack([board] * 3))
    2.0
    >>> gradient_energy(np.zeros((8, 8, 3), np.uint8))
    0.0
    """
    grey: FloatImage = _reduced_grey(rgb).astype(np.float32)
    if min(grey.shape) < 2:
        return 0.0
    corner = grey[:-1, :-1]
    dx = (grey[:-1, 1:] - corner).ravel()
    dy = (grey[1:, :-1] - corner).ravel()
    return float(np.dot(dx, dx) + np.dot(dy, dy)) / (255.0 ** 2 * dx.size)


def entropy(rgb: RgbImage) -> float:
    """
    Compute the entropy of the grey histogram, H = -sum p log2 p over 256 levels.

    Parameters
    ----------
    rgb : uint8 [H, W, 3]

    Returns
    -------
    float
        Bits, in [0, 8].

    Examples
    --------
    >>> rgb = np.zeros((2, 4, 3), np.uint8)
    >>> rgb[0] = 255  # two levels, equally frequent
    >>> entropy(rgb)
    1.0
    """
    counts = np.bincount(_reduced_grey(rgb).ravel(), minlength=256)
    p = counts[counts > 0] / counts.sum()
    return float(-np.sum(p * np.log2(p))) + 0.0  # + 0.0 turns the -0.0 of a flat image into 0.0


MEASURES: dict[str, Callable[[RgbImage], float]] = {
    'gradient_energy': gradient_energy,
    'entropy': entropy,
}
