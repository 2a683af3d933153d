"""`evaluate fleet`: evaluate the recordings of a list on this machine or on a Ray cluster."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
import fcntl
from hashlib import sha256
from pathlib import Path
import sys
from typing import Any

from marigold_ros.data.frames import Part
from marigold_ros.depth.config import require
from marigold_ros.depth.device import resolve_device
from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.evaluation.environment import count_cores
from marigold_ros.evaluation.evaluate import (
    BAD_INPUT,
    create_output_folder,
    INTERRUPTED,
    LATENCY_TABLE,
    NAME,
)
from marigold_ros.evaluation.fleet.fleet_list import ListedRecording, read_fleet_list
from marigold_ros.evaluation.fleet.local_pool import LocalPool
from marigold_ros.evaluation.fleet.recordings import FleetRecording
from marigold_ros.evaluation.fleet.scheduler import Job, Pool, run_jobs
from marigold_ros.evaluation.fleet.store import RecordingStore
from marigold_ros.evaluation.fleet.tasks import (
    Failure,
    MeasureTask,
    PartTask,
    ReportTask,
    REQUESTED_DEVICE,
)
from marigold_ros.evaluation.policies.latency import LatencyTable, Size
from marigold_ros.evaluation.report.fleet import read_baseline, write_fleet_report
from marigold_ros.stop_flag import StopFlag

LOCK = '.lock'
# What is measured must not wait for others.
ONE_AT_A_TIME = 1


class SharedTable:
    """
    One latency table for all recordings with the same settings, wherever they run.

    Parameters
    ----------
    file : Path
        Where it is kept.
    recordings : sequence of ListedRecording

    Attributes
    ----------
    table : LatencyTable
    known : set of (int, int)
        Padded processing sizes at which the memory of a task is known.
    identity : str
        Of what it held before any size was added.

    Raises
    ------
    InputError
        If the given table cannot be read.
    """

    def __init__(self, file: Path, recordings: Sequence[ListedRecording]) -> None:
        options = recordings[0].options
        self.file, self.recordings, given = file, recordings, options.latency_table
        self.known: set[Size] = set()
        self.table = LatencyTable({}) if given is None else LatencyTable.load(given)
        kept = self._load_kept()
        if kept is None:
            pass
        elif given is not None:
            if kept.measured_utc == self.table.measured_utc:  # sizes that it lacked
                self.table.samples = kept.samples | self.table.samples
        elif ((kept.machine.get('checkpoint'), kept.machine.get('ensemble_size'),
               kept.machine.get(REQUESTED_DEVICE))
              == (options.checkpoint, str(options.ensemble_size), options.device)):
            self.table = kept
        # Sizes may be added, but are never measured again.
        self.identity = (self.table.measured_utc if given is None
                         else sha256(given.read_bytes()).hexdigest())

    def _load_kept(self) -> LatencyTable | None:
        """Return the table of an earlier start, unless it is damaged or of another version."""
        try:
            return LatencyTable.load(self.file) if self.file.is_file() else None
        except InputError:
            return None

    def add(self, measured: LatencyTable) -> None:
        """Add and save the sizes that a task has measured; those that are known stay."""
        if self.file.is_file() and measured.samples.keys() <= self.table.samples.keys():
            return
        self.table.machine = self.table.machine or measured.machine
        self.table.samples = measured.samples | self.table.samples
        self.table.save(self.file)


class RecordingRun:
    """
    What is done of a recording: its parts, then its report.

    Parameters
    ----------
    recording : ListedRecording
    shared : SharedTable

    Attributes
    ----------
    outcome : FleetRecording or None
        None until it is finished.
    """

    def __init__(self, recording: ListedRecording, shared: SharedTable) -> None:
        self.recording, self._shared = recording, shared
        self._store = RecordingStore(recording, shared.identity)
        self._failures: dict[int, str] = {}
        self.outcome: FleetRecording | None = None
        problem = self._store.problem_of_report()
        if problem is not None:
            self._end('partial' if problem else 'complete', problem)

    def measure_job(self, pool: Pool) -> Job:
        """Return the job that measures the cost and the memory of the first frame."""
        shared = self._shared

        def finish(result: Any) -> list[Job]:
            if isinstance(result, Failure):
                self._end('failed', f'its first frame cannot be run: {result.problem}')
                return []
            shared.add(result.table)
            if result.size is not None:
                shared.known.add(result.size)
            pool.limit_memory(result.peak_bytes)
            return []

        return Job(f'{self.recording.name}: measuring', lambda: MeasureTask(
            self.recording.options, shared.table, frozenset(shared.known)), finish, 1)

    def jobs(self) -> list[Job]:
        """Return the jobs that can start: the missing parts, or the report."""
        if self.outcome is not None:
            return []
        missing = [number for number in range(self.recording.parts)
                   if not self._store.part_path(number).is_file()]
        return [self._part_job(number) for number in missing] or [self._report_job()]

    def _part_job(self, number: int) -> Job:
        recording = self.recording
        part = Part(number, recording.parts, recording.lead_in_s)

        def finish(result: Any) -> list[Job]:
            if isinstance(result, Failure):
                self._failures[number] = result.problem
            else:
                self._shared.add(result.table)
                self._store.save_part(number, result.content)
            if any(self._part(each) is None for each in range(recording.parts)):
                return []
            if len(self._failures) < recording.parts:
                return [self._report_job()]
            self._end('failed', '; '.join(dict.fromkeys(self._failures.values())))
            return []

        of_all = '' if part.count == 1 else f' {number + 1}/{part.count}'
        return Job(recording.name + of_all,
                   lambda: PartTask(recording.options, part, self._shared.table), finish,
                   len(part.split(recording.frames)))

    def _part(self, number: int) -> Path | str | None:
        """Return the file of a part, or why it has failed; None if it is not done yet."""
        path = self._store.part_path(number)
        return path if path.is_file() else self._failures.get(number)

    def _report_job(self) -> Job:
        recording = self.recording

        def task() -> ReportTask:
            parts = [self._part(number) for number in range(recording.parts)]
            return ReportTask(
                recording.options, recording.command,
                [part.read_bytes() if isinstance(part, Path) else str(part) for part in parts],
                self._shared.table, str(self._shared.file))

        def finish(result: Any) -> list[Job]:
            if isinstance(result, Failure):
                self._end('failed', result.problem)
            else:
                self._store.save_report(result.files, result.problem,
                                        is_final=not self._failures)
                self._end('partial' if result.problem else 'complete', result.problem)
            return []

        return Job(f'{recording.name}: report', task, finish)

    def _end(self, state: str, detail: str) -> None:
        self.outcome = FleetRecording(self.recording.name, self.recording.folder,
                                      self.recording.tags, state, detail)


def run_fleet(options: argparse.Namespace) -> int:
    """
    Evaluate the recordings of a list, and write their reports and one over all.

    Parameters
    ----------
    options : argparse.Namespace
        Of `evaluate fleet`.

    Returns
    -------
    int
        0 if all recordings are complete, 2 if one is not, 130 after Ctrl-C.

    Raises
    ------
    MarigoldError
        If the list is invalid, or nothing can be evaluated.
    """
    # Validate everything before any work starts.
    out = options.out.absolute()
    if options.baseline is not None:
        require(options.baseline.resolve() != out.resolve(), 'baseline',
                'another folder than `out`, whose report is replaced', str(options.baseline))
        read_baseline(options.baseline)
    listed = read_fleet_list(options.list, out, on_cluster=options.ray is not None)
    create_output_folder(out)
    with _lock(out):
        return _evaluate(listed, out, options)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Keep a second start from the same folder, until this one ends or dies."""
    with (out / LOCK).open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise ConfigError('`out` must be a folder that no running evaluation of a fleet '
                              f'writes to; got {str(out)!r}') from err
        except OSError:  # a network folder without locks
            pass
        yield


