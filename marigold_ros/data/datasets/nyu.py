"""NYUv2, as prs-eth/Marigold evaluates on it: `nyuv2/nyu_labeled_extracted.tar`."""

from __future__ import annotations

import numpy as np

from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.data.datasets.published_set import Mask, png_depth, PublishedSet

# Rows and columns that Eigen et al. 2014 evaluate.
EIGEN_REGION = (slice(45, 471), slice(41, 601))


def eigen_region(valid: Mask) -> Mask:
    """Return the mask, bool [H, W], of the evaluated region of an image."""
    region = np.zeros_like(valid)
    region[EIGEN_REGION] = True
    return region


NYU = PublishedSet(
    'NYUv2 test', 654, 'nyu_depth/labeled/filename_list_test.txt',
    Rules(1e-3, 10.0, extend_to_farthest=False, processing_resolution=0, b_min_depth_m=0.1,
          b_max_depth_m=10.0, b_masks_edges=False),
    png_depth(1000.0, 1e-3, 10.0), region=eigen_region)
