"""
How fast is DepthEngine compared with diffusers' MarigoldDepthPipeline and with the hardware?

    python -m benchmarks.engine_speed --processing-resolution 128 320
    python -m benchmarks.engine_speed --architecture sd2 --vae kl --compile

The candidates are those of `benchmarks.engine_candidates`: the stock pipeline eager and, with
`--compile`, with its U-Net compiled, and the engine with each executor; in float32 and in the
engine's own dtype.  In float32 all must return the same depth.  On a CPU all use the threads of
the node, one less than there are cores or OMP_NUM_THREADS.  A calibration at the smallest batch
decides which networks of the stock pipeline run in channels_last.

Times are medians of interleaved rounds, of whole calls with preprocessing and postprocessing;
stages are timed in the same rounds by marks that do not wait for the device.  Each row has two
ratios, or with `--compile` three: over the eager stock pipeline in float32, and over the stock
pipelines in the row's own dtype.  The hardware limit is the rate of the device on large square
matrices, relative to the floating-point operations of the checkpoint's own networks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
import sys
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.engine_candidates import (
    add_checkpoint_arguments,
    Candidate,
    choose_memory_formats,
    compute_exact_depths,
    describe_difference,
    format_difference,
    list_candidates,
    make_workload,
    median_stages_ms,
    open_checkpoint,
    peak_memory,
    Runner,
    StockCandidate,
    Workload,
)
from benchmarks.synthetic_images import VGA
from benchmarks.timing import (
    format_markdown_table,
    quartiles_ms,
    speedup,
    time_interleaved,
    write_benchmark_report,
)
from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.device import cpu_thread_count, reserve_one_core, resolve_device
from marigold_ros.depth.preprocess import padded_size, processing_size
from marigold_ros.depth.types import FloatImage
from marigold_ros.evaluation.environment import describe_environment

# Large batches get fewer rounds, but at least this many.
MIN_ROUNDS = 5
# Edge of the square matrices: large enough to be compute-bound.
MATRIX_EDGE = {'cpu': 2048, 'cuda': 8192}
# Column of a ratio -> (whether the stock pipeline's U-Net is compiled, its dtype; '' for that of
# the row).
BASELINES = {'times stock eager float32': (False, 'float32'),
             'times stock eager, same dtype': (False, ''),
             'times stock compiled, same dtype': (True, '')}


def measure(checkpoint: str, resolution: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a checkpoint at one processing resolution; return the values for JSON."""
    device = resolve_device(options.device)
    components = load_components(checkpoint)
    works = {(batch_size, steps): make_workload(components, resolution, batch_size, steps)
             for batch_size in sorted(options.batch_sizes) for steps in options.steps}
    smallest, *_ = works.values()
    candidates, left_out = list_candidates(checkpoint, resolution, device, options.compile)
    candidates, calibration = choose_memory_formats(candidates, smallest)
    exact = compute_exact_depths([each for each in candidates if each.dtype == 'float32'],
                                 list(works.values()))
    runners = {each: each.load() for each in candidates}
    rows: list[dict[str, Any]] = []
    for i, ((batch_size, steps), work) in enumerate(works.items()):
        rows += measure_setting(runners, work, {name: depths[i] for name, depths in exact.items()},
                                max(MIN_ROUNDS, options.rounds // batch_size))
        print(f'{resolution} px, batch {batch_size}, {steps} step(s): '
              + ', '.join(f'{row["candidate"]} {row["median_ms"]:.1f} ms'
                          for row in rows[-len(candidates):]), file=sys.stderr, flush=True)
    del runners
    fewest = {size: works[size, min(options.steps)] for size in sorted(
        {min(options.batch_sizes), max(options.batch_sizes)})}
    size = padded_size(processing_size(*VGA, resolution), components.info.vae_scale_factor)
    return {
        'processing_resolution': resolution, 'vae': type(components.vae).__name__, 'rows': rows,
        'left_out': left_out, 'channels_last_ratios': calibration,
        'threads': cpu_thread_count() if device.type == 'cpu' else None,
        'memory': {each.name: dict(zip(fewest, peak_memory(each, list(fewest.values()))))
                   for each in candidates},
        'flops': count_flops(components.unet, components.vae, size),
        'matrix_rate_flops_per_s': {
            dtype: measure_matrix_rate(device, getattr(torch, dtype))
            for dtype in dict.fromkeys(each.dtype for each in candidates)}}


def measure_setting(runners: Mapping[Candidate, Runner], work: Workload,
                    exact: Mapping[str, FloatImage], rounds: int) -> list[dict[str, Any]]:
    """
    Measure one batch size and number of steps.

    Parameters
    ----------
    runners : mapping
        The eager stock pipeline in float32 comes first.
    work : Workload
    exact : mapping
        Depth of the float32 candidates by name, see `compute_exact_depths`.
    rounds : int

    Returns
    -------
    list of dict
        One per candidate.
    """
    reference, *_ = runners
    # 1. Compare the depths; what runs in half precision is compared as it is timed.
    depths = {each: exact[each.name] if each.name in exact else runner.prepare(work)()[0]
              for each, runner in runners.items()}

    # 2. Time whole calls, and within them the stages, in interleaved rounds.
    runs = time_interleaved({each.name: _stage_call(runner, work)
                             for each, runner in runners.items()},
                            rounds=rounds, device=reference.device)

    # 3. Compare with the stock pipelines.
    stock = {(each.compiled, each.dtype): runs[each.name].seconds for each in runners
             if isinstance(each, StockCandidate)}
    rows = []
    for each in runners:
        seconds = runs[each.name].seconds
        baselines = {column: stock.get((compiled, dtype or each.dtype))
                     for column, (compiled, dtype) in BASELINES.items()}
        rows.append({
            'candidate': each.name, 'dtype': each.dtype,
            'num_inference_steps': work.num_inference_steps, 'batch_size': len(work.frames),
            **quartiles_ms(seconds), 'frames_per_s': len(work.frames) / float(np.median(seconds)),
            'speedups': {column: speedup(baseline, seconds)
                         for column, baseline in baselines.items() if baseline is not None},
            'stages_ms': median_stages_ms(seconds, runs[each.name].returned),
            'difference': describe_difference(depths[each], depths[reference])})
    return rows


def _stage_call(runner: Runner, work: Workload) -> Callable[[], dict[str, float]]:
    """Return a call that returns the seconds per stage and frees the depth."""
    call = runner.prepare(work)
    return lambda: call()[1]


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


def format_markdown(result: Mapping[str, Any]) -> str:
    """Format times, memory and hardware limit at one resolution as Markdown."""
    flops, rates = result['flops'], result['matrix_rate_flops_per_s']
    lines = [
        f'## processing_resolution {result["processing_resolution"]}, {result["vae"]}', '',
        format_markdown_table([_format_row(row, flops, rates) for row in result['rows']]), '',
        '- ratios are of medians, with their 95 % interval; the depth differs from that of stock, '
        'eager, float32: mean and largest difference, of a range of 1']
    if result['threads'] is not None:
        lines.append(f'- {result["threads"]} thread(s) for the networks of every candidate')
    lines += [f'- left out: {executor}: {reason}'
              for executor, reason in result['left_out'].items()]
    lines += [f'- channels_last makes stock, eager, {dtype} faster by: ' + ', '.join(
        f'{ratio:.2f} ({network})' for network, ratio in ratios.items())
        for dtype, ratios in result['channels_last_ratios'].items()]
    lines += [f'- peak memory of {name}: ' + ', '.join(
        f'{peak / 2 ** 20:.0f} MiB at batch {batch}' for batch, peak in peaks.items())
        for name, peaks in result['memory'].items()]
    lines.append('- work of a frame, GFLOP: ' + ', '.join(
        f'{name} {count / 1e9:.2f}' for name, count in flops.items()))
    lines += [f'- matrix rate in {dtype}: {rate / 1e9:.0f} GFLOP/s; at that rate a frame takes '
              f'{1e3 * sum(flops.values()) / rate:.2f} ms at 1 step'
              for dtype, rate in rates.items()]
    return '\n'.join(lines)


def _format_row(row: Mapping[str, Any], flops: Mapping[str, int],
                rates: Mapping[str, float]) -> dict[str, str]:
    """Format the row of a candidate."""
    steps = row['num_inference_steps']
    work = row['batch_size'] * (flops['encode'] + steps * flops['unet_step'] + flops['decode'])
    return {
        'steps': str(steps), 'batch': str(row['batch_size']), '': row['candidate'],
        'ms': f'{row["median_ms"]:.1f}',
        'quartiles': f'{row["q25_ms"]:.1f}..{row["q75_ms"]:.1f}',
        'frames/s': f'{row["frames_per_s"]:.1f}',
        **{column: f'{ratio["ratio"]:.2f} ({ratio["low"]:.2f}..{ratio["high"]:.2f})'
           for column, ratio in row['speedups'].items()},
        **{stage: f'{ms:.1f}' for stage, ms in row['stages_ms'].items()},
        'of the matrix rate': f'{work / (row["median_ms"] / 1e3) / rates[row["dtype"]]:.0%}',
        'depth differs by': format_difference(row['difference'], row['dtype'])}


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add_checkpoint_arguments(parser)
    parser.add_argument('--steps', type=int, nargs='+', default=[1, 4])
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[1, 8])
    parser.add_argument('--processing-resolution', type=int, nargs='+',
                        help="longest edge, px; the checkpoint's by default")
    parser.add_argument('--rounds', type=int, default=20,
                        help=f'at batch 1; fewer for larger batches, at least {MIN_ROUNDS}')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    options = make_parser().parse_args(arguments)
    reserve_one_core()
    facts = describe_environment(resolve_device(options.device))
    with open_checkpoint(options) as (checkpoint, name):
        resolutions = (options.processing_resolution
                       or [load_components(checkpoint).info.processing_resolution])
        results = [measure(checkpoint, each, options) for each in resolutions]
    write_benchmark_report(options.out, f'engine_speed_{name}', facts, {'results': results},
                           '\n\n'.join(map(format_markdown, results)))


if __name__ == '__main__':
    main()
