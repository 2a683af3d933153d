"""
Correct metric depth locally: a field over the image of what scale and shift leave at the anchors.

The residuals r = log(anchor / depth) of neighbouring pixels are alike if these lie on the same
surface.  Few anchors are interpolated by a Gaussian process over position, log depth and surface
normal, which also tells how uncertain depth is; many anchors, for which that would take too long,
by a membrane that is stretched over a grid and weak where depth has an edge.  Both find wrong
anchors by their neighbours.  Far from anchors nothing is corrected.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, solveh_banded
from scipy.ndimage import distance_transform_edt
from scipy.special import erf

from marigold_ros.depth.errors import InputError

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage
    from marigold_ros.geometry.poses import Matrix
    from marigold_ros.metric.anchors import Anchors

Vector = NDArray[np.float64]

# Rows and columns of the grid on which the correction is computed.
GRID = (60, 80)
# Up to so many anchors a Gaussian process is more accurate than the membrane, even if it gets only
# MAX_PROCESS_ANCHORS of them.
MAX_SPARSE_ANCHORS, MAX_PROCESS_ANCHORS = 400, 256

# Standard deviation of the residuals of a frame, and of what an anchor says of its surroundings.
PRIOR_SIGMA, ANCHOR_SIGMA = 0.25, 0.03
# Distances at which the correlation of two residuals falls to 1 / e: along the image, in widths of
# it; between log depths; between unit normals, so that a wall says little of the floor before it.
LENGTH_WIDTHS, LENGTH_LOG_DEPTH, LENGTH_NORMAL = 200 / 640, 0.67, 1.4
# Cells over which points are smoothed before their normals are computed, as predicted depth is
# rough.
NORMAL_WINDOW = 15
# Solutions of the process, each with the weights that follow from the one before.
SOLUTIONS = 4
# Outliers are uniform over this range of log depth; their share starts at the first value, and is
# kept between the others.
OUTLIER_RANGE, OUTLIER_SHARE, OUTLIER_SHARES = 4.6, 0.1, (0.005, 0.4)
# Standard deviation of the inliers' errors, in predicted ones.
INLIER_SIGMAS = 0.7
MIN_WEIGHT = 1e-4

# Weights of the membrane between neighbours in the grid, and of its pull to 0, in anchors.
STIFFNESS, PULL = 0.05, 0.0005
# Difference of log depth at which the membrane has half its stiffness.
EDGE_LOG_DEPTH = 0.1
# Errors, in log depth, at which the weight of a membrane's anchor is a quarter (Geman-McClure), in
# one solution after the other.  Those for the first are to the process, which is smoother.
OUTLIER_LOG_ERRORS = (0.5, 0.3, 0.1)

# Depth is right within this factor, as in the metric delta1.
RIGHT_FACTOR = 1.25


@dataclass(frozen=True, eq=False)
class DepthField:
    """
    Local correction of the metric depth of one frame.

    Attributes
    ----------
    factor : float32 [60, 80]
        What depth is multiplied by, at the centres of the cells of a grid over the image.
    sigma : float32 [30, 40]
        Standard deviation of the logarithm of corrected depth, on a grid as well.
    weight : float32 [n]
        Of the anchors that were used, in (0, 1]; small for those that their neighbours contradict.
    """

    factor: FloatImage
    sigma: FloatImage
    weight: NDArray[np.float32]

    def correct(self, depth_m: FloatImage, out: FloatImage | None = None) -> FloatImage:
        """
        Correct metric depth.

        Parameters
        ----------
        depth_m : float32 [H, W]
            Along Z, m; NaN stays NaN.
        out : float32 [H, W] or None
            Output array, which may be `depth_m`; None: a new one.

        Returns
        -------
        float32 [H, W]
            Along Z, m.
        """
        corrected: FloatImage = np.multiply(
            depth_m, cv2.resize(self.factor, depth_m.shape[::-1]), out=out, dtype=np.float32)
        return corrected

    def confidence(self, size: tuple[int, int]) -> FloatImage:
        """
        Compute the probability that depth is right within a factor of 1.25.

        Parameters
        ----------
        size : (int, int)
            Height and width of the image, px.

        Returns
        -------
        float32 [H, W]
            In [0, 1], for a normally distributed logarithm.
        """
        probability = erf(math.log(RIGHT_FACTOR) / (math.sqrt(2.0) * self.sigma))
        return np.asarray(cv2.resize(probability.astype(np.float32), size[::-1]), np.float32)


def fit_field(depth_m: FloatImage, K: Matrix, anchors: Anchors) -> DepthField:
    """
    Fit the local correction of a frame to its anchors.

    Parameters
    ----------
    depth_m : float32 [H, W]
        Depth along Z by scale and shift, m; NaN unknown.
    K : float64 [3, 3]
        Intrinsics of the image, px.
    anchors : Anchors
        Those that are not finite and above 0 m are ignored.  A fifth to a third of the others may
        be wrong, by their number, if they err in both directions.

    Returns
    -------
    DepthField

    Raises
    ------
    InputError
        If no anchor lies on a pixel of known depth above 0 m.

    Examples
    --------
    A wall 2 m ahead, the right half of which was taken to be at 1.8 m:

    >>> from marigold_ros.metric.anchors import Anchors
    >>> K = np.array([[100.0, 0.0, 79.5], [0.0, 100.0, 59.5], [0.0, 0.0, 1.0]])
    >>> depth_m = np.where(np.arange(160) < 80, 2.0, 1.8).astype(np.float32)[None].repeat(120, 0)
    >>> rows, columns = (each.ravel() for each in np.mgrid[5:120:10, 5:160:10])
    >>> field = fit_field(depth_m, K, Anchors(rows, columns, np.full(192, 2.0, np.float32)))
    >>> [round(float(field.correct(depth_m)[60, column]), 2) for column in (30, 130)]
    [2.0, 2.0]
    """
    used = _find_usable(depth_m, anchors)
    rows, columns = anchors.rows[used], anchors.columns[used]
    z = depth_m[rows, columns]
    residual = np.log(anchors.depth_m[used].astype(np.float64) / z)
    sigma = np.full(len(used), ANCHOR_SIGMA)
    if anchors.sigma_log is not None:
        sigma = np.hypot(sigma, anchors.sigma_log[used])
    surfaces = _find_surfaces(depth_m, K, rows, columns)
    # Spread evenly over all, which are in the order of the sensor.
    few = np.linspace(0, len(used) - 1, min(len(used), MAX_PROCESS_ANCHORS)).astype(np.int64)
    features = surfaces.features_at(rows[few], columns[few], z[few])
    inverse, weight = _solve_robustly(features, residual[few], sigma[few])
    features = features.astype(np.float32)  # precise enough for the many cells of the grid
    correction = _covariance(surfaces.features, features) @ (
        inverse @ residual[few]).astype(np.float32)
    if len(used) > MAX_SPARSE_ANCHORS:
        correction, weight = _stretch_membrane(
            surfaces.log_depth, _cells_at(rows, columns, depth_m.shape), residual,
            (ANCHOR_SIGMA / sigma) ** 2, correction)
    coarse = _covariance(_halve(surfaces.features), features)
    explained = np.sum((coarse @ inverse.astype(np.float32)) * coarse, axis=-1)
    variance = np.maximum(PRIOR_SIGMA ** 2 - explained, 0.0) + ANCHOR_SIGMA ** 2
    return DepthField(np.exp(correction).astype(np.float32), np.sqrt(variance).astype(np.float32),
                      weight.astype(np.float32))


def _find_usable(depth_m: FloatImage, anchors: Anchors) -> NDArray[np.int64]:
    """Return the indices of the anchors that are valid and lie on known depth."""
    usable = np.ones(len(anchors.depth_m), bool)
    for each in (depth_m[anchors.rows, anchors.columns], anchors.depth_m):
        usable &= np.isfinite(each) & (each > 0.0)
    if anchors.sigma_log is not None:
        usable &= np.isfinite(anchors.sigma_log)
    if not usable.any():
        raise InputError('the field needs an anchor above 0 m on a pixel of known depth above 0 '
                         f'm; got none of {len(usable)}')
    return np.flatnonzero(usable)


@dataclass(frozen=True, eq=False)
class _Surfaces:
    """
    What of the surfaces in an image decides whether they are corrected alike.

    Attributes
    ----------
    size : (int, int)
        Height and width of the image, px.
    log_depth : float64 [60, 80]
        Of the centres of the grid's cells.
    features : float32 [60, 80, 6]
        Position, log depth and normal, in the units of their correlation lengths.
    """

    size: tuple[int, int]
    log_depth: Vector
    features: FloatImage

    def features_at(self, rows: NDArray[np.int64], columns: NDArray[np.int64],
                    depth_m: NDArray[np.float32]) -> Vector:
        """Return the features of pixels, float64 [n, 6]; their normals are those of the cells."""
        features = self.features[_cells_at(rows, columns, self.size)].astype(np.float64)
        features[:, :3] = _scale_features(rows, columns, np.log(depth_m), self.size[1])
        return features


def _cells_at(rows: NDArray[np.int64], columns: NDArray[np.int64], size: tuple[int, int]
              ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row and column in the grid of pixels [n] of an image of (height, width) px."""
    return rows * GRID[0] // size[0], columns * GRID[1] // size[1]


