"""Training targets and masks, computed from metric depth."""

from __future__ import annotations

import torch
from torch.nn import functional

LOW_QUANTILE, HIGH_QUANTILE = 0.02, 0.98
MIN_SPREAD_M = 1e-3
# Limits the influence of single very near pixels on a whole batch.
MAX_RELATIVE_WEIGHT = 16.0


def measured_mask(depth_m: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """
    Return where depth is valid and finite; sky is valid, but not finite.

    Parameters
    ----------
    depth_m : float32 [...]
        Depth along Z, m; where it is valid, +inf is sky.
    valid : bool [...]
        Where depth is valid.

    Returns
    -------
    bool [...]
    """
    return valid & torch.isfinite(depth_m)


def depth_range(
    depth_m: torch.Tensor, valid: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the range of depth that normalization maps to [-1, 1].

    Parameters
    ----------
    depth_m : float32 [N, H, W]
        Depth along Z, m; where it is valid, +inf is sky.
    valid : bool [N, H, W]
        Where depth is valid.

    Returns
    -------
    float32 [N, 1, 1], float32 [N, 1, 1]
        Each image's 2 % quantile of measured depth, and the distance to its 98 % quantile, m.

    Examples
    --------
    >>> depth_m = torch.linspace(1.0, 5.0, 101)[None, None]
    >>> low_m, spread_m = depth_range(depth_m, depth_m > 0)
    >>> round(low_m.item(), 2), round(spread_m.item(), 2)
    (1.08, 3.84)
    """
    known = torch.where(measured_mask(depth_m, valid), depth_m, torch.nan).flatten(1)
    quantiles = torch.tensor([LOW_QUANTILE, HIGH_QUANTILE]).to(depth_m)
    low, high = torch.nanquantile(known, quantiles, dim=1).nan_to_num(0.0)
    return low[:, None, None], (high - low).clamp(min=MIN_SPREAD_M)[:, None, None]


def normalize_depth(
    depth_m: torch.Tensor, low_m: torch.Tensor, spread_m: torch.Tensor,
) -> torch.Tensor:
    """
    Map each image's depth range to [-1, 1] and clip.

    Parameters
    ----------
    depth_m : float32 [N, H, W]
        Depth along Z, m.
    low_m, spread_m : float32 [N, 1, 1]
        From `depth_range`.

    Returns
    -------
    float32 [N, 1, H, W]
        In [-1, 1]; +inf becomes 1, NaN -1.  Invalid depth is mapped too: what is out of a
        sensor's range is still nearer or farther than the rest.

    Examples
    --------
    >>> depth_m = torch.tensor([[[1.0, 2.0, 3.0, torch.inf]]])
    >>> normalize_depth(depth_m, torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]])).squeeze()
    tensor([-1.,  0.,  1.,  1.])
    """
    normalized = (2 * (depth_m - low_m) / spread_m - 1).clamp(-1.0, 1.0)
    return normalized.nan_to_num(-1.0)[:, None]


def relative_error_weight(
    depth_m: torch.Tensor, valid: torch.Tensor, spread_m: torch.Tensor,
) -> torch.Tensor:
    """
    Return the factor from an error in normalized depth to the relative error of the depth.

    Parameters
    ----------
    depth_m : float32 [N, H, W]
        Depth along Z, m; where it is valid, +inf is sky.
    valid : bool [N, H, W]
        Where depth is valid.
    spread_m : float32 [N, 1, 1]
        From `depth_range`.

    Returns
    -------
    float32 [N, 1, H, W]
        (spread / 2) / depth, at most `MAX_RELATIVE_WEIGHT`; 0 where depth is not measured.

    Examples
    --------
    If the range is 4 m, an error of 1 in normalized depth is 2 m: 200 % at 1 m, 20 % at 10 m.

    >>> depth_m = torch.tensor([[[1.0, 10.0, torch.inf]]])
    >>> relative_error_weight(depth_m, depth_m > 0, torch.tensor([[[4.0]]])).squeeze()
    tensor([2.0000, 0.2000, 0.0000])
    """
    weight = (spread_m / 2 / depth_m).clamp(max=MAX_RELATIVE_WEIGHT)
    return torch.where(measured_mask(depth_m, valid), weight, 0.0)[:, None]


def latent_mask(valid: torch.Tensor, vae_scale_factor: int, channels: int) -> torch.Tensor:
    """
    Return the latent cells in which the depth of every pixel is valid.

    Parameters
    ----------
    valid : bool [N, H, W]
        H and W are multiples of `vae_scale_factor`.
    vae_scale_factor : int
        Pixels per latent cell along one axis.
    channels : int
        Latent channels; all have the same mask.

    Returns
    -------
    bool [N, channels, h, w]
        The invalid mask max-pooled over each cell, inverted.

    Examples
    --------
    >>> valid = torch.ones(1, 8, 16, dtype=torch.bool)
    >>> valid[0, 3, 12] = False
    >>> latent_mask(valid, vae_scale_factor=8, channels=1).squeeze()
    tensor([ True, False])
    """
    invalid = (~valid)[:, None].float()
    pooled = functional.max_pool2d(invalid, vae_scale_factor, vae_scale_factor)
    return (pooled == 0).repeat(1, channels, 1, 1)
