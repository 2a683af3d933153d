"""
How fast is DepthEngine compared with diffusers' MarigoldDepthPipeline and with the hardware?

    python -m benchmarks.engine_speed --processing-resolution 128 320
    python -m benchmarks.engine_speed --architecture sd2 --vae kl --compile \
        --steps 1 4 --batch-sizes 1 8

Both sides get the same weights, 640x480 images, noise, steps and output size, and must return the
same float32 depth.  The pipeline is used as in its documentation, not compiled.  Times are medians
of interleaved rounds.  Stages are timed in separate rounds, because timing them synchronizes the
pipeline with the GPU.  The hardware limit is the rate of the device on large square matrices,
relative to the floating-point operations of a frame.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
import re
import sys
from tempfile import TemporaryDirectory
import time
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
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.synthetic_images import make_synthetic_image, VGA
from benchmarks.timing import (
    format_markdown_table,
    quartiles_ms,
    speedup,
    time_interleaved,
    write_benchmark_report,
)
from marigold_ros.depth.checkpoint import Components, find_checkpoint, load_components, MODELS
from marigold_ros.depth.device import resolve_device, resolve_dtype, synchronized_time_s
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.preprocess import padded_size, processing_size
from marigold_ros.depth.types import FloatImage, RgbImage
from marigold_ros.evaluation.environment import describe_environment

STAGES = ('encode', 'denoise', 'decode')
# Large batches get fewer rounds, but at least this many.
MIN_ROUNDS = 5
# Largest difference of float32 depths in [0, 1] from the same computation.
MAX_DIFFERENCE = 1e-4
# Edge of the square matrices: large enough to be compute-bound.
MATRIX_EDGE = {'cpu': 2048, 'cuda': 8192}
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

# Depth float32 [N, H, W] in [0, 1], and seconds by stage if requested.
DepthAndStages = tuple[FloatImage, dict[str, float]]


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
    An implementation with settings, to run a checkpoint at a processing resolution (px).

    Attributes
    ----------
    implementation : {'engine', 'pipeline'}
        DepthEngine, or diffusers' MarigoldDepthPipeline.
    dtype : str
        As `EngineConfig.dtype`; 'auto' for the engine only.
    compile : bool
        Whether the engine compiles its networks.
    """

    checkpoint: str
    device: str
    processing_resolution: int
    implementation: str
    dtype: str
    compile: bool = False

    @property
    def name(self) -> str:
        """Return the name in the table."""
        return f'{self.implementation} {self.dtype}' + (' compiled' if self.compile else '')

    def load(self) -> EngineRunner | PipelineRunner:
        """Load the checkpoint into a runner."""
        return (EngineRunner if self.implementation == 'engine' else PipelineRunner)(self)


class EngineRunner:
    """Run a batch with DepthEngine."""

    def __init__(self, candidate: EngineCandidate) -> None:
        self.engine = DepthEngine.load(
            candidate.checkpoint, device=candidate.device, dtype=candidate.dtype,
            compile=candidate.compile, processing_resolution=candidate.processing_resolution)

    def prepare(self, work: Workload, *, by_stage: bool = False) -> Callable[[], DepthAndStages]:
        """Return the call to time; it always measures its stages."""
        steps = [work.num_inference_steps] * len(work.frames)
        latents = list(work.latents[:, None])  # N of [1,C,h,w]

        def call() -> DepthAndStages:
            predictions = self.engine.infer_batch(work.frames, steps, latents=latents)
            timing = predictions[0].timing
            return (np.stack([each.affine_invariant_depth for each in predictions]),
                    {stage: getattr(timing, f'{stage}_s') for stage in STAGES})
        return call


