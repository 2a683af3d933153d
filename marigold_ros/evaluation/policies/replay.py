"""
Replay step policies on frames that were run with every T.

A policy either chooses T for each frame independently (`choose_steps`), or it processes frames
that arrive at the times of their stamps (`simulate_arrivals`).  The simulation follows depth_node:
a waiting frame is superseded by a newer one while the engine is busy, and the step policy knows
the age of a frame, observes the costs and respects the latency cap.  The costs are sampled from a
latency table, so the same frames are dropped every time.  Unlike the node, the simulation never
stops denoising early because of the deadline: a frame that takes longer than predicted exceeds
the cap here, while the node would stop denoising.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from marigold_ros.depth.step_policy import StepPolicy
from marigold_ros.depth.types import StepDecision, StepRequest
from marigold_ros.evaluation.config import (
    COMPLEXITY_POLICIES,
    fixed_name,
    OFFLINE_POLICIES,
    step_policy_config,
)
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable

Outcome = Literal['processed', 'superseded', 'late']
OUTCOMES: tuple[Outcome, ...] = ('processed', 'superseded', 'late')
Quality = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class EvaluatedFrame:
    """
    Scores and costs of one frame for every run, without its images.

    A run is one inference with a fixed T; its name is that of the policy, fixed-T.

    Attributes
    ----------
    number : int
        From 0, in the order of reading.
    name, block, camera : str
        See `data.frames.DepthFrame`.
    stamp_ns : int or None
        Acquisition time; None in a folder.
    size : (int, int)
        Padded processing size, height and width, px.
    complexity : dict of str to float
        C by measure.
    steps : dict of str to int
        Denoising steps by run.
    quality : dict of str to dict of str to float
        Scores by run and by baseline.
    engine_s : float
        Time spent in the engine.
    primary_run : str
        Run that the primary policy chooses for this frame without cap.
    temporal : dict of str to dict of str to float
        Temporal scores by policy; empty if frames have no stamps.
    """

    number: int
    name: str
    block: str
    camera: str
    stamp_ns: int | None
    size: tuple[int, int]
    complexity: Mapping[str, float]
    steps: Mapping[str, int]
    quality: Mapping[str, Quality]
    engine_s: float
    primary_run: str = ''
    temporal: Mapping[str, Quality] = field(default_factory=dict)


@dataclass(frozen=True)
class RunChoice:
    """Denoising steps chosen for a frame (0 if skipped), the run with that T, and the reason."""

    num_inference_steps: int
    run: str
    reason: str


@dataclass(frozen=True)
class ReplayedFrame:
    """
    Outcome of one frame.

    Attributes
    ----------
    frame : EvaluatedFrame
    outcome : {'processed', 'superseded', 'late'}
        'superseded' by a newer frame; 'late' if the policy skipped it because not even Tmin fits
        into the cap.
    run : str
        Run that was published; '' if the frame was dropped or the published depth has no scores.
    num_inference_steps : int
        T; 0 if the frame was dropped.
    reason : str
        Reason that the policy gives for T.
    age_s, latency_s : float
        Time from arrival to the step decision, and to the depth; NaN if the frame was dropped.
    cost : FrameCost or None
        Time by stage; None if the frame was dropped.
    """

    frame: EvaluatedFrame
    outcome: Outcome
    run: str = ''
    num_inference_steps: int = 0
    reason: str = ''
    age_s: float = float('nan')
    latency_s: float = float('nan')
    cost: FrameCost | None = None


class PolicyReplay:
    """
    Replay one policy, with its state.

    Parameters
    ----------
    name : str
        One of `EvaluationConfig.policies`.
    max_inference_steps : int
        Tmax.
    latency_cap_s : float or None
    """

    def __init__(self, name: str, max_inference_steps: int,
                 latency_cap_s: float | None = None) -> None:
        self.name = name
        self.policy = StepPolicy(step_policy_config(name, max_inference_steps, latency_cap_s))
        self._max_inference_steps = max_inference_steps

    def choose(self, frame: EvaluatedFrame, age_s: float = 0.0) -> RunChoice:
        """Choose T for the next frame; call it once per frame, in order."""
        complexity = frame.complexity.get(COMPLEXITY_POLICIES.get(self.name, ''), 0.0)
        granted, = self.policy.decide([StepRequest(frame.camera, complexity, age_s)],
                                      padded_size=frame.size)
        if not granted.num_inference_steps:
            return RunChoice(0, '', granted.reason)
        if self.name in OFFLINE_POLICIES:
            granted = self._limit(self._offline_steps(frame), granted)
        steps = granted.num_inference_steps
        return RunChoice(steps, fixed_name(steps), granted.reason)

    def _offline_steps(self, frame: EvaluatedFrame) -> int:
        """Return T of the policy random or oracle."""
        if self.name == 'random':
            draws = np.random.default_rng(frame.number)
            return int(draws.integers(1, self._max_inference_steps, endpoint=True))
        return min(range(1, self._max_inference_steps + 1),
                   key=lambda steps: frame.quality[fixed_name(steps)].get('abs_rel', 0.0))

    def _limit(self, requested: int, granted: StepDecision) -> StepDecision:
        steps = min(requested, granted.num_inference_steps)
        limit = '' if steps == requested else f'; reduced to {steps}: {granted.reason}'
        return StepDecision(steps, f'{self.name}: T = {requested}{limit}')


class ArrivalSimulation:
    """
    Simulate frames that arrive at the times of their stamps at the engine of one policy.

    A frame without a stamp arrives when the engine is idle.

    Parameters
    ----------
    replay : PolicyReplay
    table : LatencyTable
    """

    def __init__(self, replay: PolicyReplay, table: LatencyTable) -> None:
        self._replay, self._table = replay, table
        self._known_sizes: set[tuple[int, int]] = set()
        self._waiting: tuple[EvaluatedFrame, float] | None = None
        self._first_ns: int | None = None
        self._idle_from_s = -np.inf
        self._last_s = -np.inf

    def add(self, frame: EvaluatedFrame) -> Iterator[ReplayedFrame]:
        """Add the next frame, and yield the frames whose outcome is now known, in order."""
        if frame.stamp_ns is None:
            yield self._process(frame, arrived_s=0.0, start_s=0.0)
            return
        self._first_ns = frame.stamp_ns if self._first_ns is None else self._first_ns
        # Relative to the first stamp, since float64 cannot resolve ns since 1970.
        arrived_s = (frame.stamp_ns - self._first_ns) * 1e-9
        if arrived_s < self._last_s:    # time jumps back, as when a bag loops
            yield from self.finish()
            self._idle_from_s = -np.inf
            self._replay.policy.reset()
        self._last_s = arrived_s
        if self._waiting is not None and self._idle_from_s <= arrived_s:
            yield from self.finish()
        if self._waiting is not None:
            yield ReplayedFrame(self._waiting[0], 'superseded')
        self._waiting = frame, arrived_s

    def finish(self) -> Iterator[ReplayedFrame]:
        """Process the frame that is still waiting, if any."""
        if self._waiting is not None:
            (frame, arrived_s), self._waiting = self._waiting, None
            yield self._process(frame, arrived_s, max(self._idle_from_s, arrived_s))

    def _process(self, frame: EvaluatedFrame, arrived_s: float, start_s: float) -> ReplayedFrame:
        policy, size = self._replay.policy, frame.size
        if size not in self._known_sizes:    # the node measures it during configure
            self._known_sizes.add(size)
            policy.observe(self._table.median(size).timing(
                size, policy.config.max_inference_steps))
        age_s = start_s - arrived_s
        choice = self._replay.choose(frame, age_s)
        if not choice.num_inference_steps:
            return ReplayedFrame(frame, 'late', reason=choice.reason)
        steps = choice.num_inference_steps
        cost = self._table.sample(size, frame.number)
        self._idle_from_s = start_s + cost.total_s(steps)
        policy.observe(cost.timing(size, steps))
        return ReplayedFrame(frame, 'processed', choice.run, steps, choice.reason, age_s,
                             self._idle_from_s - arrived_s, cost)


def choose_steps(name: str, frames: Iterable[EvaluatedFrame],
                 max_inference_steps: int) -> list[RunChoice]:
    """Choose T for each frame by a policy, without latency cap and arrival times."""
    replay = PolicyReplay(name, max_inference_steps)
    return [replay.choose(frame) for frame in frames]


def simulate_arrivals(name: str, frames: Iterable[EvaluatedFrame], max_inference_steps: int,
                      latency_cap_s: float | None, table: LatencyTable) -> list[ReplayedFrame]:
    """Process frames that arrive at the times of their stamps; return one result per frame."""
    simulation = ArrivalSimulation(PolicyReplay(name, max_inference_steps, latency_cap_s), table)
    results = [result for frame in frames for result in simulation.add(frame)]
    return [*results, *simulation.finish()]
