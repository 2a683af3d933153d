"""
Correct metric depth locally: a field over the image of what scale and shift leave at the anchors.

The residuals r = log(anchor / depth) of neighbouring pixels are alike if these lie on the same
surface.  Few anchors are interpolated by a Gaussian process over position, log depth and surface
normal, which also tells how uncertain depth is; many anchors, for which that would take too long,
by a membrane that is stretched over a grid and weak where depth has an edge.  Both find wrong
anchors by their neighbours; the process also by the field of the frame before, if there is one.
Far from anchors nothing is corrected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
import math
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack, solveh_banded
from scipy.ndimage import distance_transform_edt
from scipy.special import erf

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.unproject import unproject_pixels
from marigold_ros.metric.anchors import Anchors, choose_evenly

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage
    from marigold_ros.geometry.poses import Matrix

Vector = NDArray[np.float64]

# Rows and columns of the grid of the correction, and of a coarse one for what varies less.
GRID = (60, 80)
COARSE_GRID = (30, 40)
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
# Solutions of the process, each with the weights that follow from the one before.  With the field
# of the frame before, which takes the place of the first, there is one less; with two less, 30 %
# wrong anchors are found less well in frames where that field is wrong.
SOLUTIONS, STARTED_SOLUTIONS = 4, 3
# Outliers are uniform over this range of log depth; their share starts at the first value, and is
# kept between the others.
OUTLIER_RANGE, OUTLIER_SHARE, OUTLIER_SHARES = 4.6, 0.1, (0.005, 0.4)
# Standard deviation of the inliers' errors, in predicted ones.
INLIER_SIGMAS = 0.7
MIN_WEIGHT = 1e-4
# How uncertain a field is in the frame after, in log depth: as motion brings other surfaces, and
# scale and shift differ, it only tells which anchors are far off.  These begin with a weight that
# lets several that agree, such as those of a new object, still prevail.
PREVIOUS_SIGMA, MIN_START_WEIGHT = 0.3, 0.005

# Weights of the membrane between neighbours in the grid, and of its pull to 0, in anchors.
STIFFNESS, PULL = 0.05, 0.0005
# Difference of log depth at which the membrane has half its stiffness.
EDGE_LOG_DEPTH = 0.1
# Errors, in log depth, at which the weight of a membrane's anchor is a quarter (Geman-McClure), in
# one solution after the other.  Those for the first are to the process, which is smoother.  The
# first is on the coarse grid, which takes a tenth of the time and weighs the anchors as well.
OUTLIER_LOG_ERRORS = (0.6, 0.3, 0.1)

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

    @classmethod
    def without_anchors(cls) -> DepthField:
        """Return the field of a frame without anchors: no correction, and little certainty."""
        rows, columns = GRID
        sigma = math.hypot(PRIOR_SIGMA, ANCHOR_SIGMA)
        return cls(np.ones(GRID, np.float32),
                   np.full((rows // 2, columns // 2), sigma, np.float32), np.empty(0, np.float32))

    def with_sigma(self, sigma_log: float) -> DepthField:
        """Return the field with an uncertainty that all depth has in common."""
        return replace(self, sigma=np.hypot(self.sigma, np.float32(sigma_log)))

    def factor_at(self, rows: NDArray[np.int64], columns: NDArray[np.int64],
                  size: tuple[int, int]) -> NDArray[np.float32]:
        """Return the factor in the cells of pixels [n] of an image of (height, width) px."""
        return self.factor[rows * GRID[0] // size[0], columns * GRID[1] // size[1]]

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
        corrected: FloatImage = np.multiply(depth_m, self.resize_factor(depth_m.shape), out=out,
                                            dtype=np.float32)
        return corrected

    def resize_factor(self, size: tuple[int, int]) -> FloatImage:
        """
        Interpolate the factor between the centres of the grid.

        Parameters
        ----------
        size : (int, int)
            Height and width of the image, px.

        Returns
        -------
        float32 [H, W]
            By which any rows of the image may be multiplied on their own.
        """
        return np.asarray(cv2.resize(self.factor, size[::-1]), np.float32)

    def resize_sigma(self, size: tuple[int, int]) -> FloatImage:
        """Interpolate sigma as `resize_factor` does the factor; float32 [H, W]."""
        return np.asarray(cv2.resize(self.sigma, size[::-1]), np.float32)

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


def fit_field(depth_m: FloatImage, K: Matrix, anchors: Anchors,
              previous: DepthField | None = None) -> DepthField:
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
    previous : DepthField or None
        That of the frame before, if there is one: it tells which anchors may be wrong, so these
        are found sooner and better.  If it contradicts too many of them it is not used.

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
    readings = _compare(depth_m, anchors)
    few = readings.thin(MAX_PROCESS_ANCHORS)
    surfaces = _find_surfaces(depth_m, K, readings)
    features = _features_at(surfaces, few)
    whitening, weight = _solve_robustly(
        features, few, None if previous is None else _weigh_by(previous, few))
    solved = whitening.T @ (whitening @ few.residual.astype(np.float32))
    features = features.astype(np.float32)  # precise enough for the many cells of the grid
    coarse_surfaces = _halve(surfaces)
    coarse = _covariance(coarse_surfaces, features)
    if len(readings.rows) > MAX_SPARSE_ANCHORS:
        correction, weight = _stretch_membrane(surfaces, coarse_surfaces, readings,
                                               (coarse @ solved).reshape(COARSE_GRID))
    else:
        correction = (_covariance(surfaces, features) @ solved).reshape(GRID)
    variance = np.maximum(PRIOR_SIGMA ** 2 - _explain(coarse, whitening), 0.0) + ANCHOR_SIGMA ** 2
    return DepthField(np.exp(correction).astype(np.float32),
                      np.sqrt(variance).astype(np.float32).reshape(COARSE_GRID),
                      weight.astype(np.float32))


@dataclass(frozen=True, eq=False)
class _Readings:
    """
    What anchors say of the depth at their pixels.

    Attributes
    ----------
    size : (int, int)
        Height and width of the image, px.
    rows, columns : int64 [n]
    depth_m : float32 [n]
        Of the image.
    residual, sigma : float64 [n]
        Logarithm of what depth should be multiplied by, and the standard deviation of its error.
    """

    size: tuple[int, int]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    depth_m: NDArray[np.float32]
    residual: Vector
    sigma: Vector

    def thin(self, count: int) -> _Readings:
        """Return so many readings or all, spread evenly over all in the order of the sensor."""
        chosen = choose_evenly(len(self.rows), count)
        return _Readings(self.size, self.rows[chosen], self.columns[chosen],
                         self.depth_m[chosen], self.residual[chosen], self.sigma[chosen])

    def cells(self, grid: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows and columns of their cells in a grid."""
        return self.rows * grid[0] // self.size[0], self.columns * grid[1] // self.size[1]


