"""
Publish synthetic images and camera_info at a fixed rate, in a separate process.

    python -m benchmarks.synthetic_camera camera --size 640x480 --rate 30
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
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

from benchmarks.synthetic_images import make_mixed_complexity_images, make_moving_scene
from marigold_ros.depth.types import RgbImage
from marigold_ros.ros.conversions import make_header, to_byte_array
from marigold_ros.ros.tools.command_line import parse_positive
from marigold_ros.stop_flag import StopFlag

# What it prints when Ctrl-C ends it with exit code 0 from then on.
STARTED = 'started'
IMAGE_COUNT = 16
# A pan with about the novelty of a robot's drive: 7 % of the image is new three times a second.
PAN_PX_PER_S = 135.0  # of an image of 640 px
PAN_S = 2.0  # until it turns back
# plumb_bob coefficients of an ordinary wide lens, so that the node has to rectify.
DISTORTION = (-0.28, 0.07, 0.0002, 0.0001, 0.0)
# With transforms the camera moves along a wall so far away, instead of panning.
WALL_M = 2.0
# Faults of raw and of JPEG images, sent in turn.
RAW_FAULTS = ('short_data', 'nan_camera_info', 'bad_encoding', 'burst')
JPEG_FAULTS = ('truncated_jpeg', 'nan_camera_info', 'burst')
BURST = 20
# Time for the last messages to be sent.
FLUSH_S = 0.3


def parse_size(text: str) -> tuple[int, int]:
    """Parse <width>x<height>."""
    try:
        width, height = (int(number) for number in text.split('x'))
    except ValueError as err:
        raise argparse.ArgumentTypeError(f'must be <width>x<height>; got {text}') from err
    return width, height


def make_camera_info(width: int, height: int) -> CameraInfo:
    """Return the camera_info of a centred lens with a field of view of 65 degrees."""
    f = 0.785 * width
    k = [f, 0.0, width / 2, 0.0, f, height / 2, 0.0, 0.0, 1.0]
    return CameraInfo(width=width, height=height, distortion_model='plumb_bob',
                      d=list(DISTORTION), k=k, r=np.eye(3).ravel(),
                      p=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0])


def make_raw_message(rgb: RgbImage) -> Image:
    """Return a bgr8 message, the format of most drivers."""
    return Image(height=rgb.shape[0], width=rgb.shape[1], encoding='bgr8', step=3 * rgb.shape[1],
                 data=to_byte_array(np.ascontiguousarray(rgb[..., ::-1])))


def make_jpeg_message(rgb: RgbImage) -> CompressedImage:
    """Return a JPEG message."""
    _, stream = cv2.imencode('.jpg', np.ascontiguousarray(rgb[..., ::-1]))
    return CompressedImage(format='rgb8; jpeg compressed bgr8', data=to_byte_array(stream))


def make_images(content: str, size: tuple[int, int], rate_hz: float) -> list[RgbImage]:
    """
    Return the images that are sent in turn.

    Parameters
    ----------
    content : {'moving', 'cuts'}
        A pan over one scene, or a different scene of other complexity in each image.
    size : (int, int)
        Width and height, px.
    rate_hz : float
    """
    if content == 'cuts':
        return [np.asarray(cv2.resize(each, size), np.uint8)
                for each in make_mixed_complexity_images(IMAGE_COUNT)]
    step_px = PAN_PX_PER_S * size[0] / 640 / rate_hz
    return make_moving_scene(size, step_px, 2 * round(PAN_S * rate_hz))


def distort(rgb: RgbImage) -> RgbImage:
    """Return an image as the lens shows it, which the node then rectifies."""
    height, width = rgb.shape[:2]
    K = np.reshape(make_camera_info(width, height).k, (3, 3))
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    straight = cv2.undistortPoints(pixels.reshape(-1, 1, 2).astype(np.float64), K,
                                   np.array(DISTORTION), P=K)
    return np.asarray(cv2.remap(
        rgb, straight.reshape(height, width, 2).astype(np.float32), np.empty(0),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def places_m(count: int, size: tuple[int, int], rate_hz: float) -> list[float]:
    """Return where the camera is at each of the images of `make_images` along the wall."""
    step_px = PAN_PX_PER_S * size[0] / 640 / rate_hz
    metres_per_px = WALL_M / make_camera_info(*size).k[0]
    return [round(step_px * min(number, count - number)) * metres_per_px
            for number in range(count)]


class SyntheticCamera:
    """
    Publish images with their camera_info.

    Parameters
    ----------
    node : rclpy.node.Node
    name : str
        Topics are <name>/image_raw (or /compressed below it) and <name>/camera_info.
    images : sequence of uint8 [H, W, 3]
        Sent in turn.
    reliability : {'reliable', 'best_effort'}
    compressed : bool
    places_m : sequence of float
        Where the camera is at each image, in m to the right; published on /tf.  Empty: it is not.

    Attributes
    ----------
    sent : Counter
        Number of images ('frames', with and without faults), and of every fault by name.
    stamps_ns : list of int
        Of all images, ns.
    """

    def __init__(self, node: Any, name: str, images: Sequence[RgbImage], reliability: str,
                 compressed: bool, places_m: Sequence[float] = ()) -> None:
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5,
                         reliability=ReliabilityPolicy[reliability.upper()])
        self.sent = Counter(frames=0)
        self.stamps_ns: list[int] = []
        self._node, self._frame_id = node, f'{name}_optical_frame'
        height, width = images[0].shape[:2]
        self._info = make_camera_info(width, height)
        make = make_jpeg_message if compressed else make_raw_message
        messages = {id(each): make(each) for each in images}  # an image may be sent twice
        self._images = [messages[id(each)] for each in images]
        topic = f'{name}/image_raw/compressed' if compressed else f'{name}/image_raw'
        self.image_publisher = node.create_publisher(type(self._images[0]), topic, qos)
        self._info_publisher = node.create_publisher(CameraInfo, f'{name}/camera_info', qos)
        self._places_m = places_m
        if places_m:  # imported here, as a camera must start, and end, fast
            from tf2_msgs.msg import TFMessage

            from scenes.robot_messages import serialize_transforms
            self._serialize_transforms = serialize_transforms
            self._tf_publisher = node.create_publisher(TFMessage, '/tf', QoSProfile(depth=100))

    def send(self, fault: str = '') -> None:
        """Publish the next image, with a fault if named."""
        if fault == 'burst':
            self.sent[fault] += 1
            for _ in range(BURST):
                self.send()
            return
        stamp_ns = self._node.get_clock().now().nanoseconds
        header = make_header(stamp_ns, self._frame_id)
        if self._places_m:
            pose = np.eye(4)
            pose[0, 3] = self._places_m[self.sent['frames'] % len(self._places_m)]
            self._tf_publisher.publish(self._serialize_transforms(
                stamp_ns, [('odom', self._frame_id, pose)]))
        self._info.header = header
        good_k = self._info.k.copy()
        if fault == 'nan_camera_info':
            self._info.k[0] = float('nan')
        self._info_publisher.publish(self._info)
        self._info.k = good_k
        message = self._images[self.sent['frames'] % len(self._images)]
        faulty = apply_fault(message, fault)
        faulty.header = header
        self.image_publisher.publish(faulty)
        self.sent['frames'] += 1
        self.stamps_ns.append(stamp_ns)
        if fault:
            self.sent[fault] += 1


def apply_fault(message: Image | CompressedImage, fault: str) -> Image | CompressedImage:
    """Return a copy of an image message with a fault; the message itself for other faults."""
    if fault == 'truncated_jpeg' and isinstance(message, CompressedImage):
        return CompressedImage(format=message.format, data=message.data[:len(message.data) // 2])
    if fault in ('short_data', 'bad_encoding') and isinstance(message, Image):
        short = fault == 'short_data'
        return Image(height=message.height, width=message.width, step=message.step,
                     encoding=message.encoding if short else '32FC1',
                     data=message.data[:-1] if short else message.data)
    return message


def run(camera: SyntheticCamera, options: argparse.Namespace, stop: StopFlag) -> None:
    """Wait for a subscriber, then publish at a fixed rate until stopped."""
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
        next_s = max(next_s + period_s, time.monotonic() - period_s)  # no catching up


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('camera', help='name, before image_raw and camera_info')
    parser.add_argument('--size', type=parse_size, default=(640, 480), metavar='WIDTHxHEIGHT')
    parser.add_argument('--rate', type=parse_positive, default=30.0, help='frames/s')
    parser.add_argument('--content', choices=('moving', 'cuts'), default='moving',
                        help='a pan over one scene, or another scene in each image')
    parser.add_argument('--transforms', action='store_true',
                        help='publish on /tf how the camera moves along a wall')
    parser.add_argument('--reliability', choices=('reliable', 'best_effort'), default='reliable')
    parser.add_argument('--compressed', action='store_true', help='JPEG instead of bgr8')
    parser.add_argument('--fault-every', type=int, default=0,
                        help='send the next kind of fault every N frames; 0: never', metavar='N')
    return parser


def main() -> int:
    """Publish until Ctrl-C, then print what was sent as a line of JSON."""
    stop = StopFlag()
    print(STARTED, flush=True)
    options = make_parser().parse_args()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f'synthetic_camera_{options.camera}', enable_rosout=False,
                             start_parameter_services=False)
    images = make_images(options.content, options.size, options.rate)
    places = places_m(len(images), options.size, options.rate) if options.transforms else ()
    if options.transforms:
        images = [distort(each) for each in images]
    camera = SyntheticCamera(node, options.camera, images, options.reliability,
                             options.compressed, places)
    run(camera, options, stop)
    time.sleep(FLUSH_S)
    print(json.dumps({**camera.sent, 'stamps_ns': camera.stamps_ns}), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
