"""
Which rung of the ladder from the stock pipeline to the fastest engine pays, and what is left?

    python -m benchmarks.engine_ladder
    python -m benchmarks.engine_ladder --architecture sd2 --vae kl --compile

The rungs are the candidates of `benchmarks.engine_candidates` in the engine's own dtype: the stock
pipeline eager and with its U-Net compiled, and the engine with each executor.  For each:

- time of a frame and of its stages (on a GPU between events), in interleaved rounds, and the ratio
  to the first rung and to the one before;
- difference of its depth from the eager pipeline's in float32: in its own dtype, and in float32,
  where it must be none;
- peak memory, in a process of its own;
- the kernels (on a CPU torch's operators) that take the most time in a frame, from torch's
  profiler, which sees nothing of OpenVINO's;
- on a GPU: where the host waits for the device.  The denoising loop must not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
import sys
from traceback import extract_tb
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import profile, ProfilerActivity

from benchmarks.engine_candidates import (
    add_checkpoint_arguments,
    Call,
    choose_memory_formats,
    compute_exact_depths,
    describe_difference,
    EngineRunner,
    format_difference,
    list_candidates,
    make_workload,
    median_stages_ms,
    open_checkpoint,
    peak_memory,
    Runner,
)
from benchmarks.timing import (
    format_markdown_table,
    quartiles_ms,
    speedup,
    time_interleaved,
    write_benchmark_report,
)
from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.device import reserve_one_core, resolve_device, synchronized_time_s
from marigold_ros.depth.executors.base import Executor
from marigold_ros.evaluation.environment import describe_environment

TOP_KERNELS = 30
KERNEL_NAME_CHARACTERS = 100


def climb(checkpoint: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all rungs; return the values for JSON."""
    device = resolve_device(options.device)
    components = load_components(checkpoint)
    resolution = options.processing_resolution or components.info.processing_resolution
    work = make_workload(components, resolution, options.batch_size, options.steps)
    candidates, left_out = list_candidates(checkpoint, resolution, device, options.compile)
    rungs, calibration = choose_memory_formats(
        [each for each in candidates if each.dtype == candidates[-1].dtype], work)
    # The same rungs in float32, which is their own dtype where nothing else is in hardware.
    exact = dict(zip(rungs, compute_exact_depths(
        [replace(each, dtype='float32') for each in rungs], [work]).values()))
    reference = exact[rungs[0]][0]
    runners = {each: each.load() for each in rungs}
    calls = {each: runner.prepare(work) for each, runner in runners.items()}
    depths = {each: call()[0] for each, call in calls.items()}
    runs = time_interleaved({each.name: _stages_of(call) for each, call in calls.items()},
                            rounds=options.rounds, device=device)
    rows = []
    for before, each in zip([rungs[0], *rungs], rungs):
        print(f'{each.name}: kernels, waits and memory', file=sys.stderr, flush=True)
        seconds = runs[each.name].seconds
        rows.append({
            'rung': each.name, 'dtype': each.dtype, **quartiles_ms(seconds),
            'stages_ms': median_stages_ms(seconds, runs[each.name].returned),
            'times_first': speedup(runs[rungs[0].name].seconds, seconds),
            'times_before': speedup(runs[before.name].seconds, seconds),
            'difference': describe_difference(depths[each], reference),
            'difference_in_float32': describe_difference(exact[each][0], reference),
            'kernels': find_kernels(calls[each], device),
            'waits': find_waits(runners[each], calls[each], device),
            'peak_memory': peak_memory(each, [work])[0]})
    return {'processing_resolution': resolution, 'vae': type(components.vae).__name__,
            'batch_size': options.batch_size, 'num_inference_steps': options.steps,
            'left_out': left_out, 'channels_last_ratios': calibration, 'rungs': rows}


def _stages_of(call: Call) -> Callable[[], dict[str, float]]:
    return lambda: call()[1]


def find_kernels(call: Call, device: torch.device) -> list[dict[str, Any]]:
    """
    Profile one call.

    Returns
    -------
    list of dict
        Name, number of calls, ms and share of the whole of the kernels (on a CPU operators of
        torch) that take the most time, longest first.
    """
    on_gpu = device.type == 'cuda'
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as profiler:
        call()
        synchronized_time_s(device)
    times_us = [(event, event.self_device_time_total if on_gpu else event.self_cpu_time_total)
                for event in profiler.key_averages()
                if (event.device_type.name == 'CUDA') == on_gpu]
    total_us = sum(time_us for _, time_us in times_us)
    return [{'kernel': event.key, 'calls': event.count, 'ms': time_us / 1e3,
             'share': time_us / total_us}
            for event, time_us in sorted(times_us, key=lambda each: -each[1])[:TOP_KERNELS]]


