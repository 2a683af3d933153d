"""
Carry depth along: move the depth of the last run into the newest frame by optical flow.

Flow and masks are computed on grey images of at most 320 px.  The flow of all frames since the run
is chained into one map from the newest frame to that of the run, so that depth is interpolated
once, however long it is carried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.types import FloatImage, GaugeChange, GreyImage, Mask, Matrix

# A pixel has changed where its surroundings differ from what the flow predicts by more than
# CHANGE_GREY levels, plus what flow that is FLOW_ERROR_PX wrong would explain.
CHANGE_GREY, FLOW_ERROR_PX, SURROUNDINGS_PX = 8.0, 0.5, 5
# Depth is not carried into changes of this size; narrower ones are edges, which the model itself
# blurs more than that.
CHANGE_SIZE_PX = 15
# OpenCV's flow chooses its coarsest level by the width alone.  Of an image of 320 px that is lower
# than this it reads beyond the level's end, and may end the process.
MIN_FLOW_PX = 128
# Of the longest edge.  A round thing that covers 1 % of the image fills most of such a window.
LOCAL_WINDOW = 0.065
# Two runs are compared at every n-th pixel of the grey image, if so many of these are covered.
GAUGE_STRIDE_PX, MIN_GAUGE_PIXELS = 4, 200
# A camera whose image has moved less, in the mean, stands still.
STILL_PX = 0.5
# Of metric depth divided by the scale; nearer pixels do not weigh more.
MIN_RELATIVE_DEPTH = 0.05
# Runs that resemble each other less differ by more than a gauge.
MIN_GAUGE_CORRELATION = 0.7


@dataclass(frozen=True, eq=False)
class View:
    """
    Pose of a camera.

    Attributes
    ----------
    K : float64 [3, 3]
        Intrinsics of the image, px.
    world_from_camera : float64 [4, 4]
        Pose of the optical frame in a fixed coordinate frame, m.
    """

    K: Matrix
    world_from_camera: Matrix


@dataclass(frozen=True, eq=False)
class Novelty:
    """
    What of a frame is new.

    Attributes
    ----------
    new : bool [h, w]
        Pixels of the grey image that the carried depth does not cover, since they came into view
        or changed after the run.
    largest_change : float
        Largest share, in any window of `LOCAL_WINDOW`, of pixels that changed since the last
        frame.
    """

    new: Mask
    largest_change: float

    @property
    def covered_share(self) -> float:
        """Return the share of the image that the carried depth covers."""
        return 1.0 - float(self.new.mean())


@dataclass(frozen=True, eq=False)
class CarriedDepth:
    """
    The depth of a run, moved into a later frame.

    Attributes
    ----------
    affine_invariant_depth : float32 [H, W]
        With the scale and shift of the run; may leave [0, 1].  Where it does not cover the frame
        it is that of neighbours.
    confidence : float32 [H, W] or None
        That of the run; 0 where not covered.
    covered : bool [H, W]
        Pixels that the depth covers.
    """

    affine_invariant_depth: FloatImage
    confidence: FloatImage | None
    covered: Mask


class DepthCarrier:
    """
    The depth of one camera, carried from frame to frame.

    Every frame goes through `advance`; then either `start` takes the depth of a run on that frame,
    or `carry` returns the carried depth.

    Parameters
    ----------
    grey : uint8 [h, w]
        The first frame, see `complexity.reduce_to_grey`.
    detail_px : int
        Longest edge at which the networks compute depth; it is carried at that size, or that of
        `grey` if it is larger, and resized like the networks' output.
    """

    def __init__(self, grey: GreyImage, detail_px: int = 0) -> None:
        """Start without depth."""
        self._detail_px = detail_px
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        rows, columns = np.indices(grey.shape, np.float32)
        self._unmoved = np.dstack([columns, rows])  # [h,w,2], px
        self._last_pixel = self._unmoved[-1, -1]
        self._grey = grey
        # Of each pixel: where it was in the frame of the run, and 1 if it is covered.
        self._chain, self._covered = self._unmoved, np.ones(grey.shape, np.float32)

    def advance(self, grey: GreyImage) -> Novelty:
        """
        Chain the flow to the next frame, and find what is new in it.

        Parameters
        ----------
        grey : uint8 [h, w]
            Of the size of the first frame.

        Returns
        -------
        Novelty
        """
        # 1. Where each pixel was in the last frame, and in that of the run.
        source = self._unmoved + self._find_flow(grey)  # [h,w,2], px
        nearest = np.clip(source, 0, self._last_pixel)
        chain = _sample(self._chain, source) + (source - nearest)

        # 2. What came into view, and what changed.
        seen = _is_inside(source) & _is_inside(chain)
        changed = (_find_changes(grey, _sample(self._grey, source)) & seen).astype(np.float32)

        # 3. A pixel stays covered as long as nothing of this happens to it.
        covered = ((_sample(self._covered, source) > 0.5) & seen
                   & (_average(changed, CHANGE_SIZE_PX) <= 0.5))
        self._grey, self._chain, self._covered = grey, chain, covered.astype(np.float32)
        window = max(1, round(LOCAL_WINDOW * max(grey.shape)))
        return Novelty(~covered, float(_average(changed, window).max()))

    def start(self, depth: FloatImage, confidence: FloatImage | None,
              view: View | None = None) -> None:
        """
        Carry the depth of a run on the last frame from now on.

        Parameters
        ----------
        depth : float32 [H, W]
            Relative depth.
        confidence : float32 [H, W] or None
            Its confidence.
        view : View or None
            The camera of that frame, if its pose is known.
        """
        self._size, self._view = depth.shape[::-1], view
        self._depth = self._reduce(depth)  # [h',w']
        self._confidence = None if confidence is None else self._reduce(confidence)
        self._chain, self._covered = self._unmoved, np.ones_like(self._covered)

    def carry(self, view: View | None = None,
              scale_shift: tuple[float, float] | None = None) -> CarriedDepth:
        """
        Return the depth of the run, moved into the last frame.

        Parameters
        ----------
        view : View or None
            The camera of the last frame, or of an earlier one, if its pose is known.
        scale_shift : (float, float) or None
            Metric depth is scale * relative depth + shift, m; None if unknown.

        Returns
        -------
        CarriedDepth
            With a view and a scale, depth changes as the camera moves along its axis; else it only
            moves along the image.
        """
        chain = _resize(self._chain, self._depth.shape[::-1])
        depth = self._move(chain, view, scale_shift)
        covered = _resize(self._covered, self._size) > 0.5
        confidence = None
        if self._confidence is not None:
            confidence = _resize(_sample(self._confidence, self._to_depth(chain)), self._size)
            np.copyto(confidence, 0.0, where=~covered)
        return CarriedDepth(_resize(depth, self._size), confidence, covered)

    def compare(self, depth: FloatImage, view: View | None = None,
                scale_shift: tuple[float, float] | None = None) -> GaugeChange | None:
        """
        Compare the carried depth with that of a new run on the last frame.

        Parameters
        ----------
        depth : float32 [H, W]
            Relative depth of the new run.
        view, scale_shift
            See `carry`.

        Returns
        -------
        GaugeChange or None
            None if too little is covered, or the two do not resemble each other; or if the camera
            moved in a way that is not known, which would look like a change of the gauge.
        """
        known_motion = None not in (view, self._view, scale_shift)
        if not known_motion and np.abs(self._chain - self._unmoved).mean() > STILL_PX:
            return None
        grid = np.s_[GAUGE_STRIDE_PX // 2::GAUGE_STRIDE_PX]
        old = self._move(self._chain[grid, grid], view, scale_shift)
        new = _sample(self._reduce(depth), self._to_depth(self._unmoved[grid, grid]))
        covered = (self._covered[grid, grid] > 0.5) & np.isfinite(old) & np.isfinite(new)
        proportion = None if scale_shift is None else scale_shift[1] / scale_shift[0]
        return _fit_gauge_change(old[covered], new[covered], proportion)

    def _move(self, chain: FloatImage, view: View | None,
              scale_shift: tuple[float, float] | None) -> FloatImage:
        """Return the depth of pixels [h,w,2] of the run's grey image as it is in a view, [h,w]."""
        depth: FloatImage = _sample(self._depth, self._to_depth(chain))
        if view is None or self._view is None or scale_shift is None:
            return depth
        to_run = _resize_matrix(self._grey.shape[::-1], self._size)
        change = _change_along_axis(self._view, view, *scale_shift) @ to_run
        factor, offset = cv2.split(cv2.transform(chain, change))
        return np.asarray(depth * factor + offset, np.float32)

    def _to_depth(self, pixels: FloatImage) -> FloatImage:
        """Convert pixels [h,w,2] of the grey image to those of the depth that is carried."""
        matrix = _resize_matrix(self._grey.shape[::-1], self._depth.shape[::-1])
        return np.asarray(cv2.transform(pixels, matrix[:2]), np.float32)

    def _find_flow(self, grey: GreyImage) -> FloatImage:
        """Return the way from each pixel of a frame to where it was in the last one, [h,w,2]."""
        height, width = grey.shape
        border = (0, max(0, MIN_FLOW_PX - height), 0, max(0, MIN_FLOW_PX - width))
        frames = [cv2.copyMakeBorder(each, *border, cv2.BORDER_REPLICATE) if any(border) else each
                  for each in (grey, self._grey)]
        flow: FloatImage = self._flow.calc(*frames, None)
        return flow[:height, :width]

    def _reduce(self, image: FloatImage) -> FloatImage:
        """Reduce [H,W] to the size at which it is carried."""
        edge = max(*self._grey.shape, self._detail_px)
        reduction = max(image.shape) / edge
        if reduction <= 1.0:
            return image
        size = self._grey.shape[::-1]
        if edge > max(size):
            size = tuple(max(1, round(each / reduction)) for each in self._size)
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _resize(image: Any, size: tuple[int, int]) -> Any:
    """Resize [h,w] or [h,w,n] to (width, height) bilinearly."""
    return image if image.shape[1::-1] == size else cv2.resize(image, size)


