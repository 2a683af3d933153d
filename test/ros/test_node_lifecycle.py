"""The node's lifecycle: start, failed configure, transitions, simulated time, and shutdown."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
import contextlib
import multiprocessing
import os
from pathlib import Path
import signal
import threading
import time
import weakref

from checkpoints import make_checkpoint
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_cycles import after_20_and_200_cycles, idle_node
from node_harness import (
    ACTIVATE,
    camera_info,
    CLEANUP,
    clock,
    CONFIGURE,
    DEACTIVATE,
    find_free_domain,
    image,
    node_in_process,
    Robot,
    start_node,
)
import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from marigold_ros.depth.adaptive import AdaptiveDepth
from marigold_ros.depth.config import EngineConfig
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.executors.base import Executor
from marigold_ros.depth.executors.openvino import OpenVinoExecutor
from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.image_sizes import AnnouncedImageSizes
from marigold_ros.ros.rclpy_workarounds import RCLError
from marigold_ros.ros.tools.processes import LoggedProcess
from marigold_ros.ros.worker import DepthWorker

pytestmark = pytest.mark.node
IMAGE, INFO, DEPTH = '/camera/image_raw', '/camera/camera_info', '/camera/depth_relative/image'
RGB = np.arange(120 * 160 * 3, dtype=np.uint32).reshape(120, 160, 3).astype(np.uint8)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp('models') / 'random')


@pytest.fixture
def start(tmp_path):
    """Start nodes, and stop them after the test."""
    closing = []

    def start_both(*arguments: str) -> tuple[LoggedProcess, Robot]:
        process = start_node(tmp_path, domain := find_free_domain(), *arguments)
        robot = Robot(domain)
        closing.extend([robot.close, process.stop])
        return process, robot

    yield start_both
    for close in closing:
        close()


def test_a_missing_checkpoint_is_named_and_can_be_corrected(start, checkpoint):
    process, robot = start('-p', 'checkpoint:=/no/such/folder', '-p', 'max_age_s:=30')
    log = process.wait_for_log('stays unconfigured')
    assert '/no/such/folder' in log
    assert 'Traceback' not in log
    assert robot.state() == 'unconfigured'
    assert not robot.change_state(CONFIGURE)
    status = robot.diagnostics('depth_node')
    assert status.level == DiagnosticStatus.ERROR
    assert '/no/such/folder' in status.message

    # Configure-time parameters can change while unconfigured.
    assert robot.set_parameter('checkpoint', str(checkpoint)) == ''
    assert robot.change_state(CONFIGURE)
    assert robot.state() == 'inactive'
    assert not robot.node.count_subscribers(IMAGE)
    assert robot.change_state(ACTIVATE)

    # An invalid transition is rejected and has no other effect.
    assert not robot.change_state(CONFIGURE)
    assert robot.state() == 'active'

    robot.listen('/depth_node/status', DiagnosticArray)
    robot.listen(DEPTH, Image)
    robot.advertise(IMAGE, Image)
    for _ in range(2):
        stamp_ns = time.time_ns()
        robot.publish(IMAGE, image(RGB, stamp_ns))
        assert robot.status_of(stamp_ns)['outcome'] == 'processed'
        assert robot.change_state(DEACTIVATE)
        robot.until(lambda: not robot.node.count_subscribers(IMAGE), what='no subscription')
        assert robot.change_state(CLEANUP)
        robot.until(lambda: not robot.node.count_publishers(DEPTH), what='no publisher')
        assert robot.change_state(CONFIGURE)
        assert robot.change_state(ACTIVATE)
        robot.listen(DEPTH, Image)
        robot.wait_for_match(IMAGE)
    assert process.stop() == 0


def test_ctrl_c_twice_in_the_middle_of_a_frame_exits_with_0(start, checkpoint):
    process, robot = start('-p', f'checkpoint:={checkpoint}', '-p', 'ensemble_size:=10',
                           '-p', 'step_policy:=fixed', '-p', 'max_inference_steps:=10',
                           '-p', 'latency_cap_ms:=0', '-p', 'max_age_s:=30')
    robot.node.create_subscription(Image, DEPTH, lambda _: None, 1)
    robot.offer(IMAGE, Image)

    def begun() -> bool:
        """Check whether the processing of a frame has begun, which the log shows."""
        robot.publish(IMAGE, image(RGB, time.time_ns()))
        robot.spin(0.05)
        return 'no_calibration' in process.log.read_text()

    robot.until(begun, what='a frame in the engine')
    assert stop_twice(process, 0.02) == 0
    assert log_has_no_error(process)


def stop_twice(process: LoggedProcess, pause_s: float) -> int:
    """Send SIGINT twice, and return the exit code."""
    process.send_signal(signal.SIGINT)
    time.sleep(pause_s)
    return process.stop()


def catches_sigterm(process: LoggedProcess) -> int:
    """Check whether the node has installed its handler of SIGTERM."""
    status = Path(f'/proc/{process.pid}/status').read_text()
    return int(status.split('SigCgt:')[1].split()[0], 16) >> signal.SIGTERM - 1 & 1


def log_has_no_error(process: LoggedProcess) -> bool:
    log = process.log.read_text()
    return not any(word in log for word in (
        'Traceback', 'Exception', 'terminate', 'engine_error', 'failed'))


@pytest.mark.parametrize('delays_s', [(0.0, 0.1, 0.2, 0.4), (0.6, 0.9, 1.4, 2.0)])
def test_ctrl_c_at_any_moment_of_the_start_exits_with_0(start, delays_s):
    """A KeyboardInterrupt is lost in rclpy's import, and an RCLError in the node's constructor."""
    for delay_s in delays_s:
        process, robot = start()
        robot.until(lambda: catches_sigterm(process), what='a handler of SIGTERM')
        time.sleep(delay_s)  # the moment under test
        assert stop_twice(process, 0.05) == 0, delay_s
        assert log_has_no_error(process), delay_s


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_load_that_hangs_with_exit_code_0(start, tmp_path, number):
    """A load can hang like a download; here the checkpoint's index is a pipe without a writer."""
    pipe = tmp_path / 'checkpoint' / 'model_index.json'
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    process, robot = start('-p', f'checkpoint:={pipe.parent}')

    def opened() -> int:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            return 0

    writer = robot.until(opened, 120, 'a node that loads')
    began_s = time.monotonic()
    assert process.stop(number) == 0
    assert time.monotonic() - began_s < 30  # it waits for 2 s; a busy machine takes its time
    os.close(writer)
    assert log_has_no_error(process)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['-p', 'point_stride:=0'], '`point_stride` must be int, 1 to 64; got 0'),
    (['--params-file', 'nowhere.yaml'], 'there is no parameter file nowhere.yaml')])
