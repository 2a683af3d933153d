"""
Frozen dataclasses that cross module borders, and the shape alphabet.

N images, E ensemble members, H W input, PH PW processing, PPH PPW padded, C latent channels,
h w latent.  Images are uint8 RGB, depths float32, durations seconds on the steady clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

RgbImage = NDArray[np.uint8]
FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class CheckpointInfo:
    """
    What a checkpoint says about itself.

    Attributes
    ----------
    name : str
        What the user asked for: the embedded name, a folder or a hub id.
    scheduler : str
        Class name of the diffusers scheduler.
    prediction_type : str
        'v_prediction', 'epsilon' or 'sample'.
    default_steps, max_useful_steps : int
        Denoising steps by default, and the number above which more change nothing for the better
        (1 for LCM and end-to-end models).
    initial_latent : {'gaussian', 'zeros'}
        What the depth latent starts from.
    processing_resolution : int
        Longest edge at which the model works, px; 0 keeps the input's size.
    vae_scale_factor : int
        Pixels per latent cell along one axis.
    """

    name: str
    scheduler: str
    prediction_type: str
    default_steps: int
    max_useful_steps: int
    initial_latent: Literal['gaussian', 'zeros']
    processing_resolution: int
    vae_scale_factor: int


@dataclass(frozen=True)
class StageTiming:
    """Seconds that the batch holding a frame spent in each stage, on the steady clock."""

    preprocess_s: float
    encode_s: float
    denoise_s: float
    decode_s: float
    postprocess_s: float

    @property
    def total_s(self) -> float:
        """Sum of the stages."""
        return (self.preprocess_s + self.encode_s + self.denoise_s + self.decode_s
                + self.postprocess_s)


@dataclass(frozen=True)
class DepthPrediction:
    """
    Depth of one frame.

    Attributes
    ----------
    affine_invariant_depth : float32 [H, W]
        In [0, 1], 0 near and 1 far, up to an unknown scale and shift; never metres.
    confidence : float32 [H, W] or None
        In [0, 1], 1 sure; ranks pixels by their likely error, and is no probability.
    uncertainty : float32 [H, W] or None
        Median absolute deviation of the ensemble's aligned members, same unit as the depth.
    latent : float32 tensor [E, C, h, w]
        The denoised depth latents, usable as `latents` of a later call.
    num_inference_steps : int
        Steps actually run.
    stopped_by : {'schedule', 'deadline'}
        Whether all its steps were run, or time was up.
    timing : StageTiming
        Of the batch that the frame was part of.
    """

    affine_invariant_depth: FloatImage
    confidence: FloatImage | None
    uncertainty: FloatImage | None
    latent: torch.Tensor
    num_inference_steps: int
    stopped_by: Literal['schedule', 'deadline']
    timing: StageTiming


@dataclass(frozen=True)
class StepRequest:
    """One frame asking for steps: its camera, its complexity C and its age since receipt."""

    camera: str
    complexity: float
    age_s: float


@dataclass(frozen=True)
class StepDecision:
    """Steps granted to a frame, 0 if it must be skipped, and the reason in words."""

    num_inference_steps: int
    reason: str


@dataclass(frozen=True)
class BatchTiming:
    """
    What one batch cost, for the latency model.

    Attributes
    ----------
    resolution : (int, int)
        Padded processing size (PPH, PPW).
    num_inference_steps : tuple of int
        Steps run, one per frame of the batch.
    before_s, denoise_s, after_s : float
        From the decision to the first denoising step; inside the denoising loop; from there to
        the last publication.
    """

    resolution: tuple[int, int]
    num_inference_steps: tuple[int, ...]
    before_s: float
    denoise_s: float
    after_s: float

    @classmethod
    def of(cls, resolution: tuple[int, int], num_inference_steps: Sequence[int],
           timing: StageTiming, *, elapsed_s: float | None = None) -> BatchTiming:
        """
        Sort an engine's stages.

        Parameters
        ----------
        resolution, num_inference_steps
            See the attributes.
        timing : StageTiming
            Of the batch.
        elapsed_s : float, optional
            From the decision to the last publication; what the stages do not cover of it counts
            as coming after them.
        """
        rest_s = 0.0 if elapsed_s is None else elapsed_s - timing.total_s
        return cls(resolution, tuple(num_inference_steps),
                   before_s=timing.preprocess_s + timing.encode_s, denoise_s=timing.denoise_s,
                   after_s=timing.decode_s + timing.postprocess_s + rest_s)
