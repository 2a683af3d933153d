"""
Replay step policies on frames that were run with every T.

A policy is replayed by `AdaptiveDepth`, as in depth_node, on an engine that returns the recorded
predictions: each policy has a state of its own and carries its own depth along.  It either
processes one frame after the other, or frames that arrive at the times of their stamps
(`ArrivalSimulation`): then, as in depth_node, the networks run beside the frames, a later frame
has their depth, and only a frame into which nothing can be carried waits; the step policy knows
its age, observes the costs and respects the latency cap.  Unlike in the node, all frames that come
while one waits are superseded.  The costs are sampled from a latency table, so the same frames are
dropped every time.  Unlike the node, the simulation never stops denoising early because of the
deadline: a frame that takes longer than predicted exceeds the cap here, while the node would stop
denoising.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
import math
import operator
from typing import Any, cast, Literal, NamedTuple, TYPE_CHECKING, TypeVar

from marigold_ros.depth.adaptive import (
    AdaptiveConfig,
    AdaptiveDepth,
    AdaptivePrediction,
    Frame,
    Inferred,
)
from marigold_ros.depth.carry import Step, StepFinder, Track
from marigold_ros.depth.networks import ImmediateExecutor
from marigold_ros.evaluation.config import COMPLEXITY_POLICIES
from marigold_ros.evaluation.policies.step_policies import make_step_policy

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.config import StepPolicyConfig
    from marigold_ros.depth.engine import DepthEngine
    from marigold_ros.depth.types import DepthPrediction, FloatImage, GreyImage, RgbImage
    from marigold_ros.evaluation.metrics.protocols import FrameScorer, ScoredDepth
    from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable

Outcome = Literal['processed', 'superseded']
OUTCOMES: tuple[Outcome, ...] = ('processed', 'superseded')
Quality = Mapping[str, float]
# A frame has up to some twenty, its tracks back to the runs of all policies.
SHARED_RESULTS = 80

Result = TypeVar('Result')


@dataclass(frozen=True, eq=False)
class EvaluatedFrame:
    """
    Scores and costs of one frame for every run, without its images.

    A run is one inference with a fixed T; its name is that of the policy, fixed-T.

    Attributes
    ----------
    number : int
        From 0, in the order of reading; a frame that leads in has the number of the next.
    name, block, camera : str
        See `data.frames.DepthFrame`.
    stamp_ns : int or None
        Acquisition time; None in a folder.
    size : (int, int)
        Padded processing size, height and width, px.
    quality : dict of str to dict of str to float
        Scores by run and by baseline.
    engine_s : float
        Time spent in the engine.
    is_lead_in : bool
        See `data.frames.DepthFrame`.
    """

    number: int
    name: str
    block: str
    camera: str
    stamp_ns: int | None
    size: tuple[int, int]
    quality: Mapping[str, Quality]
    engine_s: float
    is_lead_in: bool = False


@dataclass(frozen=True, eq=False)
class RecordedFrame:
    """
    A frame with its recorded predictions, for as long as policies are replayed on it.

    Attributes
    ----------
    frame : DepthFrame
    evaluated : EvaluatedFrame
    predictions : dict of int to DepthPrediction
        By T, at the size at which the networks compute.
    scorer : FrameScorer
    upsampled : dict of tuple to DepthPrediction
        Predictions at the size of the image, by `content_key` of those that they are from:
        policies that did the same share them.
    scores : dict of int or tuple to ScoredDepth
        Scores by T, and those of carried depth by `content_key`.
    """

    frame: DepthFrame
    evaluated: EvaluatedFrame
    predictions: Mapping[int, DepthPrediction]
    scorer: FrameScorer
    upsampled: dict[Hashable, DepthPrediction]
    scores: dict[Hashable, ScoredDepth]


@dataclass(frozen=True, eq=False)
class ReplayedFrame:
    """
    Outcome of one frame.

    Attributes
    ----------
    frame : EvaluatedFrame
    outcome : {'processed', 'superseded'}
        'superseded' by a newer frame.
    num_inference_steps : int
        T; 0 if depth was carried, or the frame was dropped.
    complexity : float
        C that the policy used; NaN if the frame was dropped.
    reason : str
        Reason that the policy gives for T.
    covered_share : float
        Share of the image that the depth covers; NaN if the frame was dropped.
    quality : dict of str to float
        Scores of the published depth: its errors, and without cap those of its edges; empty if
        the frame was dropped.
    temporal : dict of str to float
        Temporal scores, see `TemporalEvaluator.add`; empty where they are not computed.
    age_s, latency_s : float
        Time from arrival to the start of processing, and to the depth; NaN if the frame was
        dropped.
    cost : FrameCost or None
        Time by stage; None if the frame was dropped.
    """

    frame: EvaluatedFrame
    outcome: Outcome
    num_inference_steps: int = 0
    complexity: float = math.nan
    reason: str = ''
    covered_share: float = math.nan
    quality: Quality = field(default_factory=dict)
    temporal: Quality = field(default_factory=dict)
    age_s: float = math.nan
    latency_s: float = math.nan
    cost: FrameCost | None = None


class Replay(NamedTuple):
    """A frame as a policy processed it; a superseded frame has no prediction."""

    recorded: RecordedFrame
    result: ReplayedFrame
    prediction: AdaptivePrediction | None = None
    scored: ScoredDepth | None = None


class RecordedEngine:
    """
    Return the recorded predictions of frames in place of `DepthEngine`, on a simulated clock.

    Parameters
    ----------
    engine : DepthEngine
        Whose predictions were recorded.

    Attributes
    ----------
    now_s : float
        Simulated time, s.
    """

    def __init__(self, engine: DepthEngine) -> None:
        self._engine, self.padded_size = engine, engine.padded_size
        self.now_s = 0.0
        # The newest frame of each camera.
        self._recorded: dict[str, tuple[RecordedFrame, FrameCost]] = {}

    def load(self, recorded: RecordedFrame, cost: FrameCost) -> None:
        """Keep a frame that may be inferred, and its cost."""
        self._recorded[recorded.evaluated.camera] = recorded, cost

    def infer_batch(self, frames: Sequence[RgbImage], num_inference_steps: Sequence[int],
                    **_: object) -> list[DepthPrediction]:
        """Return the recorded predictions of frames that are known by their image."""
        known = {id(recorded.frame.rgb): (recorded, cost)
                 for recorded, cost in self._recorded.values()}
        predictions = []
        for rgb, steps in zip(frames, num_inference_steps):
            recorded, cost = known[id(rgb)]
            predictions.append(replace(recorded.predictions[steps], timing=cost.timing(steps)))
        return predictions

    def upsample(self, prediction: DepthPrediction, rgb: RgbImage) -> DepthPrediction:
        """Bring the maps of a prediction to the size of its image, once for all policies."""
        for recorded, _ in self._recorded.values():
            if recorded.frame.rgb is rgb:
                key = content_key(prediction)
                if key not in recorded.upsampled:
                    recorded.upsampled[key] = self._engine.upsample(prediction, rgb)
                known = recorded.upsampled[key]
                return replace(prediction, affine_invariant_depth=known.affine_invariant_depth,
                               confidence=known.confidence, uncertainty=known.uncertainty,
                               covered=known.covered)
        return self._engine.upsample(prediction, rgb)  # of an earlier frame


def content_key(prediction: DepthPrediction) -> Hashable:
    """Return what tells predictions of a frame apart."""
    covered = prediction.covered
    return (hash(prediction.affine_invariant_depth.tobytes()),
            None if covered is None else hash(covered.tobytes()))


class SimulatedNetworks(Executor):
    """
    Networks that are busy on a simulated clock while the caller goes on.

    Parameters
    ----------
    engine : RecordedEngine
        Has the clock.
    """

    def __init__(self, engine: RecordedEngine) -> None:
        self._engine = engine

    def submit(self, infer: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Infer a batch; the result is done when its cost has passed."""
        begun_s = self._engine.now_s
        predictions, _ = infer(*args, **kwargs)
        # The rows of a batch run one after another, as on a CPU.
        ended_s = begun_s + sum(each.timing.total_s for each in predictions)
        return _SimulatedFuture(self._engine, Inferred(predictions, ended_s))


