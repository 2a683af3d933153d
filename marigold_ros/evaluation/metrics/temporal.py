"""
How steady depth is over time, seen from a camera that moves or stands still.

TAE, the temporal alignment error, is that of Video Depth Anything (arXiv 2501.12375;
`benchmark/eval/eval_tae.py`): the prediction of one frame is moved into its neighbour by the true
motion and compared with the prediction there, both ways.  Flicker is measured on the pixels of
surfaces that both frames truly see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.evaluation.metrics.covisibility import covisible, flicker, unchanged
from marigold_ros.evaluation.metrics.protocol_a import error_metrics
from marigold_ros.evaluation.metrics.protocols import align_frame, Aligned, Protocol
from marigold_ros.geometry.unproject import project, unproject

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.types import FloatImage, RgbImage

# Depth is compared on every fourth pixel of each axis: predictions are smoother than that.
STRIDE = 4

Matrix = NDArray[np.float64]


def temporal_alignment_error(map_m: NDArray[Any], previous_m: NDArray[Any], K: Matrix,
                             previous_from_current: Matrix) -> float:
    """
    Compute the TAE of two neighbouring frames.

    Parameters
    ----------
    map_m, previous_m : float [H, W]
        Predictions of the current frame and of the one before, above 0, m.
    K : float64 [3, 3]
        Intrinsics of both.
    previous_from_current : float64 [4, 4]
        True motion of the optical frame.

    Returns
    -------
    float
        Mean of the AbsRel of either, moved into the other (published in %, here a share); NaN if
        no point of one falls into the other's view, where the published code counts 0.
    """
    current_from_previous = np.asarray(np.linalg.inv(previous_from_current), np.float64)
    return (_moved_abs_rel(previous_m, map_m, K, current_from_previous)
            + _moved_abs_rel(map_m, previous_m, K, previous_from_current)) / 2


def _moved_abs_rel(source_m: NDArray[Any], target_m: NDArray[Any], K: Matrix,
                   target_from_source: Matrix) -> float:
    """Move one map into the view of another; of two points in one pixel the later counts."""
    points = unproject(np.asarray(source_m, np.float32), K).reshape(-1, 3).astype(np.float64)
    moved = points @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    pixels = np.rint(project(moved, K))
    height, width = target_m.shape
    inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=-1)
    projected_m = np.zeros(target_m.shape)
    columns, rows = pixels[inside].astype(int).T
    projected_m[rows, columns] = moved[inside, 2]
    both = (projected_m > 0) & (target_m > 0)
    if not both.any():
        return float('nan')
    return float(np.mean(np.abs(target_m[both] - projected_m[both]) / target_m[both]))


@dataclass(frozen=True)
class TemporalScores:
    """
    What one frame adds to those before it; NaN where it cannot be told.

    Attributes
    ----------
    protocol : str
        Key of `protocols.LABELS`: how scale and shift were fitted, and to which pixels.
    tae : float
        TAE against the frame before, with scale and shift of the first frame; needs poses and K.
    flicker : float
        Jump of depth on static pixels, with scale and shift of the first frame: jumps of the
        scale count.
    flicker_aligned : float
        The same with scale and shift of each frame: only changes of shape count.
    first_fit_abs_rel, first_fit_delta1 : float
        Against the truth, with scale and shift of the first frame.
    """

    protocol: Protocol
    tae: float
    flicker: float
    flicker_aligned: float
    first_fit_abs_rel: float
    first_fit_delta1: float


@dataclass(frozen=True, eq=False)
class _Last:
    """What is kept of the frame before, on every fourth pixel."""

    depth_m: FloatImage
    rgb: RgbImage
    pose: Matrix | None
    first_fit_m: NDArray[np.float64]
    aligned_m: NDArray[np.float64]


class TemporalFollower:
    """
    Follows the predictions of sequences frame by frame; of each it keeps one frame and a fit.

    Parameters
    ----------
    rules : Rules
        Of the data set.
    protocol : {'A', 'A-disparity', 'B', 'metric'}
    """

    def __init__(self, rules: Rules = Rules(), protocol: Protocol = 'A') -> None:
        self._rules, self._protocol = rules, protocol
        self._fits: dict[str, tuple[float, float]] = {}
        self._last: dict[str, _Last] = {}

    def add(self, prediction: NDArray[Any], frame: DepthFrame,
            aligned: Aligned | None = None) -> TemporalScores:
        """
        Judge the next frame of the sequence `frame.set_name`.

        Parameters
        ----------
        prediction : float [H, W]
            See `protocols.score`.
        frame : DepthFrame
            In the order of time, all of one size within a sequence.
        aligned : Aligned or None
            What `align_frame` made of them, if that is known already.

        Raises
        ------
        InputError
            As `protocols.score` does.
        """
        aligned = aligned or align_frame(prediction, frame, self._rules, self._protocol)
        fit = self._fits.setdefault(frame.set_name, (aligned.scale, aligned.shift))
        first_fit = align_frame(prediction, frame, self._rules, self._protocol, fit=fit)
        errors = error_metrics(first_fit.depth_m[aligned.compared],
                               first_fit.target_m[aligned.compared])
        now = _kept(frame, first_fit, aligned)
        last = self._last.get(frame.set_name)
        self._last[frame.set_name] = now
        tae, jump, jump_aligned = (float('nan'),) * 3
        if last is not None and last.depth_m.shape == now.depth_m.shape:
            tae, jump, jump_aligned = _jumps(now, last,
                                             strided_K(frame, aligned.target_m.shape))
        return TemporalScores(self._protocol, tae, jump, jump_aligned, errors['abs_rel'],
                              errors['delta1'])


def _kept(frame: DepthFrame, first_fit: Aligned, aligned: Aligned) -> _Last:
    """Thin a frame out."""
    target_m = aligned.target_m
    depth_m = np.where(np.isfinite(target_m), target_m, np.float32(np.nan))
    rgb = cv2.resize(frame.rgb, target_m.shape[::-1], interpolation=cv2.INTER_AREA)
    thin = (slice(None, None, STRIDE),) * 2
    return _Last(depth_m[thin].astype(np.float32), np.asarray(rgb, np.uint8)[thin],
                 frame.world_from_camera, first_fit.depth_m[thin], aligned.depth_m[thin])


def strided_K(frame: DepthFrame, shape: tuple[int, ...]) -> Matrix | None:
    """Give the intrinsics of every fourth pixel of a map of a frame, [3, 3]."""
    if frame.K is None:
        return None
    ratio = np.array([shape[1] / frame.rgb.shape[1], shape[0] / frame.rgb.shape[0]]) / STRIDE
    return np.asarray(frame.K * np.array([[ratio[0]], [ratio[1]], [1.0]]))


def _jumps(now: _Last, last: _Last, K: Matrix | None) -> tuple[float, float, float]:
    """Return TAE, flicker and flicker with each frame aligned."""
    if K is None or now.pose is None or last.pose is None:
        pixels, tae = unchanged(now.depth_m, last.depth_m, now.rgb, last.rgb), float('nan')
    else:
        motion: Matrix = np.linalg.inv(last.pose) @ now.pose
        pixels = covisible(now.depth_m, last.depth_m, K, motion)
        tae = temporal_alignment_error(now.first_fit_m, last.first_fit_m, K, motion)
    return (tae, flicker(now.first_fit_m, last.first_fit_m, now.depth_m, pixels),
            flicker(now.aligned_m, last.aligned_m, now.depth_m, pixels))
