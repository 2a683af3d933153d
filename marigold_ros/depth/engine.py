"""DepthEngine: the only door to the diffusion model."""

from __future__ import annotations

from collections import defaultdict
import time
from typing import Sequence

import torch

from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.complexity import check_rgb
from marigold_ros.depth.config import EngineConfig
from marigold_ros.depth.denoise import denoise, schedule, StepCoefficients
from marigold_ros.depth.device import resolve_device, resolve_dtype, Stopwatch
from marigold_ros.depth.ensemble import ensemble
from marigold_ros.depth.errors import InputError
from marigold_ros.depth.preprocess import padded_size, preprocess, processing_size, restore
from marigold_ros.depth.types import (CheckpointInfo, DepthPrediction, FloatImage, RgbImage,
                                      StageTiming)

# Disagreement of the decoder's channels, as a part of the depth range, at which the confidence
# has fallen to 1/e.
CONFIDENCE_SPREAD = 0.05


class DepthEngine:
    """
    Run a Marigold checkpoint on images; made by `DepthEngine.load`.

    Attributes
    ----------
    checkpoint_info : CheckpointInfo
    device : torch.device
    dtype : torch.dtype
        Of the networks; latents and depths are float32 throughout.
    processing_resolution : int
        Longest edge, px; 0 keeps the input's size.
    """

    def __init__(self, config: EngineConfig, vae: str | None = None) -> None:
        """Load the networks; `DepthEngine.load` is the usual way in."""
        self.device = resolve_device(config.device)
        self.dtype = resolve_dtype(config.dtype, self.device)
        components = load_components(config.checkpoint, vae=vae, dtype=self.dtype)
        self.checkpoint_info: CheckpointInfo = components.info
        resolution = config.processing_resolution
        self.processing_resolution = (components.info.processing_resolution if resolution is None
                                      else resolution)
        self._unet = components.unet.to(self.device, memory_format=torch.channels_last)
        self._vae = components.vae.to(self.device, memory_format=torch.channels_last)
        self._scheduler = components.scheduler
        self._empty_text = components.empty_text_embedding.to(self.device, self.dtype)  # [1,2,D]
        self._schedules: dict[int, list[StepCoefficients]] = {}
        if config.compile:
            self._unet = torch.compile(self._unet, dynamic=False)

    @classmethod
    def load(cls, checkpoint: str = 'tiny', *, device: str = 'auto', dtype: str = 'auto',
             processing_resolution: int | None = None, vae: str | None = None,
             compile: bool = False) -> DepthEngine:  # noqa: A002, torch's own word for it
        """
        Load a checkpoint and put it on a device.

        Parameters
        ----------
        checkpoint : str
            Embedded name, folder in diffusers' Marigold layout, or hub id.
        device, dtype, processing_resolution, compile
            See `EngineConfig`.
        vae : str, optional
            Folder or hub id of a VAE to use instead of the checkpoint's own.

        Raises
        ------
        CheckpointError
            If the checkpoint is missing, truncated or not Marigold's.
        ConfigError
            If a setting breaks its rule or the device is not there.
        """
        return cls(EngineConfig(checkpoint, device, dtype, processing_resolution, compile), vae)

    def processing_size(self, height: int, width: int) -> tuple[int, int]:
        """Padded size (PPH, PPW) at which an image of (H, W) is processed."""
        size = processing_size(height, width, self.processing_resolution)
        return padded_size(size, self.checkpoint_info.vae_scale_factor)

    def infer(self, rgb: RgbImage, *, num_inference_steps: int | None = None,
              latents: torch.Tensor | None = None, seed: int = 0, ensemble_size: int = 1,
              deadline_s: float | None = None,
              x0_tolerance: float | None = None) -> DepthPrediction:
        """
        Predict the depth of one image.

        Parameters
        ----------
        rgb : uint8 [H, W, 3]
        num_inference_steps : int, optional
            T; the checkpoint's default if None.
        latents : tensor [E, C, h, w], optional
            Replaces the initial noise.
        seed : int
            Of the initial noise; the same on every device.
        ensemble_size : int
            E, members from different noise, merged by their aligned median.
        deadline_s : float, optional
            Seconds from the call after which no further denoising step shall end.
        x0_tolerance : float, optional
            Stop once the x0 latent's relative RMS change per step is at most this.

        Returns
        -------
        DepthPrediction

        Raises
        ------
        InputError
            If an argument breaks its rule.
        """
        steps = (self.checkpoint_info.default_steps if num_inference_steps is None
                 else num_inference_steps)
        return self.infer_batch([rgb], [steps],
                                latents=None if latents is None else [latents], seed=seed,
                                ensemble_size=ensemble_size, deadline_s=deadline_s,
                                x0_tolerance=x0_tolerance)[0]

    @torch.inference_mode()
    def infer_batch(self, frames: Sequence[RgbImage], num_inference_steps: Sequence[int], *,
                    latents: Sequence[torch.Tensor] | None = None, seed: int | Sequence[int] = 0,
                    ensemble_size: int = 1, deadline_s: float | None = None,
                    x0_tolerance: float | None = None) -> list[DepthPrediction]:
        """
        Predict the depths of several images, each with its own number of steps.

        Frames of one padded size are one batch; other sizes run as further batches.

        Parameters
        ----------
        frames : sequence of uint8 [H, W, 3]
            Of any sizes.
        num_inference_steps : sequence of int
            T_i, one per frame.
        latents : sequence of tensor [E, C, h, w], optional
            One per frame; replaces the initial noise.
        seed : int or sequence of int
            Of the initial noise, one for all frames or one per frame.
        ensemble_size, deadline_s, x0_tolerance
            See `infer`.

        Returns
        -------
        list of DepthPrediction
            In the order of `frames`.
        """
        started = time.perf_counter()
        seeds = [seed] * len(frames) if isinstance(seed, int) else list(seed)
        self._check(frames, num_inference_steps, latents, seeds, ensemble_size)
        batches: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, rgb in enumerate(frames):
            batches[self.processing_size(*rgb.shape[:2])].append(i)
        predictions: dict[int, DepthPrediction] = {}
        for indices in batches.values():
            used_s = time.perf_counter() - started
            batch = self._infer_one_size(
                [frames[i] for i in indices], [num_inference_steps[i] for i in indices],
                None if latents is None else [latents[i] for i in indices],
                [seeds[i] for i in indices], ensemble_size,
                None if deadline_s is None else deadline_s - used_s, x0_tolerance)
            predictions.update(zip(indices, batch))
        return [predictions[i] for i in range(len(frames))]

    def _infer_one_size(self, frames: Sequence[RgbImage], num_inference_steps: Sequence[int],
                        latents: Sequence[torch.Tensor] | None, seeds: Sequence[int],
                        ensemble_size: int, deadline_s: float | None,
                        x0_tolerance: float | None) -> list[DepthPrediction]:
        """Run one ragged batch of N frames with E members each."""
        watch = Stopwatch(self.device)
        info, members = self.checkpoint_info, ensemble_size

        # 1. Images to the networks' size and range; frames may differ in size before this.
        sizes = [processing_size(rgb.shape[0], rgb.shape[1], self.processing_resolution)
                 for rgb in frames]
        images = torch.cat([preprocess(rgb, size, info.vae_scale_factor, self.device)
                            for rgb, size in zip(frames, sizes)])  # [N,3,PPH,PPW]
        preprocess_s = watch.lap()

        # 2. Encode each image once, whatever its steps and members.
        image_latent = self._encode(images).repeat_interleave(members, dim=0)  # [N*E,C,h,w]
        encode_s = watch.lap()

        # 3. Start from the given latents, or from noise that depends on the seed alone.
        shape = (members, *image_latent.shape[1:])
        latent = torch.cat(
            [self._initial_latent(shape, seed) for seed in seeds] if latents is None
            else [self._given_latent(given, shape) for given in latents])  # [N*E,C,h,w]

        # 4. Denoise, T_i steps for frame i.
        schedules = [self._schedule(steps) for steps in num_inference_steps
                     for _ in range(members)]
        spent_s = preprocess_s + encode_s
        denoised = denoise(self._network, image_latent, latent, schedules,
                           deadline_s=None if deadline_s is None else deadline_s - spent_s,
                           x0_tolerance=x0_tolerance)
        denoise_s = watch.lap()

        # 5. Decode all members together.
        latent = torch.stack([result.latent for result in denoised])  # [N*E,C,h,w]
        decoded = self._decode(latent)  # [N*E,3,PPH,PPW]
        decode_s = watch.lap()

        # 6. Per frame: cut the padding, merge the members, go back to the input's size.
        own = [slice(i * members, (i + 1) * members) for i in range(len(frames))]
        maps = [_finish(decoded[mine, :, :size[0], :size[1]], rgb.shape[:2])
                for mine, size, rgb in zip(own, sizes, frames)]
        timing = StageTiming(preprocess_s, encode_s, denoise_s, decode_s, watch.lap())
        return [DepthPrediction(depth, confidence, uncertainty, latent[mine],
                                max(result.num_inference_steps for result in denoised[mine]),
                                timing)
                for mine, (depth, confidence, uncertainty) in zip(own, maps)]

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        """Image latents: the VAE's mean times its scaling factor, [N,3,PPH,PPW] -> [N,C,h,w]."""
        images = images.to(self.dtype, memory_format=torch.channels_last)
        encoded = self._vae.encode(images)
        latent: torch.Tensor = (encoded.latent_dist.mode() if hasattr(encoded, 'latent_dist')
                                else encoded.latents)
        scale: float = self._vae.config.scaling_factor
        return latent.float() * scale

    def _network(self, latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Call the U-Net, [n,2C,h,w] and [n] -> [n,C,h,w], float32 outside, self.dtype inside."""
        latents = latents.to(self.dtype, memory_format=torch.channels_last)
        text = self._empty_text.expand(len(latents), -1, -1)  # [n,2,D]
        output: torch.Tensor = self._unet(latents, timesteps, encoder_hidden_states=text,
                                          return_dict=False)[0]
        return output.float()

    def _decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode latents to three guesses of each depth, [N*E,C,h,w] -> [N*E,3,PPH,PPW]."""
        latent = (latent / self._vae.config.scaling_factor).to(
            self.dtype, memory_format=torch.channels_last)
        decoded: torch.Tensor = self._vae.decode(latent, return_dict=False)[0]
        return decoded.float()

    def _initial_latent(self, shape: tuple[int, ...], seed: int) -> torch.Tensor:
        """Noise drawn on the CPU, so that a seed means the same on every device; [E,C,h,w]."""
        if self.checkpoint_info.initial_latent == 'zeros':
            return torch.zeros(shape, device=self.device)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator).to(self.device)

    def _given_latent(self, latent: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if latent.shape != shape:
            raise InputError(f'`latents` must have shape {list(shape)} per frame; '
                             f'got {list(latent.shape)}')
        return latent.to(self.device, torch.float32)

    def _schedule(self, num_inference_steps: int) -> list[StepCoefficients]:
        if num_inference_steps not in self._schedules:
            self._schedules[num_inference_steps] = schedule(self._scheduler, num_inference_steps)
        return self._schedules[num_inference_steps]

    @staticmethod
    def _check(frames: Sequence[RgbImage], num_inference_steps: Sequence[int],
               latents: Sequence[torch.Tensor] | None, seeds: Sequence[int],
               ensemble_size: int) -> None:
        for rgb in frames:
            check_rgb(rgb)
        for name, values in (('num_inference_steps', num_inference_steps), ('seed', seeds),
                             ('latents', frames if latents is None else latents)):
            if len(values) != len(frames):
                raise InputError(f'`{name}` must have one entry per frame, {len(frames)}; '
                                 f'got {len(values)}')
        if ensemble_size < 1:
            raise InputError(f'`ensemble_size` must be at least 1; got {ensemble_size}')


def _finish(decoded: torch.Tensor, size: tuple[int, int]
            ) -> tuple[FloatImage, FloatImage, FloatImage | None]:
    """
    Merge the members of one frame and go back to the input's size.

    The decoder was trained on depth repeated to three channels: its mean is the depth, and where
    its channels disagree it is unsure.

    Parameters
    ----------
    decoded : float32 tensor [E, 3, PH, PW]
        About in [-1, 1].
    size : (int, int)
        Input size (H, W).

    Returns
    -------
    depth, confidence : float32 [H, W]
    uncertainty : float32 [H, W] or None
        None for a single member.
    """
    members = (decoded.mean(dim=1, keepdim=True).clip(-1.0, 1.0) + 1.0) / 2.0  # [E,1,PH,PW]
    spread = (decoded.amax(dim=1, keepdim=True) - decoded.amin(dim=1, keepdim=True)) / 2.0
    confidence = torch.exp(-spread.mean(dim=0, keepdim=True) / CONFIDENCE_SPREAD)  # [1,1,PH,PW]
    depth, uncertainty = (members, None) if len(members) == 1 else ensemble(members)
    return (_to_numpy(restore(depth, size)), _to_numpy(restore(confidence, size)),
            None if uncertainty is None else _to_numpy(restore(uncertainty, size)))


def _to_numpy(maps: torch.Tensor) -> FloatImage:
    """[1, 1, H, W] tensor -> contiguous float32 [H, W]."""
    image: FloatImage = maps[0, 0].contiguous().cpu().numpy()
    return image
