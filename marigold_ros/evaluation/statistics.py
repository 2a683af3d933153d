"""
Judge step policies on the frames of one data set: what each costs, and how good its depth is.

Everything here is arithmetic on outcomes, float64 [F, len(OUTCOME)], one row per frame.  Because
every frame was run with every T, a policy that only chooses T needs no runs of its own: its
outcomes are picked from those of the fixed T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OUTCOME = ('num_inference_steps', 'total_s', 'denoise_s', 'abs_rel', 'delta1', 'boundary_f1')
STEPS, TOTAL_S, DENOISE_S, ABS_REL, _, BOUNDARY_F1 = range(6)
QUALITY = OUTCOME[ABS_REL:]
LESS_IS_BETTER = ('abs_rel',)
# Name of what spends a policy's budget without looking at the frames.
CHANCE = 'chance at the same budget'
# Quality that decides a verdict: more steps tend to worsen the one and to sharpen the other.
DECISIVE = ('abs_rel', 'boundary_f1')

BOOTSTRAP_SAMPLES = 10_000
CONFIDENCE = 0.95

Outcomes = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """
    How frames are averaged, and which of them a bootstrap draws together.

    Attributes
    ----------
    names : sequence of str
        Block of each frame.
    mean_of_blocks : bool
        Whether every block counts the same in a mean, or every frame.
    """

    names: Sequence[str]
    mean_of_blocks: bool

    def mean(self, values: NDArray[np.float64]) -> float:
        """Average one value per frame; frames whose value is NaN do not count."""
        sums, weights = self._totals(values)
        return float(sums.sum() / weights.sum()) if weights.any() else float('nan')

    def interval(self, values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
        """
        Give the 95 % interval of `mean` from a bootstrap that draws whole blocks.

        Parameters
        ----------
        values : float64 [F]
            One value per frame, such as the difference of two policies on it.
        seed : int
            Of the draws.

        Returns
        -------
        (float, float)
            Percentiles; NaN with fewer than two blocks, which tell nothing of others.
        """
        sums, weights = self._totals(values)
        sums, weights = sums[weights > 0], weights[weights > 0]
        if len(sums) < 2:
            return float('nan'), float('nan')
        drawn = np.random.default_rng(seed).integers(
            len(sums), size=(BOOTSTRAP_SAMPLES, len(sums)))
        means = sums[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
        low, high = np.quantile(means, (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2))
        return float(low), float(high)

    def _totals(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return the sum and the weight of each block."""
        numbers = np.unique(np.asarray(self.names), return_inverse=True)[1]
        counted = np.isfinite(values).astype(np.float64)
        weights = np.bincount(numbers, counted).astype(np.float64)
        sums = np.bincount(numbers, np.where(counted > 0, values, 0.0)).astype(np.float64)
        if self.mean_of_blocks:
            return sums / np.maximum(weights, 1.0), np.minimum(weights, 1.0)
        return sums, weights


@dataclass(frozen=True)
class Difference:
    """
    How much better or worse one policy is than another, on the same frames.

    Attributes
    ----------
    relative, low, high : float
        (one - other) / other of the means, and its interval; NaN if the other's is 0.
    verdict : {'better', 'worse', 'no difference', 'unknown'}
        'no difference' where the interval holds 0.
    """

    relative: float
    low: float
    high: float
    verdict: str


def at_budget(by_steps: NDArray[np.float64], budget: float, column: int = TOTAL_S) -> Outcomes:
    """
    Give the outcomes of spending a mean budget without looking at the frames.

    A coin that is tossed for each frame chooses between the two fixed T whose means lie about the
    budget; its odds make the mean of `column` equal to it.

    Parameters
    ----------
    by_steps : float64 [Tmax, F, len(OUTCOME)]
        Outcomes of T = 1 .. Tmax.
    budget : float
        Mean over the frames, as of `TOTAL_S` in s; below what the cheapest T costs it is that, and
        above the dearest likewise.
    column : int
        Place in `OUTCOME` of what is spent.

    Returns
    -------
    float64 [F, len(OUTCOME)]
        The expectation over all tosses, exactly.
    """
    means = by_steps[:, :, column].mean(axis=1)
    order = np.argsort(means)
    place = int(np.clip(np.searchsorted(means[order], budget), 1, max(len(order) - 1, 1)))
    cheap, dear = order[place - 1], order[min(place, len(order) - 1)]
    return _mixed(by_steps[cheap], by_steps[dear], budget, column)


def raised_to(outcomes: Outcomes, dearest: Outcomes, budget: float,
              column: int = TOTAL_S) -> Outcomes:
    """
    Give the outcomes of a policy that spends what it saves, up to a mean budget, on Tmax.

    Parameters
    ----------
    outcomes, dearest : float64 [F, len(OUTCOME)]
        Of the policy and of fixed Tmax; a coin chooses between them for each frame.
    budget, column
        See `at_budget`.
    """
    return _mixed(outcomes, dearest, budget, column)


