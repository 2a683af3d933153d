"""
Fit scale and shift of one frame's relative depth to sparse metric anchors.

The fit is made in depth, not in disparity: Marigold's output is affine-invariant in depth, so that
only there two numbers suffice.  Residuals are relative, since that is what AbsRel and an obstacle
layer feel; the search for the consensus takes them in the logarithm, where an anchor that is ten
times too near pulls no harder than one that is ten times too far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

Vector = NDArray[np.float64]

# Shift divided by scale, which is the nearest depth of a frame over the spread of its depths.
# Over 512 rendered frames its logarithm has this median and standard deviation; the limits keep
# scale and shift above 0.
TYPICAL_PROPORTION, PROPORTION_SPREAD = 0.27, 1.0
# Predictions err alike over whole surfaces: all over the image, anchors say no more than so many.
INDEPENDENT_ANCHORS = 24.0
PROPORTION_LIMITS = (0.01, 10.0)
PROPORTIONS = np.geomspace(*PROPORTION_LIMITS, 24)
MIN_ANCHORS = 10
# Anchors for the search over proportions; the refinement uses all.
SEARCHED_ANCHORS = 256
# Relative depths must spread as widely for the shift to be told from the scale.
MIN_SPREAD = 0.1
# Anchors beyond so many robust standard deviations are outliers, and none within 2 % is.
INLIER_SIGMAS, MIN_TOLERANCE = 5.0, 0.02
REFINEMENTS = 8
# Relative error below which the L1 norm is rounded off.
ROUNDING = 1e-3
# Residual at which a fit says nothing, and the number of anchors that count half.
USELESS_RESIDUAL, HALF_COUNT = 0.5, 20


@dataclass(frozen=True)
class ScaleFit:
    """
    Scale and shift of one frame: depth_m = scale * affine_invariant_depth + shift.

    Attributes
    ----------
    scale, shift : float
        Metres, both above 0, so that no pixel lies behind the camera.
    residual : float
        Mean |fit - anchor| / anchor of the inliers, weighted.
    inliers : float
        Weighted share of the anchors that agree.
    count : int
        Anchors that were given.
    scale_only : bool
        Whether the anchors do not spread, so that shift / scale was taken from before.
    """

    scale: float
    shift: float
    residual: float
    inliers: float
    count: int
    scale_only: bool

    @property
    def confidence(self) -> float:
        """In [0, 1]: many anchors that agree closely make 1; a rank, not a probability."""
        closeness = max(0.0, 1.0 - self.residual / USELESS_RESIDUAL)
        return self.inliers * closeness * self.count / (self.count + HALF_COUNT)


def fit_scale(relative: NDArray[np.float32], depth_m: NDArray[np.float32],
              weight: NDArray[np.float32] | None = None, *,
              proportion: float | None = None,
              independent: float = INDEPENDENT_ANCHORS) -> ScaleFit:
    """
    Fit scale and shift to anchors of which up to 30 % may be wrong.

    With depth_m = k (a + p) the logarithm turns k into an offset, so that the best k of any
    proportion p is a weighted median, and p is found by trying all.  The inliers of the best then
    minimise the weighted mean of |k (a + p) - depth_m| / depth_m, by reweighted least squares.
    The typical proportion is a prior that exact anchors overrule.

    Parameters
    ----------
    relative : float32 [n]
        Affine-invariant depth at the anchors, in [0, 1].
    depth_m : float32 [n]
        Their depth along Z, m, above 0.
    weight : float32 [n], optional
        How much each counts, not below 0; all the same by default.
    proportion : float, optional
        Shift / scale to keep where the anchors do not spread; `TYPICAL_PROPORTION` by default.
    independent : float, optional
        How many of the anchors err independently, against the prior of shift / scale.

    Returns
    -------
    ScaleFit

    Raises
    ------
    InputError
        For fewer than `MIN_ANCHORS` anchors that are finite, above 0 m and of some weight.
    """
    a, d, w = _usable(relative, depth_m, weight)
    if len(a) < MIN_ANCHORS:
        raise InputError(f'at least {MIN_ANCHORS} anchors with a depth are needed; got {len(a)}')
    kept = TYPICAL_PROPORTION if proportion is None else proportion
    scale_only = _spread(a) < MIN_SPREAD
    k, p, sigma = _consensus(a, d, w, np.array([kept]) if scale_only else PROPORTIONS,
                             independent)
    tolerance = max(INLIER_SIGMAS * sigma, MIN_TOLERANCE)
    inlier = np.abs(np.log(d / (k * (a + p)))) < tolerance
    if not scale_only and _spread(a[inlier]) < MIN_SPREAD:
        scale_only = True
        k, p, _ = _consensus(a[inlier], d[inlier], w[inlier], np.array([kept]), independent)
    scale, shift = _refined(a, d, w, k, p, tolerance, 0.0 if scale_only else independent)
    error = np.abs((scale * a + shift) / d - 1.0)
    inlier = np.abs(np.log(d / (scale * a + shift))) < tolerance
    agreeing = float(np.sum(w[inlier]))
    residual = float(np.sum((w * error)[inlier]) / agreeing) if agreeing else float('inf')
    return ScaleFit(scale, shift, residual, agreeing / float(np.sum(w)), len(a), scale_only)


def _usable(relative: NDArray[np.float32], depth_m: NDArray[np.float32],
            weight: NDArray[np.float32] | None) -> tuple[Vector, Vector, Vector]:
    a, d = (np.asarray(values, np.float64).ravel() for values in (relative, depth_m))
    w = np.ones_like(d) if weight is None else np.asarray(weight, np.float64).ravel()
    if not a.shape == d.shape == w.shape:
        raise InputError('`relative`, `depth_m` and `weight` must have one length; '
                         f'got {a.size}, {d.size} and {w.size}')
    usable = np.isfinite(a) & (d > 0) & (d < np.inf) & (w > 0) & (w < np.inf)
    return a[usable], d[usable], w[usable]


def _spread(a: Vector) -> float:
    """Width of the middle 80 %: a few anchors off the rest do not carry a shift."""
    if len(a) < MIN_ANCHORS:
        return 0.0
    low, high = np.quantile(a, (0.1, 0.9))
    return float(high - low)


def _consensus(a: Vector, d: Vector, w: Vector, proportions: Vector, independent: float
               ) -> tuple[float, float, float]:
    """
    Find k, p and the robust standard deviation of log(d / (k (a + p))).

    First by the least mean |log residual|, then by the same truncated at what the first says an
    inlier is, so that outliers on one side do not pull.
    """
    if len(a) > SEARCHED_ANCHORS:
        chosen = np.random.default_rng(0).choice(len(a), SEARCHED_ANCHORS, replace=False)
        a, d, w = a[chosen], d[chosen], w[chosen]
    logs = np.log(d) - np.log(a + proportions[:, None])  # [P,n]
    offsets = np.array([weighted_median(row, w) for row in logs])
    error = np.abs(logs - offsets[:, None])
    best = _likeliest(error, w, proportions, independent)
    sigma = 1.4826 * weighted_median(error[best], w)
    tolerance = max(INLIER_SIGMAS * sigma, MIN_TOLERANCE)
    inlier = error < tolerance
    offsets = np.array([weighted_median(row, w * keep) for row, keep in zip(logs, inlier)])
    error = np.minimum(np.abs(logs - offsets[:, None]), tolerance)
    best = _likeliest(error, w, proportions, independent)
    kept = error[best] < tolerance
    sigma = 1.4826 * weighted_median(error[best], w * kept)
    return float(np.exp(offsets[best])), float(proportions[best]), sigma


def _likeliest(error: NDArray[np.float64], w: Vector, proportions: Vector,
               independent: float) -> int:
    """
    Choose a proportion: -log of Laplace's likelihood with unknown width, times the prior.

    Anchors that say nothing of the proportion, as those of one row, leave it to the prior; with
    exact ones the first term rules.
    """
    mean = np.maximum(error @ w / np.sum(w), ROUNDING)
    surprise = np.log(proportions / TYPICAL_PROPORTION) / PROPORTION_SPREAD
    return int(np.argmin(independent * np.log(mean) + surprise ** 2 / 2.0))


def _refined(a: Vector, d: Vector, w: Vector, k: float, p: float, tolerance: float,
             independent: float) -> tuple[float, float]:
    """
    Minimise the weighted mean relative error of the inliers from a consensus on.

    `independent` is as in `fit_scale`; 0 keeps the proportion and refines the scale only.
    """
    low, high = PROPORTION_LIMITS
    scale, shift = k, k * p
    for _ in range(REFINEMENTS):
        fitted = scale * a + shift
        ratio = fitted / d
        near = np.abs(np.log(ratio)) < tolerance
        v = np.where(near, w / (d * d * np.maximum(np.abs(ratio - 1.0), ROUNDING)), 0.0)
        sum_v, sum_a, sum_d = v.sum(), v @ a, v @ d
        if not sum_v > 0:
            break
        if not independent:
            b = a + p
            scale = float((v @ (b * d)) / (v @ (b * b)))
            shift = scale * p
            continue
        sum_aa, sum_ad = v @ (a * a), v @ (a * d)
        # The prior, linear about the last proportion, is one more observation.
        error = max(float((w * np.abs(ratio - 1.0))[near].sum()), ROUNDING * float(w[near].sum()))
        last = min(max(shift / scale, low), high)
        row_s = (-1.0 - np.log(TYPICAL_PROPORTION / last)) / (scale * PROPORTION_SPREAD)
        row_t = 1.0 / (last * scale * PROPORTION_SPREAD)
        sum_aa += error / independent * row_s * row_s
        sum_a += error / independent * row_s * row_t
        sum_v += error / independent * row_t * row_t
        determinant = sum_v * sum_aa - sum_a * sum_a
        if determinant > 0:
            scale = (sum_v * sum_ad - sum_a * sum_d) / determinant
            shift = (sum_d - scale * sum_a) / sum_v
        if not (determinant > 0 and scale > 0 and low <= shift / scale <= high):
            # Past a limit the best lies on it: there only k is free.
            limit = low if shift < low * scale else high
            b = a + limit
            scale = float((v @ (b * d)) / (v @ (b * b)))
            shift = scale * limit
    return float(scale), float(shift)


def weighted_median(values: Vector, weight: Vector) -> float:
    """
    Find the value below which half of the weight lies.

    Parameters
    ----------
    values, weight : float64 [n]
        At least one weight above 0.
    """
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order])
    place = int(np.searchsorted(cumulative, 0.5 * cumulative[-1]))
    return float(values[order[min(place, len(order) - 1)]])
