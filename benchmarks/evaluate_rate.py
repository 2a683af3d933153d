"""
At what share of its own rate does `evaluate` keep the engine?

    python -m benchmarks.evaluate_rate --out out/benchmarks

Of two recordings: a bag that repeats frames of sample/living_room as raw VGA images, so far apart
that no depth can be carried, and that drive itself, where every policy carries a depth of its own
that has to be scored.  The engine alone runs some of the frames with every number of steps, before
and after `evaluate` does the whole recording in the same process; its own rate is that of both
together.  The time of `evaluate` is that of reading, running and scoring all frames, without the
measurement of its latency table and without the report.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import redirect_stdout
import io
from itertools import islice
import json
from pathlib import Path
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any

import numpy as np

from benchmarks.bag_reading import SAMPLE, TOPICS, write_long_bag
from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.data.bags.bag_frames import BagTopics
from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.depth.types import RgbImage
from marigold_ros.evaluation.config import EvaluationConfig
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.evaluation.evaluate import main as evaluate

NAME = 'evaluate_rate'
FRAMES_ALONE = 40
DRIVE = BagTopics('/camera/image_raw', '/camera/depth_gt/image_rect')


def time_engine(engine: DepthEngine, images: Sequence[RgbImage], steps: Sequence[int]) -> float:
    """Return the time of a frame with every number of steps, s."""
    for count in steps:  # warm up
        engine.infer_batch([images[0]], [count], upsample=False)
    started_s = time.perf_counter()
    for rgb in images:
        for count in steps:
            engine.infer_batch([rgb], [count], upsample=False)
    return (time.perf_counter() - started_s) / len(images)


def measure_recording(name: str, bag: Path, topics: BagTopics, policies: str, rounds: int,
                      out: Path) -> dict[str, Any]:
    """
    Compare the engine alone with `evaluate` on a recording; return a row, medians of the rounds.

    Raises
    ------
    MarigoldError
        If `evaluate` has failed.
    """
    needs_all = EvaluationConfig(tuple(policies.split(','))).needs_all_steps
    images = [frame.rgb for frame in islice(bag_data_set(bag, topics).frames(), FRAMES_ALONE)]
    engine = DepthEngine.load('tiny')
    most = StepPolicyConfig.max_inference_steps if needs_all else 1
    steps = range(1, min(most, engine.checkpoint_info.max_useful_steps) + 1)
    alone_s, evaluated_s = [time_engine(engine, images, steps)], []
    for _ in range(rounds):
        with redirect_stdout(io.StringIO()):  # its verdict is no part of the table
            failed = evaluate(['bag', str(bag), '--image', topics.image, '--depth', topics.depth,
                               '--policies', policies, '--out', str(out)])
        if failed:
            raise MarigoldError('`evaluate` must succeed')
        alone_s.append(time_engine(engine, images, steps))
        summary = json.loads((out / 'summary.json').read_text())
        evaluated_s.append(summary['timing']['wall_s'] / summary['data']['frames'])
    own_s = (np.array(alone_s[:-1]) + alone_s[1:]) / 2
    return {'recording': name, 'frames': summary['data']['frames'], 'rounds': rounds,
            'engine alone (frames/s)': f'{1 / np.median(own_s):.2f}',
            'evaluate (frames/s)': f'{1 / np.median(evaluated_s):.2f}',
            'share': f'{100 * np.median(own_s / evaluated_s):.0f} %'}


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Measure both recordings and write the report."""
    facts = describe_environment()
    bag = folder / 'bag'
    write_long_bag(bag, options.minutes, options.hz)
    reserve_one_core()
    rows = [measure_recording(f'{options.minutes:g} min, nothing is carried', bag, TOPICS,
                              options.policies, 1, folder / 'long'),
            measure_recording('sample/living_room', SAMPLE, DRIVE, options.policies,
                              options.rounds, folder / 'drive')]
    write_benchmark_report(options.out, NAME, facts, {'policies': options.policies, 'rows': rows},
                           f'Policies {options.policies}.\n\n{format_markdown_table(rows)}')


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the report; the exit code is 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--minutes', type=float, default=10.0, help='length of the bag')
    parser.add_argument('--hz', type=int, default=2, help='frames per second of the bag')
    parser.add_argument('--rounds', type=int, default=5, help='of the drive')
    parser.add_argument('--policies', default=','.join(EvaluationConfig.policies))
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    try:
        with TemporaryDirectory() as folder:
            measure(parser.parse_args(arguments), Path(folder))
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
