"""Store frames in shards: NumPy arrays that are memory-mapped when read."""

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
from marigold_ros.data.frames import DepthFrame, Part, WHOLE
from marigold_ros.depth.errors import InputError, MarigoldError
from marigold_ros.files import write_atomically

FRAMES_PER_SHARD = 256
DESCRIPTION = 'shards.json'


@dataclass(frozen=True)
class Shard:
    """
    Up to 256 frames of one size.

    Attributes
    ----------
    rgb : uint8 [n, H, W, 3]
        Memory-mapped.
    depth_m : float32 [n, H, W]
        Metric depth along Z, m, +inf for sky; memory-mapped.
    K : float64 [n, 3, 3]
        Intrinsics, px.
    place : tuple of str
        Kind of scene of each frame.
    first : int
        Index of the first frame in the data set.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    K: NDArray[np.float64]
    place: tuple[str, ...]
    first: int


def shard_is_complete(folder: Path, index: int) -> bool:
    """Check whether a shard is completely written: its rgb file is the last."""
    return (folder / f'rgb_{index:05d}.npy').exists()


def write_shard(folder: Path, index: int, rgb: NDArray[np.uint8],
                depth_m: NDArray[np.float32], K: NDArray[np.float64], place: Sequence[str],
                first: int) -> None:
    """
    Write a shard atomically: readers see all of it or nothing.

    Parameters
    ----------
    folder : Path
    index : int
        Index of the shard.
    rgb : uint8 [n, H, W, 3]
    depth_m : float32 [n, H, W]
        Metric depth along Z, m, +inf for sky.
    K : float64 [n, 3, 3]
        Intrinsics, px.
    place : sequence of n str
        Kind of scene of each frame.
    first : int
        Index of the first frame in the data set.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_shard(Path(folder), 0, np.zeros((2, 4, 6, 3), np.uint8),
    ...                 np.full((2, 4, 6), 1.5, np.float32), np.zeros((2, 3, 3)), ['room'] * 2, 0)
    ...     frames = ShardFrames(Path(folder))
    ...     len(frames), frames[1].rgb.shape, float(frames[1].depth_m[0, 0])
    (2, (4, 6, 3), 1.5)
    """
    text = json.dumps({'first': first, 'K': np.asarray(K).tolist(), 'place': list(place)})
    write_atomically(folder / f'frames_{index:05d}.json', text.encode())
    write_atomically(folder / f'depth_m_{index:05d}.npy', depth_m)
    write_atomically(folder / f'rgb_{index:05d}.npy', rgb)


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write `shards.json`: how the shards of a folder were made (seed, size, versions)."""
    write_atomically(folder / DESCRIPTION, (json.dumps(description, indent=1) + '\n').encode())


def read_shards(folder: str | Path) -> list[Shard]:
    """
    Memory-map every complete shard of a folder.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    list of Shard
        In order; a running renderer may add more.

    Raises
    ------
    InputError
        If a shard cannot be read.
    MarigoldError
        If the folder holds no complete shard.
    """
    folder = Path(folder)
    shards = []
    for path in sorted(folder.glob('rgb_*.npy')):
        try:
            shards.append(_read_shard(path))
        except (OSError, ValueError, EOFError, KeyError, TypeError) as err:
            raise InputError(f'{path} must be of a shard whose files can be read: '
                             f'{type(err).__name__}: {err}') from err
    if not shards:
        raise MarigoldError(f'`folder` must hold rgb_*.npy shards; got {str(folder)!r}')
    return shards


def _read_shard(path: Path) -> Shard:
    """Memory-map a shard, whose rgb file is given."""
    number = path.stem.split('_')[1]
    metadata = json.loads(path.with_name(f'frames_{number}.json').read_text(encoding='utf-8'))
    return Shard(np.load(path, mmap_mode='r'),
                 np.load(path.with_name(f'depth_m_{number}.npy'), mmap_mode='r'),
                 np.asarray(metadata['K'], np.float64), tuple(metadata['place']),
                 int(metadata['first']))


class ShardFrames:
    """
    Frames of a folder of shards; they are memory-mapped, not loaded.

    Depth above 0 is valid, +inf (sky) included; NaN and depth of 0 or less are not.

    Parameters
    ----------
    folder : Path
        As `scenes.bulk` or `open_bag_as_shards` writes it.

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
        """Copy one frame into memory; a block is a scene."""
        shard_index = bisect_right(self._ends, index)
        shard = self._shards[shard_index]
        offset = index - self._ends[shard_index] + len(shard.rgb)
        depth_m = np.array(shard.depth_m[offset])
        return DepthFrame(
            f'frame {index} of {self._folder}', np.array(shard.rgb[offset]), depth_m,
            valid=depth_m > 0, set_name='camera',
            block=f'scene {(shard.first + offset) // self._views_per_scene}')


def shards_data_set(folder: Path, part: Part = WHOLE) -> DataSet:
    """Open a folder of rendered shards, or a part, as a data set; a block is a scene."""
    return DataSet.from_frame_set(f'rendered frames {folder.name}', 'scene', ShardFrames(folder),
                                  part)


def _views_per_scene(folder: Path) -> int:
    """Read how many consecutive frames show one scene; 1 for frames of a bag."""
    description = folder / DESCRIPTION
    if not description.is_file():
        return 1
    try:
        return int(json.loads(description.read_text(encoding='utf-8')).get('views_per_scene', 1))
    except (OSError, ValueError, TypeError, AttributeError) as err:
        raise InputError(f'{description} must be readable JSON: {err}') from err
