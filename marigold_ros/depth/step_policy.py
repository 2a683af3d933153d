"""Step policy: T(C), the latency model and the latency cap.  Does not import torch."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np

from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.types import BatchTiming, StepDecision, StepRequest

# About 30 s of a 10 Hz camera: long enough to describe the scene, short enough to follow it.
QUANTILE_WINDOW = 300
# Batches kept per padded size and batch size: enough for a quantile, few enough to adapt.
LATENCY_WINDOW = 20
# With automatic Cmin and alpha, T(C) is Tmin up to the lower quantile of C and Tmax from the upper
# one.  More steps improve the depth little (docs/results.md), so only the most complex frames of a
# camera get them: they use about a fifth of the extra time that Tmax would cost for every frame.
LINE_QUANTILES = (0.7, 0.95)
# An automatic alpha needs (q95 - q5) / q95 of C above this.  A smaller variation is sensor noise
# in a static scene.
MIN_COMPLEXITY_SPREAD = 0.05
# Part of the cap reserved for delays that the model cannot predict, e.g. another process.
MARGIN_FRACTION = 0.05
# Cmin and alpha of the policy novelty: T is 1 from 7 % of new complexity on, which keeps AbsRel
# and covers 97 % of the images of moving cameras.  Quantiles would run although nothing is new.
NOVELTY_LINE = (0.0, 7.2)

PaddedSize = tuple[int, int]


@dataclass(frozen=True)
class BatchCost:
    """Upper estimates for one batch, s: before denoising, per step of the whole batch, after."""

    before_s: float
    step_s: float
    after_s: float


class LatencyModel:
    """
    Estimate the duration of a batch: a fixed part and a part per denoising step.

    The model keeps the last `LATENCY_WINDOW` batches of each padded size and batch size.
    """

    def __init__(self) -> None:
        """Start without measurements."""
        self._batches: defaultdict[tuple[PaddedSize, int], deque[tuple[float, float, float]]] = (
            defaultdict(lambda: deque(maxlen=LATENCY_WINDOW)))

    def observe(self, timing: BatchTiming) -> None:
        """
        Add the timing of one batch.

        In a ragged batch later steps process fewer frames.  The cost of a step of the full batch
        is extrapolated in proportion to the number of frames, which is an upper estimate.
        """
        steps = timing.num_inference_steps
        if sum(steps):
            step_s = timing.denoise_s * len(steps) / sum(steps)
            self._batches[timing.padded_size, len(steps)].append(
                (timing.before_s, step_s, timing.after_s))

    def estimate(self, padded_size: PaddedSize, batch_size: int) -> BatchCost | None:
        """
        Estimate the cost of a batch as the 95 % quantile of the stored ones.

        The estimate is at least the cost of the latest batch, so that it follows a slowdown at
        once.  For a batch size without measurements at this padded size, the cost of the nearest
        measured batch size is used, scaled up (never down) by the ratio of the two.  Return None
        if the padded size has no measurements.
        """
        sizes = [size for seen, size in self._batches if seen == padded_size]
        if not sizes:
            return None
        nearest = min(sizes, key=lambda size: abs(size - batch_size))
        costs = np.array(self._batches[padded_size, nearest])
        upper = np.maximum(np.quantile(costs, 0.95, axis=0), costs[-1])
        before_s, step_s, after_s = upper * max(1.0, batch_size / nearest)
        return BatchCost(float(before_s), float(step_s), float(after_s))


class StepPolicy:
    """
    Decide the number of denoising steps of each frame, T = min(T(C), T_cap).

    Parameters
    ----------
    config : StepPolicyConfig

    Examples
    --------
    >>> config = StepPolicyConfig('complexity', complexity_min=0.1, alpha=10.0, latency_cap_s=0.2)
    >>> policy = StepPolicy(config)
    >>> request = StepRequest('front', complexity=0.5, age_s=0.02)
    >>> policy.decide([request], padded_size=(96, 128))[0].num_inference_steps
    4

    Once the policy has observed that a step takes 80 ms, only two steps fit under the cap:

    >>> policy.observe(BatchTiming((96, 128), (4,), before_s=0.01, denoise_s=0.32, after_s=0.0))
    >>> policy.decide([request], padded_size=(96, 128))
    [StepDecision(num_inference_steps=2, reason='...reduced to 2 by the cap: 200 ms ...')]
    """

    def __init__(self, config: StepPolicyConfig) -> None:
        """Start with empty statistics."""
        self.config = config
        self.latency = LatencyModel()
        self._complexities: dict[str, deque[float]] = {}
        self.reset()

    def reset(self) -> None:
        """Discard the statistics of C, for example after a jump back in time."""
        self._complexities = defaultdict(lambda: deque(maxlen=QUANTILE_WINDOW))

    def observe(self, timing: BatchTiming) -> None:
        """Update the latency model with the timing of a batch."""
        self.latency.observe(timing)

    def observe_complexity(self, request: StepRequest) -> None:
        """Add a frame's C to the statistics of its camera; call it once per frame."""
        self._complexities[request.camera].append(request.complexity)

    def decide(self, requests: Sequence[StepRequest], *,
               padded_size: PaddedSize) -> list[StepDecision]:
        """
        Observe and decide the number of steps of every frame of one batch, once per frame.

        Parameters
        ----------
        requests : sequence of StepRequest
            One per frame; ages are measured from receipt, on the steady clock.
        padded_size : (int, int)
            Padded processing size (PPH, PPW) of the batch.

        Returns
        -------
        list of StepDecision
            In the order of `requests`; with 0 steps depth is carried along.
        """
        for each in requests:
            self.observe_complexity(each)
        return self.limit_steps(requests, [self.choose_steps(each) for each in requests],
                                padded_size=padded_size)

    def choose_steps(self, request: StepRequest) -> StepDecision:
        """
        Choose the number of steps of a frame, whose C was observed, without a latency cap.

        Returns
        -------
        StepDecision
            Tmax, or T(C) = clip(round(Tmin + alpha (C - Cmin)), Tmin, Tmax).
        """
        config, complexity = self.config, request.complexity
        t_min, t_max = config.min_inference_steps, config.max_inference_steps
        if config.policy == 'fixed':
            return StepDecision(t_max, f'fixed: Tmax = {t_max}')
        if config.policy == 'novelty' and not request.can_carry:
            steps = max(1, t_min)  # all is new, but more steps buy little (docs/results.md)
            return StepDecision(steps, f'novelty: nothing to carry -> {steps}')
        low, alpha = self._complexity_line(request.camera, complexity)
        steps = min(max(math.floor(t_min + alpha * (complexity - low) + 0.5), t_min), t_max)
        reason = (f'{config.policy}: T({complexity:.4g}) = {t_min} + {alpha:.4g} '
                  f'(C - {low:.4g}) -> {steps}')
        if not steps and (request.run_reason or not request.can_carry):
            return StepDecision(1, f'{reason}; 1: {request.run_reason or "nothing to carry"}')
        return StepDecision(steps, reason)

    def limit_steps(self, requests: Sequence[StepRequest], decisions: Sequence[StepDecision], *,
                    padded_size: PaddedSize) -> list[StepDecision]:
        """
        Limit the steps of the frames of one batch that wait for their run to keep the latency cap.

        Frames into which depth can be carried do not wait, so their steps are not limited here.

        Parameters
        ----------
        requests, decisions : sequence
            See `decide` and `choose_steps`; one per frame.
        padded_size : (int, int)
            See `decide`.

        Returns
        -------
        list of StepDecision
        """
        waiting = [each for each in requests if not each.can_carry]
        max_steps, budget = self._max_steps_under_cap(waiting, len(requests), padded_size)
        least = max(1, self.config.min_inference_steps)
        return [decision if request.can_carry
                else _limit_steps(decision, max_steps, least, f'the cap: {budget}')
                for request, decision in zip(requests, decisions)]

    def deadline_s(self, requests: Sequence[StepRequest], *,
                   padded_size: PaddedSize) -> float | None:
        """
        Return the time left for denoising, s from now; None without a cap or a waiting frame.

        The frames of a batch end together, so the oldest that waits determines the deadline, also
        of those that do not wait.
        """
        cap_s = self.config.latency_cap_s
        waiting = [each for each in requests if not each.can_carry]
        if cap_s is None or not waiting:
            return None
        cost = self.latency.estimate(padded_size, len(requests))
        after_s = 0.0 if cost is None else cost.after_s
        return cap_s * (1.0 - MARGIN_FRACTION) - _oldest_age_s(waiting) - after_s

    def _complexity_line(self, camera: str, complexity: float) -> tuple[float, float]:
        """Return (Cmin, alpha): configured, or estimated from the camera's recent frames."""
        config = self.config
        if config.policy == 'novelty':
            low, alpha = NOVELTY_LINE
            return (low if config.complexity_min is None else config.complexity_min,
                    alpha if config.alpha is None else config.alpha)
        complexities = self._complexities[camera]
        least, lower, upper = np.quantile(np.array(complexities), (0.05, *LINE_QUANTILES))
        low = float(lower) if config.complexity_min is None else config.complexity_min
        if config.alpha is not None:
            return low, config.alpha
        if upper - least <= MIN_COMPLEXITY_SPREAD * upper or upper <= low:
            return low, 0.0
        steps = config.max_inference_steps - config.min_inference_steps
        return low, steps / (float(upper) - low)

    def _max_steps_under_cap(self, waiting: Sequence[StepRequest], batch_size: int,
                             padded_size: PaddedSize) -> tuple[float, str]:
        """Return T_cap = floor((cap - age - before - after - margin) / step) and its formula."""
        cap_s = self.config.latency_cap_s
        if cap_s is None or not waiting:
            return math.inf, 'no cap'
        cost = self.latency.estimate(padded_size, batch_size)
        if cost is None:
            return math.inf, 'cost not known yet'
        age_s, other_s = _oldest_age_s(waiting), cost.before_s + cost.after_s
        margin_s = MARGIN_FRACTION * cap_s
        left_s = cap_s - age_s - other_s - margin_s
        steps = max(0, math.floor(left_s / cost.step_s)) if cost.step_s > 0.0 else math.inf
        return steps, (f'{1e3 * cap_s:.0f} ms - age {1e3 * age_s:.0f} - other {1e3 * other_s:.0f}'
                       f' - margin {1e3 * margin_s:.0f} at {1e3 * cost.step_s:.0f} ms a step')


def _oldest_age_s(requests: Sequence[StepRequest]) -> float:
    return max(request.age_s for request in requests)


def _limit_steps(decision: StepDecision, limit: float, least: int, reason: str) -> StepDecision:
    if limit < least:
        return StepDecision(least, f'late, run with {least}: {reason}')
    if decision.num_inference_steps <= limit:
        return decision
    return StepDecision(int(limit), f'{decision.reason}; reduced to {int(limit)} by {reason}')
