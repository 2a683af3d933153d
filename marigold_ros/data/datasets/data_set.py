"""Data sets for evaluation: their frames, evaluation rules and averaging."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from marigold_ros.data.frames import DepthFrame, FrameSet, Part, WHOLE

# Default clipping range of predictions; its upper limit follows farther measurements.
MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 80.0


@dataclass(frozen=True)
class Rules:
    """
    Evaluation rules of a data set, in addition to its frames and masks.

    Attributes
    ----------
    min_depth_m, max_depth_m : float
        Range to which protocol A clips a prediction, m.
    extend_to_farthest : bool
        Whether `max_depth_m` is raised to the largest measurement of a frame.
    alignment_max_res : int or None
        Longest edge at which protocol A fits scale and shift, px; None is that of the truth.
    processing_resolution : int or None
        Longest edge at which the model runs, px; 0 is that of the image, None the default of the
        checkpoint.
    b_min_depth_m, b_max_depth_m : float
        Range of true depth that protocol B compares, m.
    b_size : (int, int) or None
        Height and width at which protocol B compares, px; None is those of the truth.
    b_masks_edges : bool
        Whether protocol B excludes pixels at edges of the true depth.
    """

    min_depth_m: float = MIN_DEPTH_M
    max_depth_m: float = MAX_DEPTH_M
    extend_to_farthest: bool = True
    alignment_max_res: int | None = None
    processing_resolution: int | None = None
    b_min_depth_m: float = 0.0
    b_max_depth_m: float = np.inf
    b_size: tuple[int, int] | None = None
    b_masks_edges: bool = True

    def clip_range_m(self, frame: DepthFrame) -> tuple[float, float]:
        """Return the range, m, to which an aligned prediction of a frame is clipped."""
        if not self.extend_to_farthest:
            return self.min_depth_m, self.max_depth_m
        return self.min_depth_m, float(np.max(frame.depth_m, where=frame.measured,
                                              initial=self.max_depth_m))


@dataclass(frozen=True)
class DataSet:
    """
    Frames that are evaluated and averaged together.

    Attributes
    ----------
    name : str
    block_kind : str
        Description of one block, for instance 'scene'.
    mean_of_blocks : bool
        Whether a mean weights blocks equally, instead of frames.
    frames : callable
        Function that returns a new iterator of the checked frames, in order of time if they have
        stamps.
    count : int or None
        Upper limit of the number of frames, for a progress bar; None if unknown.
    rules : Rules
    is_sequence : bool
        Whether the frames follow each other in time, so that depth can be carried along.
    notes : list of str
        What the last iteration skipped or lost; complete at its end.
    first_number : int
        Number of the first frame: above 0 in a later part of single frames.
    """

    name: str
    block_kind: str
    mean_of_blocks: bool
    frames: Callable[[], Iterator[DepthFrame]]
    count: int | None = None
    rules: Rules = Rules()
    is_sequence: bool = False
    notes: list[str] = field(default_factory=list, compare=False)
    first_number: int = 0

    @classmethod
    def from_frame_set(cls, name: str, block_kind: str, frames: FrameSet, part: Part = WHOLE, *,
                       mean_of_blocks: bool = False) -> DataSet:
        """Create a data set from frames with random access, or from a part of them."""
        numbers = part.split(len(frames))
        return cls(name, block_kind, mean_of_blocks, lambda: (frames[i] for i in numbers),
                   count=len(numbers), first_number=numbers.start)
