"""Read frames, run them with every T, score them beside the next inference, keep the numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
import math
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

from marigold_ros.data.bags.problems import Damage
from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import DepthFrame
from marigold_ros.data.read_ahead import read_ahead
from marigold_ros.depth.complexity import MEASURES
from marigold_ros.depth.errors import BagError, InputError
from marigold_ros.evaluation.config import EvaluationConfig, fixed_name
from marigold_ros.evaluation.metrics.baselines import Baseline
from marigold_ros.evaluation.metrics.protocols import align_frame, Aligned, score_aligned
from marigold_ros.evaluation.metrics.temporal import TemporalFollower
from marigold_ros.evaluation.policies.frame_runs import FrameRunner, FrameRuns, Run
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.evaluation.policies.replay import PolicyReplay
from marigold_ros.evaluation.report.exemplars import Exemplars
from marigold_ros.stop_flag import StopFlag

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine
    from marigold_ros.depth.types import FloatImage

# Frames whose scores may still be missing while the engine goes on: enough to keep it busy.
SCORES_BEHIND = 2


@dataclass(frozen=True, eq=False)
class ScoredFrame:
    """
    A frame with all its runs and pictures, before they are thrown away.

    Attributes
    ----------
    frame : DepthFrame
    runs : dict of str to Run
    kept : FrameRuns
        The numbers.
    """

    frame: DepthFrame
    runs: dict[str, Run]
    kept: FrameRuns


@dataclass(frozen=True, eq=False)
class Session:
    """
    What was measured.

    Attributes
    ----------
    frames : list of FrameRuns
    exemplars : Exemplars
        By the first policy, each frame alone.
    max_inference_steps : int
        Tmax.
    complete : bool
        Whether all frames asked for were evaluated.
    notes : list of str
        What is missing, and why.
    wall_s, engine_s : float
        From the first frame to the last, and the part of it that the engine worked.
    """

    frames: list[FrameRuns]
    exemplars: Exemplars
    max_inference_steps: int
    complete: bool
    notes: list[str]
    wall_s: float
    engine_s: float


def run_session(engine: DepthEngine, data_set: DataSet, config: EvaluationConfig,
                table: LatencyTable, baselines: Sequence[Baseline],
                stop: StopFlag,
                on_frame: Callable[[ScoredFrame], None] = lambda _: None) -> Session:
    """
    Evaluate a data set.

    Parameters
    ----------
    engine : DepthEngine
    data_set : DataSet
    config : EvaluationConfig
    table : LatencyTable
        Sizes that it does not know yet are measured when they first come.
    baselines : sequence of Baseline
    stop : StopFlag
        Ends the session after the frame under way.
    on_frame : callable
        Sees every frame with its pictures, in order.

    Returns
    -------
    Session

    Raises
    ------
    BagError, InputError
        If not a single frame can be evaluated.
    KeyboardInterrupt
        If it was interrupted before the first.
    """
    walk = _Walk(engine, data_set, config, table, baselines, on_frame)
    total = data_set.count
    if config.max_frames is not None:
        total = config.max_frames if total is None else min(total, config.max_frames)
    with ThreadPoolExecutor(1, 'scores') as pool:
        started_s = time.perf_counter()
        problem = walk.all(pool, stop, total)
        wall_s = time.perf_counter() - started_s - walk.apart_s
    if not walk.kept:
        if stop.requested:
            raise KeyboardInterrupt
        raise problem or InputError(f'{data_set.name}: no frame was evaluated')
    notes = [*([str(problem)] if problem else []), *data_set.notes]
    if stop.requested:
        notes.insert(0, f'interrupted after {len(walk.kept)}'
                        + (f' of {total}' if total else '') + ' frames')
    complete = not (problem or stop.requested
                    or any(isinstance(note, Damage) for note in notes))
    return Session(walk.kept, walk.exemplars, walk.runner.max_inference_steps, complete, notes,
                   wall_s,
                   sum(frame.engine_s for frame in walk.kept))


class _Walk:
    """Frames on their way; scores are made in a second thread, at most `SCORES_BEHIND` late."""

    def __init__(self, engine: DepthEngine, data_set: DataSet, config: EvaluationConfig,
                 table: LatencyTable, baselines: Sequence[Baseline],
                 on_frame: Callable[[ScoredFrame], None]) -> None:
        self.runner = FrameRunner(engine, config)
        self.kept: list[FrameRuns] = []
        self.exemplars = Exemplars()
        self.apart_s = 0.0    # spent on the latency table
        self._engine, self._data_set, self._config = engine, data_set, config
        self._table, self._baselines, self._on_frame = table, baselines, on_frame
        self._first_policy = PolicyReplay(config.policies[0], self.runner.max_inference_steps)
        self._reference = fixed_name(self.runner.max_inference_steps)
        self._followers = {name: TemporalFollower(data_set.rules, config.protocol)
                           for name in (config.policies[0], self._reference)}

    def all(self, pool: ThreadPoolExecutor, stop: StopFlag,
            total: int | None) -> Exception | None:
        """Walk all frames; return what made reading end early, if anything."""
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
                behind.append(pool.submit(self._keep, number, frame, self._run(frame)))
                while len(behind) > SCORES_BEHIND:
                    behind.popleft().result()
                bar.update()
            while behind:
                behind.popleft().result()
        return problem

    def _run(self, frame: DepthFrame) -> dict[str, Run]:
        started_s = time.perf_counter()
        self._table.measure(self._engine, frame.rgb, self.runner.longest,
                            self._config.ensemble_size)
        self.apart_s += time.perf_counter() - started_s
        return self.runner.run(frame.rgb)

    def _keep(self, number: int, frame: DepthFrame, runs: dict[str, Run]) -> None:
        """Score a frame, show it to who wants it and keep its numbers; in the second thread."""
        aligned = {name: self._aligned(run.depth, frame) for name, run in runs.items()} | {
            each.name: self._aligned(each.predict(frame.rgb), frame) for each in self._baselines}
        kept = FrameRuns(
            number, frame.name, frame.block, frame.set_name, frame.stamp_ns,
            self._engine.processing_size(*frame.rgb.shape[:2]),
            {name: measure(frame.rgb) for name, measure in MEASURES.items()},
            {name: run.num_inference_steps for name, run in runs.items()},
            {name: score_aligned(each).values if each else {} for name, each in aligned.items()},
            sum(run.engine_s for run in runs.values()))
        choice = self._first_policy.choose(kept)
        chosen = aligned[choice.run]
        if frame.stamp_ns is not None:
            run_of = {self._first_policy.name: choice.run, self._reference: self._reference}
            kept = replace(kept, temporal={
                name: self._follow(name, frame, runs[run], aligned[run])
                for name, run in run_of.items()})
        self.kept.append(kept)
        abs_rel = kept.quality[choice.run].get('abs_rel', math.nan)
        if chosen is not None and self.exemplars.wants(abs_rel):
            self.exemplars.add(number, frame, abs_rel, choice.num_inference_steps,
                               chosen.depth_m, chosen.target_m)
        self._on_frame(ScoredFrame(frame, runs, kept))

    def _follow(self, policy: str, frame: DepthFrame, run: Run,
                aligned: Aligned | None) -> dict[str, float]:
        """Judge how steady a policy's depth is since its last frame."""
        if aligned is None:
            return {}
        return self._followers[policy].add(run.depth, frame, aligned)

    def _aligned(self, depth: FloatImage, frame: DepthFrame) -> Aligned | None:
        """Bring depth into metres; None where the protocol leaves nothing to compare."""
        try:
            return align_frame(depth, frame, self._data_set.rules, self._config.protocol)
        except InputError:
            return None
