"""From metric depth to the normalised map and the masks that training compares against."""

from __future__ import annotations

import torch
from torch.nn import functional

LOW_QUANTILE, HIGH_QUANTILE = 0.02, 0.98
MIN_SPREAD_M = 1e-3
# Keeps one very near pixel before a far background from ruling a whole batch.
MAX_RELATIVE_WEIGHT = 8.0


def valid_depth(depth_m: torch.Tensor) -> torch.Tensor:
    """
    Say where depth was measured.

    Parameters
    ----------
    depth_m : float32 [...]
        Depth along Z, m; +inf is sky, NaN and values <= 0 are unknown.

    Returns
    -------
    bool [...]
        True where depth is a finite positive number.
    """
    return torch.isfinite(depth_m) & (depth_m > 0)


def known_depth(depth_m: torch.Tensor) -> torch.Tensor:
    """
    Say where training may compare: measured depth, and sky, which is known to be far.

    Parameters
    ----------
    depth_m : float32 [...]
        Depth along Z, m; +inf is sky, NaN and values <= 0 are unknown.

    Returns
    -------
    bool [...]
        Sky counts because a robot must never read an open sky as something near.
    """
    return depth_m > 0


def depth_range(depth_m: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Find what normalisation maps to -1, and how many metres from there map to 1.

    Parameters
    ----------
    depth_m : float32 [N, H, W]
        Depth along Z, m; +inf is sky, NaN and values <= 0 are unknown.

    Returns
    -------
    float32 [N, 1, 1], float32 [N, 1, 1]
        Each image's 2 % quantile of valid depth, and the distance to its 98 % quantile, m.
    """
    measured = torch.where(valid_depth(depth_m), depth_m, torch.nan).flatten(1)
    quantiles = torch.tensor([LOW_QUANTILE, HIGH_QUANTILE], dtype=depth_m.dtype)
    low, high = torch.nanquantile(measured, quantiles, dim=1).nan_to_num(0.0)
    return low[:, None, None], (high - low).clamp(min=MIN_SPREAD_M)[:, None, None]


def normalize_depth(
    depth_m: torch.Tensor, low_m: torch.Tensor, spread_m: torch.Tensor,
) -> torch.Tensor:
    """
    Map each image's range of depth to -1 and 1, and clip.

    Parameters
    ----------
    depth_m : float32 [N, H, W]
        Depth along Z, m; +inf is sky, NaN and values <= 0 are unknown.
    low_m, spread_m : float32 [N, 1, 1]
        From `depth_range`.

    Returns
    -------
    float32 [N, 1, H, W]
        In [-1, 1]; sky is 1, unknown depth is -1.
    """
    normalized = (2 * (depth_m - low_m) / spread_m - 1).clamp(-1.0, 1.0)
    return torch.where(known_depth(depth_m), normalized, -1.0)[:, None]


def relative_weight(depth_m: torch.Tensor, spread_m: torch.Tensor) -> torch.Tensor:
    """
    Say how much relative error in depth one unit of error in normalised depth makes.

    Parameters
    ----------
    depth_m : float32 [N, H, W]
        Depth along Z, m; +inf is sky, NaN and values <= 0 are unknown.
    spread_m : float32 [N, 1, 1]
        From `depth_range`.

    Returns
    -------
    float32 [N, 1, H, W]
        (spread / 2) / depth, at most `MAX_RELATIVE_WEIGHT`; 0 for sky and unknown depth.
    """
    weight = (spread_m / 2 / depth_m).clamp(max=MAX_RELATIVE_WEIGHT)
    return torch.where(valid_depth(depth_m), weight, 0.0)[:, None]


def latent_mask(known: torch.Tensor, vae_scale_factor: int, channels: int) -> torch.Tensor:
    """
    Keep a latent cell only if each of its pixels is known.

    Parameters
    ----------
    known : bool [N, H, W]
        True where training may compare; H and W are multiples of `vae_scale_factor`.
    vae_scale_factor : int
        Pixels per latent cell along one axis.
    channels : int
        Latent channels, which all get the same mask.

    Returns
    -------
    bool [N, channels, h, w]
        The unknown mask max-pooled over each cell, inverted.
    """
    unknown = (~known)[:, None].float()
    pooled = functional.max_pool2d(unknown, vae_scale_factor, vae_scale_factor)
    return (pooled == 0).repeat(1, channels, 1, 1)
