"""
Sharpness of depth at object boundaries: boundary F1 of Depth Pro, edge distances of iBims-1.

Boundary F1: two neighbouring pixels form a boundary at threshold t if one is more than t times as
far as the other.  A predicted boundary is correct if the truth has a boundary between the same two
pixels with the same pixel in front.  Precision and recall are averaged over the four directions,
and their F1 over ten thresholds from 1.05 to 1.25, weighted by the threshold.
Formula: apple/ml-depth-pro, src/depth_pro/eval/boundary_metrics.py, `SI_boundary_F1` (9efe5c1);
Bochkovskii et al. 2024, arXiv 2410.02073, section 3.3.

Edge distances: depth boundary errors of Koch et al. 2018, arXiv 1805.01328, section 3.2, and the
benchmark's `evaluate_ibims_error_metrics.py`.  There the true edges are annotated by hand; here
the same detector finds edges in the true and in the predicted depth, so the numbers cannot be
compared with those of the benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from marigold_ros.depth.errors import InputError

THRESHOLDS = np.linspace(1.05, 1.25, 10)
# A ratio above this, of any rounding, may exceed the first threshold.
ALMOST_A_BOUNDARY = 1.049
# Share of neighbouring pixels that must both be measured; sparser depth does not show boundaries.
MIN_KNOWN_PAIRS = 0.1
# As iBims-1: Canny on depth scaled to [0, 1]; distances are truncated to MAX_DISTANCE_PX.
SIGMA_PX = float(np.sqrt(2))
CANNY_LOW, CANNY_HIGH = 0.15, 0.3
MAX_DISTANCE_PX = 10.0
# cv2.Canny takes derivatives as int16; for a map in [0, 1] they are at most 4.
DERIVATIVE_STEPS = 4096
# Edges this close to unknown pixels are ignored: the blur spreads the filled values this far.
GAP_MARGIN_PX = 4


def is_dense(target_m: NDArray[Any]) -> bool:
    """
    Check whether a true depth map is dense enough to show boundaries; lidar depth is not.

    Parameters
    ----------
    target_m : float [H, W]
        True depth, m; NaN is unknown.
    """
    known = ~np.isnan(target_m)
    known_pairs = (np.count_nonzero(known[:, :-1] & known[:, 1:])
                   + np.count_nonzero(known[:-1] & known[1:]))
    return bool(known_pairs >= MIN_KNOWN_PAIRS * (2 * known.size - sum(known.shape)))


class TrueBoundaries:
    """
    The boundaries of a true depth map, with which those of several predictions are compared.

    Parameters
    ----------
    target_m : float [H, W]
        True depth, m.  NaN is unknown: boundaries next to unknown pixels are ignored.  +inf is
        sky, which lies behind everything: the boundary of an object against the sky counts.

    Raises
    ------
    InputError
        If a known depth is not above 0.

    Examples
    --------
    A near pixel before a far wall: the correct boundaries at any scale, and a flat prediction:

    >>> import numpy as np
    >>> target_m = np.full((3, 3), 4.0)
    >>> target_m[1, 1] = 2.0
    >>> round(TrueBoundaries(target_m).compute_f1(0.5 * target_m), 3)
    1.0
    >>> TrueBoundaries(target_m).compute_f1(np.full((3, 3), 4.0))
    0.0
    """

    def __init__(self, target_m: NDArray[Any]) -> None:
        """Find the boundaries."""
        self._known = ~np.isnan(target_m)
        self._is_dense = is_dense(target_m)
        self._levels = _find_boundaries(target_m, self._known, 'target_m')
        self._counts = _count_boundaries([each.levels for each in self._levels])
        self._level_of_pair = [each.as_map() for each in self._levels]

    def compute_f1(self, depth_m: NDArray[Any]) -> float:
        """
        Compute the boundary F1 of a prediction.

        Parameters
        ----------
        depth_m : float [H, W]
            Prediction, m.  Relative depth must be aligned first (`protocol_a.align`): the ratio
            of two depths does not depend on the scale, but it depends on the shift.

        Returns
        -------
        float
            In [0, 1], higher is better.  As in the published code, a direction without a true
            boundary contributes 0.  NaN if the truth has no boundary or is sparse, see
            `is_dense`.

        Raises
        ------
        InputError
            If the shapes differ, or a depth is not above 0 where the truth is known.
        """
        _check_shapes(depth_m, self._known)
        predicted = _find_boundaries(depth_m, self._known, 'depth_m')
        if not self._is_dense or not self._counts.any():
            return float('nan')
        hits = [np.minimum(each.levels, of_pair[each.pairs])
                for each, of_pair in zip(predicted, self._level_of_pair)]
        scores = _f1(_count_boundaries(hits),
                     _count_boundaries([each.levels for each in predicted]), self._counts)
        return float(np.average(scores, weights=THRESHOLDS))


class TrueEdges:
    """
    The edges of a true depth map, with which those of several predictions are compared.

    Parameters
    ----------
    target_m : float [H, W]
        True depth, m.  NaN is unknown: edges next to unknown pixels are ignored.  +inf is sky: it
        gets the depth of the farthest measurement.
    """

    def __init__(self, target_m: NDArray[Any]) -> None:
        """Find the edges."""
        known = ~np.isnan(target_m)
        self._compared = cv2.erode(known.astype(np.uint8),
                                   np.ones((2 * GAP_MARGIN_PX + 1,) * 2)) > 0
        self._edges = (_detect_edges(_fill_unknown(target_m, known)) & self._compared
                       if is_dense(target_m) else np.zeros(known.shape, bool))
        self._pixels = np.argwhere(self._edges)
        self._distances_px = _distance_to_edges_px(self._edges)

    def compute_errors(self, depth_m: NDArray[Any]) -> tuple[float, float]:
        """
        Compute the distances between the edges of a prediction and the true edges.

        Parameters
        ----------
        depth_m : float [H, W]
            Prediction, aligned, m.

        Returns
        -------
        accuracy_px : float
            Mean distance from a predicted edge pixel to the nearest true edge, over the predicted
            edge pixels within 10 px of a true edge; 10 if there are none.  Lower is better.
        completeness_px : float
            Mean distance, truncated to 10 px, from predicted edge pixels to true edges and from
            true edge pixels to predicted edges.  Lower is better.  Both are NaN if the truth has
            no edge.

        Raises
        ------
        InputError
            If the shapes differ.
        """
        _check_shapes(depth_m, self._edges)
        if not self._edges.any():
            return float('nan'), float('nan')
        predicted = np.argwhere(_detect_edges(depth_m) & self._compared)
        to_true_px = self._distances_px[tuple(predicted.T)]
        near_px = to_true_px[to_true_px < MAX_DISTANCE_PX]
        if not len(near_px):
            return MAX_DISTANCE_PX, MAX_DISTANCE_PX
        to_predicted_px, _ = cKDTree(predicted).query(self._pixels,
                                                      distance_upper_bound=MAX_DISTANCE_PX)
        both = (np.minimum(to_true_px, MAX_DISTANCE_PX).sum()
                + np.minimum(to_predicted_px, MAX_DISTANCE_PX).sum())
        return float(near_px.mean()), float(both / (len(to_true_px) + len(to_predicted_px)))


def _check_shapes(depth_m: NDArray[Any], of_target: NDArray[Any]) -> None:
    if depth_m.shape != of_target.shape or depth_m.ndim != 2:
        raise InputError('`depth_m` and `target_m` must have one shape [H, W]; '
                         f'got {depth_m.shape} and {of_target.shape}')


class _Boundaries(NamedTuple):
    """
    The boundaries in one direction, of all pairs of neighbours in it.

    Attributes
    ----------
    shape : (int, int)
        Of the pairs.
    pairs : int64 [n]
        Those that are boundaries, counted row by row.
    levels : uint8 [n]
        Number of thresholds that the ratio of their depths exceeds.
    """

    shape: tuple[int, int]
    pairs: NDArray[np.int64]
    levels: NDArray[np.uint8]

    def as_map(self) -> NDArray[np.uint8]:
        """Return the levels of all pairs, flat."""
        levels = np.zeros(self.shape[0] * self.shape[1], np.uint8)
        levels[self.pairs] = self.levels
        return levels


def _find_boundaries(map_m: NDArray[Any], known: NDArray[np.bool_], name: str
                     ) -> list[_Boundaries]:
    """Find the boundaries of known pixels, with the right, left, lower, upper pixel in front."""
    if not ((map_m > 0) | ~known).all():
        raise InputError(f'`{name}` must be above 0 wherever the truth is known')
    values = np.where(known, map_m, np.nan)
    rough = values.astype(np.float32, copy=False)
    found = []
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        with np.errstate(invalid='ignore'):  # inf / inf: within the sky is no boundary
            ratios = rough[first] / rough[second]
        # Few pairs exceed any threshold; only those are computed exactly.
        for far, near, steep in ((first, second, ratios > ALMOST_A_BOUNDARY),
                                 (second, first, ratios < 1.0 / ALMOST_A_BOUNDARY)):
            pairs = np.flatnonzero(steep)
            at = np.unravel_index(pairs, steep.shape)
            levels = np.searchsorted(
                THRESHOLDS, values[far][at].astype(np.float64) / values[near][at], side='left')
            found.append(_Boundaries(steep.shape, pairs, levels.astype(np.uint8)))
    return found


def _count_boundaries(levels: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Count the boundaries in each direction at each threshold, [4, 10], by their levels."""
    counts = np.stack([np.bincount(each, minlength=len(THRESHOLDS) + 1) for each in levels])
    return np.asarray(counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:], np.int64)


