"""Run tasks on this machine, each worker in a process of its own."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
import multiprocessing
from multiprocessing.connection import Connection
import os
from pathlib import Path
import signal
from threading import Thread
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from marigold_ros.evaluation.fleet.tasks import Task

# Of the measured peak, for larger images and what is read ahead.
MEMORY_RESERVE = 1.5
CGROUP = Path('/sys/fs/cgroup')


class _Worker:
    """A pool of one process, and the frames of its task that it has finished."""

    def __init__(self, parent: Connection) -> None:
        context = multiprocessing.get_context('spawn')
        self.done = context.RawValue('q')
        self.executor = ProcessPoolExecutor(1, context, _start_worker, (self.done, parent))
        self.imported = self.executor.submit(_import_tasks)


class LocalPool:
    """
    Processes of one worker each.

    Each worker is a pool of its own: when it dies, only its task is lost, and it is known which.
    All start before the first task.

    Parameters
    ----------
    workers : int
        Largest number of tasks at a time.

    Attributes
    ----------
    workers : int
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        # Workers end when this end is closed, also by the death of this process.
        self._parent, self._alive = multiprocessing.Pipe(duplex=False)
        self._has_started = False
        self._idle: list[_Worker] = []
        self._running: dict[Future[Any], _Worker] = {}

    def limit_memory(self, task_bytes: int) -> None:
        """Use only as many workers as fit into the free memory."""
        self.workers = max(1, min(self.workers, int(
            free_memory_bytes() / (MEMORY_RESERVE * task_bytes))))
        self._collect_idle()
        while self._idle and len(self._idle) + len(self._running) > self.workers:
            self._idle.pop().executor.shutdown()

    def submit(self, task: Task) -> Future[Any]:
        """Start a task in an idle worker."""
        if not self._has_started:
            self._start_workers()
        self._collect_idle()
        worker = self._idle.pop() if self._idle else _Worker(self._parent)
        worker.done.value = 0
        try:
            future = worker.executor.submit(_run, task)
        except BrokenProcessPool:  # died while it was idle
            worker.executor.shutdown()
            return self.submit(task)
        self._running[future] = worker
        return future

    def _start_workers(self) -> None:
        """Start all workers side by side, as that takes seconds, and wait for them."""
        self._has_started = True
        self._idle = [_Worker(self._parent) for _ in range(self.workers)]
        wait(worker.imported for worker in self._idle)

    def _collect_idle(self) -> None:
        """Take back the workers that have finished; those that have died are replaced later."""
        for future in [each for each in self._running if each.done()]:
            worker = self._running.pop(future)
            if isinstance(future.exception(), BrokenProcessPool):
                worker.executor.shutdown()
            else:
                self._idle.append(worker)

    def progress(self, future: Future[Any]) -> int:
        """Return how many frames of a task are done."""
        return int(self._running[future].done.value)

    def close(self) -> None:
        """End all workers at once: leaving by themselves takes them seconds."""
        self._alive.close()
        for worker in (*self._idle, *self._running.values()):
            worker.executor.shutdown()
        self._parent.close()


def free_memory_bytes(cgroup: Path = CGROUP) -> int:
    """Return the memory that is available without swapping, of this machine or its container."""
    for line in Path('/proc/meminfo').read_text(encoding='ascii').splitlines():
        if line.startswith('MemAvailable:'):
            free = 1024 * int(line.split()[1])
    limit = cgroup / 'memory.max'
    if limit.is_file() and (text := limit.read_text(encoding='ascii').strip()).isdecimal():
        used = int((cgroup / 'memory.current').read_text(encoding='ascii'))
        facts = dict(line.split() for line in
                     (cgroup / 'memory.stat').read_text(encoding='ascii').splitlines())
        # What was read from files is kept while nobody needs the memory.
        free = min(free, int(text) - used + int(facts['inactive_file']))
    return free


_done: Any = None


def _start_worker(done: Any, parent: Connection) -> None:
    """Prepare a worker: Ctrl-C is the parent's, whose end is its own."""
    global _done
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _done = done

    def end_with_parent() -> None:
        parent.poll(None)
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()


def _import_tasks() -> None:
    import marigold_ros.evaluation.fleet.tasks  # noqa: F401


def _run(task: Task) -> Any:
    # Not before the worker has started: it takes seconds.
    from marigold_ros.evaluation.fleet.tasks import run_task

    def set_done(frames: int) -> None:
        _done.value = frames

    return run_task(task, set_done)
