"""AdaptiveDepth: depth of cameras over time; decide, infer, observe, the same for everybody."""

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
    StepDecision,
    StepRequest,
)

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine


@dataclass(frozen=True, eq=False)
class Frame:
    """
    One image of a camera.

    Attributes
    ----------
    camera : str
    rgb : uint8 [H, W, 3]
    stamp_ns : int
        When it was taken, ns on the stamps' clock.
    received_s : float
        When it arrived, s on `time.monotonic`; its age counts from there.
    """

    camera: str
    rgb: RgbImage
    stamp_ns: int
    received_s: float


@dataclass(frozen=True)
class AdaptiveConfig:
    """
    What is done with each frame.

    Attributes
    ----------
    step_policy : StepPolicyConfig
    complexity_measure : {'gradient_energy', 'entropy'}
        How C is measured.
    ensemble_size : int
        E, members of every prediction.
    """

    step_policy: StepPolicyConfig = field(default_factory=StepPolicyConfig)
    complexity_measure: str = 'gradient_energy'
    ensemble_size: int = 1

    def __post_init__(self) -> None:
        """Check every rule."""
        require(self.complexity_measure in COMPLEXITY_MEASURES, 'complexity_measure',
                one_of(COMPLEXITY_MEASURES), self.complexity_measure)
        require(self.ensemble_size >= 1, 'ensemble_size', 'at least 1', self.ensemble_size)


@dataclass(frozen=True)
class StepChoice:
    """
    How a frame came to its number of steps.

    Attributes
    ----------
    complexity : float
        C of the frame.
    age_s : float
        Since its receipt, at the decision.
    granted : int
        Steps T that it was granted; the deadline may have ended them earlier.
    reason : str
        Of the decision, and what ended the steps early.
    complexity_s : float
        What measuring C took.
    """

    complexity: float
    age_s: float
    granted: int
    reason: str
    complexity_s: float


@dataclass(frozen=True)
class AdaptivePrediction(DepthPrediction):
    """A `DepthPrediction`, and how it came to its number of steps."""

    choice: StepChoice


@dataclass(frozen=True)
class SkippedFrame:
    """A frame without depth: not even Tmin fitted under the cap, and the policy may skip."""

    choice: StepChoice


@dataclass(frozen=True)
class _Batch:
    """What was run and is not observed yet; `decided_s` on `time.monotonic`."""

    resolution: tuple[int, int]
    num_inference_steps: tuple[int, ...]
    timing: StageTiming
    decided_s: float


