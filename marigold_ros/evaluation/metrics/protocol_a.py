"""
Protocol A, that of prs-eth/Marigold: scale and shift by least squares, and the nine depth metrics.

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
# Values that spread less than this part of their mean are flat: one number does not fit two.
FLAT = 1e-9


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
    Compare one predicted map with its ground truth.

    Parameters
    ----------
    prediction : float [H, W]
        Affine-invariant depth ('least_square'), affine-invariant disparity
        ('least_square_disparity'), or depth in metres (None).
    target_m : float [H, W]
        True depth along Z, m.
    valid : bool [H, W]
        Where the truth was measured; pixels outside (min_depth_m, max_depth_m) are left out too.
    alignment : {'least_square', 'least_square_disparity'} or None
        Scale and shift are fitted over the compared pixels in depth, in 1/depth, or not at all.
    min_depth_m, max_depth_m : float
        Range of the data set; the aligned prediction is clipped to it.

    Returns
    -------
    dict of str to float
        abs_rel, sq_rel (m), rmse (m), rmse_log, log10, silog (x 100), delta1, delta2, delta3
        (shares of pixels within 1.25, 1.25^2, 1.25^3).

    Raises
    ------
    InputError
        Shapes differ, no pixel can be compared or fitted, or a compared pixel is not finite.
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
    Bring a predicted map into metres: fit scale and shift, apply them to all pixels, and clip.

    Parameters
    ----------
    prediction, target_m : float [H, W]
        See `depth_metrics`.
    fitted : bool [H, W]
        Pixels to which scale and shift are fitted, finite in both maps and above 0 m.  As
        published, a disparity that is not above 0 does not take part in its fit.
    alignment : {'least_square', 'least_square_disparity'} or None
        See `depth_metrics`.
    min_depth_m, max_depth_m : float
        Range to which the result is clipped.
    fit : (float, float) or None
        Scale and shift of another frame; None fits them to this one.

    Returns
    -------
    depth_m : float64 [H, W]
        Also of the pixels that the fit did not see; NaN where the prediction is NaN.
    scale, shift : float
        In depth or in disparity; 1 and 0 without alignment.

    Raises
    ------
    InputError
        If the alignment is unknown, or there is no pixel to fit.
    """
    if alignment not in ('least_square', 'least_square_disparity', None):
        raise InputError('`alignment` must be least_square, least_square_disparity or None; '
                         f'got {alignment!r}')
    in_disparity = alignment == 'least_square_disparity'
    values = prediction.astype(np.float64)
    scale, shift = fit or (1.0, 0.0)
    if alignment is not None and fit is None:
        if in_disparity:
            fitted = fitted & (values > 0)
        if not fitted.any():
            raise InputError('`prediction` must have a pixel to fit'
                             f'{", above 0" if in_disparity else ""}; got none')
        target_px = target_m[fitted].astype(np.float64)
        scale, shift = fit_least_squares(values[fitted],
                                         1.0 / target_px if in_disparity else target_px)
    depth_m: NDArray[np.float64] = scale * values + shift
    if in_disparity:
        depth_m = 1.0 / depth_m.clip(min=MIN_DISPARITY)
    return depth_m.clip(max(min_depth_m, MIN_PREDICTION_M), max_depth_m), scale, shift


def fit_least_squares(values_px: NDArray[Any], target_px: NDArray[Any]) -> tuple[float, float]:
    """
    Find the scale and shift that bring values nearest to a target.

    Parameters
    ----------
    values_px, target_px : float [n]

    Returns
    -------
    scale, shift : float
        With the least squared error; of flat values the pair of least norm that has it.
    """
    values_px, target_px = values_px.astype(np.float64), target_px.astype(np.float64)
    mean, spread = values_px.mean(), values_px.std()
    if spread <= FLAT * abs(mean):
        columns = np.stack([values_px, np.ones_like(values_px)], axis=1)
        scale, shift = np.linalg.lstsq(columns, target_px, rcond=None)[0]
        return float(scale), float(shift)
    # The normal equations of centred values are as exact, and five times as fast.
    deviation = values_px - mean
    scale = deviation @ target_px / (deviation @ deviation)
    return float(scale), float(target_px.mean() - scale * mean)


def error_metrics(depth_px: NDArray[Any], target_px: NDArray[Any]) -> dict[str, float]:
    """
    Compute every metric of `depth_metrics` from pixels that are aligned already.

    Parameters
    ----------
    depth_px, target_px : float [n]
        Above 0, m; at least one.
    """
    depth_px, target_px = depth_px.astype(np.float64), target_px.astype(np.float64)
    difference = depth_px - target_px
    log_difference = np.log(depth_px) - np.log(target_px)
    ratio = np.maximum(depth_px / target_px, target_px / depth_px)
    log_variance = np.mean(log_difference ** 2) - np.mean(log_difference) ** 2
    values = {
        'abs_rel': np.mean(np.abs(difference) / target_px),
        'sq_rel': np.mean(difference ** 2 / target_px),
        'rmse': np.sqrt(np.mean(difference ** 2)),
        'rmse_log': np.sqrt(np.mean(log_difference ** 2)),
        'log10': np.mean(np.abs(log_difference)) / np.log(10),
        # Rounding may leave the variance of a perfect fit just below zero.
        'silog': 100 * np.sqrt(max(log_variance, 0.0)),
        'delta1': np.mean(ratio < 1.25),
        'delta2': np.mean(ratio < 1.25 ** 2),
        'delta3': np.mean(ratio < 1.25 ** 3),
    }
    return {name: float(value) for name, value in values.items()}


def vertical_ramp(height: int, width: int) -> NDArray[np.float64]:
    """
    Return the depth that knows nothing but "up is far": the baseline of every model.

    Returns
    -------
    float64 [H, W]
        1 in the top row, 0 in the bottom row, linear between.
    """
    column = np.linspace(1.0, 0.0, height)[:, None]
    return np.repeat(column, width, axis=1)
