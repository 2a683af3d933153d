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

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

THRESHOLDS = np.linspace(1.05, 1.25, 10)
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


def boundary_f1(depth_m: NDArray[Any], target_m: NDArray[Any]) -> float:
    """
    Compute the boundary F1 of one predicted depth map.

    Parameters
    ----------
    depth_m : float [H, W]
        Prediction, m.  Relative depth must be aligned first (`protocol_a.align`): the ratio of
        two depths does not depend on the scale, but it depends on the shift.
    target_m : float [H, W]
        True depth, m.  NaN is unknown: boundaries next to unknown pixels are ignored.  +inf is
        sky, which lies behind everything: the boundary of an object against the sky counts.

    Returns
    -------
    float
        In [0, 1], higher is better.  As in the published code, a direction without a true
        boundary contributes 0.  NaN if the truth has no boundary or is sparse, see `is_dense`.

    Raises
    ------
    InputError
        If the shapes differ, or a depth is not above 0 where the truth is known.

    Examples
    --------
    A near pixel before a far wall: the correct boundaries at any scale, and a flat prediction:

    >>> import numpy as np
    >>> target_m = np.full((3, 3), 4.0)
    >>> target_m[1, 1] = 2.0
    >>> round(boundary_f1(0.5 * target_m, target_m), 3)
    1.0
    >>> boundary_f1(np.full((3, 3), 4.0), target_m)
    0.0
    """
    known = ~np.isnan(target_m)
    if depth_m.shape != target_m.shape or depth_m.ndim != 2:
        raise InputError('`depth_m` and `target_m` must have one shape [H, W]; '
                         f'got {depth_m.shape} and {target_m.shape}')
    for name, map_m in (('depth_m', depth_m), ('target_m', target_m)):
        if not (map_m[known] > 0).all():
            raise InputError(f'`{name}` must be above 0 wherever the truth is known')
    predicted = _count_passed_thresholds(depth_m, known)
    true = _count_passed_thresholds(target_m, known)
    if not is_dense(target_m) or not any(levels.any() for levels in true):
        return float('nan')
    both = [np.minimum(*pair) for pair in zip(predicted, true)]
    scores = _f1(*(_count_boundaries(each) for each in (both, predicted, true)))
    return float(np.average(scores, weights=THRESHOLDS))


def edge_errors(depth_m: NDArray[Any], target_m: NDArray[Any]) -> tuple[float, float]:
    """
    Compute the distances between the edges of a predicted depth map and the true edges.

    Parameters
    ----------
    depth_m : float [H, W]
        Prediction, aligned, m.
    target_m : float [H, W]
        True depth, m.  NaN is unknown: edges next to unknown pixels are ignored.  +inf is sky: it
        gets the depth of the farthest measurement.

    Returns
    -------
    accuracy_px : float
        Mean distance from a predicted edge pixel to the nearest true edge, over the predicted
        edge pixels within 10 px of a true edge; 10 if there are none.  Lower is better.
    completeness_px : float
        Mean distance, truncated to 10 px, from predicted edge pixels to true edges and from true
        edge pixels to predicted edges.  Lower is better.  Both are NaN if the truth has no edge.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    if depth_m.shape != target_m.shape or depth_m.ndim != 2:
        raise InputError('`depth_m` and `target_m` must have one shape [H, W]; '
                         f'got {depth_m.shape} and {target_m.shape}')
    if not is_dense(target_m):
        return float('nan'), float('nan')
    known = ~np.isnan(target_m)
    compared = cv2.erode(known.astype(np.uint8), np.ones((2 * GAP_MARGIN_PX + 1,) * 2)) > 0
    true = _detect_edges(_fill_unknown(target_m, known)) & compared
    if not true.any():
        return float('nan'), float('nan')
    predicted = _detect_edges(depth_m) & compared
    from_true, from_predicted = _distance_to_edges_px(true), _distance_to_edges_px(predicted)
    near = predicted & (from_true < MAX_DISTANCE_PX)
    if not near.any():
        return MAX_DISTANCE_PX, MAX_DISTANCE_PX
    both = (np.minimum(from_true, MAX_DISTANCE_PX)[predicted].sum()
            + np.minimum(from_predicted, MAX_DISTANCE_PX)[true].sum())
    return (float(from_true[near].mean()),
            float(both / (np.count_nonzero(predicted) + np.count_nonzero(true))))


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


def _count_passed_thresholds(map_m: NDArray[Any],
                             known: NDArray[np.bool_]) -> list[NDArray[np.uint8]]:
    """
    Count the thresholds that the depth ratio of each pair of neighbouring pixels exceeds.

    Returns
    -------
    list of 4 uint8 [pairs]
        With the right, left, lower and upper pixel in front; pairs of known pixels only.
    """
    levels = []
    for values, mask in ((map_m, known), (map_m.T, known.T)):
        both = mask[:, :-1] & mask[:, 1:]
        first, second = values[:, :-1][both].astype(float), values[:, 1:][both].astype(float)
        for far, near in ((first, second), (second, first)):
            passed = np.zeros(far.size, np.uint8)
            # Few pairs exceed any threshold; inf / inf within the sky is not a boundary.
            steep = np.flatnonzero((far > near) & np.isfinite(near))
            ratios = far[steep] / near[steep]
            passed[steep] = np.searchsorted(THRESHOLDS, ratios, side='left')
            levels.append(passed)
    return levels


def _count_boundaries(levels: list[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Count the boundaries in each direction at each threshold, [4, 10]."""
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
    unit = ((map_m - low) / (high - low)).astype(np.float32)
    smooth = cv2.GaussianBlur(unit, (0, 0), SIGMA_PX)
    dx, dy = (np.rint(cv2.Sobel(smooth, cv2.CV_32F, *axes) * DERIVATIVE_STEPS).astype(np.int16)
              for axes in ((1, 0), (0, 1)))
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
