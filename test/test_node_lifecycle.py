"""The node's life: start, failed configure, transitions, simulated time, faults, and its end."""

from __future__ import annotations

import signal
import threading
import time

from checkpoints import make_checkpoint
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_harness import (ACTIVATE, camera_info, CLEANUP, clock, CONFIGURE, DEACTIVATE,
                          free_domain, image, NodeProcess, Robot)
import numpy as np
import pytest
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from marigold_ros.depth.engine import DepthEngine
from marigold_ros.ros.depth_node import DepthNode

IMAGE, INFO, DEPTH = '/camera/image_raw', '/camera/camera_info', '/camera/depth_relative/image'
RGB = np.arange(120 * 160 * 3, dtype=np.uint32).reshape(120, 160, 3).astype(np.uint8)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp('models') / 'random')


@pytest.fixture
def start(tmp_path):
    """Start nodes, and end those that a failed test leaves behind."""
    closing = []

    def start_node(*arguments: str) -> tuple[NodeProcess, Robot]:
        domain = free_domain()
        process = NodeProcess(tmp_path / f'log{len(closing)}', domain, *arguments)
        robot = Robot(domain)
        closing.extend([robot.close, process.kill])
        return process, robot

    yield start_node
    for close in closing:
        close()


def test_a_missing_checkpoint_is_named_and_the_node_can_be_configured_again(start, checkpoint):
    process, robot = start('-p', 'checkpoint:=/no/such/folder', '-p', 'max_age_s:=30')
    log = process.wait_for_log('stays unconfigured')
    assert '/no/such/folder' in log
    assert 'Traceback' not in log
    assert robot.state() == 'unconfigured'
    assert not robot.change_state(CONFIGURE)
    status = robot.diagnostics('depth_node')
    assert status.level == DiagnosticStatus.ERROR
    assert '/no/such/folder' in status.message

    # What cannot change while configured may be mended now.
    assert robot.set_parameter('checkpoint', str(checkpoint)) == ''
    assert robot.change_state(CONFIGURE)
    assert robot.state() == 'inactive'
    assert not robot.node.count_subscribers(IMAGE)
    assert robot.change_state(ACTIVATE)

    # A transition that makes no sense is refused, and costs nothing else.
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
        robot.until(lambda: robot.node.count_subscribers(IMAGE), what='a subscription')
        robot.listen(DEPTH, Image)
        robot.spin(1.0)
    assert process.stop() == 0


def test_ctrl_c_in_the_middle_of_a_frame_and_twice_ends_with_exit_code_0(start, checkpoint):
    process, robot = start('-p', f'checkpoint:={checkpoint}', '-p', 'ensemble_size:=10',
                           '-p', 'step_policy:=fixed', '-p', 'max_inference_steps:=10',
                           '-p', 'latency_cap_ms:=0', '-p', 'max_age_s:=30')
    robot.listen(DEPTH, Image)
    robot.advertise(IMAGE, Image)
    for _ in range(3):
        robot.publish(IMAGE, image(RGB, time.time_ns()))
        robot.spin(0.05)
    assert process.stop(signal.SIGINT, times=2, pause_s=0.02) == 0
    log = process.log.read_text()
    assert 'Traceback' not in log and 'terminate' not in log and 'engine_error' not in log


def test_a_wrong_initial_parameter_ends_the_process_with_its_name(start):
    process, _ = start('-p', 'point_stride:=0')
    assert process.process.wait(timeout=120) == 2
    log = process.log.read_text()
    assert 'point_stride' in log and 'Traceback' not in log


def test_simulated_time_rules_the_age_and_a_jump_back_starts_afresh(start, checkpoint):
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
        robot.publish(IMAGE, image(RGB, stamp_s * 10 ** 9))
        return robot.status_of(stamp_s * 10 ** 9)['message']

    assert at(1000, 1000) == 'processed'
    assert at(1005, 1001) == 'too_old'
    assert at(1006, 1006) == 'processed'
    assert at(500, 501) == 'processed'  # the recording begins again
    assert 'time jumped back' in process.wait_for_log('time jumped back')


