"""Losses on latents and on decoded depth, averaged where depth is valid."""

from __future__ import annotations

import torch

from marigold_ros.training.targets import depth_range, normalize_depth, relative_error_weight
from marigold_ros.training.views import ViewBatch

VARIANCE_FLOOR = 1e-4


def masked_mse(
    prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor,
) -> torch.Tensor:
    """
    Average the squared error over the masked elements of the whole batch.

    Parameters
    ----------
    prediction, target : float32 [N, C, h, w]
        Output and target of the U-Net.
    mask : bool [N, C, h, w]
        Elements to average over.
    weight : float32 [N]
        Weight of each image.

    Returns
    -------
    float32 []
        0 if the mask is empty.
    """
    error = (prediction - target).square() * weight.reshape(-1, 1, 1, 1)
    return (error * mask).sum() / mask.sum().clamp(min=1)


def align_least_squares(
    prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor,
) -> torch.Tensor:
    """
    Fit scale and shift of each map to its target by least squares.

    Parameters
    ----------
    prediction, target : float32 [N, 1, H, W]
        Relative depth and the depth to fit it to.
    mask : bool [N, 1, H, W]
        Pixels to fit.

    Returns
    -------
    float32 [N, 1, H, W]
        scale * prediction + shift; gradients flow through the fit.

    Examples
    --------
    >>> target = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 1, 3)
    >>> mask = torch.ones_like(target, dtype=torch.bool)
    >>> align_least_squares(10 * target - 5, target, mask).squeeze().round(decimals=2)
    tensor([1., 2., 4.])
    """
    count = mask.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (values * mask).sum(dim=(1, 2, 3), keepdim=True) / count

    mean_prediction, mean_target = mean(prediction), mean(target)
    centred = prediction - mean_prediction
    covariance = mean(centred * (target - mean_target))
    # The floor keeps the scale of a constant prediction finite.
    scale = covariance / (mean(centred.square()) + VARIANCE_FLOOR)
    return scale * centred + mean_target


def weighted_l1(
    prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor,
) -> torch.Tensor:
    """
    Average the weighted absolute error over the elements of positive weight.

    Parameters
    ----------
    prediction, target : float32 [N, C, H, W]
        Maps to compare.
    weight : float32 [N, C, H, W]
        Weight of each element; 0 ignores it.

    Returns
    -------
    float32 []
        0 if all weights are 0.
    """
    error = (prediction - target).abs() * weight
    return error.sum() / (weight > 0).sum().clamp(min=1)


def relative_l1(prediction: torch.Tensor, batch: ViewBatch) -> torch.Tensor:
    """
    Convert the error in normalized depth to the relative error of the depth, and average it.

    Parameters
    ----------
    prediction : float32 [N, 1, H, W]
        In [-1, 1], normalized by each view's `depth_range`.
    batch : ViewBatch

    Returns
    -------
    float32 []
        Over measured depth; see `relative_error_weight`.
    """
    low_m, spread_m = depth_range(batch.depth_m, batch.valid)
    return weighted_l1(prediction, normalize_depth(batch.depth_m, low_m, spread_m),
                       relative_error_weight(batch.depth_m, batch.valid, spread_m))


def gradient_l1(
    prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor,
) -> torch.Tensor:
    """
    Average the absolute error of spatial gradients, which keeps depth edges sharp.

    Parameters
    ----------
    prediction, target : float32 [N, C, H, W]
        Maps to compare.
    mask : bool [N, 1, H, W]
        Valid pixels; a difference is valid where both of its pixels are.

    Returns
    -------
    float32 []
        Mean absolute error of the horizontal plus that of the vertical differences.

    Examples
    --------
    A constant offset costs nothing, a missing edge does.

    >>> edge = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 1, 1, 3)
    >>> mask = torch.ones_like(edge, dtype=torch.bool)
    >>> gradient_l1(edge + 3, edge, mask).item(), gradient_l1(edge * 0, edge, mask).item()
    (0.0, 0.5)
    """
    total = prediction.new_zeros(())
    for axis in (-1, -2):
        length = mask.shape[axis] - 1
        both = mask.narrow(axis, 1, length) & mask.narrow(axis, 0, length)
        difference = (prediction - target).diff(dim=axis).abs()
        pairs = both.expand_as(difference)
        total = total + (difference * pairs).sum() / pairs.sum().clamp(min=1)
    return total
