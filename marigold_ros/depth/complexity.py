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
from marigold_ros.depth.types import GreyImage, Mask, RgbImage

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


def reduce_to_grey(rgb: RgbImage) -> GreyImage:
    """Return the grey image, uint8 [H', W'], with max(H', W') <= LONGEST_EDGE_PX."""
    check_rgb(rgb)
    height, width = rgb.shape[:2]
    reduction = max(height, width) / LONGEST_EDGE_PX
    if reduction > 1.0:
        size = (max(1, round(width / reduction)), max(1, round(height / reduction)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def gradient_energy(rgb: RgbImage, where: Mask | None = None) -> float:
    """
    Compute the mean squared gradient magnitude of the grey image, E[M (dx dx + dy dy)].

    The gradient is the forward difference of the grey image in [0, 1], averaged over the pixels
    that have both a right and a lower neighbour.

    Parameters
    ----------
    rgb : uint8 [H, W, 3]
    where : bool [H, W] or None
        M, the pixels that count; the others are 0 in the mean.

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
    return measure_complexity('gradient_energy', *_reduce(rgb, where))


def entropy(rgb: RgbImage, where: Mask | None = None) -> float:
    """
    Compute the entropy of the grey histogram, H = E[-M log2 p(x)] over 256 levels.

    Parameters
    ----------
    rgb : uint8 [H, W, 3]
    where : bool [H, W] or None
        M, the pixels that count; the others are 0 in the mean.  p is that of the whole image.

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
    >>> entropy(rgb, where=rgb[..., 0] > 0)
    0.5
    """
    return measure_complexity('entropy', *_reduce(rgb, where))


MEASURES: dict[str, Callable[[RgbImage], float]] = {
    'gradient_energy': gradient_energy, 'entropy': entropy}


def measure_complexity(measure: str, grey: GreyImage, where: Mask | None = None) -> float:
    """
    Compute the complexity of an image that is already reduced, or the part of some pixels in it.

    Parameters
    ----------
    measure : {'gradient_energy', 'entropy'}
    grey : uint8 [h, w]
        See `reduce_to_grey`.
    where : bool [h, w] or None
        The pixels that count; the others are 0 in the mean.

    Returns
    -------
    float
    """
    return {'gradient_energy': _gradient_energy, 'entropy': _entropy}[measure](grey, where)


def complexity_share(measure: str, grey: GreyImage, where: Mask) -> float:
    """
    Compute the share of an image's complexity that lies in some of its pixels.

    Parameters
    ----------
    measure, grey, where
        See `measure_complexity`.

    Returns
    -------
    float
        In [0, 1]; of an image without complexity the share of the pixels.

    Examples
    --------
    >>> grey = np.array([[0, 255, 0, 255]], np.uint8)
    >>> complexity_share('entropy', grey, np.array([[True, False, False, False]]))
    0.25
    """
    whole = measure_complexity(measure, grey)
    return measure_complexity(measure, grey, where) / whole if whole else float(where.mean())


def _reduce(rgb: RgbImage, where: Mask | None) -> tuple[GreyImage, Mask | None]:
    """Reduce an image, and a mask of its pixels [H, W] to the same size."""
    grey = reduce_to_grey(rgb)
    if where is None:
        return grey, None
    return grey, cv2.resize(where.astype(np.uint8), grey.shape[::-1],
                            interpolation=cv2.INTER_NEAREST) > 0


def _gradient_energy(grey: GreyImage, where: Mask | None) -> float:
    if min(grey.shape) < 2:
        return 0.0
    levels = grey.astype(np.float32)
    corner = levels[:-1, :-1]
    selected = slice(None) if where is None else where[:-1, :-1].ravel()
    dx = (levels[:-1, 1:] - corner).ravel()[selected]
    dy = (levels[1:, :-1] - corner).ravel()[selected]
    return float(np.dot(dx, dx) + np.dot(dy, dy)) / (255.0 ** 2 * corner.size)


def _entropy(grey: GreyImage, where: Mask | None) -> float:
    counts = np.bincount(grey.ravel(), minlength=256)
    bits = np.log2(grey.size / np.maximum(counts, 1))
    selected = counts if where is None else np.bincount(grey[where], minlength=256)
    return float(np.dot(selected, bits)) / grey.size
