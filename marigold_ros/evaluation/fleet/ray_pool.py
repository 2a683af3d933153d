"""Run tasks on a Ray cluster; nothing else imports Ray, which `pip install .[fleet]` adds."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import count
import logging
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from marigold_ros.depth.config import require
from marigold_ros.depth.errors import ConfigError
from marigold_ros.evaluation.fleet.tasks import run_task, Task

PROGRESS_PERIOD_S = 1.0


class RayPool:
    """
    Tasks of one core, or of one GPU and one core, on the nodes of a Ray cluster.

    Parameters
    ----------
    address : str
        Of the head node, or `auto`.
    device : str
        `auto` is a GPU if the cluster has one.

    Raises
    ------
    ConfigError
        If there is no cluster at the address, or it has no GPU but `device` needs one.
    """

    def __init__(self, address: str, device: str) -> None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as err:
            raise ConfigError(f'`ray` must be the address of a running Ray cluster, or auto; got '
                              f'{address!r}: {err}') from err
        needs = task_resources(device, _cluster_resource('GPU'))
        self._resource = 'GPU' if needs['num_gpus'] else 'CPU'
        # A death is counted where all failures are, and is not retried by Ray.
        self._remote: Any = ray.remote(_run).options(**needs, max_retries=0)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._board: Any = ray.remote(_ProgressBoard).options(
            num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()
        self._keys = count()
        self._running: dict[Future[Any], int] = {}
        self._done: dict[int, int] = {}
        self._asked_s = 0.0

    @property
    def workers(self) -> int:
        """Return how many tasks the nodes of today run at a time."""
        return max(1, _cluster_resource(self._resource))

    def limit_memory(self, task_bytes: int) -> None:
        """Leave memory to Ray, which ends tasks where it is short."""

    def submit(self, task: Task) -> Future[Any]:
        """Queue a task."""
        key = next(self._keys)
        future: Future[Any] = self._remote.remote(task, self._board, key).future()
        self._running[future] = key
        return future

    def progress(self, future: Future[Any]) -> int:
        """Return how many frames of a task were done a second ago."""
        if time.monotonic() > self._asked_s + PROGRESS_PERIOD_S:
            self._asked_s = time.monotonic()
            try:
                self._done = ray.get(self._board.read.remote(), timeout=PROGRESS_PERIOD_S)
            except RayError:  # its node has left; a restarted board starts empty
                self._done = {}
        return self._done.get(self._running[future], 0)

    def close(self) -> None:
        """Leave the cluster, which ends the running tasks."""
        ray.shutdown()


def task_resources(device: str, cluster_gpus: int) -> dict[str, int]:
    """
    Return the cores and GPUs of a task; a GPU is a task's own, and its only one.

    Raises
    ------
    ConfigError
        If the device is a GPU, but the cluster has none.
    """
    require(cluster_gpus > 0 or device != 'cuda', 'device', 'cpu or auto on a cluster without GPU',
            device)
    return {'num_cpus': 1,
            'num_gpus': int(device == 'cuda' or (device == 'auto' and cluster_gpus > 0))}


def _cluster_resource(name: str) -> int:
    return int(ray.cluster_resources().get(name, 0))  # type: ignore[no-untyped-call]


class _ProgressBoard:
    """Hold the progress of all tasks; an actor."""

    def __init__(self) -> None:
        self._done: dict[int, int] = {}

    def write(self, key: int, done: int) -> None:
        self._done[key] = done

    def read(self) -> dict[int, int]:
        return self._done


def _run(task: Task, board: Any, key: int) -> Any:
    told_s = 0.0

    def tell(done: int) -> None:
        nonlocal told_s
        if time.monotonic() > told_s + PROGRESS_PERIOD_S:
            told_s = time.monotonic()
            board.write.remote(key, done)

    return run_task(task, tell)
