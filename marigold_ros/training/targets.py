"""From metric depth to the normalised map and the masks that training compares against."""

from __future__ import annotations

import torch
from torch.nn import functional

LOW_QUANTILE, HIGH_QUANTILE = 0.02, 0.98
MIN_SPREAD_M = 1e-3
# Keeps one very near pixel before a far background from ruling a whole batch.
MAX_RELATIVE_WEIGHT = 16.0


def measured(depth_m: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """
    Say where valid depth is a number of metres, which sky is not.

    Parameters
    ----------
    depth_m : float32 [...]
        Depth along Z, m; where it is valid, +inf is sky.
    valid : bool [...]
        Where depth is known.

    Returns
    -------
    bool [...]
    """
    return valid & torch.isfinite(depth_m)


def depth_range(
    depth_m: torch.Tensor, valid: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Find what normalisation maps to -1, and how many metres from there map to 1.

    Parameters
    ----------
    depth_m : float32 [N, H, W]
        Depth along Z, m; where it is valid, +inf is sky.
    valid : bool [N, H, W]
        Where depth is known.

    Returns
    -------
    float32 [N, 1, 1], float32 [N, 1, 1]
        Each image's 2 % quantile of measured depth, and the distance to its 98 % quantile, m.
    """
    known = torch.where(measured(depth_m, valid), depth_m, torch.nan).flatten(1)
    quantiles = torch.tensor([LOW_QUANTILE, HIGH_QUANTILE]).to(depth_m)
    low, high = torch.nanquantile(known, quantiles, dim=1).nan_to_num(0.0)
    return low[:, None, None], (high - low).clamp(min=MIN_SPREAD_M)[:, None, None]


def normalize_depth(
    depth_m: torch.Tensor, low_m: torch.Tensor, spread_m: torch.Tensor,
) -> torch.Tensor:
    """
    Map each image's range of depth to -1 and 1, and clip.

    Parameters
    ----------
    depth_m : float32 [N, H, W]
        Depth along Z, m.
    low_m, spread_m : float32 [N, 1, 1]
        From `depth_range`.

    Returns
    -------
    float32 [N, 1, H, W]
        In [-1, 1]; +inf becomes 1, NaN -1.  Depth that is not valid is mapped like any other:
        what is out of a sensor's range is still nearer or farther than the rest.
    """
    normalized = (2 * (depth_m - low_m) / spread_m - 1).clamp(-1.0, 1.0)
    return normalized.nan_to_num(-1.0)[:, None]


def relative_weight(
    depth_m: torch.Tensor, valid: torch.Tensor, spread_m: torch.Tensor,
) -> torch.Tensor:
    """
    Say how much relative error in depth one unit of error in normalised depth makes.

    Parameters
    ----------
    depth_m : float32 [N, H, W]
        Depth along Z, m; where it is valid, +inf is sky.
    valid : bool [N, H, W]
        Where depth is known.
    spread_m : float32 [N, 1, 1]
        From `depth_range`.

    Returns
    -------
    float32 [N, 1, H, W]
        (spread / 2) / depth, at most `MAX_RELATIVE_WEIGHT`; 0 where depth is not measured.
    """
    weight = (spread_m / 2 / depth_m).clamp(max=MAX_RELATIVE_WEIGHT)
    return torch.where(measured(depth_m, valid), weight, 0.0)[:, None]


def latent_mask(valid: torch.Tensor, vae_scale_factor: int, channels: int) -> torch.Tensor:
    """
    Keep a latent cell only if depth is valid in each of its pixels.

    Parameters
    ----------
    valid : bool [N, H, W]
        H and W are multiples of `vae_scale_factor`.
    vae_scale_factor : int
        Pixels per latent cell along one axis.
    channels : int
        Latent channels, which all get the same mask.

    Returns
    -------
    bool [N, channels, h, w]
        The invalid mask max-pooled over each cell, inverted.
    """
    invalid = (~valid)[:, None].float()
    pooled = functional.max_pool2d(invalid, vae_scale_factor, vae_scale_factor)
    return (pooled == 0).repeat(1, channels, 1, 1)
