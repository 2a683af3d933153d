"""
Measure what choosing the steps of each frame buys: every policy on frames with true depth.

    python -m marigold_ros.benchmark.bench_policies --bag sample/living_room --out out/policies
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
import sys
from typing import Any

from marigold_ros.benchmark.policy_report import (as_json, compare_policies, Comparison, FASTEST,
                                                  markdown, plot, RANDOM_AS, SLOWEST)
from marigold_ros.benchmark.policy_runs import ROUNDS, run_policies, SETTINGS
from marigold_ros.benchmark.timing import write_report
from marigold_ros.data.data_set import (bag_data_set, DataSet, folder_data_set, MAX_DEPTH_M,
                                        MIN_DEPTH_M, shards_data_set)
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.environment import environment
from marigold_ros.evaluation.policies import (MAX_ABS_REL_LOSS, MAX_BOUNDARY_F1_LOSS,
                                              MIN_SHARE_OF_CEILING)

NAME = 'bench_policies'
METHOD = f"""\
Each policy sees the frames in their order and once, and learns its running quantiles from them as
a live camera's node would; no frame is seen beforehand, and there is no cap.  Every frame is run
with every T and by every policy that looks into the denoising, {ROUNDS} times in a new random
order, of which the faster counts; time is the mean over the frames of what the policy's own choice
took, the choice included, at batch 1.  Time is saved against {SLOWEST}, and the ceiling is what
{FASTEST} saves.  "{RANDOM_AS}P" is the mean over all permutations of P's own T; the oracle takes
the T with the least AbsRel of each frame.  Depth is aligned by least squares on the measured
pixels and clipped to [{MIN_DEPTH_M:g}, max({MAX_DEPTH_M:g}, largest measurement)] m.  A difference
whose interval holds 0 is no difference; few blocks make intervals too narrow rather than too wide.
A policy beats another if it is better in AbsRel or boundary F1 and worse in neither.  Target:
{MIN_SHARE_OF_CEILING:.0%} of the ceiling, AbsRel at most {MAX_ABS_REL_LOSS:.0%} and boundary F1 at
most {MAX_BOUNDARY_F1_LOSS:.0%} worse than {SLOWEST}."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write tables, JSON and the plot; the exit code is 0 or 2."""
    options = _parse(arguments)
    try:
        _measure(options)
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return 2
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bag', type=Path, help='images, camera_info and true depth, as sample/')
    parser.add_argument('--frames', type=Path, help='folder of rendered shards')
    parser.add_argument('--folder', type=Path, help='RGB-D folder with frames.json')
    parser.add_argument('--max-frames', type=_count, metavar='N',
                        help='only the first N frames of each')
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--processing-resolution', type=int, help='longest edge, px')
    parser.add_argument('--out', type=Path, required=True, help='folder for the report')
    options = parser.parse_args(arguments)
    if not (options.bag or options.frames or options.folder):
        parser.error('at least one of --bag, --frames and --folder is required')
    return options


def _count(text: str) -> int:
    """Read a number of at least 1, or let argparse say what is wrong."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1; got {count}')
    return count


def _measure(options: argparse.Namespace) -> None:
    data_sets = [make(path) for make, path in (
        (bag_data_set, options.bag), (shards_data_set, options.frames),
        (folder_data_set, options.folder)) if path is not None]
    engine = DepthEngine.load(options.checkpoint,
                              processing_resolution=options.processing_resolution)
    facts = environment(engine.device)
    comparisons = [_compare(engine, data_set, options.max_frames) for data_set in data_sets]
    settings = {'checkpoint': options.checkpoint,
                'processing_resolution': engine.processing_resolution,
                'dtype': str(engine.dtype), 'max_frames': options.max_frames,
                'step_policy': asdict(SETTINGS)}
    result: dict[str, Any] = {'environment': facts, 'settings': settings, 'method': METHOD,
                              'data_sets': [as_json(each) for each in comparisons]}
    write_report(options.out, NAME, result, _text(facts, settings, comparisons))
    plot(comparisons, options.out / f'{NAME}.png')


def _compare(engine: DepthEngine, data_set: DataSet, max_frames: int | None) -> Comparison:
    print(data_set.name, file=sys.stderr)
    runs = run_policies(engine, islice(data_set.frames(), max_frames))
    return compare_policies(data_set.name, data_set.block, runs,
                            mean_of_blocks=data_set.mean_of_blocks)


def _text(facts: dict[str, Any], settings: dict[str, Any],
          comparisons: Sequence[Comparison]) -> str:
    shown = {**facts, **{key: value for key, value in settings.items() if key != 'step_policy'}}
    return '\n\n'.join([
        '# Step policies', METHOD, ', '.join(f'{key} {value}' for key, value in shown.items()),
        *(markdown(comparison) for comparison in comparisons)])


if __name__ == '__main__':
    sys.exit(main())
