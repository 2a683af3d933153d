"""
Protocol B: scale and shift by RANSAC in log depth, pixels at edges excluded.

This is the protocol of Marigold V2 (arXiv 2609.08084), released as `evaluation/depth/eval.py` of
huawei-bayerlab/marigold-v2 with `--ppd_eval_protocol`.  It takes masks and ranges from
Pixel-Perfect Depth (arXiv 2510.07316).  All constants are from that code.

Two points are not specified there.  The code expects models that predict log depth; a prediction
of linear depth, such as Marigold V1's, is fitted to log depth without conversion.  The code
excludes edges for DIODE only; here they are excluded for bags and folders too, unless the true
depth is too sparse to show edges.
"""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from marigold_ros.evaluation.metrics.edges import is_dense

if TYPE_CHECKING:
    from marigold_ros.data.datasets.data_set import Rules
    from marigold_ros.data.frames import DepthFrame

LOG_EPS = 1e-6
MIN_PREDICTION_M = 1e-3
# Sum of both Sobel responses, m, not normalized: a step of 1 m between two columns gives 4.
MAX_SOBEL_M = 0.3
# The rest is scikit-learn's default: two pixels per trial; inliers within the median absolute
# deviation of the target; most inliers win, then the best R^2; stop at 99 % probability.
MAX_TRIALS, SEED = 1000, 42


def select_compared_pixels(frame: DepthFrame,
                           rules: Rules) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """
    Select the pixels to compare, at the size that the data set prescribes.

    Parameters
    ----------
    frame : DepthFrame
    rules : Rules

    Returns
    -------
    target_m : float32 [H, W]
        True depth, m; NaN where it is not valid.
    compared : bool [H, W]
    """
    maps: list[NDArray[Any]] = [frame.depth_m, frame.valid, frame.measured]
    if rules.b_size is not None:
        maps = [resize_nearest(each, rules.b_size) for each in maps]
    depth_m, valid, compared = maps
    compared = compared & (depth_m > rules.b_min_depth_m) & (depth_m < rules.b_max_depth_m)
    target_m = np.where(valid, depth_m, np.float32(np.nan))
    if rules.b_masks_edges and is_dense(target_m):
        # As in the published code, of all stored depth, valid or not.
        stored_m = np.where(np.isfinite(depth_m), depth_m, np.float32(0.0))
        compared &= (np.abs(ndimage.sobel(stored_m, 0))
                     + np.abs(ndimage.sobel(stored_m, 1))) <= MAX_SOBEL_M
    return target_m, compared


def resize_nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize [H, W] as torch's `interpolate(mode='nearest', size=size)` does."""
    rows, columns = ((np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(int)
                     for new, old in zip(size, values.shape))
    resized: NDArray[Any] = values[rows[:, None], columns]
    return resized


def align_log_depth(depth: NDArray[np.float64], target_m: NDArray[np.float32],
                    compared: NDArray[np.bool_], fit: tuple[float, float] | None = None,
                    ) -> tuple[NDArray[np.float64], float, float]:
    """
    Align a prediction with the truth in log depth, and clip it to the largest compared depth.

    Parameters
    ----------
    depth : float64 [H, W]
        Prediction; it is fitted to log depth without conversion.
    target_m : float32 [H, W]
        True depth, m.
    compared : bool [H, W]
        Pixels used for the fit; at least one.
    fit : (float, float) or None
        Scale and shift in log depth, applied as they are; None fits them to this frame.

    Returns
    -------
    depth_m : float64 [H, W]
        Aligned depth, m.
    scale, shift : float
        In log depth.
    """
    values = depth[compared].astype(np.float32)
    targets_m = target_m[compared]
    log_targets = np.log(targets_m + np.float32(LOG_EPS))
    scale, shift = fit or fit_ransac(values, log_targets)
    if scale <= 0:
        # As in the published code: for a non-positive scale only the mean is matched.
        mean = float(values.mean())
        scale, shift = (float(log_targets.mean()) / mean if abs(mean) > 1e-8 else 1.0), 0.0
    with np.errstate(over='ignore'):
        depth_m = np.exp(scale * depth + shift) - LOG_EPS
    return depth_m.clip(MIN_PREDICTION_M, float(targets_m.max())), scale, shift


def fit_ransac(values: NDArray[Any], targets: NDArray[Any]) -> tuple[float, float]:
    """
    Fit scale and shift by RANSAC: scale * values + shift = targets.

    Parameters
    ----------
    values, targets : float [n]

    Returns
    -------
    scale, shift : float
        By least squares over the inliers; deterministic.  As in the published code, 1 and 0 if
        RANSAC finds no consensus.

    Examples
    --------
    The outlier at the end does not change the fit:

    >>> import numpy as np
    >>> values = np.arange(10.0)
    >>> target = 2.0 * values + 1.0
    >>> target[9] = 100.0
    >>> scale, shift = fit_ransac(values, target)
    >>> round(scale, 3), round(shift, 3)
    (2.0, 1.0)
    """
    from sklearn.linear_model import RANSACRegressor  # takes 0.5 s to import

    ransac = RANSACRegressor(max_trials=MAX_TRIALS, random_state=SEED)
    try:
        ransac.fit(values[:, None].astype(np.float32), targets[:, None].astype(np.float32))
    except ValueError:
        return 1.0, 0.0
    return float(ransac.estimator_.coef_.item()), float(ransac.estimator_.intercept_.item())
