"""Shards, of rendered scenes or of frames taken from a bag, as a data set."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
import json
from pathlib import Path

import numpy as np

from marigold_ros.data.frames import DepthFrame
from marigold_ros.data.shards import read_shards


class ShardFrames:
    """
    Frames of a folder of shards as `scenes.bulk` writes them; they are mapped, not loaded.

    Parameters
    ----------
    folder : Path
        Depth of +inf is sky, which is known to be far; NaN and depth of 0 or less are unknown.

    Raises
    ------
    MarigoldError
        If the folder holds no complete shard.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)
        self._shards = read_shards(folder)
        self._views_per_scene = _views_per_scene(self._folder)
        self._ends = list(accumulate(len(shard.rgb) for shard in self._shards))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> DepthFrame:
        """Read one frame into memory of its own; a block is a scene, all seen by one camera."""
        number = bisect_right(self._ends, index)
        shard = self._shards[number]
        place = index - self._ends[number] + len(shard.rgb)
        depth_m = np.array(shard.depth_m[place])
        return DepthFrame(
            f'frame {index} of {self._folder}', np.array(shard.rgb[place]), depth_m,
            valid=depth_m > 0, set_name='camera',
            block=f'scene {(shard.first + place) // self._views_per_scene}')


def _views_per_scene(folder: Path) -> int:
    """Tell how many frames in a row show one scene; frames of a bag count each for itself."""
    description = folder / 'shards.json'
    if not description.is_file():
        return 1
    return int(json.loads(description.read_text(encoding='utf-8')).get('views_per_scene', 1))
