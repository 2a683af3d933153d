"""The path of a differential-drive robot and the sensors mounted on it."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes import rays
from scenes.meshes import Floats, rotation_z
from scenes.types import Scene

Matrix = NDArray[np.float64]

# Where the sensors stand on the robot: x, y, z of base_link, whose origin is on the floor, m.
CAMERA_XYZ_M = (0.12, 0.0, 0.35)
CAMERA_PITCH = np.radians(6.0)  # nose down, as REP-103 turns about y
SCANNER_XYZ_M = (0.10, 0.0, 0.20)
LIDAR_XYZ_M = (0.0, 0.0, 0.45)

SCAN_BEAMS = 360
SCAN_RANGE_M = (0.05, 12.0)
LIDAR_RINGS = np.radians(np.linspace(-20.0, 8.0, 8))
LIDAR_COLUMNS = 120
LIDAR_RANGE_M = (0.3, 30.0)
RANGE_NOISE_M = 0.005


@dataclass(frozen=True)
class DriveState:
    """
    Where the robot is and how it moves.

    Attributes
    ----------
    t_s : float
        Since the start.
    x_m, y_m, yaw : float
        Of base_link in the map; radians.
    speed_mps, yaw_rate : float
        Forwards, and to the left in rad/s.
    """

    t_s: float
    x_m: float
    y_m: float
    yaw: float
    speed_mps: float
    yaw_rate: float

    @property
    def map_from_base(self) -> Matrix:
        """Pose of base_link in the map, [4,4]."""
        return pose((self.x_m, self.y_m, 0.0), rotation_z(self.yaw).astype(np.float64))


def pose(xyz: tuple[float, float, float], rotation: Matrix) -> Matrix:
    """
    Put a translation and a rotation together.

    Returns
    -------
    [4,4] float64
    """
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, xyz
    return matrix


def base_from_camera_link() -> Matrix:
    """
    Give the camera's mounting: x forward along the view, z up.

    Returns
    -------
    [4,4] float64
    """
    c, s = np.cos(CAMERA_PITCH), np.sin(CAMERA_PITCH)
    return pose(CAMERA_XYZ_M, np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]))


def camera_link_from_optical() -> Matrix:
    """
    Turn REP-103's body axes into the optical frame's: z forward, x right, y down.

    Returns
    -------
    [4,4] float64
    """
    return pose((0.0, 0.0, 0.0), np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]))


def integrate(start: tuple[float, float, float], controls: list[tuple[float, float, float]],
              rate_hz: float, duration_s: float) -> list[DriveState]:
    """
    Drive along smoothly changing speed and turn rate.

    Parameters
    ----------
    start : (x, y, yaw)
        In the map, m and radians.
    controls : list of (t_s, speed_mps, yaw_rate)
        Interpolated linearly.
    rate_hz : float
        Of the states.
    duration_s : float
        The last state comes before this.

    Returns
    -------
    list of DriveState
    """
    times, speeds, rates = (np.array(column) for column in zip(*controls))
    x, y, yaw = start
    states = []
    for i in range(round(duration_s * rate_hz)):
        t = i / rate_hz
        speed, rate = float(np.interp(t, times, speeds)), float(np.interp(t, times, rates))
        states.append(DriveState(t, x, y, yaw, speed, rate))
        middle = t + 0.5 / rate_hz
        step = float(np.interp(middle, times, speeds)) / rate_hz
        turn = float(np.interp(middle, times, rates)) / rate_hz
        x, y = x + step * np.cos(yaw + turn / 2), y + step * np.sin(yaw + turn / 2)
        yaw += turn
    return states


def scan(scene: Scene, state: DriveState, rng: np.random.Generator) -> Floats:
    """
    Measure ranges all around in the plane of the scanner, from -pi on, counter-clockwise.

    Returns
    -------
    [360] float32
        Metres; +inf where nothing is within range (REP-117).
    """
    angle = -np.pi + 2 * np.pi * np.arange(SCAN_BEAMS) / SCAN_BEAMS
    beams = np.stack([np.cos(angle), np.sin(angle), np.zeros(SCAN_BEAMS)], -1)
    return _ranges(scene, state, SCANNER_XYZ_M, beams, SCAN_RANGE_M, rng)


def lidar_points(scene: Scene, state: DriveState, rng: np.random.Generator) -> Floats:
    """
    Measure the points of a spinning lidar.

    Returns
    -------
    [8,120,3] float32
        One row a ring, in the lidar's frame, m; NaN where nothing came back.
    """
    angle = np.linspace(-np.pi, np.pi, LIDAR_COLUMNS, endpoint=False)
    rise, around = np.meshgrid(LIDAR_RINGS, angle, indexing='ij')
    beams = np.stack([np.cos(rise) * np.cos(around), np.cos(rise) * np.sin(around), np.sin(rise)],
                     -1)
    distance = _ranges(scene, state, LIDAR_XYZ_M, beams.reshape(-1, 3), LIDAR_RANGE_M, rng)
    points = beams * distance.reshape(*beams.shape[:2], 1)
    return np.where(np.isfinite(points), points, np.nan).astype(np.float32)


def _ranges(scene: Scene, state: DriveState, mount: tuple[float, float, float], beams: Matrix,
            limits_m: tuple[float, float], rng: np.random.Generator) -> Floats:
    map_from_sensor = state.map_from_base @ pose(mount, np.eye(3))
    directions = (beams @ map_from_sensor[:3, :3].T).astype(np.float32)
    origins = np.repeat(map_from_sensor[None, :3, 3].astype(np.float32), len(beams), 0)
    hits = rays.trace(scene, origins, directions)
    distance = np.full(len(beams), np.inf, np.float32)
    distance[hits.ray] = hits.t + RANGE_NOISE_M * rng.standard_normal(len(hits.ray))
    near, far = limits_m
    distance[(distance < near) | (distance > far)] = np.inf
    return distance
