"""What a page shows of a recording: frames evenly sampled in bounded memory, clouds and a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
import math
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.types import FloatImage, RgbImage
from marigold_ros.evaluation.metrics.obstacle_map import ObstacleMap
from marigold_ros.evaluation.report.pictures import (
    colorize,
    DEPTH_COLORS,
    encode_picture,
    ERROR_COLORS,
    LARGEST_ERROR,
    resize_image,
    resize_map,
    thumbnail_size,
)
from marigold_ros.metric.anchors import choose_evenly

# Largest numbers that are kept; at least half of them, where there are so many.
MAX_FRAMES, MAX_CLOUDS, MAX_POINTS = 100, 6, 8000
WIDTH_PX = 360
# The colours of metric depth are logarithmic, and the same for all recordings.
NEAR_M, FAR_M = 0.5, 20.0
IMAGE, RELATIVE, METRIC, ERROR = 'image', 'relative depth', 'metric depth', 'error'

Item = TypeVar('Item')


class EvenSample(Generic[Item]):
    """
    Items of evenly spaced numbers: those that are multiples of a power of two.

    Parameters
    ----------
    limit : int
        Largest number of items.

    Attributes
    ----------
    items : dict of int to item
        By number, in the order in which they came.

    Examples
    --------
    >>> sample = EvenSample(4)
    >>> for number in range(10):
    ...     sample.add(number, None)
    >>> list(sample.items)
    [0, 4, 8]
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._stride = limit, 1
        self.items: dict[int, Item] = {}

    def wants(self, number: int) -> bool:
        """Check whether an item with this number would be kept."""
        return number % self._stride == 0

    def add(self, number: int, item: Item) -> None:
        """Keep an item if it is wanted, and drop every other one if they become too many."""
        if self.wants(number):
            self.items[number] = item
        self._halve_to_limit()

    def join(self, later: EvenSample[Item], offset: int) -> None:
        """Add the items of a later sample, as evenly spaced; `offset` is added to its numbers."""
        while self._stride < later._stride:
            self.halve()
        self.items |= {number + offset: item for number, item in later.items.items()
                       if self.wants(number)}
        self._halve_to_limit()

    def halve(self) -> None:
        """Drop every other item."""
        self._stride *= 2
        self.items = dict(list(self.items.items())[::2])

    def _halve_to_limit(self) -> None:
        while len(self.items) > self._limit:
            self.halve()


@dataclass(frozen=True, eq=False)
class StripFrame:
    """
    One frame as it comes, with all that the strip shows of it.

    Attributes
    ----------
    number : int
        From 0, over the whole recording.
    stamp_ns : int or None
        Of the image.
    rgb : uint8 [H, W, 3]
    relative_depth : float32 [h, w]
        0 near, 1 far; NaN where it is unknown, as where carried depth does not cover the image.
    depth_m : float32 [h, w] or None
        Metric depth, m; NaN where it is not published.
    error : float32 [h, w] or None
        Relative error, signed, positive if too far; NaN unknown.
    points : float32 [..., 3] or None
        Cloud in the optical frame, m; NaN where there is no point.
    point_colors : uint8 [..., 3] or None
    num_inference_steps : int
        T.
    facts : mapping of str to str
        What is written below the pictures, by its title.
    """

    number: int
    stamp_ns: int | None
    rgb: RgbImage
    relative_depth: FloatImage
    depth_m: FloatImage | None
    error: FloatImage | None
    points: FloatImage | None
    point_colors: RgbImage | None
    num_inference_steps: int
    facts: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class ShownFrame:
    """
    A frame of the strip: JPEGs by the name of the panel, and what is written below them.

    Attributes are those of `StripFrame`.
    """

    number: int
    stamp_ns: int | None
    panels: Mapping[str, bytes]
    num_inference_steps: int
    facts: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Cloud:
    """
    A cloud to turn, seen from above and behind: x right, y ahead, z up.

    Attributes
    ----------
    points : float32 [n, 3]
        m; in units of the image's width and of relative depth if not `metric`.
    colors : uint8 [n, 3]
    metric : bool
    """

    points: NDArray[np.float32]
    colors: NDArray[np.uint8]
    metric: bool


