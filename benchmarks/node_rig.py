"""Run a node with cameras and a listener as separate processes, and measure it from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future

from benchmarks.latency_cap_load import cpu_times_s
from benchmarks.synthetic_camera import STARTED
from marigold_ros.ros.tools.processes import (
    find_free_domain,
    LoggedProcess,
    make_domain_environment,
    ProcessError,
)
from marigold_ros.ros.tools.share_files import PROFILE_VARIABLES, select_large_image_profile
from marigold_ros.stop_flag import StopFlag

# A cold start reads torch, diffusers and the checkpoint from disk.
START_TIMEOUT_S = 180.0
REPLY_TIMEOUT_S = 30.0
REQUEST_PERIOD_S = 0.1
TICK_PERIOD_S = 1.0
SCALE_PARAMETERS = ('scale.sources:=[fixed]', 'scale.min_depth_m:=0.5', 'scale.max_depth_m:=10.0')

# Line that the listener writes for a message.
Line = Mapping[str, Any]


@dataclass(frozen=True)
class NodeUnderTest:
    """
    Command and output topics of a lifecycle node.

    Attributes
    ----------
    name : str
        Fully qualified name, with the leading slash.
    command : tuple of str
    outputs : tuple of str
        <topic>:<type>; messages of the first are counted as frames.
    """

    name: str
    command: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Observation:
    """
    Measurements of a node between two times of the wall clock.

    Attributes
    ----------
    start_ns, end_ns : int
        Wall clock.
    cpu_s : float
        CPU time of the node.
    replies_s : list of float
        Reply time of each call of ~/get_state.
    ticks : list of dict
        Every second: `time_ns`; `frames` published since the start of the node; the node's
        resident memory, `memory_bytes`, and CPU time, `cpu_s`; `busy_s`, the CPU time of
        all processes of the machine.
    """

    start_ns: int
    end_ns: int
    cpu_s: float
    replies_s: list[float]
    ticks: list[dict[str, float]]


class Rig:
    """
    Start a node, cameras and a listener in a separate ROS domain, and stop them.

    Parameters
    ----------
    node : NodeUnderTest
    folder : Path
        For the logs and the listener's file.
    stop : StopFlag
        Interrupts every wait.
    large_images : bool
        Whether the processes use the Fast DDS profile for large images.
    reliability : {'reliable', 'best_effort'}
        Of the listener's subscriptions to images.
    """

    def __init__(self, node: NodeUnderTest, folder: Path, stop: StopFlag, *,
                 large_images: bool = True, reliability: str = 'reliable') -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._node, self._folder, self._stop = node, folder, stop
        domain = find_free_domain()
        self._environment = child_environment(domain, large_images)
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=domain)
        self._client_node = rclpy.create_node('rig', context=self._context, enable_rosout=False,
                                              start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._client_node)
        self._state = self._client_node.create_client(GetState, f'{node.name}/get_state')
        self._change = self._client_node.create_client(ChangeState, f'{node.name}/change_state')
        self.cameras: dict[str, LoggedProcess] = {}
        self.references: dict[str, LoggedProcess] = {}
        self._lines = folder / 'listener.jsonl'
        self._counter = LineCounter(self._lines, node.outputs[0].rpartition(':')[0])
        self.listener = LoggedProcess('listener', [
            sys.executable, '-m', 'benchmarks.topic_listener', str(self._lines),
            *node.outputs, '--reliability', reliability], folder, self._environment)
        self.node = LoggedProcess('node', node.command, folder, self._environment)

    # Processes

    def start_camera(self, name: str, *arguments: object) -> None:
        """Start a camera; see `benchmarks.synthetic_camera` for the arguments."""
        self.cameras[name] = LoggedProcess(
            f'synthetic_camera_{name}',
            [sys.executable, '-m', 'benchmarks.synthetic_camera', name,
             *map(str, arguments)], self._folder, self._environment)

    def stop_camera(self, name: str) -> dict[str, Any]:
        """
        Stop a camera and return what it sent: its counts, and the stamps of all images, ns.

        Raises
        ------
        ProcessError
            If its exit code is not 0.
        """
        process = self.cameras.pop(name)
        _stop_started(process)
        sent: dict[str, Any] = json.loads(process.log.read_text().splitlines()[-1])
        return sent

    def toggle_reference(self, camera: str, what: str) -> None:
        """Start or stop a part of a camera's reference, see `benchmarks.synthetic_reference`."""
        if what in self.references:
            _stop_started(self.references.pop(what))
            return
        self.references[what] = LoggedProcess(
            f'synthetic_reference_{what}',
            [sys.executable, '-m', 'benchmarks.synthetic_reference', camera, what],
            self._folder, self._environment)

    def kill_camera(self, name: str) -> None:
        """Kill a camera with SIGKILL."""
        self.cameras.pop(name).kill()

    def close(self) -> None:
        """Stop all processes that still run, and shut down."""
        for process in (*self.cameras.values(), *self.references.values(), self.node,
                        self.listener):
            process.stop()
        self._executor.shutdown()
        self._client_node.destroy_node()
        rclpy.shutdown(context=self._context)

    def lines(self) -> list[dict[str, Any]]:
        """Read the lines that the listener has written."""
        return [json.loads(line) for line in self._lines.read_text().splitlines()]

    # Services

    def wait_until_active(self) -> None:
        """
        Wait for the node; configure and activate it unless it does so itself.

        Raises
        ------
        ProcessError
            If it does not become active in time.
        """
        self._await(self._state.service_is_ready, START_TIMEOUT_S)
        if self.get_state() == 'unconfigured':
            self.change_state(Transition.TRANSITION_CONFIGURE)
        if self.get_state() == 'inactive':
            self.change_state(Transition.TRANSITION_ACTIVATE)
        state = self.get_state()
        if state != 'active':
            raise ProcessError(f'{self._node.name} must be active; it is {state}; '
                               + self.node.log_tail())

    def get_state(self) -> str:
        """Request the lifecycle state; retry if there is no reply."""
        for _ in range(int(START_TIMEOUT_S / REPLY_TIMEOUT_S)):
            future = self._state.call_async(GetState.Request())
            if self._wait_for_reply(future, REPLY_TIMEOUT_S):
                return str(get_result(future).current_state.label)
        raise ProcessError(f'{self._node.name} does not reply; {self.node.log_tail()}')

    def change_state(self, transition: int) -> bool:
        """Request a lifecycle transition, wait for it and return whether it succeeded."""
        request = ChangeState.Request()
        request.transition.id = transition
        future = self._change.call_async(request)
        return self._wait_for_reply(future, START_TIMEOUT_S) and bool(get_result(future).success)

    def call(self, service_type: type, name: str, request: Any) -> Any:
        """
        Call another service of the node.

        Raises
        ------
        ProcessError
            If there is no reply.
        """
        client = self._client_node.create_client(service_type, f'{self._node.name}/{name}')
        try:
            self._await(client.service_is_ready, REPLY_TIMEOUT_S)
            future = client.call_async(request)
            if not self._wait_for_reply(future, REPLY_TIMEOUT_S):
                raise ProcessError(f'{name} does not reply')
            return get_result(future)
        finally:
            self._client_node.destroy_client(client)

    # Observation

    def warm_up(self, frames: int, seconds: float = 5.0) -> None:
        """Wait for the first frame, then for `frames` frames or `seconds`."""
        self._await(lambda: self._counter.count() > 0, START_TIMEOUT_S)
        end_s = time.monotonic() + seconds
        self._await(lambda: self._counter.count() >= frames or time.monotonic() > end_s,
                    START_TIMEOUT_S)

    def observe(self, seconds: float, frames: int = 0) -> Observation:
        """
        Measure the node and request its state ten times a second.

        Parameters
        ----------
        seconds : float
        frames : int
            Stop when the node has published so many frames since its start; 0: only by time.

        Returns
        -------
        Observation

        Raises
        ------
        ProcessError
            If a process ends, the node does not reply, or Ctrl-C is pressed.
        """
        start_ns, before_s = time.time_ns(), process_cpu_s(self.node.pid)
        replies_s: list[float] = []
        ticks: list[dict[str, float]] = []
        end_s, next_tick_s = time.monotonic() + seconds, 0.0
        while (now := time.monotonic()) < end_s:
            if now >= next_tick_s:
                next_tick_s = now + TICK_PERIOD_S
                ticks.append({'time_ns': time.time_ns(), 'frames': self._counter.count(),
                              'memory_bytes': memory_bytes(self.node.pid),
                              'busy_s': cpu_times_s()[0],
                              'cpu_s': process_cpu_s(self.node.pid)})
            if frames and ticks[-1]['frames'] >= frames:
                break
            replies_s.append(self._reply_s())
            self._stop.sleep_until(now + REQUEST_PERIOD_S)
            self._require_running()
        return Observation(start_ns, time.time_ns(), process_cpu_s(self.node.pid) - before_s,
                           replies_s, ticks)

    def _reply_s(self) -> float:
        """Request the state once and return the reply time, s."""
        requested_s = time.monotonic()
        future = self._state.call_async(GetState.Request())
        if not self._wait_for_reply(future, REPLY_TIMEOUT_S):
            raise ProcessError(f'{self._node.name} does not reply; {self.node.log_tail()}')
        return time.monotonic() - requested_s

    def _await(self, condition: Callable[[], object], timeout_s: float) -> None:
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                raise ProcessError(f'timeout after {timeout_s:.0f} s; {self.node.log_tail()}')
            self._executor.spin_once(timeout_sec=0.05)
            self._require_running()

    def _wait_for_reply(self, future: Future, timeout_s: float) -> bool:
        self._executor.spin_until_future_complete(future, timeout_sec=timeout_s)
        return bool(future.done())

    def _require_running(self) -> None:
        if self._stop.requested:
            raise ProcessError('interrupted')
        for process in (self.node, self.listener):
            process.require_running()