def _resize_matrix(size: tuple[int, int], other: tuple[int, int]) -> Matrix:
    """Return the matrix [3,3] from (column, row, 1) in an image to those in it at another size."""
    x, y = other[0] / size[0], other[1] / size[1]
    return np.array([[x, 0.0, (x - 1.0) / 2.0], [0.0, y, (y - 1.0) / 2.0], [0.0, 0.0, 1.0]])


def _change_along_axis(run: View, view: View, scale: float, shift: float) -> Matrix:
    """
    Compute how the relative depth of points seen in the run changes in the camera of a view.

    A point at depth z on the ray r of the run's camera lies at depth z (R r)_z + t_z in the other
    one; (R, t) is the transform between them, and z = scale * depth + shift.

    Returns
    -------
    float64 [2, 3]
        Times (column, row, 1) in the image of the run: factor and offset of the relative depth.
    """
    row = (np.linalg.inv(view.world_from_camera) @ run.world_from_camera)[2]
    factor = row[:3] @ np.linalg.inv(run.K)  # (R r)_z
    offset = shift * (factor - [0.0, 0.0, 1.0]) + [0.0, 0.0, row[3]]
    return np.stack([factor, offset / scale])


def _fit_gauge_change(old: FloatImage, new: FloatImage,
                      proportion: float | None) -> GaugeChange | None:
    """
    Fit new = factor * old + offset to the relative depth [n] of the same pixels.

    Both have errors, so the factor is the ratio of the standard deviations; least squares of one
    to the other would shrink depth a little at every run.  With the proportion shift / scale of
    metric depth, errors count relative to that.
    """
    if len(old) < MIN_GAUGE_PIXELS:
        return None
    weight = np.ones(len(old))
    if proportion is not None:
        weight = np.maximum(old + proportion, MIN_RELATIVE_DEPTH) ** -2.0
    (var_old, covariance), (_, var_new) = np.cov(old, new, aweights=weight)
    if not covariance > MIN_GAUGE_CORRELATION * np.sqrt(var_old * var_new):
        return None
    factor = float(np.sqrt(var_new / var_old))
    return GaugeChange(factor, float(np.average(new - factor * old, weights=weight)))


