"""
Read folders of RGB-D frames with an index, `frames.json`.

The index maps the name of each set (also the name of its folder) to a list of frames::

    {"desk": [{"name": "0", "rgb": "0_rgb.jpg", "depth": "0_depth_mm.png", "depth_unit_m": 0.001,
               "rgb_size": [640, 480], "depth_size": [640, 480],
               "K": [517.3, 516.5, 318.6, 255.3]}]}

Depth is a 16-bit PNG along Z in which 0 means no measurement; `K` is [fx, fy, cx, cy] or null.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import DepthFrame, Part, WHOLE
from marigold_ros.data.validation_errors import describe_validation_errors
from marigold_ros.depth.errors import InputError

INDEX = 'frames.json'

Text = Annotated[str, Field(min_length=1)]


class IndexEntry(BaseModel):
    """Index entry of one frame; sizes are width and height, px."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    name: Text
    rgb: Text
    depth: Text
    depth_unit_m: PositiveFloat
    rgb_size: tuple[PositiveInt, PositiveInt]
    depth_size: tuple[PositiveInt, PositiveInt]
    K: tuple[PositiveFloat, PositiveFloat, float, float] | None


class RgbdFolder:
    """
    Frames of a folder; images are read on access.

    Parameters
    ----------
    folder : Path
        Holds `frames.json` and one folder per set.

    Raises
    ------
    InputError
        If the index is missing or invalid, or names a file that does not exist.
    """

    def __init__(self, folder: Path) -> None:
        index = Path(folder) / INDEX
        try:
            sets = TypeAdapter(dict[str, list[IndexEntry]]).validate_json(index.read_bytes())
        except OSError as err:
            raise InputError(f'`folder` must hold a readable {INDEX}; got {str(folder)!r}: '
                             f'{err.strerror}') from err
        except ValidationError as err:
            raise InputError(f'{index}: {describe_validation_errors(err)}') from err
        self._folder = index.parent
        self._frames = [(set_name, entry) for set_name, entries in sets.items()
                        for entry in entries]
        if not self._frames:
            raise InputError(f'{index} must name at least one frame; got none')
        for path in (self._folder / set_name / name for set_name, entry in self._frames
                     for name in (entry.rgb, entry.depth)):
            if not path.is_file():
                raise InputError(f'{index} must name files that exist; {path} does not')

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> DepthFrame:
        """
        Read one frame; a block is a set.

        The EXIF orientation is not applied, since depth has none.

        Raises
        ------
        InputError
            If a file does not match its index entry.
        """
        set_name, entry = self._frames[index]
        rgb_path, depth_path = (self._folder / set_name / name
                                for name in (entry.rgb, entry.depth))
        bgr = _read_image(rgb_path, entry.rgb_size,
                          cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        stored = _read_image(depth_path, entry.depth_size, cv2.IMREAD_UNCHANGED)
        if stored.dtype != np.uint16 or stored.ndim != 2:
            channels = 1 if stored.ndim == 2 else stored.shape[2]
            raise InputError(f'{depth_path} must be a 16-bit image of one channel; '
                             f'got {8 * stored.itemsize} bits and {channels} channel(s)')
        depth_m = stored.astype(np.float32) * np.float32(entry.depth_unit_m)
        depth_m[stored == 0] = np.nan
        K = None
        if entry.K is not None:
            fx, fy, cx, cy = entry.K
            K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        return DepthFrame(
            f'{rgb_path} with {depth_path}',
            np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), depth_m,
            valid=stored > 0, set_name=set_name, block=set_name, K=K)


def folder_data_set(folder: Path, part: Part = WHOLE) -> DataSet:
    """Open an RGB-D folder, or a part, as a data set; a mean weights its sets equally."""
    return DataSet.from_frame_set(f'RGB-D folder {folder.name}', 'set', RgbdFolder(folder), part,
                                  mean_of_blocks=True)


def _read_image(path: Path, size: tuple[int, int], flags: int) -> NDArray[Any]:
    """Read an image with OpenCV and check its width and height."""
    image = cv2.imread(str(path), flags)
    if image is None:
        raise InputError(f'{path} must be an image; OpenCV cannot read it')
    if image.shape[1::-1] != size:
        raise InputError(f'{path} must be {size[0]} x {size[1]} px according to {INDEX}; '
                         f'it is {image.shape[1]} x {image.shape[0]}')
    return np.asarray(image)
