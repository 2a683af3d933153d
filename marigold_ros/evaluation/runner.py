"""Read frames, run them with every T, score them beside the next inference, keep the numbers."""

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
from marigold_ros.evaluation.policies.replay import FrameRuns, PolicyReplay
from marigold_ros.evaluation.report.exemplars import Exemplars
from marigold_ros.stop_flag import StopFlag

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine
    from marigold_ros.depth.types import DepthPrediction, FloatImage, RgbImage

# Frames whose scores may still be missing while the engine goes on: enough to keep it busy.
SCORES_BEHIND = 2

# What makes depth from an image, uint8 [H, W, 3] -> float32 [H, W].
Baselines = Mapping[str, Callable[['RgbImage'], 'FloatImage']]


@dataclass(frozen=True, eq=False)
class Run:
    """A prediction, and what it took in the engine, s."""

    prediction: DepthPrediction
    engine_s: float


# Sees each frame with its runs, by the fixed policy, and its numbers, in order.
OnFrame = Callable[[DepthFrame, Mapping[str, Run], FrameRuns], None]


class Session:
    """
    Runs the frames of a data set with every T that the policies may choose, and scores them.

    Scores are made in a second thread, at most `SCORES_BEHIND` frames late.

    Parameters
    ----------
    engine : DepthEngine
    data_set : DataSet
    config : EvaluationConfig
    table : LatencyTable
        Sizes that it does not know yet are measured when they first come.
    baselines : mapping of str to callable
        Depth from something else than the engine.

    Attributes
    ----------
    frames : list of FrameRuns
    exemplars : Exemplars
        By the first policy, each frame alone.
    max_inference_steps : int
        Tmax: depth_node's default, less where the checkpoint is good for less; the largest of
        the fixed T where nothing else is asked for.
    complete : bool
        Whether all frames asked for were evaluated.
    notes : list of str
        What is missing, and why.
    wall_s : float
        From the first frame to the last, without measuring the latency table.
    """

    def __init__(self, engine: DepthEngine, data_set: DataSet, config: EvaluationConfig,
                 table: LatencyTable, baselines: Baselines) -> None:
        self._engine, self._data_set, self._config = engine, data_set, config
        self._table, self._baselines = table, baselines
        fixed = {steps for name in config.policies if (steps := fixed_steps(name))}
        if config.chooses:
            self.max_inference_steps = min(StepPolicyConfig.max_inference_steps,
                                           engine.checkpoint_info.max_useful_steps)
            fixed |= set(range(1, self.max_inference_steps + 1))
        else:
            self.max_inference_steps = max(fixed)
        self._steps = sorted(fixed)
        self._judged = PolicyReplay(config.policies[0], self.max_inference_steps)
        self._reference = fixed_name(self.max_inference_steps)
        self._followers = {name: TemporalEvaluator(data_set.rules, config.protocol)
                           for name in (config.policies[0], self._reference)}
        self._on_frame: list[OnFrame] = []
        self.frames: list[FrameRuns] = []
        self.exemplars = Exemplars()
        self.complete = False
        self.notes: list[str] = []
        self.wall_s = 0.0

    @property
    def engine_s(self) -> float:
        """Time that the engine worked."""
        return sum(frame.engine_s for frame in self.frames)

    def run(self, stop: StopFlag, *on_frame: OnFrame) -> None:
        """
        Evaluate all frames.

        Parameters
        ----------
        stop : StopFlag
            Ends the session after the frame under way.
        *on_frame : callable
            See every frame with its runs, in order, in the thread of the scores.

        Raises
        ------
        BagError, InputError
            If not a single frame can be evaluated, or what `on_frame` raises.
        KeyboardInterrupt
            If it was interrupted before the first.
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
        """Run and score frame by frame; return what made reading end early, if anything."""
        behind: deque[Future[None]] = deque()
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
                    problem = err    # what was read before is still worth a report
                    break
                self._measure_costs(frame)
                runs = {fixed_name(steps): self._infer(frame.rgb, steps)
                        for steps in self._steps}
                behind.append(pool.submit(self._keep, number, frame, runs))
                while len(behind) > SCORES_BEHIND:
                    behind.popleft().result()
                bar.update()
            while behind:
                behind.popleft().result()
        return problem

    def _measure_costs(self, frame: DepthFrame) -> None:
        """Measure what frames of a new size cost; that is no part of the session's time."""
        started_s = time.perf_counter()
        self._table.measure(self._engine, frame.rgb, self._steps[-1], self._config.ensemble_size)
        self.wall_s -= time.perf_counter() - started_s

    def _infer(self, rgb: RgbImage, steps: int) -> Run:
        """Run a frame without a cap."""
        started_s = time.perf_counter()
        prediction = self._engine.infer(rgb, num_inference_steps=steps,
                                        ensemble_size=self._config.ensemble_size)
        return Run(prediction, time.perf_counter() - started_s)

    def _keep(self, number: int, frame: DepthFrame, runs: Mapping[str, Run]) -> None:
        """Score a frame, show it to who wants it and keep its numbers; in the second thread."""
        aligned = {name: self._aligned(run.prediction.affine_invariant_depth, frame)
                   for name, run in runs.items()} | {
            name: self._aligned(predict(frame.rgb), frame)
            for name, predict in self._baselines.items()}
        kept = FrameRuns(
            number, frame.name, frame.block, frame.set_name, frame.stamp_ns,
            self._engine.padded_size(*frame.rgb.shape[:2]),
            {name: measure(frame.rgb) for name, measure in MEASURES.items()},
            {name: run.prediction.num_inference_steps for name, run in runs.items()},
            {name: score_aligned(each).values if each else {} for name, each in aligned.items()},
            sum(run.engine_s for run in runs.values()))
        choice = self._judged.choose(kept)
        kept = replace(kept, judged=choice.run)
        if frame.stamp_ns is not None:
            run_of = {self._judged.name: choice.run, self._reference: self._reference}
            kept = replace(kept, temporal={
                name: self._follow(name, frame, runs[run], aligned[run])
                for name, run in run_of.items()})
        self.frames.append(kept)
        abs_rel, chosen = kept.quality[choice.run].get('abs_rel', math.nan), aligned[choice.run]
        if chosen is not None and self.exemplars.wants(abs_rel):
            self.exemplars.add(number, frame, abs_rel, choice.num_inference_steps,
                               chosen.depth_m, chosen.target_m)
        for show in self._on_frame:
            show(frame, runs, kept)

    def _follow(self, policy: str, frame: DepthFrame, run: Run,
                aligned: Aligned | None) -> dict[str, float]:
        """Judge how steady a policy's depth is since its last frame."""
        if aligned is None:
            return {}
        return self._followers[policy].add(run.prediction.affine_invariant_depth, frame, aligned)

    def _aligned(self, depth: FloatImage, frame: DepthFrame) -> Aligned | None:
        """Bring depth into metres; None where the protocol leaves nothing to compare."""
        try:
            return align_frame(depth, frame, self._data_set.rules, self._config.protocol)
        except InputError:
            return None
