"""Rigid transforms between the coordinate frames of sensors and cameras."""

from __future__ import annotations

from collections.abc import Sequence
import math
import re
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from marigold_ros.depth.errors import ConfigError, InputError

Matrix = NDArray[np.float64]

# REP-103: a body frame has x forward, y left, z up; an optical one z forward, x right, y down.
OPTICAL_FROM_BODY: Matrix = np.array(
    [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
OPTICAL_NAME = re.compile('(^|[_/])optical$|optical_frame$')

Vector3 = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
Pose = tuple[Vector3, Quaternion]  # translation, m, and rotation as x, y, z, w

# What is faster counts as odometry that was set anew.
MAX_SPEED_M_S, MAX_TURN_RAD_S = 5.0, 2.0 * math.pi


class PoseSource(Protocol):
    """What tells where a camera is: TF in the node, the transforms of a bag offline."""

    def world_from_frame(self, frame_id: str, time_ns: int) -> Matrix | None:
        """
        Return the pose of a coordinate frame in a fixed one, at once.

        Parameters
        ----------
        frame_id : str
            For example the optical frame of a camera.
        time_ns : int
            On the clock of the message stamps, ns.

        Returns
        -------
        float64 [4, 4] or None
            None if it is unknown at that time.
        """


class PoseContinuity:
    """
    Take the jumps out of the poses of coordinate frames, whose fixed frame is set anew.

    A frame that would have moved faster than `MAX_SPEED_M_S` or `MAX_TURN_RAD_S` since its last
    pose is taken as one that has not moved; the poses go on from there.
    """

    def __init__(self) -> None:
        """Start with the fixed frame of the first pose."""
        # By frame: time of the last pose, that pose, and what leads from the source's to ours.
        self._last: dict[str, tuple[int, Matrix, Matrix]] = {}

    def follow(self, frame_id: str, time_ns: int, pose: Matrix) -> Matrix:
        """Return a pose without the jumps before; times of one frame must not decrease."""
        correction = np.eye(4)
        last = self._last.get(frame_id)
        if last is not None and last[0] <= time_ns:
            last_ns, last_pose, correction = last
            if _is_jump(np.linalg.inv(last_pose) @ pose, (time_ns - last_ns) * 1e-9):
                correction = correction @ last_pose @ np.linalg.inv(pose)
        self._last[frame_id] = time_ns, pose, correction
        return np.asarray(correction @ pose, np.float64)


class ContinuousPoses:
    """
    Poses without the jumps of a source, see `PoseContinuity`.

    Parameters
    ----------
    source : PoseSource
    """

    def __init__(self, source: PoseSource) -> None:
        """Start with the fixed frame of the source."""
        self._source, self._continuity = source, PoseContinuity()

    def world_from_frame(self, frame_id: str, time_ns: int) -> Matrix | None:
        """Return a pose, see `PoseSource`; times of one frame must not decrease."""
        pose = self._source.world_from_frame(frame_id, time_ns)
        return None if pose is None else self._continuity.follow(frame_id, time_ns, pose)


def motion_between(source: PoseSource, frame_id: str, from_ns: int, to_ns: int) -> Matrix:
    """
    Return where a coordinate frame was, as seen from where it is at another time.

    Parameters
    ----------
    source : PoseSource
    frame_id : str
    from_ns, to_ns : int
        The two times, ns.

    Returns
    -------
    float64 [4, 4]
        Pose of the frame at the first time in the frame at the second; the identity, as if it had
        not moved, where that is unknown or the fixed frame was set anew in between.
    """
    if from_ns == to_ns:
        return np.eye(4)
    now = source.world_from_frame(frame_id, to_ns)
    then = None if now is None else source.world_from_frame(frame_id, from_ns)
    if now is None or then is None:
        return np.eye(4)
    motion = np.asarray(np.linalg.inv(now) @ then, np.float64)
    return np.eye(4) if _is_jump(motion, abs(to_ns - from_ns) * 1e-9) else motion


def _is_jump(motion: Matrix, seconds: float) -> bool:
    distance_m = float(np.linalg.norm(motion[:3, 3]))
    turn_rad = math.acos(min(1.0, max(-1.0, (np.trace(motion[:3, :3]) - 1.0) / 2.0)))
    return distance_m > MAX_SPEED_M_S * seconds or turn_rad > MAX_TURN_RAD_S * seconds


def is_optical_frame(frame_id: str) -> bool:
    """Return whether a coordinate frame is an optical one by its name, as REP-103 names them."""
    return OPTICAL_NAME.search(frame_id) is not None


def without_slash(frame_id: str) -> str:
    """Remove the leading slash that tf (version 1) put before names, as tf2 does."""
    return frame_id.removeprefix('/')


def check_transform(parent: str, child: str, translation_m: Vector3,
                    quaternion_xyzw: Quaternion) -> None:
    """
    Check a transform by the rules of tf2, which ignores all others.

    Parameters
    ----------
    parent, child : str
        Names of the coordinate frames without a leading slash.
    translation_m, quaternion_xyzw : tuple of float
        Pose of the child in the parent.

    Raises
    ------
    InputError
        If a name is empty, both are the same, a number is not finite, or the quaternion is zero.
        tf2 stores an infinite translation all the same; it normalizes a quaternion of another
        length than 1 before it checks the length.
    """
    if not parent or not child or parent == child:
        raise InputError('the names of the two frames must differ and not be empty')
    if not all(map(math.isfinite, translation_m)):
        raise InputError(f'the translation must be finite; got {translation_m}')
    x, y, z, w = quaternion_xyzw
    # NaN fails the comparison.
    if not 0 < x * x + y * y + z * z + w * w < math.inf:
        raise InputError('the rotation must be a finite quaternion other than 0; '
                         f'got {quaternion_xyzw}')


def pose_matrix(translation_m: Sequence[float], quaternion_xyzw: Sequence[float]) -> Matrix:
    """
    Compute the matrix of a translation and a rotation, as in geometry_msgs/Transform.

    Returns
    -------
    float64 [4, 4]

    Raises
    ------
    InputError
        If a number is not finite or the quaternion is zero.

    Examples
    --------
    A quarter turn about z and one metre along x:

    >>> matrix = pose_matrix([1.0, 0.0, 0.0], [0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5)])
    >>> (matrix @ [2.0, 0.0, 0.0, 1.0]).round(6).tolist()
    [1.0, 2.0, 0.0, 1.0]
    """
    numbers = np.array([*translation_m, *quaternion_xyzw], np.float64)
    if not (np.isfinite(numbers).all() and numbers[3:].any()):
        raise InputError('a pose must be finite and its quaternion not zero; '
                         f'got {numbers.tolist()}')
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(numbers[3:]).as_matrix()
    matrix[:3, 3] = numbers[:3]
    return matrix


def parse_extrinsics(text: str, parameter: str = 'extrinsics') -> Matrix:
    """
    Parse a parameter `scale.<source>.extrinsics`.

    Parameters
    ----------
    text : str
        'x y z roll pitch yaw', m and rad, as for static_transform_publisher: pose of the
        sensor's body frame in the camera's body frame, both with x forward, y left, z up.
    parameter : str
        Its name, for the error.

    Returns
    -------
    float64 [4, 4]
        Transform from the sensor's body frame to the camera's body frame.

    Raises
    ------
    ConfigError
        Unless the text contains six finite numbers.

    Examples
    --------
    A lidar 0.3 m above the camera and 0.1 m behind it:

    >>> camera_from_lidar = parse_extrinsics('-0.1 0 0.3 0 0 0')
    >>> (camera_from_lidar @ [5.0, 0.0, 0.0, 1.0]).tolist()
    [4.9, 0.0, 0.3, 1.0]
    """
    try:
        numbers = [float(word) for word in text.replace(',', ' ').split()]
    except ValueError:
        numbers = []
    if len(numbers) != 6 or not np.isfinite(numbers).all():
        raise ConfigError(f'`{parameter}` must be auto or six numbers x y z roll pitch yaw in m '
                          f'and rad; got {text!r}')
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('xyz', numbers[3:]).as_matrix()
    matrix[:3, 3] = numbers[:3]
    return matrix


def optical_from_sensor(camera_from_sensor: Matrix, sensor_is_optical: bool) -> Matrix:
    """
    Compute the transform from a sensor's data frame to the camera's optical frame.

    Parameters
    ----------
    camera_from_sensor : float64 [4, 4]
        Between body frames, see `parse_extrinsics`.
    sensor_is_optical : bool
        Whether the sensor's data are in its optical frame instead of its body frame.

    Returns
    -------
    float64 [4, 4]

    Examples
    --------
    A point 5 m ahead of a lidar lies 5 m along the optical z axis:

    >>> (optical_from_sensor(np.eye(4), False) @ [5.0, 0.0, 0.0, 1.0]).tolist()
    [0.0, 0.0, 5.0, 1.0]
    """
    last = OPTICAL_FROM_BODY.T if sensor_is_optical else np.eye(4)
    return np.asarray(OPTICAL_FROM_BODY @ camera_from_sensor @ last, np.float64)
