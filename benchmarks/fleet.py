"""
How much faster do two workers evaluate a fleet than one, and how many frames does a core do?

    python -m benchmarks.fleet --out out/benchmarks

The bags repeat frames of sample/living_room as raw VGA images, so far apart that no depth can be
carried.  `evaluate fleet` runs on one core, where it has one worker, and on two, in interleaved
rounds, each time into an empty folder, with a given latency table.  Times are of the whole
command: its start, the loading of the networks in each worker, and all reports.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
import os
from pathlib import Path
import shutil
import subprocess
import sys
from tempfile import TemporaryDirectory

import numpy as np
import yaml

from benchmarks.bag_reading import TOPICS, write_long_bag
from benchmarks.timing import format_markdown_table, time_interleaved, write_benchmark_report
from marigold_ros.depth.config import require
from marigold_ros.depth.errors import ConfigError
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.evaluation.evaluate import LATENCY_TABLE, MODULE

WORKERS = (1, 2)


def write_list(path: Path, bags: Sequence[Path], policies: str, table: Path | None) -> None:
    """Write the list of a fleet of bags; without a latency table, one is measured."""
    defaults = {'image': TOPICS.image, 'depth': TOPICS.depth, 'policies': policies}
    if table is not None:
        defaults['latency_table'] = str(table)
    path.write_text(yaml.safe_dump({'defaults': defaults, 'recordings': [
        {'name': bag.name, 'bag': str(bag)} for bag in bags]}), encoding='utf-8')


def evaluate_fleet(fleet: Path, out: Path, cores: Sequence[int]) -> None:
    """
    Evaluate a list into an empty folder, on some cores only.

    Raises
    ------
    CalledProcessError
        If a recording is not complete.
    """
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([sys.executable, '-m', MODULE, 'fleet', str(fleet), '--out', str(out)],
                   check=True, stdout=subprocess.DEVNULL,
                   preexec_fn=partial(os.sched_setaffinity, 0, cores))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Measure and write the report."""
    cores = sorted(os.sched_getaffinity(0))
    require(len(cores) >= max(WORKERS), 'cores', f'at least {max(WORKERS)}', len(cores))
    facts = describe_environment()
    bags = [folder / f'bag_{number}' for number in range(options.bags)]
    for bag in bags:
        write_long_bag(bag, options.minutes, options.hz)

    # 1. Measure the latency table, and fill the caches of compiled networks.
    fleet, out = folder / 'list.yaml', folder / 'out'
    write_list(fleet, bags[:1], options.policies, None)
    evaluate_fleet(fleet, out, cores[:1])
    table = (out / LATENCY_TABLE).rename(folder / LATENCY_TABLE)

    # 2. Compare.
    write_list(fleet, bags, options.policies, table)
    runs = time_interleaved(
        {str(workers): partial(evaluate_fleet, fleet, out, cores[:workers])
         for workers in WORKERS}, rounds=options.rounds, warm_up=0)
    seconds = {workers: float(np.median(runs[str(workers)].seconds)) for workers in WORKERS}
    frames = options.bags * round(60 * options.minutes * options.hz)
    rows = [{'workers': workers, 'time (s)': f'{seconds[workers]:.0f}',
             'share of the time of one': f'{seconds[workers] / seconds[1]:.2f}',
             'frames per second and core': f'{frames / seconds[workers] / workers:.2f}'}
            for workers in WORKERS]
    write_benchmark_report(options.out, 'fleet', facts, {
        'bags': options.bags, 'frames': frames, 'policies': options.policies,
        'rounds_s': {name: run.seconds.tolist() for name, run in runs.items()}},
        f'{options.bags} bags of {options.minutes:g} min, {frames} VGA frames, policies '
        f'{options.policies}; medians of {options.rounds} rounds.\n\n'
        + format_markdown_table(rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the report; the exit code is 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bags', type=int, default=8)
    parser.add_argument('--minutes', type=float, default=1.0, help='length of a bag')
    parser.add_argument('--hz', type=int, default=1, help='frames per second of a bag')
    parser.add_argument('--policies', default='novelty,fixed-1')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    try:
        with TemporaryDirectory() as folder:
            measure(parser.parse_args(arguments), Path(folder))
    except ConfigError as err:
        print(f'fleet: {err}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
