"""Settings of an evaluation, validated when they are created."""

from __future__ import annotations

from dataclasses import dataclass
import re
from typing import Literal

from marigold_ros.depth.complexity import MEASURES
from marigold_ros.depth.config import MAX_INFERENCE_STEPS, require, StepPolicyConfig

COMPLEXITY_POLICIES = {f'complexity-{measure}': measure for measure in MEASURES}
# For comparison only, and not live: a robot does not know the truth, nor should it gamble.
OFFLINE_POLICIES = ('random', 'oracle')
NAMED_POLICIES = ('novelty', *COMPLEXITY_POLICIES, *OFFLINE_POLICIES)
SINGLE_FRAME_POLICIES = (*COMPLEXITY_POLICIES, 'fixed-1', *OFFLINE_POLICIES)
SEQUENCE_POLICIES = ('novelty', *SINGLE_FRAME_POLICIES)
POLICY_RULE = f'one of {", ".join(NAMED_POLICIES)}, every-N or fixed-N'
MAX_PERIOD = 99
PROTOCOLS = ('A', 'B')


@dataclass(frozen=True)
class EvaluationConfig:
    """
    Settings of an evaluation.

    Attributes
    ----------
    policies : tuple of str
        Step policies; the first is the primary one, which the verdict is about.
        'novelty' and 'complexity-<measure>' are those of depth_node; 'fixed-N' always runs N
        steps.  For comparison only: 'every-N' runs one step on every N-th frame; 'random' draws T
        uniformly; 'oracle' uses the T with the lowest AbsRel on each frame.  With T = 0 depth is
        carried, which single frames never allow.
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

    policies: tuple[str, ...] = SEQUENCE_POLICIES
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
            require(name in NAMED_POLICIES or bool(fixed_steps(name) or period(name)), 'policies',
                    POLICY_RULE, name)
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
    return _number('fixed', name, MAX_INFERENCE_STEPS)


def period(name: str) -> int | None:
    """Return N of 'every-N', 1 to 99; None for any other name."""
    return _number('every', name, MAX_PERIOD)


def _number(prefix: str, name: str, largest: int) -> int | None:
    match = re.fullmatch(prefix + r'-([1-9]\d?)', name)
    number = int(match[1]) if match else 0
    return number if 1 <= number <= largest else None
