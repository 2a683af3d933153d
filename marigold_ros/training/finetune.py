"""Trains Marigold's U-Net on the latents of an autoencoder that is frozen or held in place."""

from __future__ import annotations

import argparse
from collections.abc import Callable
import copy
from pathlib import Path

from diffusers import AutoencoderTiny, MarigoldDepthPipeline, UNet2DConditionModel
import torch

from marigold_ros.training.architecture import (
    assemble_pipeline, build_text_encoder, build_unet, empty_text_embedding, save_pipeline,
)
from marigold_ros.training.config import config_as_yaml, FinetuneConfig, load_finetune_config
from marigold_ros.training.dataset import FrameShards, random_views
from marigold_ros.training.diffusion import Diffusion
from marigold_ros.training.latents import encode_views, LatentBatch, LatentPool
from marigold_ros.training.loop import take_step, train
from marigold_ros.training.losses import (
    align_least_squares, gradient_l1, masked_mse, weighted_l1,
)
from marigold_ros.training.noise import annealed_noise
from marigold_ros.training.run_folder import RunFolder
from marigold_ros.training.schedule import Progress
from marigold_ros.training.state import load_state, save_state, WeightAverage
from marigold_ros.training.validation import mean_abs_rel

VALIDATION_STEPS = (1, 4)


