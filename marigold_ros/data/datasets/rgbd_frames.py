"""RGB-D folders as a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from marigold_ros.data.datasets.rgbd_folder import read_rgbd_folder
from marigold_ros.data.frames import DepthFrame


class RgbdFrames:
    """
    Frames of a folder that a `frames.json` describes (see `rgbd_folder`).

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InputError
        If the index is missing or wrong.
    """

    def __init__(self, folder: Path) -> None:
        self._frames = read_rgbd_folder(folder)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> DepthFrame:
        """
        Read one frame.

        Raises
        ------
        InputError
            If a file is not what the index says.
        """
        frame = self._frames[index]
        depth_m = frame.read_depth_m()
        return DepthFrame(
            f'{frame.rgb_path} with {frame.depth_path}', frame.read_rgb(), depth_m,
            valid=np.isfinite(depth_m), set_name=frame.set_name, block=frame.set_name, K=frame.K)
