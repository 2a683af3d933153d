"""
Frozen dataclasses shared between modules, and the letters used for array shapes.

N images, E ensemble members, H W input, PH PW processing, PPH PPW padded, C latent channels,
h w latent.  Images are uint8 RGB, depths float32, durations seconds on the steady clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

RgbImage = NDArray[np.uint8]
GreyImage = NDArray[np.uint8]
FloatImage = NDArray[np.float32]
Mask = NDArray[np.bool_]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class CheckpointInfo:
    """
    Properties of a checkpoint.

    Attributes
    ----------
    name : str
        As requested: the embedded name, a folder or a hub id.
    scheduler : str
        Class name of the diffusers scheduler.
    prediction_type : str
        'v_prediction', 'epsilon' or 'sample'.
    default_steps, max_useful_steps : int
        Default number of denoising steps, and the number above which more steps do not improve
        the depth (1 for LCM and end-to-end models).
    initial_latent : {'gaussian', 'zeros'}
        Initial value of the depth latent.
    processing_resolution : int
        Longest edge of the model's input, px; 0 keeps the input's size.
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
    """Duration of each stage of the batch that contained a frame, on the steady clock."""

    preprocess_s: float
    encode_s: float
    denoise_s: float
    decode_s: float
    postprocess_s: float

    @property
    def total_s(self) -> float:
        """Return the sum of all stages, s."""
        return (self.preprocess_s + self.encode_s + self.denoise_s + self.decode_s
                + self.postprocess_s)


@dataclass(frozen=True)
class DepthPrediction:
    """
    Depth of one frame; before upsampling the maps are [PH, PW].

    Attributes
    ----------
    affine_invariant_depth : float32 [H, W]
        Relative depth in [0, 1], 0 near and 1 far, up to an unknown scale and shift.  Depth that
        is carried keeps the scale and shift of its run, and may leave [0, 1].
    confidence : float32 [H, W] or None
        In [0, 1], 1 most reliable; ranks pixels by their expected error, not a probability.
    uncertainty : float32 [H, W] or None
        Median absolute deviation of the aligned ensemble members, in the unit of the depth.
    latent : float32 tensor [E, C, h, w] or None
        The denoised depth latents, usable as `latents` of a later call; None if depth is carried.
    num_inference_steps : int
        Steps actually run; 0 if depth is carried.
    stopped_by : {'schedule', 'deadline'}
        Whether denoising ended with the schedule or at the deadline.
    timing : StageTiming
        Of the batch that contained the frame; zeros if depth is carried.
    covered : bool [H, W] or None
        Pixels that carried depth covers; the others have the depth of neighbours and confidence 0.
        None for depth of the networks, which covers all.
    """

    affine_invariant_depth: FloatImage
    confidence: FloatImage | None
    uncertainty: FloatImage | None
    latent: torch.Tensor | None
    num_inference_steps: int
    stopped_by: Literal['schedule', 'deadline']
    timing: StageTiming
    covered: Mask | None = None

    @property
    def known_depth(self) -> FloatImage:
        """Return the depth, NaN where carried depth does not cover the image; float32 [H, W]."""
        return (self.affine_invariant_depth if self.covered is None
                else np.where(self.covered, self.affine_invariant_depth, np.float32(np.nan)))

    @property
    def covered_share(self) -> float:
        """Return the share of the image that the depth covers."""
        covered = self.covered
        return 1.0 if covered is None else np.count_nonzero(covered) / covered.size


@dataclass(frozen=True)
class GaugeChange:
    """
    How relative depth differs between two runs, each of which has its own scale and shift.

    Attributes
    ----------
    factor, offset : float
        New relative depth is factor * old relative depth + offset; the factor is above 0.
    """

    factor: float
    offset: float

    def after(self, earlier: GaugeChange) -> GaugeChange:
        """Return the change from before an earlier one to after this one."""
        return GaugeChange(self.factor * earlier.factor,
                           self.factor * earlier.offset + self.offset)

    def rescale(self, scale: float, shift: float) -> tuple[float, float]:
        """Return scale and shift of the new relative depth that keep its metric depth."""
        return scale / self.factor, shift - scale * self.offset / self.factor


