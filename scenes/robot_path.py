"""Path of a differential-drive robot, poses of its sensors, and simulated range measurements."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes import rays
from scenes.meshes import Floats, rotation_z
from scenes.scene_types import Scene

Matrix = NDArray[np.float64]

# Sensor positions x, y, z in base_link, whose origin is on the floor, m.
CAMERA_XYZ_M = (0.12, 0.0, 0.35)
CAMERA_PITCH = np.radians(6.0)  # downwards, a positive rotation about y (REP-103)
SCANNER_XYZ_M = (0.10, 0.0, 0.20)
LIDAR_XYZ_M = (0.0, 0.0, 0.45)

SCAN_BEAMS = 360
SCAN_RANGE_M = (0.05, 12.0)
LIDAR_RINGS = np.radians(np.linspace(-20.0, 8.0, 8))
LIDAR_COLUMNS = 120
LIDAR_RANGE_M = (0.3, 30.0)
RANGE_NOISE_M = 0.005


@dataclass(frozen=True)
class RobotState:
    """
    Pose and velocity of the robot at one time.

    Attributes
    ----------
    t_s : float
        Time since the start, s.
    x_m, y_m, yaw : float
        Pose of base_link in the map frame; m and radians.
    speed_mps, yaw_rate : float
        Forward speed in m/s and turn rate to the left in rad/s.
    """

    t_s: float
    x_m: float
    y_m: float
    yaw: float
    speed_mps: float
    yaw_rate: float

    @property
    def map_from_base(self) -> Matrix:
        """Return the pose of base_link in the map frame, [4,4]."""
        return pose((self.x_m, self.y_m, 0.0), rotation_z(self.yaw).astype(np.float64))


def pose(xyz: tuple[float, float, float], rotation: Matrix) -> Matrix:
    """
    Compose a homogeneous transform from a translation (m) and a rotation [3,3].

    Returns
    -------
    [4,4] float64
    """
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, xyz
    return matrix


def base_from_camera_link() -> Matrix:
    """
    Return the pose of camera_link in base_link; camera_link has x along the view and z up.

    Returns
    -------
    [4,4] float64
    """
    c, s = np.cos(CAMERA_PITCH), np.sin(CAMERA_PITCH)
    return pose(CAMERA_XYZ_M, np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]))


def camera_link_from_optical() -> Matrix:
    """
    Return the rotation from the optical frame (z forward, x right, y down) to camera_link.

    Returns
    -------
    [4,4] float64
    """
    return pose((0.0, 0.0, 0.0), np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]))


def integrate_path(start: tuple[float, float, float],
                   controls: list[tuple[float, float, float]],
                   rate_hz: float, duration_s: float) -> list[RobotState]:
    """
    Integrate speed and turn rate into a path.

    Parameters
    ----------
    start : (x, y, yaw)
        Pose in the map frame, m and radians.
    controls : list of (t_s, speed_mps, yaw_rate)
        Control points, interpolated linearly.
    rate_hz : float
        States per second.
    duration_s : float
        Duration, s; the last state lies before its end.

    Returns
    -------
    list of RobotState
    """
    times, speeds, rates = (np.array(column) for column in zip(*controls))
    x, y, yaw = start
    states = []
    for i in range(round(duration_s * rate_hz)):
        t = i / rate_hz
        speed, rate = float(np.interp(t, times, speeds)), float(np.interp(t, times, rates))
        states.append(RobotState(t, x, y, yaw, speed, rate))
        middle = t + 0.5 / rate_hz
        step = float(np.interp(middle, times, speeds)) / rate_hz
        turn = float(np.interp(middle, times, rates)) / rate_hz
        x, y = x + step * np.cos(yaw + turn / 2), y + step * np.sin(yaw + turn / 2)
        yaw += turn
    return states


def scan_ranges(scene: Scene, state: RobotState, rng: np.random.Generator) -> Floats:
    """
    Simulate the ranges of a 360-degree laser scan, counter-clockwise from -pi.

    Returns
    -------
    [360] float32
        Ranges, m; +inf where nothing is within range (REP-117).
    """
    angle = -np.pi + 2 * np.pi * np.arange(SCAN_BEAMS) / SCAN_BEAMS
    beams = np.stack([np.cos(angle), np.sin(angle), np.zeros(SCAN_BEAMS)], -1)
    return _measure_ranges(scene, state, SCANNER_XYZ_M, beams, SCAN_RANGE_M, rng)


def lidar_points(scene: Scene, state: RobotState, rng: np.random.Generator) -> Floats:
    """
    Simulate the points of a spinning lidar.

    Returns
    -------
    [8,120,3] float32
        One row per ring, in the lidar frame, m; NaN where nothing is within range.
    """
    angle = np.linspace(-np.pi, np.pi, LIDAR_COLUMNS, endpoint=False)
    rise, around = np.meshgrid(LIDAR_RINGS, angle, indexing='ij')
    beams = np.stack([np.cos(rise) * np.cos(around), np.cos(rise) * np.sin(around), np.sin(rise)],
                     -1)
    distance = _measure_ranges(scene, state, LIDAR_XYZ_M, beams.reshape(-1, 3), LIDAR_RANGE_M, rng)
    points = beams * distance.reshape(*beams.shape[:2], 1)
    return np.where(np.isfinite(points), points, np.nan).astype(np.float32)


def _measure_ranges(scene: Scene, state: RobotState, mount: tuple[float, float, float],
                    beams: Matrix, limits_m: tuple[float, float],
                    rng: np.random.Generator) -> Floats:
    map_from_sensor = state.map_from_base @ pose(mount, np.eye(3))
    directions = (beams @ map_from_sensor[:3, :3].T).astype(np.float32)
    origins = np.repeat(map_from_sensor[None, :3, 3].astype(np.float32), len(beams), 0)
    hits = rays.trace(scene, origins, directions)
    distance = np.full(len(beams), np.inf, np.float32)
    distance[hits.ray] = hits.t + RANGE_NOISE_M * rng.standard_normal(len(hits.ray))
    near, far = limits_m
    distance[(distance < near) | (distance > far)] = np.inf
    return distance
