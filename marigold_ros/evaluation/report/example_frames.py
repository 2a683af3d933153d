"""Select the best, median and worst frames for the report, in bounded memory."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
import math
from typing import Any, TYPE_CHECKING

from numpy.typing import NDArray

from marigold_ros.depth.types import FloatImage, RgbImage
from marigold_ros.evaluation.metrics.protocol_a import relative_error
from marigold_ros.evaluation.report.pictures import (
    resize_image,
    resize_map,
    thumbnail_size,
)
from marigold_ros.evaluation.report.worst_seconds import WorstSeconds

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame

# Frames shown of each kind.
SHOWN = 2
# Frames kept around the current median, enough for the final median unless it drifts far.
AROUND_MEDIAN = 24
WIDTH_PX = 320


@dataclass(frozen=True, eq=False)
class FramePicture:
    """
    One frame, downscaled for the report.

    Attributes
    ----------
    number : int
        Number of the frame.
    name, block : str
    abs_rel : float
    num_inference_steps : int
    rgb : uint8 [h, w, 3]
    depth_m : float32 [h, w]
        Aligned prediction, m.
    target_m : float32 [h, w]
        True depth, m; NaN is unknown, +inf is sky.
    """

    number: int
    name: str
    block: str
    abs_rel: float
    num_inference_steps: int
    rgb: RgbImage
    depth_m: FloatImage
    target_m: FloatImage

    @property
    def error(self) -> FloatImage:
        """
        Return the signed relative error, positive if too far.

        float32 [h, w]; NaN where the truth is unknown or sky.
        """
        return relative_error(self.depth_m, self.target_m)


class ExampleFrames:
    """
    Collect the best and the median frames, and the worst frames of the worst seconds.

    It keeps at most `AROUND_MEDIAN` + `SHOWN` downscaled frames and those of `worst_seconds`.

    Attributes
    ----------
    worst_seconds : WorstSeconds
        A frame without stamp is a second of its own.
    """

    def __init__(self) -> None:
        """Start without a frame."""
        self.worst_seconds = WorstSeconds()
        self._abs_rel: list[float] = []
        self._best: list[FramePicture] = []
        self._near_median: list[FramePicture] = []

    def add(self, number: int, frame: DepthFrame, abs_rel: float, num_inference_steps: int,
            depth_m: NDArray[Any], target_m: FloatImage) -> None:
        """
        Add the next frame, and keep it, downscaled, if it may be shown; arrays are [H, W], m.

        A frame without AbsRel (NaN) is ignored.
        """
        if math.isnan(abs_rel):
            return
        insort(self._abs_rel, abs_rel)
        second = frame.name if frame.stamp_ns is None else frame.block
        candidate, picture = self._is_candidate(abs_rel), None
        if candidate or self.worst_seconds.wants_picture(second, abs_rel):
            size = thumbnail_size(target_m.shape, WIDTH_PX)
            picture = FramePicture(
                number, frame.name, frame.block, abs_rel, num_inference_steps,
                resize_image(frame.rgb, size), resize_map(depth_m, size),
                resize_map(target_m, size))
        self.worst_seconds.add(second, abs_rel, picture)
        if candidate and picture is not None:
            self._keep([picture])

    def extend(self, later: ExampleFrames, offset: int) -> None:
        """Add the frames of the part that follows; `offset` is added to their numbers."""
        self.worst_seconds.extend(later.worst_seconds, offset)
        self._abs_rel = sorted([*self._abs_rel, *later._abs_rel])
        self._keep([replace(each, number=each.number + offset)
                    for each in (*later._best, *later._near_median)])

    def thin(self, count: int) -> None:
        """Keep only this many frames near the median, as of a part of a long recording."""
        self._near_median = self._near_median[:count]

    def select(self) -> dict[str, list[FramePicture]]:
        """
        Return the frames by 'best', 'median' and 'worst', each frame at most once.

        The median is chosen among the kept frames, so it may be off by a few ranks if the error
        drifts over a long recording.
        """
        if not self._abs_rel:
            return {}
        taken: set[int] = set()
        chosen = {}
        for rank, pictures in (
                ('best', self._best),
                ('worst', [each.picture for each in self.worst_seconds.select()]),
                ('median', sorted(self._near_median, key=self._distance_to_median))):
            selected = _one_per_block([each for each in pictures
                                       if each is not None and each.number not in taken])
            taken |= {each.number for each in selected}
            chosen[rank] = selected
        return {rank: chosen[rank] for rank in ('best', 'median', 'worst') if chosen[rank]}

    def _is_candidate(self, abs_rel: float) -> bool:
        """Check whether a frame is among the best or near the median so far."""
        if len(self._near_median) < AROUND_MEDIAN:
            return True
        median = self._median()
        return (abs_rel < self._best[-1].abs_rel
                or abs(abs_rel - median) < abs(self._near_median[-1].abs_rel - median))

    def _keep(self, pictures: Sequence[FramePicture]) -> None:
        """Keep the pictures that are among the best or near the median."""
        self._best = _one_per_block(sorted(
            [*self._best, *pictures], key=lambda each: (each.abs_rel, each.number)))
        by_number = {each.number: each for each in (*self._near_median, *pictures)}
        self._near_median = sorted(by_number.values(),
                                   key=self._distance_to_median)[:AROUND_MEDIAN]

    def _distance_to_median(self, picture: FramePicture) -> float:
        return abs(picture.abs_rel - self._median())

    def _median(self) -> float:
        return self._abs_rel[len(self._abs_rel) // 2]


def _one_per_block(pictures: Sequence[FramePicture]) -> list[FramePicture]:
    """Return the first `SHOWN` frames from different blocks, as neighbours look alike."""
    by_block: dict[str, FramePicture] = {}
    for picture in pictures:
        by_block.setdefault(picture.block, picture)
    return list(by_block.values())[:SHOWN]
