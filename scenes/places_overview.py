"""
Draw an overview of rendered places and their depth as one image.

    python -m scenes.places_overview --frames frames/places --out places.jpg
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


def draw_overview(folder: Path) -> NDArray[np.uint8]:
    """
    Draw evenly spaced frames of a folder, each above its depth.

    Parameters
    ----------
    folder : Path
        Shards of at least 32 frames of one size.

    Returns
    -------
    uint8 [8 H, 8 W, 3]
        Near depth is red; sky has the colour of the farthest depth.

    Raises
    ------
    MarigoldError
        If the folder has no complete shard or fewer than 32 frames.
    """
    frames = ShardFrames(folder)
    if len(frames) < COLUMNS * ROWS:
        raise InputError(f'`frames` must hold at least {COLUMNS * ROWS} frames; {folder} has '
                         f'{len(frames)}')
    tiles = [np.vstack([frame.rgb, colorize(_normalize_depth(frame.depth_m))])
             for frame in map(frames.__getitem__,
                              evenly_spaced_indices(len(frames), COLUMNS * ROWS))]
    return np.vstack([np.hstack(tiles[start:start + COLUMNS])
                      for start in range(0, len(tiles), COLUMNS)])


def _normalize_depth(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map the 2nd and 98th percentile of the depth to 0 and 1, and clip."""
    low, high = np.percentile(depth_m[np.isfinite(depth_m)], DEPTH_PERCENTILES)
    return np.asarray(((depth_m - low) / max(high - low, 1e-6)).clip(0.0, 1.0), np.float32)


def main() -> None:
    """Parse the command line and draw the overview."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=Path, required=True, help='folder of rendered shards')
    parser.add_argument('--out', type=Path, required=True, help='image to write')
    options = parser.parse_args()
    Image.fromarray(draw_overview(options.frames)).save(options.out)


if __name__ == '__main__':
    main()
