"""
Fit scale and shift of one frame's relative depth to sparse metric anchors.

The model is linear in depth, not in disparity, because Marigold's output is affine-invariant in
depth.  Residuals are relative to the depth, as in the AbsRel metric.  The consensus search uses
log residuals, so that an anchor ten times too near weighs as much as one ten times too far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

Vector = NDArray[np.float64]

# The proportion is shift / scale: the nearest depth of a frame divided by its depth range.  Over
# 512 rendered frames it has this median, and its logarithm has this standard deviation.
TYPICAL_PROPORTION, PROPORTION_LOG_STD = 0.27, 1.0
# The limits keep scale and shift above 0.
PROPORTION_LIMITS = (0.01, 10.0)
PROPORTIONS = np.geomspace(*PROPORTION_LIMITS, 24)
# Prediction errors are correlated over whole surfaces, so any number of anchors spread over the
# image carries only as much information as so many independent ones.
EFFECTIVE_ANCHORS = 24.0
MIN_ANCHORS = 10
# Largest number of anchors for the search over proportions; the refinement uses all.
MAX_SEARCH_ANCHORS = 256
# Smallest range of relative depths from which scale and shift can be estimated separately.
MIN_SPREAD = 0.1
# Anchors beyond so many robust standard deviations are outliers; none within 2 % is.
INLIER_SIGMAS, MIN_TOLERANCE = 5.0, 0.02
# Fitted depth behind the camera counts as this share of the measured one.
MIN_RATIO = 1e-9
ITERATIONS = 8
# Relative error below which the L1 norm is smoothed.
L1_SMOOTHING = 1e-3
# Residual at which the confidence is 0, and number of anchors at which it is halved.
MAX_RESIDUAL, HALF_CONFIDENCE_COUNT = 0.5, 20


@dataclass(frozen=True)
class ScaleFit:
    """
    Scale and shift of one frame: depth_m = scale * affine_invariant_depth + shift.

    Attributes
    ----------
    scale, shift : float
        Metres, both above 0, so that no pixel lies behind the camera.
    residual : float
        Weighted mean of ``|fit - anchor| / anchor`` over the inliers.
    inlier_fraction : float
        Weighted fraction of inliers among the anchors.
    anchor_count : int
        Number of valid anchors.
    scale_only : bool
        Whether only the scale was fitted at a fixed shift / scale, because the relative depths of
        the anchors are too close to each other.
    """

    scale: float
    shift: float
    residual: float
    inlier_fraction: float
    anchor_count: int
    scale_only: bool

    @property
    def confidence(self) -> float:
        """Return a score in [0, 1], 1 for many anchors with small errors; not a probability."""
        closeness = max(0.0, 1.0 - self.residual / MAX_RESIDUAL)
        anchors = self.anchor_count / (self.anchor_count + HALF_CONFIDENCE_COUNT)
        return self.inlier_fraction * closeness * anchors


def fit_scale(affine_invariant_depth: NDArray[np.float32], depth_m: NDArray[np.float32],
              weight: NDArray[np.float32] | None = None, *,
              proportion: float | None = None,
              effective_anchors: float = EFFECTIVE_ANCHORS) -> ScaleFit:
    """
    Fit scale and shift robustly to anchors of which up to 30 % may be outliers.

    The model is depth_m = k (a + p) with the relative depth a and the proportion p = shift /
    scale.  In log depth k is an offset, so that the best k for a given p is a weighted median; p
    is found by grid search.  Iteratively reweighted least squares then minimizes the weighted
    mean of ``|k (a + p) - depth_m| / depth_m`` over the inliers.  `TYPICAL_PROPORTION` is the
    median of a prior on p, which exact anchors outweigh.

    Parameters
    ----------
    affine_invariant_depth : float32 [n]
        Relative depth at the anchors, in [0, 1]; carried depth may leave that.
    depth_m : float32 [n]
        Metric depth of the anchors along Z, m, above 0.
    weight : float32 [n], optional
        Weight of each anchor, not below 0; equal by default.
    proportion : float, optional
        Shift / scale to use where the relative depths of the anchors are too close to each other
        to fit it; `TYPICAL_PROPORTION` by default.
    effective_anchors : float, optional
        Number of independent anchors to which all anchors are equivalent, as the weight of the
        anchors against the prior of shift / scale.

    Returns
    -------
    ScaleFit

    Raises
    ------
    InputError
        For fewer than `MIN_ANCHORS` anchors with finite values, a depth above 0 m and a weight
        above 0.

    Examples
    --------
    Anchors on depth_m = 3 * relative + 1, a quarter of them wrong:

    >>> relative = np.linspace(0, 1, 100, dtype=np.float32)
    >>> depth_m = 3 * relative + 1
    >>> depth_m[::4] = 12.0
    >>> fit = fit_scale(relative, depth_m)
    >>> print(f'{fit.scale:.2f} {fit.shift:.2f} {fit.inlier_fraction:.2f}')
    3.00 1.00 0.75
    """
    a, d, w = _valid_anchors(affine_invariant_depth, depth_m, weight)
    if len(a) < MIN_ANCHORS:
        raise InputError(f'the fit needs at least {MIN_ANCHORS} anchors with relative and metric '
                         f'depth; got {len(a)}')
    fixed = TYPICAL_PROPORTION if proportion is None else proportion
    scale_only = _spread(a) < MIN_SPREAD
    k, p, sigma = _search_consensus(a, d, w, np.array([fixed]) if scale_only else PROPORTIONS,
                                    effective_anchors)
    tolerance = max(INLIER_SIGMAS * sigma, MIN_TOLERANCE)
    inlier = _log_error(k * (a + p), d) < tolerance
    if not scale_only and _spread(a[inlier]) < MIN_SPREAD:
        scale_only = True
        k, p, _ = _search_consensus(a[inlier], d[inlier], w[inlier], np.array([fixed]),
                                    effective_anchors)
    scale, shift = _refine(a, d, w, k, p, tolerance, 0.0 if scale_only else effective_anchors)
    error = np.abs((scale * a + shift) / d - 1.0)
    inlier = _log_error(scale * a + shift, d) < tolerance
    inlier_weight = float(np.sum(w[inlier]))
    residual = (float(np.sum((w * error)[inlier]) / inlier_weight) if inlier_weight
                else float('inf'))
    return ScaleFit(scale, shift, residual, inlier_weight / float(np.sum(w)), len(a), scale_only)


def _valid_anchors(affine_invariant_depth: NDArray[np.float32], depth_m: NDArray[np.float32],
                   weight: NDArray[np.float32] | None) -> tuple[Vector, Vector, Vector]:
    a, d = (np.asarray(values, np.float64).ravel()
            for values in (affine_invariant_depth, depth_m))
    w = np.ones_like(d) if weight is None else np.asarray(weight, np.float64).ravel()
    if not a.shape == d.shape == w.shape:
        raise InputError('`affine_invariant_depth`, `depth_m` and `weight` must have the same '
                         f'length; got {a.size}, {d.size} and {w.size}')
    valid = np.isfinite(a) & (d > 0) & (d < np.inf) & (w > 0) & (w < np.inf)
    return a[valid], d[valid], w[valid]


def _log_error(fitted_m: Vector, depth_m: Vector) -> Vector:
    """Return the absolute log error; behind the camera it is that of an outlier."""
    return np.asarray(np.abs(np.log(np.maximum(fitted_m / depth_m, MIN_RATIO))))


def _spread(a: Vector) -> float:
    """Compute the width of the middle 80 %: a few isolated anchors cannot determine a shift."""
    if len(a) < MIN_ANCHORS:
        return 0.0
    low, high = np.quantile(a, (0.1, 0.9))
    return float(high - low)


def _search_consensus(a: Vector, d: Vector, w: Vector, proportions: Vector,
                      effective_anchors: float) -> tuple[float, float, float]:
    """
    Find k, p and the robust standard deviation of log(d / (k (a + p))).

    The first pass minimizes the mean absolute log residual.  The second pass truncates the
    residuals at the inlier tolerance of the first, so that one-sided outliers do not bias it.
    """
    if len(a) > MAX_SEARCH_ANCHORS:
        chosen = np.random.default_rng(0).choice(len(a), MAX_SEARCH_ANCHORS, replace=False)
        a, d, w = a[chosen], d[chosen], w[chosen]
    # No nearer than the nearest proportion puts the camera: carried depth may lie behind it.
    logs = np.log(d) - np.log(np.maximum(a + proportions[:, None], PROPORTION_LIMITS[0]))  # [P,n]
    offsets = np.array([weighted_median(row, w) for row in logs])
    error = np.abs(logs - offsets[:, None])
    best = _most_probable(error, w, proportions, effective_anchors)
    sigma = 1.4826 * weighted_median(error[best], w)
    tolerance = max(INLIER_SIGMAS * sigma, MIN_TOLERANCE)
    inlier = error < tolerance
    offsets = np.array([weighted_median(row, w * keep) for row, keep in zip(logs, inlier)])
    error = np.minimum(np.abs(logs - offsets[:, None]), tolerance)
    best = _most_probable(error, w, proportions, effective_anchors)
    kept = error[best] < tolerance
    sigma = 1.4826 * weighted_median(error[best], w * kept)
    return float(np.exp(offsets[best])), float(proportions[best]), sigma


def _most_probable(error: NDArray[np.float64], w: Vector, proportions: Vector,
                   effective_anchors: float) -> int:
    """
    Return the index of the proportion [P] with the highest posterior probability.

    `error` [P, n] are absolute log residuals.  The likelihood is Laplace's with unknown width;
    the prior is log-normal and decides where the anchors do not determine the proportion.
    """
    mean = np.maximum(error @ w / np.sum(w), L1_SMOOTHING)
    deviation = np.log(proportions / TYPICAL_PROPORTION) / PROPORTION_LOG_STD
    return int(np.argmin(effective_anchors * np.log(mean) + deviation ** 2 / 2.0))


def _refine(a: Vector, d: Vector, w: Vector, k: float, p: float, tolerance: float,
            effective_anchors: float) -> tuple[float, float]:
    """
    Minimize the weighted mean relative error of the inliers, starting from k and p.

    `effective_anchors` is as in `fit_scale`; 0 fixes the proportion and refines the scale only.
    """
    low, high = PROPORTION_LIMITS
    scale, shift = k, k * p
    for _ in range(ITERATIONS):
        fitted = scale * a + shift
        ratio = fitted / d
        inlier = _log_error(fitted, d) < tolerance
        v = np.where(inlier, w / (d * d * np.maximum(np.abs(ratio - 1.0), L1_SMOOTHING)), 0.0)
        sum_v, sum_a, sum_d = v.sum(), v @ a, v @ d
        if not sum_v > 0:
            break
        if not effective_anchors:
            b = a + p
            scale = float((v @ (b * d)) / (v @ (b * b)))
            shift = scale * p
            continue
        sum_aa, sum_ad = v @ (a * a), v @ (a * d)
        # The prior, linearized at the last proportion, is one more observation.
        error = max(float((w * np.abs(ratio - 1.0))[inlier].sum()),
                    L1_SMOOTHING * float(w[inlier].sum()))
        last = min(max(shift / scale, low), high)
        row_s = (-1.0 - np.log(TYPICAL_PROPORTION / last)) / (scale * PROPORTION_LOG_STD)
        row_t = 1.0 / (last * scale * PROPORTION_LOG_STD)
        sum_aa += error / effective_anchors * row_s * row_s
        sum_a += error / effective_anchors * row_s * row_t
        sum_v += error / effective_anchors * row_t * row_t
        determinant = sum_v * sum_aa - sum_a * sum_a
        if determinant > 0:
            scale = (sum_v * sum_ad - sum_a * sum_d) / determinant
            shift = (sum_d - scale * sum_a) / sum_v
        if not (determinant > 0 and scale > 0 and low <= shift / scale <= high):
            # The optimum lies on the violated limit, where only k is free.
            limit = low if shift < low * scale else high
            b = a + limit
            scale = float((v @ (b * d)) / (v @ (b * b)))
            shift = scale * limit
    return float(scale), float(shift)


def weighted_median(values: Vector, weight: Vector) -> float:
    """
    Compute the weighted median.

    Parameters
    ----------
    values, weight : float64 [n]
        At least one weight must be above 0.
    """
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order])
    index = int(np.searchsorted(cumulative, 0.5 * cumulative[-1]))
    return float(values[order[min(index, len(order) - 1)]])
