"""
Compare step policies on the frames of one data set by cost and by quality of the depth.

All functions take per-frame results, float64 [F, len(RESULT_COLUMNS)], one row per frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

RESULT_COLUMNS = ('num_inference_steps', 'total_s', 'network_s', 'abs_rel', 'delta1',
                  'published_delta1', 'boundary_f1')
STEPS, TOTAL_S, NETWORK_S, ABS_REL, _, _, BOUNDARY_F1 = range(7)
QUALITY = RESULT_COLUMNS[ABS_REL:]
LESS_IS_BETTER = ('abs_rel', 'metric_abs_rel')
# Metrics that decide whether a policy is better.  More steps tend to worsen the first and to
# improve the last; only the second counts what carried depth does not cover.
DECISIVE = ('abs_rel', 'published_delta1', 'boundary_f1')

BOOTSTRAP_SAMPLES = 10_000
# Samples drawn at a time, which bounds the memory for a long recording.
DRAWN_AT_ONCE = 100
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

    def bootstrap_interval(self, values: NDArray[np.float64]) -> tuple[float, float]:
        """
        Compute the 95 % confidence interval of `mean` by a block bootstrap.

        Parameters
        ----------
        values : float64 [F]
            One value per frame, such as the difference of two policies on it.

        Returns
        -------
        (float, float)
            Lower and upper end; NaN with fewer than two blocks.
        """
        sums, weights = self._totals(values)
        return _bootstrap_ratio(sums[weights > 0], weights[weights > 0])

    def ratio_interval(self, values: NDArray[np.float64],
                       others: NDArray[np.float64]) -> tuple[float, float]:
        """Compute the 95 % interval of sum(values) / sum(others); see `bootstrap_interval`."""
        by_frames = replace(self, mean_of_blocks=False)
        return _bootstrap_ratio(by_frames._totals(values)[0], by_frames._totals(others)[0])

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


def blind_at_budget(blind: NDArray[np.float64], budget_s: float) -> FrameResults:
    """
    Compute the expected results of policies that do not look at the frame, at a mean cost.

    Each frame gets one of the two policies whose mean costs bracket the budget, at random, with
    the probability that makes the mean cost equal to the budget.

    Parameters
    ----------
    blind : float64 [P, F, len(RESULT_COLUMNS)]
        Results of policies such as fixed-N and every-N.
    budget_s : float
        Mean time of a frame, s; clipped to the range of the policies.

    Returns
    -------
    float64 [F, len(RESULT_COLUMNS)]
        Exact expectation over the random choices.
    """
    means = blind[:, :, TOTAL_S].mean(axis=1)
    order = np.argsort(means)
    position = int(np.clip(np.searchsorted(means[order], budget_s), 1, max(len(order) - 1, 1)))
    cheaper, costlier = order[position - 1], order[min(position, len(order) - 1)]
    low, high = means[cheaper], means[costlier]
    share = float(np.clip((budget_s - low) / (high - low), 0.0, 1.0)) if high > low else 0.0
    mixed: FrameResults = (1 - share) * blind[cheaper] + share * blind[costlier]
    return mixed


def saved_share(frame_results: FrameResults, fixed: FrameResults,
                blocks: Blocks) -> tuple[float, float, float]:
    """
    Compute the share of the networks' time that a policy saves against a fixed one.

    Returns
    -------
    (float, float, float)
        The share, and the lower and upper end of its 95 % interval; times are always means over
        frames, even if quality is a mean over blocks.
    """
    network_s, fixed_s = frame_results[:, NETWORK_S], fixed[:, NETWORK_S]
    low, high = blocks.ratio_interval(fixed_s - network_s, fixed_s)
    return 1.0 - float(network_s.sum() / fixed_s.sum()), low, high


def mean_results(frame_results: FrameResults, blocks: Blocks) -> dict[str, float]:
    """Average `RESULT_COLUMNS`; steps and times over frames, the others as `blocks` weights."""
    means = dict(zip(RESULT_COLUMNS, frame_results.mean(axis=0).tolist()))
    return means | {metric: blocks.mean(column)
                    for metric, column in zip(QUALITY, frame_results.T[ABS_REL:])}


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
    return {metric: compare_metric(metric, one[:, column], other[:, column], blocks)
            for column, metric in enumerate(QUALITY, ABS_REL)}


def compare_metric(metric: str, one: NDArray[np.float64], other: NDArray[np.float64],
                   blocks: Blocks) -> Difference:
    """Compare a metric of the same frames, [F] each; one that is NaN in either does not count."""
    pairs = one - other
    other_mean = blocks.mean(np.where(np.isfinite(pairs), other, np.nan))
    low, high = blocks.bootstrap_interval(pairs)
    relative = [_ratio(value, other_mean) for value in (blocks.mean(pairs), low, high)]
    return Difference(relative[0], relative[1], relative[2],
                      _classify_difference(metric, low, high))


def median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """
    Compute the 95 % confidence interval of the median of independent values by a bootstrap.

    Parameters
    ----------
    values : float64 [N]
        Such as one value per recording; NaN does not count.

    Returns
    -------
    (float, float)
        Lower and upper end; NaN with fewer than two values.
    """
    known = values[np.isfinite(values)]
    return _bootstrap_interval(len(known), lambda drawn: np.median(known[drawn], axis=1))


def beats(differences: Mapping[str, Difference]) -> bool:
    """Check whether a policy is better in one of the decisive metrics and worse in none."""
    verdicts = [differences[metric].verdict for metric in DECISIVE]
    return 'better' in verdicts and 'worse' not in verdicts


def _bootstrap_ratio(sums: NDArray[np.float64],
                     weights: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the ratio of two totals over blocks, [B]."""
    return _bootstrap_interval(len(sums), lambda drawn: (
        sums[drawn].sum(axis=1) / weights[drawn].sum(axis=1)))


def _bootstrap_interval(count: int,
                        statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]]
                        ) -> tuple[float, float]:
    """Return the 95 % interval of a statistic of resampled blocks, [samples, B] -> [samples]."""
    if count < 2:
        return float('nan'), float('nan')
    random = np.random.default_rng(0)
    values = np.concatenate([
        statistic(random.integers(count, size=(DRAWN_AT_ONCE, count)))
        for _ in range(BOOTSTRAP_SAMPLES // DRAWN_AT_ONCE)])
    low, high = np.quantile(values, (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2))
    return float(low), float(high)


def _ratio(value: float, denominator: float) -> float:
    return float(value / denominator) if denominator else float('nan')


def _classify_difference(metric: str, low: float, high: float) -> str:
    if np.isnan(low):
        return 'unknown'
    if low <= 0 <= high:
        return 'no difference'
    return 'better' if (high < 0) == (metric in LESS_IS_BETTER) else 'worse'
