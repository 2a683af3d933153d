"""Settings of the engine and of the step policy; every rule is checked when one is made."""

from __future__ import annotations

from dataclasses import dataclass
import math
import re

from marigold_ros.depth.errors import ConfigError

DTYPES = ('auto', 'float32', 'bfloat16', 'float16')
STEP_POLICIES = ('complexity', 'fixed')
COMPLEXITY_MEASURES = ('gradient_energy', 'entropy')
LATE_FRAMES = ('run', 'skip')
MAX_INFERENCE_STEPS = 50


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """
    Raise a ConfigError that names the setting, the rule and the value, unless the rule holds.

    Raises
    ------
    ConfigError
        If `condition` is false.
    """
    if not condition:
        raise ConfigError(f'`{name}` must be {rule}; got {value!r}')


def one_of(choices: tuple[str, ...]) -> str:
    return 'one of ' + ', '.join(choices)


@dataclass(frozen=True)
class EngineConfig:
    """
    How a checkpoint is loaded and run.

    Attributes
    ----------
    checkpoint : str
        Embedded name ('tiny'), folder in diffusers' Marigold layout, or hub id.
    device : str
        'auto' takes the first CUDA device, else the CPU; 'cpu', 'cuda' or 'cuda:<index>'.
    dtype : {'auto', 'float32', 'bfloat16', 'float16'}
        'auto' takes bfloat16 where the device multiplies it natively, else float16 on a GPU and
        float32 on the CPU.
    processing_resolution : int or None
        Longest edge in px, a multiple of 8; 0 keeps the input's size, None asks the checkpoint.
    compile : bool
        Compile the networks with torch.compile: minutes of start-up for faster steps.
    """

    checkpoint: str = 'tiny'
    device: str = 'auto'
    dtype: str = 'auto'
    processing_resolution: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        """Check every rule."""
        require(bool(self.checkpoint), 'checkpoint', 'a name, a folder or a hub id',
                self.checkpoint)
        require(re.fullmatch(r'auto|cpu|cuda(:\d+)?', self.device) is not None, 'device',
                'one of auto, cpu, cuda, cuda:<index>', self.device)
        require(self.dtype in DTYPES, 'dtype', one_of(DTYPES), self.dtype)
        resolution = self.processing_resolution
        require(resolution is None or (resolution >= 0 and resolution % 8 == 0),
                'processing_resolution', '0 (native) or a positive multiple of 8', resolution)


@dataclass(frozen=True)
class StepPolicyConfig:
    """
    How many denoising steps a frame may have.

    Attributes
    ----------
    policy : {'complexity', 'fixed'}
        T(C), or always Tmax.
    min_inference_steps, max_inference_steps : int
        Tmin and Tmax.
    complexity_min, alpha : float or None
        Cmin and alpha of T(C) = Tmin + alpha (C - Cmin); None learns them from the camera's
        own frames (70 % and 95 % running quantiles of C).
    latency_cap_s : float or None
        Longest time from receipt to publication; None sets no cap.
    late_frames : {'run', 'skip'}
        What becomes of a frame for which not even Tmin fits under the cap.
    """

    policy: str = 'complexity'
    min_inference_steps: int = 1
    max_inference_steps: int = 4
    complexity_min: float | None = None
    alpha: float | None = None
    latency_cap_s: float | None = 0.2
    late_frames: str = 'run'

    def __post_init__(self) -> None:
        """Check every rule."""
        require(self.policy in STEP_POLICIES, 'step_policy', one_of(STEP_POLICIES), self.policy)
        require(self.late_frames in LATE_FRAMES, 'late_frames', one_of(LATE_FRAMES),
                self.late_frames)
        for name in ('min_inference_steps', 'max_inference_steps'):
            require(1 <= getattr(self, name) <= MAX_INFERENCE_STEPS, name,
                    f'between 1 and {MAX_INFERENCE_STEPS}', getattr(self, name))
        require(self.min_inference_steps <= self.max_inference_steps, 'min_inference_steps',
                f'at most max_inference_steps ({self.max_inference_steps})',
                self.min_inference_steps)
        for name in ('complexity_min', 'alpha'):
            value = getattr(self, name)
            require(value is None or (math.isfinite(value) and value >= 0.0), name,
                    'a finite number of at least 0, or None (auto)', value)
        require(self.latency_cap_s is None or self.latency_cap_s > 0.0, 'latency_cap_s',
                'positive, or None (no cap)', self.latency_cap_s)