def _find_surfaces(depth_m: FloatImage, K: Matrix, anchor_rows: NDArray[np.int64],
                   anchor_columns: NDArray[np.int64]) -> _Surfaces:
    """
    Sample depth and normals at the centres of the grid.

    Where the depth of a centre is not known, it is that of an anchor in the cell, or of the
    nearest cell: pixels beside it may be known.
    """
    height, width = depth_m.shape
    rows, columns = (((np.arange(cells) + 0.5) * pixels / cells).astype(np.int64)
                     for cells, pixels in zip(GRID, depth_m.shape))
    z = depth_m[np.ix_(rows, columns)]
    with_anchor = _cells_at(anchor_rows, anchor_columns, depth_m.shape)
    is_unknown = ~(np.isfinite(z) & (z > 0.0))
    z[with_anchor] = np.where(is_unknown[with_anchor], depth_m[anchor_rows, anchor_columns],
                              z[with_anchor])
    is_unknown[with_anchor] = False
    nearest = distance_transform_edt(is_unknown, return_distances=False, return_indices=True)
    z = z[tuple(nearest)]
    rows, columns = np.meshgrid(rows, columns, indexing='ij')
    points = np.stack([(columns - K[0, 2]) / K[0, 0] * z, (rows - K[1, 2]) / K[1, 1] * z, z],
                      axis=-1)
    smooth = cv2.GaussianBlur(points.astype(np.float32), (NORMAL_WINDOW, NORMAL_WINDOW), 0)
    (ax, ay, az), (bx, by, bz) = (np.moveaxis(np.gradient(smooth, axis=axis), -1, 0)
                                  for axis in (1, 0))
    normal = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)
    normal /= np.maximum(np.sqrt(np.sum(normal * normal, axis=-1, keepdims=True)), 1e-12)
    features = np.concatenate([_scale_features(rows, columns, np.log(z), width),
                               normal / LENGTH_NORMAL], axis=-1)
    return _Surfaces((height, width), np.log(z.astype(np.float64)),
                     features.astype(np.float32))


