"""
Protocol B: scale and shift by RANSAC in log depth, pixels on edges left out.

It is that of Marigold V2 (arXiv 2609.08084), released as `evaluation/depth/eval.py` of
huawei-bayerlab/marigold-v2 with `--ppd_eval_protocol`, which takes masks and ranges from
Pixel-Perfect Depth (arXiv 2510.07316).  Every constant here is from there.

Not specified there, and decided here: the code expects models of log depth, and fits what it is
given; linear depth, such as Marigold V1's, is fitted as it is.  Edges are left out of DIODE alone;
bags and folders, on which nothing is published, are treated as DIODE is, unless their depth is too
sparse to show an edge.
"""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from marigold_ros.evaluation.metrics.edges import shows_borders

if TYPE_CHECKING:
    from marigold_ros.data.datasets.data_set import Rules
    from marigold_ros.data.frames import DepthFrame

LOG_EPS = 1e-6
MIN_PREDICTION_M = 1e-3
# Sum of both Sobel derivatives, m, not divided by their weights: 1 m between columns counts 4.
MAX_SOBEL_M = 0.3
# All else is scikit-learn's default: two pixels a trial, inliers within the median absolute
# deviation of the target, the most inliers, then the best R^2, and no more trials than find a pair
# of inliers with 99 %.
MAX_TRIALS, SEED = 1000, 42


def compared_pixels(frame: DepthFrame,
                    rules: Rules) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """
    Choose at which size and where to compare.

    Parameters
    ----------
    frame : DepthFrame
    rules : Rules

    Returns
    -------
    target_m : float32 [H, W]
        m; NaN where it is not valid.
    compared : bool [H, W]
    """
    maps: list[NDArray[Any]] = [frame.depth_m, frame.valid, frame.measured]
    if rules.b_size is not None:
        maps = [nearest_size(each, rules.b_size) for each in maps]
    depth_m, valid, compared = maps
    compared = compared & (depth_m > rules.b_min_depth_m) & (depth_m < rules.b_max_depth_m)
    target_m = np.where(valid, depth_m, np.float32(np.nan))
    if rules.b_masks_edges and shows_borders(target_m):
        # Of all depth that is stored, as published, whether it is valid or not.
        stored_m = np.where(np.isfinite(depth_m), depth_m, np.float32(0.0))
        compared &= (np.abs(ndimage.sobel(stored_m, 0))
                     + np.abs(ndimage.sobel(stored_m, 1))) <= MAX_SOBEL_M
    return target_m, compared


def nearest_size(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize [H, W] as torch's `interpolate(mode='nearest', size=size)` does."""
    rows, columns = ((np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(int)
                     for new, old in zip(size, values.shape))
    resized: NDArray[Any] = values[rows[:, None], columns]
    return resized


def align_in_log(depth: NDArray[np.float64], target_m: NDArray[np.float32],
                 compared: NDArray[np.bool_], fit: tuple[float, float] | None = None,
                 ) -> tuple[NDArray[np.float64], float, float]:
    """
    Bring a prediction into metres, clipped to the largest depth that is compared.

    Parameters
    ----------
    depth : float64 [H, W]
        Prediction; it is fitted to log depth as it is.
    target_m : float32 [H, W]
        m.
    compared : bool [H, W]
        Not empty.
    fit : (float, float) or None
        Scale and shift in log depth; None fits them here.

    Returns
    -------
    depth_m : float64 [H, W]
    scale, shift : float
    """
    values_px = depth[compared].astype(np.float32)
    target_px = target_m[compared]
    log_px = np.log(target_px + np.float32(LOG_EPS))
    scale, shift = fit or fit_ransac(values_px, log_px)
    if scale <= 0:
        # As published: a map that runs backwards is only brought to the right mean.
        mean = float(values_px.mean())
        scale, shift = (float(log_px.mean()) / mean if abs(mean) > 1e-8 else 1.0), 0.0
    with np.errstate(over='ignore'):
        depth_m = np.exp(scale * depth + shift) - LOG_EPS
    return depth_m.clip(MIN_PREDICTION_M, float(target_px.max())), scale, shift


def fit_ransac(values_px: NDArray[Any], target_px: NDArray[Any]) -> tuple[float, float]:
    """
    Find the scale and shift that most pixels agree on.

    Parameters
    ----------
    values_px, target_px : float [n]

    Returns
    -------
    scale, shift : float
        By least squares over the inliers; the same for the same pixels.  1 and 0, as published,
        where no two pixels agree on anything.
    """
    from sklearn.linear_model import RANSACRegressor  # half a second, so only where it is needed

    ransac = RANSACRegressor(max_trials=MAX_TRIALS, random_state=SEED)
    try:
        ransac.fit(values_px[:, None].astype(np.float32), target_px[:, None].astype(np.float32))
    except ValueError:
        return 1.0, 0.0
    return float(ransac.estimator_.coef_.item()), float(ransac.estimator_.intercept_.item())
