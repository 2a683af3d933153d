"""What the U-Net is trained for: Marigold's diffusion objective, or depth end to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from marigold_ros.training.config import ObjectiveConfig, VAE_SCALE_FACTOR
from marigold_ros.training.diffusion import annealed_noise, Diffusion
from marigold_ros.training.losses import (
    align_least_squares,
    gradient_l1,
    masked_mse,
    relative_l1,
    weighted_l1,
)
from marigold_ros.training.networks import decode_depth, encode
from marigold_ros.training.targets import (
    depth_range,
    latent_mask,
    measured,
    normalize_depth,
    relative_weight,
)
from marigold_ros.training.views import grey_depth, ViewBatch

UNet = Callable[..., Any]

# One in so many views of a batch holds the latents of depth maps in place.  That is enough;
# encoding all of them twice more took half of an iteration.
ANCHOR_PART = 8


class Objective:
    """
    Losses of a U-Net on views.

    Parameters
    ----------
    config : ObjectiveConfig
    vae : AutoencoderKL or AutoencoderTiny
        Frozen; makes the targets.  Gradients flow through its decoder unless there is a learner.
    diffusion : Diffusion
    text : float32 [1, 2, D]
        Embedding of the empty prompt.
    learner : AutoencoderTiny or None
        Another autoencoder that learns to encode images and to decode predictions; None leaves
        both to `vae`.
    """

    def __init__(self, config: ObjectiveConfig, vae: Any, diffusion: Diffusion,
                 text: torch.Tensor, learner: Any = None) -> None:
        self._config = config
        self._vae = vae
        self._learns, self._coder = learner is not None, learner or vae
        self._anchor = config.autoencoder_anchor or 0.0
        self._diffusion = diffusion
        self._text = text

    def losses(
        self, unet: UNet, batch: ViewBatch, generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """
        Predict the depth of views.

        Parameters
        ----------
        unet : callable
            The U-Net, however it is wrapped.
        batch : ViewBatch
        generator : torch.Generator
            On the CPU; the only source of randomness.

        Returns
        -------
        dict of str to float32 []
            To be summed: 'latent' (diffusion only), and where asked for 'pixel' and 'gradient',
            'anchor' and 'round_trip'.
        """
        image = self._encode_image(batch)                                  # [N,C,h,w]
        if self._config.variant == 'end_to_end':
            losses = self._end_to_end(unet, image, batch)
        else:
            losses = self._diffusion_losses(unet, image, batch, generator)
        if self._learns:
            losses |= self._autoencoder_losses(batch[:max(1, len(batch) // ANCHOR_PART)])
        return losses

    def _encode_image(self, batch: ViewBatch) -> torch.Tensor:
        with torch.set_grad_enabled(self._learns):
            return encode(self._coder, batch.image)

    def _autoencoder_losses(self, batch: ViewBatch) -> dict[str, torch.Tensor]:
        """Hold the latents of depth maps where they were, and let the decoder follow."""
        depth = grey_depth(batch)                                          # [N,3,H,W]
        with torch.no_grad():
            before = encode(self._vae, depth)
        latents = encode(self._coder, depth)
        return {'anchor': self._anchor * (latents - before).square().mean(),
                'round_trip': relative_l1(decode_depth(self._coder, latents), batch)}

    def _end_to_end(
        self, unet: UNet, image: torch.Tensor, batch: ViewBatch,
    ) -> dict[str, torch.Tensor]:
        """One step from zero noise at t = 999, compared in pixels."""
        noisy = torch.zeros_like(image)
        timesteps = torch.full((len(batch),), self._diffusion.last_timestep).to(image.device)
        x0 = self._diffusion.predicted_x0(
            noisy, self._predict(unet, image, noisy, timesteps), timesteps)
        return self._pixel_losses(x0, batch)

    def _diffusion_losses(
        self, unet: UNet, image: torch.Tensor, batch: ViewBatch, generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """Marigold's masked error of the prediction at random timesteps."""
        # 1. Depth, repeated to three channels, through the unchanged autoencoder.
        with torch.no_grad():
            x0 = encode(self._vae, grey_depth(batch))                      # [N,C,h,w]
        # 2. Noise, drawn on the CPU so that a seed means the same on every device.
        timesteps = self._draw_timesteps(len(batch), generator)
        noise = annealed_noise(x0.shape, timesteps, self._config.multires_strength,
                               self._diffusion.last_timestep + 1, generator).to(x0)
        timesteps = timesteps.to(x0.device)
        noisy = self._diffusion.add_noise(x0, noise, timesteps)            # [N,C,h,w]
        noisy, noise = self._roll_out(unet, image, x0, noisy, noise, timesteps)
        # 3. The prediction, and what it should have been, where all pixels of a cell are valid.
        prediction = self._predict(unet, image, noisy, timesteps)
        losses = {'latent': self._config.latent_weight * masked_mse(
            prediction, self._diffusion.target(x0, noise, timesteps),
            latent_mask(batch.valid, VAE_SCALE_FACTOR, x0.shape[1]),
            self._diffusion.snr_weight(timesteps, self._config.max_snr_weight))}
        # 4. Some of the samples in pixels too.
        shown = slice(self._config.pixel_samples)
        if self._config.pixel_samples > 0:
            seen_x0 = self._diffusion.predicted_x0(
                noisy[shown], prediction[shown], timesteps[shown])
            losses |= self._pixel_losses(seen_x0, batch[shown])
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
        Give some samples the noisy latent that inference would have, made of a first prediction.

        Returns
        -------
        float32 [N, C, h, w], float32 [N, C, h, w]
            Noisy latents, and the noise that leads from the true x0 to them.
        """
        count = round(self._config.rollout_fraction
                      * int((timesteps < self._diffusion.last_timestep).sum()))
        if count == 0:
            return noisy, noise
        # They stand at the end of the batch: its beginning is at the last timestep.
        own = slice(len(noisy) - count, None)
        start = torch.full_like(timesteps[own], self._diffusion.last_timestep)
        begun = self._diffusion.add_noise(x0[own], noise[own], start)
        first_x0 = self._diffusion.predicted_x0(
            begun, self._predict(unet, image[own], begun, start), start)
        noisy, noise = noisy.clone(), noise.clone()
        noisy[own] = self._diffusion.add_noise(first_x0, noise[own], timesteps[own])
        noise[own] = self._diffusion.implied_noise(noisy[own], x0[own], timesteps[own])
        return noisy, noise

    def _predict(
        self, unet: UNet, image: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Call the U-Net with image and depth latents, in this order."""
        text = self._text.to(image.device).expand(len(image), -1, -1)
        prediction: torch.Tensor = unet(
            torch.cat([image, noisy], dim=1), timesteps, text, return_dict=False)[0]
        return prediction.float()

    def _pixel_losses(self, x0: torch.Tensor, batch: ViewBatch) -> dict[str, torch.Tensor]:
        """Decode, fit scale and shift to the truth by least squares, and compare."""
        low_m, spread_m = depth_range(batch.depth_m, batch.valid)
        truth = normalize_depth(batch.depth_m, low_m, spread_m)            # [N,1,H,W]
        mask = measured(batch.depth_m, batch.valid)[:, None]
        weight = (relative_weight(batch.depth_m, batch.valid, spread_m)
                  if self._config.relative_pixels else mask.float())
        aligned = align_least_squares(decode_depth(self._coder, x0), truth, mask)
        losses = {'pixel': self._config.pixel_weight * weighted_l1(aligned, truth, weight)}
        if self._config.gradient_weight > 0:
            losses['gradient'] = self._config.gradient_weight * gradient_l1(aligned, truth, mask)
        return losses