def test_a_wrong_initial_parameter_is_named_at_the_end(start, arguments, message):
    process, _ = start(*arguments)
    assert process.wait(120) == 2
    log = process.log.read_text()
    assert message in log.splitlines()[-1] and 'Traceback' not in log


def test_a_file_with_a_parameter_of_an_earlier_version_is_refused_at_the_start(start, tmp_path):
    file = tmp_path / 'parameters.yaml'
    file.write_text('/**:\n  ros__parameters:\n    scale: {source: cloud, hold_s: 1.0}\n')
    process, _ = start('--params-file', str(file))
    assert process.wait(120) == 2
    assert process.log.read_text().splitlines()[-1].endswith(
        '`scale.source` must be replaced by scale.sources, a list such as [cloud, ground_plane]; '
        "got 'cloud'")


def test_a_parameter_that_does_not_exist_is_named_at_the_start(start, tmp_path):
    file = tmp_path / 'parameters.yaml'
    file.write_text('/**:\n  ros__parameters:\n    scale: {sourc: fixed}\n    autostart: false\n'
                    '    qos_overrides: {/x: {subscription: {depth: 1}}}\n')
    process, _ = start('--params-file', str(file), '-p', 'latency_cap:=100')
    log = process.wait_for_log('ignored')
    assert ('no such parameter: `latency_cap` (did you mean `latency_cap_ms`?), '
            '`scale.sourc` (did you mean `scale.sources`?)\n') in log
    assert process.stop() == 0


