"""AdaptiveDepth: decide the steps of frames, infer or carry their depth, observe the latency."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
import sys
import time
from typing import TYPE_CHECKING

from marigold_ros.depth.camera_depth import CameraDepth
from marigold_ros.depth.camera_depth import Frame as Frame
from marigold_ros.depth.carry import CarriedDepth
from marigold_ros.depth.complexity import complexity_share, measure_complexity, reduce_to_grey
from marigold_ros.depth.config import COMPLEXITY_MEASURES, one_of, require, StepPolicyConfig
from marigold_ros.depth.step_policy import LatencyModel, StepPolicy
from marigold_ros.depth.types import (
    BatchTiming,
    DepthPrediction,
    GaugeChange,
    StageTiming,
    StepRequest,
)

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine


# Share of changed pixels in a small window from which on the networks run.
MAX_LOCAL_CHANGE = 0.65


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
        Longest time for which depth is carried although nothing is new.
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
        Number of steps T of the decision, 0 if depth is carried; the deadline may have ended
        denoising earlier.
    reason : str
        Reason of the decision and, if denoising ended early, of that.
    complexity_s : float
        Time that flow and C took.
    carried_s : float
        Time since the run whose depth is carried; 0 for a run.
    """

    complexity: float
    age_s: float
    decided_steps: int
    reason: str
    complexity_s: float
    carried_s: float = 0.0


@dataclass(frozen=True)
class AdaptivePrediction(DepthPrediction):
    """
    A `DepthPrediction` with the decision on its number of steps.

    Attributes
    ----------
    decision : FrameDecision
    gauge_change : GaugeChange or None
        Of a run, how its relative depth differs from that which was carried so far.  None if
        depth is carried, as it keeps the scale and shift of its run, and if nothing was carried or
        the two cannot be compared.
    """

    decision: FrameDecision = field(kw_only=True)
    gauge_change: GaugeChange | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class _Candidate:
    """A frame with its index among those given, and what the step policy has to know."""

    index: int
    frame: Frame
    request: StepRequest
    complexity_s: float


