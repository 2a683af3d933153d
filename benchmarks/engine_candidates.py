"""
What the benchmarks of the engine compare: DepthEngine and diffusers' pipeline, on equal work.

Both get the same weights, 640x480 images, noise, steps and output size, to which both resize depth
bilinearly.  The stock pipeline is `MarigoldDepthPipeline` as diffusers' guide to Marigold has it:
eager, or with its U-Net compiled (`torch.compile(pipe.unet, mode='reduce-overhead',
fullgraph=True)`).  On a CPU it cannot resize images in half precision; here it does that in
float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
import re
from tempfile import TemporaryDirectory
from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    MarigoldDepthPipeline,
    UNet2DConditionModel,
)
import numpy as np
from numpy.typing import NDArray
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.synthetic_images import make_synthetic_image, VGA
from benchmarks.timing import time_interleaved
from marigold_ros.depth.checkpoint import Components, find_checkpoint, MODELS
from marigold_ros.depth.config import EngineConfig
from marigold_ros.depth.device import reserve_one_core, resolve_dtype, Stopwatch
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.executors import executor_for
from marigold_ros.depth.executors.base import Executor
from marigold_ros.depth.executors.torch import TorchExecutor
from marigold_ros.depth.preprocess import padded_size, processing_size
from marigold_ros.depth.types import FloatImage, RgbImage

STAGES = ('encode', 'denoise', 'decode')
CALIBRATION_ROUNDS = 7
# Largest difference of float32 depths in [0, 1] from the same computation.
MAX_DIFFERENCE = 1e-4
# Of a network's code in one process: candidates times batch sizes.  torch gives up after 8.
MAX_COMPILED_GRAPHS = 64
# The engine's executors by the type of device: their name in the tables -> `device` ('' for
# torch's device) and `compile` of the settings.  No setting runs a GPU eagerly.
EAGER = 'torch eager'
EXECUTORS: dict[str, dict[str, tuple[str, bool]]] = {
    'cpu': {EAGER: ('', False), 'OpenVINO': ('openvino:CPU', False), 'Inductor': ('', True)},
    'cuda': {EAGER: ('', False), 'CUDA graphs': ('', False), 'CUDA graphs, Inductor': ('', True)}}
# Schedule of Marigold v1-1.
SCHEDULE = {'beta_start': 0.00085, 'beta_end': 0.012, 'beta_schedule': 'scaled_linear',
            'clip_sample': False, 'prediction_type': 'v_prediction',
            'timestep_spacing': 'trailing', 'rescale_betas_zero_snr': True,
            'set_alpha_to_one': False, 'steps_offset': 1}
# Full-size networks, as arguments of diffusers' classes.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    # Stable Diffusion 2 as Marigold uses it; TAESD is AutoencoderTiny's default.
    'sd2': {
        'unet': {'block_out_channels': (320, 640, 1280, 1280), 'cross_attention_dim': 1024,
                 'attention_head_dim': (5, 10, 20, 20), 'use_linear_projection': True},
        'kl': {'block_out_channels': (128, 256, 512, 512), 'layers_per_block': 2,
               'down_block_types': ('DownEncoderBlock2D',) * 4,
               'up_block_types': ('UpDecoderBlock2D',) * 4},
        'tiny': {},
        'processing_resolution': 768},
}

# Depth float32 [N, H, W] in [0, 1], and seconds by stage.
DepthAndStages = tuple[FloatImage, dict[str, float]]
Call = Callable[[], DepthAndStages]


@dataclass(frozen=True)
class Workload:
    """
    Input of one call.

    Attributes
    ----------
    frames : list of uint8 [H, W, 3]
        N images of one size.
    latents : float32 tensor [N, C, h, w]
        Initial noise of both sides.
    num_inference_steps : int
        T, the same for all frames.
    """

    frames: list[RgbImage]
    latents: torch.Tensor
    num_inference_steps: int


@dataclass(frozen=True)
class EngineCandidate:
    """
    DepthEngine with an executor of `EXECUTORS`.

    Attributes
    ----------
    processing_resolution : int
        Longest edge, px.
    dtype : str
        'float32', 'bfloat16' or 'float16'.
    """

    checkpoint: str
    processing_resolution: int
    device: torch.device
    dtype: str
    executor: str

    @property
    def name(self) -> str:
        """Return the name in the tables."""
        return f'engine, {self.executor}, {self.dtype}'

    @property
    def settings(self) -> dict[str, Any]:
        """Return the arguments of `DepthEngine.load`."""
        device, compiled = EXECUTORS[self.device.type][self.executor]
        return {'checkpoint': self.checkpoint, 'device': device or str(self.device),
                'dtype': self.dtype, 'compile': compiled,
                'processing_resolution': self.processing_resolution, 'upsampling': 'bilinear'}

    def load(self) -> EngineRunner:
        """Load the checkpoint."""
        executor = make_executor(self.executor, self.device, self.dtype)
        return EngineRunner(DepthEngine(EngineConfig(**self.settings), executor=executor),
                            executor)


@dataclass(frozen=True)
class StockCandidate:
    """
    Diffusers' pipeline.

    Attributes
    ----------
    checkpoint, processing_resolution, device, dtype
        See `EngineCandidate`.
    compiled : bool
        Whether its U-Net is compiled.
    channels_last : tuple of str
        Those of its networks, 'unet' and 'vae', that run in this memory format.
    """

    checkpoint: str
    processing_resolution: int
    device: torch.device
    dtype: str
    compiled: bool = False
    channels_last: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name in the tables."""
        names = ' and '.join({'unet': 'U-Net', 'vae': 'VAE'}[each] for each in self.channels_last)
        return (f'stock, {"U-Net compiled" if self.compiled else "eager"}, {self.dtype}'
                + (f', {names} channels_last' if names else ''))

    def load(self) -> StockRunner:
        """Load the checkpoint."""
        return StockRunner(self)


