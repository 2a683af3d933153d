"""Keep the pictures of the best, the median and the worst frames, in bounded memory."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.types import FloatImage, RgbImage

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame

SHOWN = 2
# Frames kept around the median so far; the true median is among them unless it moves far late.
AROUND_MEDIAN = 24
WIDTH_PX = 320


@dataclass(frozen=True, eq=False)
class Picture:
    """
    One frame, reduced for the report.

    Attributes
    ----------
    number : int
        Of the frame.
    name, block : str
    abs_rel : float
    num_inference_steps : int
    rgb : uint8 [h, w, 3]
    depth_m : float32 [h, w]
        Aligned prediction, m.
    truth_m : float32 [h, w]
        m; NaN unknown, +inf sky.
    """

    number: int
    name: str
    block: str
    abs_rel: float
    num_inference_steps: int
    rgb: RgbImage
    depth_m: FloatImage
    truth_m: FloatImage

    @property
    def error(self) -> FloatImage:
        """Relative error with its sign, + too far; float32 [h, w], NaN where unknown or sky."""
        with np.errstate(invalid='ignore'):
            error = self.depth_m / self.truth_m - 1
        return np.where(np.isfinite(self.truth_m), error, np.float32(np.nan))


class Exemplars:
    """
    The best, median and worst of the frames so far.

    Memory is bounded by `AROUND_MEDIAN` + 2 `SHOWN` reduced pictures, whatever comes.
    """

    def __init__(self) -> None:
        self._abs_rel: list[float] = []
        self._best: list[Picture] = []
        self._worst: list[Picture] = []
        self._middle: list[Picture] = []

    def wants(self, abs_rel: float) -> bool:
        """
        Take note of the next frame's AbsRel, and tell whether its picture may be shown.

        A frame without AbsRel is passed over.
        """
        if math.isnan(abs_rel):
            return False
        insort(self._abs_rel, abs_rel)
        if len(self._middle) < AROUND_MEDIAN:
            return True
        middle = self._median()
        return (abs_rel < self._best[-1].abs_rel or abs_rel > self._worst[-1].abs_rel
                or abs(abs_rel - middle) < abs(self._middle[-1].abs_rel - middle))

    def add(self, number: int, frame: DepthFrame, abs_rel: float, num_inference_steps: int,
            depth_m: NDArray[Any], truth_m: FloatImage) -> None:
        """Keep the picture of the frame that was just noted, arrays [H, W], reduced."""
        size = _reduced(*truth_m.shape)
        picture = Picture(
            number, frame.name, frame.block, abs_rel, num_inference_steps,
            np.asarray(cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA), np.uint8),
            _nearest(depth_m, size), _nearest(truth_m, size))
        self._best = _apart(sorted([*self._best, picture], key=_error))
        self._worst = _apart(sorted([*self._worst, picture], key=_error, reverse=True))
        middle = self._median()
        self._middle = sorted([*self._middle, picture],
                              key=lambda each: abs(each.abs_rel - middle))[:AROUND_MEDIAN]

    def chosen(self) -> dict[str, list[Picture]]:
        """
        Return the pictures by 'best', 'median' and 'worst', each frame at most once.

        The median is that of the frames kept around it, so that it may be off by a few ranks
        where the error drifts over a long recording.
        """
        if not self._abs_rel:
            return {}
        middle = self._median()
        taken: set[int] = set()
        chosen = {}
        for rank, pictures in (
                ('best', self._best), ('worst', self._worst),
                ('median', sorted(self._middle, key=lambda each: abs(each.abs_rel - middle)))):
            fresh = _apart([each for each in pictures if each.number not in taken])
            taken |= {each.number for each in fresh}
            chosen[rank] = fresh
        return {rank: chosen[rank] for rank in ('best', 'median', 'worst') if chosen[rank]}

    def _median(self) -> float:
        return self._abs_rel[len(self._abs_rel) // 2]


def _error(picture: Picture) -> tuple[float, int]:
    return picture.abs_rel, picture.number


def _apart(pictures: Sequence[Picture]) -> list[Picture]:
    """Take the first `SHOWN`, each of another block, for neighbours look alike."""
    by_block: dict[str, Picture] = {}
    for picture in pictures:
        by_block.setdefault(picture.block, picture)
    return list(by_block.values())[:SHOWN]


def _reduced(height: int, width: int) -> tuple[int, int]:
    """Return (width, height) of at most `WIDTH_PX` columns."""
    reduction = max(1.0, width / WIDTH_PX)
    return max(1, round(width / reduction)), max(1, round(height / reduction))


def _nearest(map_m: NDArray[Any], size: tuple[int, int]) -> FloatImage:
    """Reduce without mixing near and far, known and unknown."""
    return np.asarray(cv2.resize(map_m.astype(np.float32), size,
                                 interpolation=cv2.INTER_NEAREST), np.float32)
