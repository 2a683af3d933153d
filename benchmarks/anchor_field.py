"""
What does the field gain over one scale and one shift, and is it as uncertain as it says?

    OMP_NUM_THREADS=1 python -m benchmarks.anchor_field --folder frames/rgbd

Anchors are drawn from each frame's ground truth, in several patterns; AbsRel is computed on the
frame's other pixels without any alignment.  "worst set" is the set in which the field gains least:
its AbsRel with the field, divided by that with scale and shift only.  "and that before" is also
given the field of the frame before: of the same frame with other anchors, as from a camera that
stands still.  Times are medians, and ratios to the fit of scale and shift in the same run; with
more than one thread its small matrices take longer.  The second table compares the confidence of
the field with the share of pixels that are right within a factor of 1.25.  A frame of unknown
calibration is taken as seen with a focal length of 0.9 widths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
import sys
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.anchor_fit import corrupt, print_tables, resize_to_truth
from benchmarks.timing import format_markdown_table
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.types import FloatImage, Mask, Matrix
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.field import DepthField, fit_field, RIGHT_FACTOR
from marigold_ros.metric.fit import fit_scale

NAME = 'anchor_field'
DRAWS = 2
BEFORE_SEED = 2  # of the anchors of the frame before
RINGS, ANCHORS_PER_RING, ANCHORS_PER_ROW = 8, 25, 64
# Half the height of a ring or row, as a share of the image's: one in so many.
BAND_SHARE = 100
TYPICAL_FOCAL_WIDTHS = 0.9
CONFIDENCE_BINS = np.array([0.0, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0])

Pixels = NDArray[np.int64]
Draw = Callable[[Mask, np.random.Generator], Pixels]


def draw_anywhere(count: int) -> Draw:
    """Return what draws so many measured pixels of an image, as flat indices."""
    def draw(measured: Mask, rng: np.random.Generator) -> Pixels:
        found = np.flatnonzero(measured)
        chosen: Pixels = rng.choice(found, min(count, len(found) // 2), replace=False)
        return chosen
    return draw


def draw_rings(measured: Mask, rng: np.random.Generator) -> Pixels:
    """Draw pixels of evenly spaced bands, as a lidar measures."""
    middles = ((np.arange(RINGS) + 0.5) / RINGS * len(measured)).astype(int)
    return np.concatenate([_draw_in_band(measured, middle, ANCHORS_PER_RING, rng)
                           for middle in middles])


def draw_row(measured: Mask, rng: np.random.Generator) -> Pixels:
    """Draw pixels of one band below the middle, as a scanner measures."""
    return _draw_in_band(measured, len(measured) * 3 // 5, ANCHORS_PER_ROW, rng)


def _draw_in_band(measured: Mask, middle: int, count: int, rng: np.random.Generator) -> Pixels:
    """Draw from a row of pixels and those near it, as the truth of some sets is sparse."""
    half = len(measured) // BAND_SHARE
    band = np.zeros_like(measured)
    band[middle - half:middle + half + 1] = measured[middle - half:middle + half + 1]
    found = np.flatnonzero(band)
    return np.sort(rng.choice(found, min(count, len(found)), replace=False))


class Pattern(NamedTuple):
    """Which pixels of a frame are anchors, and how many of them are wrong."""

    draw: Draw
    wrong_share: float = 0.0


PATTERNS = {
    '50 anywhere': Pattern(draw_anywhere(50)),
    '200 anywhere': Pattern(draw_anywhere(200)),
    '200, 20 % wrong': Pattern(draw_anywhere(200), 0.2),
    '200, 30 % wrong': Pattern(draw_anywhere(200), 0.3),
    f'{RINGS} rings of {ANCHORS_PER_RING}': Pattern(draw_rings),
    f'a row of {ANCHORS_PER_ROW}': Pattern(draw_row),
    '1000 anywhere': Pattern(draw_anywhere(1000))}


class FrameScore(NamedTuple):
    """AbsRel and seconds of one draw of anchors; `started`: with the field of the frame before."""

    fit_abs_rel: float
    field_abs_rel: float
    started_abs_rel: float
    fit_s: float
    field_s: float
    started_s: float


class DrawnFit(NamedTuple):
    """Anchors of a frame, and their fit of scale and shift."""

    chosen: Pixels
    anchors: Anchors
    fitted_m: FloatImage
    fit_s: float


class Calibration:
    """Share of pixels that are right, by the confidence that the field has in them."""

    def __init__(self) -> None:
        """Start without pixels."""
        bins = len(CONFIDENCE_BINS) - 1
        self._count, self._right, self._confidence = np.zeros(bins), np.zeros(bins), np.zeros(bins)

    def add(self, confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> None:
        """Add the pixels [n] of a frame; all frames count alike."""
        bins = len(self._count)
        number = np.clip(np.digitize(confidence, CONFIDENCE_BINS) - 1, 0, bins - 1)
        self._count += np.bincount(number, minlength=bins) / len(number)
        self._right += np.bincount(number, right, bins) / len(number)
        self._confidence += np.bincount(number, confidence, bins) / len(number)

    def rows(self) -> list[dict[str, object]]:
        """Return the rows of the table."""
        return [{'confidence': f'{low:g} to {high:g}',
                 'pixels': f'{count / self._count.sum():.0%}',
                 'mean confidence': f'{confidence / count:.3f}' if count else '-',
                 'right': f'{right / count:.3f}' if count else '-'}
                for low, high, count, right, confidence in zip(
                    CONFIDENCE_BINS, CONFIDENCE_BINS[1:], self._count, self._right,
                    self._confidence)]


def fit_draw(relative: FloatImage, depth_m: FloatImage, pattern: Pattern,
             rng: np.random.Generator) -> DrawnFit:
    """Draw anchors from a frame's ground truth, and fit scale and shift to them."""
    chosen = pattern.draw(np.isfinite(depth_m) & (depth_m > 0.0), rng)
    anchors_m = corrupt(depth_m.ravel()[chosen], pattern.wrong_share, rng)
    started_s = time.perf_counter()
    fit = fit_scale(relative.ravel()[chosen], anchors_m)
    fit_s = time.perf_counter() - started_s
    return DrawnFit(chosen, Anchors(*np.divmod(chosen, depth_m.shape[1]), anchors_m),
                    np.float32(fit.scale) * relative + np.float32(fit.shift), fit_s)


