"""Faults in the running node: each is logged, counted and diagnosed, and the node goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import re
import signal
import subprocess
import sys
import time
from typing import Any

from checkpoints import make_checkpoint
import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_harness import camera_info, compressed, header, image, node_in_process, Robot, stamp_of
import numpy as np
import pytest
from rcl_interfaces.msg import Log
import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
import torch

from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.executors.base import Executor

pytestmark = pytest.mark.node
H, W = 120, 160
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
JPEG = cv2.imencode('.jpg', RGB)[1].tobytes()
MAX_PIXELS = 400_000


def jpeg_bomb() -> bytes:
    """Build a small JPEG stream whose frame header claims 20000 x 20000 px."""
    start = JPEG.index(b'\xff\xc0') + 5
    return JPEG[:start] + (20000).to_bytes(2, 'big') * 2 + JPEG[start + 4:]


def raw(make: Callable[[int], Any]) -> Callable[[int], list[tuple[str, Any]]]:
    """Return a function that builds one image to send."""
    return lambda ns: [('image_raw', make(ns))]


def packed(stream: bytes) -> Callable[[int], list[tuple[str, Any]]]:
    """Return a function that builds one compressed image to send."""
    return lambda ns: [('image_raw/compressed', compressed(stream, ns))]


def calibrated(**changes: Any) -> Callable[[int], list[tuple[str, Any]]]:
    """Return a function that builds a valid image with an invalid camera_info."""
    return lambda ns: [('camera_info', camera_info(ns, **changes)), ('image_raw', image(RGB, ns))]


def of_another_frame(ns: int) -> list[tuple[str, Any]]:
    message = camera_info(ns)
    message.header.frame_id = 'rear_optical_frame'
    return [('camera_info', message), ('image_raw', image(RGB, ns))]


def broken_infer(engine: DepthEngine, *_: Any, **__: Any) -> None:
    raise RuntimeError('simulated')


def no_memory(executor: Executor, *_: Any) -> None:
    raise torch.OutOfMemoryError('CUDA out of memory (simulated)')


def no_memory_for_two(executor: Executor, latents: torch.Tensor) -> torch.Tensor:
    if len(latents) > 1:
        no_memory(executor)
    return decode(executor, latents)


decode = Executor.decode


@dataclass(frozen=True)
class Fault:
    """
    What is sent twice from a camera of its own, and how the node must react.

    `patch` is an attribute of the engine that is replaced meanwhile; `count` is the final counter.
    """

    send: Callable[[int], list[tuple[str, Any]]]
    counter: str
    text: str
    outcome: str
    count: int = 2
    patch: tuple[type, str, Callable] | None = None
    ensemble_size: int = 1


def bad_image(send: Callable[[int], list[tuple[str, Any]]], text: str) -> Fault:
    return Fault(send, 'dropped_bad_image', text, 'bad_image')


def bad_info(send: Callable[[int], list[tuple[str, Any]]], text: str,
             counter: str = 'no_calibration') -> Fault:
    return Fault(send, counter, text, 'processed')


def good(ns: int) -> list[tuple[str, Any]]:
    return [('camera_info', camera_info(ns)), ('image_raw', image(RGB, ns))]


def other_size(ns: int) -> list[tuple[str, Any]]:
    """Build a valid image into which no depth can be carried, so that it waits for its run."""
    return [('camera_info', camera_info(ns, height=H // 2)), ('image_raw', image(RGB[:60], ns))]


FAULTS = {
    'short_data': bad_image(raw(lambda ns: Image(
        header=header(ns), height=H, width=W, encoding='rgb8', step=3 * W, data=bytes(1000))),
        f'`data` must be {H} rows x {3 * W} = {3 * H * W} bytes; got 1000'),
    'narrow_step': bad_image(raw(lambda ns: Image(
        header=header(ns), height=H, width=W, encoding='rgb8', step=W, data=bytes(W * H))),
        f'`step` must be at least {3 * W} bytes for {W} px of rgb8; got {W}'),
    'zero_size': bad_image(raw(lambda ns: Image(header=header(ns), encoding='rgb8')),
                           'must be at least 1 for rgb8; got 0 and 0'),
    'unknown_encoding': bad_image(raw(lambda ns: image(RGB, ns, 'rgb9')),
                                  "`encoding` must be one of .*; got 'rgb9'"),
    'depth_as_image': bad_image(raw(lambda ns: image(np.zeros((4, 16), np.uint8), ns, '32FC1')),
                                "`encoding` must be one of .*; got '32FC1'"),
    'elongated': bad_image(raw(lambda ns: image(np.zeros((1, 4096, 3), np.uint8), ns)), '4096'),
    'too_large': bad_image(raw(lambda ns: image(np.zeros((1000, 500, 3), np.uint8), ns)),
                           f'at most {MAX_PIXELS} pixels .*got 500 x 1000'),
    'truncated_message': bad_image(raw(lambda ns: serialize_message(image(RGB, ns))[:100]),
                                   'cannot deserialize the Image: its 100 bytes are truncated'),
    'truncated_jpeg': bad_image(packed(JPEG[:len(JPEG) // 2]), '`data`'),
    'corrupt_jpeg': bad_image(packed(JPEG[:20] + bytes(300) + JPEG[320:]), '`data`'),
    'no_jpeg': bad_image(packed(b'no image'), '`data`'),
    'empty_jpeg': bad_image(packed(b''), '`data`'),
    'jpeg_bomb': bad_image(packed(jpeg_bomb()), f'at most {MAX_PIXELS} pixels.*20000 x 20000'),
    'info_of_other_size': bad_info(calibrated(width=320), 'camera_info is for 320 x 120 px, but '
                                   'the image is 160 x 120 px; only relative depth is published'),
    'nan_in_k': bad_info(calibrated(f=float('nan')), 'must be finite'),
    'short_d': bad_info(calibrated(d=(0.1, 0.2, 0.3)), "`D` of the model 'plumb_bob' must have"),
    'unknown_model': bad_info(calibrated(model='double_sphere'),
                              "`distortion_model` must be one of .*; got 'double_sphere'"),
    'size_0_in_info': bad_info(calibrated(width=0, height=0), 'must be positive; got 0 x 0'),
    'uncalibrated': bad_info(calibrated(f=0.0), r'camera_info is uncalibrated: K\[0\] is 0'),
    'info_of_other_frame': bad_info(
        of_another_frame, "is 'rear_optical_frame', that of the image is 'camera_optical_frame'",
        'camera_info_of_other_frame'),
    'stamps_go_back': Fault(
        raw(lambda ns: image(RGB, ns - 7200 * 10 ** 9)),
        'stamp_jumped_back', r'stamps jumped back by 7[0-9.]* s; the state', 'processed'),
    'broken_engine': Fault(
        other_size, 'dropped_engine_error', 'RuntimeError: simulated\nTraceback', 'engine_error',
        patch=(DepthEngine, 'infer_batch', broken_infer)),
    'no_memory': Fault(
        other_size, 'dropped_engine_error', 'OutOfMemoryError: one image of .* does not fit into '
        'the memory of cpu.*lower `processing_resolution`', 'engine_error',
        patch=(Executor, 'encode', no_memory)),
    'memory_for_one': Fault(
        other_size, 'out_of_memory', 'ran out of memory; the batch size is now .*: 1', 'processed',
        count=1, patch=(Executor, 'decode', no_memory_for_two), ensemble_size=2),
}
CAMERAS = [*FAULTS, 'burst', 'deaf']


def is_packed(camera: str) -> bool:
    """Check whether a camera sends compressed images."""
    return camera in FAULTS and FAULTS[camera].send(10 ** 18)[-1][0].endswith('compressed')


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    """Run one node with a camera for every fault, so that each has its own counters."""
    checkpoint = make_checkpoint(tmp_path_factory.mktemp('models') / 'random')
    settings = {'checkpoint': checkpoint, 'cameras': f'[{", ".join(CAMERAS)}]',
                'scale.sources': '[fixed]', 'scale.min_depth_m': 1, 'scale.max_depth_m': 5,
                'latency_cap_ms': 0, 'max_age_s': 30, 'max_inference_steps': 1,
                'step_policy': 'fixed',  # the images do not change
                'max_input_pixels': MAX_PIXELS}
    arguments = [word for name, value in settings.items() for word in ('-p', f'{name}:={value}')]
    with node_in_process(*arguments) as (node, robot):
        topics = []
        for camera in CAMERAS:
            topics += [(f'/{camera}/camera_info', CameraInfo),
                       (f'/{camera}/image_raw/compressed', CompressedImage) if is_packed(camera)
                       else (f'/{camera}/image_raw', Image)]
        for topic, message_type in topics:
            robot.offer(topic, message_type)
        for topic, _ in topics:
            robot.wait_for_match(topic)
        robot.listen_all({
            '/depth_node/status': DiagnosticArray, '/diagnostics': DiagnosticArray, '/rosout': Log,
            **{f'/{camera}/depth_relative/image': Image for camera in CAMERAS}})
        yield node, robot


@contextmanager
def injected(node, fault: Fault) -> Iterator[None]:
    """Inject a fault into the engine during the block."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if fault.patch:
            monkeypatch.setattr(*fault.patch)
        node.set_parameters([Parameter('ensemble_size', value=fault.ensemble_size)])
        yield
    node.set_parameters([Parameter('ensemble_size', value=1)])


