"""
Sharpness of depth at object borders: boundary F1 of Depth Pro, and the edge distances of iBims-1.

Boundary F1: two neighbouring pixels are a boundary at threshold t where one is more than t times
as far as the other.  A predicted boundary is right where the truth has one between the same two
pixels with the same side in front; precision and recall are averaged over the four directions, and
their F1 over ten thresholds from 1.05 to 1.25 with weights proportional to the threshold.
Formula: apple/ml-depth-pro, src/depth_pro/eval/boundary_metrics.py, `SI_boundary_F1` (9efe5c1);
Bochkovskii et al. 2024, arXiv 2410.02073, section 3.3.

Edge distances: depth boundary errors of Koch et al. 2018, arXiv 1805.01328, section 3.2, and the
benchmark's `evaluate_ibims_error_metrics.py`.  There the true edges were drawn by hand; here they
are found in the true depth by the detector that finds the predicted ones, so that the numbers are
not those of the benchmark.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

THRESHOLDS = np.linspace(1.05, 1.25, 10)
# Where fewer of the neighbours are both measured, the gaps of the sensor hide the borders.
MIN_KNOWN_PAIRS = 0.1
# Of iBims-1: Canny on depth that is scaled to [0, 1], and distances no longer than that.
SIGMA_PX = float(np.sqrt(2))
CANNY_LOW, CANNY_HIGH = 0.15, 0.3
MAX_DISTANCE_PX = 10.0
# cv2.Canny takes derivatives as int16; those of a map in [0, 1] are at most 4.
DERIVATIVE_STEPS = 4096
# As far as the blur carries a gap of the sensor.
GAP_PX = 4


def boundary_f1(depth_m: NDArray[Any], target_m: NDArray[Any]) -> float:
    """
    Compare the borders in one predicted depth map with the true ones.

    Parameters
    ----------
    depth_m : float [H, W]
        Prediction, m; affine-invariant maps must be aligned before (`protocol_a.align`), since the
        ratio of two depths survives a change of scale but not a shift.
    target_m : float [H, W]
        True depth, m.  NaN is unknown: neither it nor a border beside it counts, in precision or
        in recall.  +inf is sky: a border against it counts, for it lies behind everything.

    Returns
    -------
    float
        In [0, 1], 1 best; as published, a direction without a true border counts 0.  NaN where
        the truth cannot tell: it has no border at all, or less than a tenth of the neighbours are
        both known, as with lidar.

    Raises
    ------
    InputError
        Shapes differ, or a depth is not above 0 where the truth is known.
    """
    known = ~np.isnan(target_m)
    if depth_m.shape != target_m.shape or depth_m.ndim != 2:
        raise InputError('`depth_m` and `target_m` must have one shape [H, W]; '
                         f'got {depth_m.shape} and {target_m.shape}')
    for name, map_m in (('depth_m', depth_m), ('target_m', target_m)):
        if not (map_m[known] > 0).all():
            raise InputError(f'`{name}` must be above 0 wherever the truth is known')
    predicted, true = _front_levels(depth_m, known), _front_levels(target_m, known)
    if not shows_borders(target_m) or not any(levels.any() for levels in true):
        return float('nan')
    both = [np.minimum(*pair) for pair in zip(predicted, true)]
    scores = _f1(*(_boundaries(each) for each in (both, predicted, true)))
    return float(np.average(scores, weights=THRESHOLDS))


def edge_errors(depth_m: NDArray[Any], target_m: NDArray[Any]) -> tuple[float, float]:
    """
    Compare the edges of one predicted depth map with those of the truth.

    Parameters
    ----------
    depth_m : float [H, W]
        Prediction, aligned, m.
    target_m : float [H, W]
        True depth, m; NaN is unknown, and edges beside it do not count; +inf is sky, as far as
        the farthest measurement.

    Returns
    -------
    accuracy_px : float
        Mean distance of the predicted edges that are near a true one from it; 10 if none is.
    completeness_px : float
        Mean distance of predicted edges from true ones and of true ones from predicted ones, none
        longer than 10; less is better.  Both are NaN where the truth shows no edge.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    if depth_m.shape != target_m.shape or depth_m.ndim != 2:
        raise InputError('`depth_m` and `target_m` must have one shape [H, W]; '
                         f'got {depth_m.shape} and {target_m.shape}')
    if not shows_borders(target_m):
        return float('nan'), float('nan')
    known = ~np.isnan(target_m)
    judged = cv2.erode(known.astype(np.uint8), np.ones((2 * GAP_PX + 1,) * 2)) > 0
    true = _edges(_filled(target_m, known)) & judged
    if not true.any():
        return float('nan'), float('nan')
    predicted = _edges(depth_m) & judged
    from_true, from_predicted = _distances_px(true), _distances_px(predicted)
    near = predicted & (from_true < MAX_DISTANCE_PX)
    if not near.any():
        return MAX_DISTANCE_PX, MAX_DISTANCE_PX
    both = (np.minimum(from_true, MAX_DISTANCE_PX)[predicted].sum()
            + np.minimum(from_predicted, MAX_DISTANCE_PX)[true].sum())
    return (float(from_true[near].mean()),
            float(both / (np.count_nonzero(predicted) + np.count_nonzero(true))))


def shows_borders(target_m: NDArray[Any]) -> bool:
    """
    Tell whether a true depth map is dense enough to show borders, as lidar's is not.

    Parameters
    ----------
    target_m : float [H, W]
        m; NaN is unknown.
    """
    known = ~np.isnan(target_m)
    known_pairs = (np.count_nonzero(known[:, :-1] & known[:, 1:])
                   + np.count_nonzero(known[:-1] & known[1:]))
    return bool(known_pairs >= MIN_KNOWN_PAIRS * (2 * known.size - sum(known.shape)))


def _front_levels(map_m: NDArray[Any], known: NDArray[np.bool_]) -> list[NDArray[np.uint8]]:
    """
    Tell how many of the thresholds each pixel passes by being farther than its neighbour.

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
            # Few pairs pass any; inf / inf within the sky is no border.
            steep = np.flatnonzero((far > near) & np.isfinite(near))
            ratios = far[steep] / near[steep]
            passed[steep] = np.searchsorted(THRESHOLDS, ratios, side='left')
            levels.append(passed)
    return levels


def _boundaries(levels: list[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Count the boundaries in each direction at each threshold, [4, 10]."""
    counts = np.stack([np.bincount(each, minlength=len(THRESHOLDS) + 1) for each in levels])
    return np.asarray(counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:], np.int64)


def _f1(hits: NDArray[np.int64], predicted: NDArray[np.int64],
        true: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the F1 at each threshold, [10], from counts [4, 10]."""
    recall = np.mean(hits / np.maximum(true, 1), axis=0)
    precision = np.mean(hits / np.maximum(predicted, 1), axis=0)
    return np.asarray(2 * recall * precision / np.where(hits.any(axis=0), recall + precision, 1))


def _edges(map_m: NDArray[Any]) -> NDArray[np.bool_]:
    """Find edges by Canny in a map scaled to [0, 1], bool [H, W]."""
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


def _filled(target_m: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Give unknown pixels the depth of the nearest known one, and the sky the farthest depth."""
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


def _distances_px(edges: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Tell how far each pixel is from the nearest edge, px; inf without any."""
    if not edges.any():
        return np.full(edges.shape, np.inf)
    distances_px = cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2,
                                         cv2.DIST_MASK_PRECISE)
    # The last bit of OpenCV's roots depends on its threads; the squares are whole numbers.
    return np.sqrt(np.rint(np.square(distances_px, dtype=np.float64)))