def _halve(features: FloatImage) -> FloatImage:
    """Average features [2 h, 2 w, n] over blocks of two by two cells."""
    height, width, count = features.shape
    blocks = features.reshape(height // 2, 2, width // 2, 2, count)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _scale_features(rows: NDArray[np.int64], columns: NDArray[np.int64],
                    log_depth: NDArray[np.floating], width: int) -> Vector:
    """Return position and log depth [..., 3] in the units of their correlation lengths."""
    return np.stack([columns / (LENGTH_WIDTHS * width), rows / (LENGTH_WIDTHS * width),
                     log_depth / LENGTH_LOG_DEPTH], axis=-1)


def _covariance(features: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Return the covariance [..., n] of the residuals at features [..., 6] and [n, 6]."""
    covariance: NDArray[Any] = features @ others.T
    covariance *= -2.0
    covariance += np.sum(features * features, axis=-1)[..., None]
    covariance += np.sum(others * others, axis=-1)
    np.maximum(covariance, 0.0, out=covariance)
    np.sqrt(covariance, out=covariance)
    np.negative(covariance, out=covariance)
    np.exp(covariance, out=covariance)
    covariance *= PRIOR_SIGMA ** 2
    return covariance


def _invert(covariance: Vector, noise: Vector) -> Vector:
    """Return the inverse [n, n] of the covariance of anchors and the variance of their errors."""
    matrix = covariance + np.diag(noise)
    factor, problem = lapack.dpotrf(matrix, lower=True, overwrite_a=True)
    if problem:
        raise np.linalg.LinAlgError(f'a covariance must be positive definite; LAPACK: {problem}')
    inverse, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
    # LAPACK leaves the entries above the diagonal at 0.
    full: Vector = inverse + inverse.T
    np.fill_diagonal(full, np.diag(inverse))
    return full


def _solve_robustly(features: Vector, residual: Vector, sigma: Vector) -> tuple[Vector, Vector]:
    """
    Find which anchors are contradicted by the others.

    Each anchor is predicted from all others (leave-one-out; Rasmussen and Williams, Gaussian
    Processes for Machine Learning, equations 5.10 to 5.12).  Its weight is the probability that
    its error is that of an inlier, by Laplace's distribution, and not uniform.

    Parameters
    ----------
    features : float64 [n, 6]
    residual, sigma : float64 [n]
        What the anchors say, and the standard deviation of its error.

    Returns
    -------
    inverse : float64 [n, n]
        Of the covariance of the anchors with their errors.
    weight : float64 [n]
    """
    covariance = _covariance(features, features)
    weight, share = np.ones(len(residual)), OUTLIER_SHARE
    for _ in range(SOLUTIONS):
        inverse = _invert(covariance, sigma ** 2 / weight)
        precision = np.diag(inverse)
        error = (inverse @ residual) / precision
        variance = 1.0 / precision - sigma ** 2 / weight + sigma ** 2
        spread = INLIER_SIGMAS * np.sqrt(variance / 2.0)
        inlier = (1.0 - share) * np.exp(-np.abs(error) / spread) / (2.0 * spread)
        weight = np.maximum(inlier / (inlier + share / OUTLIER_RANGE), MIN_WEIGHT)
        share = float(np.clip(1.0 - weight.mean(), *OUTLIER_SHARES))
    return inverse, weight


def _stretch_membrane(log_depth: Vector, cells: tuple[NDArray[np.int64], NDArray[np.int64]],
                      residual: Vector, precision: Vector, correction: Vector
                      ) -> tuple[Vector, Vector]:
    """
    Interpolate many anchors by reweighted least squares.

    Parameters
    ----------
    log_depth : float64 [60, 80]
    cells : (int64 [n], int64 [n])
        Row and column in the grid of each anchor.
    residual, precision : float64 [n]
        What the anchors say, and its weight before it is compared with the neighbours'.
    correction : float64 [60, 80]
        To begin with; it tells which anchors are wrong.

    Returns
    -------
    correction : float64 [60, 80]
    weight : float64 [n]
        Of the anchors.
    """
    down, across = (STIFFNESS / (1.0 + np.abs(np.diff(log_depth, axis=axis)) / EDGE_LOG_DEPTH)
                    for axis in (0, 1))
    height, width = log_depth.shape
    # Cells are numbered down the columns, which are shorter.  Row i of a band matrix holds the
    # entries i below the diagonal.
    band = np.zeros((height + 1, width, height))
    band[0] = PULL
    band[0, :, :-1] += down.T
    band[0, :, 1:] += down.T
    band[0, :-1] += across.T
    band[0, 1:] += across.T
    band[1, :, :-1] = -down.T
    band[height, :-1] = -across.T
    band = band.reshape(height + 1, -1)
    number = cells[1] * height + cells[0]
    for outlier in OUTLIER_LOG_ERRORS:
        error = residual - correction[cells]
        weight = precision / (1.0 + (error / outlier) ** 2) ** 2
        matrix = band.copy()
        matrix[0] += np.bincount(number, weight, matrix.shape[1])
        found = solveh_banded(matrix, np.bincount(number, weight * residual, matrix.shape[1]),
                              lower=True, overwrite_ab=True, overwrite_b=True,
                              check_finite=False)
        correction = found.reshape(width, height).T
    return correction, weight / precision