def test_simulated_time_is_used_and_a_jump_resets_the_state(start, checkpoint):
    process, robot = start('-p', f'checkpoint:={checkpoint}', '-p', 'use_sim_time:=true',
                           '-p', 'autostart:=false')
    assert robot.state() == 'unconfigured'
    assert robot.change_state(CONFIGURE) and robot.change_state(ACTIVATE)
    robot.listen('/depth_node/status', DiagnosticArray)
    robot.listen(DEPTH, Image)
    robot.advertise(IMAGE, Image)
    robot.advertise(INFO, CameraInfo)
    robot.advertise('/clock', Clock, reliable=False)

    def at(seconds: int, stamp_s: int) -> str:
        robot.publish('/clock', clock(seconds * 10 ** 9))
        robot.spin(0.3)
        robot.publish(INFO, camera_info(stamp_s * 10 ** 9))
        robot.spin(0.1)  # nothing orders two topics, and the first image needs a camera_info
        robot.publish(IMAGE, image(RGB, stamp_s * 10 ** 9))
        return robot.status_of(stamp_s * 10 ** 9)['message']

    assert at(1000, 1000) == 'processed'
    assert at(1005, 1001) == 'too_old'
    assert at(1006, 1006) == 'processed'
    assert at(1006, 0) == 'processed'  # has no stamp
    assert at(1100, 1007) == 'processed'  # of another time base than the clock
    for number, start_s in ((1, 500), (2, 400)):  # the recording begins again, and again
        assert at(start_s, start_s + 1) == 'processed'
        process.wait_for_log('ROS time jumped back')
        assert process.log.read_text().count('time jumped back') == number
    assert 'no_calibration' not in robot.counters('camera')
    assert 'stamp_jumped_back' not in robot.counters('camera')  # only the clock's


@pytest.fixture
def node(checkpoint):
    """Run a node in this process, so that its engine can be blocked."""
    with node_in_process('-p', f'checkpoint:={checkpoint}', '-p', 'max_age_s:=30',
                         '-p', 'cameras:=[camera, rear]', '-p', 'latency_cap_ms:=0',
                         '-p', 'step_policy:=fixed') as (node, robot):
        yield node, robot


def test_the_model_is_freed_at_cleanup_and_failed_configure(node, monkeypatch):
    _, robot = node
    alive: list[weakref.ref] = []
    load = Executor.load

    def remember(self, stages):
        alive.extend(weakref.ref(each) for stage in stages
                     for each in (*stage.modules(), *stage.parameters()))
        load(self, stages)

    monkeypatch.setattr(Executor, 'load', remember)
    for transition in (DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE):
        assert robot.change_state(transition)
    assert sum(each() is not None for each in alive) > 50
    assert robot.change_state(DEACTIVATE) and robot.change_state(CLEANUP)
    assert not any(each() is not None for each in alive)

    made = []

    def break_down(self, *args, **kwargs):
        made.append(weakref.ref(self))
        raise RuntimeError('no room (simulated)')

    with monkeypatch.context() as patch:
        patch.setattr(DepthEngine, 'warm_up', break_down)
        assert not robot.change_state(CONFIGURE)
    assert robot.state() == 'unconfigured'
    assert 'no room (simulated)' in robot.diagnostics('depth_node').message
    assert made[0]() is None
    assert robot.change_state(CONFIGURE) and robot.change_state(ACTIVATE)
    assert robot.state() == 'active'


def test_a_size_that_was_not_announced_is_processed_while_it_is_compiled(node, monkeypatch):
    pytest.importorskip('openvino')
    _, robot = node
    may_compile, compiled = threading.Event(), []
    prepare = OpenVinoExecutor._prepare

    def prepare_later(self, name, inputs):
        assert may_compile.wait(60.0)
        stage = prepare(self, name, inputs)
        compiled.append(name)
        return stage

    monkeypatch.setattr(OpenVinoExecutor, '_prepare', prepare_later)
    robot.listen('/depth_node/status', DiagnosticArray)
    robot.listen(DEPTH, Image)
    robot.advertise(IMAGE, Image)

    def process(stamp_s):
        robot.publish(IMAGE, image(RGB[:60], stamp_s * 10 ** 9))
        assert robot.status_of(stamp_s * 10 ** 9)['message'] == 'processed'

    for stamp_s in range(1000, 1003):
        process(stamp_s)
    assert not compiled
    may_compile.set()
    robot.until(lambda: sorted(compiled) == ['decode', 'encode', 'step'])
    process(1004)


