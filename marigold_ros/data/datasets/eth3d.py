"""ETH3D, as prs-eth/Marigold evaluates on it: `eth3d/eth3d.tar`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.data.datasets.published_set import Archive, Mask, PublishedSet
from marigold_ros.depth.errors import InputError


def read_depth(archive: Archive, words: list[str],
               size: tuple[int, int]) -> tuple[NDArray[np.float32], Mask]:
    """Read raw float32 values at the resolution of the image; inf is unknown depth."""
    values = np.frombuffer(archive.read(words[1]), '<f4')
    if values.size != size[0] * size[1]:
        raise InputError(f'{words[1]} must hold {size[0]} x {size[1]} float32 values, one per '
                         f'pixel of its image; got {values.size}')
    depth_m = np.where(np.isposinf(values), np.float32(0), values).reshape(size)
    return depth_m.astype(np.float32), (depth_m > np.float32(1e-5)) & (depth_m < np.inf)


ETH3D = PublishedSet(
    'ETH3D', 454, 'eth3d_depth/eth3d_filename_list.txt',
    Rules(1e-5, np.inf, extend_to_farthest=False, alignment_max_res=1024,
          processing_resolution=756, b_min_depth_m=0.01, b_size=(1360, 2048), b_masks_edges=False),
    read_depth)
