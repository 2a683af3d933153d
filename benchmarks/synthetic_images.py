"""Random input images of given complexity, so that benchmarks need no files."""

from __future__ import annotations

import cv2
import numpy as np

from marigold_ros.depth.types import RgbImage

VGA = (480, 640)


def make_synthetic_image(number: int, cells: int = 16) -> RgbImage:
    """
    Return a smooth random image.

    Parameters
    ----------
    number : int
        Seed.
    cells : int
        Random values along the width; the more, the higher the gradient energy.

    Returns
    -------
    uint8 [480, 640, 3]
    """
    shape = (cells * VGA[0] // VGA[1], cells, 3)
    coarse = np.random.default_rng(number).uniform(0, 255, shape).astype(np.float32)
    smooth = cv2.resize(coarse, VGA[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, 0, 255).astype(np.uint8)


def make_mixed_complexity_images(count: int) -> list[RgbImage]:
    """Return images of evenly spaced gradient energy, which grows as `cells` squared."""
    cells = np.sqrt(np.linspace(4 ** 2, 160 ** 2, count))
    shuffled = np.random.default_rng(0).permutation(cells.astype(int))
    return [make_synthetic_image(number, int(each)) for number, each in enumerate(shuffled)]