_Run = tuple[_Candidate, FrameDecision]


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
    policy : StepPolicy or None
        Decides instead of one with `config.step_policy`.
    clock : callable
        Returns the time, s, on the clock of `Frame.received_s`.

    Examples
    --------
    >>> import numpy as np
    >>> from marigold_ros.depth.engine import DepthEngine
    >>> config = AdaptiveConfig(StepPolicyConfig(max_inference_steps=1))
    >>> adaptive = AdaptiveDepth(DepthEngine.load(device='cpu'), config)
    >>> rgb = np.zeros((48, 64, 3), np.uint8)
    >>> frame = Frame('front', rgb, stamp_ns=0, received_s=time.monotonic())
    >>> prediction, = adaptive.process([frame])
    >>> prediction.affine_invariant_depth.shape, prediction.num_inference_steps
    ((48, 64), 1)
    """

    def __init__(self, engine: DepthEngine, config: AdaptiveConfig, cameras: Sequence[str] = (),
                 *, policy: StepPolicy | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """Start without statistics."""
        self.engine, self._config, self._clock = engine, config, clock
        self.policy = policy or StepPolicy(config.step_policy)
        self._seeds = {camera: seed for seed, camera in enumerate(cameras)}
        # A resolution of 0 is that of the image.
        detail_px = engine.processing_resolution or sys.maxsize
        self._cameras: defaultdict[str, CameraDepth] = defaultdict(lambda: CameraDepth(detail_px))

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
        """Discard the statistics of C and all carried depth, as after a jump back in time."""
        self.policy.reset()
        self.discard_depth()

    def discard_depth(self) -> None:
        """Discard all carried depth, so that the next frame of each camera is inferred."""
        self._cameras.clear()

    def carried_depth(self, camera: str) -> CarriedDepth:
        """Return the depth of a camera's last run, moved into its newest frame."""
        return self._cameras[camera].carry()

    def set_scale(self, camera: str, scale: float, shift: float) -> None:
        """
        Set the metric fit of a camera's last depth, with which it is moved in three dimensions.

        Parameters
        ----------
        camera : str
        scale, shift : float
            Metric depth is scale * relative depth + shift, m.
        """
        self._cameras[camera].scale_shift = scale, shift

    def process(self, frames: Sequence[Frame]) -> list[AdaptivePrediction]:
        """
        Return the depth of each frame, in the order of `frames`; see `process_each`.

        Parameters
        ----------
        frames : sequence of Frame

        Returns
        -------
        list of AdaptivePrediction
        """
        results = dict(self.process_each(frames))
        return [results[i] for i in range(len(frames))]

    def process_each(self, frames: Sequence[Frame]) -> Iterator[tuple[int, AdaptivePrediction]]:
        """
        Carry or infer the depth of each frame; those of one padded size form one batch.

        Parameters
        ----------
        frames : sequence of Frame
            The newest frame of each camera, of any size.

        Yields
        ------
        int, AdaptivePrediction
            Index of a frame and its depth: first the carried ones, then one batch after the other.
            What the caller does with a batch until it asks for more, such as publishing, counts as
            time of that batch.

        Raises
        ------
        InputError, OutOfMemoryError
            See `DepthEngine.infer_batch`; raised after the other batches.
        """
        by_size: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for i, frame in enumerate(frames):
            by_size[self.engine.padded_size(*frame.rgb.shape[:2])].append(i)
        batches: defaultdict[tuple[int, int], list[_Run]] = defaultdict(list)
        for size, indices in by_size.items():
            candidates = [self._look_at(i, frames[i]) for i in indices]
            for each, decision in zip(candidates, self._decide(candidates, size)):
                if decision.decided_steps:
                    batches[size].append((each, decision))
                else:
                    yield each.index, self._carry(each.frame, decision)
        errors = []
        for size, runs in batches.items():
            try:
                yield from self._infer(size, runs)
            except Exception as err:  # whatever a device raises; the other sizes still run
                errors.append(err)
        if errors:
            raise errors[0]

    def _look_at(self, index: int, frame: Frame) -> _Candidate:
        """Move the camera's depth along to the frame, and measure C."""
        started_s = time.perf_counter()
        config, camera = self._config, self._cameras[frame.camera]
        measure, grey = config.complexity_measure, reduce_to_grey(frame.rgb)
        novelty = camera.advance(frame, grey, config.max_carry_s)
        if config.step_policy.policy != 'novelty':
            complexity = measure_complexity(measure, grey)
        else:
            complexity = 1.0 if novelty is None else complexity_share(measure, grey, novelty.new)
        run_reason = ''
        if novelty is not None and novelty.largest_change > MAX_LOCAL_CHANGE:
            run_reason = f'{novelty.largest_change:.0%} of a small region changed'
        elif camera.carried_s(frame) >= config.max_carry_s:
            run_reason = f'carried for {camera.carried_s(frame):.1f} s'
        seconds = time.perf_counter() - started_s
        return _Candidate(index, frame, StepRequest(
            frame.camera, complexity, self._clock() - frame.received_s,
            can_carry=novelty is not None, run_reason=run_reason), seconds)

    def _decide(self, candidates: Sequence[_Candidate],
                padded_size: tuple[int, int]) -> list[FrameDecision]:
        """Decide the steps of the frames of one size."""
        decided = self.policy.decide([each.request for each in candidates],
                                     padded_size=padded_size)
        return [FrameDecision(
            each.request.complexity, each.request.age_s, steps.num_inference_steps, steps.reason,
            each.complexity_s, 0.0 if steps.num_inference_steps
            else self._cameras[each.frame.camera].carried_s(each.frame))
            for each, steps in zip(candidates, decided)]

    def _carry(self, frame: Frame, decision: FrameDecision) -> AdaptivePrediction:
        carried = self.carried_depth(frame.camera)
        return AdaptivePrediction(
            carried.affine_invariant_depth, carried.confidence, None, None, 0, 'schedule',
            StageTiming(0.0, 0.0, 0.0, 0.0, 0.0), carried.covered, decision=decision)

    def _infer(self, padded_size: tuple[int, int],
               runs: Sequence[_Run]) -> Iterator[tuple[int, AdaptivePrediction]]:
        """Infer the frames of one size as one ragged batch, and observe how long it takes."""
        started_s = self._clock()
        predictions = self._infer_batch(
            [each.frame for each, _ in runs], [decision.decided_steps for _, decision in runs],
            self.policy.deadline_s([each.request for each, _ in runs], padded_size=padded_size))
        for (each, decision), prediction in zip(runs, predictions):
            change = self._cameras[each.frame.camera].start(each.frame, prediction)
            yield each.index, _complete(prediction, decision, change)
        self.policy.observe(BatchTiming.from_stages(
            padded_size, [each.num_inference_steps for each in predictions],
            predictions[0].timing, elapsed_s=self._clock() - started_s))

    def _infer_batch(self, frames: Sequence[Frame], num_inference_steps: Sequence[int],
                     deadline_s: float | None) -> list[DepthPrediction]:
        """Infer a batch with the seed of each camera."""
        return self.engine.infer_batch(
            [frame.rgb for frame in frames], num_inference_steps,
            seed=[self._seeds.get(frame.camera, 0) for frame in frames],
            ensemble_size=self._config.ensemble_size, deadline_s=deadline_s)


def _complete(prediction: DepthPrediction, decision: FrameDecision,
              gauge_change: GaugeChange | None) -> AdaptivePrediction:
    """Add a run's decision, with the deadline in its reason if it was reached, and its gauge."""
    if prediction.stopped_by == 'deadline':
        decision = replace(decision, reason=f'{decision.reason}; stopped after '
                                            f'{prediction.num_inference_steps} by the deadline')
    return AdaptivePrediction(**vars(prediction), decision=decision, gauge_change=gauge_change)
