"""Read frames, run the engine with every T, and replay the policies in a second thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
import time
from typing import TYPE_CHECKING

from marigold_ros.data.bags.read_issues import DamageNote
from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import DepthFrame
from marigold_ros.data.read_ahead import read_ahead
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.errors import BagError, InputError
from marigold_ros.depth.types import DepthPrediction, FloatImage, RgbImage
from marigold_ros.evaluation.config import EvaluationConfig, fixed_name, fixed_steps
from marigold_ros.evaluation.metrics.protocols import FrameScorer, ScoredDepth
from marigold_ros.evaluation.metrics.temporal import TemporalEvaluator
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.evaluation.policies.replay import (
    ArrivalSimulation,
    content_key,
    EvaluatedFrame,
    PolicyReplay,
    RecordedFrame,
    Replay,
    ReplayedFrame,
    SharedSteps,
)
from marigold_ros.evaluation.report.example_frames import ExampleFrames
from marigold_ros.progress import progress_bar
from marigold_ros.stop_flag import StopFlag

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine

# Frames that may wait for their scores before the engine has to pause.
MAX_UNSCORED = 2
# What a policy must beat at its own cost: running on every N-th frame, whatever it shows.
BLIND_POLICIES = tuple(f'every-{period}' for period in (2, 3, 4, 6, 10, 20))

# Functions that predict depth from an image, uint8 [H, W, 3] -> float32 [H, W], by name.
Baselines = Mapping[str, Callable[[RgbImage], FloatImage]]
# Called for each frame, in order, while its images are at hand, with how the primary policy
# processed it without cap.
FrameCallback = Callable[[Replay], None]


@dataclass
class SessionResult:
    """
    What a session found; it can be pickled, and joined with those of other parts.

    Attributes
    ----------
    max_inference_steps : int
        Tmax: the default of depth_node, or less if the checkpoint benefits from fewer steps; the
        largest N if all policies are fixed-N.
    fastest, slowest : str
        The policies that always run the fewest steps and Tmax.
    frames : list of EvaluatedFrame
    replayed : dict of str to list of ReplayedFrame
        All frames as each policy processed them without latency cap: those of `config`, then
        `fastest` and `slowest`.
    simulated : dict of str to list of ReplayedFrame
        The same under the cap, in the simulation of frame arrivals.
    blind : dict of str to list of ReplayedFrame
        The same of policies that run on every N-th frame, without cap; empty for single frames.
    examples : ExampleFrames
        Best, median and worst frames of the primary policy without cap.
    complete : bool
        Whether all requested frames were evaluated.
    notes : list of str
        Missing frames and the reasons.
    wall_s : float
        Wall time of the evaluation without the measurement of the latency table, s.
    """

    max_inference_steps: int
    fastest: str
    slowest: str
    frames: list[EvaluatedFrame] = field(default_factory=list)
    replayed: dict[str, list[ReplayedFrame]] = field(default_factory=dict)
    simulated: dict[str, list[ReplayedFrame]] = field(default_factory=dict)
    blind: dict[str, list[ReplayedFrame]] = field(default_factory=dict)
    examples: ExampleFrames = field(default_factory=ExampleFrames)
    complete: bool = False
    notes: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def engine_s(self) -> float:
        """Return the total time of all inferences, s."""
        return sum(frame.engine_s for frame in self.frames)

    @property
    def policies(self) -> tuple[dict[str, list[ReplayedFrame]], ...]:
        """Return `replayed`, `simulated` and `blind`."""
        return self.replayed, self.simulated, self.blind

    def drop_lead_in(self) -> None:
        """Leave out the frames that lead in to a part."""
        self.frames = [each for each in self.frames if not each.is_lead_in]
        for results in self.policies:
            for name, replayed in results.items():
                results[name] = [each for each in replayed if not each.frame.is_lead_in]

    def offset_of(self, later: SessionResult) -> int:
        """Return what is added to the numbers of the frames of the part that follows."""
        return len(self.frames) - (later.frames[0].number if later.frames else 0)

    def extend(self, later: SessionResult) -> None:
        """Append the frames of the part that follows, numbered on; notes and states are kept."""
        offset = self.offset_of(later)
        renumbered = {frame.number: replace(frame, number=frame.number + offset)
                      for frame in later.frames}
        self.frames += renumbered.values()
        for mine, others in zip(self.policies, later.policies):
            for name, replayed in others.items():
                mine.setdefault(name, []).extend(
                    replace(each, frame=renumbered[each.frame.number]) for each in replayed)
        self.examples.extend(later.examples, offset)
        self.wall_s += later.wall_s


class EvaluationSession:
    """
    Run the engine on the frames of a data set with every T, and replay the policies on the runs.

    Policies are replayed and scored in a second thread, at most `MAX_UNSCORED` frames behind the
    engine.

    Parameters
    ----------
    engine : DepthEngine
    data_set : DataSet
    config : EvaluationConfig
    table : LatencyTable
        Missing sizes are measured when they first occur.
    baselines : mapping of str to callable
        Predictors to compare the engine with.

    Attributes
    ----------
    scorer : FrameScorer
    result : SessionResult
        Without the frames that lead in to a part.
    """

    def __init__(self, engine: DepthEngine, data_set: DataSet, config: EvaluationConfig,
                 table: LatencyTable, baselines: Baselines) -> None:
        self._engine, self._data_set, self._config = engine, data_set, config
        self._table, self._baselines = table, baselines
        self.scorer = FrameScorer(data_set.rules, config.protocol)
        # 1. The runs that the policies need.
        fixed = {steps for name in config.policies if (steps := fixed_steps(name))}
        if config.needs_all_steps:
            most = min(StepPolicyConfig.max_inference_steps,
                       engine.checkpoint_info.max_useful_steps)
            fixed |= set(range(1, most + 1))
        else:
            most = max(fixed)
        self._steps = sorted(fixed)
        fastest, slowest = fixed_name(self._steps[0]), fixed_name(most)
        self.result = SessionResult(most, fastest, slowest)
        # 2. The policies, each with a state of its own.
        self._shared_steps = SharedSteps()
        names = tuple(dict.fromkeys((*config.policies, fastest, slowest)))
        compares_blind = data_set.is_sequence and config.needs_all_steps
        self._replays = {name: self.make_replay(name) for name in names}
        self._blind = {name: self.make_replay(name)
                       for name in BLIND_POLICIES if compares_blind}
        self._simulations = {name: self.make_simulation(name) for name in names}
        self._temporal = {name: TemporalEvaluator()
                          for name in (config.policies[0], fastest, slowest)}
        # 3. The results.
        self._on_frame: list[FrameCallback] = []
        self.result.replayed = {name: [] for name in names}
        self.result.simulated = {name: [] for name in names}
        self.result.blind = {name: [] for name in self._blind}

    def run(self, stop: StopFlag, *on_frame: FrameCallback) -> None:
        """
        Evaluate all frames.

        Parameters
        ----------
        stop : StopFlag
            Ends the evaluation after the current frame.
        on_frame : callable
            Called with every frame, in order, in the second thread.

        Raises
        ------
        BagError, InputError
            If reading ends with an error before the first frame.  Exceptions of `on_frame` are
            passed on.
        KeyboardInterrupt
            If it was interrupted before the first frame.
        """
        self._on_frame, result = list(on_frame), self.result
        total = self._data_set.count
        if self._config.max_frames is not None:
            total = self._config.max_frames if total is None else min(total,
                                                                      self._config.max_frames)
        started_s = time.perf_counter()
        with ThreadPoolExecutor(1, 'scores') as pool:
            problem = self._evaluate_frames(pool, stop, total)
        for name, simulation in self._simulations.items():
            result.simulated[name] += [each.result for each in simulation.finish()]
        result.wall_s += time.perf_counter() - started_s
        if not result.frames and stop.requested:
            raise KeyboardInterrupt
        if not result.frames and problem:
            raise problem
        result.notes = [*([str(problem)] if problem else []), *self._data_set.notes]
        if stop.requested:
            result.notes.insert(0, f'interrupted after {len(result.frames)}'
                                   + (f' of {total}' if total else '') + ' frames')
        result.complete = not (problem or stop.requested
                               or any(isinstance(note, DamageNote) for note in result.notes))
        result.drop_lead_in()

    def _evaluate_frames(self, pool: ThreadPoolExecutor, stop: StopFlag,
                         total: int | None) -> Exception | None:
        """Run and score frame by frame; return the error that ended reading early, if any."""
        unscored: deque[Future[None]] = deque()
        problem: Exception | None = None
        number = self._data_set.first_number
        with (closing(read_ahead(self._data_set.frames())) as read,
              progress_bar(total=total, unit='frame', desc=self._data_set.name) as bar):
            frames = islice(read, self._config.max_frames)
            while not stop.requested:
                try:
                    frame = next(frames)
                except StopIteration:
                    break
                except (BagError, InputError) as err:
                    problem = err    # the frames before it are still reported
                    break
                if self._engine.padded_size(*frame.rgb.shape[:2]) not in self._table.samples:
                    while unscored:  # nothing may run beside
                        unscored.popleft().result()
                    self.measure_costs(frame.rgb)
                started_s = time.perf_counter()
                predictions = {steps: self._infer(frame.rgb, steps) for steps in self._steps}
                engine_s = time.perf_counter() - started_s
                unscored.append(pool.submit(self._replay_frame, number, frame, predictions,
                                            engine_s))
                while len(unscored) > MAX_UNSCORED:
                    unscored.popleft().result()
                number += not frame.is_lead_in
                bar.update()
            while unscored:
                unscored.popleft().result()
        return problem

    def measure_costs(self, rgb: RgbImage) -> None:
        """Measure the cost of frames of a new size, not counted in `wall_s`."""
        started_s = time.perf_counter()
        self._table.measure(self._engine, rgb, self._steps[-1], self._config.ensemble_size)
        self.result.wall_s -= time.perf_counter() - started_s

    def _infer(self, rgb: RgbImage, steps: int) -> DepthPrediction:
        """Run the engine on an image without a latency cap."""
        return self._engine.infer_batch([rgb], [steps], upsample=False,
                                        ensemble_size=self._config.ensemble_size)[0]

    def make_replay(self, name: str) -> PolicyReplay:
        """Return a new replay of a policy."""
        return PolicyReplay(name, self._engine, self._table, self.result.max_inference_steps,
                            steps=self._shared_steps)

    def make_simulation(self, name: str) -> ArrivalSimulation:
        """Return a new simulation of a policy under the latency cap."""
        return ArrivalSimulation(PolicyReplay(
            name, self._engine, self._table, self.result.max_inference_steps,
            self._config.latency_cap_s, timed=True, steps=self._shared_steps))

    def _replay_frame(self, number: int, frame: DepthFrame,
                      predictions: Mapping[int, DepthPrediction], engine_s: float) -> None:
        """Score a frame's runs and replay the policies on them; runs in the second thread."""
        # 1. Score the runs and the baselines.
        recorded, result = self._score_runs(number, frame, predictions, engine_s), self.result
        result.frames.append(recorded.evaluated)

        # 2. Replay the policies without cap, and under it as frames arrive.
        replays = {name: self._add_scores(name, replay.process(recorded))
                   for name, replay in self._replays.items()}
        for name, replay in replays.items():
            result.replayed[name].append(replay.result)
        for name, blind in self._blind.items():
            replay = blind.process(recorded)
            result.blind[name].append(replace(
                replay.result, quality=replay.scored.errors_and_f1 if replay.scored else {}))
        for name, simulation in self._simulations.items():
            result.simulated[name] += [each.result for each in simulation.add(recorded)]

        # 3. Hand the images on while they are at hand.
        primary = replays[self._config.policies[0]]
        self._keep_example(primary)
        for callback in self._on_frame:
            callback(primary)

    def _score_runs(self, number: int, frame: DepthFrame,
                    predictions: Mapping[int, DepthPrediction], engine_s: float) -> RecordedFrame:
        upsampled: dict[Hashable, DepthPrediction] = {
            content_key(each): self._engine.upsample(each, frame.rgb)
            for each in predictions.values()}
        scores: dict[Hashable, ScoredDepth] = {steps: self.scorer.score(
            upsampled[content_key(prediction)].affine_invariant_depth, frame)
            for steps, prediction in predictions.items()}
        quality = {fixed_name(steps): scores[steps].quality for steps in predictions}
        quality |= {name: self.scorer.score(predict(frame.rgb), frame).quality
                    for name, predict in self._baselines.items()}
        evaluated = EvaluatedFrame(
            number, frame.name, frame.block, frame.set_name, frame.stamp_ns,
            self._engine.padded_size(*frame.rgb.shape[:2]), quality, engine_s,
            frame.is_lead_in)
        return RecordedFrame(frame, evaluated, predictions, self.scorer, upsampled, scores)

    def _add_scores(self, policy: str, replay: Replay) -> Replay:
        """Add the scores of edges, and the temporal scores of a policy that has them."""
        scored = replay.scored
        if scored is None:
            return replay
        temporal = {}
        if policy in self._temporal and replay.recorded.frame.stamp_ns is not None:
            temporal = self._temporal[policy].add(scored)
        return replay._replace(result=replace(replay.result, quality=scored.quality,
                                              temporal=temporal))

    def _keep_example(self, replay: Replay) -> None:
        """Show a frame of the primary policy if it is among the best, median or worst."""
        evaluated, scored = replay.recorded.evaluated, replay.scored
        if scored is None or scored.aligned is None or replay.recorded.frame.is_lead_in:
            return
        self.result.examples.add(
            evaluated.number, replay.recorded.frame, scored.errors['abs_rel'],
            replay.result.num_inference_steps, scored.aligned.depth_m, scored.aligned.target_m)
