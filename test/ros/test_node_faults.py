"""Faults put to the running node: each is logged once, counted, shown, and survived."""

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
from marigold_ros.depth.networks import Networks

pytestmark = pytest.mark.node
H, W = 120, 160
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
JPEG = cv2.imencode('.jpg', RGB)[1].tobytes()
MAX_PIXELS = 400_000


def jpeg_bomb() -> bytes:
    """Say 20000 x 20000 in the frame header of a small stream."""
    start = JPEG.index(b'\xff\xc0') + 5
    return JPEG[:start] + (20000).to_bytes(2, 'big') * 2 + JPEG[start + 4:]


def raw(make: Callable[[int], Any]) -> Callable[[int], list[tuple[str, Any]]]:
    """Send one image."""
    return lambda ns: [('image_raw', make(ns))]


def packed(stream: bytes) -> Callable[[int], list[tuple[str, Any]]]:
    """Send one compressed image."""
    return lambda ns: [('image_raw/compressed', compressed(stream, ns))]


def calibrated(**changes: Any) -> Callable[[int], list[tuple[str, Any]]]:
    """Send a good image with a camera_info that is wrong."""
    return lambda ns: [('camera_info', camera_info(ns, **changes)), ('image_raw', image(RGB, ns))]


def of_another_frame(ns: int) -> list[tuple[str, Any]]:
    message = camera_info(ns)
    message.header.frame_id = 'rear_optical_frame'
    return [('camera_info', message), ('image_raw', image(RGB, ns))]


def broken_infer(engine: DepthEngine, *_: Any, **__: Any) -> None:
    raise RuntimeError('simulated')


def no_memory(networks: Networks, *_: Any) -> None:
    raise torch.OutOfMemoryError('CUDA out of memory (simulated)')


def no_memory_for_two(networks: Networks, latents: torch.Tensor) -> torch.Tensor:
    if len(latents) > 1:
        no_memory(networks)
    return decode(networks, latents)


decode = Networks.decode


@dataclass(frozen=True)
class Fault:
    """
    What is sent twice from a camera of its own, and what the node makes of it.

    `arm` names what is replaced in the engine meanwhile; `counts` is what is counted in all.
    """

    send: Callable[[int], list[tuple[str, Any]]]
    counter: str
    said: str
    outcome: str
    counts: int = 2
    arm: tuple[type, str, Callable] | None = None
    ensemble_size: int = 1


def bad_image(send: Callable[[int], list[tuple[str, Any]]], said: str) -> Fault:
    return Fault(send, 'dropped_bad_image', said, 'bad_image')


def bad_info(send: Callable[[int], list[tuple[str, Any]]], said: str,
             counter: str = 'no_calibration') -> Fault:
    return Fault(send, counter, said, 'processed')


