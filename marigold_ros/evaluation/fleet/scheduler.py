"""Run jobs on a pool: keep it busy, try failed jobs again, and show the progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from marigold_ros.evaluation.fleet.tasks import Failure, PartResult, Task
from marigold_ros.progress import progress_bar, ProgressBar
from marigold_ros.stop_flag import StopFlag

# The first and the repetitions; of a worker that dies, a node that leaves, or input that fails.
ATTEMPTS = 3
POLL_S = 0.2
# Lines on a terminal; a cluster has more workers.
MAX_BARS = 16


class Pool(Protocol):
    """Workers that run tasks, on this machine or on several."""

    @property
    def workers(self) -> int:
        """Return how many tasks run at a time."""

    def submit(self, task: Task) -> Future[Any]:
        """Start a task; the future has an exception only if its worker dies or cannot start."""

    def progress(self, future: Future[Any]) -> int:
        """Return how many frames of a running task are done."""

    def limit_memory(self, task_bytes: int) -> None:
        """Use no more workers than have that much memory."""

    def close(self) -> None:
        """End all workers and their tasks."""


@dataclass(eq=False)
class Job:
    """
    A task, and what to do with its outcome.

    Attributes
    ----------
    title : str
        For the progress.
    task : callable
        Returns the task, when it is started.
    finish : callable
        Called with the result, or with a `Failure` after all attempts; returns the jobs that can
        start now, which go first.
    frames : int
        About how many it has.
    """

    title: str
    task: Callable[[], Task]
    finish: Callable[[Any], Iterable[Job]]
    frames: int = 0
    attempts: int = 0


def run_jobs(jobs: Iterable[Job], pool: Pool, stop: StopFlag, at_once: int | None = None) -> None:
    """
    Run all jobs.

    Parameters
    ----------
    jobs : iterable of Job
    pool : Pool
    stop : StopFlag
        Leaves the rest, and what is running.
    at_once : int or None
        Largest number that run at a time; None: as many as the pool has workers.
    """
    waiting, running = deque(jobs), dict[Future[Any], Job]()
    with _Bars(sum(job.frames for job in waiting)) as bars:
        while (waiting or running) and not stop.requested:
            while waiting and len(running) < (at_once or pool.workers):
                job = waiting.popleft()
                job.attempts += 1
                running[pool.submit(job.task())] = job
            done, _ = wait(running, POLL_S, FIRST_COMPLETED)
            bars.show({job: pool.progress(future) for future, job in running.items()
                       if future not in done})
            for future in done:
                job, result = running.pop(future), _result(future)
                if (isinstance(result, (Failure, PartResult)) and result.problem
                        and job.attempts < ATTEMPTS):
                    waiting.append(job)
                    continue
                waiting.extendleft(job.finish(result))
                bars.finish(job)


def _result(future: Future[Any]) -> Any:
    """Return the result of a job, or the failure of its worker."""
    err = future.exception()
    if err is None:
        return future.result()
    if isinstance(err, BrokenProcessPool):
        return Failure('its worker died, maybe for lack of memory')
    # Ray's errors say what has happened; that of a task wraps its cause.
    cause = getattr(err, 'cause', None) or err
    return Failure(f'{type(cause).__name__}: {cause}'.splitlines()[0])


class _Bars:
    """Bars with the remaining time, of all jobs and of each running one, if on a terminal."""

    def __init__(self, frames: int) -> None:
        self._total = progress_bar(desc='fleet', total=frames, unit='frame')
        self._finished = 0
        self._bars: dict[Job, ProgressBar] = {}

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in (*self._bars.values(), self._total):
            bar.close()

    def show(self, done: dict[Job, int]) -> None:
        """Show how many frames each running job has done."""
        for job in [job for job in self._bars if job not in done]:
            self._bars.pop(job).close()
        for job, frames in done.items():
            if job not in self._bars and len(self._bars) < MAX_BARS:
                free = set(range(1, MAX_BARS + 1)) - {-bar.pos for bar in self._bars.values()}
                self._bars[job] = progress_bar(desc=job.title, total=job.frames or None,
                                               unit='frame', position=min(free), leave=False)
            if job in self._bars:
                # More than was estimated would hide the bar and the remaining time.
                _set(self._bars[job], min(frames, job.frames or frames))
        _set(self._total, self._finished + sum(
            min(frames, job.frames) for job, frames in done.items()))

    def finish(self, job: Job) -> None:
        """Count the frames of a job as done."""
        self._finished += job.frames


def _set(bar: ProgressBar, frames: int) -> None:
    bar.n = frames
    bar.refresh()
