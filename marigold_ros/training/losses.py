"""Losses on latents and on decoded depth, each over the pixels where depth is known."""

from __future__ import annotations

import torch

from marigold_ros.training.targets import depth_range, normalize_depth, relative_weight
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
        What the U-Net says and what it should say.
    mask : bool [N, C, h, w]
        Elements that count.
    weight : float32 [N]
        Weight of each image.

    Returns
    -------
    float32 []
        0 where nothing counts.
    """
    error = (prediction - target).square() * weight.reshape(-1, 1, 1, 1)
    return (error * mask).sum() / mask.sum().clamp(min=1)


def align_least_squares(
    prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor,
) -> torch.Tensor:
    """
    Scale and shift each map so that it fits its target best in the least-squares sense.

    Parameters
    ----------
    prediction, target : float32 [N, 1, H, W]
        Affine-invariant depth and the depth to fit.
    mask : bool [N, 1, H, W]
        Pixels that take part in the fit.

    Returns
    -------
    float32 [N, 1, H, W]
        scale * prediction + shift; gradients flow through the fit.
    """
    count = mask.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (values * mask).sum(dim=(1, 2, 3), keepdim=True) / count

    mean_prediction, mean_target = mean(prediction), mean(target)
    centred = prediction - mean_prediction
    covariance = mean(centred * (target - mean_target))
    # The floor keeps a constant prediction from an infinite scale.
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
        Weight of each element; 0 leaves it out.

    Returns
    -------
    float32 []
        0 where nothing counts.
    """
    error = (prediction - target).abs() * weight
    return error.sum() / (weight > 0).sum().clamp(min=1)


def relative_l1(prediction: torch.Tensor, batch: ViewBatch) -> torch.Tensor:
    """
    Average the error in normalised depth as the relative error in depth that it makes.

    Parameters
    ----------
    prediction : float32 [N, 1, H, W]
        In [-1, 1], by the views' own normalisation.
    batch : ViewBatch

    Returns
    -------
    float32 []
        Over measured depth; see `relative_weight`.
    """
    low_m, spread_m = depth_range(batch.depth_m, batch.valid)
    return weighted_l1(prediction, normalize_depth(batch.depth_m, low_m, spread_m),
                       relative_weight(batch.depth_m, batch.valid, spread_m))


def gradient_l1(
    prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor,
) -> torch.Tensor:
    """
    Compare the differences of neighbouring pixels, so that depth edges stay sharp.

    Parameters
    ----------
    prediction, target : float32 [N, C, H, W]
        Maps to compare.
    mask : bool [N, 1, H, W]
        Pixels that count; a difference counts where both of its pixels do.

    Returns
    -------
    float32 []
        Mean absolute difference of the horizontal plus of the vertical gradients.
    """
    total = prediction.new_zeros(())
    for axis in (-1, -2):
        length = mask.shape[axis] - 1
        both = mask.narrow(axis, 1, length) & mask.narrow(axis, 0, length)
        difference = (prediction - target).diff(dim=axis).abs()
        pairs = both.expand_as(difference)
        total = total + (difference * pairs).sum() / pairs.sum().clamp(min=1)
    return total