@dataclass(frozen=True)
class StepRequest:
    """
    Input of the step policy for one frame.

    Attributes
    ----------
    camera : str
    complexity : float
        C.
    age_s : float
        Time since receipt.
    can_carry : bool
        Whether there is depth that could be carried into the frame.
    run_reason : str
        Why the networks have to run whatever C is; '' if they need not.
    """

    camera: str
    complexity: float
    age_s: float
    can_carry: bool = False
    run_reason: str = ''


@dataclass(frozen=True)
class StepDecision:
    """Number of steps of a frame, 0 if depth is carried, and the reason as text."""

    num_inference_steps: int
    reason: str


@dataclass(frozen=True)
class BatchTiming:
    """
    Measured duration of one batch, for the latency model.

    Attributes
    ----------
    padded_size : (int, int)
        Padded processing size (PPH, PPW).
    num_inference_steps : tuple of int
        Steps run, one per frame of the batch.
    before_s, denoise_s, after_s : float
        From the decision to the first denoising step; of the denoising loop; from its end to the
        last publication.
    """

    padded_size: tuple[int, int]
    num_inference_steps: tuple[int, ...]
    before_s: float
    denoise_s: float
    after_s: float

    @classmethod
    def from_stages(cls, padded_size: tuple[int, int], num_inference_steps: Sequence[int],
                    timing: StageTiming, *, elapsed_s: float | None = None) -> BatchTiming:
        """
        Combine the stages of an engine's batch.

        Parameters
        ----------
        padded_size, num_inference_steps
            See the attributes.
        timing : StageTiming
            Of the batch.
        elapsed_s : float, optional
            From the decision to the last publication; the part that no stage covers is added to
            `after_s`.
        """
        rest_s = 0.0 if elapsed_s is None else elapsed_s - timing.total_s
        return cls(padded_size, tuple(num_inference_steps),
                   before_s=timing.preprocess_s + timing.encode_s, denoise_s=timing.denoise_s,
                   after_s=timing.decode_s + timing.postprocess_s + rest_s)


@dataclass(frozen=True)
class FrameDecision:
    """
    The decision on a frame's number of steps, with its inputs.

    Attributes
    ----------
    complexity : float
        C.
    age_s : float
        Time from receipt to the decision.
    decided_steps : int
        Number of steps T of the decision, 0 if no run is needed; the deadline may have ended
        denoising earlier.
    reason : str
        Reason of the decision and, if denoising ended early, of that.
    complexity_s : float
        Time that flow and C took.
    carried_s : float
        Time since the frame of the run whose depth this is; 0 if it is the same frame.
    stale : bool
        Whether the depth is carried for longer than is allowed.
    """

    complexity: float
    age_s: float
    decided_steps: int
    reason: str
    complexity_s: float
    carried_s: float = 0.0
    stale: bool = False


@dataclass(frozen=True, eq=False)
class Flow:
    """
    The optical flow between two frames of a camera, as carrying has it.

    Attributes
    ----------
    since_ns : int
        Stamp of the earlier frame, ns.
    source : float32 [h, w, 2]
        Column and row where each pixel of the later frame was in the earlier one, both reduced as
        `complexity.reduce_to_grey` does, px.
    """

    since_ns: int
    source: FloatImage


@dataclass(frozen=True)
class AdaptivePrediction(DepthPrediction):
    """
    A `DepthPrediction` with the decision on its number of steps.

    The first frame that has the depth of a run has its `num_inference_steps`, `latent`, `timing`
    and `decision`, also if that depth has been moved along from an earlier frame.

    Attributes
    ----------
    decision : FrameDecision
    gauge_change : GaugeChange or None
        Of a run, how its relative depth differs from that which was carried so far.  None if
        depth is carried, as it keeps the scale and shift of its run, and if nothing was carried or
        the two cannot be compared.
    flow : Flow or None
        Since the last frame that came, also if that has got no depth; None after a cut or pause.
    """

    decision: FrameDecision = field(kw_only=True)
    gauge_change: GaugeChange | None = field(default=None, kw_only=True)
    flow: Flow | None = field(default=None, kw_only=True)
