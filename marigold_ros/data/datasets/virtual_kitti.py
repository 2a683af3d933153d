"""Read Virtual KITTI 2 in the layout of prs-eth/Marigold's file lists."""

from __future__ import annotations

from pathlib import Path

from marigold_ros.data.datasets.file_list import FileListFrames
from marigold_ros.data.datasets.kitti import kitti_crop

# src/dataset/vkitti_dataset.py; sky is stored as 655.35 m and thereby invalid.
UNIT_M = 1e-2
MAX_DEPTH_M = 80.0


def open_virtual_kitti(folder: Path, file_list: Path) -> FileListFrames:
    """
    Open Virtual KITTI 2, cropped to 352 x 1216 like the KITTI benchmark.

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
                          crop=kitti_crop)
