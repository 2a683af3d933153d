"""What an evaluation is asked for; every rule is checked when the settings are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
import re
from typing import Literal

from marigold_ros.depth.complexity import MEASURES
from marigold_ros.depth.config import MAX_INFERENCE_STEPS, require, StepPolicyConfig

COMPLEXITY_POLICIES = {f'complexity-{measure}': measure for measure in MEASURES}
# They need every T of a frame, or its truth, so that they cannot run live.
REFERENCE_POLICIES = ('random', 'oracle')
DEFAULT_POLICIES = (*COMPLEXITY_POLICIES, 'fixed-1', *REFERENCE_POLICIES)
POLICY_RULE = f'one of {", ".join((*COMPLEXITY_POLICIES, *REFERENCE_POLICIES))} or fixed-N'
PROTOCOLS = ('A', 'B')


@dataclass(frozen=True)
class EvaluationConfig:
    """
    Everything that the numbers depend on, besides the frames and the costs of this machine.

    Attributes
    ----------
    policies : tuple of str
        The first is the one that the verdict judges.  'complexity-<measure>' is
        depth_node's; 'fixed-N' always runs N steps; 'random' draws T uniformly from 1 .. Tmax;
        'oracle' takes the T with the least AbsRel on each frame.
    checkpoint : str
        Embedded name, folder or hub id.
    ensemble_size : int
        E.
    processing_resolution : int or None
        Longest edge, px; 0 keeps the image's size, None asks the checkpoint.
    latency_cap_s : float or None
        As depth_node's; None sets no cap.
    protocol : {'A', 'B'}
        See `metrics.protocols`.
    max_frames : int or None
        Only the first so many.
    """

    policies: tuple[str, ...] = DEFAULT_POLICIES
    checkpoint: str = 'tiny'
    ensemble_size: int = 1
    processing_resolution: int | None = None
    latency_cap_s: float | None = StepPolicyConfig.latency_cap_s
    protocol: Literal['A', 'B'] = 'A'
    max_frames: int | None = None

    def __post_init__(self) -> None:
        """Check every rule."""
        require(len(self.policies) > 0, 'policies', 'at least one name', self.policies)
        for name in self.policies:
            require(name in (*COMPLEXITY_POLICIES, *REFERENCE_POLICIES)
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
    def chooses(self) -> bool:
        """Whether a policy among them needs to know more than one T of each frame."""
        return any(fixed_steps(name) is None for name in self.policies)


def fixed_name(num_inference_steps: int) -> str:
    """Name the policy that always runs T steps."""
    return f'fixed-{num_inference_steps}'


def fixed_steps(name: str) -> int | None:
    """Return N of 'fixed-N', 1 to 50; None of any other name."""
    match = re.fullmatch(r'fixed-([1-9]\d?)', name)
    steps = int(match[1]) if match else 0
    return steps if 1 <= steps <= MAX_INFERENCE_STEPS else None


def step_policy_config(name: str, max_inference_steps: int,
                       latency_cap_s: float | None) -> StepPolicyConfig:
    """
    Set up the node's step policy as a policy of this name.

    Parameters
    ----------
    name : str
        Of `EvaluationConfig.policies`; fixed-N has its own Tmax, and no cap: it always runs N.
    max_inference_steps : int
        Tmax.
    latency_cap_s : float or None

    Returns
    -------
    StepPolicyConfig
        'fixed' for random and oracle, whose T is then cut to what is granted.
    """
    policy = 'fixed' if name in REFERENCE_POLICIES else name.partition('-')[0]
    fixed = fixed_steps(name)
    return replace(StepPolicyConfig(), policy=policy,
                   max_inference_steps=fixed or max_inference_steps,
                   latency_cap_s=None if fixed else latency_cap_s)
