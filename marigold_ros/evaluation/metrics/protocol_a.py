"""
Protocol A, as prs-eth/Marigold: least-squares scale and shift, and nine depth metrics.

Formulas: prs-eth/Marigold `script/depth/eval.py`, `src/util/alignment.py` and `src/util/metric.py`
(b1dffaa).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

Alignment = Literal['least_square', 'least_square_disparity']
MIN_DISPARITY = 1e-3
MIN_PREDICTION_M = 1e-6
# Below this ratio of standard deviation to mean, a map is flat: scale and shift are not unique.
FLAT_SPREAD = 1e-9
# Pixels whose errors are computed at once.
BLOCK = 2 ** 14


def depth_metrics(
    prediction: NDArray[Any],
    target_m: NDArray[Any],
    valid: NDArray[np.bool_],
    *,
    alignment: Alignment | None,
    min_depth_m: float,
    max_depth_m: float,
) -> dict[str, float]:
    """
    Compute the depth metrics of one prediction against its ground truth.

    Parameters
    ----------
    prediction : float [H, W]
        Relative depth ('least_square'), relative disparity ('least_square_disparity'), or metric
        depth, m (None).
    target_m : float [H, W]
        True depth along Z, m.
    valid : bool [H, W]
        Pixels with a measured truth; pixels outside (min_depth_m, max_depth_m) are also ignored.
    alignment : {'least_square', 'least_square_disparity'} or None
        Fit scale and shift over the compared pixels in depth, in 1/depth, or not at all.
    min_depth_m, max_depth_m : float
        Depth range of the data set; the aligned prediction is clipped to it.

    Returns
    -------
    dict of str to float
        abs_rel, sq_rel (m), rmse (m), rmse_log, log10, silog (x 100), delta1, delta2, delta3
        (shares of pixels whose ratio to the truth is below 1.25, 1.25^2, 1.25^3).

    Raises
    ------
    InputError
        If shapes differ, no pixel can be compared or fitted, or a compared pixel is not finite.

    Examples
    --------
    Relative depth is compared after a fit of scale and shift; without one, an error of the scale
    counts:

    >>> import numpy as np
    >>> target_m = np.array([[1.0, 2.0], [3.0, 5.0]])
    >>> valid = np.ones((2, 2), bool)
    >>> fitted = depth_metrics((target_m - 1.0) / 4.0, target_m, valid, alignment='least_square',
    ...                        min_depth_m=0.1, max_depth_m=10.0)
    >>> round(fitted['abs_rel'], 3), fitted['delta1']
    (0.0, 1.0)
    >>> metric = depth_metrics(1.1 * target_m, target_m, valid, alignment=None,
    ...                        min_depth_m=0.1, max_depth_m=10.0)
    >>> round(metric['abs_rel'], 3)
    0.1
    """
    if not prediction.shape == target_m.shape == valid.shape:
        raise InputError(
            '`prediction`, `target_m` and `valid` must have one shape; '
            f'got {prediction.shape}, {target_m.shape} and {valid.shape}')
    if valid.dtype != np.bool_:
        raise InputError(f'`valid` must be bool; got {valid.dtype}')
    if np.isnan(target_m[valid]).any():
        raise InputError('`target_m` must not be NaN where `valid` is true')
    compared: NDArray[np.bool_] = valid & (target_m > min_depth_m) & (target_m < max_depth_m)
    if not compared.any():
        raise InputError(
            f'`target_m` must have a valid pixel between {min_depth_m} and {max_depth_m} m; '
            'got none')
    if not np.isfinite(prediction[compared]).all():
        raise InputError('`prediction` must be finite wherever the truth is valid')
    depth_m, _, _ = align(prediction, target_m, compared, alignment=alignment,
                          min_depth_m=min_depth_m, max_depth_m=max_depth_m)
    return error_metrics(depth_m[compared], target_m[compared])


def align(
    prediction: NDArray[Any],
    target_m: NDArray[Any],
    fitted: NDArray[np.bool_],
    *,
    alignment: Alignment | None,
    min_depth_m: float,
    max_depth_m: float,
    fit: tuple[float, float] | None = None,
) -> tuple[NDArray[np.float64], float, float]:
    """
    Align a prediction with the truth: fit scale and shift, apply them to all pixels, and clip.

    Parameters
    ----------
    prediction, target_m : float [H, W]
        See `depth_metrics`.
    fitted : bool [H, W]
        Pixels used for the fit; both maps must be finite there and the truth above 0 m.  As in
        the published code, pixels with a disparity of 0 or less are excluded from the fit.
    alignment : {'least_square', 'least_square_disparity'} or None
        See `depth_metrics`.
    min_depth_m, max_depth_m : float
        Range to which the result is clipped.
    fit : (float, float) or None
        Scale and shift of another frame, applied as they are; None fits them to this frame.

    Returns
    -------
    depth_m : float64 [H, W]
        Aligned depth of all pixels, m; NaN where the prediction is NaN.
    scale, shift : float
        In depth or in disparity; 1 and 0 without alignment.

    Raises
    ------
    InputError
        If the alignment is unknown, or there is no pixel to fit.

    Examples
    --------
    >>> import numpy as np
    >>> relative = np.array([[0.0, 0.25, 1.0]])
    >>> target_m = np.array([[1.0, 2.0, 5.0]])
    >>> depth_m, scale, shift = align(relative, target_m, np.ones((1, 3), bool),
    ...                               alignment='least_square', min_depth_m=0.1, max_depth_m=10.0)
    >>> depth_m.round(3).tolist(), round(scale, 3), round(shift, 3)
    ([[1.0, 2.0, 5.0]], 4.0, 1.0)
    """
    if alignment not in ('least_square', 'least_square_disparity', None):
        raise InputError('`alignment` must be least_square, least_square_disparity or None; '
                         f'got {alignment!r}')
    in_disparity = alignment == 'least_square_disparity'
    values = prediction.astype(np.float64, copy=False)
    scale, shift = fit or (1.0, 0.0)
    if alignment is not None and fit is None:
        if in_disparity:
            fitted = fitted & (values > 0)
        if not fitted.any():
            raise InputError('`prediction` must have a pixel to fit'
                             f'{", above 0" if in_disparity else ""}; got none')
        targets_m = target_m[fitted].astype(np.float64)
        scale, shift = fit_least_squares(values[fitted],
                                         1.0 / targets_m if in_disparity else targets_m)
    depth_m: NDArray[np.float64] = scale * values
    depth_m += shift
    if in_disparity:
        depth_m = 1.0 / depth_m.clip(min=MIN_DISPARITY)
    return (depth_m.clip(max(min_depth_m, MIN_PREDICTION_M), max_depth_m, out=depth_m), scale,
            shift)


def fit_least_squares(values: NDArray[Any], targets: NDArray[Any]) -> tuple[float, float]:
    """
    Fit scale and shift by least squares: scale * values + shift = targets.

    Parameters
    ----------
    values, targets : float [n]

    Returns
    -------
    scale, shift : float
        For flat values, the solution of least norm.
    """
    values = values.astype(np.float64, copy=False)
    targets = targets.astype(np.float64, copy=False)
    mean = values.mean()
    deviation = values - mean
    square = deviation @ deviation
    if np.sqrt(square / len(values)) <= FLAT_SPREAD * abs(mean):
        columns = np.stack([values, np.ones_like(values)], axis=1)
        scale, shift = np.linalg.lstsq(columns, targets, rcond=None)[0]
        return float(scale), float(shift)
    # For centred values the normal equations are as exact as lstsq and five times as fast.
    scale = deviation @ targets / square
    return float(scale), float(targets.mean() - scale * mean)


def error_metrics(depths_m: NDArray[Any], targets_m: NDArray[Any]) -> dict[str, float]:
    """
    Compute the metrics of `depth_metrics` from aligned pixels.

    Parameters
    ----------
    depths_m, targets_m : float [n]
        Aligned and true depth, m, above 0; at least one pixel.
    """
    count = len(depths_m)
    # In blocks that fit into the processor's cache, which is twice as fast.
    (abs_error, square_by_m, square_m, log_error, abs_log, log_square, *below) = np.sum([
        _sum_errors(depths_m[begin:begin + BLOCK], targets_m[begin:begin + BLOCK])
        for begin in range(0, count, BLOCK)], axis=0) / count
    return {name: float(value) for name, value in {
        'abs_rel': abs_error,
        'sq_rel': square_by_m,
        'rmse': np.sqrt(square_m),
        'rmse_log': np.sqrt(log_square),
        'log10': abs_log / np.log(10),
        # Rounding errors can make the variance of a perfect fit negative.
        'silog': 100 * np.sqrt(max(log_square - log_error ** 2, 0.0)),
        **{f'delta{power}': share for power, share in enumerate(below, 1)}}.items()}


def _sum_errors(depths_m: NDArray[Any], targets_m: NDArray[Any]) -> tuple[float, ...]:
    """Sum up the errors of pixels [n], in the order in which `error_metrics` uses them."""
    targets_m = targets_m.astype(np.float64)
    ratio = depths_m / targets_m
    error, log_error = ratio - 1.0, np.log(ratio)  # the first relative to the truth
    error_m, log_distance = error * targets_m, np.abs(log_error)
    return (np.abs(error).sum(), error @ error_m, error_m @ error_m, log_error.sum(),
            log_distance.sum(), log_error @ log_error,
            *(np.count_nonzero(log_distance < power * np.log(1.25)) for power in (1, 2, 3)))


def relative_error(depth_m: NDArray[Any], target_m: NDArray[Any]) -> NDArray[np.float32]:
    """
    Return the signed relative error of each pixel, positive if too far.

    Parameters
    ----------
    depth_m, target_m : float [H, W]
        Metric or aligned depth, and the truth, m.

    Returns
    -------
    float32 [H, W]
        NaN where depth or truth is unknown, or the truth is sky.
    """
    with np.errstate(invalid='ignore'):
        error = depth_m / target_m - 1
    return np.where(np.isfinite(depth_m) & np.isfinite(target_m), error,
                    np.nan).astype(np.float32)


def vertical_ramp(height: int, width: int) -> NDArray[np.float64]:
    """
    Return the baseline prediction that depends on the image row only.

    Returns
    -------
    float64 [H, W]
        Relative depth: 1 in the top row, 0 in the bottom row, linear in between.
    """
    column = np.linspace(1.0, 0.0, height)[:, None]
    return np.repeat(column, width, axis=1)
