"""Frames of data sets: an image with its metric depth, and the checks that each must pass."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

# Wider than any scene, but narrow enough to detect depth in mm that is declared as m.
MIN_MEDIAN_M, MAX_MEDIAN_M = 0.05, 200.0
MEDIAN_SAMPLES = 10_000


@dataclass(frozen=True, eq=False)
class DepthFrame:
    """
    One image with its depth.

    Attributes
    ----------
    name : str
        Origin of the frame for messages: a file, or a position in one.
    rgb : uint8 [H, W, 3]
        Rectified.
    depth_m : float32 [H', W']
        Metric depth along Z, m; valid +inf is sky.  Covers the view of the image, at its own
        resolution; for training, at that of the image.
    valid : bool [H', W']
        Pixels with known depth; only these are compared with a prediction.
    set_name : str
        Data set, sequence or camera of the frame.
    block : str
        Group of correlated frames; a bootstrap resamples whole blocks.
    stamp_ns : int or None
        Time of capture, ns; None if unknown.
    K : float64 [3, 3] or None
        Intrinsics of `rgb`, px; None if unknown.
    world_from_camera : float64 [4, 4] or None
        Pose of the optical frame in a fixed coordinate frame; None if unknown.
    is_lead_in : bool
        Whether it precedes the frames of a part of a recording, so that what is carried from frame
        to frame is known when the part begins; it is run but not counted.
    """

    name: str
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    valid: NDArray[np.bool_]
    set_name: str = ''
    block: str = ''
    stamp_ns: int | None = None
    K: NDArray[np.float64] | None = None
    world_from_camera: NDArray[np.float64] | None = None
    is_lead_in: bool = False

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Return the pixels whose depth is valid and not sky, bool [H', W']."""
        measured: NDArray[np.bool_] = self.valid & np.isfinite(self.depth_m)
        return measured

    @property
    def known_depth_m(self) -> NDArray[np.float32]:
        """Return the depth, m, NaN where invalid; float32 [H', W']."""
        return np.where(self.valid, self.depth_m, np.float32(np.nan))


@dataclass(frozen=True)
class Part:
    """
    One of several equal parts of a recording.

    Attributes
    ----------
    index, count : int
        Number of this part, from 0, and of all parts.
    lead_in_s : float
        Time of a bag before the part, s, whose frames are read as well, marked as lead-in.
    """

    index: int = 0
    count: int = 1
    lead_in_s: float = 0.0

    def split(self, total: int) -> range:
        """Return the numbers from 0 to total - 1 that belong to this part."""
        return range(self.index * total // self.count, (self.index + 1) * total // self.count)


WHOLE = Part()


class FrameSet(Protocol):
    """A data set with random access to its frames."""

    def __len__(self) -> int:
        """Count the frames."""

    def __getitem__(self, index: int) -> DepthFrame:
        """Read one frame; raise an InputError that names an unreadable file."""


def check_frame(frame: DepthFrame, *, same_size: bool = True) -> None:
    """
    Check one frame of a data set.

    Parameters
    ----------
    frame : DepthFrame
    same_size : bool
        Require depth at the resolution of the image, as training does.

    Raises
    ------
    InputError
        If types or shapes are wrong, no depth is valid, valid depth is NaN or not positive, or
        its median is implausible in metres.
    """
    if frame.rgb.dtype != np.uint8 or frame.rgb.ndim != 3 or frame.rgb.shape[2] != 3:
        raise InputError(f'{frame.name}: the image must be uint8 [H, W, 3]; '
                         f'got {frame.rgb.dtype} {list(frame.rgb.shape)}')
    shapes = [list(array.shape) for array in (frame.rgb[..., 0], frame.depth_m, frame.valid)]
    if shapes[1] != shapes[2] or (same_size and shapes[0] != shapes[1]):
        raise InputError(f'{frame.name}: image, depth and mask must have the same height and '
                         f'width; got {shapes[0]}, {shapes[1]} and {shapes[2]}')
    if (frame.valid & ~(frame.depth_m > 0)).any():
        raise InputError(f'{frame.name}: valid depth must be above 0 and not NaN')
    measured = frame.measured
    if not measured.any():
        raise InputError(f'{frame.name}: at least one pixel must have a valid depth; got none')
    # A regular subsample is enough to check the unit, and faster than sorting all pixels.
    step = max(1, math.isqrt(measured.size // MEDIAN_SAMPLES))
    sample = frame.depth_m[::step, ::step][measured[::step, ::step]]
    median_m = float(np.median(sample if sample.size else frame.depth_m[measured]))
    if not MIN_MEDIAN_M <= median_m <= MAX_MEDIAN_M:
        raise InputError(f'{frame.name}: the median depth must lie between {MIN_MEDIAN_M} and '
                         f'{MAX_MEDIAN_M} m; got {median_m:.4g} m: is the unit wrong?')


def check_frame_set(name: str, frames: FrameSet, limit: int) -> None:
    """
    Read evenly spaced frames of a data set and check each.

    Parameters
    ----------
    name : str
        Name of the data set, for messages.
    frames : FrameSet
    limit : int
        Largest number of frames to read; includes the first.

    Raises
    ------
    InputError
        If the data set is empty or `check_frame` rejects a frame.
    """
    if len(frames) == 0:
        raise InputError(f'{name} must hold at least one frame; got none')
    for index in evenly_spaced_indices(len(frames), limit):
        check_frame(frames[index])


def evenly_spaced_indices(count: int, limit: int) -> list[int]:
    """Return at most `limit` evenly spaced indices from 0 to count - 1."""
    return [int(index) for index in np.linspace(0, count - 1, min(count, limit)).round()]
