"""Rendered frames on disk: numbered shards of NumPy arrays that are mapped, not loaded."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import MarigoldError

FRAMES_PER_SHARD = 256


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
    _replace(directory / 'shards.json', json.dumps(description, indent=1) + '\n')


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


def _replace(path: Path, content: str | NDArray[Any]) -> None:
    """Write beside the file, then rename over it."""
    part = path.with_name(path.name + '.part')
    with part.open('wb') as file:
        if isinstance(content, str):
            file.write(content.encode())
        else:
            np.save(file, content)
    part.replace(path)
