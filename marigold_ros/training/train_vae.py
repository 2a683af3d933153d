"""Trains the small autoencoder on images and on depth maps of rendered frames."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from diffusers import AutoencoderTiny
import numpy as np
import torch

from marigold_ros.training.architecture import build_vae, LATENT_CHANNELS, VAE_SCALE_FACTOR
from marigold_ros.training.config import config_as_yaml, load_vae_config, VaeConfig
from marigold_ros.training.dataset import FrameShards, random_views
from marigold_ros.training.loop import take_step, train
from marigold_ros.training.losses import gradient_l1, weighted_l1
from marigold_ros.training.run_folder import RunFolder
from marigold_ros.training.schedule import Progress
from marigold_ros.training.state import load_state, save_state
from marigold_ros.training.targets import depth_range, normalize_depth
from marigold_ros.training.validation import round_trip_abs_rel

SCALE_BATCHES = 8


def image_and_depth_batch(
    shards: FrameShards, count: int, config: VaeConfig, generator: torch.Generator,
) -> torch.Tensor:
    """
    Draw views and, after them, the normalised depth maps of the same views as grey images.

    Returns
    -------
    float32 [2 * count, 3, height, width]
        In [-1, 1], channels last.
    """
    indices = torch.randint(len(shards), (count,), generator=generator).numpy()
    image, depth_m = random_views(*shards.take(np.sort(indices)), config.views, generator)
    depth = normalize_depth(depth_m, *depth_range(depth_m)).expand(-1, 3, -1, -1)
    return torch.cat([image, depth]).contiguous(memory_format=torch.channels_last)


def latent_shape(images: torch.Tensor) -> tuple[int, int, int, int]:
    """Return the shape of the latents of [N, 3, H, W] images."""
    count, _, height, width = images.shape
    return count, LATENT_CHANNELS, height // VAE_SCALE_FACTOR, width // VAE_SCALE_FACTOR


def encode_and_decode(
    vae: AutoencoderTiny, images: torch.Tensor, latent_noise: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Send images through the autoencoder, with noise added to their latents.

    Returns
    -------
    float32 [N, 3, H, W], float32 [N, 4, h, w]
        Decoded images and the undisturbed latents.
    """
    with torch.autocast('cpu', torch.bfloat16):
        latents = vae.encode(images).latents
        decoded = vae.decode(latents + latent_noise).sample
    return decoded.float(), latents.float()


def reconstruction_loss(
    images: torch.Tensor, decoded: torch.Tensor, latents: torch.Tensor, config: VaeConfig,
) -> torch.Tensor:
    """
    Compare images with what came back.

    Parameters
    ----------
    images, decoded : float32 [N, 3, H, W]
        Before and after.
    latents : float32 [N, 4, h, w]
        What lies between.
    config : VaeConfig
        Weights of the terms.

    Returns
    -------
    float32 []
        L1 + weighted gradient L1 + weighted mean square of the latent.
    """
    everywhere = torch.ones_like(images[:, :1], dtype=torch.bool)
    return (weighted_l1(decoded, images, torch.ones_like(images))
            + config.gradient_weight * gradient_l1(decoded, images, everywhere)
            + config.latent_penalty * latents.square().mean())


@torch.no_grad()
def measure_scaling_factor(
    vae: AutoencoderTiny, shards: FrameShards, config: VaeConfig, generator: torch.Generator,
) -> float:
    """Return what latents of images and depths must be multiplied by for unit deviation."""
    deviations = []
    for _ in range(SCALE_BATCHES):
        images = image_and_depth_batch(shards, 16, config, generator)
        deviations.append(vae.encode(images).latents.square().mean().item())
    return 1 / math.sqrt(float(np.mean(deviations)))


class VaeTraining:
    """
    One training of the autoencoder.

    Parameters
    ----------
    config : VaeConfig
        The recipe.

    Raises
    ------
    MarigoldError
        There are no frames to learn from.
    """

    def __init__(self, config: VaeConfig) -> None:
        self._config = config
        self._shards = FrameShards(Path(config.frames))
        self._validation = FrameShards(Path(config.validation_frames))
        torch.manual_seed(config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)
        self.vae = build_vae(config.architecture).to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.AdamW(
            self.vae.parameters(), config.schedule.learning_rate, weight_decay=0.0)
        self._encode_and_decode = (
            torch.compile(encode_and_decode, dynamic=False) if config.compile
            else encode_and_decode)
        self._run = RunFolder(Path(config.run_folder), config_as_yaml(config))

    def run(self) -> Path:
        """
        Train to the end of the schedule or until interrupted, saving on the way.

        Returns
        -------
        Path
            Folder of the autoencoder, its `scaling_factor` measured.
        """
        train(self._resumed_progress(), self._run, self._config.save_minutes,
              iterate=self._iterate, count_frames=self._shards.refresh, save=self._save)
        return self._run.checkpoint / 'vae'

    def _iterate(self, progress: Progress) -> dict[str, float]:
        """Take one optimizer step and return its loss."""
        half_batch = self._config.schedule.batch_size // 2
        images = image_and_depth_batch(self._shards, half_batch, self._config, self._generator)
        noise = self._config.latent_noise * torch.randn(
            latent_shape(images), generator=self._generator)
        decoded, latents = self._encode_and_decode(self.vae, images, noise)
        loss = reconstruction_loss(images, decoded, latents, self._config)
        return take_step(self._optimizer, {'reconstruction': loss}, self._config.schedule,
                         progress, self._run)

    def _resumed_progress(self) -> Progress:
        """Continue a saved state of the same run folder, or start."""
        if not self._run.state.exists():
            return Progress(self._config.schedule)
        iteration, minutes = load_state(self._run.state, self.vae, self._optimizer, None)
        return Progress(self._config.schedule, iteration, minutes)

    def _save(self, progress: Progress) -> None:
        """Write the resumable state and the autoencoder with its measured scale."""
        save_state(self._run.state, self.vae, self._optimizer, None,
                   iteration=progress.iteration, minutes=progress.minutes)
        factor = measure_scaling_factor(self.vae, self._shards, self._config, self._generator)
        self.vae.register_to_config(scaling_factor=factor)
        self.vae.save_pretrained(self._run.checkpoint / 'vae')
        self._run.record({'validation/round_trip_abs_rel': round_trip_abs_rel(
            self.vae, self._validation)}, progress.iteration)


def main(arguments: list[str] | None = None) -> None:
    """Train the autoencoder that a YAML recipe describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', type=Path, required=True, help='recipe, see config/')
    options = parser.parse_args(arguments)
    print(VaeTraining(load_vae_config(options.config)).run())


if __name__ == '__main__':
    main()