def test_only_announced_sizes_that_can_be_processed_are_prepared(checkpoint, monkeypatch):
    """And each at which the engine processes images once."""
    announced = [(1, 1000), (240, 320), (480, 640), (2 ** 31, 2 ** 31)]
    prepared = []
    monkeypatch.setattr(AnnouncedImageSizes, 'read', lambda self: announced)
    monkeypatch.setattr(AdaptiveDepth, 'warm_up', lambda self, sizes, _: prepared.extend(sizes))
    with idle_node(checkpoint) as (node, _):
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert prepared == [(240, 320)]


def test_the_engine_has_every_setting_of_the_parameters(checkpoint, monkeypatch):
    configs, init = [], DepthEngine.__init__

    def keep_config(self, config, *args):
        configs.append(config)
        init(self, config, *args)

    monkeypatch.setattr(DepthEngine, '__init__', keep_config)
    settings = {'device': 'cpu', 'dtype': 'float32', 'processing_resolution': 128,
                'upsampling': 'bilinear', 'compile': False}
    with idle_node(checkpoint) as (node, _):
        node.set_parameters([Parameter(name, value=value) for name, value in settings.items()])
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert configs == [EngineConfig(str(checkpoint), **settings)]


def test_a_node_remembers_networks_that_hung_when_it_failed(checkpoint, monkeypatch):
    """So that the process is ended, and does not wait for their thread."""
    close = DepthWorker.close
    monkeypatch.setattr(DepthWorker, 'close', lambda self, timeout_s: close(self) and False)
    with idle_node(checkpoint) as (node, _):
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        node.on_error(None)
        assert not node.release()


def test_a_shutdown_during_configure_is_not_reported_as_an_error(checkpoint, monkeypatch):
    def end(*_) -> None:
        rclpy.shutdown(context=node.context)
        raise RuntimeError('the context is invalid (simulated)')

    monkeypatch.setattr('marigold_ros.ros.depth_node.CameraOutputs', end)
    errors = []
    monkeypatch.setattr(Reporter, 'log_error', lambda self, text: errors.append(text))
    with idle_node(checkpoint) as (node, _):
        with contextlib.suppress(RCLError):  # the transition cannot be published, either
            node.trigger_configure()
        assert not node.context.ok()
    assert errors == []


@pytest.mark.slow
def test_200_cycles_leak_nothing(checkpoint, monkeypatch):
    """
    Each cycle leaks about 27 KiB of native memory and no Python object.

    18 of them are those of loading a checkpoint, without a node.  A model that stayed in memory
    would be 0.8 MiB a cycle; the bound is 60 KiB.  The cycles run in a process of their own,
    because the heap of earlier tests would change where memory is allocated; with one heap for all
    threads, because where each has its own, their holes make memory jump by 5 MiB.
    """
    monkeypatch.setenv('MALLOC_ARENA_MAX', '1')
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        before, after = pool.submit(after_20_and_200_cycles, checkpoint).result()
    assert after[0] == before[0]
    assert after[1] - before[1] < 2 * 180
    assert after[2] - before[2] < 180 * 60 / 1024


@pytest.fixture
def gate(monkeypatch):
    """Block every inference until the gate is opened, and record the seeds of its frames."""
    infer_batch, gate = DepthEngine.infer_batch, threading.Event()
    gate.seeds = []

    def wait(self, *args, **kwargs):
        gate.seeds.append(kwargs['seed'])
        assert gate.wait(60)
        return infer_batch(self, *args, **kwargs)

    monkeypatch.setattr(DepthEngine, 'infer_batch', wait)
    yield gate
    gate.set()


# Longer than `max_carry_s`, so that nothing can be carried from a frame to the next one.
PAUSE_NS = 2_100_000_000


