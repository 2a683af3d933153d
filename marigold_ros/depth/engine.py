"""DepthEngine: the entry point to the diffusion model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
import time
from typing import TypeVar

import numpy as np
import torch

from marigold_ros.depth.batch_runner import BatchRunner
from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.complexity import check_rgb
from marigold_ros.depth.config import EngineConfig
from marigold_ros.depth.convolution_folding import fold_convolutions
from marigold_ros.depth.denoise import Denoised
from marigold_ros.depth.device import device_context, Stopwatch, synchronized_time_s
from marigold_ros.depth.errors import InputError
from marigold_ros.depth.executors import executor_for
from marigold_ros.depth.executors.base import Executor
from marigold_ros.depth.folding import fold
from marigold_ros.depth.postprocess import postprocess
from marigold_ros.depth.preprocess import padded_size, preprocess, processing_size
from marigold_ros.depth.stages import make_stages
from marigold_ros.depth.types import (
    BatchTiming,
    CheckpointInfo,
    DepthPrediction,
    FloatImage,
    RgbImage,
    StageTiming,
)
from marigold_ros.depth.upsampling import resize_mask, resize_to_image, upsample_depth

Prediction = TypeVar('Prediction', bound=DepthPrediction)
# Depth, confidence and uncertainty.
Maps = tuple[FloatImage, FloatImage | None, FloatImage | None]


class DepthEngine:
    """
    Run a Marigold checkpoint on images; created by `DepthEngine.load`.

    Attributes
    ----------
    checkpoint_info : CheckpointInfo
    device : torch.device
    dtype : torch.dtype
        In which the networks compute; latents and depths are always float32.
    processing_resolution : int
        Longest edge, px; 0 keeps the input's size.
    upsampling : {'guided', 'bilinear'}
        How depth is brought to the size of the image.
    batch_limits : dict of (int, int) to int
        Padded size -> largest number of images (frames times members) that fits into the
        device's memory; contains only sizes that once exceeded it.

    Examples
    --------
    >>> engine = DepthEngine.load(device='cpu')
    >>> rgb = np.zeros((48, 64, 3), np.uint8)
    >>> rgb[24:] = 200
    >>> prediction = engine.infer(rgb, num_inference_steps=2)
    >>> prediction.affine_invariant_depth.shape, prediction.affine_invariant_depth.dtype
    ((48, 64), dtype('float32'))
    """

    def __init__(self, config: EngineConfig, vae: str | None = None,
                 executor: Executor | None = None) -> None:
        """
        Load the networks; `DepthEngine.load` does the same with the settings as arguments.

        An `executor` runs the networks in place of the one for the device, dtype and `compile` of
        `config`, for comparisons.
        """
        self._executor = executor or executor_for(config.device, config.dtype,
                                                  compile=config.compile)
        self.device, self.dtype = self._executor.device, self._executor.dtype
        components = load_components(config.checkpoint, vae=vae,
                                     dtype=self._executor.weights_dtype)
        self.checkpoint_info: CheckpointInfo = components.info
        resolution = config.processing_resolution
        self.processing_resolution = (components.info.processing_resolution if resolution is None
                                      else resolution)
        self.upsampling = config.upsampling
        self._latent_channels = components.vae.config.latent_channels
        networks = fold(components)
        if self.device.type == 'cpu':  # not measured with CUDA, see benchmarks.engine_layers
            networks = fold_convolutions(networks)
        self._executor.load(make_stages(networks, self.device, self._executor.weights_dtype,
                                        compiled=config.compile))
        self._runner = BatchRunner(self._executor, components.scheduler, networks.time_table)
        self.batch_limits = self._runner.batch_limits

    @classmethod
    def load(cls, checkpoint: str = 'tiny', *, device: str = 'auto', dtype: str = 'auto',
             processing_resolution: int | None = None, vae: str | None = None,
             compile: bool = False,  # noqa: A002, torch's own word for it
             upsampling: str = EngineConfig.upsampling) -> DepthEngine:
        """
        Load a checkpoint onto a device.

        Parameters
        ----------
        checkpoint : str
            Embedded name, folder in diffusers' Marigold layout, or hub id.
        device, dtype, processing_resolution, compile, upsampling
            See `EngineConfig`.
        vae : str, optional
            Folder or hub id of a VAE that replaces the checkpoint's own.

        Raises
        ------
        CheckpointError
            If the checkpoint is missing, truncated or not Marigold's.
        ConfigError
            If a setting is invalid or the device does not exist.
        """
        return cls(EngineConfig(checkpoint, device, dtype, processing_resolution, compile,
                                upsampling), vae)

    @property
    def executor_name(self) -> str:
        """How the networks are run: torch, inductor, cuda_graph or openvino:<DEVICE>."""
        return self._executor.name

    def close(self) -> None:
        """Wait for what is compiled in the background, and compile nothing more."""
        self._executor.close()

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the padded size (PPH, PPW) at which an image of (H, W) is processed."""
        size = processing_size(height, width, self.processing_resolution)
        return padded_size(size, self.checkpoint_info.vae_scale_factor)

    def warm_up(self, sizes: Sequence[tuple[int, int]], batch_sizes: Sequence[int],
                num_inference_steps: int, *, ensemble_size: int = 1) -> list[BatchTiming]:
        """
        Compile and allocate for frames of these sizes, and measure their latency.

        Parameters
        ----------
        sizes : sequence of (int, int)
            Image sizes (H, W).
        batch_sizes : sequence of int
            Numbers of frames per batch.
        num_inference_steps : int
            T of every frame.
        ensemble_size : int
            Number of members E.

        Returns
        -------
        list of BatchTiming
            One per size and batch size, measured in a second run without publication.
        """
        timings = []
        for height, width in sizes:
            for batch_size in sorted(batch_sizes):
                frames = [np.zeros((height, width, 3), np.uint8)] * batch_size
                for _ in range(2):
                    prediction = self.infer_batch(frames, [num_inference_steps] * batch_size,
                                                  ensemble_size=ensemble_size)[0]
                timings.append(BatchTiming.from_stages(
                    self.padded_size(height, width), (num_inference_steps,) * batch_size,
                    prediction.timing))
        return timings

    def prepare_in_background(self) -> None:
        """
        Never wait until the networks are compiled for another image size.

        Frames of that size run with torch, more slowly, until they are; their depth is the same
        but for rounding.
        """
        self._executor.wait = False

    def infer(self, rgb: RgbImage, *, num_inference_steps: int | None = None,
              latents: torch.Tensor | None = None, seed: int = 0, ensemble_size: int = 1,
              deadline_s: float | None = None) -> DepthPrediction:
        """
        Predict the depth of one image.

        Parameters
        ----------
        rgb : uint8 [H, W, 3]
        num_inference_steps : int, optional
            T; the checkpoint's default if None.
        latents : tensor [E, C, h, w], optional
            Initial latents, instead of noise.
        seed : int
            Of the initial noise, which is the same on every device.
        ensemble_size : int
            E, members with different noise, merged by the median after alignment.
        deadline_s : float, optional
            Time from the call, s; a denoising step expected to end later is not started.

        Returns
        -------
        DepthPrediction

        Raises
        ------
        InputError
            If an argument is invalid.
        OutOfMemoryError
            If a single image does not fit into the device's memory.
        ConfigError
            If the device cannot compile the networks for this size.
        """
        steps = (self.checkpoint_info.default_steps if num_inference_steps is None
                 else num_inference_steps)
        return self.infer_batch([rgb], [steps],
                                latents=None if latents is None else [latents], seed=seed,
                                ensemble_size=ensemble_size, deadline_s=deadline_s)[0]

    @torch.inference_mode()
    def infer_batch(self, frames: Sequence[RgbImage], num_inference_steps: Sequence[int], *,
                    latents: Sequence[torch.Tensor] | None = None, seed: int | Sequence[int] = 0,
                    ensemble_size: int = 1, deadline_s: float | None = None,
                    upsample: bool = True) -> list[DepthPrediction]:
        """
        Predict the depth of several images, each with its own number of steps.

        Frames of one padded size form one batch, which is split if it does not fit into the
        device's memory (see `batch_limits`).

        Parameters
        ----------
        frames : sequence of uint8 [H, W, 3]
            Of any sizes.
        num_inference_steps : sequence of int
            T_i, one per frame.
        latents : sequence of tensor [E, C, h, w], optional
            Initial latents, one per frame, instead of noise.
        seed : int or sequence of int
            Of the initial noise, one for all frames or one per frame.
        ensemble_size, deadline_s
            See `infer`.
        upsample : bool
            Otherwise the maps stay at the processing size [PH, PW], as `upsample` takes them.

        Returns
        -------
        list of DepthPrediction
            In the order of `frames`.

        Raises
        ------
        InputError, OutOfMemoryError, ConfigError
            See `infer`.
        """
        deadline = None if deadline_s is None else time.perf_counter() + deadline_s
        seeds = [seed] * len(frames) if isinstance(seed, int) else list(seed)
        self._check_arguments(frames, num_inference_steps, latents, seeds, ensemble_size)
        batches: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, rgb in enumerate(frames):
            batches[self.padded_size(*rgb.shape[:2])].append(i)
        predictions: dict[int, DepthPrediction] = {}
        with device_context(self.device):
            for indices in batches.values():
                predictions.update(zip(indices, self._infer_one_size(
                    [frames[i] for i in indices], [num_inference_steps[i] for i in indices],
                    None if latents is None else [latents[i] for i in indices],
                    [seeds[i] for i in indices], ensemble_size, deadline, upsample)))
        return [predictions[i] for i in range(len(frames))]

    def upsample(self, prediction: Prediction, rgb: RgbImage) -> Prediction:
        """
        Bring the maps of a prediction from the processing size to the size of its image.

        Parameters
        ----------
        prediction : DepthPrediction
            Of `infer_batch` with `upsample=False`, or carried from one; `covered` may have any
            size.
        rgb : uint8 [H, W, 3]

        Returns
        -------
        DepthPrediction
            That of `infer_batch`, but for the timing, which does not count this.
        """
        covered = prediction.covered
        depth, confidence, uncertainty = self._upsample_maps(
            (prediction.affine_invariant_depth, prediction.confidence, prediction.uncertainty),
            rgb)
        return replace(
            prediction, affine_invariant_depth=depth, confidence=confidence,
            uncertainty=uncertainty,
            covered=None if covered is None else resize_mask(covered, rgb.shape[:2]))

    def _infer_one_size(self, frames: Sequence[RgbImage], num_inference_steps: Sequence[int],
                        latents: Sequence[torch.Tensor] | None, seeds: Sequence[int],
                        members: int, deadline: float | None,
                        upsample: bool) -> list[DepthPrediction]:
        """Run one ragged batch of N frames with E members each."""
        stopwatch = Stopwatch(self.device)
        vae_scale_factor = self.checkpoint_info.vae_scale_factor

        # 1. Resize and normalize the images, which may still differ in size.
        sizes = [processing_size(rgb.shape[0], rgb.shape[1], self.processing_resolution)
                 for rgb in frames]
        images = torch.cat([preprocess(rgb, size, vae_scale_factor, self.device, self.dtype)
                            for rgb, size in zip(frames, sizes)])  # [N,3,PPH,PPW]
        stopwatch.lap('preprocess')

        # 2. Initialize with the given latents, or with noise that depends only on the seed.
        shape = (members, self._latent_channels,
                 images.shape[2] // vae_scale_factor, images.shape[3] // vae_scale_factor)
        latent = torch.cat(
            [self._initial_latent(shape, seed) for seed in seeds] if latents is None
            else [self._validated_latent(given, shape) for given in latents])  # [N*E,C,h,w]

        # 3. Encode, denoise T_i steps for frame i, decode.
        denoised, decoded = self._runner.run(
            images, latent, num_inference_steps, deadline, stopwatch)  # N*E, [N*E,1,PPH,PPW]

        # 4. Per frame: remove the padding, merge the members.
        frame_rows = [slice(i * members, (i + 1) * members) for i in range(len(frames))]
        maps: list[Maps] = [postprocess(decoded[rows, :, :size[0], :size[1]])
                            for rows, size in zip(frame_rows, sizes)]  # [PH,PW]

        # 5. Upsample on the host, once the device has copied the maps.
        if upsample:
            synchronized_time_s(self.device)
            maps = [self._upsample_maps(*each) for each in zip(maps, frames)]  # [H,W]
        stopwatch.lap('postprocess')

        timing = _stage_timing(stopwatch.seconds())
        return [_prediction(denoised[rows], maps_of_frame, timing)
                for rows, maps_of_frame in zip(frame_rows, maps)]

    def _upsample_maps(self, maps: Maps, rgb: RgbImage) -> Maps:
        """Bring depth, confidence and uncertainty to the size of the image."""
        depth, *others = maps
        confidence, uncertainty = (None if each is None else resize_to_image(each, rgb.shape[:2])
                                   for each in others)
        return upsample_depth(depth, rgb, self.upsampling), confidence, uncertainty

    def _initial_latent(self, shape: tuple[int, ...], seed: int) -> torch.Tensor:
        """Return the default initial latents of a frame, [E,C,h,w]."""
        if self.checkpoint_info.initial_latent == 'zeros':
            return torch.zeros(shape, device=self.device)
        return _noise(shape, seed, self.device)

    def _validated_latent(self, latent: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if latent.shape != shape:
            raise InputError(f'`latents` must have shape {list(shape)} per frame; '
                             f'got {list(latent.shape)}')
        return latent.to(self.device, torch.float32)

    def _check_arguments(self, frames: Sequence[RgbImage], num_inference_steps: Sequence[int],
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


@lru_cache(maxsize=32)  # a camera uses the same noise in every frame
def _noise(shape: tuple[int, ...], seed: int, device: torch.device) -> torch.Tensor:
    """Generate noise on the CPU, so that it is the same on every device; read-only."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def _stage_timing(seconds: Mapping[str, float]) -> StageTiming:
    return StageTiming(**{f'{stage}_s': seconds.get(stage, 0.0) for stage in (
        'preprocess', 'encode', 'denoise', 'decode', 'postprocess')})


def _prediction(members: Sequence[Denoised], maps: Maps, timing: StageTiming) -> DepthPrediction:
    """Combine the results of one frame, whose members may have run different steps."""
    longest = max(members, key=lambda member: member.num_inference_steps)
    return DepthPrediction(
        *maps, torch.stack([member.latent for member in members]),
        longest.num_inference_steps, longest.stopped_by, timing)