def good(ns: int) -> list[tuple[str, Any]]:
    return [('camera_info', camera_info(ns)), ('image_raw', image(RGB, ns))]


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
    'cut_message': bad_image(raw(lambda ns: serialize_message(image(RGB, ns))[:100]),
                             'Image must be whole; its 100 bytes cannot be read'),
    'truncated_jpeg': bad_image(packed(JPEG[:len(JPEG) // 2]), '`data`'),
    'corrupt_jpeg': bad_image(packed(JPEG[:20] + bytes(300) + JPEG[320:]), '`data`'),
    'no_jpeg': bad_image(packed(b'no image'), '`data`'),
    'empty_jpeg': bad_image(packed(b''), '`data`'),
    'jpeg_bomb': bad_image(packed(jpeg_bomb()), f'at most {MAX_PIXELS} pixels.*20000 x 20000'),
    'info_of_other_size': bad_info(calibrated(width=320), 'camera_info is for 320 x 120, the '
                                   'image is 160 x 120; only relative depth is published'),
    'nan_in_k': bad_info(calibrated(f=float('nan')), 'must be finite'),
    'short_d': bad_info(calibrated(d=(0.1, 0.2, 0.3)), '`D` of plumb_bob must have'),
    'uncalibrated': bad_info(calibrated(f=0.0), r'camera_info is uncalibrated, K\[0\] is 0'),
    'info_of_other_frame': bad_info(
        of_another_frame, "info is of frame 'rear_optical_frame', the image of 'camera_optical_f",
        'camera_info_of_other_frame'),
    'stamps_go_back': Fault(
        raw(lambda ns: image(RGB, ns - 7200 * 10 ** 9)),
        'stamp_jumped_back', r'by 7[0-9.]* s; starting afresh', 'processed'),
    'broken_engine': Fault(good, 'dropped_engine_error', 'RuntimeError: simulated\nTraceback',
                           'engine_error', arm=(DepthEngine, 'infer_batch', broken_infer)),
    'no_memory': Fault(
        good, 'dropped_engine_error', 'OutOfMemoryError: one image of .* does not fit into the '
        'memory of cpu.*lower `processing_resolution`', 'engine_error',
        arm=(Networks, 'encode', no_memory)),
    'memory_for_one': Fault(
        good, 'out_of_memory', 'ran out of memory; images at once from now on.*: 1', 'processed',
        counts=1, arm=(Networks, 'decode', no_memory_for_two), ensemble_size=2),
}
CAMERAS = [*FAULTS, 'burst', 'deaf']


def is_packed(camera: str) -> bool:
    """Say whether a camera sends compressed images."""
    return camera in FAULTS and FAULTS[camera].send(10 ** 18)[-1][0].endswith('compressed')


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    """One node with a camera for every fault, so that nothing that is counted overlaps."""
    checkpoint = make_checkpoint(tmp_path_factory.mktemp('models') / 'random')
    settings = {'checkpoint': checkpoint, 'cameras': f'[{", ".join(CAMERAS)}]',
                'scale.source': 'fixed', 'scale.min_depth_m': 1, 'scale.max_depth_m': 5,
                'latency_cap_ms': 0, 'max_age_s': 30, 'max_inference_steps': 1,
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
def armed(node, fault: Fault) -> Iterator[None]:
    """Put a fault into the engine, and take it out again."""
    with pytest.MonkeyPatch.context() as patch:
        if fault.arm:
            patch.setattr(*fault.arm)
        node.set_parameters([Parameter('ensemble_size', value=fault.ensemble_size)])
        yield
    node.set_parameters([Parameter('ensemble_size', value=1)])


def send(robot: Robot, camera: str, messages: list[tuple[str, Any]]) -> str:
    """Publish, and wait for what becomes of the image, the last of the messages."""
    for topic, message in messages:
        robot.publish(f'/{camera}/{topic}', message)
    if not isinstance(message, bytes):
        message = serialize_message(message)
    # Seconds and nanoseconds follow the encapsulation.
    sec, nanosec = np.frombuffer(message, '<u4', 2, 4).tolist()
    return robot.status_of(sec * 10 ** 9 + nanosec)['message']


@pytest.fixture(scope='module')
def aftermath(running):
    """Send every fault twice between good frames; what became of them all."""
    node, robot = running
    outcomes: dict[str, list[str]] = {}
    for camera, fault in FAULTS.items():
        make_good = packed(JPEG) if is_packed(camera) else good
        outcomes[camera] = said = [send(robot, camera, make_good(time.time_ns()))]
        for _ in range(2):
            with armed(node, fault):
                said.append(send(robot, camera, fault.send(time.time_ns())))
            said.append(send(robot, camera, make_good(time.time_ns())))
    seen = len(robot.messages['/diagnostics'])
    robot.until(lambda: len(robot.messages['/diagnostics']) > seen + 1, what='/diagnostics')
    return outcomes


def diagnostics(robot: Robot, camera: str) -> list[DiagnosticStatus]:
    """Give everything that /diagnostics said of a camera."""
    return [status for array in robot.messages['/diagnostics'] for status in array.status
            if status.name == f'depth_node: {camera}']


@pytest.mark.parametrize('camera', FAULTS)
def test_a_fault_is_logged_counted_shown_and_survived(
        running, aftermath, camera):
    _, robot = running
    fault = FAULTS[camera]
    kind = fault.counter.removeprefix('dropped_')
    assert aftermath[camera] == ['processed', fault.outcome] * 2 + ['processed']

    # Topics keep no order among each other: the last words may come after /diagnostics.
    logged = robot.until(lambda: [log.msg for log in robot.messages['/rosout']
                                  if log.msg.startswith(f'{camera}: {kind}: ')], what='a log')
    assert len(logged) == 1
    assert re.search(fault.said, logged[0], re.DOTALL)

    shown = diagnostics(robot, camera)
    values = {each.key: each.value for each in shown[-1].values}
    assert int(values[fault.counter]) == fault.counts
    assert re.search(fault.said, values[f'last_{kind}'], re.DOTALL)
    assert any(status.level == DiagnosticStatus.WARN and kind in status.message
               for status in shown)


def test_the_node_tells_of_the_last_lost_frame(running, aftermath):
    _, robot = running
    values = {each.key: each.value for each in robot.diagnostics('depth_node').values}
    assert values['last_error'].startswith('no_memory: engine_error: OutOfMemoryError: one image')


def test_of_a_burst_the_newest_is_processed_and_all_counted(running):
    _, robot = running
    start_ns = time.time_ns()
    images = [image(RGB, start_ns + i) for i in range(501)]
    for message in images:
        robot.publish('/burst/image_raw', message)
    assert robot.status_of(start_ns + 500)['message'] == 'processed'
    assert send(robot, 'burst', good(time.time_ns())) == 'processed'
    counted = Counter(robot.counters('burst'))
    # The first one that is taken tells the numbers of the others.
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
node.create_subscription(Image, '/deaf/depth_relative/image', print, 10)
time.sleep(600)
"""


def test_a_subscriber_that_hangs_holds_up_nobody(running):
    node, robot = running
    topic = '/deaf/depth_relative/image'
    never_reads = rclpy.create_node('never_reads', context=robot.context)
    never_reads.create_subscription(Image, topic, print, QoSProfile(depth=1))
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
