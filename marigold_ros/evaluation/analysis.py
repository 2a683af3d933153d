"""Derive the results of each policy from the runs of all frames, and compare the policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import math

import numpy as np
from numpy.typing import NDArray

from marigold_ros.evaluation.config import EvaluationConfig, fixed_name, fixed_steps
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.evaluation.policies.replay import (
    choose_steps,
    EvaluatedFrame,
    ReplayedFrame,
    RunChoice,
    simulate_arrivals,
)
from marigold_ros.evaluation.statistics import (
    Blocks,
    compare_at_equal_budget,
    compare_policies,
    DENOISE_S,
    Difference,
    FrameResults,
    oracle_results,
    QUALITY,
    STEPS,
    summarize_policies,
    TOTAL_S,
)

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, eq=False)
class StreamResult:
    """
    Result of a policy on frames that arrive over time, simulated or live.

    Attributes
    ----------
    frames : list of ReplayedFrame
        All frames, in order.
    cap_s : float or None
        Latency cap, s.
    """

    frames: list[ReplayedFrame]
    cap_s: float | None

    @property
    def processed(self) -> list[ReplayedFrame]:
        """Return the processed frames."""
        return [each for each in self.frames if each.outcome == 'processed']

    @property
    def latency_s(self) -> list[float]:
        """Return the latencies of the processed frames, s."""
        return [each.latency_s for each in self.processed]

    @property
    def over_cap(self) -> int:
        """Return the number of processed frames whose latency exceeds the cap."""
        return sum(each > self.cap_s for each in self.latency_s) if self.cap_s else 0

    def count(self, outcome: str) -> int:
        """Count the frames with an outcome."""
        return sum(each.outcome == outcome for each in self.frames)


@dataclass(frozen=True, eq=False)
class PolicyResult:
    """
    Results of one policy.

    Attributes
    ----------
    choices : list of RunChoice
        For each frame independently, without latency cap.
    frame_results : float64 [F, len(RESULT_COLUMNS)]
        Results of these choices; times from the latency table.
    simulated : StreamResult
        Of the simulation of frame arrivals.
    live : StreamResult or None
        Of a run in real time.
    curve : list of float64 [F, len(RESULT_COLUMNS)]
        Results with Tmax = 1, 2, ...; a fixed policy has one entry, for its own T.
    against_fixed : dict of str to dict of str to Difference
        Difference to the fastest and the slowest fixed policy, each at its own budget, by policy
        and metric.
    """

    choices: list[RunChoice]
    frame_results: FrameResults
    simulated: StreamResult
    live: StreamResult | None
    curve: list[FrameResults]
    against_fixed: dict[str, dict[str, Difference]]


@dataclass(frozen=True, eq=False)
class Analysis:
    """
    All results of an evaluation.

    Attributes
    ----------
    blocks : Blocks
    frames : list of EvaluatedFrame
    policies : dict of str to PolicyResult
        The first is the primary policy, which the verdict is about.
    means : dict of str to dict of str to float
        See `statistics.summarize_policies`, by policy.
    fastest, slowest : str
        The fixed policies with Tmin and Tmax.
    by_steps : dict of int to float64 [F, len(RESULT_COLUMNS)]
        Results by fixed T.
    equal_budget : dict of str to dict of str to dict of str to Difference
        See `statistics.compare_at_equal_budget`; empty if all policies are fixed.
    """

    blocks: Blocks
    frames: Sequence[EvaluatedFrame]
    policies: dict[str, PolicyResult]
    means: dict[str, dict[str, float]]
    fastest: str
    slowest: str
    by_steps: dict[int, FrameResults]
    equal_budget: dict[str, dict[str, dict[str, Difference]]]

    @property
    def primary(self) -> str:
        """Return the name of the policy that the verdict is about."""
        return next(iter(self.policies))

    def time_saved_interval(self, name: str) -> tuple[float, float]:
        """
        Compute the 95 % interval of the share of the slowest policy's time that another saves.

        Times are always means over frames, even if quality is a mean over blocks.
        """
        slowest_s = self.policies[self.slowest].frame_results[:, TOTAL_S]
        saved_s = slowest_s - self.policies[name].frame_results[:, TOTAL_S]
        low, high = replace(self.blocks, mean_of_blocks=False).bootstrap_interval(saved_s)
        return low / float(slowest_s.mean()), high / float(slowest_s.mean())

    def mean(self, runs: Sequence[str], metric: str) -> float:
        """Average a metric over the frames, using the given run for each frame."""
        return self.blocks.mean(self.column(runs, metric))

    def column(self, runs: Sequence[str], metric: str) -> NDArray[np.float64]:
        """Return a metric of the given run for each frame, [F]; NaN where unknown."""
        return np.array([frame.quality.get(run, {}).get(metric, math.nan)
                         for frame, run in zip(self.frames, runs)], np.float64)


class PolicyAnalyser:
    """
    Replay all policies on the evaluated frames and compare them.

    Parameters
    ----------
    frames : sequence of EvaluatedFrame
    config : EvaluationConfig
    table : LatencyTable
    max_inference_steps : int
        Tmax.
    mean_of_blocks : bool
        See `Blocks`.
    """

    def __init__(self, frames: Sequence[EvaluatedFrame], config: EvaluationConfig,
                 table: LatencyTable, max_inference_steps: int, *, mean_of_blocks: bool) -> None:
        self._frames, self._config, self._table = frames, config, table
        self._t_max = max_inference_steps
        self._blocks = Blocks([frame.block for frame in frames], mean_of_blocks)
        self._by_steps = {
            steps: self._results_of_choices([RunChoice(steps, name, '')] * len(frames))
            for name, steps in frames[0].steps.items() if fixed_steps(name)}
        self._stacked = np.stack(list(self._by_steps.values()))

    def analyse(self) -> Analysis:
        """Replay and compare all policies."""
        fastest, slowest = (fixed_name(steps) for steps in (min(self._by_steps), self._t_max))
        policies = {name: self._evaluate_policy(name, fastest, slowest) for name in
                    dict.fromkeys((*self._config.policies, fastest, slowest))}
        frame_results = {name: result.frame_results for name, result in policies.items()}
        equal_budget = {} if not self._config.needs_all_steps else compare_at_equal_budget(
            frame_results, self._stacked[:self._t_max], self._blocks)
        means = summarize_policies(frame_results, self._blocks, fastest=fastest, slowest=slowest)
        return Analysis(self._blocks, self._frames, policies, means, fastest, slowest,
                        self._by_steps, equal_budget)

    def _evaluate_policy(self, name: str, fastest: str, slowest: str) -> PolicyResult:
        choices = choose_steps(name, self._frames, self._t_max)
        frame_results = self._results_without_cap(name, choices, self._t_max)
        fixed = {other: self._by_steps[fixed_steps(other) or 0]
                 for other in (fastest, slowest) if other != name}
        cap_s = self._config.latency_cap_s
        simulated = StreamResult(
            simulate_arrivals(name, self._frames, self._t_max, cap_s, self._table), cap_s)
        return PolicyResult(choices, frame_results, simulated, None, self._curve(name), {
            other: compare_policies(frame_results, results, self._blocks)
            for other, results in fixed.items()})

    def _curve(self, name: str) -> list[FrameResults]:
        """Return the results of a policy with Tmax from 1 to the full Tmax."""
        fixed = fixed_steps(name)
        if fixed:
            return [self._by_steps[fixed]]
        return [self._results_without_cap(name, choose_steps(name, self._frames, t_max), t_max)
                for t_max in range(1, self._t_max + 1)]

    def _results_without_cap(self, name: str, choices: Sequence[RunChoice],
                             t_max: int) -> FrameResults:
        """Return the results of choices without cap; for 'random' their expectation."""
        if name == 'random':
            expected: FrameResults = self._stacked[:t_max].mean(axis=0)
            return expected
        if name == 'oracle':
            return oracle_results(self._stacked[:t_max])
        return self._results_of_choices(choices)

    def _results_of_choices(self, choices: Sequence[RunChoice]) -> FrameResults:
        rows = np.full((len(choices), 3 + len(QUALITY)), np.nan)
        for row, frame, choice in zip(rows, self._frames, choices):
            cost = self._table.sample(frame.size, frame.number)
            row[STEPS] = choice.num_inference_steps
            row[TOTAL_S] = cost.total_s(choice.num_inference_steps)
            row[DENOISE_S] = choice.num_inference_steps * cost.step_s
            row[3:] = [frame.quality[choice.run].get(metric, math.nan) for metric in QUALITY]
        return rows
