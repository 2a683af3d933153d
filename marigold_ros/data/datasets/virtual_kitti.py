"""Read Virtual KITTI 2 in the layout of prs-eth/Marigold's file lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from marigold_ros.data.datasets.file_list import FileListFrames
from marigold_ros.depth.errors import InputError

# src/dataset/vkitti_dataset.py; the sky is stored as 655.35 m and so is not valid.
UNIT_M = 1e-2
MAX_DEPTH_M = 80.0
# src/dataset/kitti_dataset.py, kitti_benchmark_crop
CROP_HEIGHT, CROP_WIDTH = 352, 1216


def open_virtual_kitti(folder: Path, file_list: Path) -> FileListFrames:
    """
    Open Virtual KITTI 2, cropped to 352 x 1216 as KITTI's benchmark is.

    Parameters
    ----------
    folder : Path
        Holds `rgb/Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg`,
        `depth/Scene01/clone/frames/depth/Camera_0/depth_00000.png` (cm along Z) and so on.
    file_list : Path
        For instance Marigold's `data_split/vkitti_depth/vkitti_train.txt`.

    Raises
    ------
    InputError
        If the list cannot be read or names a file that does not exist.
    """
    return FileListFrames(folder, file_list, unit_m=UNIT_M, max_depth_m=MAX_DEPTH_M,
                          crop=benchmark_crop)


def benchmark_crop(image: NDArray[Any], name: str) -> NDArray[Any]:
    """
    Keep the bottom 352 rows and the middle 1216 columns.

    Parameters
    ----------
    image : [H, W, ...]
    name : str
        Its file, for the message.

    Raises
    ------
    InputError
        If the image is smaller than the crop.
    """
    height, width = image.shape[:2]
    if height < CROP_HEIGHT or width < CROP_WIDTH:
        raise InputError(f'{name} must be at least {CROP_WIDTH} x {CROP_HEIGHT} px; '
                         f'it is {width} x {height}')
    left = (width - CROP_WIDTH) // 2
    return image[height - CROP_HEIGHT:, left:left + CROP_WIDTH]
