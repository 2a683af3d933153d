"""Settings of an evaluation, validated when they are created."""

from __future__ import annotations

from dataclasses import dataclass, replace
import re
from typing import Literal

from marigold_ros.depth.complexity import MEASURES
from marigold_ros.depth.config import MAX_INFERENCE_STEPS, require, StepPolicyConfig

COMPLEXITY_POLICIES = {f'complexity-{measure}': measure for measure in MEASURES}
# For comparison only; they cannot run live.
OFFLINE_POLICIES = ('random', 'oracle')
DEFAULT_POLICIES = (*COMPLEXITY_POLICIES, 'fixed-1', *OFFLINE_POLICIES)
POLICY_RULE = f'one of {", ".join((*COMPLEXITY_POLICIES, *OFFLINE_POLICIES))} or fixed-N'
PROTOCOLS = ('A', 'B')


@dataclass(frozen=True)
class EvaluationConfig:
    """
    Settings of an evaluation.

    Attributes
    ----------
    policies : tuple of str
        Step policies; the first is the primary one, which the verdict is about.
        'complexity-<measure>' is that of depth_node, but with at least one step; 'fixed-N' always
        runs N steps; 'random' draws T uniformly from 1 .. Tmax; 'oracle' uses the T with the
        lowest AbsRel on each frame.
    checkpoint : str
        Embedded name, folder or hub id.
    ensemble_size : int
        E.
    processing_resolution : int or None
        Longest edge, px; 0 keeps the image's size, None uses the checkpoint's default.
    latency_cap_s : float or None
        As in depth_node; None sets no cap.
    protocol : {'A', 'B'}
        See `metrics.protocols`.
    max_frames : int or None
        Evaluate only the first frames.
    """

    policies: tuple[str, ...] = DEFAULT_POLICIES
    checkpoint: str = 'tiny'
    ensemble_size: int = 1
    processing_resolution: int | None = None
    latency_cap_s: float | None = StepPolicyConfig.latency_cap_s
    protocol: Literal['A', 'B'] = 'A'
    max_frames: int | None = None

    def __post_init__(self) -> None:
        """Validate all settings."""
        require(len(self.policies) > 0, 'policies', 'at least one name', self.policies)
        for name in self.policies:
            require(name in (*COMPLEXITY_POLICIES, *OFFLINE_POLICIES)
                    or fixed_steps(name) is not None, 'policies', POLICY_RULE, name)
        require(len(set(self.policies)) == len(self.policies), 'policies',
                'different names', ','.join(self.policies))
        require(self.ensemble_size >= 1, 'ensemble_size', 'at least 1', self.ensemble_size)
        require(self.latency_cap_s is None or self.latency_cap_s > 0, 'latency_cap_s',
                'positive, or None (no cap)', self.latency_cap_s)
        require(self.protocol in PROTOCOLS, 'protocol', 'A or B', self.protocol)
        require(self.max_frames is None or self.max_frames >= 1, 'max_frames', 'at least 1',
                self.max_frames)

    @property
    def needs_all_steps(self) -> bool:
        """Check whether a policy needs runs of each frame with every T."""
        return any(fixed_steps(name) is None for name in self.policies)


def fixed_name(num_inference_steps: int) -> str:
    """Return the name of the policy that always runs T steps."""
    return f'fixed-{num_inference_steps}'


def fixed_steps(name: str) -> int | None:
    """Return N of 'fixed-N', 1 to 50; None for any other name."""
    match = re.fullmatch(r'fixed-([1-9]\d?)', name)
    steps = int(match[1]) if match else 0
    return steps if 1 <= steps <= MAX_INFERENCE_STEPS else None


def step_policy_config(name: str, max_inference_steps: int,
                       latency_cap_s: float | None) -> StepPolicyConfig:
    """
    Return the settings of the node's step policy for a policy name.

    Parameters
    ----------
    name : str
        One of `EvaluationConfig.policies`; fixed-N always runs N steps, without a latency cap.
    max_inference_steps : int
        Tmax.
    latency_cap_s : float or None

    Returns
    -------
    StepPolicyConfig
        For random and oracle, the policy 'fixed', which limits their T to the cap.
    """
    policy = 'fixed' if name in OFFLINE_POLICIES else name.partition('-')[0]
    fixed = fixed_steps(name)
    return replace(StepPolicyConfig(), policy=policy, min_inference_steps=1,
                   max_inference_steps=fixed or max_inference_steps,
                   latency_cap_s=None if fixed else latency_cap_s)
