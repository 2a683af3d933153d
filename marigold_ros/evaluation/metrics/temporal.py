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
from marigold_ros.evaluation.metrics.protocol_a import error_metrics
from marigold_ros.evaluation.metrics.protocols import align_frame, Aligned, Protocol
from marigold_ros.geometry.unproject import project, unproject

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.types import FloatImage, RgbImage

# A point nearer or farther than what the frame before saw there, by more than this part, was
# hidden.
OCCLUSION = 0.05
# So that a pixel of the border which has not moved is not lost.
ROUNDING_PX = 1e-3
# Without poses, a pixel is static whose true depth and brightness change by no more than that.
STATIC_DEPTH, STATIC_GREY = 0.01, 8
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


@dataclass(frozen=True, eq=False)
class Covisible:
    """
    Where the pixels of a frame lie in the frame before.

    Attributes
    ----------
    seen : bool [H, W]
        Pixels of the current frame that the frame before saw.
    u, v : float32 [H, W]
        Their columns and rows there, px; NaN where the depth is unknown.
    gain : float64 [H, W]
    offset_m : float
        A depth d there is the depth gain * d + offset_m here: the point moves along its old ray.
    """

    seen: NDArray[np.bool_]
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    gain: NDArray[np.float64]
    offset_m: float


def covisible(depth_m: FloatImage, previous_depth_m: FloatImage, K: Matrix,
              previous_from_current: Matrix) -> Covisible:
    """
    Find the pixels of a frame in the frame before.

    Parameters
    ----------
    depth_m, previous_depth_m : float32 [H, W]
        True depth of both, m; NaN unknown.
    K : float64 [3, 3]
        Intrinsics of both.
    previous_from_current : float64 [4, 4]
        Motion of the optical frame.
    """
    points = unproject(depth_m, K).astype(np.float64)
    moved = points @ previous_from_current[:3, :3].T + previous_from_current[:3, 3]
    pixels = project(moved, K)
    height, width = depth_m.shape
    border = (width - 1 + ROUNDING_PX, height - 1 + ROUNDING_PX)
    inside = ((pixels >= -ROUNDING_PX) & (pixels <= border)).all(axis=-1)
    there = _sample(previous_depth_m, pixels[..., 0], pixels[..., 1])
    with np.errstate(invalid='ignore'):
        seen = inside & (np.abs(there - moved[..., 2]) <= OCCLUSION * moved[..., 2])
    current_from_previous = np.linalg.inv(previous_from_current)
    u, v = pixels[..., 0].astype(np.float32), pixels[..., 1].astype(np.float32)
    with np.errstate(divide='ignore', invalid='ignore'):
        gain = moved / moved[..., 2:] @ current_from_previous[2, :3]
    return Covisible(seen, u, v, gain, float(current_from_previous[2, 3]))


def unchanged(depth_m: FloatImage, previous_depth_m: FloatImage, rgb: RgbImage,
              previous_rgb: RgbImage) -> Covisible:
    """
    Find the pixels in which nothing moved, for a camera whose pose is unknown.

    Parameters
    ----------
    depth_m, previous_depth_m : float32 [H, W]
        True depth of both, m; NaN unknown.
    rgb, previous_rgb : uint8 [H, W, 3]
        Of the same size.
    """
    grey, previous_grey = (image.astype(np.float32).mean(axis=-1) for image in (rgb, previous_rgb))
    with np.errstate(invalid='ignore'):
        seen = ((np.abs(depth_m - previous_depth_m) <= STATIC_DEPTH * depth_m)
                & (np.abs(grey - previous_grey) <= STATIC_GREY))
    v, u = np.meshgrid(*(np.arange(edge, dtype=np.float32) for edge in depth_m.shape),
                       indexing='ij')
    return Covisible(seen, u, v, np.ones(depth_m.shape), 0.0)


def flicker(map_m: NDArray[Any], previous_m: NDArray[Any], depth_m: FloatImage,
            pixels: Covisible) -> float:
    """
    Compare a prediction with the one before it.

    Parameters
    ----------
    map_m, previous_m : float [H, W]
        Predictions in m.
    depth_m : float32 [H, W]
        True depth of the current frame, m.
    pixels : Covisible

    Returns
    -------
    float
        Mean of |prediction - moved previous prediction| / truth; NaN if nothing was seen twice.
    """
    if not pixels.seen.any():
        return float('nan')
    moved = pixels.gain * _sample(previous_m, pixels.u, pixels.v) + pixels.offset_m
    return float(np.mean((np.abs(map_m - moved) / depth_m)[pixels.seen]))


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
            aligned: Aligned | None = None) -> dict[str, float]:
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

        Returns
        -------
        dict of str to float
            NaN where it cannot be told.  `tae` against the frame before, with scale and shift of
            the first frame; needs poses and K.  `flicker`, the jump of depth on static pixels,
            with scale and shift of the first frame: jumps of the scale count; `flicker_aligned`
            with those of each frame: only changes of shape count.  `first_fit_abs_rel` and
            `first_fit_delta1` against the truth, with scale and shift of the first frame.

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
                                             _strided_K(frame, aligned.target_m.shape))
        return {'tae': tae, 'flicker': jump, 'flicker_aligned': jump_aligned,
                'first_fit_abs_rel': errors['abs_rel'], 'first_fit_delta1': errors['delta1']}


def _kept(frame: DepthFrame, first_fit: Aligned, aligned: Aligned) -> _Last:
    """Thin a frame out."""
    target_m = aligned.target_m
    depth_m = np.where(np.isfinite(target_m), target_m, np.float32(np.nan))
    rgb = cv2.resize(frame.rgb, target_m.shape[::-1], interpolation=cv2.INTER_AREA)
    thin = (slice(None, None, STRIDE),) * 2
    return _Last(depth_m[thin].astype(np.float32), np.asarray(rgb, np.uint8)[thin],
                 frame.world_from_camera, first_fit.depth_m[thin], aligned.depth_m[thin])


def _strided_K(frame: DepthFrame, shape: tuple[int, ...]) -> Matrix | None:
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


def _sample(image: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float32]:
    """Read an image between its pixels, bilinearly; beyond the border it goes on."""
    return np.asarray(cv2.remap(
        image.astype(np.float32), np.nan_to_num(u).astype(np.float32),
        np.nan_to_num(v).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
