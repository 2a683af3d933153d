"""Poses follow REP-103 and static_transform_publisher."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.geometry.poses import (
    check_transform,
    is_optical_frame,
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
    with pytest.raises(ConfigError, match='`scale.extrinsics` must be auto or six numbers'):
        parse_extrinsics(text)


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
