"""Frames, of rendered scenes or taken from a bag, in shards: NumPy arrays that are mapped."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import MarigoldError

FRAMES_PER_SHARD = 256
DESCRIPTION = 'shards.json'


@dataclass(frozen=True)
class Shard:
    """
    Up to 256 frames of one size.

    Attributes
    ----------
    rgb : [n,H,W,3] uint8
        Mapped from disk.
    depth_m : [n,H,W] float32
        Metres along Z, +inf for sky; mapped from disk.
    K : [n,3,3] float64
    place : tuple of str
        Kind of place of each frame.
    first : int
        Number of the first frame.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    K: NDArray[np.float64]
    place: tuple[str, ...]
    first: int


def shard_is_complete(directory: Path, index: int) -> bool:
    """Tell whether a shard has been written: its rgb file comes last."""
    return (directory / f'rgb_{index:05d}.npy').exists()


def write_shard(directory: Path, index: int, rgb: NDArray[np.uint8],
                depth_m: NDArray[np.float32], K: NDArray[np.float64], place: Sequence[str],
                first: int) -> None:
    """
    Write a shard so that readers see all of it or nothing.

    Parameters
    ----------
    directory : Path
    index : int
        Number of the shard.
    rgb : [n,H,W,3] uint8
    depth_m : [n,H,W] float32
    K : [n,3,3] float64
    place : sequence of n str
    first : int
        Number of the first frame.
    """
    text = json.dumps({'first': first, 'K': np.asarray(K).tolist(), 'place': list(place)})
    _replace(directory / f'frames_{index:05d}.json', text)
    _replace(directory / f'depth_m_{index:05d}.npy', depth_m)
    _replace(directory / f'rgb_{index:05d}.npy', rgb)


def write_description(directory: Path, description: dict[str, Any]) -> None:
    """Write `shards.json`: seed, size and versions behind a folder of shards."""
    _replace(directory / DESCRIPTION, json.dumps(description, indent=1) + '\n')


def read_shards(directory: str | Path) -> list[Shard]:
    """
    Map every complete shard of a folder.

    Parameters
    ----------
    directory : str or Path

    Returns
    -------
    list of Shard
        In order; more may appear while a renderer is at work.

    Raises
    ------
    MarigoldError
        If the folder holds no complete shard.
    """
    folder = Path(directory)
    shards = []
    for path in sorted(folder.glob('rgb_*.npy')):
        number = path.stem.split('_')[1]
        about = json.loads((folder / f'frames_{number}.json').read_text(encoding='utf-8'))
        shards.append(Shard(np.load(path, mmap_mode='r'),
                            np.load(folder / f'depth_m_{number}.npy', mmap_mode='r'),
                            np.asarray(about['K'], np.float64), tuple(about['place']),
                            int(about['first'])))
    if not shards:
        raise MarigoldError(f'`directory` must hold rgb_*.npy shards; got {str(folder)!r}')
    return shards


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


def shards_data_set(folder: Path) -> DataSet:
    """Describe a folder of rendered shards; a block is a scene."""
    return DataSet.from_frame_set(f'rendered frames {folder.name}', 'scene', ShardFrames(folder))


def _views_per_scene(folder: Path) -> int:
    """Tell how many frames in a row show one scene; frames of a bag count each for itself."""
    description = folder / DESCRIPTION
    if not description.is_file():
        return 1
    return int(json.loads(description.read_text(encoding='utf-8')).get('views_per_scene', 1))


def _replace(path: Path, content: str | NDArray[Any]) -> None:
    """Write beside the file, then rename over it."""
    part = path.with_name(path.name + '.part')
    with part.open('wb') as file:
        if isinstance(content, str):
            file.write(content.encode())
        else:
            np.save(file, content)
    part.replace(path)
