"""What fine-tuning and evaluation ask of a data set: frames of an image and its depth, checked."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

# Wider than any camera's scene, narrower than the factor of 1000 between the usual units.
MIN_MEDIAN_M, MAX_MEDIAN_M = 0.05, 200.0
# Of about so many pixels.
MEDIAN_OF = 10_000


@dataclass(frozen=True, eq=False)
class DepthFrame:
    """
    One image with its depth.

    Attributes
    ----------
    name : str
        Where it comes from, for messages: a file, or a place in one.
    rgb : uint8 [H, W, 3]
        Rectified.
    depth_m : float32 [H', W']
        Depth along Z, m; where it is valid, +inf is sky.  It covers what the image covers, at its
        own size; for training at the image's.
    valid : bool [H', W']
        Where depth is known: what is compared with a prediction.
    set_name : str
        Set, sequence or camera that the frame belongs to.
    block : str
        Frames of one block resemble each other: a bootstrap draws whole blocks.
    stamp_ns : int or None
        When it was taken, ns; None in a set without time.
    K : float64 [3, 3] or None
        Intrinsics of `rgb`, px; None if unknown.
    world_from_camera : float64 [4, 4] or None
        Pose of the optical frame in a frame that stands still; None if unknown.
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

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Where depth is valid and no sky, bool [H', W']."""
        measured: NDArray[np.bool_] = self.valid & np.isfinite(self.depth_m)
        return measured

    @property
    def known_depth_m(self) -> NDArray[np.float32]:
        """Depth, m, with NaN where it is not valid; float32 [H', W']."""
        return np.where(self.valid, self.depth_m, np.float32(np.nan))


class FrameSet(Protocol):
    """A data set: everything that has a length and gives a DepthFrame for a number."""

    def __len__(self) -> int:
        """Count the frames."""

    def __getitem__(self, index: int) -> DepthFrame:
        """Read one frame; raise an InputError that names the file if it cannot be read."""


def check_frame(frame: DepthFrame, *, one_size: bool = True) -> None:
    """
    Check what no data set may break.

    Parameters
    ----------
    frame : DepthFrame
    one_size : bool
        Whether depth must have the size of the image, as training asks.

    Raises
    ------
    InputError
        If types or shapes are wrong, no depth is valid, valid depth is NaN or not positive, or
        its median is no depth in metres.
    """
    if frame.rgb.dtype != np.uint8 or frame.rgb.ndim != 3 or frame.rgb.shape[2] != 3:
        raise InputError(f'{frame.name}: the image must be uint8 [H, W, 3]; '
                         f'got {frame.rgb.dtype} {list(frame.rgb.shape)}')
    shapes = [list(array.shape) for array in (frame.rgb[..., 0], frame.depth_m, frame.valid)]
    if shapes[1] != shapes[2] or (one_size and shapes[0] != shapes[1]):
        raise InputError(f'{frame.name}: image, depth and mask must have one height and width; '
                         f'got {shapes[0]}, {shapes[1]} and {shapes[2]}')
    if (frame.valid & ~(frame.depth_m > 0)).any():
        raise InputError(f'{frame.name}: valid depth must be above 0 and not NaN')
    measured = frame.measured
    if not measured.any():
        raise InputError(f'{frame.name}: at least one pixel must have a valid depth; got none')
    # An even sample tells the unit as well, and reading a bag is not to wait for a sort.
    step = max(1, math.isqrt(measured.size // MEDIAN_OF))
    sample = frame.depth_m[::step, ::step][measured[::step, ::step]]
    median_m = float(np.median(sample if sample.size else frame.depth_m[measured]))
    if not MIN_MEDIAN_M <= median_m <= MAX_MEDIAN_M:
        raise InputError(f'{frame.name}: the median depth must lie between {MIN_MEDIAN_M} and '
                         f'{MAX_MEDIAN_M} m; got {median_m:.4g} m: is the unit wrong?')


def check_frame_set(name: str, frames: FrameSet, limit: int) -> None:
    """
    Read frames spread over a data set and check each.

    Parameters
    ----------
    name : str
        Of the set, for messages.
    frames : FrameSet
    limit : int
        How many to read at most; the first is among them.

    Raises
    ------
    InputError
        If the set is empty, or a frame breaks a rule.
    """
    if len(frames) == 0:
        raise InputError(f'{name} must hold at least one frame; got none')
    for index in evenly_spaced_indices(len(frames), limit):
        check_frame(frames[index])


def evenly_spaced_indices(count: int, limit: int) -> list[int]:
    """Pick at most `limit` numbers at even distances from 0 .. count - 1."""
    return [int(place) for place in np.linspace(0, count - 1, min(count, limit)).round()]