def time_field(drawn: DrawnFit, K: Matrix, previous: DepthField | None = None
               ) -> tuple[DepthField, FloatImage, float]:
    """Return the field, corrected depth and the seconds that both took."""
    started_s = time.perf_counter()
    field = fit_field(drawn.fitted_m, K, drawn.anchors, previous)
    corrected_m = field.correct(drawn.fitted_m)
    return field, corrected_m, time.perf_counter() - started_s


def score_frame(relative: FloatImage, depth_m: FloatImage, K: Matrix, pattern: Pattern,
                rng: np.random.Generator, calibration: Calibration) -> FrameScore:
    """
    Draw anchors from a frame's ground truth, and score the other pixels.

    Parameters
    ----------
    relative : float32 [H, W]
        Affine-invariant depth.
    depth_m : float32 [H, W]
        True depth, m; NaN unknown.
    K : float64 [3, 3]
        Intrinsics, px.
    pattern : Pattern
    rng : numpy.random.Generator
    calibration : Calibration
        To which the pixels are added.
    """
    drawn = fit_draw(relative, depth_m, pattern, rng)
    # Of other anchors, which do not decide which are drawn next.  It comes first, so that neither
    # of the timed ones has to wait for memory.
    before = fit_draw(relative, depth_m, pattern, np.random.default_rng(BEFORE_SEED))
    previous = fit_field(before.fitted_m, K, before.anchors)
    field, corrected_m, field_s = time_field(drawn, K)
    _, started_m, started_s = time_field(drawn, K, previous)
    others = np.isfinite(depth_m) & (depth_m > 0.0) & np.isfinite(relative)
    others.ravel()[drawn.chosen] = False
    true_m = depth_m[others]
    ratio = corrected_m[others] / true_m
    calibration.add(field.confidence(depth_m.shape)[others],
                    np.maximum(ratio, 1.0 / ratio) < RIGHT_FACTOR)
    fit_abs_rel, started_abs_rel = (float(np.mean(np.abs(each[others] / true_m - 1.0)))
                                    for each in (drawn.fitted_m, started_m))
    return FrameScore(fit_abs_rel, float(np.mean(np.abs(ratio - 1.0))), started_abs_rel,
                      drawn.fit_s, field_s, started_s)


