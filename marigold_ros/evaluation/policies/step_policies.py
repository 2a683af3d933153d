"""The step policies that are compared: those of depth_node, and some for comparison only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.step_policy import StepPolicy
from marigold_ros.depth.types import StepDecision, StepRequest
from marigold_ros.evaluation.config import COMPLEXITY_POLICIES, fixed_steps, period


class EveryNth(StepPolicy):
    """
    Run one step on every N-th frame of a camera, whatever it shows, and carry depth between.

    Parameters
    ----------
    config : StepPolicyConfig
    period : int
        N.
    """

    def __init__(self, config: StepPolicyConfig, period: int) -> None:
        """Start with a run."""
        super().__init__(config)
        self._period = period
        self._since_run: Counter[str] = Counter()

    def choose_steps(self, request: StepRequest) -> StepDecision:
        """Choose 1 or 0 steps; see `StepPolicy.choose_steps`."""
        since_run = self._since_run[request.camera] + 1
        steps = int(not request.can_carry or since_run >= self._period)
        self._since_run[request.camera] = 0 if steps else since_run
        return StepDecision(steps, f'every-{self._period}')


class RandomSteps(StepPolicy):
    """Draw T uniformly from 0 to Tmax, or from 1 where there is nothing to carry."""

    def __init__(self, config: StepPolicyConfig) -> None:
        """Seed the draws."""
        super().__init__(config)
        self._draws = np.random.default_rng(0)

    def choose_steps(self, request: StepRequest) -> StepDecision:
        """Draw the number of steps; see `StepPolicy.choose_steps`."""
        return StepDecision(int(self._draws.integers(
            not request.can_carry, self.config.max_inference_steps, endpoint=True)), 'random')


class Oracle(StepPolicy):
    """
    Use the T with the lowest AbsRel on each frame, and of equal ones the smallest.

    Parameters
    ----------
    config : StepPolicyConfig
    abs_rel : callable
        Returns AbsRel of the current frame with T steps; NaN without truth.
    """

    def __init__(self, config: StepPolicyConfig, abs_rel: Callable[[int], float]) -> None:
        super().__init__(config)
        self._abs_rel = abs_rel

    def choose_steps(self, request: StepRequest) -> StepDecision:
        """Look at the truth; see `StepPolicy.choose_steps`."""
        candidates = range(not request.can_carry, self.config.max_inference_steps + 1)
        errors = np.array([self._abs_rel(steps) for steps in candidates])
        best = int(np.nanargmin(errors)) if np.isfinite(errors).any() else 0
        return StepDecision(candidates[best], 'oracle: lowest AbsRel')


def make_step_policy(name: str, max_inference_steps: int, latency_cap_s: float | None,
                     abs_rel: Callable[[int], float]) -> StepPolicy:
    """
    Create a step policy by its name.

    Parameters
    ----------
    name : str
        See `EvaluationConfig.policies`.
    max_inference_steps : int
        Tmax.
    latency_cap_s : float or None
        Not for fixed-N, which always runs N steps.
    abs_rel : callable
        See `Oracle`.
    """
    config = step_policy_config(name, max_inference_steps, latency_cap_s)
    every = period(name)
    if every:
        return EveryNth(config, every)
    if name == 'random':
        return RandomSteps(config)
    return Oracle(config, abs_rel) if name == 'oracle' else StepPolicy(config)


def step_policy_config(name: str, max_inference_steps: int,
                       latency_cap_s: float | None) -> StepPolicyConfig:
    """Return the node's settings for a policy, see `make_step_policy`."""
    steps = fixed_steps(name)
    if steps:
        return StepPolicyConfig('fixed', max_inference_steps=steps, latency_cap_s=None)
    return StepPolicyConfig('complexity' if name in COMPLEXITY_POLICIES else 'novelty',
                            max_inference_steps=max_inference_steps, latency_cap_s=latency_cap_s)