def _evaluate(listed: Sequence[ListedRecording], out: Path, options: argparse.Namespace) -> int:
    # 1. Find what an earlier start has left to do.
    tables = share_tables(listed, out)
    by_name = {recording.name: RecordingRun(recording, table)
               for table in tables for recording in table.recordings}
    left = [run for run in by_name.values() if run.outcome is None]
    if len(left) < len(listed):
        print(f'{NAME}: {len(listed) - len(left)} of {len(listed)} recordings are finished '
              'already', file=sys.stderr)

    # 2. Measure what a frame costs, while nothing runs beside; then evaluate.
    with StopFlag(terminate_on_second_signal=True) as stop:
        if left:
            with closing(_open_pool(options.ray, left)) as pool:
                run_jobs([run.measure_job(pool) for run in left], pool, stop, ONE_AT_A_TIME)
                run_jobs([job for run in left for job in run.jobs()], pool, stop)

    # 3. Report.
    outcomes = [by_name[each.name].outcome for each in listed]
    recordings = [outcome for outcome in outcomes if outcome is not None]
    if len(recordings) < len(listed):
        print(f'{NAME}: interrupted; {len(recordings)} of {len(listed)} recordings are finished. '
              'The same command continues; nothing that is done is run again', file=sys.stderr)
        return INTERRUPTED
    write_fleet_report(out, recordings, options.baseline)
    for each in recordings:
        print(f'{each.name}: {each.state}' + (f': {each.detail}' if each.detail else ''))
    return 0 if all(each.state == 'complete' for each in recordings) else BAD_INPUT


def share_tables(listed: Sequence[ListedRecording], out: Path) -> list[SharedTable]:
    """Group recordings whose frames cost the same, and open the table of each group."""
    groups: dict[tuple[Any, ...], list[ListedRecording]] = {}
    for each in listed:
        settings = each.options
        groups.setdefault((settings.latency_table, settings.checkpoint, settings.ensemble_size,
                           settings.device), []).append(each)
    name = Path(LATENCY_TABLE)
    return [SharedTable(out / (f'{name.stem}_{number}{name.suffix}' if number else name), group)
            for number, group in enumerate(groups.values())]


def _open_pool(address: str | None, runs: Sequence[RecordingRun]) -> Pool:
    """Return the workers: of a cluster, or of this machine, where a GPU has one."""
    devices = {run.recording.options.device for run in runs}
    if address is None:
        uses_gpu = any(resolve_device(device).type == 'cuda' for device in devices
                       if not device.startswith('openvino'))
        parts = sum(run.recording.parts for run in runs)
        return LocalPool(1 if uses_gpu else min(count_cores(), parts))
    try:
        from marigold_ros.evaluation.fleet.ray_pool import RayPool
    except ModuleNotFoundError as err:
        raise ConfigError("`ray` needs Ray, which is not installed: pip install "
                          "'marigold_ros[fleet]'") from err
    if len(devices) > 1:
        raise ConfigError('`device` must be the same for all recordings on a Ray cluster; '
                          f'got {sorted(devices)}')
    return RayPool(address, devices.pop())