class EngineRunner:
    """Run a batch with DepthEngine."""

    def __init__(self, engine: DepthEngine, executor: Executor) -> None:
        self.engine, self.executor = engine, executor

    def prepare(self, work: Workload) -> Call:
        """Return the call to time."""
        steps = [work.num_inference_steps] * len(work.frames)
        latents = list(work.latents[:, None].to(self.engine.device))  # N of [1,C,h,w]

        def call() -> DepthAndStages:
            predictions = self.engine.infer_batch(work.frames, steps, latents=latents)
            timing = predictions[0].timing
            return (np.stack([each.affine_invariant_depth for each in predictions]),
                    {stage: getattr(timing, f'{stage}_s') for stage in STAGES})
        return call


class StockRunner:
    """Run a batch with diffusers' MarigoldDepthPipeline."""

    def __init__(self, candidate: StockCandidate) -> None:
        self.device, self.dtype = candidate.device, getattr(torch, candidate.dtype)
        self.resolution = candidate.processing_resolution
        self.pipeline: Any = MarigoldDepthPipeline.from_pretrained(
            find_checkpoint(candidate.checkpoint), local_files_only=True).to(
                self.device, self.dtype)
        self.pipeline.set_progress_bar_config(disable=True)
        if self.device.type == 'cpu':
            self._resize_in_float32()
        for network in candidate.channels_last:
            getattr(self.pipeline, network).to(memory_format=torch.channels_last)
        if candidate.compiled:
            # A graph for each shape, which is at least as fast as one for all.
            torch._dynamo.config.recompile_limit = MAX_COMPILED_GRAPHS
            self.pipeline.unet = torch.compile(self.pipeline.unet, mode='reduce-overhead',
                                               fullgraph=True, dynamic=False)
        self._stopwatch = Stopwatch(self.device)
        for module, method, stage in ((self.pipeline.vae, 'encode', 'encode'),
                                      (self.pipeline.unet, 'forward', 'denoise'),
                                      (self.pipeline.vae, 'decode', 'decode')):
            setattr(module, method, self._timed(getattr(module, method), stage))

    def _resize_in_float32(self) -> None:
        """Let the pipeline resize images in half precision, for which torch has no CPU code."""
        processor = self.pipeline.image_processor
        resize = processor.resize_to_max_edge

        def resize_in_float32(image: torch.Tensor, edge: int, mode: str) -> torch.Tensor:
            resized: torch.Tensor = resize(image.to(torch.float32), edge, mode)
            return resized.to(image.dtype)

        processor.resize_to_max_edge = resize_in_float32

    def _timed(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """Mark the end of a stage after a call, without waiting for the device."""
        def timed(*arguments: Any, **options: Any) -> Any:
            self._stopwatch.lap('other')
            result = call(*arguments, **options)
            self._stopwatch.lap(stage)
            return result
        return timed

    def prepare(self, work: Workload) -> Call:
        """Return the call to time; copying the images to the device is not timed."""
        images = torch.from_numpy(np.stack(work.frames)).to(self.device)
        images = images.permute(0, 3, 1, 2).to(self.dtype) / 255.0  # [N,3,H,W]
        latents = work.latents.to(self.device, self.dtype)

        def call() -> DepthAndStages:
            self._stopwatch = Stopwatch(self.device)
            depth = self.pipeline(
                images, num_inference_steps=work.num_inference_steps, latents=latents,
                processing_resolution=self.resolution, batch_size=len(work.frames)).prediction
            seconds = self._stopwatch.seconds()
            return depth[..., 0], {stage: seconds[stage] for stage in STAGES}
        return call


Candidate = EngineCandidate | StockCandidate
Runner = EngineRunner | StockRunner


def make_executor(name: str, device: torch.device, dtype: str) -> Executor:
    """Return an executor of `EXECUTORS`; `dtype` as in `EngineConfig`."""
    setting, compiled = EXECUTORS[device.type][name]
    if name == EAGER:
        return TorchExecutor(device, resolve_dtype(dtype, device))
    return executor_for(setting or str(device), dtype, compile=compiled)


def list_executors(device: torch.device,
                   with_compiled: bool) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """
    Return the executors on a device, each in float32 and in its own dtype.

    Inductor comes only in this, because it compiles for minutes.

    Returns
    -------
    executors : list of (str, str)
        Name in `EXECUTORS`, and dtype.
    left_out : dict of str to str
        Name of an executor that cannot run here -> reason.
    """
    executors: list[tuple[str, str]] = []
    left_out: dict[str, str] = {}
    for name, (_, compiled) in EXECUTORS[device.type].items():
        if compiled and not with_compiled:
            continue
        try:
            own = str(make_executor(name, device, 'auto').dtype).removeprefix('torch.')
        except ConfigError as err:
            left_out[name] = str(err)
            continue
        executors += [(name, dtype) for dtype in dict.fromkeys(
            [own] if compiled else ['float32', own])]
    return executors, left_out


def list_candidates(checkpoint: str, resolution: int, device: torch.device,
                    with_compiled: bool) -> tuple[list[Candidate], dict[str, str]]:
    """
    Return the candidates on a device: the stock pipeline, contiguous, and the engine.

    The engine has the executors of `list_executors`, the stock pipeline all their dtypes, first
    float32.

    Returns
    -------
    candidates : list
    left_out : dict of str to str
        See `list_executors`.
    """
    executors, left_out = list_executors(device, with_compiled)
    dtypes = dict.fromkeys(['float32', *(dtype for _, dtype in executors)])
    stock = [StockCandidate(checkpoint, resolution, device, dtype, compiled)
             for compiled in (False, True)[:1 + with_compiled] for dtype in dtypes]
    return [*stock, *(EngineCandidate(checkpoint, resolution, device, dtype, name)
                      for name, dtype in executors)], left_out


def choose_memory_formats(candidates: Sequence[Candidate],
                          work: Workload) -> tuple[list[Candidate], dict[str, dict[str, float]]]:
    """
    Give each network of the stock pipelines the faster memory format.

    In each dtype the eager pipeline is timed both ways in interleaved rounds, by stages; the
    pipeline with the compiled U-Net takes the same formats.

    Parameters
    ----------
    candidates : sequence
    work : Workload
        What is timed.

    Returns
    -------
    candidates : list
    ratios : dict
        Dtype -> network -> time contiguous over time channels_last.
    """
    ratios = {each.dtype: _channels_last_ratios(each, work) for each in candidates
              if isinstance(each, StockCandidate) and not each.compiled}
    chosen = {dtype: tuple(network for network, ratio in by_network.items() if ratio > 1.0)
              for dtype, by_network in ratios.items()}
    return [replace(each, channels_last=chosen[each.dtype])
            if isinstance(each, StockCandidate) else each for each in candidates], ratios


def _channels_last_ratios(candidate: StockCandidate, work: Workload) -> dict[str, float]:
    both = candidate, replace(candidate, channels_last=('unet', 'vae'))
    runs = time_interleaved({each.name: each.load().prepare(work) for each in both},
                            rounds=CALIBRATION_ROUNDS, device=candidate.device)
    contiguous, channels_last = (
        {stage: float(np.median([stages_s[stage] for _, stages_s in run.returned]))
         for stage in STAGES} for run in runs.values())
    return {network: sum(contiguous[stage] for stage in stages)
            / sum(channels_last[stage] for stage in stages)
            for network, stages in (('unet', ('denoise',)), ('vae', ('encode', 'decode')))}


def make_workload(components: Components, resolution: int, batch_size: int,
                  steps: int) -> Workload:
    """Return a batch of different images and the initial noise."""
    factor = components.info.vae_scale_factor
    height, width = padded_size(processing_size(*VGA, resolution), factor)
    shape = (batch_size, components.vae.config.latent_channels, height // factor, width // factor)
    return Workload([make_synthetic_image(number) for number in range(batch_size)],
                    torch.randn(shape, generator=torch.Generator().manual_seed(0)), steps)


def median_stages_ms(seconds: NDArray[np.float64],
                     stages_s: list[dict[str, float]]) -> dict[str, float]:
    """Return the median time per stage, ms; 'other' is the rest of the call."""
    table = np.array([[run[stage] for stage in STAGES] for run in stages_s])  # [rounds,3]
    other = seconds - table.sum(axis=1)
    medians = 1e3 * np.median(np.column_stack([table, other]), axis=0)
    return dict(zip((*STAGES, 'other'), map(float, medians)))


def compute_exact_depths(candidates: Sequence[Candidate],
                         works: Sequence[Workload]) -> dict[str, list[FloatImage]]:
    """
    Run candidates in full precision: with cuDNN, without TensorFloat-32.

    Each is loaded for this alone: a captured graph keeps the precision it was captured in, and
    is timed with torch's default, which is TensorFloat-32 in convolutions.
    """
    # cudnn.flags() disables cuDNN by default.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return {each.name: _compute_depths(each.load(), works) for each in candidates}


def _compute_depths(runner: Runner, works: Sequence[Workload]) -> list[FloatImage]:
    return [runner.prepare(work)()[0] for work in works]


def describe_difference(depth: FloatImage, exact: FloatImage) -> dict[str, float]:
    """Return the `mean` and the `largest` absolute difference of two depths."""
    difference = np.abs(depth - exact)
    return {'mean': float(difference.mean()), 'largest': float(difference.max())}


def format_difference(difference: Mapping[str, float], dtype: str) -> str:
    """Format a difference from the stock pipeline's depth; mark it if too large in float32."""
    differs = dtype == 'float32' and difference['largest'] > MAX_DIFFERENCE
    return (f'{difference["mean"]:.1e}, at most {difference["largest"]:.1e}'
            + (' NOT THE SAME DEPTH' if differs else ''))


def peak_memory(candidate: Candidate, works: Sequence[Workload]) -> list[int]:
    """
    Measure the peak memory of a candidate in a separate process.

    Parameters
    ----------
    candidate : EngineCandidate or StockCandidate
    works : sequence of Workload
        Run in this order, by increasing size.

    Returns
    -------
    list of int
        Peak after each workload, bytes: on a GPU the memory allocated by torch, else the resident
        memory minus that of a process that has only imported the libraries.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context('spawn')) as pool:
        return pool.submit(_peak_memory_in_process, candidate, list(works)).result()


def _peak_memory_in_process(candidate: Candidate, works: list[Workload]) -> list[int]:
    reserve_one_core()
    device = candidate.device
    imported = 0 if device.type == 'cuda' else _peak_resident()
    runner = candidate.load()
    peaks = []
    for work in works:
        runner.prepare(work)()
        peaks.append((torch.cuda.max_memory_allocated(device) if device.type == 'cuda'
                      else _peak_resident()) - imported)
    return peaks


def _peak_resident() -> int:
    """
    Return the peak resident memory of this process, bytes.

    Does not use getrusage's ru_maxrss, which a child inherits from its parent.
    """
    status = Path('/proc/self/status').read_text()
    match = re.search(r'^VmHWM:\s+(\d+) kB', status, re.MULTILINE)
    if match is None:
        raise OSError('/proc/self/status has no VmHWM')
    return 1024 * int(match[1])


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all benchmarks of the engine can choose."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    what.add_argument('--architecture', choices=list(ARCHITECTURES),
                      help='random weights of a full-size architecture instead of a checkpoint')
    parser.add_argument('--vae', choices=('kl', 'tiny'), default='kl', help='of --architecture')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:<index>')
    parser.add_argument('--compile', action='store_true',
                        help='also measure networks that torch compiles')


@contextmanager
def open_checkpoint(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the checkpoint of `add_checkpoint_arguments` and its name in reports."""
    if options.architecture is None:
        yield options.checkpoint, Path(options.checkpoint).name
        return
    with TemporaryDirectory() as folder:
        save_random_checkpoint(Path(folder), ARCHITECTURES[options.architecture], options.vae)
        yield folder, f'{options.architecture}_{options.vae}'


def make_unet(architecture: Mapping[str, Any]) -> Any:
    """Build the untrained U-Net of an architecture: 8 channels in, 4 out."""
    return UNet2DConditionModel(in_channels=8, out_channels=4, **architecture['unet'])


def make_vae(architecture: Mapping[str, Any], kind: str) -> Any:
    """Build the untrained VAE of an architecture: 'kl' or 'tiny'."""
    return (AutoencoderKL if kind == 'kl' else AutoencoderTiny)(**architecture[kind])


def save_random_checkpoint(folder: Path, architecture: Mapping[str, Any], vae: str) -> Path:
    """
    Write a checkpoint with random weights that DepthEngine and diffusers can load.

    Inference takes as long as with trained weights.  The text encoder is one narrow layer of the
    right output width: it runs once and is not timed.

    Parameters
    ----------
    folder : Path
        Output folder; 2 GB for Stable Diffusion 2 in bfloat16.
    architecture : mapping
        As in `ARCHITECTURES`.
    vae : {'kl', 'tiny'}

    Returns
    -------
    Path
        `folder`.
    """
    torch.manual_seed(0)
    text = CLIPTextConfig.from_pretrained(MODELS / 'tiny' / 'text_encoder')
    text.hidden_size = architecture['unet']['cross_attention_dim']
    pipeline = MarigoldDepthPipeline(
        unet=make_unet(architecture), vae=make_vae(architecture, vae),
        scheduler=DDIMScheduler(**SCHEDULE), text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(MODELS / 'tiny' / 'tokenizer'),
        prediction_type='depth', default_denoising_steps=4,
        default_processing_resolution=architecture['processing_resolution'])
    for network in (pipeline.unet, pipeline.vae):
        network.to(torch.bfloat16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
