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

from marigold_ros.depth.complexity import reduce_to_grey
from marigold_ros.depth.types import (
    DepthPrediction,
    FloatImage,
    GaugeChange,
    GreyImage,
    Mask,
    Matrix,
    RgbImage,
    StageTiming,
)

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
GRID = np.s_[GAUGE_STRIDE_PX // 2::GAUGE_STRIDE_PX, GAUGE_STRIDE_PX // 2::GAUGE_STRIDE_PX]
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
class Motion:
    """
    How a camera has moved since a run, in the unit of the run's relative depth.

    Attributes
    ----------
    run, view : View
        The camera of the run's frame, and of a later one.
    scale, shift : float
        Metric depth is scale * relative depth + shift, m.
    """

    run: View
    view: View
    scale: float
    shift: float

    def change_along_axis(self) -> Matrix:
        """
        Compute how the relative depth of points seen in the run changes in the later camera.

        A point at depth z on the ray r of the run's camera lies at depth z (R r)_z + t_z in the
        other one; (R, t) is the transform between them, and z = scale * depth + shift.

        Returns
        -------
        float64 [2, 3]
            Times (column, row, 1) in the run's image: factor and offset of the relative depth.
        """
        row = (np.linalg.inv(self.view.world_from_camera) @ self.run.world_from_camera)[2]
        factor = row[:3] @ np.linalg.inv(self.run.K)  # (R r)_z
        offset = self.shift * (factor - [0.0, 0.0, 1.0]) + [0.0, 0.0, row[3]]
        return np.stack([factor, offset / self.scale])


@dataclass(frozen=True, eq=False)
class CarriedDepth:
    """
    The depth of a run, moved into a later frame.

    Attributes
    ----------
    depth : float32 [h', w']
        At the size of the run's depth, with its scale and shift; may leave [0, 1].  Where it does
        not cover the frame it is that of neighbours.
    confidence : float32 [h', w'] or None
        That of the run.
    covered : bool [h, w]
        Pixels of the grey image that the depth covers.
    """

    depth: FloatImage
    confidence: FloatImage | None
    covered: Mask

    def as_prediction(self) -> DepthPrediction:
        """Return it as a prediction of 0 steps, whose maps have these sizes."""
        return DepthPrediction(self.depth, self.confidence, None, None, 0, 'schedule',
                               StageTiming(0.0, 0.0, 0.0, 0.0, 0.0), self.covered)


@dataclass(frozen=True, eq=False)
class Step:
    """
    What happens between two frames.

    Attributes
    ----------
    source : float32 [h, w, 2]
        Where each pixel of the later frame was in the earlier one, px.
    beyond : float32 [h, w, 2]
        By how much that is outside the image, px.
    inside : bool [h, w]
        Where it is inside, or at most 1 px beyond.
    changed : bool [h, w]
        Where the later frame is not what the flow makes of the earlier one.
    """

    source: FloatImage
    beyond: FloatImage
    inside: Mask
    changed: Mask


class StepFinder:
    """
    Finds what happens between two frames of a camera, from their reduced images.

    Whoever carries several depths through the same frames may compute what they share once.
    """

    def __init__(self) -> None:
        """Start without a size."""
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._unmoved = self._last_pixel = np.empty((0, 0, 2), np.float32)

    def reduce(self, rgb: RgbImage) -> GreyImage:
        """Return the reduced grey image, see `complexity.reduce_to_grey`."""
        return reduce_to_grey(rgb)

    def find(self, earlier: GreyImage, later: GreyImage) -> Step:
        """Find the flow between two frames, uint8 [h, w], and what it does not explain."""
        self._fit_size(later.shape)
        source = self._unmoved + self._find_flow(earlier, later)
        beyond = source - np.maximum(np.minimum(source, self._last_pixel), np.float32(0.0))
        return Step(source, beyond, _is_inside(source),
                    _find_changes(later, _sample(earlier, source)))

    def begin_track(self, grey: GreyImage) -> Track:
        """Return the way from a frame, uint8 [h, w], back to itself."""
        self._fit_size(grey.shape)
        return Track(self._unmoved, np.ones(grey.shape, np.float32))

    def extend(self, track: Track, step: Step) -> tuple[Track, FloatImage]:
        """Extend a track by a step, see `Track.extend`."""
        return track.extend(step)

    def _fit_size(self, shape: tuple[int, ...]) -> None:
        """Compute anew what depends on the size of the images only, if that has changed."""
        if self._unmoved.shape[:2] != shape:
            self._unmoved = pixel_grid(shape)
            # As a whole array, because broadcasting takes eight times as long.
            self._last_pixel = np.full_like(self._unmoved, self._unmoved[-1, -1])

    def _find_flow(self, earlier: GreyImage, later: GreyImage) -> FloatImage:
        """Return the way from each pixel of a frame to where it was in the last one, [h,w,2]."""
        height, width = later.shape
        border = (0, max(0, MIN_FLOW_PX - height), 0, max(0, MIN_FLOW_PX - width))
        frames = [cv2.copyMakeBorder(each, *border, cv2.BORDER_REPLICATE) if any(border) else each
                  for each in (later, earlier)]
        flow: FloatImage = self._flow.calc(*frames, None)
        return flow[:height, :width]


@dataclass(frozen=True, eq=False)
class Track:
    """
    The way from the last frame back to an earlier one.

    Attributes
    ----------
    chain : float32 [h, w, 2]
        Where each pixel was in the earlier frame, px.
    covered : float32 [h, w]
        1 where the pixel has been in view, and not changed, since then.
    """

    chain: FloatImage
    covered: FloatImage

    def extend(self, step: Step) -> tuple[Track, FloatImage]:
        """Extend the track to the next frame; also return where what it sees changed, 1 or 0."""
        chain = _sample(self.chain, step.source) + step.beyond
        seen = step.inside & _is_inside(chain)
        changed = (step.changed & seen).astype(np.float32)
        # A pixel stays covered as long as it is in view and nothing near it changes.
        covered = ((_sample(self.covered, step.source) > 0.5) & seen
                   & (_average(changed, CHANGE_SIZE_PX) <= 0.5))
        return Track(chain, covered.astype(np.float32)), changed


@dataclass(frozen=True, eq=False)
class _Sketch:
    """Carried depth at some pixels of the frame of a run, to compare with what the run finds."""

    old: FloatImage  # [n, m]
    usable: Mask  # [n, m]
    proportion: float | None  # shift / scale


class DepthCarrier:
    """
    The depth of one camera, carried from frame to frame.

    Every frame goes through `advance`.  `begin_run` says that the networks run on the last frame,
    and `finish_run`, some frames later, what they found; `carry` returns the depth of the last run
    that has finished.

    Parameters
    ----------
    grey : uint8 [h, w]
        The first frame, see `complexity.reduce_to_grey`.
    steps : StepFinder or None
        Finds what happens between frames; None creates one.

    Attributes
    ----------
    source : float32 [h, w, 2] or None
        Where each pixel of the last frame was in the one before, px; None for the first.
    """

    def __init__(self, grey: GreyImage, steps: StepFinder | None = None) -> None:
        """Start without depth."""
        self._steps = steps or StepFinder()
        self._unmoved = pixel_grid(grey.shape)
        self._grey = grey
        self.source: FloatImage | None = None
        # Back to the frame of the run whose depth is carried, and to that of the run in flight.
        self._track: Track | None = None
        self._track_of_run: Track | None = None
        self._sketch: _Sketch | None = None

    def advance(self, grey: GreyImage) -> float:
        """
        Chain the flow to the next frame, and find what is new in it.

        Parameters
        ----------
        grey : uint8 [h, w]
            Of the size of the first frame.

        Returns
        -------
        float
            Largest share, in any window of `LOCAL_WINDOW`, of pixels that changed since the last
            frame, of those that the latest run sees; 0 without a run.
        """
        step = self._steps.find(self._grey, grey)
        self._grey, self.source, changed = grey, step.source, None
        if self._track is not None:
            self._track, changed = self._steps.extend(self._track, step)
        if self._track_of_run is not None:
            self._track_of_run, changed = self._steps.extend(self._track_of_run, step)
        window = max(1, round(LOCAL_WINDOW * max(grey.shape)))
        return 0.0 if changed is None else float(_average(changed, window).max())

    @property
    def new(self) -> Mask:
        """
        Return what the carried depth does not cover, bool [h, w].

        Pixels of the last frame that came into view or changed after the frame of the run.
        """
        return self._carried_track().covered <= 0.5

    @property
    def covered_share(self) -> float:
        """Return the share of the last frame that the carried depth covers."""
        return 1.0 - float(self.new.mean())

    def begin_run(self, motion: Motion | None = None) -> None:
        """
        Take the last frame as that on which the networks run from now on.

        Parameters
        ----------
        motion : Motion or None
            See `carry`.
        """
        self._track_of_run = self._steps.begin_track(self._grey)
        self._sketch = None if self._track is None else self._draw_sketch(self._track, motion)

    def fail_run(self) -> None:
        """Expect nothing more of the run."""
        self._track_of_run = self._sketch = None

    def finish_run(self, depth: FloatImage, confidence: FloatImage | None,
                   size: tuple[int, int]) -> GaugeChange | None:
        """
        Carry the depth of the run from now on.

        Parameters
        ----------
        depth : float32 [h', w']
            Relative depth, at whatever size the networks computed it.
        confidence : float32 [h', w'] or None
            Its confidence.
        size : (int, int)
            Width and height of the image, px, for which the K of views holds.

        Returns
        -------
        GaugeChange or None
            From the depth that was carried so far.  None if too little of it covered the frame of
            the run, or the two do not resemble each other; or if the camera had moved in a way
            that is not known, which would look like a change of the gauge.

        Raises
        ------
        RuntimeError
            Without `begin_run`.
        """
        if self._track_of_run is None:
            raise RuntimeError('`finish_run` comes after `begin_run`')
        self._track, self._track_of_run = self._track_of_run, None
        self._depth, self._confidence, self._size = depth, confidence, size
        sketch, self._sketch = self._sketch, None
        if sketch is None:
            return None
        new = _sample(depth, self._to_depth(self._unmoved[GRID]))
        usable = sketch.usable & np.isfinite(new)
        return _fit_gauge_change(sketch.old[usable], new[usable], sketch.proportion)

    def forget(self) -> None:
        """Forget the depth that is carried."""
        self._track = None

    def carry(self, motion: Motion | None = None) -> CarriedDepth:
        """
        Return the depth of the last finished run, moved into the last frame.

        Parameters
        ----------
        motion : Motion or None
            Of the camera since the frame of that run, if it is known: depth changes as the camera
            moves along its axis; else it only moves along the image.

        Returns
        -------
        CarriedDepth
        """
        chain = _resize(self._carried_track().chain, self._depth.shape[::-1])
        confidence = (None if self._confidence is None
                      else _sample(self._confidence, self._to_depth(chain)))
        return CarriedDepth(self._move(chain, motion), confidence, ~self.new)

    def _carried_track(self) -> Track:
        if self._track is None:
            raise RuntimeError('there is depth to carry only after `finish_run`')
        return self._track

    def _draw_sketch(self, track: Track, motion: Motion | None) -> _Sketch | None:
        """Return the carried depth, unless the camera has moved in a way that is not known."""
        if motion is None and np.abs(track.chain - self._unmoved).mean() > STILL_PX:
            return None
        old = self._move(track.chain[GRID], motion)
        return _Sketch(old, (track.covered[GRID] > 0.5) & np.isfinite(old),
                       None if motion is None else motion.shift / motion.scale)

    def _move(self, chain: FloatImage, motion: Motion | None) -> FloatImage:
        """Return the depth of pixels [h,w,2] of the run's grey image as it is now, [h,w]."""
        depth: FloatImage = _sample(self._depth, self._to_depth(chain))
        if motion is None:
            return depth
        to_run = resize_matrix(self._grey.shape[::-1], self._size)
        factor, offset = cv2.split(cv2.transform(chain, motion.change_along_axis() @ to_run))
        return np.asarray(depth * factor + offset, np.float32)

    def _to_depth(self, pixels: FloatImage) -> FloatImage:
        """Convert pixels [h,w,2] of the grey image to those of the depth that is carried."""
        matrix = resize_matrix(self._grey.shape[::-1], self._depth.shape[::-1])
        return np.asarray(cv2.transform(pixels, matrix[:2]), np.float32)


def pixel_grid(shape: tuple[int, ...]) -> FloatImage:
    """Return the column and row of each pixel of an image, float32 [h, w, 2]."""
    rows, columns = np.indices(shape, np.float32)
    return np.dstack([columns, rows])


def _resize(image: Any, size: tuple[int, int]) -> Any:
    """Resize [h,w] or [h,w,n] to (width, height) bilinearly."""
    return image if image.shape[1::-1] == size else cv2.resize(image, size)


def resize_matrix(size: tuple[int, int], other: tuple[int, int]) -> Matrix:
    """Return the matrix [3,3] from (column, row, 1) in an image to those in it at another size."""
    x, y = other[0] / size[0], other[1] / size[1]
    return np.array([[x, 0.0, (x - 1.0) / 2.0], [0.0, y, (y - 1.0) / 2.0], [0.0, 0.0, 1.0]])


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