@dataclass(eq=False)
class RecordingLook:
    """
    What a page shows of a recording; it can be pickled, and holds encoded pictures only.

    Attributes
    ----------
    frames : EvenSample of ShownFrame
    clouds : EvenSample of Cloud
        Of some of these frames.
    obstacle_map : ObstacleMap or None
    """

    frames: EvenSample[ShownFrame] = field(default_factory=lambda: EvenSample(MAX_FRAMES))
    clouds: EvenSample[Cloud] = field(default_factory=lambda: EvenSample(MAX_CLOUDS))
    obstacle_map: ObstacleMap | None = None

    def wants(self, number: int) -> bool:
        """Check whether the frame with this number would be shown."""
        return self.frames.wants(number)

    def add(self, frame: StripFrame) -> None:
        """Encode and keep a wanted frame."""
        self.frames.add(frame.number, ShownFrame(
            frame.number, frame.stamp_ns, _encode_panels(frame), frame.num_inference_steps,
            frame.facts))
        if self.clouds.wants(frame.number):
            self.clouds.add(frame.number, _choose_points(frame))

    def join(self, later: RecordingLook, offset: int) -> None:
        """Add the next part of the recording; `offset` is added to the numbers of its frames."""
        self.frames.join(later.frames, offset)
        self.frames.items = {number: replace(frame, number=number)
                             for number, frame in self.frames.items.items()}
        self.clouds.join(later.clouds, offset)
        if self.obstacle_map is not None and later.obstacle_map is not None:
            self.obstacle_map = self.obstacle_map.join(later.obstacle_map)
        else:
            self.obstacle_map = self.obstacle_map or later.obstacle_map

    def add_facts(self, find_facts: Callable[[int], Mapping[str, str]]) -> None:
        """Add to the facts of each frame, after the first, what is known of its number."""
        for number, frame in self.frames.items.items():
            first, *others = frame.facts.items()
            self.frames.items[number] = replace(
                frame, facts=dict([first, *find_facts(number).items(), *others]))


def _encode_panels(frame: StripFrame) -> dict[str, bytes]:
    """Return the JPEGs of a frame, all of the same size."""
    size = thumbnail_size(frame.rgb.shape, WIDTH_PX)
    panels = {IMAGE: resize_image(frame.rgb, size)}
    for name, values, colors, limits in (
            (RELATIVE, frame.relative_depth, DEPTH_COLORS, (0.0, 1.0)),
            (METRIC, frame.depth_m, DEPTH_COLORS, (np.log(NEAR_M), np.log(FAR_M))),
            (ERROR, frame.error, ERROR_COLORS, (-LARGEST_ERROR, LARGEST_ERROR))):
        if values is None:
            continue
        shown = resize_map(values, size)
        if name == METRIC:
            shown = np.log(np.maximum(shown, NEAR_M))  # NaN stays NaN
        panels[name] = colorize(shown, colors, *limits)
    return {name: encode_picture(picture) for name, picture in panels.items()}


def _choose_points(frame: StripFrame) -> Cloud:
    """Return the points of the metric cloud, else of the relief of relative depth."""
    metric = frame.points is not None
    if frame.points is not None and frame.point_colors is not None:
        points, colors = frame.points.reshape(-1, 3), frame.point_colors.reshape(-1, 3)
        points = points * np.array([1, -1, 1], np.float32)
    else:
        height, width = frame.relative_depth.shape
        step = math.ceil(math.sqrt(height * width / MAX_POINTS))
        depth = frame.relative_depth[::step, ::step]
        rows, columns = np.indices(depth.shape) * (step / width)
        points = np.stack([columns, height / width - rows, depth], axis=-1).reshape(-1, 3)
        colors = np.asarray(cv2.resize(frame.rgb, (width, height)), np.uint8)[
            ::step, ::step].reshape(-1, 3)
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    chosen = known[choose_evenly(len(known), MAX_POINTS)]
    return Cloud(points[chosen][:, [0, 2, 1]].astype(np.float32), colors[chosen], metric)


def describe_depth(num_inference_steps: int, carried_s: float, covered_share: float) -> str:
    """Say whether the depth of a frame is of a run or carried, from when, and what it covers."""
    if num_inference_steps and carried_s == 0.0:
        return f'run, T = {num_inference_steps}'
    covers = f'covers {100 * covered_share:.1f} %'
    if num_inference_steps:  # of an earlier frame, moved into this one
        return f'run, T = {num_inference_steps}, begun {carried_s:.1f} s before; {covers}'
    return f'carried for {carried_s:.1f} s, T = 0; {covers}'
