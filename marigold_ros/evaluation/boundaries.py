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
    predicted, true = _front_ratios(depth_m, known), _front_ratios(target_m, known)
    if not shows_borders(target_m) or not any((g > THRESHOLDS[0]).any() for g in true):
        return float('nan')
    scores = [_f1([p > t for p in predicted], [g > t for g in true]) for t in THRESHOLDS]
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


def _front_ratios(map_m: NDArray[Any], known: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """
    Tell how many times farther than its neighbour each pixel is.

    Returns
    -------
    list of 4 float64 [pairs]
        With the right, left, lower and upper pixel in front; pairs of known pixels only.
    """
    ratios = []
    for values, mask in ((map_m, known), (map_m.T, known.T)):
        both = mask[:, :-1] & mask[:, 1:]
        first, second = values[:, :-1][both].astype(float), values[:, 1:][both].astype(float)
        with np.errstate(invalid='ignore'):  # inf / inf within the sky is no border
            ratios += [first / second, second / first]
    return ratios


def _f1(predicted: list[NDArray[np.bool_]], true: list[NDArray[np.bool_]]) -> float:
    """Return the F1 at one threshold from boundary masks by direction."""
    hits = [int(np.sum(p & g)) for p, g in zip(predicted, true)]
    recall = np.mean([hit / max(int(np.sum(g)), 1) for hit, g in zip(hits, true)])
    precision = np.mean([hit / max(int(np.sum(p)), 1) for hit, p in zip(hits, predicted)])
    return 2 * float(recall * precision / (recall + precision)) if any(hits) else 0.0
