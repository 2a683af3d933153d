"""A node whose networks are slow, fail or hang: frames go on, and nothing waits for them."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import threading
import time

from checkpoints import make_checkpoint
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from node_harness import (
    ACTIVATE,
    camera_info,
    CLEANUP,
    CONFIGURE,
    DEACTIVATE,
    find_free_domain,
    image,
    node_in_process,
    Robot,
    SHUTDOWN,
    stamp_of,
    start_node,
)
import numpy as np
import pytest
from rcl_interfaces.msg import Log
from sensor_msgs.msg import CameraInfo, Image
import torch

from marigold_ros.depth import device
from marigold_ros.depth.device import cpu_thread_count
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.ros import depth_node, diagnostics
from marigold_ros.ros.calibration import CalibrationCache
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.worker import _PreparedFrame, NETWORKS_NICENESS

pytestmark = pytest.mark.node
IMAGE, INFO = '/camera/image_raw', '/camera/camera_info'
RELATIVE, METRIC = '/camera/depth_relative/image', '/camera/depth/image_rect'
RGB = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
PERIOD_S = 0.1
HOUR_NS = 3600 * 10 ** 9
GIVEN = {'max_inference_steps': 1, 'max_carry_s': 2.0, 'odom_frame': 'odom',
         'scale.sources': ['fixed'], 'scale.min_depth_m': 1.0, 'scale.max_depth_m': 5.0,
         'step_policy': 'fixed', 'latency_cap_ms': 0.0, 'max_age_s': 60.0}


class Networks:
    """Networks that can be slow, fail or hang."""

    def __init__(self) -> None:
        self.run_s, self.error = 0.0, ''
        self.steps: list[list[int]] = []  # of the runs that have begun
        self.niceness, self.threads = 0, 0
        self.free = threading.Event()
        self.free.set()

    def before_run(self, steps: list[int]) -> None:
        self.niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        self.threads = torch.get_num_threads()
        self.steps.append(steps)
        time.sleep(self.run_s)
        assert self.free.wait(60.0)
        if self.error:
            raise RuntimeError(self.error)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp('models') / 'random')


@pytest.fixture(scope='module')
def robot(checkpoint: Path) -> Iterator[Robot]:
    """Run one node, whose networks run on every frame if they are free."""
    arguments = [word for name, value in {'checkpoint': checkpoint, **GIVEN}.items()
                 for word in ('-p', f'{name}:={value}')]
    with node_in_process(*arguments) as (_, robot):
        robot.listen_all({'/depth_node/status': DiagnosticArray, '/diagnostics': DiagnosticArray,
                          '/rosout': Log, RELATIVE: Image, METRIC: Image})
        robot.advertise(INFO, CameraInfo)
        robot.advertise(IMAGE, Image)
        yield robot


@pytest.fixture
def networks(robot: Robot, monkeypatch: pytest.MonkeyPatch) -> Iterator[Networks]:
    """Let the node start afresh, with depth to carry, and with networks that a test controls."""
    networks, infer_batch = Networks(), DepthEngine.infer_batch

    def infer(engine, frames, steps, **kwargs):
        if not kwargs.get('upsample', True):  # not of a warm-up
            networks.before_run(list(steps))
        return infer_batch(engine, frames, steps, **kwargs)

    monkeypatch.setattr(DepthEngine, 'infer_batch', infer)
    assert set(robot.set_parameters(GIVEN)) == {''}
    show(robot, -HOUR_NS)  # a jump back of time, which resets everything
    assert show(robot)['depth_state'] == 'run'
    networks.steps.clear()
    yield networks
    networks.run_s, networks.error = 0.0, ''
    networks.free.set()


def publish(robot: Robot, ahead_ns: int = 0) -> int:
    """Publish a frame of a standing scene, and return its stamp."""
    stamp_ns = time.time_ns() + ahead_ns
    robot.publish(INFO, camera_info(stamp_ns))
    robot.publish(IMAGE, image(RGB, stamp_ns))
    return stamp_ns


def show(robot: Robot, ahead_ns: int = 0) -> dict[str, str]:
    """Publish a frame of a standing scene, and return its status."""
    return robot.status_of(publish(robot, ahead_ns))


def publish_small(robot: Robot, ahead_ns: int = 0) -> int:
    """Publish a frame of another size, and return its stamp."""
    stamp_ns = time.time_ns() + ahead_ns
    robot.publish(IMAGE, image(RGB[:60], stamp_ns))
    return stamp_ns


def show_to_wait(robot: Robot, networks: Networks) -> int:
    """Let the networks run on a frame of another size, which waits; return its stamp."""
    begun, stamp_ns = len(networks.steps), publish_small(robot)
    robot.until(lambda: len(networks.steps) > begun, what='a run')
    return stamp_ns


def film(robot: Robot, seconds: float) -> dict[int, dict[str, str]]:
    """Publish frames of a standing scene at the rate of a camera; return stamp -> status."""
    stamps = []
    for _ in range(round(seconds / PERIOD_S)):
        stamps.append(publish(robot))
        robot.spin(PERIOD_S)
    return {stamp_ns: robot.status_of(stamp_ns) for stamp_ns in stamps}


def states(statuses: list[dict[str, str]]) -> list[str]:
    return [each['depth_state'] for each in statuses]


def value(status: DiagnosticStatus, key: str) -> str:
    return next(each.value for each in status.values if each.key == key)


def warns(robot: Robot, name: str, text: str) -> DiagnosticStatus | None:
    """Return the next status of the node or a camera if it warns with this text."""
    status = robot.diagnostics(name)
    return status if status.level == DiagnosticStatus.WARN and text in status.message else None


def test_the_networks_leave_a_core_to_the_frames_and_go_after_them(robot, networks):
    show(robot)
    robot.until(lambda: networks.steps, what='a run')
    assert networks.niceness == max(NETWORKS_NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
    assert networks.threads == cpu_thread_count()


def test_the_threads_of_the_frames_start_before_the_priority_is_lowered(checkpoint, monkeypatch):
    """Threads inherit the priority of the thread that starts them."""
    called = []
    for name in ('start_opencv_threads', 'lower_priority'):
        monkeypatch.setattr(device, name, lambda *_, name=name: called.append(name))
    with node_in_process('-p', f'checkpoint:={checkpoint}'):
        assert called == ['start_opencv_threads', 'lower_priority']


def test_no_frame_waits_for_slow_networks(robot, networks):
    """The first frame after a run shows its depth, into the others depth is carried."""
    networks.run_s = 0.7
    filmed = film(robot, 3.0)
    statuses = list(filmed.values())
    assert {each['outcome'] for each in statuses} == {'processed'}
    assert set(states(statuses)) == {'run', 'carried'}
    assert 3 <= states(statuses).count('run') <= len(networks.steps) <= 5
    reasons = []
    for each in statuses:
        if each['depth_state'] == 'run':
            assert each['num_inference_steps'] == '1'
            assert each['step_reason'] == 'fixed: Tmax = 1'
            assert 0.7 <= float(each['carried_s']) < 1.4
        else:
            assert each['num_inference_steps'] == '0' and float(each['carried_s']) > 0.0
            reasons.append(each['step_reason'])
    # Later runs begin when one ends, with a frame that has been published.
    busy = 'carried while the networks are busy'
    assert reasons == ['fixed: Tmax = 1'] + [busy] * (len(reasons) - 1)
    latencies_ms = [float(each['latency_ms']) for each in statuses]
    assert max(latencies_ms) < 700.0 and np.median(latencies_ms) < 100.0
    for stamp_ns in filmed:
        robot.find(METRIC, stamp_ns)


def test_frames_go_on_while_runs_fail(robot, networks):
    """Failed runs are events of the camera, as no frame waits for them."""
    before = robot.counters('camera')
    assert robot.set_parameter('max_carry_s', 60.0) == ''
    networks.error = 'simulated'
    statuses = list(film(robot, 1.5).values())
    assert {each['outcome'] for each in statuses} == {'processed'}
    assert set(states(statuses)) == {'carried'}
    assert len(networks.steps) == len(statuses)  # each frame tries again
    robot.until(lambda: show(robot) and warns(robot, ': camera', 'frames processed; engine_error'),
                what='a warning of the camera')
    networks.error = ''
    status = robot.diagnostics(': camera')
    assert value(status, 'last_engine_error').startswith('RuntimeError: simulated\nTraceback')
    logged = [log.msg for log in robot.messages['/rosout']
              if log.msg.startswith('camera: engine_error: RuntimeError: simulated')]
    assert len(logged) == 1  # of many, within 10 s

    assert robot.status_of_run(lambda: publish(robot))['depth_state'] == 'run'
    counters = robot.counters('camera')
    assert counters['engine_error'] - before.get('engine_error', 0) >= len(statuses)
    assert counters.get('dropped_engine_error', 0) == before.get('dropped_engine_error', 0)
    robot.until(lambda: show(robot) and robot.diagnostics(': camera').level == (
        DiagnosticStatus.OK), what='a camera without warning')


def test_a_parameter_that_is_set_in_the_middle_of_a_run_is_one_of_the_next(robot, networks):
    networks.free.clear()
    assert show(robot)['depth_state'] == 'carried'
    robot.until(lambda: networks.steps, what='a run')
    assert set(robot.set_parameters({'max_inference_steps': 2, 'scale.max_depth_m': 9.0})) == {''}
    status = show(robot)
    assert (status['depth_state'], status['scale']) == ('carried', '8')  # at once
    networks.run_s = 0.3  # of the second run, so that the first is shown
    networks.free.set()
    for steps in ('1', '2'):
        assert robot.status_of_run(lambda: publish(robot))['num_inference_steps'] == steps
    assert networks.steps[:2] == [[1], [2]]


def test_a_run_goes_on_while_the_node_is_disabled(robot, networks):
    networks.free.clear()
    assert show(robot)['depth_state'] == 'carried'
    robot.enable(False)
    assert show(robot)['reason'] == 'disabled'
    networks.free.set()
    robot.enable(True)
    assert robot.status_of_run(lambda: publish(robot))['depth_state'] == 'run'


def test_the_scale_is_reset_in_the_middle_of_a_run(robot, networks):
    networks.free.clear()
    show(robot)
    robot.until(lambda: networks.steps, what='a run')
    assert robot.reset_scale().success
    status = show(robot)
    assert (status['depth_state'], status['scale_state']) == ('carried', 'assumed')
    networks.free.set()
    assert robot.status_of_run(lambda: publish(robot))['scale_state'] == 'assumed'


@pytest.mark.parametrize('reset', ['stamps', 'clock', 'odom_frame'])
def test_a_reset_in_the_middle_of_a_run_drops_the_frame_that_waits(robot, networks, reset):
    """And what the run finds, so that the next frame waits for a run of its own."""
    networks.free.clear()
    waiting_ns = show_to_wait(robot, networks)
    if reset == 'clock':  # its source changes
        assert robot.set_parameter('use_sim_time', True) == ''
        assert robot.set_parameter('use_sim_time', False) == ''
    elif reset == 'odom_frame':
        assert robot.set_parameter('odom_frame', 'map') == ''
    next_ns = publish_small(robot, -HOUR_NS if reset == 'stamps' else 0)
    assert robot.status_of(waiting_ns)['reason'] == 'reset'
    networks.free.set()
    status = robot.status_of(next_ns)
    assert (status['depth_state'], status['carried_s']) == ('run', '0.000')
    assert networks.steps == [[1], [1]]


def test_depth_of_hung_networks_is_stale_and_has_no_metres(robot, networks, monkeypatch):
    monkeypatch.setattr(diagnostics, 'LONG_RUN_S', 0.5)
    assert robot.set_parameter('max_carry_s', 1.0) == ''
    networks.free.clear()
    filmed = film(robot, 2.0)
    statuses = list(filmed.values())
    assert {each['outcome'] for each in statuses} == {'processed'}
    stale = [float(each['carried_s']) > 1.0 for each in statuses]
    assert states(statuses) == ['stale' if each else 'carried' for each in stale]
    assert 5 <= sum(stale) <= 15
    for stamp_ns in filmed:
        robot.find(RELATIVE, stamp_ns)
    robot.spin(0.5)  # so that depth that is wrongly published would have arrived
    metric = {stamp_of(message.header) for message in robot.messages[METRIC]}
    assert [stamp_ns not in metric for stamp_ns in filmed] == stale
    assert {each['scale'] for each in statuses} == {'4'}  # which is known
    assert len(networks.steps) == 1

    status = robot.until(lambda: show(robot) and warns(robot, ': camera', 'stale'))
    assert value(status, 'last_stale').startswith('depth is stale, so not metric: it has been ')
    assert 'the networks have been running for' in value(status, 'last_stale')
    status = robot.until(lambda: warns(robot, 'depth_node', 'the networks have been running for'))
    assert float(value(status, 'run_s')) > 2.0

    networks.free.set()
    assert robot.status_of_run(lambda: publish(robot))['depth_state'] == 'run'
    robot.find(METRIC, publish(robot))


def test_hung_networks_let_the_node_deactivate_but_not_clean_up(robot, networks, monkeypatch):
    monkeypatch.setattr(depth_node, 'CLEANUP_TIMEOUT_S', 0.5)
    networks.free.clear()
    waiting_ns = show_to_wait(robot, networks)
    assert robot.change_state(DEACTIVATE)
    assert robot.status_of(waiting_ns)['reason'] == 'inactive'
    for number in (1, 2):
        assert not robot.change_state(CLEANUP)
        assert robot.state() == 'inactive'
        robot.until(lambda: len([log for log in robot.messages['/rosout'] if log.msg.startswith(
            'cleanup failed: the networks have been running for ')]) == number, what='a log')
    assert value(robot.diagnostics('depth_node'), 'last_error').endswith(
        's; try again, or end the process')

    # It can be activated again, but no frame gets depth until the run has ended.
    assert robot.change_state(ACTIVATE)
    robot.wait_for_match(IMAGE)
    robot.wait_for_match(INFO)
    next_ns = publish(robot)
    robot.spin(0.3)
    networks.free.set()
    assert robot.status_of(next_ns)['depth_state'] == 'run'

    for transition in (DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE):
        assert robot.change_state(transition)
    assert robot.state() == 'active'


def test_a_shutdown_while_the_networks_hang_releases_nothing(checkpoint, monkeypatch, capfd):
    begun, free = threading.Event(), threading.Event()
    infer_batch = DepthEngine.infer_batch

    def infer(engine, *args, **kwargs):
        if not kwargs.get('upsample', True):  # not of a warm-up
            begun.set()
            assert free.wait(60.0)
        return infer_batch(engine, *args, **kwargs)

    monkeypatch.setattr(DepthEngine, 'infer_batch', infer)
    monkeypatch.setattr(depth_node, 'CLEANUP_TIMEOUT_S', 0.5)
    with node_in_process('-p', f'checkpoint:={checkpoint}') as (_, robot):
        robot.listen(RELATIVE, Image)
        robot.advertise(INFO, CameraInfo)
        robot.advertise(IMAGE, Image)
        publish(robot)
        robot.until(begun.is_set, what='a run')
        robot.request_transition(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        robot.until(lambda: robot.state() == 'finalized', what='the end of the shutdown')
        logged = capfd.readouterr().err
        free.set()
    assert 'shutdown released nothing: the networks have been running for ' in logged


def test_a_shutdown_of_an_active_node_begins_no_further_run(checkpoint, monkeypatch):
    """When the run in flight ends, a frame that wants another has been published already."""
    gates, begun = [threading.Event() for _ in range(5)], []
    infer_batch = DepthEngine.infer_batch

    def infer(engine, *args, **kwargs):
        if not kwargs.get('upsample', True):  # not of a warm-up
            begun.append(None)
            assert gates[len(begun) - 1].wait(60.0)
        return infer_batch(engine, *args, **kwargs)

    monkeypatch.setattr(DepthEngine, 'infer_batch', infer)
    arguments = [word for name, value in {'checkpoint': checkpoint, **GIVEN}.items()
                 for word in ('-p', f'{name}:={value}')]
    with node_in_process(*arguments) as (_, robot):
        robot.listen_all({'/depth_node/status': DiagnosticArray, RELATIVE: Image})
        robot.advertise(INFO, CameraInfo)
        robot.advertise(IMAGE, Image)
        gates[0].set()
        for _ in range(3):
            assert show(robot)['outcome'] == 'processed'
        robot.until(lambda: len(begun) == 2, what='a run')
        robot.request_transition(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        robot.spin(0.5)
        gates[1].set()
        robot.until(lambda: robot.state() == 'finalized', what='the end of the shutdown')
        assert len(begun) == 2
        for each in gates:
            each.set()


def test_a_camera_without_calibration_has_no_view():
    """Its K is 0, and motion divides by it."""
    calibration = CalibrationCache(rectified=False).find(1, *RGB.shape[:2])
    received = ReceivedFrame('camera', b'', False, 1, 'optical', 0.0)
    prepared = _PreparedFrame(received, True, RGB, calibration, np.eye(4), 'odom', frozenset(),
                              0.0, 0.0, {})
    assert prepared.as_frame().K is None and prepared.as_frame().view is None


HANGS = """
import sys, time
from marigold_ros.depth.engine import DepthEngine
infer_batch = DepthEngine.infer_batch
def infer(*args, **kwargs):
    if not kwargs.get('upsample', True):  # not of a warm-up
        print('hangs')
        time.sleep(600)
    return infer_batch(*args, **kwargs)
DepthEngine.infer_batch = infer
from marigold_ros.ros.main import main
sys.exit(main())
"""


@pytest.mark.parametrize('transition', [None, SHUTDOWN])
def test_a_signal_ends_a_node_whose_networks_hang_with_exit_code_0(
        checkpoint, tmp_path, transition):
    """Also while it waits for them in a transition."""
    process = start_node(tmp_path, domain := find_free_domain(), '-p', f'checkpoint:={checkpoint}',
                         '-p', 'latency_cap_ms:=0', '-p', 'max_age_s:=60', script=HANGS)
    robot = Robot(domain)
    try:
        robot.listen(RELATIVE, Image)
        robot.advertise(IMAGE, Image)
        robot.publish(IMAGE, image(RGB, time.time_ns()))
        process.wait_for_log('hangs')
        if transition is not None:
            assert robot.change_state(DEACTIVATE)
            robot.request_transition(transition)
            robot.spin(0.5)
        began_s = time.monotonic()
        assert process.stop(signal.SIGINT) == 0
        assert time.monotonic() - began_s < 8.0  # it waits for 2 s
        log = process.log.read_text()
        assert 'Traceback' not in log and 'failed' not in log
    finally:
        robot.close()
        process.stop()
