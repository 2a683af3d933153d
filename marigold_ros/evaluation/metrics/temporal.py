"""
Temporal consistency of depth, for a moving or a static camera.

TAE, the temporal alignment error, is that of Video Depth Anything (arXiv 2501.12375;
`benchmark/eval/eval_tae.py`): the prediction of each of two neighbouring frames is reprojected
into the other frame by the true camera motion and compared with the prediction there.  Flicker is
the change of the prediction on surfaces that are visible in both frames according to the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.geometry.unproject import project, unproject

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.types import FloatImage, RgbImage
    from marigold_ros.evaluation.metrics.protocols import Aligned, ScoredDepth

# A point was occluded in the previous frame if the depth there differs by more than this share.
MAX_DEPTH_MISMATCH = 0.05
# Rounding must not exclude border pixels of a static camera.
BORDER_TOLERANCE_PX = 1e-3
# Without poses, a pixel is static if its true depth (relative) and its grey value change less.
STATIC_DEPTH, STATIC_GREY = 0.01, 8
# Depth is compared on every fourth pixel of each axis: predictions are smooth at that scale.
STRIDE = 4

Matrix = NDArray[np.float64]


def temporal_alignment_error(depth_m: NDArray[Any], previous_depth_m: NDArray[Any], K: Matrix,
                             previous_from_current: Matrix) -> float:
    """
    Compute the temporal alignment error (TAE) of two neighbouring frames.

    Parameters
    ----------
    depth_m, previous_depth_m : float [H, W]
        Predictions for the current and the previous frame, above 0, m.
    K : float64 [3, 3]
        Intrinsics of both frames, px.
    previous_from_current : float64 [4, 4]
        True pose of the current optical frame in the previous one.

    Returns
    -------
    float
        Mean of the two AbsRel of one prediction reprojected into the other frame, as a share (the
        paper gives %).  NaN without overlap of the views, where the published code gives 0.

    Examples
    --------
    The camera moves 0.5 m towards a wall; the second prediction does not see it come nearer:

    >>> import numpy as np
    >>> K = np.array([[40.0, 0.0, 16.0], [0.0, 40.0, 12.0], [0.0, 0.0, 1.0]])
    >>> motion = np.eye(4)
    >>> motion[2, 3] = 0.5
    >>> wall_m = np.full((24, 32), 2.5)
    >>> round(temporal_alignment_error(wall_m - 0.5, wall_m, K, motion), 3)
    0.0
    >>> round(temporal_alignment_error(wall_m, wall_m, K, motion), 3)
    0.2
    """
    current_from_previous = np.asarray(np.linalg.inv(previous_from_current), np.float64)
    return (_reprojected_abs_rel(previous_depth_m, depth_m, K, current_from_previous)
            + _reprojected_abs_rel(depth_m, previous_depth_m, K, previous_from_current)) / 2


def _reprojected_abs_rel(source_m: NDArray[Any], destination_m: NDArray[Any], K: Matrix,
                         destination_from_source: Matrix) -> float:
    """Compute AbsRel of a map reprojected into another frame; a later point overwrites."""
    points = unproject(np.asarray(source_m, np.float32), K).reshape(-1, 3).astype(np.float64)
    moved = points @ destination_from_source[:3, :3].T + destination_from_source[:3, 3]
    columns, rows = np.rint(project(moved, K)).T
    height, width = destination_m.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    projected_m = np.zeros(destination_m.shape)
    projected_m[rows[inside].astype(int), columns[inside].astype(int)] = moved[inside, 2]
    both = (projected_m > 0) & (destination_m > 0)
    if not both.any():
        return float('nan')
    return float(np.mean(np.abs(destination_m[both] - projected_m[both]) / destination_m[both]))


@dataclass(frozen=True, eq=False)
class PixelCorrespondences:
    """
    Positions of a frame's pixels in the previous frame.

    Attributes
    ----------
    seen : bool [H, W]
        Pixels of the current frame that are visible in the previous frame.
    u, v : float32 [H, W]
        Their columns and rows in the previous frame, px; NaN where the depth is unknown.
    gain : float64 [H, W]
    offset_m : float
        A depth d in the previous frame becomes gain * d + offset_m in the current frame.
    """

    seen: NDArray[np.bool_]
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    gain: NDArray[np.float64]
    offset_m: float


def find_covisible_pixels(target_m: FloatImage, previous_target_m: FloatImage, K: Matrix,
                          previous_from_current: Matrix) -> PixelCorrespondences:
    """
    Find the pixels of a frame that are visible in the previous frame.

    Parameters
    ----------
    target_m, previous_target_m : float32 [H, W]
        True depth of both frames, m; NaN is unknown.
    K : float64 [3, 3]
        Intrinsics of both frames, px.
    previous_from_current : float64 [4, 4]
        Pose of the current optical frame in the previous one.
    """
    points = unproject(target_m, K).astype(np.float64)
    moved = points @ previous_from_current[:3, :3].T + previous_from_current[:3, 3]
    pixels = project(moved, K)
    height, width = target_m.shape
    u, v = pixels[..., 0], pixels[..., 1]
    inside = ((u >= -BORDER_TOLERANCE_PX) & (u <= width - 1 + BORDER_TOLERANCE_PX)
              & (v >= -BORDER_TOLERANCE_PX) & (v <= height - 1 + BORDER_TOLERANCE_PX))
    there = _sample_bilinear(previous_target_m, u, v)
    with np.errstate(invalid='ignore'):
        seen = inside & (np.abs(there - moved[..., 2]) <= MAX_DEPTH_MISMATCH * moved[..., 2])
    current_from_previous = np.linalg.inv(previous_from_current)
    with np.errstate(divide='ignore', invalid='ignore'):
        gain = moved / moved[..., 2:] @ current_from_previous[2, :3]
    return PixelCorrespondences(seen, u.astype(np.float32), v.astype(np.float32), gain,
                                float(current_from_previous[2, 3]))


def find_static_pixels(target_m: FloatImage, previous_target_m: FloatImage, rgb: RgbImage,
                       previous_rgb: RgbImage) -> PixelCorrespondences:
    """
    Find the static pixels of a camera whose pose is unknown.

    Parameters
    ----------
    target_m, previous_target_m : float32 [H, W]
        True depth of both frames, m; NaN is unknown.
    rgb, previous_rgb : uint8 [H, W, 3]
        Images of both frames.
    """
    grey, previous_grey = (image.astype(np.float32).mean(axis=-1) for image in (rgb, previous_rgb))
    with np.errstate(invalid='ignore'):
        seen = ((np.abs(target_m - previous_target_m) <= STATIC_DEPTH * target_m)
                & (np.abs(grey - previous_grey) <= STATIC_GREY))
    v, u = np.meshgrid(*(np.arange(edge, dtype=np.float32) for edge in target_m.shape),
                       indexing='ij')
    return PixelCorrespondences(seen, u, v, np.ones(target_m.shape), 0.0)


def compute_flicker(depth_m: NDArray[Any], previous_depth_m: NDArray[Any],
                    target_m: FloatImage, pixels: PixelCorrespondences) -> float:
    """
    Compute the flicker between two predictions.

    Parameters
    ----------
    depth_m, previous_depth_m : float [H, W]
        Predictions for the current and the previous frame, m.
    target_m : float32 [H, W]
        True depth of the current frame, m.
    pixels : PixelCorrespondences

    Returns
    -------
    float
        Mean of abs(prediction - reprojected previous prediction) / truth; NaN if no pixel is
        visible in both frames.
    """
    if not pixels.seen.any():
        return float('nan')
    moved = pixels.gain * _sample_bilinear(previous_depth_m, pixels.u, pixels.v) + pixels.offset_m
    return float(np.mean((np.abs(depth_m - moved) / target_m)[pixels.seen]))


@dataclass(frozen=True, eq=False)
class _SampledFrame:
    """The data of a frame that the next frame is compared with, on every fourth pixel."""

    target_m: FloatImage
    rgb: RgbImage
    pose: Matrix | None
    first_fit_m: NDArray[np.float64]
    aligned_m: NDArray[np.float64]


class TemporalEvaluator:
    """Score the temporal consistency of predictions, frame by frame, of one or more sequences."""

    def __init__(self) -> None:
        self._fits: dict[str, tuple[float, float]] = {}
        self._previous: dict[str, _SampledFrame] = {}

    def add(self, scored: ScoredDepth) -> dict[str, float]:
        """
        Score the next frame of a sequence, that is, of the frames with one `set_name`.

        Parameters
        ----------
        scored : ScoredDepth
            In the order of time; all frames of a sequence have one size.

        Returns
        -------
        dict of str to float
            NaN where unknown; empty for a frame that cannot be compared.  `tae`: TAE against the
            previous frame, with the first frame's scale and shift; needs poses and K.  `flicker`:
            flicker on pixels visible in both frames, with the first frame's scale and shift, so
            that changes of the scale count.  `flicker_aligned`: the same with each frame's own
            scale and shift, so that only changes of the shape count.  `first_fit_abs_rel`,
            `first_fit_delta1`: error against the truth with the first frame's scale and shift.
        """
        truth, aligned, frame = scored.truth, scored.aligned, scored.truth.frame
        if aligned is None:
            return {}
        fit = self._fits.setdefault(frame.set_name, (aligned.scale, aligned.shift))
        first_fit = truth.align(scored.depth, fit)
        errors = truth.errors(first_fit)
        current = _subsample_frame(frame, first_fit, aligned)
        previous = self._previous.get(frame.set_name)
        self._previous[frame.set_name] = current
        tae, flicker, flicker_aligned = (float('nan'),) * 3
        if previous is not None and previous.target_m.shape == current.target_m.shape:
            tae, flicker, flicker_aligned = _temporal_scores(
                current, previous, _subsampled_K(frame, aligned.target_m.shape))
        return {'tae': tae, 'flicker': flicker, 'flicker_aligned': flicker_aligned,
                'first_fit_abs_rel': errors['abs_rel'], 'first_fit_delta1': errors['delta1']}


def _subsample_frame(frame: DepthFrame, first_fit: Aligned, aligned: Aligned) -> _SampledFrame:
    """Keep every fourth pixel of each axis."""
    target_m = aligned.target_m
    known_m = np.where(np.isfinite(target_m), target_m, np.float32(np.nan))
    rgb = cv2.resize(frame.rgb, target_m.shape[::-1], interpolation=cv2.INTER_AREA)
    thin = (slice(None, None, STRIDE),) * 2
    return _SampledFrame(known_m[thin].astype(np.float32), np.asarray(rgb, np.uint8)[thin],
                         frame.world_from_camera, first_fit.depth_m[thin], aligned.depth_m[thin])


def _subsampled_K(frame: DepthFrame, shape: tuple[int, ...]) -> Matrix | None:
    """Return the intrinsics of a frame's map after subsampling, [3, 3]."""
    if frame.K is None:
        return None
    ratio = np.array([shape[1] / frame.rgb.shape[1], shape[0] / frame.rgb.shape[0]]) / STRIDE
    return np.asarray(frame.K * np.array([[ratio[0]], [ratio[1]], [1.0]]))


def _temporal_scores(current: _SampledFrame, previous: _SampledFrame,
                     K: Matrix | None) -> tuple[float, float, float]:
    """Return TAE, flicker, and flicker with each frame aligned separately."""
    tae = float('nan')
    if K is None or current.pose is None or previous.pose is None:
        pixels = find_static_pixels(current.target_m, previous.target_m, current.rgb, previous.rgb)
    else:
        motion: Matrix = np.linalg.inv(previous.pose) @ current.pose
        pixels = find_covisible_pixels(current.target_m, previous.target_m, K, motion)
        tae = temporal_alignment_error(current.first_fit_m, previous.first_fit_m, K, motion)
    return (tae, compute_flicker(current.first_fit_m, previous.first_fit_m, current.target_m,
                                 pixels),
            compute_flicker(current.aligned_m, previous.aligned_m, current.target_m, pixels))


def _sample_bilinear(image: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float32]:
    """Sample an image bilinearly at subpixel positions; border pixels are replicated."""
    return np.asarray(cv2.remap(
        image.astype(np.float32), np.nan_to_num(u).astype(np.float32),
        np.nan_to_num(v).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
