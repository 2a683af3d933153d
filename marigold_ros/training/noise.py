"""Annealed multi-resolution noise, the noise that Marigold is fine-tuned with."""

from __future__ import annotations

import torch
from torch.nn import functional

MAX_LEVELS = 10


def multi_resolution_noise(
    shape: torch.Size,
    strength: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """
    Draw noise that has structure at every scale of the latent.

    Parameters
    ----------
    shape : torch.Size
        [N, C, h, w] of the latent.
    strength : float32 [N]
        Weight of a level relative to the next finer one, per image; 0 gives Gaussian noise.
    generator : torch.Generator
        The only source of randomness.

    Returns
    -------
    float32 [N, C, h, w]
        Of unit standard deviation over the whole batch.

    Notes
    -----
    For i = 0..9 one r ~ U(2, 4) shrinks the size by r^i, compounding, and a bilinearly upsampled
    N(0, 1) weighted by strength^i is added, until a side is 1 (prs-eth/Marigold,
    `multi_res_noise_like`, strategy "original").
    """
    count, channels, height, width = shape
    weight = strength.reshape(-1, 1, 1, 1)
    noise = torch.randn(shape, generator=generator)
    rows, columns = height, width
    for level in range(MAX_LEVELS):
        shrink = (2 + 2 * torch.rand(1, generator=generator).item()) ** level
        rows, columns = max(1, int(rows / shrink)), max(1, int(columns / shrink))
        coarse = torch.randn(count, channels, rows, columns, generator=generator)
        fine = functional.interpolate(coarse, size=(height, width), mode='bilinear')
        noise = noise + fine * weight ** level
        if rows == 1 or columns == 1:
            break
    return noise / noise.std()


def annealed_noise(
    shape: torch.Size,
    timesteps: torch.Tensor,
    max_strength: float,
    num_train_timesteps: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """
    Draw multi-resolution noise whose strength falls to 0 with the timestep.

    Parameters
    ----------
    shape : torch.Size
        [N, C, h, w] of the latent.
    timesteps : int64 [N]
        Diffusion timestep of each image, in [0, `num_train_timesteps`).
    max_strength : float
        Strength at the last timestep (0.9 in Marigold); 0 gives plain Gaussian noise.
    num_train_timesteps : int
        Length of the diffusion schedule.
    generator : torch.Generator
        The only source of randomness.

    Returns
    -------
    float32 [N, C, h, w]
        Strength of image n is max_strength * timesteps[n] / num_train_timesteps.
    """
    if max_strength == 0.0:
        return torch.randn(shape, generator=generator)
    return multi_resolution_noise(
        shape, max_strength * timesteps.float() / num_train_timesteps, generator)
