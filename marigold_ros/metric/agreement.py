"""
Do the sources of one camera agree where they see the same?

Depth that two sources tell of the same part of the image is compared directly, without the
prediction.  Of sources that contradict each other, that is refused which contradicts most others.
Between two the prediction decides: it is the one that it fits less.  A shift of the sensor along
its view fits as well as the truth; then it is the later one in `scale.sources`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.fit import fit_scale

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage
    from marigold_ros.metric.anchors import Anchors

# Rows and columns of the parts in which sources are compared, and how many parts both must see.
GRID, MIN_SHARED_PARTS = (15, 20), 8
# Sources that differ by this median, in log depth, contradict each other: on a rendered drive a
# lidar, a scan, a stereo camera and the floor differ by .01 to .08, and by .25 to .47 if one of
# them is 1 m in front of where it is said to be.
MAX_DIFFERENCE_LOG = 0.15
# Time constant of the smoothing of that difference, and time after which it does not count.
TIME_CONSTANT_S, FORGOTTEN_AFTER_S = 1.0, 5.0
# Residuals of two sources are alike within this factor; those below the smallest one are equal.
WORSE_RESIDUAL, MIN_RESIDUAL = 1.25, 0.01


class Agreement:
    """
    Watch whether the sources of one camera contradict each other.

    Parameters
    ----------
    sources : sequence of str
        In the order of `scale.sources`.
    """

    def __init__(self, sources: tuple[str, ...]) -> None:
        """Start without differences."""
        self._sources = sources
        self._differences: dict[tuple[str, str], tuple[float, int]] = {}  # and its stamp

    def find_refused(self, anchors: Mapping[str, Anchors], affine_invariant_depth: FloatImage,
                     proportion: float, stamp_ns: int) -> dict[str, str]:
        """
        Compare the sources of a frame.

        Parameters
        ----------
        anchors : mapping of str to Anchors
            By source.
        affine_invariant_depth : float32 [H, W]
            Relative depth; NaN unknown.
        proportion : float
            Of shift to scale, by which depth within a part of the image is made comparable.
        stamp_ns : int
            Stamp of the image, ns.

        Returns
        -------
        dict of str to str
            The sources that must not be used, with the reason.
        """
        named = [each for each in self._sources if each in anchors]
        parts = {source: _median_by_part(anchors[source], affine_invariant_depth, proportion)
                 for source in named} if len(named) > 1 else {}
        contradictions: dict[tuple[str, str], float] = {}
        for pair in combinations(named, 2):
            first, second = pair
            difference = self._smooth(pair, _compare(parts[first], parts[second]), stamp_ns)
            if difference > MAX_DIFFERENCE_LOG:
                contradictions[pair] = difference
        refused: dict[str, str] = {}
        while contradictions:
            worst = self._find_worst(list(contradictions), anchors, affine_invariant_depth)
            against = {(set(pair) - {worst}).pop(): difference
                       for pair, difference in contradictions.items() if worst in pair}
            refused[worst] = (
                f'{worst} contradicts {" and ".join(against)}: where both see, depth differs by '
                f'{100 * math.expm1(max(against.values())):.0f} %; check the extrinsics, the '
                'height and the tilt of both')
            contradictions = {pair: difference for pair, difference in contradictions.items()
                              if worst not in pair}
        return refused

    def _smooth(self, pair: tuple[str, str], difference: float, stamp_ns: int) -> float:
        """Average the difference of a pair over time; 0 if it was last known too long ago."""
        smooth, last_ns = self._differences.get(pair, (difference, stamp_ns))
        apart_s = max(0, stamp_ns - last_ns) * 1e-9
        if math.isnan(difference):
            return 0.0 if math.isnan(smooth) or apart_s > FORGOTTEN_AFTER_S else smooth
        if math.isnan(smooth) or apart_s > FORGOTTEN_AFTER_S:
            smooth = difference
        smooth += (1.0 - math.exp(-apart_s / TIME_CONSTANT_S)) * (difference - smooth)
        self._differences[pair] = smooth, stamp_ns
        return smooth

    def _find_worst(self, pairs: list[tuple[str, str]], anchors: Mapping[str, Anchors],
                    affine_invariant_depth: FloatImage) -> str:
        """
        Return which source of the pairs that contradict each other is to be refused.

        It is the one that contradicts most others; of several, the one that the prediction fits
        less; if it fits them alike, the last one.
        """
        counts = Counter(source for pair in pairs for source in pair)
        worst, largest = '', 0.0
        for source in self._sources:
            if counts[source] == max(counts.values()):
                residual = _own_residual(anchors[source], affine_invariant_depth)
                if residual * WORSE_RESIDUAL >= largest:
                    worst, largest = source, max(residual, largest)
        return worst


def _median_by_part(anchors: Anchors, affine_invariant_depth: FloatImage, proportion: float
                    ) -> NDArray[np.float64]:
    """Return the median log ratio of anchors and prediction in each part [n]; NaN without."""
    height, width = affine_invariant_depth.shape
    predicted = affine_invariant_depth[anchors.rows, anchors.columns] + proportion
    known = np.isfinite(predicted) & (predicted > 0.0)
    log_ratio = np.log(anchors.depth_m[known] / predicted[known])
    part = (anchors.rows[known] * GRID[0] // height * GRID[1]
            + anchors.columns[known] * GRID[1] // width)
    order = np.lexsort((log_ratio, part))
    numbers, first, count = np.unique(part[order], return_index=True, return_counts=True)
    medians = np.full(GRID[0] * GRID[1], np.nan)
    medians[numbers] = log_ratio[order][first + count // 2]
    return medians


def _compare(medians: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the median difference over the parts that both see; NaN if these are too few."""
    differences = np.abs(medians - others)
    differences = differences[np.isfinite(differences)]
    return float(np.median(differences)) if len(differences) >= MIN_SHARED_PARTS else math.nan


def _own_residual(anchors: Anchors, affine_invariant_depth: FloatImage) -> float:
    """Return how far the prediction is from one source alone, and from how much of it."""
    try:
        fit = fit_scale(affine_invariant_depth[anchors.rows, anchors.columns], anchors.depth_m)
        return max(MIN_RESIDUAL, fit.residual) / fit.inlier_fraction
    except InputError:
        return math.inf
