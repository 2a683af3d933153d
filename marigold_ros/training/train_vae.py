"""
Train the small autoencoder on images and on depth maps of the same views.

    python -m marigold_ros.training.train_vae --config config/train_vae.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from pathlib import Path
from typing import Any

from diffusers import AutoencoderTiny
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn

from marigold_ros.data.frames import DepthFrame, evenly_spaced_indices, FrameSet
from marigold_ros.training.architectures import build_vae
from marigold_ros.training.checkpoints import load_vae, save_vae
from marigold_ros.training.command import run_command
from marigold_ros.training.config import AugmentationConfig, VAE_SCALE_FACTOR, VaeConfig
from marigold_ros.training.latents import reconstruct_depth
from marigold_ros.training.losses import gradient_l1, relative_l1, weighted_l1
from marigold_ros.training.trainer import Trainer
from marigold_ros.training.validation import compare_with_truth, ValidationResult
from marigold_ros.training.views import depth_as_images, random_view, ViewBatch

# Views of each set from which the scale of the latents is measured.
SCALE_VIEWS = 64


class NoisyAutoencoder(nn.Module):
    """Encode and decode, with noise added to the latent, as one module."""

    def __init__(self, vae: AutoencoderTiny) -> None:
        super().__init__()
        self.vae = vae

    def forward(
        self, images: torch.Tensor, latent_noise: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return decoded images [N, 3, H, W] and the latents without noise [N, C, h, w]."""
        latents = self.vae.encode(images).latents
        return self.vae.decode(latents + latent_noise).sample, latents


class VaeTrainer(Trainer[VaeConfig]):
    """
    Train the small autoencoder.

    Parameters
    ----------
    config : VaeConfig
    """

    def __init__(self, config: VaeConfig) -> None:
        torch.manual_seed(config.seed)
        self._vae = build_vae(config.architecture).to(memory_format=torch.channels_last)
        super().__init__(config, NoisyAutoencoder(self._vae))

    def prepare(self, device: torch.device, train: list[FrameSet]) -> None:
        """Load the unaugmented views from which the scale of the latents is measured."""
        unchanged = AugmentationConfig(flip_probability=0.0)
        random = np.random.default_rng(self.config.seed)
        self._scale_views = [
            stack_images_and_depths(random_view(frames[index], config.size, unchanged, random))
            for frames, config in zip(train, self.config.train)
            for index in evenly_spaced_indices(len(frames), SCALE_VIEWS)]

    def losses(self, model: Any, batch: ViewBatch,
               generator: torch.Generator) -> dict[str, torch.Tensor]:
        """
        Compare images and depth maps with their reconstructions.

        Returns
        -------
        dict of str to float32 []
            'reconstruction': L1; 'gradient': L1 of spatial gradients; 'penalty': mean square of
            the latents; 'depth' if `depth_weight` > 0: relative error of the depth maps.
        """
        images = stack_images_and_depths(batch)                                  # [2N,3,H,W]
        count, _, height, width = images.shape
        noise = self.config.latent_noise * torch.randn(
            count, self._vae.config.latent_channels, height // VAE_SCALE_FACTOR,
            width // VAE_SCALE_FACTOR, generator=generator)
        decoded, latents = model(images, noise.to(images.device))
        everywhere = torch.ones_like(images[:, :1], dtype=torch.bool)
        losses = {
            'reconstruction': weighted_l1(decoded, images, torch.ones_like(images)),
            'gradient': self.config.gradient_weight * gradient_l1(decoded, images, everywhere),
            'penalty': self.config.latent_penalty * latents.float().square().mean()}
        if self.config.depth_weight > 0:
            depth = decoded[len(batch):].mean(dim=1, keepdim=True)
            losses['depth'] = self.config.depth_weight * relative_l1(depth, batch)
        return losses

    @torch.no_grad()
    def save(self, folder: Path) -> None:
        """Write the autoencoder, with the scaling factor that gives latents of unit RMS."""
        device = next(self._vae.parameters()).device
        squares = [self._vae.encode(images.to(device)).latents.square().mean().item()
                   for images in self._scale_views]
        self._vae.register_to_config(scaling_factor=1 / math.sqrt(float(np.mean(squares))))
        save_vae(self._vae, folder / 'vae')

    @torch.no_grad()
    def validate(self, folder: Path, frame_sets: dict[str, FrameSet],
                 device: torch.device) -> ValidationResult:
        """Measure the error of encoding and decoding ground-truth depth."""
        vae = load_vae(str(folder / 'vae')).to(device)

        def reconstruct(frame: DepthFrame) -> NDArray[np.float32]:
            depth = reconstruct_depth(vae, torch.from_numpy(frame.depth_m)[None].to(device),
                                      torch.from_numpy(frame.valid)[None].to(device))
            return np.asarray(depth[0].cpu().numpy(), np.float32)

        return compare_with_truth({'reconstruction': reconstruct}, frame_sets,
                                  self.config.validation_frames)


def stack_images_and_depths(batch: ViewBatch) -> torch.Tensor:
    """
    Concatenate the images of views and their normalized depth maps as grey images.

    Returns
    -------
    float32 [2 N, 3, H, W]
        In [-1, 1], channels last.
    """
    both = torch.cat([batch.image, depth_as_images(batch)])
    return both.contiguous(memory_format=torch.channels_last)


def train_vae(config: VaeConfig) -> Path:
    """
    Train an autoencoder, or resume its training.

    Parameters
    ----------
    config : VaeConfig

    Returns
    -------
    Path
        Folder that holds the autoencoder as `vae`.

    Raises
    ------
    MarigoldError
        If the configuration or the data is invalid, or the loss is no longer finite.
    """
    return VaeTrainer(config).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 or 1."""
    return run_command(VaeConfig, train_vae, __doc__, arguments)


if __name__ == '__main__':
    raise SystemExit(main())