def _find_changes(grey: GreyImage, expected: GreyImage) -> Mask:
    """Compare a frame with what the flow makes of the last one, whatever the exposure."""
    (mean, deviation), (expected_mean, expected_deviation) = (
        [value.item() for value in cv2.meanStdDev(image)] for image in (grey, expected))
    gain = deviation / max(expected_deviation, 1.0)
    exposed = np.float32(gain) * (expected - np.float32(expected_mean)) + mean
    difference = grey - np.clip(exposed, 0.0, 255.0)  # as bright as a pixel can be
    smooth = cv2.GaussianBlur(grey, (5, 5), 0)
    slope = cv2.magnitude(*(cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx, scale=1 / 8)
                            for dx in (1, 0)))  # grey levels per px
    changed: Mask = (np.abs(_average(difference, SURROUNDINGS_PX)) - FLOW_ERROR_PX * _average(
        slope, SURROUNDINGS_PX)) > CHANGE_GREY
    return changed


def _is_inside(pixels: FloatImage) -> Mask:
    """Return which columns and rows [h,w,2] lie in an image of [h,w], or at most 1 px beyond."""
    height, width = pixels.shape[:2]
    inside: Mask = cv2.inRange(pixels, (-1, -1), (width, height)) > 0
    return inside


def _sample(image: NDArray[Any], pixels: Any) -> Any:
    """Interpolate [H,W] or [H,W,n] at columns and rows [h,w,2], beyond the edge as at the edge."""
    no_second_map: Any = None
    return cv2.remap(image, pixels, no_second_map, cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)


def _average(image: Any, size_px: int) -> FloatImage:
    """Average over a window around each pixel; there is nothing beyond the edge."""
    return np.asarray(cv2.blur(image, (size_px, size_px), borderType=cv2.BORDER_CONSTANT),
                      np.float32)
