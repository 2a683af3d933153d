"""
How do time and accuracy depend on the processing resolution?

    python -m benchmarks.resolution

The embedded checkpoint at one step on the frames of the sample drive, one torch thread.  Accuracy:
protocol A, mean over the frames.  Time: `DepthEngine.infer` on one 640x480 frame, the resolutions
in random order in each round; medians, and the ratio to the checkpoint's own resolution.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
import sys

import torch

from benchmarks.timing import (
    format_markdown_table,
    quartiles_ms,
    speedup,
    time_interleaved,
    write_benchmark_report,
)
from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.evaluation.metrics.protocols import mean_scores, score

SAMPLE = Path(__file__).parents[1] / 'sample' / 'living_room'
RESOLUTIONS_PX = (96, 128, 160, 192)
ROUNDS = 40


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--rounds', type=int, default=ROUNDS, help='timed rounds')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = make_parser().parse_args(arguments)
    facts = describe_environment()
    torch.set_num_threads(1)
    frames = list(bag_data_set(SAMPLE).frames())
    engines = {size_px: DepthEngine.load(device='cpu', processing_resolution=size_px)
               for size_px in RESOLUTIONS_PX}
    runs = time_interleaved(
        {str(size_px): partial(engine.infer, frames[0].rgb, num_inference_steps=1)
         for size_px, engine in engines.items()}, rounds=options.rounds)
    own = str(RESOLUTIONS_PX[-1])
    rows = []
    for size_px, engine in engines.items():
        scores = mean_scores([
            score(engine.infer(frame.rgb, num_inference_steps=1).affine_invariant_depth, frame)
            for frame in frames])
        seconds = runs[str(size_px)].seconds
        faster = speedup(runs[own].seconds, seconds)
        rows.append({
            'processing resolution, px': size_px,
            'infer, ms': f'{quartiles_ms(seconds)["median_ms"]:.0f}',
            f'times as fast as {own} px': f'{faster["ratio"]:.2f} '
                                          f'[{faster["low"]:.2f}, {faster["high"]:.2f}]',
            f'AbsRel by {scores.label}': f'{scores["abs_rel"]:.3f}',
            'delta1': f'{scores["delta1"]:.3f}',
            'boundary F1': f'{scores["boundary_f1"]:.4f}'})
    write_benchmark_report(options.out, 'resolution', facts, {'rows': rows},
                           format_markdown_table(rows))
    return 0


if __name__ == '__main__':
    sys.exit(main())
