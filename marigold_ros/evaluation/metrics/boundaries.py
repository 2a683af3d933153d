"""
Sharpness of depth at object borders: the scale-invariant boundary F1 of Depth Pro.

Two neighbouring pixels are a boundary at threshold t where one is more than t times as far as the
other.  A predicted boundary is right where the truth has one between the same two pixels with the
same side in front; precision and recall are averaged over the four directions, and their F1 over
ten thresholds from 1.05 to 1.25 with weights proportional to the threshold.

Formula: apple/ml-depth-pro, src/depth_pro/eval/boundary_metrics.py, `SI_boundary_F1` (9efe5c1);
Bochkovskii et al. 2024, arXiv 2410.02073, section 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

THRESHOLDS = np.linspace(1.05, 1.25, 10)
# Where fewer of the neighbours are both measured, the gaps of the sensor hide the borders.
MIN_KNOWN_PAIRS = 0.1


def boundary_f1(depth_m: NDArray[Any], target_m: NDArray[Any]) -> float:
    """
    Compare the borders in one predicted depth map with the true ones.

    Parameters
    ----------
    depth_m : float [H, W]
        Prediction, m; affine-invariant maps must be aligned before (`metrics.align`), since the
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