def _f1(hits: NDArray[np.int64], predicted: NDArray[np.int64],
        true: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the F1 at each threshold, [10], from counts [4, 10]."""
    recall = np.mean(hits / np.maximum(true, 1), axis=0)
    precision = np.mean(hits / np.maximum(predicted, 1), axis=0)
    return np.asarray(2 * recall * precision / np.where(hits.any(axis=0), recall + precision, 1))


def _detect_edges(map_m: NDArray[Any]) -> NDArray[np.bool_]:
    """Detect edges with Canny in a map scaled to [0, 1], bool [H, W]."""
    low, high = float(map_m.min()), float(map_m.max())
    if high <= low:
        return np.zeros(map_m.shape, bool)
    unit = map_m - low
    unit /= high - low
    smooth = cv2.GaussianBlur(unit.astype(np.float32, copy=False), (0, 0), SIGMA_PX)
    dx, dy = (np.rint(cv2.Sobel(smooth, cv2.CV_32F, *axes, scale=DERIVATIVE_STEPS))
              .astype(np.int16) for axes in ((1, 0), (0, 1)))
    return np.asarray(cv2.Canny(dx, dy, CANNY_LOW * DERIVATIVE_STEPS,
                                CANNY_HIGH * DERIVATIVE_STEPS,
                                L2gradient=True) > 0)


def _fill_unknown(target_m: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fill unknown pixels with the nearest known depth, and the sky with the farthest depth."""
    farthest_m = np.max(target_m, where=np.isfinite(target_m), initial=0.0)
    finite_m = np.where(np.isposinf(target_m), farthest_m, target_m).astype(np.float32)
    if known.all():
        return finite_m
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5,
        labelType=cv2.DIST_LABEL_PIXEL)
    depth_of_label = np.zeros(int(labels.max()) + 1, np.float32)
    depth_of_label[labels[known]] = finite_m[known]
    return np.asarray(depth_of_label[labels])


def _distance_to_edges_px(edges: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Compute the distance of each pixel to the nearest edge, px; inf if there are no edges."""
    if not edges.any():
        return np.full(edges.shape, np.inf)
    distances_px = cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2,
                                         cv2.DIST_MASK_PRECISE)
    # OpenCV's square roots differ in the last bit with its thread count; squares are integers.
    return np.sqrt(np.rint(np.square(distances_px, dtype=np.float64)))
