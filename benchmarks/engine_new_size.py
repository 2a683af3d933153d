"""
Does a camera of a new size delay the frames of the others, whose networks are compiled?

    python -m benchmarks.engine_new_size

An engine that compiles in the background, as in the node, runs 640x480 frames without pause: first
alone, then in the second after a frame of another size, of one size after another.  The first
process has an empty cache, the second what the first left there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import os
from pathlib import Path
from tempfile import TemporaryDirectory
import time

import numpy as np

from benchmarks.synthetic_images import make_synthetic_image
from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.depth.device import reserve_one_core, resolve_device
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.types import RgbImage
from marigold_ros.evaluation.environment import describe_environment

# All are processed at different sizes.
NEW_SIZES = ((240, 440), (360, 640), (400, 520), (560, 640), (480, 560))
AFTER_S = 1.0


def measure_frames(device: str) -> dict[str, list[float]]:
    """Return the seconds of frames of a known size, alone and after frames of other sizes."""
    reserve_one_core()
    engine = DepthEngine.load(device=device)
    known = make_synthetic_image(0)
    engine.infer(known)
    engine.prepare_in_background()
    seconds = {'alone': _time_frames(engine, known, len(NEW_SIZES) * AFTER_S),
               'after a frame of another size': []}
    for height, width in NEW_SIZES:
        engine.infer(np.resize(known, (height, width, 3)))
        seconds['after a frame of another size'] += _time_frames(engine, known, AFTER_S)
    engine.close()
    return seconds


def _time_frames(engine: DepthEngine, rgb: RgbImage, duration_s: float) -> list[float]:
    """Infer for a while; return the seconds of each frame."""
    marks = [time.perf_counter()]
    while marks[-1] < marks[0] + duration_s:
        engine.infer(rgb, num_inference_steps=1)
        marks.append(time.perf_counter())
    return [float(each) for each in np.diff(marks)]


def format_row(cache: str, frames: str, seconds: Sequence[float]) -> dict[str, str]:
    """Format the times of frames as a row."""
    milliseconds = 1e3 * np.array(seconds)
    return {'cache': cache, '640x480 frames': frames, 'frames': str(len(seconds)),
            'median, ms': f'{np.median(milliseconds):.0f}',
            'p95, ms': f'{np.quantile(milliseconds, 0.95):.0f}',
            'longest, ms': f'{milliseconds.max():.0f}'}


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--device', default='auto')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    options = make_parser().parse_args(arguments)
    facts = describe_environment(resolve_device(options.device))
    with TemporaryDirectory() as caches:
        os.environ['XDG_CACHE_HOME'] = caches
        results = {}
        for state in ('empty', 'filled'):
            with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as process:
                results[state] = process.submit(measure_frames, options.device).result()
    rows = [format_row(state, name, seconds)
            for state, result in results.items() for name, seconds in result.items()]
    write_benchmark_report(options.out, 'engine_new_size', facts, {'seconds': results},
                           format_markdown_table(rows))


if __name__ == '__main__':
    main()
