"""What bench_engine measured, held against its targets and laid out as tables."""

from __future__ import annotations

from typing import Any, Iterator, Mapping

import torch

Row = Mapping[str, Any]

# Largest difference of two float32 depths in [0, 1] that came from the same arithmetic.
SAME_WORK = 1e-4


def targets(result: Mapping[str, Any], device: torch.device) -> list[dict[str, Any]]:
    """
    Hold the engine, in its default number format and compiled if that was measured, to its goals.

    Parameters
    ----------
    result : mapping
        Of one subject: its rows, its floor and its VAE.
    device : torch.device
        The goals of a CPU and of a GPU differ.

    Returns
    -------
    list of dict
        `what`, `goal`, `measured` and `met`; only goals whose setting was measured.
    """
    rows = result['rows']
    ours = [row for row in rows if row['contestant'] == rows[-1]['contestant']]
    pairs = _gpu(result, ours) if device.type == 'cuda' else _speedups(ours, 1.5)
    return [{'what': what, 'goal': goal, 'measured': measured, 'met': measured >= goal}
            for what, goal, measured in pairs]


def _speedups(ours: list[Row], goal: float) -> Iterator[tuple[str, float, float]]:
    for steps in (1, 4):
        for row in _at(ours, steps, 1):
            yield f'times the reference at {steps} step(s)', goal, row['speedup']['ratio']


def _gpu(result: Mapping[str, Any], ours: list[Row]) -> Iterator[tuple[str, float, float]]:
    yield from _speedups(ours, 2.0)
    kl = result['vae'] == 'AutoencoderKL'
    for row in _at(ours, 1, 1):
        yield f'frames/s at 1 step, {result["vae"]}', 20.0 if kl else 60.0, row['frames_per_s']
    share = [unet_share(result, row) for row in _at(ours, 4, 1)]
    for value in share:
        yield 'U-Net step, part of the matrix rate', 0.25, value
    for one in _at(ours, 1, 1):
        for eight in _at(ours, 1, 8):
            yield ('frames/s of batch 8 over batch 1, 1 step', 1.5,
                   eight['frames_per_s'] / one['frames_per_s'])


def _at(rows: list[Row], steps: int, batch_size: int) -> list[Row]:
    return [row for row in rows
            if (row['num_inference_steps'], row['batch_size']) == (steps, batch_size)]


def unet_share(result: Mapping[str, Any], row: Row) -> float:
    """Part of the measured matrix rate that the denoising loop of a row reaches."""
    return _rate(result, row, row['num_inference_steps'] * result['floor']['flops']['unet_step'],
                 row['stages_ms']['denoise'])


def _rate(result: Mapping[str, Any], row: Row, flops: float, ms: float) -> float:
    dtype = row['contestant'].split()[1]
    peak: float = result['floor']['matrix_rate_flops_per_s'][dtype]
    return float(row['batch_size'] * flops / (ms / 1e3) / peak)


def markdown(report: Mapping[str, Any]) -> str:
    """Lay a whole report out: facts, then per subject times, memory, floor and targets."""
    facts = report['environment']
    machine = (f'{facts.get("gpu", facts["cpu"])}, {facts["cores"]} cores (load average '
               f'{facts["load_average_1min"]} before)')
    height, width = report['image_size']
    lines = [f'# {report["checkpoint"]}', '',
             f'{machine}, torch {facts["torch"]}, diffusers {facts["diffusers"]}, '
             f'commit {facts["commit"]}, {facts["date_utc"]}; image {width}x{height}']
    lines += ['', 'Complexity of a frame on one core: ' + ', '.join(
        f'{name} {row["median_ms"]:.2f} ms' for name, row in report['complexity'].items())]
    for result in report['subjects']:
        lines += ['', f'## processing_resolution {result["processing_resolution"]}, '
                  f'{result["vae"]}', '', *_times(result), '', *_memory(result), '',
                  *_floor(result), '', *_targets(result)]
    return '\n'.join(lines)


def _times(result: Mapping[str, Any]) -> Iterator[str]:
    first = result['rows'][0]['contestant']
    yield ('| steps | batch | | ms | q25..q75 | frames/s | '
           f'times {first} (95 %) | encode | denoise | decode | other | matrix rate | differs |')
    yield '|---' * 13 + '|'
    flops = result['floor']['flops']
    for row in result['rows']:
        steps, ratio, stages = row['num_inference_steps'], row['speedup'], row['stages_ms']
        work = flops['encode'] + steps * flops['unet_step'] + flops['decode']
        yield (f'| {steps} | {row["batch_size"]} | {row["contestant"]} | {row["median_ms"]:.1f} '
               f'| {row["q25_ms"]:.1f}..{row["q75_ms"]:.1f} | {row["frames_per_s"]:.1f} '
               f'| {ratio["ratio"]:.2f} ({ratio["low"]:.2f}..{ratio["high"]:.2f}) | '
               + ' | '.join(f'{ms:.1f}' for ms in stages.values())
               + f' | {100 * _rate(result, row, work, row["median_ms"]):.0f} % '
               f'| {_difference(row)} |')


def _difference(row: Row) -> str:
    """Say how far the depth is from the reference's, and where that is too far in float32."""
    other_work = 'float32' in row['contestant'] and row['largest_difference'] > SAME_WORK
    return f'{row["largest_difference"]:.1e}' + (' NOT THE SAME WORK' if other_work else '')


def _memory(result: Mapping[str, Any]) -> Iterator[str]:
    for row in result['memory']:
        sizes = ', '.join(f'{peak / 2 ** 20:.0f} MiB at batch {batch}'
                          for batch, peak in zip(row['batch_sizes'], row['peak_bytes']))
        yield f'- peak memory of {row["contestant"]}: {sizes}'
    for batch, seconds in result['first_call_compiled_s'].items():
        yield f'- compiling for {batch}: {seconds:.0f} s, once'


def _floor(result: Mapping[str, Any]) -> Iterator[str]:
    flops = result['floor']['flops']
    yield ('- work of a frame, GFLOP: '
           + ', '.join(f'{name} {count / 1e9:.2f}' for name, count in flops.items()))
    for dtype, rate in result['floor']['matrix_rate_flops_per_s'].items():
        once = sum(flops.values())
        yield (f'- matrix rate in {dtype}: {rate / 1e9:.0f} GFLOP/s; at that rate a frame takes '
               f'{1e3 * once / rate:.2f} ms at 1 step')


def _targets(result: Mapping[str, Any]) -> Iterator[str]:
    yield f'Targets, of {result["rows"][-1]["contestant"]}:'
    for target in result['targets']:
        verdict = 'met' if target['met'] else 'MISSED'
        stretch = ', twice it too' if target['measured'] >= 2 * target['goal'] else ''
        yield (f'- {target["what"]}: {target["measured"]:.2f}, goal {target["goal"]:g}: '
               f'{verdict}{stretch}')
