"""How many denoising steps a frame may have: T(C), the latency model and the cap.  No torch."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np

from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.types import BatchTiming, StepDecision, StepRequest

# About 30 s of a 10 Hz camera: long enough to know the scene, short enough to follow it.
QUANTILE_WINDOW = 300
# Batches of one kind that are remembered: long enough for a quantile, short enough to forget.
LATENCY_WINDOW = 20
# The automatic line gives Tmin up to the lower quantile and Tmax from the upper one.  More steps
# buy little (README, Limits), so only the most complex part of a camera's frames gets them: about
# a fifth of what Tmax costs above Tmin is spent.
LINE_QUANTILES = (0.7, 0.95)
# Between its 5 % and its 95 % quantile, relative to the latter, C must vary by more than this for
# the automatic line: what is less is the noise of the sensor in a scene that stands still.
MIN_SPREAD = 0.05
# Part of the cap kept free for what the model cannot foresee, e.g. another process's time slice.
MARGIN_FRACTION = 0.05
# A frame that is skipped teaches nothing, so after this many in a row one is run to measure.
SKIPS_BEFORE_PROBE = 4

Resolution = tuple[int, int]


@dataclass(frozen=True)
class BatchCost:
    """Upper estimates for one batch: before denoising, per step of the whole batch, after, s."""

    before_s: float
    step_s: float
    after_s: float


class LatencyModel:
    """
    What a batch costs: a fixed part and a part per denoising step.

    Costs are remembered per padded resolution and batch size, the last `LATENCY_WINDOW` batches
    of each; old ones are forgotten.
    """

    def __init__(self) -> None:
        """Start knowing nothing."""
        self._batches: defaultdict[tuple[Resolution, int], deque[tuple[float, float, float]]] = (
            defaultdict(lambda: deque(maxlen=LATENCY_WINDOW)))

    def observe(self, timing: BatchTiming) -> None:
        """
        Remember one batch's cost.

        In a ragged batch the later steps are cheaper.  A step of the whole batch is taken to cost
        in proportion to its frames, which is never too little where batches pay at all.
        """
        steps = timing.num_inference_steps
        if sum(steps):
            step_s = timing.denoise_s * len(steps) / sum(steps)
            self._batches[timing.resolution, len(steps)].append(
                (timing.before_s, step_s, timing.after_s))

    def estimate(self, resolution: Resolution, batch_size: int, *,
                 heed_last: bool = True) -> BatchCost | None:
        """
        Estimate the cost of a batch by the 95 % quantile of the last ones.

        With `heed_last` it is at least what the very last one cost: this follows a slowdown at
        once, while a single spike is soon outweighed.  A batch size not seen yet at this
        resolution borrows the nearest one's cost, scaled up by the ratio of the sizes and never
        down: a batch may be cheaper than its frames one by one, but that must be seen first.
        None if the resolution was never seen.
        """
        sizes = [size for seen, size in self._batches if seen == resolution]
        if not sizes:
            return None
        nearest = min(sizes, key=lambda size: abs(size - batch_size))
        costs = np.array(self._batches[resolution, nearest])
        upper = np.quantile(costs, 0.95, axis=0)
        if heed_last:
            upper = np.maximum(upper, costs[-1])
        before_s, step_s, after_s = upper * max(1.0, batch_size / nearest)
        return BatchCost(float(before_s), float(step_s), float(after_s))

    def forget(self, resolution: Resolution) -> None:
        """Forget what batches of a resolution have cost."""
        for key in [key for key in self._batches if key[0] == resolution]:
            del self._batches[key]


class StepPolicy:
    """
    Grant each frame of a batch its number of denoising steps, T = min(T(C), T_cap).

    Parameters
    ----------
    config : StepPolicyConfig
    """

    def __init__(self, config: StepPolicyConfig) -> None:
        """Start with empty statistics."""
        self.config = config
        self.latency = LatencyModel()
        self._skipped: Counter[Resolution] = Counter()
        self._seen: dict[str, deque[float]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget the cameras' statistics, as after a jump back in time."""
        self._seen = defaultdict(lambda: deque(maxlen=QUANTILE_WINDOW))

    def observe(self, timing: BatchTiming) -> None:
        """Feed the latency model with what a batch has cost."""
        self.latency.observe(timing)

    def decide(self, requests: Sequence[StepRequest], *,
               resolution: Resolution) -> list[StepDecision]:
        """
        Decide the steps of all frames of one batch.

        Parameters
        ----------
        requests : sequence of StepRequest
            One per frame; ages count from receipt, on the steady clock.
        resolution : (int, int)
            Padded processing size (PPH, PPW) of the batch.

        Returns
        -------
        list of StepDecision
            In the order of `requests`; 0 steps means skip.
        """
        config = self.config
        cap, why_cap = self._steps_under_cap(requests, resolution)
        if cap >= config.min_inference_steps:
            self._skipped[resolution] = 0
            return [_limited(self._wanted(request), cap, f'the cap: {why_cap}')
                    for request in requests]
        # One slow batch is no reason to skip, only to be quick.
        lasting_cap, _ = self._steps_under_cap(requests, resolution, heed_last=False)
        if config.late_frames == 'run' or lasting_cap >= config.min_inference_steps:
            return [StepDecision(config.min_inference_steps, f'late, run at Tmin: {why_cap}')
                    for _ in requests]
        self._skipped[resolution] += 1
        if self._skipped[resolution] <= SKIPS_BEFORE_PROBE:
            return [StepDecision(0, f'late, skipped: {why_cap}') for _ in requests]
        self._skipped[resolution] = 0
        self.latency.forget(resolution)
        return [StepDecision(config.min_inference_steps,
                             f'late, run at Tmin to measure after {SKIPS_BEFORE_PROBE} skips: '
                             f'{why_cap}') for _ in requests]

    def deadline_s(self, requests: Sequence[StepRequest], *,
                   resolution: Resolution) -> float | None:
        """
        Return the seconds from now by which denoising must end; None without a cap.

        The batch is published together, so its oldest frame rules, as in `decide`.
        """
        cap_s = self.config.latency_cap_s
        if cap_s is None:
            return None
        cost = self.latency.estimate(resolution, len(requests))
        after_s = 0.0 if cost is None else cost.after_s
        return cap_s * (1.0 - MARGIN_FRACTION) - _oldest_s(requests) - after_s

    def _wanted(self, request: StepRequest) -> StepDecision:
        """Without a cap: T(C) = clip(round(Tmin + alpha (C - Cmin)), Tmin, Tmax), or Tmax."""
        config, complexity = self.config, request.complexity
        t_min, t_max = config.min_inference_steps, config.max_inference_steps
        if config.policy == 'fixed':
            return StepDecision(t_max, f'fixed: Tmax = {t_max}')
        low, alpha = self._line(request.camera, complexity)
        steps = min(max(math.floor(t_min + alpha * (complexity - low) + 0.5), t_min), t_max)
        return StepDecision(steps, f'complexity: T({complexity:.4g}) = {t_min} + {alpha:.4g} '
                                   f'(C - {low:.4g}) -> {steps}')

    def _line(self, camera: str, complexity: float) -> tuple[float, float]:
        """Return (Cmin, alpha), learned from the camera's frames where they are not given."""
        config, seen = self.config, self._seen[camera]
        seen.append(complexity)
        least, lower, upper = np.quantile(np.array(seen), (0.05, *LINE_QUANTILES))
        low = float(lower) if config.complexity_min is None else config.complexity_min
        if config.alpha is not None:
            return low, config.alpha
        if upper - least <= MIN_SPREAD * upper or upper <= low:
            return low, 0.0
        steps = config.max_inference_steps - config.min_inference_steps
        return low, steps / (float(upper) - low)

    def _steps_under_cap(self, requests: Sequence[StepRequest], resolution: Resolution, *,
                         heed_last: bool = True) -> tuple[float, str]:
        """T_cap = floor((cap - age - before - after - margin) / step), and that in words."""
        cap_s = self.config.latency_cap_s
        cost = self.latency.estimate(resolution, len(requests), heed_last=heed_last)
        if cap_s is None or cost is None or not requests:
            return math.inf, 'no cap' if cap_s is None else 'cost not known yet'
        age_s, other_s = _oldest_s(requests), cost.before_s + cost.after_s
        margin_s = MARGIN_FRACTION * cap_s
        left_s = cap_s - age_s - other_s - margin_s
        steps = max(0, math.floor(left_s / cost.step_s)) if cost.step_s > 0.0 else math.inf
        return steps, (f'{1e3 * cap_s:.0f} ms - age {1e3 * age_s:.0f} - other {1e3 * other_s:.0f}'
                       f' - margin {1e3 * margin_s:.0f} at {1e3 * cost.step_s:.0f} ms a step')


def _oldest_s(requests: Sequence[StepRequest]) -> float:
    """Age of the oldest frame of a batch, s."""
    return max(request.age_s for request in requests)


def _limited(decision: StepDecision, limit: float, why: str) -> StepDecision:
    """Cut a decision to a limit."""
    if decision.num_inference_steps <= limit:
        return decision
    return StepDecision(int(limit), f'{decision.reason}; cut to {int(limit)} by {why}')
