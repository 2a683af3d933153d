"""
The rules of tf2's BufferCore: the same tests run on our buffer and, where it is installed, on tf2.

The rules are those of setTransformImpl and walkToTopParent in tf2's buffer_core.cpp, and of
findClosest, interpolate and insertData in its cache.cpp (0.36, Jazzy).
"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.transform_buffer import TransformBuffer

SECOND = 10 ** 9
LEVEL = (0.0, 0.0, 0.0, 1.0)
QUARTER_LEFT = (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5))


class Tf2Buffer:
    """The buffer of tf2_ros, with the interface of ours."""

    def __init__(self):
        import tf2_ros
        self._error, self._buffer = tf2_ros.TransformException, tf2_ros.Buffer()
        self.clear_moving = self._buffer.clear

    def set_static(self, parent, child, pose):
        self._buffer.set_transform_static(self._message(parent, child, 0, pose), 'test')

    def set_moving(self, parent, child, stamp_ns, pose):
        self._buffer.set_transform(self._message(parent, child, stamp_ns, pose), 'test')

    def lookup(self, target, source, time_ns):
        from rclpy.time import Time

        from marigold_ros.geometry.poses import pose_matrix
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=time_ns))
        except self._error as err:
            raise InputError(str(err)) from err
        t, q = found.transform.translation, found.transform.rotation
        return pose_matrix((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))

    @staticmethod
    def _message(parent, child, stamp_ns, pose):
        from geometry_msgs.msg import TransformStamped
        message = TransformStamped(child_frame_id=child)
        message.header.frame_id = parent
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
        t, q = message.transform.translation, message.transform.rotation
        (t.x, t.y, t.z), (q.x, q.y, q.z, q.w) = pose
        return message


@pytest.fixture(params=[TransformBuffer, *([] if find_spec('tf2_ros') is None else [Tf2Buffer])])
def buffer(request):
    return request.param()


def at(x: float, xyzw=LEVEL):
    """Place a child ahead of its parent."""
    return (x, 0.0, 0.0), xyzw


def drive(buffer, *stamps_s: float, parent='odom', child='base', speed=1.0):
    """Add transforms of a robot that drives along x."""
    for stamp_s in stamps_s:
        buffer.set_moving(parent, child, round(stamp_s * SECOND), at(speed * stamp_s))


def x_of(buffer, target, source, time_s):
    return buffer.lookup(target, source, round(time_s * SECOND))[0, 3]


def test_moving_transforms_are_interpolated_linearly_and_by_slerp(buffer):
    buffer.set_moving('odom', 'base', SECOND, at(1.0))
    buffer.set_moving('odom', 'base', 2 * SECOND, at(3.0, QUARTER_LEFT))
    third = buffer.lookup('odom', 'base', 4 * SECOND // 3)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    np.testing.assert_allclose(third[:3], [[c, -s, 0, 5 / 3], [s, c, 0, 0], [0, 0, 1, 0]],
                               atol=1e-8)
    assert x_of(buffer, 'odom', 'base', 1.0) == 1.0 and x_of(buffer, 'odom', 'base', 2.0) == 3.0


@pytest.mark.parametrize(('time_s', 'text'), [(0.9, 'extrapolation into the past'),
                                              (3.1, 'extrapolation into the future')])
def test_nothing_is_extrapolated(buffer, time_s, text):
    drive(buffer, 1.0, 2.0, 3.0)
    with pytest.raises(InputError, match=text):
        x_of(buffer, 'odom', 'base', time_s)


def test_a_single_transform_holds_only_at_its_stamp(buffer):
    drive(buffer, 1.0)
    assert x_of(buffer, 'odom', 'base', 1.0) == 1.0
    for time_s in (0.99, 1.01):
        with pytest.raises(InputError, match='extrapolation'):
            x_of(buffer, 'odom', 'base', time_s)


def test_a_negative_time_is_before_every_transform():
    buffer = TransformBuffer()  # rclpy's Time cannot express it
    drive(buffer, 1.0, 2.0)
    with pytest.raises(InputError, match='time -5000000000 ns would need extrapolation into the '
                                         'past, 6.000 s from the oldest at 1000000000 ns'):
        x_of(buffer, 'odom', 'base', -5.0)


def test_a_static_transform_holds_at_any_time_and_is_replaced_by_the_next(buffer):
    buffer.set_static('base', 'camera', at(1.0))
    assert x_of(buffer, 'base', 'camera', 1.0) == x_of(buffer, 'base', 'camera', 1e9) == 1.0
    buffer.set_static('base', 'camera', at(2.0))
    assert x_of(buffer, 'base', 'camera', 1.0) == 2.0


def test_a_late_transform_counts_as_if_it_had_come_in_time(buffer):
    drive(buffer, 1.0, 3.0)
    buffer.set_moving('odom', 'base', 2 * SECOND, at(5.0))
    assert x_of(buffer, 'odom', 'base', 1.5) == pytest.approx(3.0)
    assert x_of(buffer, 'odom', 'base', 2.5) == pytest.approx(4.0)


def test_of_two_transforms_with_one_stamp_the_last_counts(buffer):
    drive(buffer, 1.0, 2.0)
    buffer.set_moving('odom', 'base', 2 * SECOND, at(7.0))
    assert x_of(buffer, 'odom', 'base', 2.0) == 7.0


def test_transforms_older_than_ten_seconds_are_discarded_and_not_accepted(buffer):
    drive(buffer, *range(1, 30))
    assert x_of(buffer, 'odom', 'base', 19.5) == pytest.approx(19.5)
    for again in (False, True):
        with pytest.raises(InputError, match='extrapolation into the past'):
            x_of(buffer, 'odom', 'base', 17.0)
        if not again:
            with suppress(InputError):
                drive(buffer, 17.0)


def test_after_a_jump_back_in_time_only_static_transforms_are_known(buffer):
    buffer.set_static('base', 'camera', at(1.0))
    drive(buffer, 100.0, 101.0)
    buffer.clear_moving()
    assert x_of(buffer, 'base', 'camera', 100.0) == 1.0
    with pytest.raises(InputError):
        x_of(buffer, 'odom', 'camera', 100.0)
    drive(buffer, 1.0, 2.0)
    assert x_of(buffer, 'odom', 'camera', 1.5) == pytest.approx(2.5)


def test_between_two_parents_the_earlier_one_holds(buffer):
    buffer.set_static('world', 'table', at(10.0))
    buffer.set_static('world', 'gripper', at(20.0))
    buffer.set_moving('table', 'cup', SECOND, at(1.0))
    buffer.set_moving('gripper', 'cup', 2 * SECOND, at(2.0))
    assert [x_of(buffer, 'world', 'cup', time_s) for time_s in (1.0, 1.9, 2.0)] == [11, 11, 22]


def test_a_frame_may_change_between_static_and_moving(buffer):
    buffer.set_static('base', 'camera', at(1.0))
    buffer.set_moving('base', 'camera', SECOND, at(2.0))
    assert x_of(buffer, 'base', 'camera', 1.0) == 2.0
    with pytest.raises(InputError, match='extrapolation'):
        x_of(buffer, 'base', 'camera', 5.0)
    buffer.set_static('base', 'camera', at(3.0))
    assert x_of(buffer, 'base', 'camera', 5.0) == 3.0


@pytest.fixture
def robot(buffer):
    """Drive 1 m/s with a camera 1 m ahead, which looks left, and a lidar 3 m ahead of the base."""
    buffer.set_static('base', 'camera', at(1.0, QUARTER_LEFT))
    buffer.set_static('/base', '/lidar', at(3.0))
    drive(buffer, 1.0, 2.0)
    return buffer


def test_two_frames_are_connected_by_their_common_parent(robot):
    found = robot.lookup('camera', 'lidar', 99 * SECOND)  # whatever moves above them
    # The camera looks left, so 2 m ahead of it is 2 m to its right.
    np.testing.assert_allclose(found @ [0, 0, 0, 1], [0, -2, 0, 1], atol=1e-12)
    np.testing.assert_allclose(found @ robot.lookup('lidar', 'camera', 99 * SECOND), np.eye(4),
                               atol=1e-12)
    assert x_of(robot, 'lidar', 'odom', 1.5) == pytest.approx(-4.5)
    np.testing.assert_array_equal(robot.lookup('nowhere', 'nowhere', SECOND), np.eye(4))


def test_time_zero_asks_for_the_newest_common_time(robot):
    drive(robot, 3.0, 4.0)
    for stamp_s in (2.0, 3.0):
        robot.set_moving('base', 'arm', round(stamp_s * SECOND), at(0.5))
    assert x_of(robot, 'odom', 'arm', 0.0) == pytest.approx(3.5)
    assert x_of(robot, 'camera', 'lidar', 0.0) == pytest.approx(0.0)


@pytest.mark.parametrize(('target', 'source', 'text'), [
    ('camera', 'radar', '[\'"]radar'), ('radar', 'camera', '[\'"]radar'),
    ('camera', 'beacon', 'not (part of the same tree|connected)')])
def test_what_is_not_connected_is_named(robot, target, source, text):
    robot.set_static('map', 'beacon', at(1.0))
    with pytest.raises(InputError, match=text):
        robot.lookup(target, source, SECOND)


@pytest.mark.parametrize('pose', [
    at(9.0, (0.0, 0.0, 0.0, 0.0)), at(9.0, (0.0, np.nan, 0.0, 1.0)), at(np.nan)])
def test_invalid_transforms_change_nothing(robot, pose):
    with suppress(InputError):
        robot.set_moving('odom', 'base', 2 * SECOND, pose)
    with suppress(InputError):
        robot.set_static('base', 'camera', pose)
    assert x_of(robot, 'odom', 'camera', 2.0) == pytest.approx(3.0)


def test_a_loop_of_frames_is_no_endless_search(buffer):
    for parent, child in (('a', 'b'), ('b', 'c'), ('c', 'a')):
        buffer.set_static(parent, child, at(1.0))
    assert x_of(buffer, 'a', 'c', 1.0) == 2.0
    buffer.set_static('map', 'beacon', at(1.0))
    with pytest.raises(InputError, match='loop|not connected'):
        buffer.lookup('beacon', 'a', SECOND)


# What tf2 has no function for.

def test_the_newest_pose_up_to_a_time_is_found_with_its_time():
    buffer = TransformBuffer()
    buffer.set_static('base', 'camera', at(1.0))
    drive(buffer, 1.0, 2.0, 3.0)
    drive(buffer, 1.0, 2.0, parent='camera', child='lens', speed=0.0)
    assert buffer.lookup_newest('base', 'camera', 9 * SECOND)[1] == 9 * SECOND
    for time_s, found_s in ((1.5, 1.5), (2.5, 2.0), (99.0, 2.0)):
        pose, found_ns = buffer.lookup_newest('/odom', 'lens', round(time_s * SECOND))
        assert (pose[0, 3], found_ns) == (pytest.approx(found_s + 1.0), found_s * SECOND)
    for target, time_s in (('odom', 0.5), ('map', 5.0)):
        with pytest.raises(InputError):
            buffer.lookup_newest(target, 'lens', round(time_s * SECOND))


def test_a_gap_is_not_interpolated_where_it_must_not_be():
    buffer = TransformBuffer(max_gap_ns=SECOND)
    drive(buffer, 1.0, 2.0, 4.0)
    assert x_of(buffer, 'odom', 'base', 1.5) == pytest.approx(1.5)
    with pytest.raises(InputError, match='the time 3000000000 ns lies in a gap of 2.0 s'):
        x_of(buffer, 'odom', 'base', 3.0)


# Poses of cameras

def moving_x(buffer, time_s, source='base'):
    return buffer.lookup_moving('odom', source, round(time_s * SECOND))[0, 3]


def test_a_moving_pose_is_extrapolated_by_at_most_50_ms():
    buffer = TransformBuffer()
    buffer.set_static('base', 'camera', at(0.2))
    drive(buffer, 1.0, 1.05, 1.1, speed=2.0)
    for time_s in (1.02, 1.1, 1.12, 1.15):
        assert moving_x(buffer, time_s, '/camera') == pytest.approx(2.0 * time_s + 0.2)
    for time_s, end in ((1.151, 'future'), (0.999, 'past')):
        with pytest.raises(InputError, match=f'extrapolation into the {end}'):
            moving_x(buffer, time_s)
    with pytest.raises(InputError, match='extrapolation into the future'):
        x_of(buffer, 'odom', 'base', 1.11)  # as tf2


def test_a_turning_robot_goes_on_along_its_arc():
    """A quarter of a circle of 1 m per second; 40 ms on."""
    buffer = TransformBuffer()
    for stamp_s in np.arange(0.0, 1.01, 0.02):
        angle = stamp_s * np.pi / 2
        buffer.set_moving('odom', 'base', round((1.0 + stamp_s) * SECOND), (
            (np.sin(angle), 1.0 - np.cos(angle), 0.0),
            (0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2))))
    angle = 1.04 * np.pi / 2
    c, s = np.cos(angle), np.sin(angle)
    found = buffer.lookup_moving('odom', 'base', round(2.04 * SECOND))
    np.testing.assert_allclose(found[:2], [[c, -s, 0, s], [s, c, 0, 1 - c]], atol=1e-6)


def test_extrapolation_does_not_magnify_the_noise_of_a_fast_source():
    """At 1000 Hz with 1 mm of noise; from two stamps alone it would be 70 mm."""
    buffer, rng = TransformBuffer(), np.random.default_rng(0)
    for stamp_ms in range(1000, 1200):
        buffer.set_moving('odom', 'base', stamp_ms * 10 ** 6, at(rng.normal() * 1e-3))
    assert abs(moving_x(buffer, 1.249)) < 0.01


def test_a_single_or_restarted_transform_is_not_extrapolated():
    buffer = TransformBuffer()
    drive(buffer, 1.0)
    with pytest.raises(InputError, match='extrapolation into the future'):
        moving_x(buffer, 1.01)
    buffer.clear_moving()
    with pytest.raises(InputError, match='none has been received'):
        moving_x(buffer, 1.01)
    drive(buffer, 1.0, parent='map')
    drive(buffer, 1.1)
    with pytest.raises(InputError, match='extrapolation into the future'):
        moving_x(buffer, 1.15)  # before, it was in another frame


def test_a_frame_above_which_nothing_moves_has_no_moving_pose():
    buffer = TransformBuffer()
    buffer.set_static('odom', 'base', at(1.0))
    buffer.set_moving('map', 'odom', SECOND, at(1.0))
    with pytest.raises(InputError, match="no transform between 'odom' and 'base' moves"):
        moving_x(buffer, 1.0)
