"""From metric depth to the normalised map and the masks that training compares against."""

from __future__ import annotations

import torch
from torch.nn import functional

LOW_QUANTILE, HIGH_QUANTILE = 0.02, 0.98
MIN_SPREAD_M = 1e-3


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


def normalize_depth(depth_m: torch.Tensor) -> torch.Tensor:
    """
    Map each image's 2 % and 98 % quantiles of valid depth to -1 and 1, and clip.

    Parameters
    ----------
    depth_m : float32 [N, H, W]
        Depth along Z, m; +inf is sky, NaN and values <= 0 are unknown.

    Returns
    -------
    float32 [N, 1, H, W]
        In [-1, 1]; sky is 1, unknown depth is -1, an image without valid depth is -1 or 1.
    """
    measured = torch.where(valid_depth(depth_m), depth_m, torch.nan).flatten(1)
    quantiles = torch.tensor([LOW_QUANTILE, HIGH_QUANTILE], dtype=depth_m.dtype)
    low, high = torch.nanquantile(measured, quantiles, dim=1).nan_to_num(0.0)
    spread = (high - low).clamp(min=MIN_SPREAD_M)
    unit = (depth_m - low[:, None, None]) / spread[:, None, None]
    normalized = (2 * unit - 1).clamp(-1.0, 1.0)
    return torch.where(known_depth(depth_m), normalized, -1.0)[:, None]


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
