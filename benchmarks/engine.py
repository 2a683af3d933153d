"""
Measure DepthEngine beside diffusers' MarigoldDepthPipeline: same weights, input, steps and size.

    python -m benchmarks.engine --processing-resolution 128 320
    python -m benchmarks.engine --architecture sd2 --vae kl --compile \
        --steps 1 4 --batch-sizes 1 8
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable

import cv2
import numpy as np
from numpy.typing import NDArray
import torch

from benchmarks.architecture import (
    ARCHITECTURES,
    counted_flops,
    matrix_rate,
    save_random_checkpoint,
)
from benchmarks.contestants import (
    Contestant,
    first_call_s,
    peak_memory,
    Runner,
    STAGES,
    Subject,
    Work,
)
from benchmarks.engine_report import markdown, targets
from benchmarks.pictures import picture, VGA
from benchmarks.timing import interleave, quartiles_ms, speedup, write_report
from marigold_ros.depth.checkpoint import Components, load_components
from marigold_ros.depth.complexity import MEASURES
from marigold_ros.depth.device import resolve_device, resolve_dtype
from marigold_ros.depth.preprocess import padded_size, processing_size
from marigold_ros.evaluation.environment import environment

# Where batches make calls long, fewer of them: at least this many.
MIN_ROUNDS = 5


@dataclass(frozen=True)
class Plan:
    """What is measured of a subject."""

    steps: list[int]
    batch_sizes: list[int]
    rounds: int
    compile: bool


def make_work(components: Components, resolution: int, batch_size: int, steps: int) -> Work:
    """Make a batch of different images with the noise that both sides start from."""
    factor = components.info.vae_scale_factor
    height, width = padded_size(processing_size(*VGA, resolution), factor)
    shape = (batch_size, components.vae.config.latent_channels, height // factor, width // factor)
    return Work([picture(number) for number in range(batch_size)],
                torch.randn(shape, generator=torch.Generator().manual_seed(0)), steps)


def contestants(device: torch.device, with_compiled: bool) -> list[Contestant]:
    """
    List who competes on a device; the first is what the others are compared with.

    The reference's own default is float32; on a GPU it also gets the engine's number format, in
    which it is much faster.
    """
    auto = str(resolve_dtype('auto', device)).removeprefix('torch.')
    chosen = [Contestant('reference', 'float32'), Contestant('engine', 'float32')]
    if auto != 'float32':
        chosen.append(Contestant('engine', auto))
    if device.type == 'cuda':
        chosen.insert(0, Contestant('reference', auto))
    if with_compiled:
        chosen.append(Contestant('engine', auto, compile=True))
    return chosen


def measure(subject: Subject, components: Components, plan: Plan) -> dict[str, Any]:
    """Measure one subject completely; returns what goes into the JSON."""
    device = resolve_device(subject.device)
    entrants = contestants(device, plan.compile)
    runners = {each: each.open(subject) for each in entrants}
    rows: list[dict[str, Any]] = []
    compile_s: dict[str, float] = {}
    for batch_size in plan.batch_sizes:
        present = {each: runner for each, runner in runners.items()
                   if batch_size == 1 or device.type == 'cpu' or each.dtype != 'float32'}
        for each, runner in present.items():
            if each.compile:
                first = make_work(components, subject.processing_resolution, batch_size, 1)
                compile_s[f'batch {batch_size}'] = first_call_s(runner.prepare(first))
        for steps in plan.steps:
            work = make_work(components, subject.processing_resolution, batch_size, steps)
            rows += measure_setting(present, work, max(MIN_ROUNDS, plan.rounds // batch_size),
                                    device)
            print(f'{subject.processing_resolution} px, batch {batch_size}, {steps} steps: '
                  + ', '.join(f'{row["contestant"]} {row["median_ms"]:.1f} ms'
                              for row in rows[-len(present):]), flush=True)
    works = [make_work(components, subject.processing_resolution, batch_size, min(plan.steps))
             for batch_size in sorted({min(plan.batch_sizes), max(plan.batch_sizes)})]
    return {
        'processing_resolution': subject.processing_resolution,
        'vae': type(components.vae).__name__,
        'rows': rows,
        'first_call_compiled_s': compile_s,
        'memory': [{'contestant': each.name, 'batch_sizes': [len(work.frames) for work in works],
                    'peak_bytes': peak_memory(each, subject, works)} for each in entrants],
    }


def measure_setting(runners: dict[Contestant, Runner], work: Work, rounds: int,
                    device: torch.device) -> list[dict[str, Any]]:
    """Measure one batch size and number of steps; one row per contestant."""
    names = {each.name: runner for each, runner in runners.items()}
    # 1. The same work? Against the reference in its most exact format, at full float32 precision.
    with torch.backends.cudnn.flags(allow_tf32=False):
        depths = {name: runner.prepare(work)().depth for name, runner in names.items()}
    exact = depths.get('reference float32', depths[next(iter(depths))])

    # 2. Total times, side by side.
    runs = interleave({name: _stages_of(runner, work, by_stage=False)
                       for name, runner in names.items()}, rounds=rounds, device=device)

    # 3. Stages in rounds of their own, for watching the reference makes it wait on a GPU.
    staged = interleave({name: _stages_of(runner, work, by_stage=True)
                         for name, runner in names.items()},
                        rounds=max(3, rounds // 4), warm_up=1, device=device)

    baseline = runs[next(iter(names))].seconds
    return [{
        'contestant': name, 'num_inference_steps': work.num_inference_steps,
        'batch_size': len(work.frames), **quartiles_ms(run.seconds),
        'frames_per_s': len(work.frames) / float(np.median(run.seconds)),
        'speedup': speedup(baseline, run.seconds),
        'stages_ms': _stages_ms(staged[name].seconds, staged[name].returned),
        'largest_difference': float(np.abs(depths[name] - exact).max()),
    } for name, run in runs.items()]


def _stages_of(runner: Runner, work: Work, by_stage: bool) -> Callable[[], dict[str, float]]:
    """Return a call that keeps the seconds per stage and lets go of the depth."""
    call = runner.prepare(work, by_stage=by_stage)
    return lambda: call().stages_s


def _stages_ms(seconds: NDArray[np.float64], stages_s: list[dict[str, float]]) -> dict[str, float]:
    """Take medians per stage; what is in none of them is 'other'."""
    table = np.array([[run[stage] for stage in STAGES] for run in stages_s])  # [rounds,3]
    other = seconds - table.sum(axis=1)
    medians = 1e3 * np.median(np.column_stack([table, other]), axis=0)
    return dict(zip((*STAGES, 'other'), map(float, medians)))


def complexity_ms(rounds: int = 50) -> dict[str, dict[str, float]]:
    """Measure what the complexity of one VGA frame costs on one core."""
    threads, rgb = cv2.getNumThreads(), picture(0)
    cv2.setNumThreads(1)
    runs = interleave({name: partial(measure_of, rgb) for name, measure_of in MEASURES.items()},
                      rounds=rounds)
    cv2.setNumThreads(threads)
    return {name: quartiles_ms(run.seconds) for name, run in runs.items()}


def floor(subject: Subject, components: Components) -> dict[str, Any]:
    """Count the work of a frame and measure what the device could do of it per second."""
    device = resolve_device(subject.device)
    size = padded_size(processing_size(*VGA, subject.processing_resolution),
                       components.info.vae_scale_factor)
    dtypes = {torch.float32, resolve_dtype('auto', device)}
    return {
        'flops': counted_flops(components.unet, components.vae, size),
        'matrix_rate_flops_per_s': {
            str(dtype).removeprefix('torch.'): matrix_rate(device, dtype)
            for dtype in sorted(dtypes, key=str)},
    }


def run(checkpoint: str, device: str, resolutions: list[int] | None, plan: Plan
        ) -> dict[str, Any]:
    """Measure a checkpoint at one or several resolutions."""
    facts = environment(resolve_device(device))  # before the benchmark is a load itself
    info = load_components(checkpoint).info
    subjects = [Subject(checkpoint, device, resolution)
                for resolution in resolutions or [info.processing_resolution]]
    results = []
    for subject in subjects:
        result = measure(subject, load_components(checkpoint), plan)
        result['floor'] = floor(subject, load_components(checkpoint))
        result['targets'] = targets(result, resolve_device(device))
        results.append(result)
    return {'environment': facts, 'checkpoint': checkpoint, 'image_size': list(VGA),
            'complexity': complexity_ms(), 'subjects': results}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write JSON and Markdown."""
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
    parser.add_argument('--out', type=Path, default=Path('out/benchmark'))
    options = parser.parse_args(arguments)
    plan = Plan(options.steps, options.batch_sizes, options.rounds, options.compile)
    if options.architecture is None:
        name = Path(options.checkpoint).name
        result = run(options.checkpoint, options.device, options.processing_resolution, plan)
    else:
        name = f'{options.architecture}_{options.vae}'
        with TemporaryDirectory() as folder:
            save_random_checkpoint(Path(folder), ARCHITECTURES[options.architecture], options.vae)
            result = run(folder, options.device, options.processing_resolution, plan)
        result['checkpoint'] = f'random weights of {options.architecture}, {options.vae} VAE'
    text = markdown(result)
    print(text)
    write_report(options.out, f'bench_engine_{name}', result, text)


if __name__ == '__main__':
    main()
