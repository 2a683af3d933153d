"""The diffusion process: noise, noisy latents, prediction targets, and x0 from a prediction."""

from __future__ import annotations

import torch
from torch.nn import functional

from marigold_ros.training.config import PredictionType

MAX_NOISE_LEVELS = 10


class Diffusion:
    """
    Forward process of a noise schedule, for every prediction type.

    Parameters
    ----------
    alphas_cumprod : float32 [T]
        The scheduler's; the last is 0 with zero terminal SNR.
    prediction_type : {'v_prediction', 'epsilon', 'sample'}
        What the U-Net predicts.

    Attributes
    ----------
    last_timestep : int
        T - 1, where every inference starts.

    Examples
    --------
    >>> diffusion = Diffusion(torch.tensor([0.64, 0.36, 0.0]), 'v_prediction')
    >>> x0, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 1.0)
    >>> timesteps = torch.tensor([1])
    >>> noisy = diffusion.add_noise(x0, noise, timesteps)          # 0.6 * 2 + 0.8 * 1
    >>> target = diffusion.target(x0, noise, timesteps)            # 0.6 * 1 - 0.8 * 2
    >>> round(noisy.item(), 3), round(target.item(), 3)
    (2.0, -1.0)
    >>> round(diffusion.predicted_x0(noisy, target, timesteps).item(), 3)
    2.0
    """

    def __init__(self, alphas_cumprod: torch.Tensor, prediction_type: PredictionType) -> None:
        self._alphas_cumprod = alphas_cumprod
        self._prediction_type = prediction_type
        self.last_timestep = len(alphas_cumprod) - 1

    def add_noise(
        self, x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return z_t = sqrt(abar) x0 + sqrt(1 - abar) noise, [N, C, h, w]."""
        alpha, sigma = self._alpha_sigma(timesteps)
        return alpha * x0 + sigma * noise

    def implied_noise(
        self, noisy: torch.Tensor, x0: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return the noise that leads from x0 to the noisy latent, [N, C, h, w]."""
        alpha, sigma = self._alpha_sigma(timesteps)
        return (noisy - alpha * x0) / sigma

    def target(
        self, x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return the target of the U-Net: v, the noise or x0, [N, C, h, w]."""
        if self._prediction_type == 'sample':
            return x0
        if self._prediction_type == 'epsilon':
            return noise
        alpha, sigma = self._alpha_sigma(timesteps)
        return alpha * noise - sigma * x0

    def predicted_x0(
        self, noisy: torch.Tensor, prediction: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Compute x0 from a prediction of the U-Net, [N, C, h, w]."""
        if self._prediction_type == 'sample':
            return prediction
        alpha, sigma = self._alpha_sigma(timesteps)
        if self._prediction_type == 'epsilon':
            return (noisy - sigma * prediction) / alpha
        return alpha * noisy - sigma * prediction

    def snr_weight(self, timesteps: torch.Tensor, limit: float | None) -> torch.Tensor:
        """
        Return weights of the samples that limit the weight of an error in x0.

        Parameters
        ----------
        timesteps : int64 [N]
        limit : float or None
            Largest weight of a squared error in x0.  Without a limit it is 1 + SNR (v_prediction),
            SNR (epsilon) or 1 (sample).

        Returns
        -------
        float32 [N]
            At most 1; all 1 if `limit` is None.
        """
        abar = self._alphas_cumprod[timesteps]
        if limit is None or self._prediction_type == 'sample':
            return torch.ones_like(abar)
        numerator = 1.0 if self._prediction_type == 'v_prediction' else abar
        return (limit * (1 - abar) / numerator).clamp(max=1.0)

    def _alpha_sigma(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sqrt(abar) and sqrt(1 - abar), [N, 1, 1, 1]."""
        abar = self._alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        return abar.sqrt(), (1 - abar).sqrt()


def multi_resolution_noise(
    shape: torch.Size,
    strength: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """
    Draw noise with structure at several resolutions of the latent.

    Parameters
    ----------
    shape : torch.Size
        [N, C, h, w] of the latent.
    strength : float32 [N]
        Weight of a level relative to the next finer one, per image; 0 is white Gaussian noise.
    generator : torch.Generator
        The only source of randomness.

    Returns
    -------
    float32 [N, C, h, w]
        Its standard deviation is 1 over the whole batch.

    Notes
    -----
    At level i = 0..9 the size of the level before is divided by r^i, r ~ U(2, 4), and N(0, 1)
    noise of that size, upsampled bilinearly and weighted by strength^i, is added; the last level
    has a side of 1 (prs-eth/Marigold, `multi_res_noise_like`, strategy "original").

    Examples
    --------
    Coarse levels correlate neighbouring pixels.

    >>> noise = multi_resolution_noise(torch.Size((1, 4, 32, 32)), torch.tensor([0.9]),
    ...                                torch.Generator().manual_seed(0))
    >>> round(noise.std().item(), 3)
    1.0
    >>> bool((noise[..., 1:] * noise[..., :-1]).mean() > 0.2)
    True
    """
    count, channels, height, width = shape
    weight = strength.reshape(-1, 1, 1, 1)
    noise = torch.randn(shape, generator=generator)
    rows, columns = height, width
    for level in range(MAX_NOISE_LEVELS):
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
    Draw multi-resolution noise whose strength is proportional to the timestep.

    Parameters
    ----------
    shape : torch.Size
        [N, C, h, w] of the latent.
    timesteps : int64 [N]
        Diffusion timestep of each image, in [0, `num_train_timesteps`).
    max_strength : float
        Strength at the last timestep (0.9 in Marigold); 0 is white Gaussian noise.
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
