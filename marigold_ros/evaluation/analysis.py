"""From the runs of all frames to what each policy does: alone, by the clock, beside the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import math

import numpy as np
from numpy.typing import NDArray

from marigold_ros.evaluation.config import EvaluationConfig, fixed_name, fixed_steps
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.evaluation.policies.replay import (
    Choice,
    FrameRuns,
    replay_alone,
    replay_clock,
    Replayed,
)
from marigold_ros.evaluation.statistics import (
    Blocks,
    compare,
    compare_at_equal_budget,
    DENOISE_S,
    Difference,
    oracle,
    Outcomes,
    QUALITY,
    STEPS,
    summarize,
    TOTAL_S,
)

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, eq=False)
class Clocked:
    """
    A policy by the clock.

    Attributes
    ----------
    frames : list of Replayed
        Every frame's fate, in their order.
    cap_s : float or None
    """

    frames: list[Replayed]
    cap_s: float | None

    @property
    def processed(self) -> list[Replayed]:
        """List the frames that got depth."""
        return [each for each in self.frames if each.fate == 'processed']

    @property
    def latency_s(self) -> list[float]:
        """Of the processed frames."""
        return [each.latency_s for each in self.processed]

    @property
    def over_cap(self) -> int:
        """How many processed frames took longer than the cap."""
        return sum(each > self.cap_s for each in self.latency_s) if self.cap_s else 0

    def count(self, fate: str) -> int:
        """Count the frames of a fate."""
        return sum(each.fate == fate for each in self.frames)


@dataclass(frozen=True, eq=False)
class PolicyResult:
    """
    What one policy does.

    Attributes
    ----------
    choices : list of Choice
        For every frame alone, without cap and clock.
    outcomes : float64 [F, len(OUTCOME)]
        Of these; times by the latency table.
    clock : Clocked
    live : Clocked or None
        Of a run in real time.
    curve : list of float64 [F, len(OUTCOME)]
        Outcomes with Tmax = 1, 2, ...; a fixed policy has one for its own T alone.
    against : dict of str to dict of str to Difference
        By fixed policy, fastest and slowest, by metric: what its own budget buys.
    """

    choices: list[Choice]
    outcomes: Outcomes
    clock: Clocked
    live: Clocked | None
    curve: list[Outcomes]
    against: dict[str, dict[str, Difference]]


@dataclass(frozen=True, eq=False)
class Analysis:
    """
    All results of an evaluation.

    Attributes
    ----------
    blocks : Blocks
    frames : list of FrameRuns
    policies : dict of str to PolicyResult
        The first is the one that the verdict judges.
    means : dict of str to dict of str to float
        See `statistics.summarize`, by policy.
    fastest, slowest : str
        The fixed policies between which the others lie.
    by_steps : dict of int to float64 [F, len(OUTCOME)]
        Of every fixed T.
    equal_budget : dict of str to dict of str to dict of str to Difference
        See `statistics.compare_at_equal_budget`; empty where all T are fixed.
    """

    blocks: Blocks
    frames: Sequence[FrameRuns]
    policies: dict[str, PolicyResult]
    means: dict[str, dict[str, float]]
    fastest: str
    slowest: str
    by_steps: dict[int, Outcomes]
    equal_budget: dict[str, dict[str, dict[str, Difference]]]

    @property
    def judged(self) -> str:
        """Name of the policy that the verdict is about."""
        return next(iter(self.policies))

    def time_saved_interval(self, name: str) -> tuple[float, float]:
        """
        Give the 95 % interval of the share of the slowest policy's time that another saves.

        Times are means over frames, also where every block counts the same for quality.
        """
        slowest_s = self.policies[self.slowest].outcomes[:, TOTAL_S]
        saved_s = slowest_s - self.policies[name].outcomes[:, TOTAL_S]
        low, high = replace(self.blocks, mean_of_blocks=False).interval(saved_s)
        return low / float(slowest_s.mean()), high / float(slowest_s.mean())

    def mean(self, run_of: Sequence[str], metric: str) -> float:
        """Average a metric over the frames, each by the run that is named for it."""
        return self.blocks.mean(self.column(run_of, metric))

    def column(self, run_of: Sequence[str], metric: str) -> NDArray[np.float64]:
        """Return a metric of every frame by the run that is named for it; NaN where unknown."""
        return np.array([frame.quality.get(run, {}).get(metric, math.nan)
                         for frame, run in zip(self.frames, run_of)], np.float64)


class Analyst:
    """
    Replays policies over the runs of a session.

    Parameters
    ----------
    frames : sequence of FrameRuns
    config : EvaluationConfig
    table : LatencyTable
    max_inference_steps : int
        Tmax.
    mean_of_blocks : bool
        See `Blocks`.
    """

    def __init__(self, frames: Sequence[FrameRuns], config: EvaluationConfig, table: LatencyTable,
                 max_inference_steps: int, *, mean_of_blocks: bool) -> None:
        self._frames, self._config, self._table = frames, config, table
        self._t_max = max_inference_steps
        self._blocks = Blocks([frame.block for frame in frames], mean_of_blocks)
        self._by_steps = {steps: self._outcomes([Choice(steps, name, '')] * len(frames))
                          for name, steps in frames[0].steps.items() if fixed_steps(name)}
        self._stacked = np.stack(list(self._by_steps.values()))

    def analyse(self) -> Analysis:
        """Replay every policy and compare."""
        fastest, slowest = (fixed_name(steps) for steps in (min(self._by_steps), self._t_max))
        policies = {name: self._policy(name, fastest, slowest) for name in
                    dict.fromkeys((*self._config.policies, fastest, slowest))}
        outcomes = {name: result.outcomes for name, result in policies.items()}
        equal_budget = {} if not self._config.chooses else compare_at_equal_budget(
            outcomes, self._stacked[:self._t_max], self._blocks)
        means = summarize(outcomes, self._blocks, fastest=fastest, slowest=slowest)
        return Analysis(self._blocks, self._frames, policies, means, fastest, slowest,
                        self._by_steps, equal_budget)

    def _policy(self, name: str, fastest: str, slowest: str) -> PolicyResult:
        choices = replay_alone(name, self._frames, self._t_max)
        outcomes = self._alone(name, choices, self._t_max)
        others = {other: self._by_steps[fixed_steps(other) or 0]
                  for other in (fastest, slowest) if other != name}
        clock = Clocked(replay_clock(name, self._frames, self._t_max, self._config.latency_cap_s,
                                     self._table), self._config.latency_cap_s)
        return PolicyResult(choices, outcomes, clock, None, self._curve(name), {
            other: compare(outcomes, theirs, self._blocks) for other, theirs in others.items()})

    def _curve(self, name: str) -> list[Outcomes]:
        """Give the policy budgets from the smallest to the whole."""
        fixed = fixed_steps(name)
        if fixed:
            return [self._by_steps[fixed]]
        return [self._alone(name, replay_alone(name, self._frames, t_max), t_max)
                for t_max in range(1, self._t_max + 1)]

    def _alone(self, name: str, choices: Sequence[Choice], t_max: int) -> Outcomes:
        """Return the outcomes of choices; those of 'random' are its expectation."""
        if name == 'random':
            expected: Outcomes = self._stacked[:t_max].mean(axis=0)
            return expected
        if name == 'oracle':
            return oracle(self._stacked[:t_max])
        return self._outcomes(choices)

    def _outcomes(self, choices: Sequence[Choice]) -> Outcomes:
        rows = np.full((len(choices), 3 + len(QUALITY)), np.nan)
        for row, frame, choice in zip(rows, self._frames, choices):
            cost = self._table.draw(frame.size, frame.number)
            row[STEPS] = choice.num_inference_steps
            row[TOTAL_S] = cost.total_s(choice.num_inference_steps)
            row[DENOISE_S] = choice.num_inference_steps * cost.step_s
            row[3:] = [frame.quality[choice.run].get(metric, math.nan) for metric in QUALITY]
        return rows
