"""Poses follow REP-103 and static_transform_publisher."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.geometry.poses import (
    check_transform,
    ContinuousPoses,
    is_optical_frame,
    motion_between,
    OPTICAL_FROM_BODY,
    optical_from_sensor,
    parse_extrinsics,
    pose_matrix,
)


def test_rotations_agree_with_static_transform_publisher():
    # A yaw of 90 degrees: the sensor's x axis is the camera's y axis.
    rotated = parse_extrinsics('0, 0, 0, 0, 0, 1.5707963') @ [1, 0, 0, 1]
    np.testing.assert_allclose(rotated, [0, 1, 0, 1], atol=1e-6)
    matrix = pose_matrix((1, 2, 3), (0, 0, np.sqrt(0.5), np.sqrt(0.5)))
    np.testing.assert_allclose(matrix @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)
    np.testing.assert_allclose(optical_from_sensor(np.eye(4), True), np.eye(4))
    np.testing.assert_allclose(OPTICAL_FROM_BODY @ [1, 2, 3, 1], [-2, -3, 1, 1])


@pytest.mark.parametrize('text', ['', '1 2 3', '1 2 3 4 5 six', '0 0 0 0 0 nan'])
def test_extrinsics_must_be_six_numbers(text):
    with pytest.raises(ConfigError, match='`scale.scan.extrinsics` must be auto or six numbers'):
        parse_extrinsics(text, 'scale.scan.extrinsics')


def test_a_zero_quaternion_is_rejected():
    with pytest.raises(InputError, match='must be finite and its quaternion not zero'):
        pose_matrix((0, 0, 0), (0, 0, 0, 0))


@pytest.mark.parametrize(('names', 'translation', 'quaternion', 'message'), [
    (('odom', 'base'), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), 'quaternion other than 0; got'),
    (('odom', 'base'), (0.0, 0.0, 0.0), (0.0, 0.0, np.nan, 1.0), 'must be a finite quaternion'),
    (('odom', 'base'), (0.0, 0.0, 0.0), (0.0, 0.0, np.inf, 0.0), 'must be a finite quaternion'),
    (('odom', 'base'), (0.0, np.nan, 0.0), (0.0, 0.0, 0.0, 1.0), 'translation must be finite'),
    (('odom', 'base'), (np.inf, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), 'translation must be finite'),
    (('odom', ''), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), 'names of the two frames'),
    (('', 'base'), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), 'names of the two frames'),
    (('base', 'base'), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), 'names of the two frames')])
def test_a_transform_that_tf2_ignores_is_rejected(names, translation, quaternion, message):
    with pytest.raises(InputError, match=message):
        check_transform(*names, translation, quaternion)


@pytest.mark.parametrize('length', [1e-100, 0.7, 2.0])
def test_a_quaternion_of_any_length_is_normalized_as_by_tf2(length):
    quaternion = (0.0, 0.0, length, length)  # as 0 0 0.7 0.7 typed by hand: a quarter turn left
    check_transform('odom', 'base', (1e9, 0.0, 0.0), quaternion)
    np.testing.assert_allclose(pose_matrix((0, 0, 0), quaternion) @ [1, 0, 0, 1], [0, 1, 0, 1],
                               atol=1e-12)


@pytest.mark.parametrize(('name', 'optical'), [
    ('camera_optical_frame', True), ('camera_optical', True), ('/robot/left_optical', True),
    ('robot/optical', True), ('optical', True), ('optical_frame', True), ('lidar', False),
    ('camera_link', False), ('optical_link', False), ('fiberoptical', False),
    ('camera_optical_frame_mount', False), ('', False)])
def test_optical_frames_are_known_by_both_suffixes(name, optical):
    assert is_optical_frame(name) is optical


class RecordedPoses:
    """A source that knows the poses it was given."""

    def __init__(self, *poses):
        self._poses = dict(enumerate(poses))

    def world_from_frame(self, frame_id, time_ns):
        return self._poses[time_ns // 10 ** 8]


def placed(x=0.0, yaw_deg=0.0):
    return pose_matrix((x, 0.0, 0.0), (0.0, 0.0, np.sin(np.radians(yaw_deg) / 2),
                                       np.cos(np.radians(yaw_deg) / 2)))


def follow(*poses):
    """Ask for poses 0.1 s apart."""
    source = ContinuousPoses(RecordedPoses(*poses))
    return [source.world_from_frame('camera', i * 10 ** 8) for i in range(len(poses))]


def test_poses_of_a_robot_that_drives_and_turns_are_those_of_the_source():
    poses = [placed(0.0), placed(0.2, 10.0), None, placed(0.6, 60.0), placed(0.6, 60.0)]
    for found, pose in zip(follow(*poses), poses):
        assert found is None if pose is None else np.allclose(found, pose)


@pytest.mark.parametrize('jump', [placed(0.7), placed(0.0, 45.0), placed(-9.0, 170.0)])
def test_a_jump_of_the_fixed_frame_moves_no_camera(jump):
    """Twice, on a drive along x at 1 m/s; each time the frame stands still for 0.1 s."""
    drive = [placed(0.1 * i) for i in range(8)]
    found = follow(*drive[:3], *(jump @ each for each in drive[3:6]),
                   *(jump @ jump @ each for each in drive[6:]))
    expected = [0.0, 0.1, 0.2, 0.2, 0.3, 0.4, 0.4, 0.5]
    np.testing.assert_allclose([each[0, 3] for each in found], expected, atol=1e-9)
    np.testing.assert_allclose([each[:3, :3] for each in found], [np.eye(3)] * 8, atol=1e-9)


def test_each_frame_has_its_own_poses_and_a_jump_back_in_time_starts_anew():
    source = ContinuousPoses(RecordedPoses(placed(0.0), placed(50.0), placed(100.0)))
    assert source.world_from_frame('left', 0)[0, 3] == 0.0
    assert source.world_from_frame('left', 10 ** 8)[0, 3] == 0.0
    assert source.world_from_frame('right', 2 * 10 ** 8)[0, 3] == 100.0
    assert source.world_from_frame('left', 0)[0, 3] == 0.0


def between(first, second):
    """Return the motion from a pose at 0.1 s to one at 0.2 s."""
    return motion_between(RecordedPoses(None, first, second), 'camera', 10 ** 8, 2 * 10 ** 8)


def test_the_motion_between_two_times_is_where_the_frame_was_as_seen_from_where_it_is():
    np.testing.assert_allclose(between(placed(0.0), placed(0.2)), placed(-0.2), atol=1e-12)
    first = placed(3.0, 90.0)  # 0.2 m along its own x is 0.2 m along y
    np.testing.assert_allclose(between(first, first @ placed(0.2)), placed(-0.2), atol=1e-12)
    np.testing.assert_allclose(between(placed(0.0), placed(0.0, 10.0)), placed(0.0, -10.0),
                               atol=1e-12)


def test_the_motion_back_in_time_is_the_inverse():
    source = RecordedPoses(placed(1.0, 10.0), placed(1.2, 20.0))
    there, back = (motion_between(source, 'camera', *times)
                   for times in ((0, 10 ** 8), (10 ** 8, 0)))
    assert there[0, 3] != 0.0
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-12)


@pytest.mark.parametrize('poses', [(None, placed(0.2)), (placed(0.2), None), (None, None)])
def test_an_unknown_motion_is_none(poses):
    np.testing.assert_array_equal(between(*poses), np.eye(4))


@pytest.mark.parametrize('jump', [placed(0.7), placed(0.0, 45.0)])
def test_a_jump_is_no_motion(jump):
    """In 0.1 s a frame moves by 0.5 m and turns by 36 degrees at most."""
    np.testing.assert_array_equal(between(placed(0.0), jump), np.eye(4))


def test_between_the_same_time_there_is_no_motion_and_no_question():
    np.testing.assert_array_equal(motion_between(None, 'camera', 5, 5), np.eye(4))
