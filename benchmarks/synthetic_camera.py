"""
A camera without a sensor: real messages at a real rate, from a process of its own.

    python -m benchmarks.synthetic_camera camera --size 640x480 --rate 30
"""

from __future__ import annotations

import argparse
from collections import Counter
import itertools
import json
import sys
import time
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from benchmarks.synthetic_images import mixed_pictures
from marigold_ros.depth.types import RgbImage
from marigold_ros.ros.conversions import make_header, to_byte_array
from marigold_ros.ros.tools.command_line import positive
from marigold_ros.stop_flag import StopFlag

PICTURES = 16
# plumb_bob of an ordinary wide lens, so that there is something to rectify.
DISTORTION = (-0.28, 0.07, 0.0002, 0.0001, 0.0)
# What goes wrong on a robot sooner or later, with raw images and with JPEG, each in its turn.
RAW_FAULTS = ('short_data', 'nan_camera_info', 'bad_encoding', 'burst')
JPEG_FAULTS = ('truncated_jpeg', 'nan_camera_info', 'burst')
BURST = 20
# What was published last is on its way for so long.
LINGER_S = 0.3


def parse_size(text: str) -> tuple[int, int]:
    """Read <width>x<height>."""
    try:
        width, height = (int(number) for number in text.split('x'))
    except ValueError as err:
        raise argparse.ArgumentTypeError(f'must be <width>x<height>; got {text}') from err
    return width, height


def calibration(width: int, height: int) -> CameraInfo:
    """Make the camera_info of a lens that looks through the middle, 65 degrees wide."""
    f = 0.785 * width
    k = [f, 0.0, width / 2, 0.0, f, height / 2, 0.0, 0.0, 1.0]
    return CameraInfo(width=width, height=height, distortion_model='plumb_bob',
                      d=list(DISTORTION), k=k, r=np.eye(3).ravel(),
                      p=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0])


def image_of(rgb: RgbImage) -> Image:
    """Make a bgr8 message, as most drivers send."""
    return Image(height=rgb.shape[0], width=rgb.shape[1], encoding='bgr8', step=3 * rgb.shape[1],
                 data=to_byte_array(np.ascontiguousarray(rgb[..., ::-1])))


def jpeg_of(rgb: RgbImage) -> CompressedImage:
    """Make a JPEG message."""
    _, stream = cv2.imencode('.jpg', np.ascontiguousarray(rgb[..., ::-1]))
    return CompressedImage(format='rgb8; jpeg compressed bgr8', data=to_byte_array(stream))


class FakeCamera:
    """
    Send pictures of mixed complexity with their camera_info.

    Parameters
    ----------
    node : rclpy.node.Node
    name : str
        Topics are <name>/image_raw (or /compressed below it) and <name>/camera_info.
    size : (int, int)
        Width and height of the images, px.
    reliability : {'reliable', 'best_effort'}
    compressed : bool

    Attributes
    ----------
    sent : Counter
        'frames', images of any kind, and every fault by name.
    """

    def __init__(self, node: Any, name: str, size: tuple[int, int], reliability: str,
                 compressed: bool) -> None:
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5,
                         reliability=ReliabilityPolicy[reliability.upper()])
        self.sent = Counter(frames=0)
        self._node, self._frame_id = node, f'{name}_optical_frame'
        self._info = calibration(*size)
        make = jpeg_of if compressed else image_of
        self._images = [make(np.asarray(cv2.resize(each, size), np.uint8))
                        for each in mixed_pictures(PICTURES)]
        topic = f'{name}/image_raw/compressed' if compressed else f'{name}/image_raw'
        self.image_publisher = node.create_publisher(type(self._images[0]), topic, qos)
        self._info_publisher = node.create_publisher(CameraInfo, f'{name}/camera_info', qos)

    def send(self, fault: str = '') -> None:
        """Send the next frame, or what a fault makes of it."""
        if fault == 'burst':
            self.sent[fault] += 1
            for _ in range(BURST):
                self.send()
            return
        header = make_header(self._node.get_clock().now().nanoseconds, self._frame_id)
        self._info.header = header
        good_k = self._info.k.copy()
        if fault == 'nan_camera_info':
            self._info.k[0] = float('nan')
        self._info_publisher.publish(self._info)
        self._info.k = good_k
        message = self._images[self.sent['frames'] % len(self._images)]
        spoiled = spoil(message, fault)
        spoiled.header = header
        self.image_publisher.publish(spoiled)
        self.sent['frames'] += 1
        if fault:
            self.sent[fault] += 1


def spoil(message: Image | CompressedImage, fault: str) -> Image | CompressedImage:
    """Return a message with a fault of its kind; other faults leave it as it is."""
    if fault == 'truncated_jpeg' and isinstance(message, CompressedImage):
        return CompressedImage(format=message.format, data=message.data[:len(message.data) // 2])
    if fault in ('short_data', 'bad_encoding') and isinstance(message, Image):
        short = fault == 'short_data'
        return Image(height=message.height, width=message.width, step=message.step,
                     encoding=message.encoding if short else '32FC1',
                     data=message.data[:-1] if short else message.data)
    return message


def run(camera: FakeCamera, options: argparse.Namespace, stop: StopFlag) -> None:
    """Wait for a subscriber, then send by the clock until asked to stop."""
    while not camera.image_publisher.get_subscription_count():
        if not stop.sleep_until(time.monotonic() + 0.05):
            return
    period_s, next_s = 1.0 / options.rate, time.monotonic()
    faults = JPEG_FAULTS if options.compressed else RAW_FAULTS
    for number in itertools.count(1):
        if not stop.sleep_until(next_s):
            return
        faulty = options.fault_every and number % options.fault_every == 0
        camera.send(faults[number // options.fault_every % len(faults)] if faulty else '')
        next_s = max(next_s + period_s, time.monotonic() - period_s)  # late: no catching up


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('camera', help='name, before image_raw and camera_info')
    parser.add_argument('--size', type=parse_size, default=(640, 480), metavar='WIDTHxHEIGHT')
    parser.add_argument('--rate', type=positive, default=30.0, help='frames/s')
    parser.add_argument('--reliability', choices=('reliable', 'best_effort'), default='reliable')
    parser.add_argument('--compressed', action='store_true', help='JPEG instead of bgr8')
    parser.add_argument('--fault-every', type=int, default=0,
                        help='a bad image, a bad camera_info or a burst in turn, every so many '
                        'frames; 0: never')
    return parser


def main() -> int:
    """Send until Ctrl-C; the last line of the output counts what was sent, as JSON."""
    stop = StopFlag()
    options = make_parser().parse_args()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f'fake_camera_{options.camera}', enable_rosout=False,
                             start_parameter_services=False)
    camera = FakeCamera(node, options.camera, options.size, options.reliability,
                        options.compressed)
    run(camera, options, stop)
    time.sleep(LINGER_S)
    print(json.dumps(camera.sent), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
