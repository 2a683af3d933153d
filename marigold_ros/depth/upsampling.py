"""
Bring maps from the processing size to the size of the image.

The networks blur the edges of depth over a few pixels of the processing size; resized bilinearly,
they are blurred over tens of pixels of the image.  A guided filter (He, Sun and Tang 2013,
doi:10.1109/TPAMI.2012.213) puts them where the image has its edges: in each window of the depth it
fits depth = slope * grey + offset, and averages the fits of all windows that contain a pixel.
As in the fast guided filter (He and Sun 2015, arXiv 1505.00996) the fits are computed at the
processing size, and applied to the grey image at full size.

The plain filter also averages the depth where the image explains nothing of it, and paints texture
and noise onto it.  So fits count by their quality (Chen and Wu 2020,
doi:10.1007/s11760-019-01579-1), here by s^2 / (1 - s), where s is the share of the depth's
variance in the window that the image explains; the depth as it is counts as well.
`benchmarks.upsampling` compares the two.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from marigold_ros.depth.types import FloatImage, GreyImage, Mask, RgbImage

# Half a window, in pixels of the depth: the VAE decodes 8x8 px together, and edges are as blurred.
RADIUS_PX = 8
# Of the depth as it is; a window has this weight if the image explains 42 % of the depth there.
PRIOR_WEIGHT = 0.3
# Standard deviations that may be noise: of the image, where white is 1, and of relative depth.
IMAGE_NOISE, DEPTH_NOISE = 0.03, 0.01
# No fit is better; rounding can make it seem so.
MAX_EXPLAINED = 0.999
# The result stays within the depth this near to a pixel.
RANGE_PX = 4


def upsample_depth(depth: FloatImage, rgb: RgbImage, method: str = 'guided') -> FloatImage:
    """
    Bring relative depth to the size of its image.

    Parameters
    ----------
    depth : float32 [h, w]
        Carried depth may leave [0, 1].
    rgb : uint8 [H, W, 3]
    method : {'guided', 'bilinear'}
        With 'guided' edges follow the grey image.  Depth that is not smaller than the image, or
        not finite everywhere, is resized bilinearly in any case: a window would spread NaN.

    Returns
    -------
    float32 [H, W]
        Within the range of the depth at most `RANGE_PX` away.

    Examples
    --------
    Bilinear interpolation blurs a step in depth, where the image has a sharp one:

    >>> import numpy as np
    >>> depth = np.repeat(np.float32([[0.0, 0.0, 1.0, 1.0]]), 3, axis=0)
    >>> rgb = np.zeros((12, 16, 3), np.uint8)
    >>> rgb[:, 8:] = 255
    >>> print(upsample_depth(depth, rgb, 'bilinear')[6, 6:10].round(2))
    [0.12 0.38 0.62 0.88]
    >>> print(upsample_depth(depth, rgb)[6, 6:10].round(2))
    [0. 0. 1. 1.]
    """
    size = rgb.shape[:2]
    is_larger = size[0] > depth.shape[0] or size[1] > depth.shape[1]
    if method == 'bilinear' or not is_larger or not np.isfinite(depth).all():
        return resize_to_image(depth, size)
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    slope, offset = _fit(depth, _reduce(grey, depth.shape))
    near = np.ones((2 * RANGE_PX + 1, 2 * RANGE_PX + 1), np.uint8)
    nearest, farthest = cv2.erode(depth, near), cv2.dilate(depth, near)

    # Two buffers only: touching fresh memory takes longer than the arithmetic.
    upsampled, term = resize_to_image(slope, size), np.empty(size, np.float32)
    np.multiply(upsampled, grey, out=upsampled)
    for combine, small in ((cv2.add, offset), (cv2.max, nearest), (cv2.min, farthest)):
        combine(upsampled, cv2.resize(small, size[::-1], dst=term), dst=upsampled)
    return upsampled


def resize_to_image(image: FloatImage, size: tuple[int, int]) -> FloatImage:
    """Resize float32 [h, w] to the size (H, W) of the image bilinearly; no copy if it has it."""
    return image if image.shape == size else np.asarray(cv2.resize(image, size[::-1]), np.float32)


def resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resize bool [h, w] to the size (H, W) of the image."""
    resized: Mask = cv2.resize(mask.astype(np.uint8) * np.uint8(255), size[::-1]) > 127
    return resized


def _fit(depth: FloatImage, grey: GreyImage) -> tuple[FloatImage, FloatImage]:
    """
    Fit depth = slope * grey + offset around each pixel.

    Parameters
    ----------
    depth : float32 [h, w]
    grey : uint8 [h, w]

    Returns
    -------
    slope, offset : float32 [h, w]
        Where the image explains nothing of the depth, 0 and the depth.
    """
    image = grey.astype(np.float32) / np.float32(255.0)
    mean_image, mean_depth = _average(image), _average(depth)
    image_variance = _average(image * image) - mean_image * mean_image
    depth_variance = _average(depth * depth) - mean_depth * mean_depth
    covariance = _average(image * depth) - mean_image * mean_depth

    slope = covariance / (image_variance + IMAGE_NOISE ** 2)
    explained = np.clip(slope * covariance / (depth_variance + DEPTH_NOISE ** 2),
                        0.0, MAX_EXPLAINED)
    weight = explained * explained / (1.0 - explained)
    total = _average(weight) + PRIOR_WEIGHT
    offset = _average(weight * (mean_depth - slope * mean_image)) + PRIOR_WEIGHT * depth
    return _average(weight * slope) / (255.0 * total), offset / total


def _average(image: Any) -> FloatImage:
    """Average over the window around each pixel; beyond its edge the map is reflected."""
    return np.asarray(cv2.blur(image, (2 * RADIUS_PX + 1, 2 * RADIUS_PX + 1)), np.float32)


def _reduce(grey: GreyImage, size: tuple[int, int]) -> GreyImage:
    """Reduce a grey image to (h, w) by averaging, by 2 first, for which OpenCV is fast."""
    height, width = grey.shape
    if height >= 2 * size[0] and width >= 2 * size[1]:
        grey = np.asarray(cv2.resize(grey, (width // 2, height // 2),
                                     interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
