"""
How long does a new process take to its first depth, with empty and with filled caches?

    python -m benchmarks.engine_startup
    python -m benchmarks.engine_startup --architecture sd2 --vae kl --compile

A process imports the engine, loads a checkpoint and infers one 640x480 image at one step.  The
caches of OpenVINO's compiled stages, Inductor and Triton lie in a folder that is empty before the
first process and full for the second.  Files of the checkpoint and of the packages are in the
memory of the system in both cases.  Medians of several pairs of processes, each with a new folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
from statistics import median
import subprocess
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any

from benchmarks.engine_candidates import (
    add_checkpoint_arguments,
    EAGER,
    EngineCandidate,
    list_candidates,
    open_checkpoint,
)
from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.device import reserve_one_core, resolve_device
from marigold_ros.evaluation.environment import describe_environment

# Imports what a user of the engine imports, and nothing of the benchmarks.
FIRST_DEPTH = """
import json, sys, time
import numpy as np
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.engine import DepthEngine
imported = time.monotonic()
reserve_one_core()
engine = DepthEngine.load(**json.loads(sys.argv[1]))
loaded = time.monotonic()
engine.infer(np.full((480, 640, 3), 128, np.uint8), num_inference_steps=1)
print(json.dumps([imported, loaded, time.monotonic()]))
"""
STATES = ('cold', 'cached')
PHASES = ('import', 'load', 'first depth')


def measure_start_up(settings: Mapping[str, Any], rounds: int) -> dict[str, dict[str, float]]:
    """
    Start an engine twice in each round, the second time with the caches of the first.

    Parameters
    ----------
    settings : mapping
        Arguments of `DepthEngine.load`.
    rounds : int

    Returns
    -------
    dict
        'cold' and 'cached' -> median seconds of each of `PHASES` and of their sum, 'total'.
    """
    starts: dict[str, list[dict[str, float]]] = {state: [] for state in STATES}
    for _ in range(rounds):
        with TemporaryDirectory() as caches:
            for state in STATES:
                starts[state].append(_start(settings, Path(caches)))
    return {state: {phase: median(each[phase] for each in starts[state])
                    for phase in (*PHASES, 'total')} for state in STATES}


def _start(settings: Mapping[str, Any], caches: Path) -> dict[str, float]:
    """Run `FIRST_DEPTH`; return the seconds of its phases."""
    folders = {name: str(caches / name) for name in (
        'XDG_CACHE_HOME', 'TORCHINDUCTOR_CACHE_DIR', 'TRITON_CACHE_DIR', 'CUDA_CACHE_PATH')}
    started = time.monotonic()  # one clock for all processes
    process = subprocess.run([sys.executable, '-c', FIRST_DEPTH, json.dumps(settings)],
                             env={**os.environ, **folders}, stdout=subprocess.PIPE, text=True,
                             check=True)
    marks = [started, *json.loads(process.stdout)]
    return {'total': marks[-1] - started,
            **{phase: end - start for phase, start, end in zip(PHASES, marks, marks[1:])}}


def format_row(name: str, times_s: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Format the start of a candidate as a row."""
    row = {'': name}
    for state, phases in times_s.items():
        row[f'{state}, s'] = f'{phases["total"]:.1f}'
        row[f'{state}: {" + ".join(PHASES)}'] = ' + '.join(
            f'{phases[phase]:.1f}' for phase in PHASES)
    return row


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add_checkpoint_arguments(parser)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    options = make_parser().parse_args(arguments)
    reserve_one_core()
    device = resolve_device(options.device)
    facts = describe_environment(device)
    with open_checkpoint(options) as (checkpoint, name):
        resolution = load_components(checkpoint).info.processing_resolution
        candidates, left_out = list_candidates(checkpoint, resolution, device, options.compile)
        times_s = {each.name: measure_start_up(each.settings, options.rounds)
                   for each in candidates if isinstance(each, EngineCandidate)
                   and (device.type == 'cpu' or each.executor != EAGER)}
    lines = [format_markdown_table([format_row(*each) for each in times_s.items()]), '']
    lines += [f'- left out: {executor}: {reason}' for executor, reason in left_out.items()]
    write_benchmark_report(options.out, f'engine_startup_{name}', facts, {'seconds': times_s},
                           '\n'.join(lines))


if __name__ == '__main__':
    main()