@pytest.fixture
def node_in_process(checkpoint):
    """A node in this process, so that a fault can be put into its engine."""
    domain = free_domain()
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '-p', f'checkpoint:={checkpoint}', '-p', 'max_age_s:=30',
                     '-p', 'cameras:=[camera, rear]'], context=context, domain_id=domain)
    node = DepthNode(context=context)
    node.start()
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin():
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin)
    thread.start()
    robot = Robot(domain)
    yield node, robot
    robot.close()
    executor.shutdown()
    thread.join()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_an_exception_inside_the_engine_costs_its_frame_and_no_other(
        node_in_process, monkeypatch):
    _, robot = node_in_process
    infer_batch, calls = DepthEngine.infer_batch, []

    def fail_once(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError('CUDA out of memory (simulated)')
        return infer_batch(self, *args, **kwargs)

    monkeypatch.setattr(DepthEngine, 'infer_batch', fail_once)
    robot.listen('/depth_node/status', DiagnosticArray)
    robot.listen(DEPTH, Image)
    robot.advertise(IMAGE, Image)
    for reason in ('engine_error', ''):
        stamp_ns = time.time_ns()
        robot.publish(IMAGE, image(RGB, stamp_ns))
        assert robot.status_of(stamp_ns)['reason'] == reason
    assert robot.counters('camera')['dropped_engine_error'] == 1
    values = {each.key: each.value for each in robot.diagnostics('depth_node').values}
    assert 'CUDA out of memory (simulated)' in values['last_error']


@pytest.fixture
def gate(monkeypatch):
    """Hold every inference until the gate is opened, and note the noise of its frames."""
    infer_batch, gate = DepthEngine.infer_batch, threading.Event()
    gate.seeds = []

    def wait(self, *args, **kwargs):
        gate.seeds.append(kwargs['seed'])
        assert gate.wait(60)
        return infer_batch(self, *args, **kwargs)

    monkeypatch.setattr(DepthEngine, 'infer_batch', wait)
    yield gate
    gate.set()


def send_while_held(robot, count: int) -> list[int]:
    """Publish frames one by one while the first is held in the engine; their stamps."""
    robot.listen('/depth_node/status', DiagnosticArray)
    robot.listen(DEPTH, Image)
    robot.advertise(IMAGE, Image)
    stamps = []
    for number in range(1, count + 1):
        stamps.append(time.time_ns())
        robot.publish(IMAGE, image(RGB, stamps[-1]))
        robot.until(lambda: robot.counters('camera').get('frames_in') == number)
    return stamps


def test_of_the_frames_that_come_while_the_engine_is_busy_the_newest_wins(node_in_process, gate):
    _, robot = node_in_process
    stamps = send_while_held(robot, 4)
    gate.set()
    assert [robot.status_of(stamp_ns)['message'] for stamp_ns in stamps] == [
        'processed', 'superseded', 'superseded', 'processed']
    assert robot.counters('camera') == {
        'frames_in': 4, 'frames_processed': 2, 'dropped_superseded': 2, 'no_calibration': 2}


def test_the_newest_frames_of_all_cameras_are_one_batch_each_with_its_own_noise(
        node_in_process, gate):
    _, robot = node_in_process
    robot.listen('/rear/depth_relative/image', Image)
    robot.advertise('/rear/image_raw', Image)
    stamps = send_while_held(robot, 2)
    stamps.append(time.time_ns())
    robot.publish('/rear/image_raw', image(RGB, stamps[-1]))
    robot.until(lambda: robot.counters('rear')['frames_in'])
    gate.set()
    for stamp_ns in stamps:
        assert robot.status_of(stamp_ns)['message'] == 'processed'
    assert gate.seeds == [[0], [0, 1]]


def test_a_frame_that_waits_when_the_node_is_deactivated_is_counted(node_in_process, gate):
    _, robot = node_in_process
    stamps = send_while_held(robot, 2)
    threading.Timer(0.5, gate.set).start()
    assert robot.change_state(DEACTIVATE)
    assert [robot.status_of(stamp_ns)['message'] for stamp_ns in stamps] == [
        'processed', 'inactive']


def test_services_answer_while_the_engine_is_busy(node_in_process, gate):
    _, robot = node_in_process
    send_while_held(robot, 1)
    robot.enable(True)
    assert robot.state() == 'active'
    assert robot.counters('camera') == {
        'frames_in': 1, 'frames_processed': 0, 'no_calibration': 1}