class LineCounter:
    """
    Count the lines of a topic in a growing file; each line is read once.

    Parameters
    ----------
    path : Path
    topic : str
    """

    def __init__(self, path: Path, topic: str) -> None:
        self._path, self._pattern = path, f'"topic": "{topic}"'
        self._position = self._count = 0

    def count(self) -> int:
        """Return the number of lines written so far."""
        if self._path.exists():
            with self._path.open(encoding='utf-8') as lines:
                lines.seek(self._position)
                text = lines.read()
                complete = text[:text.rfind('\n') + 1]
                self._count += complete.count(self._pattern)
                self._position += len(complete.encode())
        return self._count


def _stop_started(process: LoggedProcess) -> None:
    """Stop a camera or reference, but not before it can end as it should."""
    process.wait_for_log(STARTED)
    process.stop()
    process.require_success()


def get_result(future: Future) -> Any:
    """Return the result of a completed future."""
    return future.result()


def child_environment(domain: int, large_images: bool) -> dict[str, str]:
    """Return the environment variables for processes of a ROS domain."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in PROFILE_VARIABLES}
    if large_images:
        environment.update(select_large_image_profile(environment))
    if find_spec('tf2_msgs') is None:  # as with PyPI's ROS; the middleware needs only its name
        stand_ins = Path(__file__).parents[1] / 'test' / 'stand_ins'
        environment['PYTHONPATH'] = os.pathsep.join(
            filter(None, (str(stand_ins), environment.get('PYTHONPATH'))))
    return {**environment, **make_domain_environment(domain)}


def process_cpu_s(pid: int) -> float:
    """Return the CPU time of a process since its start, s."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def memory_bytes(pid: int) -> int:
    """Return the resident memory of a process, including the middleware's shared memory."""
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')


