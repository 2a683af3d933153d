"""What the workers of a fleet run, on this machine or on another: parts, and reports from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
import io
import os
from pathlib import Path
import pickle
import resource
from tempfile import TemporaryDirectory
import traceback
from typing import Any
import zlib

import cv2

from marigold_ros.data.bags.read_issues import DamageNote
from marigold_ros.data.frames import Part
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.analysis import analyse
from marigold_ros.evaluation.config import EvaluationConfig
from marigold_ros.evaluation.evaluate import (
    describe_machine,
    Evaluation,
    LATENCY_TABLE,
    open_inputs,
    run_session,
    write_evaluation,
)
from marigold_ros.evaluation.policies.latency import LatencyTable, Size
from marigold_ros.evaluation.policies.replay import Replay
from marigold_ros.evaluation.report.summary import latency_table_summary
from marigold_ros.evaluation.runner import EvaluationSession
from marigold_ros.memory import keep_freed_memory
from marigold_ros.progress import hide_progress_bars
from marigold_ros.stop_flag import StopFlag

# Of one of several parts, whose results are small then: 8 MB for two minutes at 10 Hz.
MEDIAN_EXAMPLES, COMPRESSION = 4, 1
# Key of the machine of a table.
REQUESTED_DEVICE = 'requested_device'
# A worker keeps its engine for the next task.
_load_engine = lru_cache(maxsize=1)(DepthEngine.load)

# Called with the number of frames that are done.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class PartResult:
    """
    A part of a recording.

    Attributes
    ----------
    content : bytes
        The pickled `Evaluation`, compressed.
    problem : str
        Why it is not complete; empty if it is.
    table : LatencyTable
        With the sizes that were measured, as they first occurred in this part.
    """

    content: bytes
    problem: str
    table: LatencyTable


@dataclass(frozen=True)
class Report:
    """
    The report on a recording.

    Attributes
    ----------
    files : dict of str to bytes
        By path below the folder of the recording.
    problem : str
        Why it is not complete; empty if it is.
    """

    files: dict[str, bytes]
    problem: str


@dataclass(frozen=True)
class Measurement:
    """
    What the first frame of a recording costs.

    Attributes
    ----------
    table : LatencyTable
    size : (int, int) or None
        Padded processing size of the frame; None if none could be read.
    peak_bytes : int
        Largest memory of the worker so far.
    """

    table: LatencyTable
    size: Size | None
    peak_bytes: int


@dataclass(frozen=True)
class Failure:
    """Why a task has failed."""

    problem: str


@dataclass(frozen=True)
class PartTask:
    """Evaluate a part of a recording."""

    options: argparse.Namespace
    part: Part
    table: LatencyTable

    def __call__(self, progress: Progress) -> PartResult:
        """Evaluate the frames."""
        done = 0

        def count(replay: Replay) -> None:
            nonlocal done
            done += not replay.recorded.frame.is_lead_in
            progress(done)

        with ExitStack() as stack:
            inputs = open_inputs(self.options, stack, self.part)
            engine = _prepare_engine(inputs.config, self.options.device, self.table)
            _, evaluation = run_session(inputs, engine, self.table, StopFlag(signals=()),
                                        on_frame=[count])
        if self.part.count > 1:
            evaluation.session.examples.thin(MEDIAN_EXAMPLES)
        return PartResult(zlib.compress(pickle.dumps(evaluation), COMPRESSION),
                          describe_problem(evaluation), self.table)


@dataclass(frozen=True)
class ReportTask:
    """
    Join the parts of a recording, and write the files of `evaluate`.

    Attributes
    ----------
    options : argparse.Namespace
    command : str
        That evaluates the recording alone.
    parts : list of (bytes or str)
        The pickled `Evaluation` of each part, or why there is none.
    table : LatencyTable
    table_file : str
    """

    options: argparse.Namespace
    command: str
    parts: Sequence[bytes | str]
    table: LatencyTable
    table_file: str

    def __call__(self, progress: Progress) -> Report:
        """Write the files."""
        evaluation = join_parts(self.parts)
        with ExitStack() as stack:
            inputs = open_inputs(self.options, stack)
            analysis = analyse(evaluation.session, inputs.config.latency_cap_s,
                               mean_of_blocks=inputs.data_set.mean_of_blocks)
            out = Path(stack.enter_context(TemporaryDirectory()))
            stack.enter_context(redirect_stdout(io.StringIO()))
            options = copy(self.options)
            options.out = out
            self.table.save(out / LATENCY_TABLE)
            write_evaluation(options, inputs, evaluation, analysis, {
                'command': self.command,
                'latency_table': latency_table_summary(self.table, self.table_file)})
            files = {str(path.relative_to(out)): path.read_bytes()
                     for path in sorted(out.rglob('*')) if path.is_file()}
        return Report(files, describe_problem(evaluation))


@dataclass(frozen=True)
class MeasureTask:
    """
    Run the first frame of a recording: what it costs, and how much memory it needs.

    Attributes
    ----------
    options : argparse.Namespace
    table : LatencyTable
        Is extended if it lacks the size.
    known : frozenset of (int, int)
        Padded processing sizes whose memory is known, which are not run again.
    """

    options: argparse.Namespace
    table: LatencyTable
    known: frozenset[Size]

    def __call__(self, progress: Progress) -> Measurement:
        """Run the networks with the most steps."""
        with ExitStack() as stack:
            try:
                inputs = open_inputs(self.options, stack)
                frame = next(inputs.data_set.frames(), None)
            except MarigoldError:  # told when its parts are evaluated
                frame = None
            if frame is None:
                return Measurement(self.table, None, _peak_bytes())
            config = inputs.config
            engine = _prepare_engine(config, self.options.device, self.table)
            size = engine.padded_size(*frame.rgb.shape[:2])
            if size not in self.known:
                session = EvaluationSession(engine, inputs.data_set, config, self.table,
                                            inputs.baselines)
                session.measure_costs(frame.rgb)
                # Of a size that the table has, nothing was run.
                engine.infer_batch([frame.rgb], [session.result.max_inference_steps],
                                   ensemble_size=config.ensemble_size)
        return Measurement(self.table, size, _peak_bytes())


def _prepare_engine(config: EvaluationConfig, device: str, table: LatencyTable) -> DepthEngine:
    """Return the engine; a new table notes what it is measured on."""
    engine = _load_engine(config.checkpoint, device=device,
                          processing_resolution=config.processing_resolution)
    table.machine = table.machine or {**describe_machine(config, engine),
                                      REQUESTED_DEVICE: device}
    return engine


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


Task = PartTask | ReportTask | MeasureTask


def run_task(task: Task, progress: Progress) -> Any:
    """
    Run a task on one core, without a progress bar of its own.

    Returns
    -------
    object
        What the task returns, or a `Failure`: not every exception survives pickling.
    """
    os.environ['OMP_NUM_THREADS'] = '1'  # read by cpu_thread_count
    reserve_one_core()
    keep_freed_memory()
    cv2.setNumThreads(1)
    hide_progress_bars()
    try:
        return task(progress)
    except MarigoldError as err:
        return Failure(str(err))
    except Exception as err:
        traceback.print_exc()
        return Failure(f'{type(err).__name__}: {err}')


def describe_problem(evaluation: Evaluation) -> str:
    """Say why an evaluation is not complete; return an empty text if it is."""
    if evaluation.session.complete:
        return ''
    notes = evaluation.session.notes
    return '; '.join([note for note in notes if isinstance(note, DamageNote)] or notes[:1])


def join_parts(parts: Sequence[bytes | str]) -> Evaluation:
    """
    Join the evaluations of the parts of a recording.

    Parameters
    ----------
    parts : sequence of (bytes or str)
        The pickled `Evaluation` of each part, or why there is none; at least one is there.
    """
    there = {number: pickle.loads(zlib.decompress(part)) for number, part in enumerate(parts)
             if isinstance(part, bytes)}
    evaluations: list[Evaluation] = list(there.values())
    whole, common = evaluations[0], set.intersection(*(set(each.session.notes)
                                                       for each in evaluations))
    for later in evaluations[1:]:
        whole.look.join(later.look, whole.session.offset_of(later.session))
        whole.session.extend(later.session)
        for name, evaluator in whole.metric.items():
            evaluator.extend(later.metric[name])
    whole.notes = list(dict.fromkeys(note for each in evaluations for note in each.notes))
    notes: dict[str, None] = {}
    for number, part in enumerate(parts):
        where = f'part {number + 1} of {len(parts)}: '
        own = ([DamageNote(part)] if isinstance(part, str)
               else there[number].session.notes)
        notes |= dict.fromkeys(note if note in common else type(note)(where + note)
                               for note in own)
    whole.session.complete = (len(there) == len(parts)
                              and all(each.session.complete for each in evaluations))
    whole.session.notes = list(notes)
    return whole
