"""Poses: where a sensor sits as seen from a camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from marigold_ros.depth.errors import ConfigError, InputError

Matrix = NDArray[np.float64]

# REP-103: a body frame has x forward, y left, z up; an optical one z forward, x right, y down.
OPTICAL_FROM_BODY: Matrix = np.array(
    [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
OPTICAL_SUFFIX = 'optical_frame'


def pose_matrix(translation_m: Sequence[float], quaternion_xyzw: Sequence[float]) -> Matrix:
    """
    Put a translation and a rotation together, as geometry_msgs/Transform holds them.

    Returns
    -------
    float64 [4, 4]

    Raises
    ------
    InputError
        If a number is not finite or the quaternion is zero.
    """
    numbers = np.array([*translation_m, *quaternion_xyzw], np.float64)
    if not (np.isfinite(numbers).all() and numbers[3:].any()):
        raise InputError(f'a pose must be finite, with a rotation; got {numbers.tolist()}')
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(numbers[3:]).as_matrix()
    matrix[:3, 3] = numbers[:3]
    return matrix


def parse_extrinsics(text: str) -> Matrix:
    """
    Read the parameter `scale.extrinsics`.

    Parameters
    ----------
    text : str
        'x y z roll pitch yaw', m and rad, as static_transform_publisher takes them: the sensor's
        body frame seen from the camera's body frame, both with x forward, y left, z up.

    Returns
    -------
    float64 [4, 4]
        Camera body from sensor body.

    Raises
    ------
    ConfigError
        Unless it is six finite numbers.
    """
    try:
        numbers = [float(word) for word in text.replace(',', ' ').split()]
    except ValueError:
        numbers = []
    if len(numbers) != 6 or not np.isfinite(numbers).all():
        raise ConfigError('`scale.extrinsics` must be auto or six numbers x y z roll pitch yaw in '
                          f'm and rad; got {text!r}')
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('xyz', numbers[3:]).as_matrix()
    matrix[:3, 3] = numbers[:3]
    return matrix


def optical_from_sensor(camera_from_sensor: Matrix, sensor_is_optical: bool) -> Matrix:
    """
    Lead from a sensor's own frame to the camera's optical frame.

    Parameters
    ----------
    camera_from_sensor : float64 [4, 4]
        Between body frames, as `parse_extrinsics` gives it.
    sensor_is_optical : bool
        Whether the sensor's data come in its optical frame.
    """
    last = OPTICAL_FROM_BODY.T if sensor_is_optical else np.eye(4)
    return np.asarray(OPTICAL_FROM_BODY @ camera_from_sensor @ last, np.float64)