class _SimulatedFuture(Future[Any]):
    """A result that is done at a simulated time, to which waiting for it advances the clock."""

    def __init__(self, engine: RecordedEngine, inferred: Inferred) -> None:
        super().__init__()
        self._engine, self._ended_s = engine, inferred.ended_s
        self.set_result(inferred)

    def done(self) -> bool:
        return self._engine.now_s >= self._ended_s

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._engine.now_s = max(self._engine.now_s, self._ended_s)
        return super().exception(timeout)


class SharedSteps(StepFinder):
    """Compute what policies that are replayed on the same frames share once for all of them."""

    def __init__(self) -> None:
        super().__init__()
        # The newest results by function and arguments; simulated arrivals are a few frames behind.
        self._known: deque[tuple[tuple[object, ...], Any]] = deque(maxlen=SHARED_RESULTS)

    def reduce(self, rgb: RgbImage) -> GreyImage:
        return self._share(StepFinder.reduce, rgb)

    def find(self, earlier: GreyImage, later: GreyImage) -> Step:
        return self._share(StepFinder.find, earlier, later)

    def begin_track(self, grey: GreyImage) -> Track:
        return self._share(StepFinder.begin_track, grey)

    def extend(self, track: Track, step: Step) -> tuple[Track, FloatImage]:
        return self._share(StepFinder.extend, track, step)

    def _share(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Return the result for the very same objects, if it is known."""
        call = function, *arguments
        for known, result in reversed(self._known):
            if all(map(operator.is_, known, call)):
                return cast(Result, result)
        result = function(self, *arguments)
        self._known.append((call, result))
        return result


class PolicyReplay:
    """
    Replay one policy on one frame after the other.

    Parameters
    ----------
    name : str
        One of `EvaluationConfig.policies`.
    engine : DepthEngine
        Whose predictions were recorded.
    table : LatencyTable
    max_inference_steps : int
        Tmax.
    latency_cap_s : float or None
    timed : bool
        Whether the networks take time, so that their depth comes with a later frame; else each
        frame that runs has its own depth.
    steps : StepFinder or None
        See `AdaptiveDepth`.
    """

    def __init__(self, name: str, engine: DepthEngine, table: LatencyTable,
                 max_inference_steps: int, latency_cap_s: float | None = None, *,
                 timed: bool = False, steps: StepFinder | None = None) -> None:
        self._engine, self._table = RecordedEngine(engine), table
        policy = make_step_policy(name, max_inference_steps, latency_cap_s, self._abs_rel)
        self._adaptive = AdaptiveDepth(
            cast('DepthEngine', self._engine),  # what of it is used
            adaptive_config(name, policy.config), policy=policy,
            networks=SimulatedNetworks(self._engine) if timed else ImmediateExecutor(),
            clock=lambda: self._engine.now_s, steps=steps)
        self._known_sizes: set[tuple[int, int]] = set()
        self._last_ns = -1
        self._current: RecordedFrame | None = None  # for the oracle

    def process(self, recorded: RecordedFrame, *, arrived_s: float = 0.0,
                start_s: float = 0.0) -> Replay:
        """
        Process the next frame.

        Parameters
        ----------
        recorded : RecordedFrame
        arrived_s, start_s : float
            When the frame arrived, and when the engine was free for it, s.
        """
        cost = self._table.sample(recorded.evaluated.size, recorded.evaluated.number)
        prediction, done_s = self.predict(recorded, arrived_s=arrived_s, start_s=start_s)
        scored, decision = self._score(recorded, prediction), prediction.decision
        return Replay(recorded, ReplayedFrame(
            recorded.evaluated, 'processed', prediction.num_inference_steps, decision.complexity,
            decision.reason, prediction.covered_share, scored.errors, {}, start_s - arrived_s,
            done_s - arrived_s, cost), prediction, scored)

    def predict(self, recorded: RecordedFrame, *, arrived_s: float = 0.0,
                start_s: float = 0.0) -> tuple[AdaptivePrediction, float]:
        """Return the depth of the next frame without scores, and when it is known, s."""
        # 1. Start afresh where the node would.
        evaluated, frame = recorded.evaluated, recorded.frame
        if frame.stamp_ns is None:
            self._adaptive.discard_depth()  # single frames
        elif frame.stamp_ns < self._last_ns:  # as when a bag loops
            self._adaptive.reset()
        self._last_ns = frame.stamp_ns or 0
        self._measure_size(evaluated.size)

        # 2. Carry depth or take that of the recorded run, while the simulated time goes on.
        cost = self._table.sample(evaluated.size, evaluated.number)
        self._current, self._engine.now_s = recorded, start_s + cost.complexity_s
        self._engine.load(recorded, cost)
        prediction, = self._adaptive.process([
            Frame(evaluated.camera, frame.rgb, frame.stamp_ns or 0, arrived_s, frame.K,
                  frame.world_from_camera)])
        return prediction, self._engine.now_s + cost.carry_s

    def set_scale(self, camera: str, scale_shift: tuple[float, float] | None) -> None:
        """Set the metric fit of a camera's last depth, see `AdaptiveDepth.set_scale`."""
        self._adaptive.set_scale(camera, scale_shift)

    def _measure_size(self, size: tuple[int, int]) -> None:
        """Observe the cost of a new size, as the node does when it is configured."""
        if size not in self._known_sizes:
            self._known_sizes.add(size)
            policy = self._adaptive.policy
            policy.observe(self._table.typical_timing(size, policy.config.max_inference_steps))

    def _score(self, recorded: RecordedFrame, prediction: DepthPrediction) -> ScoredDepth:
        """Score depth, once for all policies that have the same."""
        covered, depth = prediction.covered, prediction.affine_invariant_depth
        if covered is None:  # of a run on this frame
            return recorded.scores[prediction.num_inference_steps]
        key = content_key(prediction)
        if key not in recorded.scores:
            recorded.scores[key] = recorded.scorer.score(depth, recorded.frame, covered)
        return recorded.scores[key]

    def _abs_rel(self, num_inference_steps: int) -> float:
        """Return AbsRel of the current frame with T steps; NaN if unknown."""
        recorded = self._current
        assert recorded is not None
        scored = (recorded.scores[num_inference_steps] if num_inference_steps else self._score(
            recorded, self._adaptive.carried_depth(recorded.evaluated.camera)))
        return scored.errors.get('abs_rel', math.nan)


class ArrivalSimulation:
    """
    Simulate frames that arrive at the times of their stamps at the engine of one policy.

    A frame without a stamp arrives when the engine is idle.

    Parameters
    ----------
    replay : PolicyReplay
    """

    def __init__(self, replay: PolicyReplay) -> None:
        self._replay = replay
        self._waiting: tuple[RecordedFrame, float] | None = None
        self._start_ns = 0  # stamp at simulated time 0
        self._last_ns: int | None = None
        self._idle_from_s = 0.0

    def add(self, recorded: RecordedFrame) -> Iterator[Replay]:
        """Add the next frame, and yield the frames whose outcome is now known, in order."""
        stamp_ns = recorded.frame.stamp_ns
        if stamp_ns is None:
            yield self._replay.process(recorded)
            return
        if self._last_ns is None:
            self._start_ns = stamp_ns
        elif stamp_ns < self._last_ns:  # as when a bag loops; the simulated time goes on
            yield from self.finish()
            self._start_ns = stamp_ns - math.ceil(1e9 * self._idle_from_s)
        self._last_ns = stamp_ns
        # Relative to the first stamp, since float64 cannot resolve ns since 1970.
        arrived_s = (stamp_ns - self._start_ns) * 1e-9
        if self._waiting is not None and self._idle_from_s <= arrived_s:
            yield from self.finish()
        if self._waiting is not None:
            superseded = self._waiting[0]
            yield Replay(superseded, ReplayedFrame(superseded.evaluated, 'superseded'))
        self._waiting = recorded, arrived_s

    def finish(self) -> Iterator[Replay]:
        """Process the frame that is still waiting, if any."""
        if self._waiting is not None:
            (recorded, arrived_s), self._waiting = self._waiting, None
            replay = self._replay.process(recorded, arrived_s=arrived_s,
                                          start_s=max(self._idle_from_s, arrived_s))
            self._idle_from_s = arrived_s + replay.result.latency_s
            yield replay


def adaptive_config(name: str, step_policy: StepPolicyConfig,
                    ensemble_size: int = 1) -> AdaptiveConfig:
    """Return the node's settings for a policy; see `EvaluationConfig.policies`."""
    measure = COMPLEXITY_POLICIES.get(name, AdaptiveConfig.complexity_measure)
    return AdaptiveConfig(step_policy, measure, ensemble_size)
