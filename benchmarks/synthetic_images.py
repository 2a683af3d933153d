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


def make_moving_scene(size: tuple[int, int], step_px: float, count: int) -> list[RgbImage]:
    """
    Return views of a camera that pans over a textured wall, there and back again.

    Parameters
    ----------
    size : (int, int)
        Width and height, px.
    step_px : float
        Between two views, rounded to whole pixels for each.
    count : int
        Number of views, an even one.

    Returns
    -------
    list of uint8 [H, W, 3]
        Can be repeated without a cut; the views on the way back are those of the way there.
    """
    width, height = size
    wall = np.full((height, width + round(step_px * (count // 2)), 3), 128.0, np.float32)
    rng = np.random.default_rng(0)
    for cell in (6, 16, 40, 110):  # px of an image of 640 px
        px = max(2, cell * width // 640)
        coarse = rng.normal(scale=18.0, size=(height // px + 2, wall.shape[1] // px + 2, 3))
        wall += cv2.resize(coarse.astype(np.float32), wall.shape[1::-1],
                           interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(wall, 0, 255).astype(np.uint8)
    offsets = [round(step_px * each) for each in range(count // 2 + 1)]
    there = [np.ascontiguousarray(pixels[:, each:each + width]) for each in offsets]
    return there + there[-2:0:-1]


def make_mixed_complexity_images(count: int) -> list[RgbImage]:
    """Return images of evenly spaced gradient energy, which grows as `cells` squared."""
    cells = np.sqrt(np.linspace(4 ** 2, 160 ** 2, count))
    shuffled = np.random.default_rng(0).permutation(cells.astype(int))
    return [make_synthetic_image(number, int(each)) for number, each in enumerate(shuffled)]
