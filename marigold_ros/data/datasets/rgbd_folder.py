"""
Read folders of RGB-D frames that a `frames.json` describes.

The index maps the name of each set, which is also its folder, to a list of frames::

    {"desk": [{"name": "0", "rgb": "0_rgb.jpg", "depth": "0_depth_mm.png", "depth_unit_m": 0.001,
               "rgb_size": [640, 480], "depth_size": [640, 480],
               "K": [517.3, 516.5, 318.6, 255.3]}]}

Depth is a 16-bit PNG along Z in which 0 means no measurement; `K` is [fx, fy, cx, cy] or null.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import json
import math
from pathlib import Path
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, RgbImage

INDEX = 'frames.json'


@dataclass(frozen=True, eq=False)
class RgbdFrame:
    """
    One frame; its pixels stay on disk until they are asked for.

    Attributes
    ----------
    set_name, name : str
        The set that the frame belongs to, and its own name in there.
    rgb_path, depth_path : Path
    depth_unit_m : float
        Metres per unit of the stored depth.
    rgb_size, depth_size : (int, int)
        Height and width, px.
    K : float64 [3, 3] or None
        Intrinsics of the RGB image, px; None if unknown.
    """

    set_name: str
    name: str
    rgb_path: Path
    depth_path: Path
    depth_unit_m: float
    rgb_size: tuple[int, int]
    depth_size: tuple[int, int]
    K: NDArray[np.float64] | None

    def read_rgb(self) -> RgbImage:
        """
        Read the image.

        Returns
        -------
        uint8 [H, W, 3]
            RGB, as stored: an EXIF orientation is not applied, for the depth has none.

        Raises
        ------
        InputError
            If the file is no image or has another size than the index says.
        """
        bgr = _read_image(self.rgb_path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
                          self.rgb_size)
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    def read_depth_m(self) -> FloatImage:
        """
        Read the depth.

        Returns
        -------
        float32 [H, W]
            Depth along Z, m; NaN where it was not measured, as everywhere in this package.

        Raises
        ------
        InputError
            If the file is no 16-bit image of one channel or has another size than the index says.
        """
        stored = _read_image(self.depth_path, cv2.IMREAD_UNCHANGED, self.depth_size)
        if stored.dtype != np.uint16 or stored.ndim != 2:
            channels = 1 if stored.ndim == 2 else stored.shape[2]
            raise InputError(f'{self.depth_path} must be a 16-bit image of one channel; '
                             f'got {8 * stored.itemsize} bits and {channels} channel(s)')
        depth_m: FloatImage = stored.astype(np.float32) * np.float32(self.depth_unit_m)
        depth_m[stored == 0] = np.nan
        return depth_m


def read_rgbd_folder(folder: str | Path) -> list[RgbdFrame]:
    """
    List the frames of a folder.

    Parameters
    ----------
    folder : str or Path
        Holds `frames.json` and one folder per set.

    Returns
    -------
    list of RgbdFrame
        In the order of the index, at least one; every file exists.

    Raises
    ------
    InputError
        If the index is missing, is not as described above, or names a file that does not exist.
    """
    index = Path(folder) / INDEX
    try:
        sets = json.loads(index.read_text(encoding='utf-8'))
    except OSError as err:
        raise InputError(f'`folder` must hold a readable {INDEX}; got {str(folder)!r}: '
                         f'{err.strerror}') from err
    except ValueError as err:
        raise InputError(f'{index} must be JSON: {err}') from err
    if not isinstance(sets, dict) or not all(isinstance(frames, list) for frames in sets.values()):
        raise InputError(f'{index} must map the name of each set to a list of frames')
    frames = [_frame(index, set_name, f'{index}: frame {number} of {set_name}', entry)
              for set_name, entries in sets.items() for number, entry in enumerate(entries)]
    if not frames:
        raise InputError(f'{index} must name at least one frame; got none')
    return frames


def _frame(index: Path, set_name: str, where: str, entry: Any) -> RgbdFrame:
    """Check one entry of the index."""
    if not isinstance(entry, dict):
        raise InputError(f'{where} must be an object; got {entry!r}')

    def field(key: str, rule: str, holds: Callable[[Any], bool]) -> Any:
        if key not in entry:
            raise InputError(f'{where} must have the key `{key}`; it has {", ".join(entry)}')
        if not holds(entry[key]):
            raise InputError(f'{where}: `{key}` must be {rule}; got {entry[key]!r}')
        return entry[key]

    def file(key: str) -> Path:
        path: Path = index.parent / set_name / field(key, 'a file name', _is_text)
        if not path.is_file():
            raise InputError(f'{where}: `{key}` must be a file that exists; {path} does not')
        return path

    def size(key: str) -> tuple[int, int]:
        width, height = field(key, 'a width and a height in px', _is_size)
        return height, width

    K = field('K', '[fx, fy, cx, cy] with positive focal lengths, or null', _is_intrinsics)
    return RgbdFrame(
        set_name=set_name, name=field('name', 'text', _is_text),
        rgb_path=file('rgb'), depth_path=file('depth'),
        depth_unit_m=float(field('depth_unit_m', 'a positive number of metres', _is_positive)),
        rgb_size=size('rgb_size'), depth_size=size('depth_size'),
        K=None if K is None else np.array([[K[0], 0, K[2]], [0, K[1], K[3]], [0, 0, 1]], float))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_size(value: Any) -> bool:
    return (isinstance(value, list) and len(value) == 2
            and all(type(edge) is int and edge > 0 for edge in value))


def _is_intrinsics(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 4
                             and all(map(_is_number, value)) and min(value[:2]) > 0)


def _read_image(path: Path, flags: int, size: tuple[int, int]) -> NDArray[Any]:
    """Read an image of the given (height, width) as OpenCV does."""
    image = cv2.imread(str(path), flags)
    if image is None:
        raise InputError(f'{path} must be an image; OpenCV cannot read it')
    if image.shape[:2] != size:
        raise InputError(f'{path} must be {size[1]} x {size[0]} px as {INDEX} says; '
                         f'it is {image.shape[1]} x {image.shape[0]}')
    return np.asarray(image)
