"""The diffusion objective: timesteps, noisy latents, and x0 from the v-prediction."""

from __future__ import annotations

import torch

from marigold_ros.training.config import DiffusionConfig


class Diffusion:
    """
    Forward process and objective of a v-prediction model.

    Parameters
    ----------
    alphas_cumprod : float32 [T]
        The scheduler's; 0 at the end with zero terminal SNR.
    config : DiffusionConfig
        How timesteps and weights are chosen.
    """

    def __init__(self, alphas_cumprod: torch.Tensor, config: DiffusionConfig) -> None:
        self._alphas_cumprod = alphas_cumprod
        self._config = config
        self.last_timestep = len(alphas_cumprod) - 1

    def draw_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draw t ~ U{0..T-1}; the first `terminal_fraction` of the batch gets t = T - 1."""
        timesteps = torch.randint(self.last_timestep + 1, (count,), generator=generator)
        timesteps[:round(self._config.terminal_fraction * count)] = self.last_timestep
        return timesteps

    def add_noise(
        self, x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return z_t = sqrt(abar) x0 + sqrt(1 - abar) noise, [N, C, h, w]."""
        alpha, sigma = self._alpha_sigma(timesteps)
        return alpha * x0 + sigma * noise

    def predicted_x0(
        self, noisy: torch.Tensor, velocity: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return x0 = sqrt(abar) z_t - sqrt(1 - abar) v, [N, C, h, w]."""
        alpha, sigma = self._alpha_sigma(timesteps)
        return alpha * noisy - sigma * velocity

    def x0_weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """
        Weigh an error in x0 as the objective on v = sqrt(abar) eps - sqrt(1 - abar) x0 does.

        Returns
        -------
        float32 [N]
            1 / (1 - abar) = 1 + SNR, because x0 and v differ by the factor sqrt(1 - abar);
            limited by `max_snr_weight`.
        """
        weight = 1 / (1 - self._alphas_cumprod[timesteps])
        return weight.clamp(max=self._config.max_snr_weight)

    def _alpha_sigma(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sqrt(abar) and sqrt(1 - abar), [N, 1, 1, 1]."""
        alpha_cumprod = self._alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        return alpha_cumprod.sqrt(), (1 - alpha_cumprod).sqrt()
