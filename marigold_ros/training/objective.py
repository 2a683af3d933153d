"""Losses of the U-Net: Marigold's diffusion objective, or end-to-end depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from marigold_ros.training.config import ObjectiveConfig, VAE_SCALE_FACTOR
from marigold_ros.training.diffusion import annealed_noise, Diffusion
from marigold_ros.training.latents import decode_depth, encode_images
from marigold_ros.training.losses import (
    align_least_squares,
    gradient_l1,
    masked_mse,
    relative_l1,
    weighted_l1,
)
from marigold_ros.training.targets import (
    depth_range,
    latent_mask,
    measured_mask,
    normalize_depth,
    relative_error_weight,
)
from marigold_ros.training.views import depth_as_images, ViewBatch

UNet = Callable[..., Any]

# Every eighth view of a batch is enough to keep the latents of depth maps unchanged: encoding all
# views twice more took half of an iteration.
DRIFT_DIVISOR = 8


class Objective:
    """
    Compute the losses of a U-Net on views.

    Parameters
    ----------
    config : ObjectiveConfig
    vae : AutoencoderKL or AutoencoderTiny
        Frozen; encodes the targets.  Without `trainable_vae` it encodes images and decodes
        predictions too, and gradients flow through its decoder.
    diffusion : Diffusion
    text : float32 [1, 2, D]
        Embedding of the empty prompt.
    trainable_vae : AutoencoderTiny or None
        Another autoencoder, trained to encode images and to decode predictions.
    """

    def __init__(self, config: ObjectiveConfig, vae: Any, diffusion: Diffusion,
                 text: torch.Tensor, trainable_vae: Any = None) -> None:
        self._config = config
        self._vae = vae
        self._trains_vae, self._used_vae = trainable_vae is not None, trainable_vae or vae
        self._drift_weight = config.latent_drift_weight or 0.0
        self._diffusion = diffusion
        self._text = text

    def losses(
        self, unet: UNet, batch: ViewBatch, generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """
        Predict the depth of views and compute the losses.

        Parameters
        ----------
        unet : callable
            The U-Net, possibly wrapped or compiled.
        batch : ViewBatch
        generator : torch.Generator
            On the CPU; the only source of randomness.

        Returns
        -------
        dict of str to float32 []
            To be summed: 'latent' (diffusion only), and if configured 'pixel' and 'gradient',
            'latent_drift' and 'reconstruction'.
        """
        image = self._encode_image(batch)                                  # [N,C,h,w]
        if self._config.variant == 'end_to_end':
            losses = self._end_to_end_losses(unet, image, batch)
        else:
            losses = self._diffusion_losses(unet, image, batch, generator)
        if self._trains_vae:
            losses |= self._autoencoder_losses(batch[:max(1, len(batch) // DRIFT_DIVISOR)])
        return losses

    def _encode_image(self, batch: ViewBatch) -> torch.Tensor:
        with torch.set_grad_enabled(self._trains_vae):
            return encode_images(self._used_vae, batch.image)

    def _autoencoder_losses(self, batch: ViewBatch) -> dict[str, torch.Tensor]:
        """Penalize changes of the latents of depth maps, and errors in decoding them."""
        depth = depth_as_images(batch)                                          # [N,3,H,W]
        with torch.no_grad():
            frozen = encode_images(self._vae, depth)
        latents = encode_images(self._used_vae, depth)
        return {'latent_drift': self._drift_weight * (latents - frozen).square().mean(),
                'reconstruction': relative_l1(decode_depth(self._used_vae, latents), batch)}

    def _end_to_end_losses(
        self, unet: UNet, image: torch.Tensor, batch: ViewBatch,
    ) -> dict[str, torch.Tensor]:
        """Predict in one step from a zero latent at t = 999, and compare pixels."""
        noisy = torch.zeros_like(image)
        timesteps = torch.full((len(batch),), self._diffusion.last_timestep).to(image.device)
        x0 = self._diffusion.predicted_x0(
            noisy, self._predict(unet, image, noisy, timesteps), timesteps)
        return self._pixel_losses(x0, batch)

    def _diffusion_losses(
        self, unet: UNet, image: torch.Tensor, batch: ViewBatch, generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Compute Marigold's masked error of the prediction at random timesteps."""
        # 1. Encode depth, repeated to three channels, with the frozen autoencoder.
        with torch.no_grad():
            x0 = encode_images(self._vae, depth_as_images(batch))                      # [N,C,h,w]
        # 2. Add noise, drawn on the CPU so that a seed gives the same noise on every device.
        timesteps = self._draw_timesteps(len(batch), generator)
        noise = annealed_noise(x0.shape, timesteps, self._config.multires_strength,
                               self._diffusion.last_timestep + 1, generator).to(x0)
        timesteps = timesteps.to(x0.device)
        noisy = self._diffusion.add_noise(x0, noise, timesteps)            # [N,C,h,w]
        noisy, noise = self._roll_out(unet, image, x0, noisy, noise, timesteps)
        # 3. Compare the prediction with its target where all pixels of a latent cell are valid.
        prediction = self._predict(unet, image, noisy, timesteps)
        losses = {'latent': self._config.latent_weight * masked_mse(
            prediction, self._diffusion.target(x0, noise, timesteps),
            latent_mask(batch.valid, VAE_SCALE_FACTOR, x0.shape[1]),
            self._diffusion.snr_weight(timesteps, self._config.max_snr_weight))}
        # 4. Compare some of the samples in pixels too.
        decoded = slice(self._config.pixel_samples)
        if self._config.pixel_samples > 0:
            predicted_x0 = self._diffusion.predicted_x0(
                noisy[decoded], prediction[decoded], timesteps[decoded])
            losses |= self._pixel_losses(predicted_x0, batch[decoded])
        return losses

    def _draw_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draw t ~ U{0..T-1}; the first `terminal_fraction` of the batch gets t = T - 1."""
        timesteps = torch.randint(self._diffusion.last_timestep + 1, (count,),
                                  generator=generator)
        timesteps[:round(self._config.terminal_fraction * count)] = self._diffusion.last_timestep
        return timesteps

    @torch.no_grad()
    def _roll_out(
        self, unet: UNet, image: torch.Tensor, x0: torch.Tensor, noisy: torch.Tensor,
        noise: torch.Tensor, timesteps: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Replace the noisy latent of some samples by one made from a first prediction of x0.

        Returns
        -------
        float32 [N, C, h, w], float32 [N, C, h, w]
            Noisy latents, and the noise that leads to them from the true x0.
        """
        count = round(self._config.rollout_fraction
                      * int((timesteps < self._diffusion.last_timestep).sum()))
        if count == 0:
            return noisy, noise
        # The last samples of the batch: the first ones are at the last timestep.
        rolled = slice(len(noisy) - count, None)
        start = torch.full_like(timesteps[rolled], self._diffusion.last_timestep)
        first_noisy = self._diffusion.add_noise(x0[rolled], noise[rolled], start)
        first_x0 = self._diffusion.predicted_x0(
            first_noisy, self._predict(unet, image[rolled], first_noisy, start), start)
        noisy, noise = noisy.clone(), noise.clone()
        noisy[rolled] = self._diffusion.add_noise(first_x0, noise[rolled], timesteps[rolled])
        noise[rolled] = self._diffusion.implied_noise(noisy[rolled], x0[rolled], timesteps[rolled])
        return noisy, noise

    def _predict(
        self, unet: UNet, image: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Run the U-Net on the concatenated image and depth latents."""
        text = self._text.to(image.device).expand(len(image), -1, -1)
        prediction: torch.Tensor = unet(
            torch.cat([image, noisy], dim=1), timesteps, text, return_dict=False)[0]
        return prediction.float()

    def _pixel_losses(self, x0: torch.Tensor, batch: ViewBatch) -> dict[str, torch.Tensor]:
        """Decode, fit scale and shift to the ground truth by least squares, and compare."""
        low_m, spread_m = depth_range(batch.depth_m, batch.valid)
        truth = normalize_depth(batch.depth_m, low_m, spread_m)            # [N,1,H,W]
        mask = measured_mask(batch.depth_m, batch.valid)[:, None]
        weight = (relative_error_weight(batch.depth_m, batch.valid, spread_m)
                  if self._config.relative_pixels else mask.float())
        aligned = align_least_squares(decode_depth(self._used_vae, x0), truth, mask)
        losses = {'pixel': self._config.pixel_weight * weighted_l1(aligned, truth, weight)}
        if self._config.gradient_weight > 0:
            losses['gradient'] = self._config.gradient_weight * gradient_l1(aligned, truth, mask)
        return losses
