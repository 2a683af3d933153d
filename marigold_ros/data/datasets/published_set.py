"""
Read Marigold's evaluation data sets: archive, file list, masks, ranges and resolutions.

Each data set is a tar file, or the folder that it unpacks to, and a file list of Marigold's
`data_split`.  Masks, crops, ranges and resolutions are those of prs-eth/Marigold (b1dffaa):
`src/dataset/*.py`, `config/dataset_depth/data_*.yaml` and `script/depth/eval/*.sh`; ranges and
sizes of protocol B those of huawei-bayerlab/marigold-v2: `evaluation/depth/eval.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
import tarfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from marigold_ros.data.datasets.data_set import DataSet, Rules
from marigold_ros.data.datasets.file_list import read_list
from marigold_ros.data.frames import check_frame, DepthFrame, Part, WHOLE
from marigold_ros.depth.errors import InputError

Mask = NDArray[np.bool_]


class Archive:
    """
    Read access to the files of a folder or of a tar file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputError
        If the path is neither.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._tar = None if path.is_dir() else tarfile.open(path)  # noqa: SIM115
        except (OSError, tarfile.TarError) as err:
            raise InputError(f'{path} must be a folder or a tar file; {err}') from err

    def read(self, name: str) -> bytes:
        """
        Read a file.

        Parameters
        ----------
        name : str
            Path below the folder or in the tar file; there a leading `./` is optional.

        Raises
        ------
        InputError
            If the file does not exist or cannot be read.
        """
        try:
            if self._tar is None:
                return (self.path / name).read_bytes()
            try:
                file = self._tar.extractfile(f'./{name}')
            except KeyError:
                file = self._tar.extractfile(name)
        except (OSError, KeyError, tarfile.TarError) as err:
            raise InputError(f'{self.path} must hold the file {name}; {err}') from err
        if file is None:
            raise InputError(f'{name} of {self.path} must be a regular file')
        return file.read()

    def close(self) -> None:
        """Close the tar file."""
        if self._tar is not None:
            self._tar.close()


# Archive, words of a line, (height, width) of the image -> depth (m), validity mask.
DepthReader = Callable[[Archive, list[str], tuple[int, int]], tuple[NDArray[np.float32], Mask]]


@dataclass(frozen=True)
class PublishedSet:
    """
    One data set of Marigold's evaluation.

    Attributes
    ----------
    title : str
    images : int
        Number of images in the published list; results on others are not comparable.
    file_list : str
        Path of the list below Marigold's `data_split`.
    rules : Rules
    read_depth : DepthReader
    crop : callable
        Function (array, image name) that crops image, depth and mask; applied first.
    region : callable
        Function from the cropped mask to the evaluated region, both bool [H, W].
    """

    title: str
    images: int
    file_list: str
    rules: Rules
    read_depth: DepthReader
    crop: Callable[[NDArray[Any], str], NDArray[Any]] = lambda image, name: image
    region: Callable[[Mask], Mask] = np.ones_like

    def data_set(self, path: Path, file_list: Path, part: Part = WHOLE) -> DataSet:
        """
        Open the data set.

        Parameters
        ----------
        path : Path
            Tar file, or the folder that it unpacks to.
        file_list : Path
            The list of Marigold's `data_split`, or a part of it.
        part : Part
            Of the list.

        Returns
        -------
        DataSet
            A mean weights all images equally; a block is a scene.

        Raises
        ------
        InputError
            If the archive or the list cannot be read; while frames are read, if a file is missing
            or has the wrong format.
        """
        lines = read_list(file_list)
        numbers = part.split(len(lines))
        Archive(path).close()
        notes: list[str] = []

        def frames() -> Iterator[DepthFrame]:
            notes.clear()
            if len(lines) != self.images:
                notes.append(f'{len(lines)} images of the {self.images} of {self.title}: '
                             'not comparable with published tables')
            with closing(Archive(path)) as archive:
                for number in numbers:
                    yield self._read_frame(archive, lines[number])

        return DataSet(self.title, 'scene', False, frames, count=len(numbers), rules=self.rules,
                       notes=notes, first_number=numbers.start)

    def _read_frame(self, archive: Archive, words: list[str]) -> DepthFrame:
        name = words[0]
        rgb = read_image(archive, name)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise InputError(f'{name} must be an image of 8 bits and 3 channels; '
                             f'got {rgb.dtype} {list(rgb.shape)}')
        depth_m, valid = self.read_depth(archive, words, (rgb.shape[0], rgb.shape[1]))
        rgb, depth_m, valid = (self.crop(array, name) for array in (rgb, depth_m, valid))
        frame = DepthFrame(name, rgb, depth_m, valid & self.region(valid),
                           set_name=self.title, block=name.rpartition('/')[0])
        check_frame(frame)
        return frame


def read_image(archive: Archive, name: str) -> NDArray[Any]:
    """Decode an image with Pillow, as Marigold does: JPEG decoders differ by a grey level."""
    try:
        return np.asarray(Image.open(BytesIO(archive.read(name))))
    except (UnidentifiedImageError, OSError) as err:
        raise InputError(f'{name} of {archive.path} must be an image; {err}') from err


def png_depth(units_per_m: float, low_m: float, high_m: float) -> DepthReader:
    """Return a reader of 16-bit PNG files in which depth between two limits (m) is valid."""
    def read(archive: Archive, words: list[str],
             size: tuple[int, int]) -> tuple[NDArray[np.float32], Mask]:
        stored = read_image(archive, words[1])
        if stored.ndim != 2 or stored.dtype.kind not in 'ui' or stored.dtype.itemsize < 2:
            raise InputError(f'{words[1]} must be a 16-bit image of one channel; '
                             f'got {stored.dtype} {list(stored.shape)}')
        depth_m = (stored / units_per_m).astype(np.float32)
        return depth_m, (depth_m > np.float32(low_m)) & (depth_m < np.float32(high_m))
    return read
