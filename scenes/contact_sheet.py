"""
Show rendered places and their depth in one picture.

    python -m scenes.contact_sheet --frames frames/train --out scenes.jpg
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marigold_ros.data.frames import evenly_spaced_indices
from marigold_ros.data.shards import ShardFrames
from marigold_ros.depth.errors import InputError
from marigold_ros.messages.depth import colorize

COLUMNS, ROWS = 8, 4
DEPTH_PERCENTILES = (2.0, 98.0)


def contact_sheet(folder: Path) -> NDArray[np.uint8]:
    """
    Lay out frames spread over a folder, each above its depth.

    Parameters
    ----------
    folder : Path
        Shards of at least 32 frames of one size.

    Returns
    -------
    uint8 [8 H, 8 W, 3]
        Near is red, sky as far as the farthest.

    Raises
    ------
    MarigoldError
        If the folder holds no complete shard, or too few frames.
    """
    frames = ShardFrames(folder)
    if len(frames) < COLUMNS * ROWS:
        raise InputError(f'`frames` must hold at least {COLUMNS * ROWS} frames; {folder} has '
                         f'{len(frames)}')
    tiles = [np.vstack([frame.rgb, colorize(_unit(frame.depth_m))])
             for frame in map(frames.__getitem__,
                              evenly_spaced_indices(len(frames), COLUMNS * ROWS))]
    return np.vstack([np.hstack(tiles[start:start + COLUMNS])
                      for start in range(0, len(tiles), COLUMNS)])


def _unit(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map the range of depth, but for its ends, to 0 and 1."""
    low, high = np.percentile(depth_m[np.isfinite(depth_m)], DEPTH_PERCENTILES)
    return np.asarray(((depth_m - low) / max(high - low, 1e-6)).clip(0.0, 1.0), np.float32)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=Path, required=True, help='folder of rendered shards')
    parser.add_argument('--out', type=Path, required=True, help='picture to write')
    options = parser.parse_args()
    Image.fromarray(contact_sheet(options.frames)).save(options.out)


if __name__ == '__main__':
    main()
