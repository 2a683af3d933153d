"""Compare the policies of an evaluation by cost and quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.config import fixed_steps, period
from marigold_ros.evaluation.policies.replay import EvaluatedFrame, Quality, ReplayedFrame
from marigold_ros.evaluation.statistics import (
    blind_at_budget,
    Blocks,
    compare_policies,
    Difference,
    FrameResults,
    mean_results,
    QUALITY,
    saved_share,
    TOTAL_S,
)
from marigold_ros.progress import progress_bar

if TYPE_CHECKING:
    from marigold_ros.evaluation.policies.latency import FrameCost
    from marigold_ros.evaluation.runner import SessionResult

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
    frames : list of ReplayedFrame
        One frame after the other, without latency cap.
    frame_results : float64 [F, len(RESULT_COLUMNS)]
        Of these frames; times from the latency table.
    means : dict of str to float
        See `statistics.mean_results`.
    saved : dict of str to (float, float, float)
        Share of the networks' time that the policy saves against the fastest and the slowest
        fixed policy, and its interval, by policy.
    against : dict of str to dict of str to Difference
        Difference to these policies by policy and metric.
    against_blind : dict of str to Difference
        Difference to what the same time buys without a look at the frames, by metric; empty for
        fixed-N and every-N, which are blind themselves.
    simulated : StreamResult
        Of the simulation of frame arrivals.
    live : StreamResult or None
        Of a run in real time.
    """

    frames: list[ReplayedFrame]
    frame_results: FrameResults
    means: dict[str, float]
    saved: dict[str, tuple[float, float, float]]
    against: dict[str, dict[str, Difference]]
    against_blind: dict[str, Difference]
    simulated: StreamResult
    live: StreamResult | None = None


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
    fastest, slowest : str
        The fixed policies with the fewest steps and with Tmax.
    blind : dict of str to float64 [F, len(RESULT_COLUMNS)]
        Results of the policies that do not look at the frames, by policy, the cheapest first.
    """

    blocks: Blocks
    frames: Sequence[EvaluatedFrame]
    policies: dict[str, PolicyResult]
    fastest: str
    slowest: str
    blind: dict[str, FrameResults]

    @property
    def primary(self) -> str:
        """Return the name of the policy that the verdict is about."""
        return next(iter(self.policies))

    def baseline_column(self, name: str, metric: str) -> NDArray[np.float64]:
        """Return a metric of a run or a baseline for each frame, [F]; NaN where unknown."""
        return metric_column([frame.quality[name] for frame in self.frames], metric)


def analyse(session: SessionResult, cap_s: float | None, *, mean_of_blocks: bool) -> Analysis:
    """
    Compare the policies of a session.

    Parameters
    ----------
    session : SessionResult
    cap_s : float or None
        Latency cap of the simulation, s.
    mean_of_blocks : bool
        See `Blocks`.

    Raises
    ------
    InputError
        If there is no frame.
    """
    if not session.frames:
        raise InputError('no frame was evaluated')
    blocks = Blocks([frame.block for frame in session.frames], mean_of_blocks)
    results = {name: _frame_results(frames) for name, frames in session.replayed.items()}
    blind = {name: _frame_results(frames) for name, frames in session.blind.items()}
    costs = [each.cost for each in session.replayed[session.fastest]]    # with every policy
    blind |= {name: _results_of_run(session.frames, name, costs)
              for name in session.frames[0].quality if fixed_steps(name)}
    blind = dict(sorted(blind.items(), key=lambda each: float(each[1][:, TOTAL_S].mean())))
    stacked = np.stack(list(blind.values()))
    policies = {}
    for name, frame_results in progress_bar(results.items(), 'comparison', unit='policy'):
        others = [each for each in (session.fastest, session.slowest) if each != name]
        is_blind = fixed_steps(name) or period(name)
        same_budget = blind_at_budget(stacked, float(frame_results[:, TOTAL_S].mean()))
        policies[name] = PolicyResult(
            session.replayed[name], frame_results, mean_results(frame_results, blocks),
            {each: saved_share(frame_results, results[each], blocks)
             for each in (session.fastest, session.slowest)},
            {each: compare_policies(frame_results, results[each], blocks) for each in others},
            {} if is_blind else compare_policies(frame_results, same_budget, blocks),
            StreamResult(session.simulated[name], cap_s))
    return Analysis(blocks, session.frames, policies, session.fastest, session.slowest, blind)


def metric_column(qualities: Sequence[Quality], metric: str) -> NDArray[np.float64]:
    """Return a metric for each frame, [F]; NaN where unknown."""
    return np.array([quality.get(metric, math.nan) for quality in qualities], np.float64)


def _frame_results(frames: Sequence[ReplayedFrame]) -> FrameResults:
    return np.array([_results(each.num_inference_steps, each.cost, each.quality)
                     for each in frames])


def _results_of_run(frames: Sequence[EvaluatedFrame], name: str,
                    costs: Sequence[FrameCost | None]) -> FrameResults:
    return np.array([_results(fixed_steps(name) or 0, cost, frame.quality[name])
                     for frame, cost in zip(frames, costs)])


def _results(steps: int, cost: FrameCost | None, quality: Quality) -> list[float]:
    assert cost is not None  # of a processed frame
    return [steps, cost.total_s(steps), cost.network_s(steps),
            *(quality.get(metric, math.nan) for metric in QUALITY)]