def find_waits(runner: Runner, call: Call, device: torch.device) -> dict[str, str]:
    """
    Find the first wait for the device in a frame, and in the engine's denoising loop.

    Waits for an event, of which the engine has one a frame, are not seen.

    Returns
    -------
    dict of str to str
        'loop' and 'frame' -> line of code, or 'none'; empty on a CPU.
    """
    if device.type != 'cuda':
        return {}
    waits = {}
    if isinstance(runner, EngineRunner):
        with waits_forbidden_between_encode_and_decode(runner.executor):
            waits['loop'] = _first_wait(call)
    torch.cuda.set_sync_debug_mode('error')
    try:
        waits['frame'] = _first_wait(call)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    return waits


def _first_wait(call: Call) -> str:
    try:
        call()
    except RuntimeError as err:
        if 'synchronizing' not in str(err):
            raise
        frame = extract_tb(err.__traceback__)[-1]
        return f'{Path(frame.filename).name}:{frame.lineno}: {frame.line}'
    return 'none'


@contextmanager
def waits_forbidden_between_encode_and_decode(executor: Executor) -> Iterator[None]:
    """Make every wait for the device between the stages encode and decode an error."""
    encode, decode = executor.encode, executor.decode

    def encode_and_forbid(images: torch.Tensor) -> torch.Tensor:
        latents = encode(images)
        torch.cuda.set_sync_debug_mode('error')
        return latents

    def allow_and_decode(latent: torch.Tensor) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode('default')
        return decode(latent)

    with patch.object(executor, 'encode', encode_and_forbid), \
            patch.object(executor, 'decode', allow_and_decode):
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode('default')


def format_markdown(result: Mapping[str, Any]) -> str:
    """Format the rungs, and the kernels of each."""
    lines = [
        f'## processing_resolution {result["processing_resolution"]}, {result["vae"]}, batch '
        f'{result["batch_size"]}, {result["num_inference_steps"]} step(s)', '',
        format_markdown_table([_format_rung(row) for row in result['rungs']]), '',
        '- ratios are of medians, with their 95 % interval; depths differ from that of stock, '
        'eager, float32: mean and largest difference, of a range of 1']
    lines += [f'- left out: {executor}: {reason}'
              for executor, reason in result['left_out'].items()]
    lines += [f'- channels_last makes stock, eager, {dtype} faster by: ' + ', '.join(
        f'{ratio:.2f} ({network})' for network, ratio in ratios.items())
        for dtype, ratios in result['channels_last_ratios'].items()]
    for row in result['rungs']:
        lines += ['', f'### {row["rung"]}', '', format_markdown_table([
            {'kernel': each['kernel'][:KERNEL_NAME_CHARACTERS].replace('|', '/'),
             'calls': each['calls'], 'ms': f'{each["ms"]:.3f}', 'share': f'{each["share"]:.1%}'}
            for each in row['kernels']])]
    return '\n'.join(lines)


def _format_rung(row: Mapping[str, Any]) -> dict[str, str]:
    ratio = '{ratio:.2f} ({low:.2f}..{high:.2f})'.format
    waits = row['waits'] or dict.fromkeys(('loop', 'frame'), 'needs a GPU')
    return {
        '': row['rung'], 'ms': f'{row["median_ms"]:.1f}',
        'times the first': ratio(**row['times_first']),
        'times the one before': ratio(**row['times_before']),
        **{stage: f'{ms:.1f}' for stage, ms in row['stages_ms'].items()},
        'MiB': f'{row["peak_memory"] / 2 ** 20:.0f}',
        'depth differs by': format_difference(row['difference'], row['dtype']),
        'in float32': format_difference(row['difference_in_float32'], 'float32'),
        **{f'wait in the {where}': waits.get(where, '') for where in ('loop', 'frame')}}


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add_checkpoint_arguments(parser)
    parser.add_argument('--steps', type=int, default=4)
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--processing-resolution', type=int,
                        help="longest edge, px; the checkpoint's by default")
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    options = make_parser().parse_args(arguments)
    reserve_one_core()
    facts = describe_environment(resolve_device(options.device))
    with open_checkpoint(options) as (checkpoint, name):
        result = climb(checkpoint, options)
    write_benchmark_report(options.out, f'engine_ladder_{name}', facts, result,
                           format_markdown(result))


if __name__ == '__main__':
    main()
