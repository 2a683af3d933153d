"""How times are taken here: warm-up, synchronised, interleaved rounds, medians, paired ratios."""

from __future__ import annotations

from dataclasses import dataclass
import json
from pathlib import Path
import random
from typing import Any, Callable, Generic, Mapping, TypeVar

import numpy as np
from numpy.typing import NDArray
import torch

from marigold_ros.depth.device import time_when_done

Returned = TypeVar('Returned')

BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True)
class Runs(Generic[Returned]):
    """
    What one candidate did in all rounds.

    Attributes
    ----------
    seconds : float64 [rounds]
        Wall time of each call, device work included.
    returned : list
        What each call returned.
    """

    seconds: NDArray[np.float64]
    returned: list[Returned]


def interleave(candidates: Mapping[str, Callable[[], Returned]], *, rounds: int,
               warm_up: int = 2, device: torch.device = torch.device('cpu'),
               seed: int = 0) -> dict[str, Runs[Returned]]:
    """
    Time several candidates side by side.

    Every round calls every candidate once, in a new random order, so that whatever disturbs the
    machine for longer than a round disturbs all of them, and none always follows the same other.

    Parameters
    ----------
    candidates : mapping
        Name -> call without arguments.
    rounds : int
        Timed rounds.
    warm_up : int
        Rounds before them that are not timed.
    device : torch.device
        Waited for before and after each call.
    seed : int
        Of the order.

    Returns
    -------
    dict
        Name -> Runs.
    """
    order = list(candidates)
    shuffle = random.Random(seed).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in order}
    returned: dict[str, list[Returned]] = {name: [] for name in order}
    for number in range(-warm_up, rounds):
        shuffle(order)
        for name in order:
            started_s = time_when_done(device)
            result = candidates[name]()
            ended_s = time_when_done(device)
            if number >= 0:
                seconds[name].append(ended_s - started_s)
                returned[name].append(result)
    return {name: Runs(np.array(seconds[name]), returned[name]) for name in candidates}


def quartiles_ms(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Return the median and both quartiles in ms, and how many values they stand on."""
    low, median, high = 1e3 * np.quantile(seconds, (0.25, 0.5, 0.75))
    return {'median_ms': float(median), 'q25_ms': float(low), 'q75_ms': float(high),
            'rounds': len(seconds)}


def speedup(baseline_s: NDArray[np.float64], candidate_s: NDArray[np.float64],
            seed: int = 0) -> dict[str, float]:
    """
    Tell how many times faster a candidate is than a baseline of the same rounds.

    Parameters
    ----------
    baseline_s, candidate_s : float64 [rounds]
        Of one call of `interleave`.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        `ratio` of the medians, and `low` and `high`, its 95 % interval from a bootstrap that
        draws whole rounds, so that a disturbed round counts on both sides.
    """
    rounds = len(baseline_s)
    drawn = np.random.default_rng(seed).integers(rounds, size=(BOOTSTRAP_SAMPLES, rounds))
    ratios = np.median(baseline_s[drawn], axis=1) / np.median(candidate_s[drawn], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return {'ratio': float(np.median(baseline_s) / np.median(candidate_s)),
            'low': float(low), 'high': float(high)}


def write_report(folder: Path, name: str, result: Mapping[str, Any], markdown: str) -> None:
    """Write `name`.json, strictly valid, and `name`.md, and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{name}.json').write_text(
        json.dumps(result, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    (folder / f'{name}.md').write_text(markdown.rstrip() + '\n', encoding='utf-8')
    print(f'written: {folder / name}.json and .md')