def send(robot: Robot, camera: str, messages: list[tuple[str, Any]]) -> str:
    """Publish the messages, and return the outcome of the image, which is the last of them."""
    for topic, message in messages:
        robot.publish(f'/{camera}/{topic}', message)
    if not isinstance(message, bytes):
        message = serialize_message(message)
    # Seconds and nanoseconds follow the encapsulation.
    sec, nanosec = np.frombuffer(message, '<u4', 2, 4).tolist()
    return robot.status_of(sec * 10 ** 9 + nanosec)['message']


@pytest.fixture(scope='module')
def outcomes(running):
    """Send every fault twice between valid frames; return the outcomes by camera."""
    node, robot = running
    by_camera: dict[str, list[str]] = {}
    for camera, fault in FAULTS.items():
        make_good = packed(JPEG) if is_packed(camera) else good
        by_camera[camera] = outcomes = [send(robot, camera, make_good(time.time_ns()))]
        for _ in range(2):
            with injected(node, fault):
                outcomes.append(send(robot, camera, fault.send(time.time_ns())))
            outcomes.append(send(robot, camera, make_good(time.time_ns())))
    seen = len(robot.messages['/diagnostics'])
    robot.until(lambda: len(robot.messages['/diagnostics']) > seen + 1, what='/diagnostics')
    return by_camera


