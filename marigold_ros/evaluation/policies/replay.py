"""
Replay policies on frames that were run with every T, alone or against a simulated arrival clock.

The clock follows depth_node: one place for the newest frame, which supersedes the one before it;
a busy engine; a step policy that knows the age of a frame, learns what batches cost and keeps the
cap.  What a frame costs comes from a latency table, so that the same frames give the same drops.
Unlike the node, the simulation never ends denoising between two steps because of its deadline: a
frame that turns out slower than foreseen is late here, while the node would cut it short.
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
    REFERENCE_POLICIES,
    step_policy_config,
)
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable

Fate = Literal['processed', 'superseded', 'late']
FATES: tuple[Fate, ...] = ('processed', 'superseded', 'late')
Quality = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class FrameRuns:
    """
    All that is kept of a frame; the pictures are gone.

    Attributes
    ----------
    number : int
        From 0, in the order of reading.
    name, block, camera : str
        See `data.frames.DepthFrame`.
    stamp_ns : int or None
        When it was taken; None in a folder.
    size : (int, int)
        Padded, at which it is processed.
    complexity : dict of str to float
        C by each measure.
    steps : dict of str to int
        Steps of each run.
    quality : dict of str to dict of str to float
        Scores of each run, and of each baseline.
    engine_s : float
        Time spent in the engine.
    judged : str
        Which run the judged policy chooses, each frame alone.
    temporal : dict of str to dict of str to float
        Scores beside the frame before, by policy; empty where frames have no stamps.
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
    judged: str = ''
    temporal: Mapping[str, Quality] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """Steps that a frame gets, 0 if it is skipped, which of its runs that is, and why."""

    num_inference_steps: int
    run: str
    reason: str


@dataclass(frozen=True)
class Replayed:
    """
    What became of a frame.

    Attributes
    ----------
    frame : FrameRuns
    fate : {'processed', 'superseded', 'late'}
        A newer frame took its place; the policy skipped it, for not even Tmin fits.
    run : str
        Which of the frame's runs was published; '' if none, or none that was scored.
    num_inference_steps : int
        T; 0 if it was dropped.
    reason : str
        The policy's own words.
    age_s, latency_s : float
        From arrival to the decision, and to the depth; NaN if it was dropped.
    cost : FrameCost or None
        By stage; None if it was dropped.
    """

    frame: FrameRuns
    fate: Fate
    run: str = ''
    num_inference_steps: int = 0
    reason: str = ''
    age_s: float = float('nan')
    latency_s: float = float('nan')
    cost: FrameCost | None = None


class PolicyReplay:
    """
    One policy with what it has learned from the frames so far.

    Parameters
    ----------
    name : str
        Of `EvaluationConfig.policies`.
    max_inference_steps : int
        Tmax.
    latency_cap_s : float or None
    """

    def __init__(self, name: str, max_inference_steps: int,
                 latency_cap_s: float | None = None) -> None:
        self.name = name
        self.policy = StepPolicy(step_policy_config(name, max_inference_steps, latency_cap_s))
        self._max_inference_steps = max_inference_steps

    def choose(self, frame: FrameRuns, age_s: float = 0.0) -> Choice:
        """Decide about a frame; to be called once for each, in their order."""
        complexity = frame.complexity.get(COMPLEXITY_POLICIES.get(self.name, ''), 0.0)
        granted, = self.policy.decide([StepRequest(frame.camera, complexity, age_s)],
                                      resolution=frame.size)
        if not granted.num_inference_steps:
            return Choice(0, '', granted.reason)
        if self.name in REFERENCE_POLICIES:
            granted = self._cut(self._reference(frame), granted)
        steps = granted.num_inference_steps
        return Choice(steps, fixed_name(steps), granted.reason)

    def _reference(self, frame: FrameRuns) -> int:
        """T of a policy that cannot be run live."""
        if self.name == 'random':
            draws = np.random.default_rng(frame.number)
            return int(draws.integers(1, self._max_inference_steps, endpoint=True))
        return min(range(1, self._max_inference_steps + 1),
                   key=lambda steps: frame.quality[fixed_name(steps)].get('abs_rel', 0.0))

    def _cut(self, wanted: int, granted: StepDecision) -> StepDecision:
        steps = min(wanted, granted.num_inference_steps)
        cut = '' if steps == wanted else f'; cut to {steps}: {granted.reason}'
        return StepDecision(steps, f'{self.name}: T = {wanted}{cut}')


