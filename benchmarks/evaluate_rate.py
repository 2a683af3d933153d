"""
At what share of its own rate does `evaluate` keep the engine?

    python -m benchmarks.evaluate_rate --out out/benchmarks

The bag repeats frames of sample/living_room as raw VGA images.  The engine alone runs some of them
with every number of steps, before and after `evaluate` does the whole bag in the same process; its
own rate is that of both together.  The time of `evaluate` is that of reading, running and scoring
all frames, without the measurement of its latency table and without the report.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice
import json
from pathlib import Path
import sys
from tempfile import TemporaryDirectory
import time

from benchmarks.bag_reading import TOPICS, write_long_bag
from benchmarks.timing import format_markdown_table, write_benchmark_report
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


def time_engine(engine: DepthEngine, images: Sequence[RgbImage], steps: Sequence[int]) -> float:
    """Return the time of a frame with every number of steps, s."""
    for count in steps:  # warm up
        engine.infer_batch([images[0]], [count], upsample=False)
    started_s = time.perf_counter()
    for rgb in images:
        for count in steps:
            engine.infer_batch([rgb], [count], upsample=False)
    return (time.perf_counter() - started_s) / len(images)


def measure(options: argparse.Namespace, folder: Path) -> None:
    """
    Measure and write the report.

    Raises
    ------
    MarigoldError
        If `evaluate` has failed.
    """
    needs_all = EvaluationConfig(tuple(options.policies.split(','))).needs_all_steps
    facts = describe_environment()
    bag, out = folder / 'bag', folder / 'out'
    write_long_bag(bag, options.minutes, options.hz)
    images = [frame.rgb for frame in islice(bag_data_set(bag, TOPICS).frames(), FRAMES_ALONE)]
    reserve_one_core()
    engine = DepthEngine.load('tiny')
    most = StepPolicyConfig.max_inference_steps if needs_all else 1
    steps = range(1, min(most, engine.checkpoint_info.max_useful_steps) + 1)
    alone_s = time_engine(engine, images, steps)
    if evaluate(['bag', str(bag), '--image', TOPICS.image, '--depth', TOPICS.depth,
                 '--policies', options.policies, '--out', str(out)]):
        raise MarigoldError('`evaluate` must succeed')
    alone_s = (alone_s + time_engine(engine, images, steps)) / 2
    summary = json.loads((out / 'summary.json').read_text())
    frames = summary['data']['frames']
    own, kept = 1.0 / alone_s, frames / summary['timing']['wall_s']
    row = {'policies': options.policies, 'frames': frames, 'engine alone (frames/s)': f'{own:.2f}',
           'evaluate (frames/s)': f'{kept:.2f}', 'share': f'{100 * kept / own:.0f} %'}
    write_benchmark_report(options.out, NAME, facts, {'rows': [row]}, format_markdown_table([row]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the report; the exit code is 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--minutes', type=float, default=10.0, help='length of the bag')
    parser.add_argument('--hz', type=int, default=2, help='frames per second of the bag')
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
