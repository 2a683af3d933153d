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
    """Hold one transform, from 5 s on, and the frames of those that are added."""

    def __init__(self, cache_time: Duration | None = None, node: object = None) -> None:
        self.node = node
        self.added: list[tuple[str, str, str]] = []

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        self.added.append(('moving', transform.header.frame_id, transform.child_frame_id))

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        self.added.append(('static', transform.header.frame_id, transform.child_frame_id))

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
    """Count the registered listeners, and keep the buffer of the newest."""

    listening = 0

    def __init__(self, buffer: object, node: object) -> None:
        TransformListener.buffer = buffer
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
    transforms = Transforms('node', pytest.fail)
    moved = transforms.lookup('camera', '/lidar', 6 * 10 ** 9) @ [1, 0, 0, 1]
    np.testing.assert_allclose(moved, [2, 1, 0, 1], atol=1e-12)  # a quarter turn left, 2 m ahead
    assert TransformListener.listening == 1
    transforms.close()
    transforms.close()
    assert TransformListener.listening == 0
    with pytest.raises(InputError, match='has unsubscribed from TF'):
        transforms.lookup('camera', 'lidar', 6 * 10 ** 9)


def test_missing_transforms_are_named(tf2_ros):
    transforms = Transforms('node', pytest.fail)
    with pytest.raises(InputError, match='from radar to camera at that time: "radar" does not'):
        transforms.lookup('camera', 'radar', 6 * 10 ** 9)
    with pytest.raises(InputError, match='from lidar to camera .* extrapolation into the past'):
        transforms.lookup('camera', 'lidar', 4 * 10 ** 9)
    transforms.close()


def stamped(parent: str, child: str, x: float = 0.0, w: float = 1.0) -> TransformStamped:
    """Build a transform, whose rotation is valid if w is 1."""
    transform = TransformStamped(child_frame_id=child)
    transform.header.frame_id = parent
    transform.transform.translation.x, transform.transform.rotation.w = x, w
    return transform


def test_transforms_that_tf2_ignores_are_reported_with_their_frames(tf2_ros):
    reports: list[tuple[str, str]] = []
    transforms = Transforms('node', lambda *report: reports.append(report))
    received = TransformListener.buffer
    for child, x, w in (('base', 0.0, 1.0), ('base', 0.0, 0.0), ('base', np.nan, 1.0),
                        ('/arm', np.inf, 1.0), ('base', 1.0, np.nan), ('odom', 0.0, 1.0)):
        received.set_transform(stamped('odom', child, x, w), 'robot')
    received.set_transform_static(stamped('base', 'camera'), 'robot')
    received.set_transform_static(stamped('base', ''), 'robot')
    assert transforms._buffer.added == [('moving', 'odom', 'base'), ('static', 'base', 'camera')]
    assert [frames for frames, _ in reports] == [
        f"from '{child}' to '{parent}'" for child, parent in (
            ('base', 'odom'), ('base', 'odom'), ('arm', 'odom'), ('base', 'odom'),
            ('odom', 'odom'), ('', 'base'))]
    assert reports[2][1] == ("the transform from 'arm' to 'odom' is ignored: the translation must "
                             'be finite; got (inf, 0.0, 0.0)')
    transforms.close()


def test_without_tf2_ros_the_reason_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    with pytest.raises(InputError, match='tf2_ros cannot be imported'):
        Transforms('node', pytest.fail).lookup('camera', 'lidar', 0)
