"""Encode images to latents and decode latents to depth, with either autoencoder class."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from marigold_ros.training.config import VAE_SCALE_FACTOR
from marigold_ros.training.targets import depth_range, normalize_depth


def encode_images(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """
    Encode images to scaled latents.

    Parameters
    ----------
    vae : AutoencoderKL or AutoencoderTiny
    images : float32 [N, 3, H, W]
        In [-1, 1].

    Returns
    -------
    float32 [N, C, h, w]
        The mean of the latent's distribution, times the scaling factor.
    """
    encoded = vae.encode(images)
    latent: torch.Tensor = (encoded.latent_dist.mode() if hasattr(encoded, 'latent_dist')
                            else encoded.latents)
    return latent.float() * float(vae.config.scaling_factor)


def decode_depth(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """
    Decode depth latents as inference does.

    Parameters
    ----------
    vae : AutoencoderKL or AutoencoderTiny
    latents : float32 [N, C, h, w]
        Scaled, as `encode_images` returns them.

    Returns
    -------
    float32 [N, 1, H, W]
        Mean of the three channels, clipped to [-1, 1].
    """
    decoded: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return decoded.float().mean(dim=1, keepdim=True).clamp(-1.0, 1.0)


@torch.no_grad()
def reconstruct_depth(vae: Any, depth_m: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """
    Encode and decode ground-truth depth: the lower bound of the error of any U-Net.

    Parameters
    ----------
    vae : AutoencoderKL or AutoencoderTiny
    depth_m : float32 [N, H, W]
        Depth along Z, m; where it is valid, +inf is sky.
    valid : bool [N, H, W]
        Where depth is valid.

    Returns
    -------
    float32 [N, H, W]
        Normalized depth in [0, 1], 0 near.
    """
    depth = normalize_depth(depth_m, *depth_range(depth_m, valid))         # [N,1,H,W]
    height, width = depth_m.shape[1:]
    padding = (0, -width % VAE_SCALE_FACTOR, 0, -height % VAE_SCALE_FACTOR)
    padded = functional.pad(depth, padding, mode='replicate').expand(-1, 3, -1, -1)
    decoded = decode_depth(vae, encode_images(vae, padded))
    return (decoded[:, 0, :height, :width] + 1) / 2
