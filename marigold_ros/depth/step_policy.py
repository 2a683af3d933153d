"""How many denoising steps a frame may have: T(C), the latency model and the cap.  No torch."""

from __future__ import annotations

from collections import defaultdict, deque
import math
from typing import Sequence

import numpy as np

from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.types import BatchTiming, StepDecision, StepRequest

# About 30 s of a 10 Hz camera: long enough to know the scene, short enough to follow it.
COMPLEXITY_WINDOW = 300
# The upper 95 % quantile of so few batches is their maximum: one slow batch is enough to react.
LATENCY_WINDOW = 20
# Between the 5 % and 95 % quantiles, relative to the latter, C must vary by more than this for the
# automatic line: what is less is the noise of the sensor in a scene that stands still.
MIN_COMPLEXITY_SPREAD = 0.05
# Part of the cap kept free for what the model cannot foresee, e.g. another process's time slice.
MARGIN_FRACTION = 0.05


class LatencyModel:
    """
    What a batch costs: a fixed part and a part per denoising step.

    Costs are remembered per padded resolution and batch size, the last `LATENCY_WINDOW` batches
    of each; old ones are forgotten.
    """

    def __init__(self) -> None:
        """Start knowing nothing."""
        self._batches: dict[tuple[tuple[int, int], int], deque[tuple[float, float]]] = (
            defaultdict(lambda: deque(maxlen=LATENCY_WINDOW)))

    def observe(self, timing: BatchTiming) -> None:
        """Remember one batch's (other_s, seconds per step)."""
        steps = max(timing.num_inference_steps)
        if steps > 0:
            key = (timing.resolution, len(timing.num_inference_steps))
            self._batches[key].append((timing.other_s, timing.denoise_s / steps))

    def estimate(self, resolution: tuple[int, int], batch_size: int) -> tuple[float, float] | None:
        """
        Estimate the 95 % quantiles of (other_s, step_s) for a batch.

        A batch size not seen yet at this resolution borrows the nearest one's cost, scaled up by
        the ratio of the sizes and never down: a batch may be cheaper than its frames one by one,
        but that must be seen first.  None if the resolution was never seen.
        """
        sizes = [size for seen, size in self._batches if seen == resolution]
        if not sizes:
            return None
        nearest = min(sizes, key=lambda size: abs(size - batch_size))
        costs = np.quantile(np.array(self._batches[resolution, nearest]), 0.95, axis=0,
                            method='higher')
        other_s, step_s = costs * max(1.0, batch_size / nearest)
        return float(other_s), float(step_s)


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
        self._complexities: dict[str, deque[float]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget the cameras' complexity statistics, as after a jump back in time."""
        self._complexities = defaultdict(lambda: deque(maxlen=COMPLEXITY_WINDOW))

    def observe(self, timing: BatchTiming) -> None:
        """Feed the latency model with what a batch has cost."""
        self.latency.observe(timing)

    def decide(self, requests: Sequence[StepRequest], *,
               resolution: tuple[int, int]) -> list[StepDecision]:
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
        cap, why_cap = self._steps_under_cap(requests, resolution)
        return [self._decide_one(request, cap, why_cap) for request in requests]

    def _decide_one(self, request: StepRequest, cap: float, why_cap: str) -> StepDecision:
        config = self.config
        wanted, reason = self._steps_wanted(request)
        if cap < config.min_inference_steps:
            if config.late_frames == 'skip':
                return StepDecision(0, f'late, skipped: {why_cap}')
            return StepDecision(config.min_inference_steps, f'late, run at Tmin: {why_cap}')
        if cap < wanted:
            return StepDecision(int(cap), f'{reason}; cut to {int(cap)} by the cap: {why_cap}')
        return StepDecision(wanted, reason)

    def _steps_wanted(self, request: StepRequest) -> tuple[int, str]:
        """T(C) = clip(round(Tmin + alpha (C - Cmin)), Tmin, Tmax), or Tmax if C is not asked."""
        config = self.config
        t_min, t_max = config.min_inference_steps, config.max_inference_steps
        if config.policy != 'complexity':
            return t_max, f'{config.policy}: Tmax = {t_max}'
        c_min, alpha = self._line(request)
        raw = t_min + alpha * (request.complexity - c_min)
        steps = min(max(math.floor(raw + 0.5), t_min), t_max)
        return steps, (f'complexity: T({request.complexity:.4g}) = {t_min} + {alpha:.4g} '
                       f'(C - {c_min:.4g}) -> {steps}')

    def _line(self, request: StepRequest) -> tuple[float, float]:
        """Return (Cmin, alpha), learned from the camera's frames where they are not given."""
        config = self.config
        seen = self._complexities[request.camera]
        seen.append(request.complexity)
        low, high = np.quantile(np.array(seen), (0.05, 0.95))
        c_min = float(low) if config.complexity_min is None else config.complexity_min
        if config.alpha is not None:
            return c_min, config.alpha
        spread = float(high) - c_min
        if spread <= MIN_COMPLEXITY_SPREAD * high:
            return c_min, 0.0
        return c_min, (config.max_inference_steps - config.min_inference_steps) / spread

    def _steps_under_cap(self, requests: Sequence[StepRequest],
                         resolution: tuple[int, int]) -> tuple[float, str]:
        """
        Return T_cap = floor((cap - age - other - margin) / step) and its derivation in words.

        The batch is published together, so its oldest frame rules.
        """
        cap_s = self.config.latency_cap_s
        cost = self.latency.estimate(resolution, len(requests))
        if cap_s is None or cost is None or not requests:
            return math.inf, 'no cap' if cap_s is None else 'cost not known yet'
        other_s, step_s = cost
        age_s = max(request.age_s for request in requests)
        margin_s = MARGIN_FRACTION * cap_s
        left_s = cap_s - age_s - other_s - margin_s
        steps = max(0, math.floor(left_s / step_s)) if step_s > 0.0 else math.inf
        return steps, (f'{1e3 * cap_s:.0f} ms - age {1e3 * age_s:.0f} - other {1e3 * other_s:.0f}'
                       f' - margin {1e3 * margin_s:.0f} at {1e3 * step_s:.0f} ms a step')
