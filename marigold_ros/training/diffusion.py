"""The diffusion process: noisy latents, what the U-Net predicts of them, and x0 from that."""

from __future__ import annotations

import torch

from marigold_ros.training.config import PredictionType


class Diffusion:
    """
    Forward process of a schedule, for every prediction type.

    Parameters
    ----------
    alphas_cumprod : float32 [T]
        The scheduler's; 0 at the end with zero terminal SNR.
    prediction_type : {'v_prediction', 'epsilon', 'sample'}
        What the U-Net predicts.

    Attributes
    ----------
    last_timestep : int
        T - 1, where every inference starts.
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
        """Return the noise with which x0 would have become z_t, [N, C, h, w]."""
        alpha, sigma = self._alpha_sigma(timesteps)
        return (noisy - alpha * x0) / sigma

    def target(
        self, x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return what the U-Net should predict: v, the noise, or x0, [N, C, h, w]."""
        if self._prediction_type == 'sample':
            return x0
        if self._prediction_type == 'epsilon':
            return noise
        alpha, sigma = self._alpha_sigma(timesteps)
        return alpha * noise - sigma * x0

    def predicted_x0(
        self, noisy: torch.Tensor, prediction: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return the x0 that a prediction means, [N, C, h, w]."""
        if self._prediction_type == 'sample':
            return prediction
        alpha, sigma = self._alpha_sigma(timesteps)
        if self._prediction_type == 'epsilon':
            return (noisy - sigma * prediction) / alpha
        return alpha * noisy - sigma * prediction

    def snr_weight(self, timesteps: torch.Tensor, limit: float | None) -> torch.Tensor:
        """
        Weigh samples so that an error in x0 counts at most `limit`.

        Parameters
        ----------
        timesteps : int64 [N]
        limit : float or None
            The error in the target is that in x0 times 1 + SNR (v), SNR (epsilon) or 1 (sample).

        Returns
        -------
        float32 [N]
            At most 1; all 1 without a limit.
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
