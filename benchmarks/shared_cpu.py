"""
How should the networks and the frames share a CPU?

    python -m benchmarks.shared_cpu      # about ten minutes

The node as it is, beside variants of it: another niceness of the thread of the networks, and
other numbers of threads of the networks and of OpenCV.  The networks are always busy, with 10
steps at a time, while VGA images come at 30 Hz: alone, and beside a process that keeps one core
busy.  Each round measures every variant once.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
import itertools
import os
from pathlib import Path
import sys

import cv2
import numpy as np

from benchmarks.node import Case, frames_row, list_cases, Result, run
from benchmarks.node_rig import depth_node_under_test
from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.depth.device import cpu_thread_count
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.ros.tools.command_line import parse_positive
from marigold_ros.ros.worker import NETWORKS_NICENESS
from marigold_ros.stop_flag import StopFlag

COLUMNS = ('published a second', 'in the worst second', 'receipt to publication', 'runs a second')


@dataclass(frozen=True)
class Sharing:
    """How a node shares the CPU: niceness and threads of the networks, and OpenCV's threads."""

    niceness: int = NETWORKS_NICENESS
    network_threads: int = cpu_thread_count()
    opencv_threads: int = cv2.getNumThreads()


MORE_THREADS = Sharing().network_threads + 1
SHARINGS = (Sharing(), Sharing(niceness=0), Sharing(niceness=19),
            Sharing(network_threads=MORE_THREADS),
            Sharing(niceness=0, network_threads=MORE_THREADS), Sharing(opencv_threads=1))


def loaded_cases() -> list[Case]:
    """Return the runs in which the networks are always busy, alone and beside a busy core."""
    busy, = (case for case in list_cases(['frames'])
             if case.name == 'VGA at 30 Hz, 10 steps at any time')
    return [busy, replace(busy, name=f'{busy.name}, beside a busy core', busy_cores=1)]


def measure(case: Case, sharing: Sharing, folder: Path, seconds: float, stop: StopFlag) -> Result:
    """Run a case with a node that shares the CPU in this way."""
    node = depth_node_under_test(
        case.cameras, case.outputs, case.parameters, slowed=(
            '--run-s', '0', '--niceness', str(sharing.niceness),
            '--network-threads', str(sharing.network_threads),
            '--opencv-threads', str(sharing.opencv_threads)))
    return run(case, node, folder, seconds, stop)


def format_rows(measured: Iterable[tuple[Sharing, Result]]) -> str:
    """Format the median round, by its p95 of the age, of each case and way of sharing."""
    rounds: dict[tuple[str, Sharing], list[Result]] = defaultdict(list)
    for sharing, result in measured:
        rounds[result['name'], sharing].append(result)
    rows = []
    for case, sharing in itertools.product(loaded_cases(), SHARINGS):
        results = sorted(rounds[case.name, sharing],
                         key=lambda each: each['times_ms']['latency_ms']['p95'])
        row = frames_row(results[len(results) // 2])
        rows.append({
            '': case.name, 'niceness': str(sharing.niceness),
            'threads of the networks': str(sharing.network_threads),
            'of OpenCV': str(sharing.opencv_threads), **{key: row[key] for key in COLUMNS}})
    return format_markdown_table(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the report; the exit code is 0, or 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--seconds', type=parse_positive, default=8.0,
                        help='measured time of each run')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    options = parser.parse_args(arguments)
    stop = StopFlag()
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    facts = describe_environment()
    measured: list[tuple[Sharing, Result]] = []
    rng = np.random.default_rng(0)
    order = [number for _ in range(options.rounds) for number in rng.permutation(len(SHARINGS))]
    try:
        for number, case in itertools.product(order, loaded_cases()):
            sharing = SHARINGS[number]
            print(f'{case.name}: {sharing}', file=sys.stderr, flush=True)
            folder = options.out / 'shared_cpu_logs' / str(len(measured))
            measured.append((sharing, measure(case, sharing, folder, options.seconds, stop)))
    except MarigoldError as err:
        print(f'shared_cpu: {err}', file=sys.stderr)
        return 1
    write_benchmark_report(
        options.out, 'shared_cpu', facts,
        {'results': [{**vars(sharing), **result} for sharing, result in measured]},
        format_rows(measured))
    return 0


if __name__ == '__main__':
    sys.exit(main())
