"""Poses follow REP-103 and static_transform_publisher."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.geometry.poses import (
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
