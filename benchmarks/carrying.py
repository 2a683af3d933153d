"""
How long does it take to carry depth into a frame, beside running the networks?

    python -m benchmarks.carrying

Frames of the sample drive, at their own size and enlarged, on one core.  `look` reduces the image,
computes the flow and finds what is new, as for every frame; `carry` moves depth and confidence,
along the image or also along the camera's axis, and resizes them to the image; `run` is one step
of the networks, which the node runs beside the frames.  As in a drive,
four frames are carried for each run, which leaves cold caches behind.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.timing import (
    format_markdown_table,
    quartiles_ms,
    time_interleaved,
    write_benchmark_report,
)
from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.depth.carry import DepthCarrier, Motion, View
from marigold_ros.depth.complexity import complexity_share, reduce_to_grey
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.types import RgbImage
from marigold_ros.evaluation.environment import describe_environment

SAMPLE = Path('sample/living_room')
SIZES = ((480, 640), (1080, 1920))
FRAMES = 12
SCALE_SHIFT = 4.0, 1.0
CARRIED_PER_RUN = 4


def measure(engine: DepthEngine, frames: Sequence[RgbImage], views: Sequence[View], rounds: int
            ) -> dict[str, dict[str, float]]:
    """Time every part on successive frames; return the quartiles in ms by part."""
    prediction, = engine.infer_batch(frames[:1], [1], upsample=False)
    carrier, number = DepthCarrier(reduce_to_grey(frames[0])), 0
    carrier.begin_run()
    carrier.finish_run(prediction.affine_invariant_depth, prediction.confidence,
                       frames[0].shape[1::-1])

    def look() -> None:
        nonlocal number
        number = (number + 1) % len(frames)
        grey = reduce_to_grey(frames[number])
        carrier.advance(grey)
        complexity_share('entropy', grey, carrier.new)

    def carry(motion: Motion | None = None) -> None:
        engine.upsample(carrier.carry(motion).as_prediction(), frames[number])

    def repeat(part: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(CARRIED_PER_RUN):
                part()
        return run

    times = time_interleaved({
        'look': repeat(look), 'carry': repeat(carry),
        'carry with pose': repeat(lambda: carry(Motion(views[0], views[number], *SCALE_SHIFT))),
        'run': lambda: engine.infer_batch([frames[number]], [1], upsample=False)}, rounds=rounds)
    return {name: quartiles_ms(runs.seconds / (1 if name == 'run' else CARRIED_PER_RUN))
            for name, runs in times.items()}


def format_row(height: int, width: int, parts: dict[str, dict[str, float]]) -> dict[str, str]:
    """Format the times at one size as a row."""
    median = {name: quartiles['median_ms'] for name, quartiles in parts.items()}
    carried = median['look'] + median['carry']
    return {'size': f'{width}x{height}',
            **{f'{name}, ms': f'{quartiles["median_ms"]:.1f} ({quartiles["q25_ms"]:.1f}..'
                              f'{quartiles["q75_ms"]:.1f})' for name, quartiles in parts.items()},
            'look + carry, ms': f'{carried:.1f}',
            'run / (look + carry)': f'{median["run"] / carried:.1f}'}


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--rounds', type=int, default=100)
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    options = make_parser().parse_args(arguments)
    reserve_one_core()
    cv2.setNumThreads(1)
    facts = describe_environment()
    engine = DepthEngine.load()
    drive = list(islice(bag_data_set(SAMPLE).frames(), FRAMES))
    rows, results = [], {}
    for height, width in SIZES:
        views = [View(np.diag([width / 640, height / 480, 1.0]) @ frame.K,
                      frame.world_from_camera) for frame in drive
                 if frame.K is not None and frame.world_from_camera is not None]
        images: list[Any] = [cv2.resize(frame.rgb, (width, height)) for frame in drive]
        results[f'{width}x{height}'] = measure(engine, images, views, options.rounds)
        rows.append(format_row(height, width, results[f'{width}x{height}']))
    write_benchmark_report(options.out, 'carrying', facts, {'parts': results},
                           format_markdown_table(rows))


if __name__ == '__main__':
    main()