class ArrivalClock:
    """
    Let frames arrive by their stamps while one policy's engine is busy, by a latency table.

    Frames without a stamp arrive when the engine is free.

    Parameters
    ----------
    replay : PolicyReplay
    table : LatencyTable
    """

    def __init__(self, replay: PolicyReplay, table: LatencyTable) -> None:
        self._replay, self._table = replay, table
        self._known_sizes: set[tuple[int, int]] = set()
        self._waiting: tuple[FrameRuns, float] | None = None
        self._first_ns: int | None = None
        self._free_s = -np.inf
        self._last_s = -np.inf

    def arrive(self, frame: FrameRuns) -> Iterator[Replayed]:
        """Take the next frame, and tell what became of those before it, in their order."""
        if frame.stamp_ns is None:
            yield self._process(frame, arrived_s=0.0, start_s=0.0)
            return
        self._first_ns = frame.stamp_ns if self._first_ns is None else self._first_ns
        arrived_s = (frame.stamp_ns - self._first_ns) * 1e-9    # small numbers keep the ns
        if arrived_s < self._last_s:    # a jump back in time, as at the end of a loop
            yield from self.end()
            self._free_s = -np.inf
            self._replay.policy.reset()
        self._last_s = arrived_s
        if self._waiting is not None and self._free_s <= arrived_s:
            yield from self.end()
        if self._waiting is not None:
            yield Replayed(self._waiting[0], 'superseded')
        self._waiting = frame, arrived_s

    def end(self) -> Iterator[Replayed]:
        """Process what still waits, for nothing newer comes."""
        if self._waiting is not None:
            (frame, arrived_s), self._waiting = self._waiting, None
            yield self._process(frame, arrived_s, max(self._free_s, arrived_s))

    def _process(self, frame: FrameRuns, arrived_s: float, start_s: float) -> Replayed:
        policy, size = self._replay.policy, frame.size
        if size not in self._known_sizes:    # as the node has measured at configure
            self._known_sizes.add(size)
            policy.observe(self._table.typical(size).timing(
                size, policy.config.max_inference_steps))
        age_s = start_s - arrived_s
        choice = self._replay.choose(frame, age_s)
        if not choice.num_inference_steps:
            return Replayed(frame, 'late', reason=choice.reason)
        steps = choice.num_inference_steps
        cost = self._table.draw(size, frame.number)
        self._free_s = start_s + cost.total_s(steps)
        policy.observe(cost.timing(size, steps))
        return Replayed(frame, 'processed', choice.run, steps, choice.reason, age_s,
                        self._free_s - arrived_s, cost)


def replay_alone(name: str, frames: Iterable[FrameRuns], max_inference_steps: int) -> list[Choice]:
    """Let a policy choose for all frames, one by one, without a cap and without a clock."""
    replay = PolicyReplay(name, max_inference_steps)
    return [replay.choose(frame) for frame in frames]


def replay_clock(name: str, frames: Iterable[FrameRuns], max_inference_steps: int,
                 latency_cap_s: float | None, table: LatencyTable) -> list[Replayed]:
    """Let all frames arrive by the clock; one result each, in their order."""
    clock = ArrivalClock(PolicyReplay(name, max_inference_steps, latency_cap_s), table)
    results = [result for frame in frames for result in clock.arrive(frame)]
    return [*results, *clock.end()]