class PipelineRunner:
    """Run a batch with diffusers' MarigoldDepthPipeline."""

    def __init__(self, candidate: EngineCandidate) -> None:
        self.device = resolve_device(candidate.device)
        self.dtype = resolve_dtype(candidate.dtype, self.device)
        self.resolution = candidate.processing_resolution
        self.pipeline: Any = MarigoldDepthPipeline.from_pretrained(
            find_checkpoint(candidate.checkpoint), local_files_only=True).to(
                self.device, self.dtype)
        self.pipeline.set_progress_bar_config(disable=True)

    def prepare(self, work: Workload, *, by_stage: bool = False) -> Callable[[], DepthAndStages]:
        """Return the call to time; copying the images to the device is not timed."""
        images = torch.from_numpy(np.stack(work.frames)).to(self.device)
        images = images.permute(0, 3, 1, 2).to(self.dtype) / 255.0  # [N,3,H,W]
        latents = work.latents.to(self.device, self.dtype)

        def call() -> DepthAndStages:
            with self._time_stages(by_stage) as stages_s:
                depth = self.pipeline(
                    images, num_inference_steps=work.num_inference_steps, latents=latents,
                    processing_resolution=self.resolution, batch_size=len(work.frames)
                ).prediction
            return depth[..., 0], stages_s
        return call

    @contextmanager
    def _time_stages(self, by_stage: bool) -> Iterator[dict[str, float]]:
        """Time the calls of the networks if `by_stage`."""
        stages_s = dict.fromkeys(STAGES, 0.0) if by_stage else {}
        vae, unet = self.pipeline.vae, self.pipeline.unet
        methods = ((vae, 'encode', 'encode'), (unet, 'forward', 'denoise'),
                   (vae, 'decode', 'decode')) if by_stage else ()

        def timed(call: Callable[..., Any], stage: str) -> Callable[..., Any]:
            def wrapper(*arguments: Any, **options: Any) -> Any:
                started_s = synchronized_time_s(self.device)
                result = call(*arguments, **options)
                stages_s[stage] += synchronized_time_s(self.device) - started_s
                return result
            return wrapper

        for module, method, stage in methods:
            setattr(module, method, timed(getattr(module, method), stage))
        try:
            yield stages_s
        finally:
            for module, method, _ in methods:
                delattr(module, method)


Runners = Mapping[str, EngineRunner | PipelineRunner]


def list_candidates(checkpoint: str, device: str, resolution: int,
                    with_compiled: bool) -> list[EngineCandidate]:
    """
    Return the candidates on a device; the first is the baseline.

    The pipeline's default is float32; on a GPU it also runs in the engine's dtype, in which it is
    much faster.
    """
    candidate = partial(EngineCandidate, checkpoint, device, resolution)
    resolved = resolve_device(device)
    auto = str(resolve_dtype('auto', resolved)).removeprefix('torch.')
    chosen = [candidate('pipeline', 'float32'), candidate('engine', 'float32')]
    if auto != 'float32':
        chosen.append(candidate('engine', auto))
    if resolved.type == 'cuda':
        chosen.insert(0, candidate('pipeline', auto))
    if with_compiled:
        chosen.append(candidate('engine', auto, compile=True))
    return chosen


