"""Read frames from a file list of Marigold: one image and one depth file per line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import InputError

# prs-eth/Marigold: smaller values are holes.
MIN_DEPTH_M = 1e-5
# Marks an image without depth in its lists.
NO_DEPTH = 'None'

Crop = Callable[[NDArray[Any], str], NDArray[Any]]


class FileListFrames:
    """
    Frames of a file list in the format of prs-eth/Marigold's `data_split`.

    Parameters
    ----------
    folder : Path
        Root of the paths in the list.
    file_list : Path
        Each line holds the paths of an image and a 16-bit PNG, separated by white space.  Further
        words, and lines whose depth is `None`, are ignored.
    unit_m : float
        Metres per unit of the stored depth.
    max_depth_m : float
        Depth at or above this is invalid.
    crop : callable or None
        Function (array, file name) that crops an image or a depth map.

    Raises
    ------
    InputError
        If the list cannot be read, is empty, or names a file that does not exist.
    """

    def __init__(self, folder: Path, file_list: Path, *, unit_m: float, max_depth_m: float,
                 crop: Crop | None = None) -> None:
        self._pairs = _read_pairs(Path(folder), Path(file_list))
        self._unit_m = unit_m
        self._max_depth_m = max_depth_m
        self._crop = crop

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> DepthFrame:
        """
        Read one frame.

        Raises
        ------
        InputError
            If a file is not an image, or the depth is not 16-bit with one channel.
        """
        rgb_path, depth_path = self._pairs[index]
        bgr = self._read(rgb_path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        stored = self._read(depth_path, cv2.IMREAD_UNCHANGED)
        if stored.dtype != np.uint16 or stored.ndim != 2:
            raise InputError(f'{depth_path} must be a 16-bit image of one channel; '
                             f'got {stored.dtype} {list(stored.shape)}')
        depth_m = stored.astype(np.float32) * np.float32(self._unit_m)
        return DepthFrame(
            name=f'{rgb_path} with {depth_path}',
            rgb=np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), depth_m=depth_m,
            valid=(depth_m > MIN_DEPTH_M) & (depth_m < self._max_depth_m))

    def _read(self, path: Path, flags: int) -> NDArray[Any]:
        image = cv2.imread(str(path), flags)
        if image is None:
            raise InputError(f'{path} must be an image; OpenCV cannot read it')
        return np.asarray(image) if self._crop is None else self._crop(image, str(path))


def read_list(file_list: Path) -> list[list[str]]:
    """
    Read a file list and return the words of each line whose image has depth.

    Raises
    ------
    InputError
        If the list cannot be read, has no image with depth, or a line has only one word.
    """
    try:
        text = file_list.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f'`file_list` must be a readable text file; got {file_list}: '
                         f'{err}') from err
    lines = [line.split() for line in text.splitlines()]
    for number, words in enumerate(lines, 1):
        if len(words) == 1:
            raise InputError(f'{file_list}, line {number} must name an image and its depth; '
                             f'got {words[0]!r}')
    with_depth = [words for words in lines if words and words[1] != NO_DEPTH]
    if not with_depth:
        raise InputError(f'{file_list} must list at least one image with depth; got none')
    return with_depth


def _read_pairs(folder: Path, file_list: Path) -> list[tuple[Path, Path]]:
    """Read the pairs of a list; check that every file exists, before a training starts."""
    pairs = [(folder / words[0], folder / words[1]) for words in read_list(file_list)]
    for path in (path for pair in pairs for path in pair):
        if not path.is_file():
            raise InputError(f'{file_list} must name files below {folder}; '
                             f'{path} does not exist')
    return pairs