def compare_at_equal_budget(
    policies: Mapping[str, Outcomes], by_steps: NDArray[np.float64], blocks: Blocks,
    column: int = TOTAL_S,
) -> dict[str, dict[str, dict[str, Difference]]]:
    """
    Compare every policy with every other and with chance, each time at one mean budget.

    Of two policies the cheaper is raised to the budget of the other (`raised_to`); chance spends
    what the policy spends (`at_budget`).  So no policy wins by spending more.

    Parameters
    ----------
    policies : mapping of str to float64 [F, len(OUTCOME)]
    by_steps : float64 [Tmax, F, len(OUTCOME)]
        Outcomes of the fixed T, the last of them the dearest.
    blocks : Blocks
    column : int
        What the budget is of: `TOTAL_S` or `STEPS`.

    Returns
    -------
    dict of str to dict of str to dict
        By policy, by what it is compared with (`CHANCE` or another policy): `compare`.
    """
    found: dict[str, dict[str, dict[str, Difference]]] = {}
    for name, outcomes in policies.items():
        budget = float(outcomes[:, column].mean())
        rows = found[name] = {CHANCE: compare(
            outcomes, at_budget(by_steps, budget, column), blocks)}
        for other, theirs in policies.items():
            if other != name:
                most = max(budget, float(theirs[:, column].mean()))
                rows[other] = compare(raised_to(outcomes, by_steps[-1], most, column),
                                      raised_to(theirs, by_steps[-1], most, column), blocks)
    return found


def oracle(by_steps: NDArray[np.float64]) -> Outcomes:
    """Give the outcomes of choosing the T with the least AbsRel on each frame: a bound."""
    best = np.argmin(by_steps[:, :, ABS_REL], axis=0)
    outcomes: Outcomes = by_steps[best, np.arange(by_steps.shape[1])]
    return outcomes


def summarize(policies: Mapping[str, Outcomes], blocks: Blocks, *, fastest: str,
              slowest: str) -> dict[str, dict[str, float]]:
    """
    Average every policy and set it beside the fixed T that bound it.

    Parameters
    ----------
    policies : mapping of str to float64 [F, len(OUTCOME)]
    blocks : Blocks
        Quality is averaged as it says; steps and times are means over frames.
    fastest, slowest : str
        Policies that always run Tmin and Tmax.

    Returns
    -------
    dict of str to dict
        By policy: the means of `OUTCOME`; `total_saved`, the part of the time of `slowest` that
        it saves, and `total_share`, the part of what `fastest` saves of it; NaN where that is 0.
    """
    rows = {}
    slowest_s = policies[slowest][:, TOTAL_S].sum()
    saved_at_most = 1.0 - _ratio(policies[fastest][:, TOTAL_S].sum(), slowest_s)
    for name, outcomes in policies.items():
        row = dict(zip(OUTCOME, outcomes.mean(axis=0).tolist()))
        row |= {metric: blocks.mean(column)
                for metric, column in zip(QUALITY, outcomes.T[ABS_REL:])}
        row['total_saved'] = 1.0 - _ratio(outcomes[:, TOTAL_S].sum(), slowest_s)
        row['total_share'] = _ratio(row['total_saved'], saved_at_most)
        rows[name] = row
    return rows


def compare(one: Outcomes, other: Outcomes, blocks: Blocks) -> dict[str, Difference]:
    """
    Compare two policies frame by frame.

    Parameters
    ----------
    one, other : float64 [F, len(OUTCOME)]
    blocks : Blocks

    Returns
    -------
    dict of str to Difference
        By metric of `QUALITY`.
    """
    differences = {}
    for column, metric in enumerate(QUALITY, ABS_REL):
        reference = blocks.mean(other[:, column])
        pairs = one[:, column] - other[:, column]
        low, high = blocks.interval(pairs)
        relative = [_ratio(value, reference) for value in (blocks.mean(pairs), low, high)]
        differences[metric] = Difference(relative[0], relative[1], relative[2],
                                         _verdict(metric, low, high))
    return differences


def beats(differences: Mapping[str, Difference]) -> bool:
    """Tell whether a policy is better in AbsRel or boundary F1 and worse in neither."""
    verdicts = [differences[metric].verdict for metric in DECISIVE]
    return 'better' in verdicts and 'worse' not in verdicts


def _mixed(cheap: Outcomes, dear: Outcomes, budget: float, column: int) -> Outcomes:
    """Mix two outcomes so that the mean of a column is the budget, as far as they reach."""
    low, high = cheap[:, column].mean(), dear[:, column].mean()
    part = float(np.clip((budget - low) / (high - low), 0.0, 1.0)) if high > low else 0.0
    mixed: Outcomes = (1 - part) * cheap + part * dear
    return mixed


def _ratio(value: float, reference: float) -> float:
    return float(value / reference) if reference else float('nan')


def _verdict(metric: str, low: float, high: float) -> str:
    if np.isnan(low):
        return 'unknown'
    if low <= 0 <= high:
        return 'no difference'
    return 'better' if (high < 0) == (metric in LESS_IS_BETTER) else 'worse'
