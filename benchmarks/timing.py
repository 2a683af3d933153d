"""Timing method: warm-up, device synchronization, interleaved rounds, medians, paired ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
import random
import shlex
import sys
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
import torch

from marigold_ros.depth.device import synchronized_time_s
from marigold_ros.evaluation.environment import OPTIONAL_PACKAGES, PACKAGES

Returned = TypeVar('Returned')

BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True)
class TimedRuns(Generic[Returned]):
    """
    Times and results of one candidate in all rounds.

    Attributes
    ----------
    seconds : float64 [rounds]
        Wall time of each call, including work on the device.
    returned : list
        Result of each call.
    """

    seconds: NDArray[np.float64]
    returned: list[Returned]


def time_interleaved(candidates: Mapping[str, Callable[[], Returned]], *, rounds: int,
                     warm_up: int = 2, device: torch.device = torch.device('cpu'),
                     seed: int = 0) -> dict[str, TimedRuns[Returned]]:
    """
    Time several candidates in interleaved rounds.

    Every round calls every candidate once, in a new random order: disturbances that last longer
    than a round affect all candidates, and the order of calls does not favour any.

    Parameters
    ----------
    candidates : mapping
        Name -> call without arguments.
    rounds : int
        Timed rounds.
    warm_up : int
        Untimed rounds before them.
    device : torch.device
        Synchronized before and after each call.
    seed : int
        Seed of the order.

    Returns
    -------
    dict
        Name -> TimedRuns.
    """
    order = list(candidates)
    shuffle = random.Random(seed).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in order}
    returned: dict[str, list[Returned]] = {name: [] for name in order}
    for number in range(-warm_up, rounds):
        shuffle(order)
        for name in order:
            started_s = synchronized_time_s(device)
            result = candidates[name]()
            ended_s = synchronized_time_s(device)
            if number >= 0:
                seconds[name].append(ended_s - started_s)
                returned[name].append(result)
    return {name: TimedRuns(np.array(seconds[name]), returned[name]) for name in candidates}


def quartiles_ms(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Return the median and both quartiles in ms, and the number of values."""
    low, median, high = 1e3 * np.quantile(seconds, (0.25, 0.5, 0.75))
    return {'median_ms': float(median), 'q25_ms': float(low), 'q75_ms': float(high),
            'rounds': len(seconds)}


def speedup(baseline_s: NDArray[np.float64], candidate_s: NDArray[np.float64],
            seed: int = 0) -> dict[str, float]:
    """
    Compute the speed-up of a candidate over a baseline of the same rounds.

    Parameters
    ----------
    baseline_s, candidate_s : float64 [rounds]
        From one call of `time_interleaved`.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    dict
        `ratio` of the medians, and its 95 % interval `low` to `high`, from a bootstrap that draws
        whole rounds, so that a disturbed round affects both sides.
    """
    rounds = len(baseline_s)
    drawn = np.random.default_rng(seed).integers(rounds, size=(BOOTSTRAP_SAMPLES, rounds))
    ratios = np.median(baseline_s[drawn], axis=1) / np.median(candidate_s[drawn], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return {'ratio': float(np.median(baseline_s) / np.median(candidate_s)),
            'low': float(low), 'high': float(high)}


def format_markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Format rows of columns by name as a Markdown table; numbers are not rounded."""
    return tabulate(rows, headers='keys', tablefmt='github', disable_numparse=True)


def format_report_header(command: str, facts: Mapping[str, Any]) -> str:
    """Format command, commit, machine and versions of a report as Markdown."""
    versions = ', '.join(f'{name} {facts[name]}' for name in (*PACKAGES, *OPTIONAL_PACKAGES)
                         if name in facts)
    return (f'`{command}`\n\n'
            f'Commit {facts["commit"]}, {facts["date_utc"]}; {facts.get("gpu", facts["cpu"])}, '
            f'{facts["cores"]} cores (load average {facts["load_average_1min"]} before), '
            f'Python {facts["python"]}, {versions}.')


def write_benchmark_report(folder: Path, name: str, facts: Mapping[str, Any],
                           result: Mapping[str, Any], text: str) -> None:
    """
    Print a report, write it with a header to `name`.md, and all values to `name`.json.

    Parameters
    ----------
    folder : Path
        Created if missing.
    name : str
    facts : mapping
        From `describe_environment`, called before the benchmark loads the machine.
    result : mapping
        Values for JSON; NaN and infinity are rejected.
    text : str
        Markdown.
    """
    command = shlex.join(['python', *sys.orig_argv[1:]])
    folder.mkdir(parents=True, exist_ok=True)
    figures = {'command': command, 'environment': facts, **result}
    (folder / f'{name}.json').write_text(
        json.dumps(figures, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    (folder / f'{name}.md').write_text(
        f'# {name}\n\n{format_report_header(command, facts)}\n\n{text.strip()}\n',
        encoding='utf-8')
    print(text)
    print(f'written: {folder / name}.json and .md', file=sys.stderr)