def format_tables(frames: Iterator[tuple[str, FloatImage, FloatImage, Matrix | None]], draws: int
                  ) -> str:
    """
    Average over draws, over the frames of a set and over the sets; as Markdown.

    Parameters
    ----------
    frames : iterator of (set, relative depth [H, W], true depth [H', W'], K [3, 3] or None)
        True depth is NaN where unknown; K is that of the true depth.
    draws : int
    """
    scores: dict[str, defaultdict[str, list[FrameScore]]] = {
        name: defaultdict(list) for name in PATTERNS}
    calibration = Calibration()
    for number, (set_name, relative, depth_m, K) in enumerate(frames):
        relative = resize_to_truth(relative, depth_m)
        if K is None:
            height, width = depth_m.shape
            focal_px = TYPICAL_FOCAL_WIDTHS * width
            K = np.array([[focal_px, 0.0, (width - 1) / 2], [0.0, focal_px, (height - 1) / 2],
                          [0.0, 0.0, 1.0]])
        rng = np.random.default_rng([number, 1])
        for name, pattern in PATTERNS.items():
            for _ in range(draws):
                scores[name][set_name].append(
                    score_frame(relative, depth_m, K, pattern, rng, calibration))
    rows = [_format_row(name, of_pattern) for name, of_pattern in scores.items()]
    return (format_markdown_table(rows) + '\n\n'
            + format_markdown_table(calibration.rows()))


def _format_row(name: str, of_pattern: dict[str, list[FrameScore]]) -> dict[str, object]:
    fit, field, started = ({set_name: float(np.mean([getattr(each, key) for each in of_set]))
                            for set_name, of_set in of_pattern.items()}
                           for key in ('fit_abs_rel', 'field_abs_rel', 'started_abs_rel'))
    ratios = {set_name: field[set_name] / fit[set_name] for set_name in fit}
    worst = max(ratios, key=ratios.__getitem__)
    every = [each for of_set in of_pattern.values() for each in of_set]
    fit_s, field_s, started_s = (float(np.median([getattr(each, key) for each in every]))
                                 for key in ('fit_s', 'field_s', 'started_s'))
    return {'anchors': name,
            'AbsRel, scale and shift': f'{np.mean(list(fit.values())):.3f}',
            'with the field': f'{np.mean(list(field.values())):.3f}',
            'and that before': f'{np.mean(list(started.values())):.3f}',
            'worst set': f'{ratios[worst]:.2f} ({worst})',
            'field, ms': f'{1e3 * field_s:.1f} ({field_s / fit_s:.1f} times the fit)',
            'and that before, ms': f'{1e3 * started_s:.1f}'}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; the exit code is 0 or 2."""
    reserve_one_core()
    return print_tables(NAME, __doc__.splitlines()[1], DRAWS, arguments,
                        lambda frames, draws: format_tables(
                            ((frame.set_name, relative, frame.depth_m, frame.K)
                             for frame, relative in frames), draws))


if __name__ == '__main__':
    sys.exit(main())
