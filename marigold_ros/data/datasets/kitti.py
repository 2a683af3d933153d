"""KITTI, as prs-eth/Marigold evaluates on it: `kitti/kitti_eigen_split_test.tar`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.data.datasets.published_set import Mask, png_depth, PublishedSet
from marigold_ros.depth.errors import InputError

CROP_HEIGHT, CROP_WIDTH = 352, 1216
# Fractions of height and width that Eigen et al. 2014 evaluate.
EIGEN_REGION = ((0.3324324, 0.91351351), (0.0359477, 0.96405229))


def kitti_crop(image: NDArray[Any], name: str) -> NDArray[Any]:
    """
    Crop to the bottom 352 rows and middle 1216 columns (`kitti_benchmark_crop` of Marigold).

    Parameters
    ----------
    image : [H, W, ...]
    name : str
        File of the image, for the message.

    Raises
    ------
    InputError
        If the image is smaller than the crop.
    """
    height, width = image.shape[:2]
    if height < CROP_HEIGHT or width < CROP_WIDTH:
        raise InputError(f'{name} must be at least {CROP_WIDTH} x {CROP_HEIGHT} px; '
                         f'it is {width} x {height}')
    left = (width - CROP_WIDTH) // 2
    return image[height - CROP_HEIGHT:, left:left + CROP_WIDTH]


def eigen_region(valid: Mask) -> Mask:
    """Return the mask, bool [H, W], of the evaluated region of a cropped image."""
    region = np.zeros_like(valid)
    rows, columns = (slice(int(low * edge), int(high * edge))
                     for (low, high), edge in zip(EIGEN_REGION, valid.shape))
    region[rows, columns] = True
    return region


KITTI = PublishedSet(
    'KITTI Eigen test', 652, 'kitti_depth/eigen_test_files_with_gt.txt',
    Rules(1e-5, 80.0, extend_to_farthest=False, processing_resolution=0, b_min_depth_m=0.1,
          b_max_depth_m=80.0, b_masks_edges=False),
    png_depth(256.0, 1e-5, 80.0), kitti_crop, eigen_region)
