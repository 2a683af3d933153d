"""
Compare step policies on the frames of one data set by cost and by quality of the depth.

All functions take per-frame results, float64 [F, len(RESULT_COLUMNS)], one row per frame.  Every
frame is run with every T, so the results of a policy are selected from those of the fixed T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESULT_COLUMNS = ('num_inference_steps', 'total_s', 'denoise_s', 'abs_rel', 'delta1',
                  'boundary_f1')
STEPS, TOTAL_S, DENOISE_S, ABS_REL, _, BOUNDARY_F1 = range(6)
QUALITY = RESULT_COLUMNS[ABS_REL:]
LESS_IS_BETTER = ('abs_rel',)
# Key of the random baseline at the same mean budget, also in summary.json.
RANDOM_BASELINE = 'random at the same budget'
# Metrics that decide whether a policy is better: more steps tend to worsen the first and to
# improve the second.
DECISIVE = ('abs_rel', 'boundary_f1')

BOOTSTRAP_SAMPLES = 10_000
CONFIDENCE = 0.95

FrameResults = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """
    The blocks of correlated frames that the bootstrap resamples, and the weights of the mean.

    Attributes
    ----------
    names : sequence of str
        Block of each frame.
    mean_of_blocks : bool
        Whether a mean weights every block equally; else it weights every frame equally.

    Examples
    --------
    >>> import numpy as np
    >>> blocks = Blocks(['a', 'a', 'b', 'b'], mean_of_blocks=False)
    >>> abs_rel = np.array([0.1, 0.1, 0.3, 0.3])
    >>> round(blocks.mean(abs_rel), 3)
    0.2
    >>> blocks.bootstrap_interval(abs_rel)
    (0.1, 0.3)
    """

    names: Sequence[str]
    mean_of_blocks: bool

    def mean(self, values: NDArray[np.float64]) -> float:
        """Average one value per frame, [F]; frames whose value is NaN do not count."""
        sums, weights = self._totals(values)
        return float(sums.sum() / weights.sum()) if weights.any() else float('nan')

    def bootstrap_interval(self, values: NDArray[np.float64],
                           seed: int = 0) -> tuple[float, float]:
        """
        Compute the 95 % confidence interval of `mean` by a block bootstrap.

        Parameters
        ----------
        values : float64 [F]
            One value per frame, such as the difference of two policies on it.
        seed : int
            Seed of the resampling.

        Returns
        -------
        (float, float)
            Lower and upper end; NaN with fewer than two blocks.
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
    Difference of a metric between two policies on the same frames.

    Attributes
    ----------
    relative, low, high : float
        Relative difference of the means, (one - other) / other, and its 95 % interval; NaN if the
        mean of the other policy is 0.
    verdict : {'better', 'worse', 'no difference', 'unknown'}
        'no difference' if the interval contains 0, 'unknown' without an interval.
    """

    relative: float
    low: float
    high: float
    verdict: str


def random_baseline_at_budget(by_steps: NDArray[np.float64], budget: float,
                              column: int = TOTAL_S) -> FrameResults:
    """
    Compute the expected results of a random choice of T with a given mean budget.

    Each frame gets one of the two fixed T whose mean costs bracket the budget, at random, with the
    probability that makes the mean of `column` equal to the budget.

    Parameters
    ----------
    by_steps : float64 [Tmax, F, len(RESULT_COLUMNS)]
        Results with fixed T = 1 .. Tmax.
    budget : float
        Mean cost of a frame, in the unit of `column`; clipped to the range of the fixed T.
    column : int
        Index in `RESULT_COLUMNS` of the cost, such as `TOTAL_S`.

    Returns
    -------
    float64 [F, len(RESULT_COLUMNS)]
        Exact expectation over the random choices.
    """
    means = by_steps[:, :, column].mean(axis=1)
    order = np.argsort(means)
    position = int(np.clip(np.searchsorted(means[order], budget), 1, max(len(order) - 1, 1)))
    cheaper, costlier = order[position - 1], order[min(position, len(order) - 1)]
    return _mix_to_budget(by_steps[cheaper], by_steps[costlier], budget, column)


def raise_to_budget(frame_results: FrameResults, max_steps_results: FrameResults, budget: float,
                    column: int = TOTAL_S) -> FrameResults:
    """
    Compute the expected results of a policy that spends its unused budget on Tmax.

    Parameters
    ----------
    frame_results, max_steps_results : float64 [F, len(RESULT_COLUMNS)]
        Of the policy and of fixed Tmax; randomly chosen frames get Tmax instead of the policy's T.
    budget, column
        See `random_baseline_at_budget`.
    """
    return _mix_to_budget(frame_results, max_steps_results, budget, column)


def compare_at_equal_budget(
    policies: Mapping[str, FrameResults], by_steps: NDArray[np.float64], blocks: Blocks,
    column: int = TOTAL_S,
) -> dict[str, dict[str, dict[str, Difference]]]:
    """
    Compare every policy with every other and with the random baseline at equal mean budget.

    Of two policies, the cheaper one is raised to the budget of the other (`raise_to_budget`).  The
    random baseline has the budget of the policy (`random_baseline_at_budget`).  So no policy wins
    by a higher budget.

    Parameters
    ----------
    policies : mapping of str to float64 [F, len(RESULT_COLUMNS)]
    by_steps : float64 [Tmax, F, len(RESULT_COLUMNS)]
        Results with fixed T = 1 .. Tmax.
    blocks : Blocks
    column : int
        Unit of the budget: `TOTAL_S` or `STEPS`.

    Returns
    -------
    dict of str to dict of str to dict
        Result of `compare_policies`, by policy and by what it is compared with (`RANDOM_BASELINE`
        or another policy).
    """
    found: dict[str, dict[str, dict[str, Difference]]] = {}
    for name, frame_results in policies.items():
        budget = float(frame_results[:, column].mean())
        rows = found[name] = {RANDOM_BASELINE: compare_policies(
            frame_results, random_baseline_at_budget(by_steps, budget, column), blocks)}
        for other, other_results in policies.items():
            if other != name:
                common_budget = max(budget, float(other_results[:, column].mean()))
                rows[other] = compare_policies(
                    raise_to_budget(frame_results, by_steps[-1], common_budget, column),
                    raise_to_budget(other_results, by_steps[-1], common_budget, column), blocks)
    return found


def oracle_results(by_steps: NDArray[np.float64]) -> FrameResults:
    """Return the results of the T with the lowest AbsRel on each frame: the best possible."""
    best = np.argmin(by_steps[:, :, ABS_REL], axis=0)
    frame_results: FrameResults = by_steps[best, np.arange(by_steps.shape[1])]
    return frame_results


def summarize_policies(policies: Mapping[str, FrameResults], blocks: Blocks, *, fastest: str,
                       slowest: str) -> dict[str, dict[str, float]]:
    """
    Average the results of every policy, and relate its time to the fixed T.

    Parameters
    ----------
    policies : mapping of str to float64 [F, len(RESULT_COLUMNS)]
    blocks : Blocks
        Weights of the quality metrics; steps and times are means over frames.
    fastest, slowest : str
        Policies that always run Tmin and Tmax.

    Returns
    -------
    dict of str to dict
        By policy: the means of `RESULT_COLUMNS`; `time_saved`, the share of the time of `slowest`
        that the policy saves; `share_of_fastest_saving`, its ratio to the share that `fastest`
        saves, NaN if `fastest` saves nothing.
    """
    rows = {}
    slowest_s = policies[slowest][:, TOTAL_S].sum()
    fastest_saved = 1.0 - _ratio(policies[fastest][:, TOTAL_S].sum(), slowest_s)
    for name, frame_results in policies.items():
        row = dict(zip(RESULT_COLUMNS, frame_results.mean(axis=0).tolist()))
        row |= {metric: blocks.mean(column)
                for metric, column in zip(QUALITY, frame_results.T[ABS_REL:])}
        row['time_saved'] = 1.0 - _ratio(frame_results[:, TOTAL_S].sum(), slowest_s)
        row['share_of_fastest_saving'] = _ratio(row['time_saved'], fastest_saved)
        rows[name] = row
    return rows


def compare_policies(one: FrameResults, other: FrameResults,
                     blocks: Blocks) -> dict[str, Difference]:
    """
    Compare two policies on the same frames.

    Parameters
    ----------
    one, other : float64 [F, len(RESULT_COLUMNS)]
    blocks : Blocks

    Returns
    -------
    dict of str to Difference
        By metric, those of `QUALITY`.
    """
    differences = {}
    for column, metric in enumerate(QUALITY, ABS_REL):
        other_mean = blocks.mean(other[:, column])
        pairs = one[:, column] - other[:, column]
        low, high = blocks.bootstrap_interval(pairs)
        relative = [_ratio(value, other_mean) for value in (blocks.mean(pairs), low, high)]
        differences[metric] = Difference(relative[0], relative[1], relative[2],
                                         _classify_difference(metric, low, high))
    return differences


def beats(differences: Mapping[str, Difference]) -> bool:
    """Check whether a policy is better in AbsRel or boundary F1 and worse in neither."""
    verdicts = [differences[metric].verdict for metric in DECISIVE]
    return 'better' in verdicts and 'worse' not in verdicts


def _mix_to_budget(cheaper: FrameResults, costlier: FrameResults, budget: float,
                   column: int) -> FrameResults:
    """Mix two results linearly so that the mean of a column is the budget, if in their range."""
    low, high = cheaper[:, column].mean(), costlier[:, column].mean()
    share = float(np.clip((budget - low) / (high - low), 0.0, 1.0)) if high > low else 0.0
    mixed: FrameResults = (1 - share) * cheaper + share * costlier
    return mixed


def _ratio(value: float, denominator: float) -> float:
    return float(value / denominator) if denominator else float('nan')


def _classify_difference(metric: str, low: float, high: float) -> str:
    if np.isnan(low):
        return 'unknown'
    if low <= 0 <= high:
        return 'no difference'
    return 'better' if (high < 0) == (metric in LESS_IS_BETTER) else 'worse'