def _compare(depth_m: FloatImage, anchors: Anchors) -> _Readings:
    """Compare those anchors that are valid and lie on known depth with the image."""
    rows, columns = anchors.rows, anchors.columns
    z = depth_m[rows, columns]
    usable = np.ones(len(z), bool)
    for each in (z, anchors.depth_m):
        usable &= np.isfinite(each) & (each > 0.0)
    if anchors.sigma_log is not None:
        usable &= np.isfinite(anchors.sigma_log)
    if not usable.any():
        raise InputError('the field needs an anchor above 0 m on a pixel of known depth above 0 '
                         f'm; got none of {len(usable)}')
    z = z[usable]
    sigma = np.full(len(z), ANCHOR_SIGMA)
    if anchors.sigma_log is not None:
        sigma = np.hypot(sigma, anchors.sigma_log[usable])
    return _Readings((depth_m.shape[0], depth_m.shape[1]), rows[usable], columns[usable], z,
                     np.log(anchors.depth_m[usable].astype(np.float64) / z), sigma)


def _find_surfaces(depth_m: FloatImage, K: Matrix, readings: _Readings) -> FloatImage:
    """
    Find what of the surfaces in the image decides whether they are corrected alike.

    Where the depth of a centre of the grid is not known, it is that of an anchor in the cell, or
    of the nearest cell: pixels beside it may be known.

    Returns
    -------
    float32 [60, 80, 6]
        Position, log depth and normal, in the units of their correlation lengths.
    """
    rows, columns = (((np.arange(cells) + 0.5) * pixels / cells).astype(np.int64)
                     for cells, pixels in zip(GRID, depth_m.shape))
    z = depth_m[np.ix_(rows, columns)]
    is_unknown = ~(np.isfinite(z) & (z > 0.0))
    if is_unknown.any():
        with_anchor = readings.cells(GRID)
        z[with_anchor] = np.where(is_unknown[with_anchor], readings.depth_m, z[with_anchor])
        is_unknown[with_anchor] = False
        nearest = distance_transform_edt(is_unknown, return_distances=False, return_indices=True)
        z = z[tuple(nearest)]
    features = np.empty((*GRID, 6), np.float32)
    features[..., :3] = _scale_features(rows[:, None], columns, np.log(z), readings.size[1])
    points = unproject_pixels(rows[:, None], columns, z, K).astype(np.float32)
    smooth = cv2.GaussianBlur(points, (NORMAL_WINDOW, NORMAL_WINDOW), 0)
    # Differences of neighbours; how far apart these are does not matter for the direction.
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=1,
                              borderType=cv2.BORDER_REPLICATE) for order in ((1, 0), (0, 1)))
    normal = np.cross(across, down)
    length = np.maximum(np.sqrt(np.sum(normal * normal, axis=-1, keepdims=True)), 1e-12)
    features[..., 3:] = normal / (LENGTH_NORMAL * length)
    return features