class Finetuning:
    """
    One training of the U-Net.

    Parameters
    ----------
    config : FinetuneConfig
        The recipe.

    Raises
    ------
    MarigoldError
        There are no frames to learn from or to validate on.
    """

    def __init__(self, config: FinetuneConfig) -> None:
        self._config = config
        self._shards = FrameShards(Path(config.frames))
        self._validation = FrameShards(Path(config.validation_frames))
        torch.manual_seed(config.seed)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._pipeline = _initial_pipeline(config)
        self._targets = AutoencoderTiny.from_pretrained(config.vae)
        self._targets.requires_grad_(False).to(memory_format=torch.channels_last)
        self._unet: UNet2DConditionModel = copy.deepcopy(self._pipeline.unet)
        self._unet.to(memory_format=torch.channels_last)
        self._trained = torch.nn.ModuleDict({'unet': self._unet})
        if config.diffusion.encoder_anchor > 0:
            encoder = copy.deepcopy(self._pipeline.vae.encoder)
            encoder.requires_grad_().to(memory_format=torch.channels_last)
            self._trained['encoder'] = encoder
            self._encode = torch.compile(encoder, dynamic=False) if config.compile else encoder
        self._text = empty_text_embedding(self._pipeline.tokenizer, self._pipeline.text_encoder)
        self._diffusion = Diffusion(
            self._pipeline.scheduler.alphas_cumprod, config.diffusion)
        self._average = WeightAverage(self._trained, config.diffusion.ema_decay)
        self._optimizer = torch.optim.AdamW(
            self._trained.parameters(), config.schedule.learning_rate, weight_decay=0.01,
            fused=True)
        self._pool = LatentPool(
            max(config.diffusion.latent_pool, config.schedule.batch_size), self._generator)
        self._predict = torch.compile(self._unet, dynamic=False) if config.compile else self._unet
        self._decode = (
            torch.compile(self._targets.decoder, dynamic=False) if config.compile
            else self._targets.decoder)
        self._run = RunFolder(Path(config.run_folder), config_as_yaml(config))

    def run(self) -> Path:
        """
        Train to the end of the schedule or until interrupted, saving on the way.

        Returns
        -------
        Path
            Folder of the checkpoint, with the averaged weights in half precision.
        """
        train(self._resumed_progress(), self._run, self._config.save_minutes,
              iterate=self._iterate, count_frames=self._shards.refresh, save=self._save)
        return self._run.checkpoint

    def _iterate(self, progress: Progress) -> dict[str, float]:
        """Take one optimizer step and return its losses."""
        scalars = take_step(self._optimizer, self._losses(self._next_batch()),
                            self._config.schedule, progress, self._run)
        self._average.update(self._trained)
        return scalars

    def _next_batch(self) -> LatentBatch:
        """Encode some fresh views, then draw a batch from all that are held."""
        batch_size = self._config.schedule.batch_size
        fresh = max(1, batch_size // self._config.diffusion.latent_reuse)
        while True:
            indices = torch.randint(len(self._shards), (fresh,), generator=self._generator)
            views = random_views(
                *self._shards.take(indices.numpy()), self._config.views, self._generator)
            self._pool.add(encode_views(self._targets, *views))
            if len(self._pool) >= batch_size:
                return self._pool.draw(batch_size)

    def _losses(self, batch: LatentBatch) -> dict[str, torch.Tensor]:
        """
        Compare predictions from noisy latents with the truth, in latents and in pixels.

        Returns
        -------
        dict
            'latent': the v objective; 'pixel' and 'gradient': on some decoded samples.
        """
        settings = self._config.diffusion
        image, anchor = self._image_latents(batch)
        timesteps = self._diffusion.draw_timesteps(len(batch), self._generator)
        noise = annealed_noise(
            batch.depth.shape, timesteps, settings.multires_strength,
            self._diffusion.last_timestep + 1, self._generator)
        start = self._own_first_predictions(image.detach(), batch.depth, noise)
        noisy = self._diffusion.add_noise(start, noise, timesteps)
        x0 = self._predicted_x0(self._predict, image, noisy, timesteps)
        losses = {'latent': masked_mse(
            x0, batch.depth, batch.mask, self._diffusion.x0_weight(timesteps))} | anchor
        if settings.pixel_samples > 0:
            chosen = torch.linspace(0, len(batch) - 1, settings.pixel_samples).long()
            losses |= self._pixel_losses(x0[chosen], batch.take(chosen))
        return losses

    def _image_latents(
        self, batch: LatentBatch,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the images' latents and, while the encoder learns, the loss that holds it."""
        settings = self._config.diffusion
        if settings.encoder_anchor == 0:
            return batch.image, {}
        held = settings.anchor_samples
        maps = batch.normalized_depth[:held].expand(-1, 3, -1, -1)
        both = torch.cat([batch.view, maps]).contiguous(memory_format=torch.channels_last)
        with torch.autocast('cpu', torch.bfloat16):
            latents = self._encode(both)
        latents = latents.float() * self._targets.config.scaling_factor
        image, depth = torch.split(latents, [len(batch), held])
        drift = (depth - batch.depth[:held]).square().mean()
        return image, {'anchor': settings.encoder_anchor * drift}

    def _own_first_predictions(
        self, image: torch.Tensor, depth: torch.Tensor, noise: torch.Tensor,
    ) -> torch.Tensor:
        """Replace the true latent of the last samples by the model's prediction from noise."""
        settings = self._config.diffusion
        other = len(depth) - round(settings.terminal_fraction * len(depth))
        count = round(settings.rollout_fraction * other)
        if count == 0:
            return depth
        last = torch.full((count,), self._diffusion.last_timestep)
        with torch.no_grad():
            own = self._predicted_x0(
                self._unet, image[-count:], noise[-count:], last)
        return torch.cat([depth[:-count], own])

    def _predicted_x0(
        self, unet: Callable[..., tuple[torch.Tensor]], image: torch.Tensor,
        noisy: torch.Tensor, timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Run the U-Net once and return its x0, float32 [N, 4, h, w]."""
        both = torch.cat([image, noisy], dim=1).contiguous(memory_format=torch.channels_last)
        text = self._text.expand(len(both), -1, -1)
        with torch.autocast('cpu', torch.bfloat16):
            velocity = unet(both, timesteps, text, return_dict=False)[0]
        return self._diffusion.predicted_x0(noisy, velocity.float(), timesteps)

    def _pixel_losses(self, x0: torch.Tensor, batch: LatentBatch) -> dict[str, torch.Tensor]:
        """Decode, align to the truth by least squares; relative error and gradients."""
        settings = self._config.diffusion
        with torch.autocast('cpu', torch.bfloat16):
            decoded = self._decode(x0 / self._targets.config.scaling_factor)
        depth = decoded.float().mean(dim=1, keepdim=True)
        measured = batch.relative_weight > 0
        aligned = align_least_squares(depth, batch.normalized_depth, measured)
        return {
            'pixel': settings.pixel_weight * weighted_l1(
                aligned, batch.normalized_depth, batch.relative_weight),
            'gradient': settings.gradient_weight * gradient_l1(
                aligned, batch.normalized_depth, measured),
        }

    def _resumed_progress(self) -> Progress:
        """Continue a saved state of the same run folder, or start."""
        if not self._run.state.exists():
            return Progress(self._config.schedule)
        iteration, minutes = load_state(
            self._run.state, self._trained, self._optimizer, self._average)
        return Progress(self._config.schedule, iteration, minutes)

    def _save(self, progress: Progress) -> None:
        """Write the resumable state and the checkpoint, and validate what was written."""
        save_state(self._run.state, self._trained, self._optimizer, self._average,
                   iteration=progress.iteration, minutes=progress.minutes)
        for name, module in (('unet', self._pipeline.unet),
                             ('encoder', self._pipeline.vae.encoder)):
            if name in self._trained:
                module.load_state_dict(_of_part(self._average.weights, name))
        save_pipeline(_in_half_precision(self._pipeline), self._run.checkpoint)
        self._run.record(
            {f'validation/abs_rel_{steps}': mean_abs_rel(self._pipeline, self._validation, steps)
             for steps in VALIDATION_STEPS}, progress.iteration)


def _of_part(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Pick one module's weights and drop its name from their keys."""
    return {key.removeprefix(f'{name}.'): value for key, value in weights.items()
            if key.startswith(f'{name}.')}


def _initial_pipeline(config: FinetuneConfig) -> MarigoldDepthPipeline:
    """Open the checkpoint to start from, or build a U-Net and text encoder from scratch."""
    defaults = {
        'default_denoising_steps': config.default_denoising_steps,
        'default_processing_resolution': max(config.views.height, config.views.width)}
    if config.initial_checkpoint is not None:
        pipeline = MarigoldDepthPipeline.from_pretrained(config.initial_checkpoint, **defaults)
    else:
        pipeline = assemble_pipeline(
            build_unet(config.architecture), AutoencoderTiny.from_pretrained(config.vae),
            *build_text_encoder(config.architecture.text_channels), **defaults)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _in_half_precision(pipeline: MarigoldDepthPipeline) -> MarigoldDepthPipeline:
    """Return a copy with half-precision networks; the training keeps its own."""
    half = copy.deepcopy(pipeline)
    half.unet.half()
    half.vae.half()
    # Not the text encoder: transformers opens it in its stored precision whatever the rest is.
    return half


def main(arguments: list[str] | None = None) -> None:
    """Train the U-Net that a YAML recipe describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', type=Path, required=True, help='recipe, see config/')
    options = parser.parse_args(arguments)
    print(Finetuning(load_finetune_config(options.config)).run())


if __name__ == '__main__':
    main()
