"""Read Hypersim after prs-eth/Marigold's `preprocess_hypersim.py`."""

from __future__ import annotations

from pathlib import Path

from marigold_ros.data.datasets.file_list import FileListFrames

# src/dataset/hypersim_dataset.py
UNIT_M = 1e-3
MAX_DEPTH_M = 65.0


def open_hypersim(folder: Path, file_list: Path) -> FileListFrames:
    """
    Open Hypersim.

    Parameters
    ----------
    folder : Path
        Holds `ai_001_001/rgb_cam_00_fr0000.png`, `ai_001_001/depth_plane_cam_00_fr0000.png` (mm
        along Z) and so on.
    file_list : Path
        For instance Marigold's `data_split/hypersim_depth/filename_list_train_filtered.txt`.

    Raises
    ------
    InputError
        If the list cannot be read or names a file that does not exist.
    """
    return FileListFrames(folder, file_list, unit_m=UNIT_M, max_depth_m=MAX_DEPTH_M)
