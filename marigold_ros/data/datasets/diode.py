"""DIODE, as prs-eth/Marigold evaluates on it: `diode/diode_val.tar`."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.data.datasets.published_set import Archive, Mask, PublishedSet
from marigold_ros.depth.errors import InputError


def read_depth(archive: Archive, words: list[str],
               size: tuple[int, int]) -> tuple[NDArray[np.float32], Mask]:
    """Read depth and mask from .npy files; the depth range does not restrict the mask."""
    if len(words) < 3:
        raise InputError(f'the line of {words[0]} must name 3 files; got {len(words)}')
    depth_m, mask = (_read_array(archive, name).squeeze() for name in words[1:3])
    return depth_m.astype(np.float32), mask.astype(bool)


def _read_array(archive: Archive, name: str) -> NDArray[Any]:
    try:
        return np.asarray(np.load(BytesIO(archive.read(name))))
    except (ValueError, EOFError) as err:
        raise InputError(f'{name} of {archive.path} must be a NumPy array; {err}') from err


DIODE = PublishedSet(
    'DIODE val', 771, 'diode_depth/diode_val_all_filename_list.txt',
    Rules(0.6, 350.0, extend_to_farthest=False, processing_resolution=640, b_min_depth_m=0.6,
          b_max_depth_m=350.0),
    read_depth)
