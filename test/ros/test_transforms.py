"""
The adapter to tf2_ros, tested with a fake, because PyPI's ROS has no tf2_ros.

The fake has the signatures of ros2/geometry2's tf2_ros_py: Buffer(cache_time, node),
Buffer.lookup_transform(target_frame, source_frame, time, timeout), TransformListener(buffer, node)
with unregister(), and TransformException as the base of every error.
"""

from __future__ import annotations

import sys
from types import ModuleType

from geometry_msgs.msg import TransformStamped
import numpy as np
import pytest
from rclpy.duration import Duration
from rclpy.time import Time

from marigold_ros.depth.errors import InputError
from marigold_ros.ros.transforms import Transforms


class TransformException(Exception):
    """Base, as in tf2_py."""


class ExtrapolationException(TransformException):
    """A transform is missing at the requested time."""


class Buffer:
    """Hold one transform, from 5 s on."""

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
    """Count the registered listeners."""

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


def test_a_transform_maps_points_from_source_to_target(tf2_ros):
    transforms = Transforms('node')
    moved = transforms.lookup('camera', 'lidar', 6 * 10 ** 9) @ [1, 0, 0, 1]
    np.testing.assert_allclose(moved, [2, 1, 0, 1], atol=1e-12)  # a quarter turn left, 2 m ahead
    assert TransformListener.listening == 1
    transforms.close()
    transforms.close()
    assert TransformListener.listening == 0
    with pytest.raises(InputError, match='has unsubscribed from TF'):
        transforms.lookup('camera', 'lidar', 6 * 10 ** 9)


def test_missing_transforms_are_named(tf2_ros):
    transforms = Transforms('node')
    with pytest.raises(InputError, match='from radar to camera at that time: "radar" does not'):
        transforms.lookup('camera', 'radar', 6 * 10 ** 9)
    with pytest.raises(InputError, match='from lidar to camera .* extrapolation into the past'):
        transforms.lookup('camera', 'lidar', 4 * 10 ** 9)
    transforms.close()


def test_without_tf2_ros_the_reason_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    with pytest.raises(InputError, match='tf2_ros cannot be imported'):
        Transforms('node').lookup('camera', 'lidar', 0)