def depth_node_under_test(cameras: Sequence[str], outputs: Iterable[str],
                          parameters: Iterable[str] = (), *,
                          slowed: Sequence[str] = ()) -> NodeUnderTest:
    """
    Return depth_node with a fixed scale as the node under test.

    Parameters
    ----------
    cameras : sequence of str
    outputs : iterable of str
        <topic>:<type> below each camera's name.
    parameters : iterable of str
        <name>:=<value>, in addition to cameras and scale.
    slowed : sequence of str
        Options of `slowed_node`, which is started instead if there are any.
    """
    settings = (f'cameras:=[{",".join(cameras)}]', *SCALE_PARAMETERS, *parameters)
    arguments = [word for each in settings for word in ('-p', each)]
    topics = [f'/{camera}/{each}' for camera in cameras for each in outputs]
    module = ('benchmarks.slowed_node', *slowed) if slowed else ('marigold_ros.ros.main',)
    return NodeUnderTest(
        '/depth_node', (sys.executable, '-m', *module, '--ros-args', *arguments),
        (*topics, '/depth_node/status:DiagnosticArray', '/diagnostics:DiagnosticArray'))


def processed_statuses(lines: Iterable[Line]) -> list[tuple[int, Mapping[str, str]]]:
    """Return time of receipt (ns, wall clock) and values of ~/status of every processed frame."""
    return _statuses(lines, 'received_ns')


def stamped_statuses(lines: Iterable[Line]) -> list[tuple[int, Mapping[str, str]]]:
    """Return the stamp of the image (ns) and values of ~/status of every processed frame."""
    return _statuses(lines, 'stamp_ns')


def _statuses(lines: Iterable[Line], time: str) -> list[tuple[int, Mapping[str, str]]]:
    return [(line[time], status) for line in lines if line['topic'].endswith('/status')
            for status in line['statuses'] if status['outcome'] == 'processed']


def last_counters(lines: Iterable[Line]) -> dict[str, dict[str, int]]:
    """Return the counters of every camera in the last message of /diagnostics."""
    counters: dict[str, dict[str, int]] = {}
    for line in lines:
        if line['topic'] == '/diagnostics':
            counters = {status['camera']: {
                key: int(value) for key, value in status.items()
                if key.startswith(('frames_', 'dropped_'))}
                for status in line['statuses'] if 'camera' in status}
    return counters