def diagnostics(robot: Robot, camera: str) -> list[DiagnosticStatus]:
    """Return every status of a camera in /diagnostics."""
    return [status for array in robot.messages['/diagnostics'] for status in array.status
            if status.name == f'depth_node: {camera}']


@pytest.mark.parametrize('camera', FAULTS)
def test_a_fault_is_reported_and_the_node_goes_on(
        running, outcomes, camera):
    _, robot = running
    fault = FAULTS[camera]
    kind = fault.counter.removeprefix('dropped_')
    assert outcomes[camera] == ['processed', fault.outcome] * 2 + ['processed']

    # Messages of different topics have no order: the last log may arrive after /diagnostics.
    logged = robot.until(lambda: [log.msg for log in robot.messages['/rosout']
                                  if log.msg.startswith(f'{camera}: {kind}: ')], what='a log')
    assert len(logged) == 1
    assert re.search(fault.text, logged[0], re.DOTALL)

    shown = diagnostics(robot, camera)
    values = {each.key: each.value for each in shown[-1].values}
    assert int(values[fault.counter]) == fault.count
    assert re.search(fault.text, values[f'last_{kind}'], re.DOTALL)
    assert any(status.level == DiagnosticStatus.WARN and kind in status.message
               for status in shown)


def test_the_last_error_is_in_diagnostics(running, outcomes):
    _, robot = running
    values = {each.key: each.value for each in robot.diagnostics('depth_node').values}
    assert values['last_error'].startswith('no_memory: engine_error: OutOfMemoryError: one image')


def test_the_newest_frame_of_a_burst_is_processed_and_all_are_counted(running):
    _, robot = running
    start_ns = time.time_ns()
    images = [image(RGB, start_ns + i) for i in range(501)]
    for message in images:
        robot.publish('/burst/image_raw', message)
    assert robot.status_of(start_ns + 500)['message'] == 'processed'
    assert send(robot, 'burst', good(time.time_ns())) == 'processed'
    counted = Counter(robot.counters('burst'))
    # Frames before the first received one are not counted.
    first = min(stamp_of(array.header) for array in robot.messages['/depth_node/status']
                if array.status[0].name == 'depth_node: burst') - start_ns
    assert first + counted['frames_in'] + counted['missed'] == 502
    assert counted['frames_in'] == counted['frames_processed'] + counted['dropped_superseded']


HANGS = """
import rclpy, sys, time
from sensor_msgs.msg import Image
context = rclpy.Context()
rclpy.init(context=context, domain_id=int(sys.argv[1]))
node = rclpy.create_node('hangs', context=context)
node.create_subscription(Image, '/deaf/depth_relative/image', lambda _: None, 10)
time.sleep(600)
"""


def test_a_hanging_subscriber_does_not_block_the_node(running):
    node, robot = running
    topic = '/deaf/depth_relative/image'
    never_reads = rclpy.create_node('never_reads', context=robot.context)
    never_reads.create_subscription(Image, topic, lambda _: None, QoSProfile(depth=1))
    hangs = subprocess.Popen([sys.executable, '-c', HANGS, str(node.context.get_domain_id())])
    try:
        robot.until(lambda: node.count_subscribers(topic) == 3, what='two more subscribers')
        hangs.send_signal(signal.SIGSTOP)
        for _ in range(30):
            assert send(robot, 'deaf', good(time.time_ns())) == 'processed'
        assert robot.messages[topic][-1].height == H
    finally:
        hangs.kill()
        hangs.wait()
        never_reads.destroy_node()
