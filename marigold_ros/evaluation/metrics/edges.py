"""
How far predicted depth edges lie from true ones: accuracy and completeness of iBims-1.

Formulas: depth boundary errors of Koch et al. 2018, arXiv 1805.01328, section 3.2, and the
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
from marigold_ros.evaluation.metrics.boundaries import shows_borders

# Of the benchmark: Canny on depth that is scaled to [0, 1], and distances no longer than that.
SIGMA_PX = float(np.sqrt(2))
LOW, HIGH = 0.15, 0.3
MAX_DISTANCE_PX = 10.0
# cv2.Canny takes derivatives as int16; those of a map in [0, 1] are at most 4.
DERIVATIVE_STEPS = 4096
# As far as the blur carries a gap of the sensor.
GAP_PX = 4


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


def _edges(map_m: NDArray[Any]) -> NDArray[np.bool_]:
    """Find edges by Canny in a map scaled to [0, 1], bool [H, W]."""
    low, high = float(map_m.min()), float(map_m.max())
    if high <= low:
        return np.zeros(map_m.shape, bool)
    unit = ((map_m - low) / (high - low)).astype(np.float32)
    smooth = cv2.GaussianBlur(unit, (0, 0), SIGMA_PX)
    dx, dy = (np.rint(cv2.Sobel(smooth, cv2.CV_32F, *axes) * DERIVATIVE_STEPS).astype(np.int16)
              for axes in ((1, 0), (0, 1)))
    return np.asarray(cv2.Canny(dx, dy, LOW * DERIVATIVE_STEPS, HIGH * DERIVATIVE_STEPS,
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