def send_while_blocked(robot, count: int, period_ns: int = 1_000_000) -> list[int]:
    """Publish frames of a standing scene while the first blocks the engine; return the stamps."""
    robot.listen('/depth_node/status', DiagnosticArray)
    robot.listen(DEPTH, Image)
    robot.advertise(IMAGE, Image)
    start_ns, stamps = time.time_ns() - 20 * 10 ** 9, []
    for number in range(1, count + 1):
        stamps.append(start_ns + number * period_ns)
        robot.publish(IMAGE, image(RGB, stamps[-1]))
        robot.until(lambda: robot.counters('camera').get('frames_in') == number)
    return stamps


def test_a_newer_frame_supersedes_while_the_first_ones_wait(node, gate):
    """The newest one shows the depth of the run, moved along from the first one."""
    _, robot = node
    stamps = send_while_blocked(robot, 4)
    gate.set()
    statuses = [robot.status_of(stamp_ns) for stamp_ns in stamps]
    assert [each['message'] for each in statuses] == [*['superseded'] * 3, 'processed']
    assert (statuses[3]['depth_state'], statuses[3]['carried_s']) == ('run', '0.003')
    assert robot.counters('camera') == {
        'frames_in': 4, 'frames_processed': 1, 'dropped_superseded': 3, 'no_calibration': 4}


def test_a_frame_that_waits_is_dropped_when_the_node_is_paused(node, gate):
    _, robot = node
    stamp_ns, = send_while_blocked(robot, 1)
    robot.enable(False)
    assert robot.status_of(stamp_ns)['message'] == 'disabled'
    gate.set()
    robot.enable(True)
    robot.publish(IMAGE, image(RGB, stamp_ns + PAUSE_NS))
    assert robot.status_of(stamp_ns + PAUSE_NS)['message'] == 'processed'
    robot.find(DEPTH, stamp_ns + PAUSE_NS)
    assert len(robot.messages[DEPTH]) == 1


def test_frames_into_which_nothing_can_be_carried_get_the_depth_of_their_own_run(node, gate):
    _, robot = node
    stamps = send_while_blocked(robot, 4, PAUSE_NS)
    gate.set()
    statuses = [robot.status_of(stamp_ns) for stamp_ns in stamps]
    assert [each['message'] for each in statuses] == [
        'processed', 'superseded', 'superseded', 'processed']
    for number in (0, 3):
        assert (statuses[number]['depth_state'], statuses[number]['carried_s']) == ('run', '0.000')
    assert robot.counters('camera') == {
        'frames_in': 4, 'frames_processed': 2, 'dropped_superseded': 2, 'no_calibration': 4}


def test_all_cameras_are_one_batch_each_with_its_own_noise(
        node, gate):
    _, robot = node
    robot.listen('/rear/depth_relative/image', Image)
    robot.advertise('/rear/image_raw', Image)
    stamps = send_while_blocked(robot, 2, PAUSE_NS)
    stamps.append(time.time_ns())
    robot.publish('/rear/image_raw', image(RGB, stamps[-1]))
    robot.until(lambda: robot.counters('rear')['frames_in'])
    gate.set()
    for stamp_ns in stamps:
        assert robot.status_of(stamp_ns)['message'] == 'processed'
    assert gate.seeds == [[0], [0, 1]]


def test_frames_that_wait_at_deactivation_are_counted_and_it_waits_for_no_run(node, gate):
    _, robot = node
    stamps = send_while_blocked(robot, 2)
    assert robot.change_state(DEACTIVATE)
    assert [robot.status_of(stamp_ns)['message'] for stamp_ns in stamps] == ['inactive'] * 2
    assert not gate.is_set()
    gate.set()
    assert robot.change_state(ACTIVATE)
    robot.wait_for_match(IMAGE)
    robot.publish(IMAGE, image(RGB, stamp_ns := time.time_ns()))
    assert robot.status_of(stamp_ns)['message'] == 'processed'
    assert {**robot.counters('camera'), 'no_calibration': 3} == {
        'frames_in': 3, 'frames_processed': 1, 'dropped_inactive': 2, 'no_calibration': 3}


def test_services_answer_while_the_engine_is_busy(node, gate):
    _, robot = node
    send_while_blocked(robot, 1)
    robot.enable(True)
    assert robot.state() == 'active'
    assert robot.counters('camera') == {
        'frames_in': 1, 'frames_processed': 0, 'no_calibration': 1}