def _features_at(surfaces: FloatImage, readings: _Readings) -> Vector:
    """Return the features of pixels, float64 [n, 6]; their normals are those of the cells."""
    features = surfaces[readings.cells(GRID)].astype(np.float64)
    features[:, :3] = _scale_features(readings.rows, readings.columns, np.log(readings.depth_m),
                                      readings.size[1])
    return features


def _halve(features: FloatImage) -> FloatImage:
    """Average features [2 h, 2 w, n] over blocks of two by two cells."""
    return np.asarray((features[::2, ::2] + features[1::2, ::2] + features[::2, 1::2]
                       + features[1::2, 1::2]) / np.float32(4.0))


def _scale_features(rows: NDArray[np.int64], columns: NDArray[np.int64],
                    log_depth: NDArray[np.floating], width: int) -> Vector:
    """Return position and log depth [..., 3] in the units of their correlation lengths."""
    scaled = np.empty((*log_depth.shape, 3))
    scaled[..., 0] = columns / (LENGTH_WIDTHS * width)
    scaled[..., 1] = rows / (LENGTH_WIDTHS * width)
    scaled[..., 2] = log_depth / LENGTH_LOG_DEPTH
    return scaled


def _covariance(features: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Return the covariance [m, n] of the residuals at m features [..., 6] and others [n, 6]."""
    features = features.reshape(-1, features.shape[-1])
    # |a - b|^2 as one product: (a, |a|^2, 1) (-2 b, 1, |b|^2).
    left = np.column_stack([features, np.einsum('ij,ij->i', features, features),
                            np.ones(len(features), features.dtype)])
    right = np.column_stack([-2.0 * others, np.ones(len(others), others.dtype),
                             np.einsum('ij,ij->i', others, others)])
    covariance: NDArray[Any] = left @ right.T
    # Rounding may leave less than 0.  OpenCV's functions take a half or third of NumPy's time.
    np.abs(covariance, out=covariance)
    cv2.sqrt(covariance, dst=covariance)
    np.subtract(2.0 * math.log(PRIOR_SIGMA), covariance, out=covariance)
    cv2.exp(covariance, dst=covariance)
    return covariance


def _whiten(covariance: NDArray[np.float32], noise: Vector) -> NDArray[np.float32]:
    """
    Return the lower triangle W [n, n] for which W^T W is the inverse of covariance and noise.

    Float32 is precise enough: as `noise`, the variance of the anchors' errors, is not below that
    of ANCHOR_SIGMA, the greatest eigenvalue is at most 20 000 times the least.
    """
    matrix = covariance.copy()
    matrix.flat[::len(noise) + 1] += noise
    # LAPACK takes the columns first, as the transpose has them; the matrix is symmetric.
    factor, problem = lapack.spotrf(matrix.T, lower=True, overwrite_a=True)
    if problem:
        raise np.linalg.LinAlgError(f'a covariance must be positive definite; LAPACK: {problem}')
    whitening: NDArray[np.float32] = lapack.strtri(factor, lower=True, overwrite_c=True)[0]
    return whitening


def _explain(covariance: NDArray[np.float32], whitening: NDArray[np.float32]
             ) -> NDArray[np.float32]:
    """
    Return the variance [m] that the anchors explain.

    Parameters
    ----------
    covariance : float32 [m, n]
        With the anchors; it is overwritten.
    whitening : float32 [n, n]
    """
    white = blas.strmm(1.0, whitening, covariance.T, lower=True, overwrite_b=True)
    return np.asarray(np.einsum('ij,ij->j', white, white))


def _weigh_by(previous: DepthField, readings: _Readings) -> Vector | None:
    """
    Return what an earlier field says of anchors [n], as the weights to begin with.

    None if it contradicts more anchors than may be wrong: then it is the field that is wrong.
    """
    correction = _sample(np.log(previous.factor), readings)
    sigma = np.hypot(_sample(previous.sigma, readings), PREVIOUS_SIGMA)
    weight = _find_inliers(readings.residual - correction,
                           sigma ** 2 + readings.sigma ** 2, OUTLIER_SHARE)
    if 1.0 - weight.mean() > OUTLIER_SHARES[1]:
        return None
    return np.maximum(weight, MIN_START_WEIGHT)


def _sample(image: FloatImage, readings: _Readings) -> FloatImage:
    """Interpolate what is known at the centres of a grid at the pixels of anchors [n]."""
    rows, columns = (((index + 0.5) * cells / pixels - 0.5).astype(np.float32)
                     for index, cells, pixels in zip((readings.rows, readings.columns),
                                                     image.shape, readings.size))
    return np.asarray(cv2.remap(image, columns, rows, cv2.INTER_LINEAR,
                                borderMode=cv2.BORDER_REPLICATE), np.float32).ravel()


def _find_inliers(error: Vector, variance: Vector, outlier_share: float) -> Vector:
    """Return the probability [n] that an error is of Laplace's distribution, and not uniform."""
    spread = INLIER_SIGMAS * np.sqrt(variance / 2.0)
    inlier = (1.0 - outlier_share) * np.exp(-np.abs(error) / spread) / (2.0 * spread)
    return np.asarray(np.maximum(inlier / (inlier + outlier_share / OUTLIER_RANGE), MIN_WEIGHT))


def _solve_robustly(features: Vector, readings: _Readings, start: Vector | None
                    ) -> tuple[NDArray[np.float32], Vector]:
    """
    Find which anchors are contradicted by the others.

    Each anchor is predicted from all others (leave-one-out; Rasmussen and Williams, Gaussian
    Processes for Machine Learning, equations 5.10 to 5.12).  Its weight is the probability that
    its error is that of an inlier.

    Parameters
    ----------
    features : float64 [n, 6]
    readings : _Readings
    start : float64 [n] or None
        Weights to begin with; None: all are right.

    Returns
    -------
    whitening : float32 [n, n]
        Its square is the inverse of the covariance of the anchors with their errors.
    weight : float64 [n]
    """
    covariance = _covariance(features, features).astype(np.float32)
    residual, variance = readings.residual.astype(np.float32), readings.sigma ** 2
    weight, share, solutions = np.ones(len(residual)), OUTLIER_SHARE, SOLUTIONS
    if start is not None:
        weight, share, solutions = start, _limit_share(start), STARTED_SOLUTIONS
    for _ in range(solutions):
        noise = variance / weight
        whitening = _whiten(covariance, noise)
        precision = np.einsum('ij,ij->j', whitening, whitening).astype(np.float64)
        error = (whitening.T @ (whitening @ residual)) / precision
        weight = _find_inliers(error, 1.0 / precision - noise + variance, share)
        share = _limit_share(weight)
    return whitening, weight


def _limit_share(weight: Vector) -> float:
    """Return the share of outliers by the weights [n]."""
    return float(np.clip(1.0 - weight.mean(), *OUTLIER_SHARES))


def _stretch_membrane(surfaces: FloatImage, coarse_surfaces: FloatImage, readings: _Readings,
                      correction: FloatImage) -> tuple[Vector, Vector]:
    """
    Interpolate many anchors by reweighted least squares.

    Parameters
    ----------
    surfaces : float32 [60, 80, 6]
    coarse_surfaces : float32 [30, 40, 6]
    readings : _Readings
    correction : float32 [30, 40]
        To begin with; it tells which anchors are wrong.

    Returns
    -------
    correction : float64 [60, 80]
    weight : float64 [n]
        Of the anchors.
    """
    precision = (ANCHOR_SIGMA / readings.sigma) ** 2
    coarse, fine = _make_membrane(coarse_surfaces), _make_membrane(surfaces)
    predicted = correction[readings.cells(COARSE_GRID)]
    for membrane, outlier in zip((coarse, fine, fine), OUTLIER_LOG_ERRORS):
        weight = precision / (1.0 + ((readings.residual - predicted) / outlier) ** 2) ** 2
        _, width, height = membrane.shape
        rows, columns = readings.cells((height, width))
        number = columns * height + rows
        band = membrane.reshape(height + 1, -1).copy()
        band[0] += np.bincount(number, weight, band.shape[1])
        found = solveh_banded(
            band, np.bincount(number, weight * readings.residual, band.shape[1]), lower=True,
            overwrite_ab=True, overwrite_b=True, check_finite=False)
        predicted = found[number]
    return found.reshape(width, height).T, weight / precision


def _make_membrane(surfaces: FloatImage) -> Vector:
    """
    Return the matrix of the membrane without anchors over surfaces [h, w, 6].

    Cells are numbered down the columns, which are shorter.  It is a band [h + 1, w, h] the row i
    of which holds the entries i below the diagonal.
    """
    height, width, _ = surfaces.shape
    log_depth = surfaces[..., 2].astype(np.float64) * LENGTH_LOG_DEPTH
    down, across = (STIFFNESS / (1.0 + np.abs(np.diff(log_depth, axis=axis)) / EDGE_LOG_DEPTH)
                    for axis in (0, 1))
    band = np.zeros((height + 1, width, height))
    band[0] = PULL
    band[0, :, :-1] += down.T
    band[0, :, 1:] += down.T
    band[0, :-1] += across.T
    band[0, 1:] += across.T
    band[1, :, :-1] = -down.T
    band[height, :-1] = -across.T
    return band
