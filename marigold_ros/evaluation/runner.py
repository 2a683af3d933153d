"""Read frames, run the engine with every T, and score the predictions in a second thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
import math
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

from marigold_ros.data.bags.read_issues import DamageNote
from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import DepthFrame
from marigold_ros.data.read_ahead import read_ahead
from marigold_ros.depth.complexity import MEASURES
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.errors import BagError, InputError
from marigold_ros.evaluation.config import EvaluationConfig, fixed_name, fixed_steps
from marigold_ros.evaluation.metrics.protocols import align_frame, Aligned, score_aligned
from marigold_ros.evaluation.metrics.temporal import TemporalEvaluator
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.evaluation.policies.replay import EvaluatedFrame, PolicyReplay
from marigold_ros.evaluation.report.example_frames import ExampleFrames
from marigold_ros.stop_flag import StopFlag

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine
    from marigold_ros.depth.types import DepthPrediction, FloatImage, RgbImage

# Frames that may wait for their scores before the engine has to pause.
MAX_UNSCORED = 2

# Functions that predict depth from an image, uint8 [H, W, 3] -> float32 [H, W], by name.
Baselines = Mapping[str, Callable[['RgbImage'], 'FloatImage']]


@dataclass(frozen=True, eq=False)
class InferenceRun:
    """A prediction with a fixed T, and the time of its inference, s."""

    prediction: DepthPrediction
    engine_s: float


# Called for each frame, in order, with its runs by name (fixed-T) and its scores.
FrameCallback = Callable[[DepthFrame, Mapping[str, InferenceRun], EvaluatedFrame], None]


class EvaluationSession:
    """
    Run the engine on the frames of a data set with every T of the policies, and score them.

    Scores are computed in a second thread, at most `MAX_UNSCORED` frames behind the engine.

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
    frames : list of EvaluatedFrame
    examples : ExampleFrames
        Best, median and worst frames with the T that the primary policy chooses without cap.
    max_inference_steps : int
        Tmax: the default of depth_node, or less if the checkpoint benefits from fewer steps; the
        largest N if all policies are fixed-N.
    complete : bool
        Whether all requested frames were evaluated.
    notes : list of str
        Missing frames and the reasons.
    wall_s : float
        Wall time of the evaluation without the measurement of the latency table, s.
    """

    def __init__(self, engine: DepthEngine, data_set: DataSet, config: EvaluationConfig,
                 table: LatencyTable, baselines: Baselines) -> None:
        self._engine, self._data_set, self._config = engine, data_set, config
        self._table, self._baselines = table, baselines
        fixed = {steps for name in config.policies if (steps := fixed_steps(name))}
        if config.needs_all_steps:
            self.max_inference_steps = min(StepPolicyConfig.max_inference_steps,
                                           engine.checkpoint_info.max_useful_steps)
            fixed |= set(range(1, self.max_inference_steps + 1))
        else:
            self.max_inference_steps = max(fixed)
        self._steps = sorted(fixed)
        self._primary = PolicyReplay(config.policies[0], self.max_inference_steps)
        self._slowest = fixed_name(self.max_inference_steps)
        self._temporal = {name: TemporalEvaluator(data_set.rules, config.protocol)
                          for name in (config.policies[0], self._slowest)}
        self._on_frame: list[FrameCallback] = []
        self.frames: list[EvaluatedFrame] = []
        self.examples = ExampleFrames()
        self.complete = False
        self.notes: list[str] = []
        self.wall_s = 0.0

    @property
    def engine_s(self) -> float:
        """Return the total time of all inferences, s."""
        return sum(frame.engine_s for frame in self.frames)

    def run(self, stop: StopFlag, *on_frame: FrameCallback) -> None:
        """
        Evaluate all frames.

        Parameters
        ----------
        stop : StopFlag
            Ends the evaluation after the current frame.
        on_frame : callable
            Called with every frame and its runs, in order, in the scoring thread.

        Raises
        ------
        BagError, InputError
            If no frame can be evaluated.  Exceptions of `on_frame` are passed on.
        KeyboardInterrupt
            If it was interrupted before the first frame.
        """
        self._on_frame = list(on_frame)
        total = self._data_set.count
        if self._config.max_frames is not None:
            total = self._config.max_frames if total is None else min(total,
                                                                      self._config.max_frames)
        started_s = time.perf_counter()
        with ThreadPoolExecutor(1, 'scores') as pool:
            problem = self._evaluate_frames(pool, stop, total)
        self.wall_s += time.perf_counter() - started_s
        if not self.frames:
            if stop.requested:
                raise KeyboardInterrupt
            raise problem or InputError(f'{self._data_set.name}: no frame was evaluated')
        self.notes = [*([str(problem)] if problem else []), *self._data_set.notes]
        if stop.requested:
            self.notes.insert(0, f'interrupted after {len(self.frames)}'
                                 + (f' of {total}' if total else '') + ' frames')
        self.complete = not (problem or stop.requested
                             or any(isinstance(note, DamageNote) for note in self.notes))

    def _evaluate_frames(self, pool: ThreadPoolExecutor, stop: StopFlag,
                         total: int | None) -> Exception | None:
        """Run and score frame by frame; return the error that ended reading early, if any."""
        unscored: deque[Future[None]] = deque()
        problem: Exception | None = None
        with (closing(read_ahead(self._data_set.frames())) as read,
              tqdm(total=total, unit='frame', desc=self._data_set.name) as bar):
            frames = enumerate(islice(read, self._config.max_frames))
            while not stop.requested:
                try:
                    number, frame = next(frames)
                except StopIteration:
                    break
                except (BagError, InputError) as err:
                    problem = err    # the frames before it are still reported
                    break
                self._measure_costs(frame)
                runs = {fixed_name(steps): self._infer(frame.rgb, steps)
                        for steps in self._steps}
                unscored.append(pool.submit(self._score_frame, number, frame, runs))
                while len(unscored) > MAX_UNSCORED:
                    unscored.popleft().result()
                bar.update()
            while unscored:
                unscored.popleft().result()
        return problem

    def _measure_costs(self, frame: DepthFrame) -> None:
        """Measure the cost of frames of a new size, not counted in `wall_s`."""
        started_s = time.perf_counter()
        self._table.measure(self._engine, frame.rgb, self._steps[-1], self._config.ensemble_size)
        self.wall_s -= time.perf_counter() - started_s

    def _infer(self, rgb: RgbImage, steps: int) -> InferenceRun:
        """Run the engine on an image without a latency cap."""
        started_s = time.perf_counter()
        prediction = self._engine.infer(rgb, num_inference_steps=steps,
                                        ensemble_size=self._config.ensemble_size)
        return InferenceRun(prediction, time.perf_counter() - started_s)

    def _score_frame(self, number: int, frame: DepthFrame,
                     runs: Mapping[str, InferenceRun]) -> None:
        """Score a frame, store the scores and call the callbacks; runs in the second thread."""
        aligned = {name: self._align(run.prediction.affine_invariant_depth, frame)
                   for name, run in runs.items()} | {
            name: self._align(predict(frame.rgb), frame)
            for name, predict in self._baselines.items()}
        evaluated = EvaluatedFrame(
            number, frame.name, frame.block, frame.set_name, frame.stamp_ns,
            self._engine.padded_size(*frame.rgb.shape[:2]),
            {name: measure(frame.rgb) for name, measure in MEASURES.items()},
            {name: run.prediction.num_inference_steps for name, run in runs.items()},
            {name: score_aligned(each).values if each else {} for name, each in aligned.items()},
            sum(run.engine_s for run in runs.values()))
        choice = self._primary.choose(evaluated)
        evaluated = replace(evaluated, primary_run=choice.run)
        if frame.stamp_ns is not None:
            run_by_policy = {self._primary.name: choice.run, self._slowest: self._slowest}
            evaluated = replace(evaluated, temporal={
                name: self._score_temporal(name, frame, runs[run], aligned[run])
                for name, run in run_by_policy.items()})
        self.frames.append(evaluated)
        abs_rel = evaluated.quality[choice.run].get('abs_rel', math.nan)
        chosen = aligned[choice.run]
        if chosen is not None and self.examples.register(abs_rel):
            self.examples.add(number, frame, abs_rel, choice.num_inference_steps,
                              chosen.depth_m, chosen.target_m)
        for callback in self._on_frame:
            callback(frame, runs, evaluated)

    def _score_temporal(self, policy: str, frame: DepthFrame, run: InferenceRun,
                        aligned: Aligned | None) -> dict[str, float]:
        """Score the temporal consistency of a policy's depth."""
        if aligned is None:
            return {}
        return self._temporal[policy].add(run.prediction.affine_invariant_depth, frame, aligned)

    def _align(self, depth: FloatImage, frame: DepthFrame) -> Aligned | None:
        """Align depth with the truth; None if the protocol has no pixel to compare."""
        try:
            return align_frame(depth, frame, self._data_set.rules, self._config.protocol)
        except InputError:
            return None