class AdaptiveDepth:
    """
    Depth of one or several cameras, with as many steps as each frame is worth; for one thread.

    Parameters
    ----------
    engine : DepthEngine
    config : AdaptiveConfig
    cameras : sequence of str
        A camera starts from the noise of its place here, always the same; one that is not
        listed, from that of the first.

    Examples
    --------
    >>> adaptive = AdaptiveDepth(DepthEngine.load(), AdaptiveConfig())
    >>> prediction, = adaptive.process([Frame('camera', rgb, stamp_ns, time.monotonic())])
    """

    def __init__(self, engine: DepthEngine, config: AdaptiveConfig,
                 cameras: Sequence[str] = ()) -> None:
        """Start without having seen a frame."""
        self.engine, self._config = engine, config
        self.policy = StepPolicy(config.step_policy)
        self._seeds = {camera: seed for seed, camera in enumerate(cameras)}
        self._unobserved: list[_Batch] = []

    def warm_up(self, sizes: Sequence[tuple[int, int]], batch_sizes: Sequence[int]) -> None:
        """Let the engine get ready for images of these sizes (H, W), and learn what they cost."""
        for timing in self.engine.warm_up(sizes, batch_sizes,
                                          self._config.step_policy.max_inference_steps,
                                          ensemble_size=self._config.ensemble_size):
            self.policy.observe(timing)

    def configure(self, config: AdaptiveConfig) -> None:
        """Use another configuration, and keep what was learned of what it does not change."""
        before, self._config = self._config, config
        self.policy.config = config.step_policy
        if config.complexity_measure != before.complexity_measure:
            self.policy.reset()
        if config.ensemble_size != before.ensemble_size:
            self.policy.latency = LatencyModel()

    def reset(self) -> None:
        """Forget what earlier frames taught, as after a jump back in time."""
        self.policy.reset()

    def process(self, frames: Sequence[Frame]) -> list[AdaptivePrediction | SkippedFrame]:
        """
        Give each frame its depth; those of one padded size are one batch.

        Parameters
        ----------
        frames : sequence of Frame
            The newest of each camera; of any sizes, which run one after the other.

        Returns
        -------
        list of AdaptivePrediction or SkippedFrame
            In the order of `frames`; skipped only with `late_frames` skip.

        Raises
        ------
        InputError, OutOfMemoryError
            As `DepthEngine.infer_batch`.
        """
        self.observe(published_s=None)
        by_size: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for i, frame in enumerate(frames):
            by_size[self.engine.processing_size(*frame.rgb.shape[:2])].append(i)
        results: dict[int, AdaptivePrediction | SkippedFrame] = {}
        for size, indices in by_size.items():
            results.update(zip(indices, self._process_batch(size, [frames[i] for i in indices])))
        return [results[i] for i in range(len(frames))]

    def observe(self, published_s: float | None) -> None:
        """
        Learn what the frames of the last `process` have cost.

        Parameters
        ----------
        published_s : float or None
            When the last of them was published, s on `time.monotonic`: what comes after
            inference counts too.  None, and no call at all, counts inference alone.
        """
        for batch in self._unobserved:
            self.policy.observe(BatchTiming.of(
                batch.resolution, batch.num_inference_steps, batch.timing,
                elapsed_s=None if published_s is None else published_s - batch.decided_s))
        self._unobserved = []

    def _process_batch(self, resolution: tuple[int, int],
                       frames: Sequence[Frame]) -> list[AdaptivePrediction | SkippedFrame]:
        # 1. What each frame is worth.
        complexities, seconds = zip(*(self._measure(frame.rgb) for frame in frames))

        # 2. The steps of all, decided now, since the frames have aged.
        decided_s = time.monotonic()
        requests = [StepRequest(frame.camera, complexity, decided_s - frame.received_s)
                    for frame, complexity in zip(frames, complexities)]
        decisions = self.policy.decide(requests, resolution=resolution)
        choices = [StepChoice(request.complexity, request.age_s, decision.num_inference_steps,
                              decision.reason, complexity_s)
                   for request, decision, complexity_s in zip(requests, decisions, seconds)]

        # 3. One ragged batch of those that are worth a step.
        granted = [i for i, decision in enumerate(decisions) if decision.num_inference_steps]
        predictions = self._infer([frames[i] for i in granted], [decisions[i] for i in granted],
                                  self.policy.deadline_s(requests, resolution=resolution))
        if granted:
            self._unobserved.append(_Batch(
                resolution, tuple(each.num_inference_steps for each in predictions),
                predictions[0].timing, decided_s))
        results: list[AdaptivePrediction | SkippedFrame] = [SkippedFrame(c) for c in choices]
        for i, prediction in zip(granted, predictions):
            results[i] = _with_choice(prediction, choices[i])
        return results

    def _measure(self, rgb: RgbImage) -> tuple[float, float]:
        """Return C, and the seconds that it took."""
        started_s = time.perf_counter()
        complexity = MEASURES[self._config.complexity_measure](rgb)
        return complexity, time.perf_counter() - started_s

    def _infer(self, frames: Sequence[Frame], decisions: Sequence[StepDecision],
               deadline_s: float | None) -> list[DepthPrediction]:
        """Infer a batch, each camera from its own noise."""
        return self.engine.infer_batch(
            [frame.rgb for frame in frames],
            [decision.num_inference_steps for decision in decisions],
            seed=[self._seeds.get(frame.camera, 0) for frame in frames],
            ensemble_size=self._config.ensemble_size, deadline_s=deadline_s)


def _with_choice(prediction: DepthPrediction, choice: StepChoice) -> AdaptivePrediction:
    """Join a prediction and its choice, whose reason tells what ended the steps early."""
    if prediction.stopped_by == 'deadline':
        choice = replace(choice, reason=f'{choice.reason}; stopped after '
                                        f'{prediction.num_inference_steps} by the deadline')
    return AdaptivePrediction(**vars(prediction), choice=choice)
