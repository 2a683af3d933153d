"""Into and out of the latent space of any autoencoder that Marigold can have."""

from __future__ import annotations

from typing import Any

import torch


def encode(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """
    Encode images.

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
        Scaled, as `encode` returns them.

    Returns
    -------
    float32 [N, 1, H, W]
        Mean of the three channels, clipped to [-1, 1].
    """
    decoded: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return decoded.float().mean(dim=1, keepdim=True).clamp(-1.0, 1.0)
