"""
The adapter to tf2_ros, which PyPI's ROS has not: here against a stand-in of the calls it makes.

The stand-in has the signatures of ros2/geometry2's tf2_ros_py: Buffer(cache_time, node),
Buffer.lookup_transform(target_frame, source_frame, time, timeout), TransformListener(buffer, node)
with unregister(), and TransformException as the base of every error.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

from geometry_msgs.msg import TransformStamped
from node_harness import header
import numpy as np
import pytest
from rclpy.duration import Duration
from rclpy.serialization import serialize_message
from rclpy.time import Time
from sensor_msgs.msg import LaserScan

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.camera import Camera
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.filter import FilterConfig
from marigold_ros.metric.sources.ground_plane import down_vector
from marigold_ros.ros.calibration import Calibration
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.metric_inputs import CameraReference, find_tilt
from marigold_ros.ros.transforms import Transforms


class TransformException(Exception):
    """Base, as in tf2_py."""


class ExtrapolationException(TransformException):
    """TF that is late."""


class Buffer:
    """Knows one transform, from 5 s on."""

    def __init__(self, cache_time: Duration | None = None, node: object = None) -> None:
        self.node = node

    def lookup_transform(self, target_frame: str, source_frame: str, time: Time,
                         timeout: Duration = Duration()) -> TransformStamped:
        if (target_frame, source_frame) != ('camera', 'lidar'):
            raise TransformException(f'"{source_frame}" does not exist')
        if time.nanoseconds < 5 * 10 ** 9:
            raise ExtrapolationException('Lookup would require extrapolation into the past')
        found = TransformStamped()
        found.transform.translation.x = 2.0
        found.transform.rotation.z = found.transform.rotation.w = np.sqrt(0.5)
        return found


class TransformListener:
    """Counts who listens."""

    listening = 0

    def __init__(self, buffer: Buffer, node: object) -> None:
        assert buffer.node is node
        TransformListener.listening += 1

    def unregister(self) -> None:
        TransformListener.listening -= 1


@pytest.fixture
def tf2_ros(monkeypatch):
    module = ModuleType('tf2_ros')
    for each in (Buffer, TransformListener, TransformException, ExtrapolationException):
        setattr(module, each.__name__, each)
    monkeypatch.setitem(sys.modules, 'tf2_ros', module)


def test_a_transform_takes_points_of_the_source_to_the_target(tf2_ros):
    transforms = Transforms('node')
    moved = transforms.lookup('camera', 'lidar', 6 * 10 ** 9) @ [1, 0, 0, 1]
    np.testing.assert_allclose(moved, [2, 1, 0, 1], atol=1e-12)  # a quarter turn left, 2 m ahead
    assert TransformListener.listening == 1
    transforms.close()
    transforms.close()
    assert TransformListener.listening == 0
    with pytest.raises(InputError, match='not listened to any more'):
        transforms.lookup('camera', 'lidar', 6 * 10 ** 9)


def test_missing_and_late_transforms_are_named(tf2_ros):
    transforms = Transforms('node')
    with pytest.raises(InputError, match='from radar to camera at that time: "radar" does not'):
        transforms.lookup('camera', 'radar', 6 * 10 ** 9)
    with pytest.raises(InputError, match='from lidar to camera .* extrapolation into the past'):
        transforms.lookup('camera', 'lidar', 4 * 10 ** 9)
    transforms.close()


def test_without_tf2_ros_the_reason_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    with pytest.raises(InputError, match='tf2_ros cannot be imported'):
        Transforms('node').lookup('camera', 'lidar', 0)


# What the scale source makes of it

K = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
RGB = np.zeros((120, 160, 3), np.uint8)


class Known:
    """Knows one pose, whatever the names."""

    def __init__(self, pose: np.ndarray) -> None:
        self.pose = pose
        self.asked: tuple = ()

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        self.asked = (target, source, stamp_ns)
        return self.pose


CALIBRATION = Calibration(
    Camera(160, 120, K, (0.0,) * 5, 'plumb_bob', np.eye(3), np.hstack([K, np.zeros((3, 1))])),
    None, '', True, 'camera_optical_frame')
FRAME = ReceivedFrame('camera', b'', False, 10 ** 9, 'camera_optical_frame', 0.0)


def anchors_of(reference: CameraReference, config: ScaleConfig, transforms):
    return reference.anchors(FRAME, RGB, CALIBRATION, config, transforms, 10 ** 6)


def test_a_scan_is_projected_through_tf_from_its_own_frame_and_time():
    reference = CameraReference(False)
    scan = LaserScan(header=header(9 * 10 ** 8, 'laser'), angle_min=0.0, angle_increment=0.1,
                     range_min=0.1, range_max=9.0, ranges=[2.0])
    reference.store.put(serialize_message(scan))
    # Body axes turned to optical ones, the laser 0.5 m below the camera.
    pose = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0.5], [1, 0, 0, 0], [0, 0, 0, 1]])
    known = Known(pose)
    anchors = anchors_of(reference, ScaleConfig('scan'), known)
    assert known.asked == ('camera_optical_frame', 'laser', 9 * 10 ** 8)
    # 2 m ahead and 0.5 m down: v = 100 * 0.5 / 2 + 60
    assert (anchors.rows.tolist(), anchors.columns.tolist()) == ([85], [80])
    assert anchors.depth_m.tolist() == [2.0]


def test_without_tf_or_extrinsics_the_frames_are_named():
    reference = CameraReference(False)
    reference.store.put(serialize_message(LaserScan(header=header(10 ** 9, 'laser'))))
    with pytest.raises(InputError, match='where is laser seen from camera_optical_frame[?] TF is '
                                         'not listened to; else set scale.extrinsics'):
        anchors_of(reference, ScaleConfig('scan'), None)


def test_a_stamp_that_stands_still_is_a_reference_that_freezes(monkeypatch):
    reference = CameraReference(False)
    clock_s = iter((1.0, 1.5, 2.5))
    monkeypatch.setattr('marigold_ros.ros.metric_inputs.time',
                        SimpleNamespace(monotonic=lambda: next(clock_s)))
    for _ in range(3):
        reference.store.put(serialize_message(LaserScan(header=header(5, 'laser'))))
    config = ScaleConfig('scan', filter=FilterConfig(hold_s=0.5))
    with pytest.raises(InputError, match='freezes: messages arrive, but all with one stamp for '
                                         '1.5 s'):
        anchors_of(reference, config, None)


def test_the_tilt_comes_from_the_cameras_pose_in_the_base_frame():
    # Looks 0.1 rad down: the z axis of the optical frame, in the base frame, sinks.
    c, s = np.cos(0.1), np.sin(0.1)
    base_from_camera = np.eye(4)
    base_from_camera[:3, :3] = np.array([[0, -s, c], [-1, 0, 0], [0, -c, -s]])
    known = Known(base_from_camera)
    config = ScaleConfig('ground_plane', camera_height_m=0.35, base_frame='base')
    tilt = find_tilt(FRAME, config, known)
    assert known.asked[:2] == ('base', 'camera_optical_frame')
    assert tilt == pytest.approx((0.1, 0.0))
    np.testing.assert_allclose(down_vector(*tilt), base_from_camera[:3, :3].T @ [0, 0, -1])
    assert find_tilt(FRAME, config, None) is None  # searched then
