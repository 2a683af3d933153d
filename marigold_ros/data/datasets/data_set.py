"""Data sets to evaluate on: frames in order, how they are averaged, and what rules they have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from marigold_ros.data.frames import DepthFrame, FrameSet

# Predictions are clipped to this range, the far end raised to the frame's largest measurement.
MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 80.0


@dataclass(frozen=True)
class Rules:
    """
    What the evaluation of a data set prescribes beyond its frames and their masks.

    Attributes
    ----------
    min_depth_m, max_depth_m : float
        Range to which protocol A clips a prediction, m.
    reaches_farthest : bool
        Whether the far end is raised to the largest measurement of a frame.
    alignment_max_res : int or None
        Longest edge at which protocol A fits scale and shift, px; None is the truth's own.
    processing_resolution : int or None
        Longest edge at which the model is to work, px, 0 the image's; None is the checkpoint's.
    b_min_depth_m, b_max_depth_m : float
        Depth outside is not compared in protocol B, m.
    b_size : (int, int) or None
        Height and width at which protocol B compares, px; None is the truth's own.
    b_masks_edges : bool
        Whether protocol B leaves out pixels where the true depth is steep.
    """

    min_depth_m: float = MIN_DEPTH_M
    max_depth_m: float = MAX_DEPTH_M
    reaches_farthest: bool = True
    alignment_max_res: int | None = None
    processing_resolution: int | None = None
    b_min_depth_m: float = 0.0
    b_max_depth_m: float = np.inf
    b_size: tuple[int, int] | None = None
    b_masks_edges: bool = True

    def clip_range_m(self, frame: DepthFrame) -> tuple[float, float]:
        """Return the ends, m, between which an aligned prediction of a frame is kept."""
        if not self.reaches_farthest:
            return self.min_depth_m, self.max_depth_m
        return self.min_depth_m, float(np.max(frame.depth_m, where=frame.measured,
                                              initial=self.max_depth_m))


@dataclass(frozen=True)
class DataSet:
    """
    Frames that are averaged together.

    Attributes
    ----------
    name : str
    block : str
        What one of its blocks is, in words.
    mean_of_blocks : bool
        Whether every block counts the same in a mean, or every frame.
    frames : callable
        Reads the frames anew, in the order of time where there is one; each is checked.
    count : int or None
        Frames at most, for a progress bar; None if unknown.
    rules : Rules
    notes : list of str
        What the last reading left out or lost, in words, complete when its frames have ended.
    """

    name: str
    block: str
    mean_of_blocks: bool
    frames: Callable[[], Iterator[DepthFrame]]
    count: int | None = None
    rules: Rules = Rules()
    notes: list[str] = field(default_factory=list, compare=False)

    @classmethod
    def from_frame_set(cls, name: str, block: str, frames: FrameSet, *,
                       mean_of_blocks: bool = False) -> DataSet:
        """Describe frames that can be read by their numbers."""
        return cls(name, block, mean_of_blocks, lambda: (frames[i] for i in range(len(frames))),
                   count=len(frames))