def make_workload(components: Components, resolution: int, batch_size: int,
                  steps: int) -> Workload:
    """Return a batch of different images and the initial noise."""
    factor = components.info.vae_scale_factor
    height, width = padded_size(processing_size(*VGA, resolution), factor)
    shape = (batch_size, components.vae.config.latent_channels, height // factor, width // factor)
    return Workload([make_synthetic_image(number) for number in range(batch_size)],
                    torch.randn(shape, generator=torch.Generator().manual_seed(0)), steps)


def measure(checkpoint: str, resolution: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a checkpoint at one processing resolution; return the values for JSON."""
    device = resolve_device(options.device)
    components = load_components(checkpoint)
    work = partial(make_workload, components, resolution)
    candidates = list_candidates(checkpoint, options.device, resolution, options.compile)
    runners = {each: each.load() for each in candidates}
    rows: list[dict[str, Any]] = []
    compile_s: dict[int, float] = {}
    for batch_size in options.batch_sizes:
        present = {each.name: runner for each, runner in runners.items()
                   if batch_size == 1 or device.type == 'cpu' or each.dtype != 'float32'}
        if options.compile:
            started_s = time.perf_counter()
            runners[candidates[-1]].prepare(work(batch_size, 1))()
            compile_s[batch_size] = time.perf_counter() - started_s
        for steps in options.steps:
            rows += measure_setting(present, work(batch_size, steps),
                                    max(MIN_ROUNDS, options.rounds // batch_size), device)
            print(f'{resolution} px, batch {batch_size}, {steps} step(s): '
                  + ', '.join(f'{row["candidate"]} {row["median_ms"]:.1f} ms'
                              for row in rows[-len(present):]), file=sys.stderr, flush=True)
    sizes = sorted({min(options.batch_sizes), max(options.batch_sizes)})
    works = [work(size, min(options.steps)) for size in sizes]
    dtypes = sorted({'float32', candidates[-1].dtype})
    size = padded_size(processing_size(*VGA, resolution), components.info.vae_scale_factor)
    return {
        'processing_resolution': resolution, 'vae': type(components.vae).__name__, 'rows': rows,
        'first_call_compiled_s': compile_s,
        'memory': {each.name: dict(zip(sizes, peak_memory(each, works))) for each in candidates},
        'flops': count_flops(components.unet, components.vae, size),
        'matrix_rate_flops_per_s': {
            dtype: measure_matrix_rate(device, getattr(torch, dtype)) for dtype in dtypes}}


def measure_setting(runners: Runners, work: Workload, rounds: int,
                    device: torch.device) -> list[dict[str, Any]]:
    """Measure one batch size and number of steps; return one row per candidate."""
    # 1. Check that all compute the same depth as the pipeline in its most exact dtype.
    depths = compute_exact_depths(runners, work)
    exact = depths.get('pipeline float32', depths[next(iter(depths))])

    # 2. Time whole calls in interleaved rounds.
    runs = time_interleaved({name: _stage_call(runner, work, by_stage=False)
                             for name, runner in runners.items()}, rounds=rounds, device=device)

    # 3. Time the stages.
    staged = time_interleaved({name: _stage_call(runner, work, by_stage=True)
                               for name, runner in runners.items()},
                              rounds=max(3, rounds // 4), warm_up=1, device=device)

    baseline = runs[next(iter(runners))].seconds
    return [{
        'candidate': name, 'num_inference_steps': work.num_inference_steps,
        'batch_size': len(work.frames), **quartiles_ms(run.seconds),
        'frames_per_s': len(work.frames) / float(np.median(run.seconds)),
        'speedup': speedup(baseline, run.seconds),
        'stages_ms': median_stages_ms(staged[name].seconds, staged[name].returned),
        'largest_difference': float(np.abs(depths[name] - exact).max()),
    } for name, run in runs.items()]


def compute_exact_depths(runners: Runners, work: Workload) -> dict[str, FloatImage]:
    """Run all candidates once in full float32 precision, with the kernels that are timed."""
    # cudnn.flags() disables cuDNN by default.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return {name: runner.prepare(work)()[0] for name, runner in runners.items()}


def _stage_call(runner: EngineRunner | PipelineRunner, work: Workload,
                by_stage: bool) -> Callable[[], dict[str, float]]:
    """Return a call that returns the seconds per stage and frees the depth."""
    call = runner.prepare(work, by_stage=by_stage)
    return lambda: call()[1]


def median_stages_ms(seconds: NDArray[np.float64],
                     stages_s: list[dict[str, float]]) -> dict[str, float]:
    """Return the median time per stage, ms; 'other' is the rest of the call."""
    table = np.array([[run[stage] for stage in STAGES] for run in stages_s])  # [rounds,3]
    other = seconds - table.sum(axis=1)
    medians = 1e3 * np.median(np.column_stack([table, other]), axis=0)
    return dict(zip((*STAGES, 'other'), map(float, medians)))


def peak_memory(candidate: EngineCandidate, works: Sequence[Workload]) -> list[int]:
    """
    Measure the peak memory of a candidate in a separate process.

    Parameters
    ----------
    candidate : EngineCandidate
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


def _peak_memory_in_process(candidate: EngineCandidate, works: list[Workload]) -> list[int]:
    device = resolve_device(candidate.device)
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


def count_flops(unet: Any, vae: Any, size: tuple[int, int]) -> dict[str, int]:
    """
    Count the floating-point operations of the stages of one frame.

    Parameters
    ----------
    unet, vae : modules
        Are moved to the device 'meta', where tensors have no data.
    size : (int, int)
        Padded processing size (PPH, PPW), px.

    Returns
    -------
    dict
        FLOP of `encode`, `unet_step` and `decode`; a multiply-add counts as 2.
    """
    unet, vae = unet.to('meta'), vae.to('meta')
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    channels = vae.config.latent_channels
    with torch.device('meta'):
        image = torch.empty(1, 3, *size, dtype=vae.dtype)
        latent = torch.empty(1, channels, size[0] // factor, size[1] // factor, dtype=vae.dtype)
        text = torch.empty(1, 2, unet.config.cross_attention_dim, dtype=unet.dtype)
        pair = torch.cat([latent, latent], dim=1).to(unet.dtype)
        timestep = torch.empty((), dtype=torch.int64)
    return {
        'encode': _count_call_flops(lambda: vae.encode(image)),
        'unet_step': _count_call_flops(lambda: unet(pair, timestep, encoder_hidden_states=text)),
        'decode': _count_call_flops(lambda: vae.decode(latent)),
    }


def _count_call_flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return int(counter.get_total_flops())


def measure_matrix_rate(device: torch.device, dtype: torch.dtype, rounds: int = 20) -> float:
    """Measure the rate of the device on large square matrices, FLOP/s (median)."""
    edge = MATRIX_EDGE[device.type]
    left, right = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    runs = time_interleaved({'matmul': lambda: torch.mm(left, right)}, rounds=rounds,
                            device=device)
    return float(2.0 * edge ** 3 / np.median(runs['matmul'].seconds))


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


def format_markdown(result: Mapping[str, Any]) -> str:
    """Format times, memory and hardware limit at one resolution as Markdown."""
    flops, rates = result['flops'], result['matrix_rate_flops_per_s']
    table = []
    for row in result['rows']:
        ratio, steps = row['speedup'], row['num_inference_steps']
        work = row['batch_size'] * (flops['encode'] + steps * flops['unet_step']
                                    + flops['decode'])
        rate = rates[row['candidate'].split()[1]]
        table.append({
            'steps': steps, 'batch': row['batch_size'], '': row['candidate'],
            'ms': f'{row["median_ms"]:.1f}',
            'quartiles': f'{row["q25_ms"]:.1f}..{row["q75_ms"]:.1f}',
            'frames/s': f'{row["frames_per_s"]:.1f}',
            f'times {result["rows"][0]["candidate"]} (95 %)':
                f'{ratio["ratio"]:.2f} ({ratio["low"]:.2f}..{ratio["high"]:.2f})',
            **{stage: f'{ms:.1f}' for stage, ms in row['stages_ms'].items()},
            'of the matrix rate': f'{work / (row["median_ms"] / 1e3) / rate:.0%}',
            'depth differs by': format_difference(row)})
    lines = [
        f'## processing_resolution {result["processing_resolution"]}, {result["vae"]}', '',
        format_markdown_table(table), '']
    lines += [f'- peak memory of {name}: ' + ', '.join(
        f'{peak / 2 ** 20:.0f} MiB at batch {batch}' for batch, peak in peaks.items())
        for name, peaks in result['memory'].items()]
    lines += [f'- compiling for batch {batch}: {seconds:.0f} s, once'
              for batch, seconds in result['first_call_compiled_s'].items()]
    lines.append('- work of a frame, GFLOP: ' + ', '.join(
        f'{name} {count / 1e9:.2f}' for name, count in flops.items()))
    lines += [f'- matrix rate in {dtype}: {rate / 1e9:.0f} GFLOP/s; at that rate a frame takes '
              f'{1e3 * sum(flops.values()) / rate:.2f} ms at 1 step'
              for dtype, rate in rates.items()]
    return '\n'.join(lines)


def format_difference(row: Mapping[str, Any]) -> str:
    """Format the largest difference from the pipeline's depth; mark it if too large in float32."""
    differs = 'float32' in row['candidate'] and row['largest_difference'] > MAX_DIFFERENCE
    return f'{row["largest_difference"]:.1e}' + (' NOT THE SAME DEPTH' if differs else '')


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    what.add_argument('--architecture', choices=list(ARCHITECTURES),
                      help='random weights of a full-size architecture instead of a checkpoint')
    parser.add_argument('--vae', choices=('kl', 'tiny'), default='kl', help='of --architecture')
    parser.add_argument('--steps', type=int, nargs='+', default=[1, 2, 4, 10])
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[1, 2, 4, 8])
    parser.add_argument('--processing-resolution', type=int, nargs='+',
                        help="longest edge, px; the checkpoint's by default")
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:<index>')
    parser.add_argument('--compile', action='store_true', help='also measure compiled networks')
    parser.add_argument('--rounds', type=int, default=20,
                        help=f'at batch 1; fewer for larger batches, at least {MIN_ROUNDS}')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    options = make_parser().parse_args(arguments)
    facts = describe_environment(resolve_device(options.device))
    with TemporaryDirectory() as folder:
        checkpoint, name = options.checkpoint, Path(options.checkpoint).name
        if options.architecture is not None:
            checkpoint, name = folder, f'{options.architecture}_{options.vae}'
            save_random_checkpoint(Path(folder), ARCHITECTURES[options.architecture], options.vae)
        resolutions = (options.processing_resolution
                       or [load_components(checkpoint).info.processing_resolution])
        results = [measure(checkpoint, each, options) for each in resolutions]
    write_benchmark_report(options.out, f'engine_speed_{name}', facts, {'results': results},
                           '\n\n'.join(map(format_markdown, results)))


if __name__ == '__main__':
    main()
