"""Settings of the engine, the step policy and AdaptiveDepth, checked at construction."""

from __future__ import annotations

from dataclasses import dataclass, field
import math
import re

from marigold_ros.depth.errors import ConfigError

DTYPES = ('auto', 'float32', 'bfloat16', 'float16')
UPSAMPLING_METHODS = ('guided', 'bilinear')
STEP_POLICIES = ('novelty', 'complexity', 'fixed')
COMPLEXITY_MEASURES = ('entropy', 'gradient_energy')
MAX_INFERENCE_STEPS = 50


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """
    Check a setting.

    Raises
    ------
    ConfigError
        If `condition` is false; the message contains the name, the rule and the value.
    """
    if not condition:
        raise ConfigError(f'`{name}` must be {rule}; got {value!r}')


def one_of(choices: tuple[str, ...]) -> str:
    """Format the rule for a setting with a fixed set of values."""
    return 'one of ' + ', '.join(choices)


@dataclass(frozen=True)
class EngineConfig:
    """
    Settings of a `DepthEngine`.

    Attributes
    ----------
    checkpoint : str
        Embedded name ('tiny'), folder in diffusers' Marigold layout, or hub id.
    device : str
        'auto' (the first CUDA device, else the CPU with OpenVINO if it is installed), 'cpu' (with
        torch), 'cuda', 'cuda:<index>' or 'openvino:<DEVICE>' (CPU, or Intel's GPU or NPU).
    dtype : {'auto', 'float32', 'bfloat16', 'float16'}
        'auto' is bfloat16 if the device has it in hardware, else float16 on a GPU and float32 on
        the CPU; on Intel's GPUs and NPUs float16.
    processing_resolution : int or None
        Longest edge in px, a multiple of 8; 0 keeps the input's size, None uses the
        checkpoint's default.
    compile : bool
        Compile the networks with torch's Inductor: faster, the first start takes minutes.
    upsampling : {'guided', 'bilinear'}
        How depth is brought to the size of the image, see `upsampling.upsample_depth`.
    """

    checkpoint: str = 'tiny'
    device: str = 'auto'
    dtype: str = 'auto'
    processing_resolution: int | None = None
    compile: bool = False
    upsampling: str = 'guided'

    def __post_init__(self) -> None:
        """Check every value."""
        require(bool(self.checkpoint), 'checkpoint', 'a name, a folder or a hub id',
                self.checkpoint)
        device = re.fullmatch(r'auto|cpu|cuda(:\d+)?|openvino:[A-Z]+(\.\d+)?', self.device)
        require(device is not None, 'device', 'one of auto, cpu, cuda, cuda:<index>, '
                'openvino:CPU, openvino:GPU, openvino:NPU', self.device)
        require(self.dtype in DTYPES, 'dtype', one_of(DTYPES), self.dtype)
        resolution = self.processing_resolution
        require(resolution is None or (resolution >= 0 and resolution % 8 == 0),
                'processing_resolution', '0 (native) or a positive multiple of 8', resolution)
        require(self.upsampling in UPSAMPLING_METHODS, 'upsampling',
                one_of(UPSAMPLING_METHODS), self.upsampling)


@dataclass(frozen=True)
class StepPolicyConfig:
    """
    Settings of a `StepPolicy`.

    Attributes
    ----------
    policy : {'novelty', 'complexity', 'fixed'}
        'novelty' and 'complexity' run T(C) steps, where C is the share of the frame's complexity
        that is new, or the complexity of the whole frame; 'fixed' runs always Tmax.
    min_inference_steps, max_inference_steps : int
        Tmin and Tmax; with 0 steps depth is carried along.
    complexity_min, alpha : float or None
        Cmin and alpha of T(C) = Tmin + alpha (C - Cmin).  None is `NOVELTY_LINE` for the policy
        'novelty', and for 'complexity' estimates them from the camera's own frames (70 % and 95 %
        running quantiles of C).
    latency_cap_s : float or None
        Longest time from receipt to publication; None disables the cap.
    """

    policy: str = 'novelty'
    min_inference_steps: int = 0
    max_inference_steps: int = 4
    complexity_min: float | None = None
    alpha: float | None = None
    latency_cap_s: float | None = 0.2

    def __post_init__(self) -> None:
        """Check every value."""
        require(self.policy in STEP_POLICIES, 'step_policy', one_of(STEP_POLICIES), self.policy)
        for name, least in (('min_inference_steps', 0), ('max_inference_steps', 1)):
            require(least <= getattr(self, name) <= MAX_INFERENCE_STEPS, name,
                    f'between {least} and {MAX_INFERENCE_STEPS}', getattr(self, name))
        require(self.min_inference_steps <= self.max_inference_steps, 'min_inference_steps',
                f'at most max_inference_steps ({self.max_inference_steps})',
                self.min_inference_steps)
        for name in ('complexity_min', 'alpha'):
            value = getattr(self, name)
            require(value is None or (math.isfinite(value) and value >= 0.0), name,
                    'a finite number of at least 0, or None (auto)', value)
        require(self.latency_cap_s is None or self.latency_cap_s > 0.0, 'latency_cap_s',
                'positive, or None (no cap)', self.latency_cap_s)


@dataclass(frozen=True)
class AdaptiveConfig:
    """
    Configuration of AdaptiveDepth.

    Attributes
    ----------
    step_policy : StepPolicyConfig
    complexity_measure : {'entropy', 'gradient_energy'}
        Measure of C.
    ensemble_size : int
        E, members of every prediction.
    max_carry_s : float
        Longest time for which depth is carried, although nothing is new; but at least twice the
        time that runs take.  Older depth is stale.
    """

    step_policy: StepPolicyConfig = field(default_factory=StepPolicyConfig)
    complexity_measure: str = 'entropy'
    ensemble_size: int = 1
    max_carry_s: float = 2.0

    def __post_init__(self) -> None:
        """Check every value."""
        require(self.complexity_measure in COMPLEXITY_MEASURES, 'complexity_measure',
                one_of(COMPLEXITY_MEASURES), self.complexity_measure)
        require(self.ensemble_size >= 1, 'ensemble_size', 'at least 1', self.ensemble_size)
        require(self.max_carry_s > 0.0, 'max_carry_s', 'positive', self.max_carry_s)
