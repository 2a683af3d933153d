"""AdaptiveDepth: decide the steps of frames, infer their depth and observe the latency."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
import time
from typing import TYPE_CHECKING

from marigold_ros.depth.complexity import MEASURES
from marigold_ros.depth.config import COMPLEXITY_MEASURES, one_of, require, StepPolicyConfig
from marigold_ros.depth.step_policy import LatencyModel, StepPolicy
from marigold_ros.depth.types import (
    BatchTiming,
    DepthPrediction,
    RgbImage,
    StageTiming,
    StepRequest,
)

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine


@dataclass(frozen=True, eq=False)
class Frame:
    """
    An image of a camera.

    Attributes
    ----------
    camera : str
    rgb : uint8 [H, W, 3]
    stamp_ns : int
        Acquisition time, ns, on the clock of the message stamps.
    received_s : float
        Time of receipt, s, on `time.monotonic`; the frame's age is measured from it.
    """

    camera: str
    rgb: RgbImage
    stamp_ns: int
    received_s: float


@dataclass(frozen=True)
class AdaptiveConfig:
    """
    Configuration of AdaptiveDepth.

    Attributes
    ----------
    step_policy : StepPolicyConfig
    complexity_measure : {'gradient_energy', 'entropy'}
        Measure of C.
    ensemble_size : int
        E, members of every prediction.
    """

    step_policy: StepPolicyConfig = field(default_factory=StepPolicyConfig)
    complexity_measure: str = 'gradient_energy'
    ensemble_size: int = 1

    def __post_init__(self) -> None:
        """Check every value."""
        require(self.complexity_measure in COMPLEXITY_MEASURES, 'complexity_measure',
                one_of(COMPLEXITY_MEASURES), self.complexity_measure)
        require(self.ensemble_size >= 1, 'ensemble_size', 'at least 1', self.ensemble_size)


@dataclass(frozen=True)
class FrameDecision:
    """
    The decision on a frame's number of steps, with its inputs.

    Attributes
    ----------
    complexity : float
        C of the frame.
    age_s : float
        Time from receipt to the decision.
    decided_steps : int
        Number of steps T of the decision; the deadline may have ended denoising earlier.
    reason : str
        Reason of the decision and, if denoising ended early, of that.
    complexity_s : float
        Time that measuring C took.
    """

    complexity: float
    age_s: float
    decided_steps: int
    reason: str
    complexity_s: float


@dataclass(frozen=True)
class AdaptivePrediction(DepthPrediction):
    """A `DepthPrediction` with the decision on its number of steps."""

    decision: FrameDecision


@dataclass(frozen=True)
class SkippedFrame:
    """A frame skipped by the step policy because Tmin steps exceed the latency cap."""

    decision: FrameDecision


@dataclass(frozen=True)
class _UnobservedBatch:
    """A finished batch not yet passed to the policy; `decided_s` on `time.monotonic`."""

    padded_size: tuple[int, int]
    num_inference_steps: tuple[int, ...]
    timing: StageTiming
    decided_s: float


class AdaptiveDepth:
    """
    Infer the depth of one or several cameras with an adaptive number of steps.

    Not thread-safe.

    Parameters
    ----------
    engine : DepthEngine
    config : AdaptiveConfig
    cameras : sequence of str
        A camera's index here is the seed of its initial noise; a camera that is not listed has
        seed 0.

    Examples
    --------
    >>> import numpy as np
    >>> from marigold_ros.depth.engine import DepthEngine
    >>> adaptive = AdaptiveDepth(DepthEngine.load(device='cpu'), AdaptiveConfig())
    >>> rgb = np.zeros((48, 64, 3), np.uint8)
    >>> frame = Frame('front', rgb, stamp_ns=0, received_s=time.monotonic())
    >>> prediction, = adaptive.process([frame])
    >>> prediction.affine_invariant_depth.shape, prediction.num_inference_steps
    ((48, 64), 1)
    >>> adaptive.observe(published_s=time.monotonic())  # once the depth is published
    """

    def __init__(self, engine: DepthEngine, config: AdaptiveConfig,
                 cameras: Sequence[str] = ()) -> None:
        """Start without statistics."""
        self.engine, self._config = engine, config
        self.policy = StepPolicy(config.step_policy)
        self._seeds = {camera: seed for seed, camera in enumerate(cameras)}
        self._unobserved: list[_UnobservedBatch] = []

    def warm_up(self, sizes: Sequence[tuple[int, int]], batch_sizes: Sequence[int]) -> None:
        """Warm up the engine for images of these sizes (H, W) and observe their latency."""
        for timing in self.engine.warm_up(sizes, batch_sizes,
                                          self._config.step_policy.max_inference_steps,
                                          ensemble_size=self._config.ensemble_size):
            self.policy.observe(timing)

    def configure(self, config: AdaptiveConfig) -> None:
        """Set the configuration; keep the statistics that it does not invalidate."""
        before, self._config = self._config, config
        self.policy.config = config.step_policy
        if config.complexity_measure != before.complexity_measure:
            self.policy.reset()
        if config.ensemble_size != before.ensemble_size:
            self.policy.latency = LatencyModel()

    def reset(self) -> None:
        """Discard the statistics of C, for example after a jump back in time."""
        self.policy.reset()

    def process(self, frames: Sequence[Frame]) -> list[AdaptivePrediction | SkippedFrame]:
        """
        Infer the depth of each frame; frames of one padded size form one batch.

        Parameters
        ----------
        frames : sequence of Frame
            The newest frame of each camera, of any size.  Batches run one after the other.

        Returns
        -------
        list of AdaptivePrediction or SkippedFrame
            In the order of `frames`; frames are skipped only if `late_frames` is 'skip'.

        Raises
        ------
        InputError, OutOfMemoryError
            See `DepthEngine.infer_batch`.
        """
        self.observe(published_s=None)
        by_size: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for i, frame in enumerate(frames):
            by_size[self.engine.padded_size(*frame.rgb.shape[:2])].append(i)
        results: dict[int, AdaptivePrediction | SkippedFrame] = {}
        for size, indices in by_size.items():
            results.update(zip(
                indices, self._process_one_size(size, [frames[i] for i in indices])))
        return [results[i] for i in range(len(frames))]

    def observe(self, published_s: float | None) -> None:
        """
        Update the latency model with the batches of the last `process`.

        Parameters
        ----------
        published_s : float or None
            Time of the last publication, s on `time.monotonic`, so that the time after inference
            is included.  With None, or without a call, only inference is included.
        """
        for batch in self._unobserved:
            self.policy.observe(BatchTiming.from_stages(
                batch.padded_size, batch.num_inference_steps, batch.timing,
                elapsed_s=None if published_s is None else published_s - batch.decided_s))
        self._unobserved = []

    def _process_one_size(self, padded_size: tuple[int, int],
                          frames: Sequence[Frame]) -> list[AdaptivePrediction | SkippedFrame]:
        # 1. Measure the complexity of each frame.
        complexities, seconds = zip(*(self._measure_complexity(frame.rgb) for frame in frames))

        # 2. Decide the steps; ages include the time of step 1.
        decided_s = time.monotonic()
        requests = [StepRequest(frame.camera, complexity, decided_s - frame.received_s)
                    for frame, complexity in zip(frames, complexities)]
        step_decisions = self.policy.decide(requests, padded_size=padded_size)
        decisions = [FrameDecision(request.complexity, request.age_s, steps.num_inference_steps,
                                   steps.reason, complexity_s)
                     for request, steps, complexity_s in zip(requests, step_decisions, seconds)]

        # 3. Infer the frames that are not skipped as one ragged batch.
        inferred = [i for i, decision in enumerate(decisions) if decision.decided_steps]
        predictions = self._infer_batch(
            [frames[i] for i in inferred], [decisions[i].decided_steps for i in inferred],
            self.policy.deadline_s(requests, padded_size=padded_size))
        if inferred:
            self._unobserved.append(_UnobservedBatch(
                padded_size, tuple(each.num_inference_steps for each in predictions),
                predictions[0].timing, decided_s))
        results: list[AdaptivePrediction | SkippedFrame] = [
            SkippedFrame(decision) for decision in decisions]
        for i, prediction in zip(inferred, predictions):
            results[i] = _add_decision(prediction, decisions[i])
        return results

    def _measure_complexity(self, rgb: RgbImage) -> tuple[float, float]:
        """Return C and the time that measuring it took, s."""
        started_s = time.perf_counter()
        complexity = MEASURES[self._config.complexity_measure](rgb)
        return complexity, time.perf_counter() - started_s

    def _infer_batch(self, frames: Sequence[Frame], num_inference_steps: Sequence[int],
                     deadline_s: float | None) -> list[DepthPrediction]:
        """Infer a batch with the seed of each camera."""
        return self.engine.infer_batch(
            [frame.rgb for frame in frames], num_inference_steps,
            seed=[self._seeds.get(frame.camera, 0) for frame in frames],
            ensemble_size=self._config.ensemble_size, deadline_s=deadline_s)


def _add_decision(prediction: DepthPrediction, decision: FrameDecision) -> AdaptivePrediction:
    """Combine a prediction and its decision; add the deadline to the reason if it was reached."""
    if prediction.stopped_by == 'deadline':
        decision = replace(decision, reason=f'{decision.reason}; stopped after '
                                            f'{prediction.num_inference_steps} by the deadline')
    return AdaptivePrediction(**vars(prediction), decision=decision)
