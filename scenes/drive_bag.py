"""Camera, timing, scene description and bag that all drives of the robot share."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from marigold_ros.data.bags.messages import STORE
from marigold_ros.data.bags.writer import BagWriter
from scenes import cameras, render, robot_messages, robot_path, sensor
from scenes.robot_path import Matrix, RobotState
from scenes.scene_types import BULK, RenderCamera, RenderedFrame, Scene, Sensor

START_NS = 1_750_000_000 * 10 ** 9
FRAME_HZ = 10
ODOMETRY_HZ = 20
WIDTH, HEIGHT = 640, 480
HORIZONTAL_FOV = np.radians(70.0)


def robot_camera(state: RobotState, width: int, height: int,
                 sensor_: Sensor = Sensor()) -> RenderCamera:
    """
    Return the robot's camera at the robot's pose.

    Returns
    -------
    RenderCamera
    """
    map_from_optical = (state.map_from_base @ robot_path.base_from_camera_link()
                        @ robot_path.camera_link_from_optical())
    return RenderCamera(width, height, cameras.pinhole(width, height, HORIZONTAL_FOV),
                        map_from_optical[:3, :3], map_from_optical[:3, 3], sensor_)


def stamp_ns(state: RobotState) -> int:
    """
    Return the stamp of the messages of a state.

    Returns
    -------
    int
    """
    return START_NS + round(state.t_s * 10 ** 9)


def metered_gain(scene: Scene, state: RobotState) -> float:
    """
    Meter the exposure on a small image.

    Returns
    -------
    float
    """
    small = robot_camera(state, WIDTH // 5, HEIGHT // 5)
    return sensor.meter_exposure(render.render_radiance(scene, small, BULK)[0])


def describe_scene(scene: Scene, states: Sequence[RobotState], seed: int,
                   size_m: tuple[float, float, float]) -> dict[str, Any]:
    """
    Return the contents of `scene.json`: room, obstacles, sensor poses and trajectory.

    Parameters
    ----------
    scene : Scene
    states : sequence of RobotState
    seed : int
    size_m : (float, float, float)
        Inner width, depth and height of the room.

    Returns
    -------
    dict
        Metres and radians; positions in the map frame.
    """
    mounting = robot_path.base_from_camera_link() @ robot_path.camera_link_from_optical()
    return {
        'place': scene.place, 'seed': seed, 'frame_id': 'map', 'bag': scene.place,
        'floor': {'height_m': 0.0, 'min_m': [0.0, 0.0], 'max_m': list(size_m[:2])},
        'walls': {'min_m': [0.0, 0.0, 0.0], 'max_m': list(size_m)},
        'obstacles': [describe_box(o.name, o.min_m, o.max_m) for o in scene.obstacles],
        'camera': {
            'parent_frame_id': 'base_link', 'frame_id': robot_messages.OPTICAL_FRAME,
            'xyz_m': mounting[:3, 3].tolist(),
            'quaternion_xyzw': Rotation.from_matrix(mounting[:3, :3]).as_quat().tolist(),
            'height_m': robot_path.CAMERA_XYZ_M[2],
            'pitch_down_rad': float(robot_path.CAMERA_PITCH), 'width': WIDTH, 'height': HEIGHT,
            'K': cameras.pinhole(WIDTH, HEIGHT, HORIZONTAL_FOV).tolist()},
        'scanner': {'frame_id': 'laser_link', 'xyz_m': list(robot_path.SCANNER_XYZ_M)},
        'lidar': {'frame_id': 'lidar_link', 'xyz_m': list(robot_path.LIDAR_XYZ_M)},
        'range_noise_m': robot_path.RANGE_NOISE_M,
        'trajectory': [{'stamp_ns': stamp_ns(s), 'x_m': round(s.x_m, 6), 'y_m': round(s.y_m, 6),
                        'yaw_rad': round(s.yaw, 6)} for s in states]}


def describe_box(name: str, min_m: Sequence[float], max_m: Sequence[float]) -> dict[str, Any]:
    """
    Return a named box of `scene.json`.

    Returns
    -------
    dict
        Corners in the map frame, m, rounded to 0.1 mm.
    """
    return {'name': name, 'min_m': _rounded(min_m), 'max_m': _rounded(max_m)}


def write_bag(path: Path, scene_at: Callable[[float], Scene], states: Sequence[RobotState],
              frames: Iterator[RenderedFrame], seed: int) -> None:
    """
    Write the bag of a drive.

    Parameters
    ----------
    path : Path
        An existing bag is overwritten.
    scene_at : callable
        Returns the scene at a time of the drive, s.
    states : sequence of RobotState
        At `ODOMETRY_HZ`; every other one, from the first, has a frame.
    frames : iterator of RenderedFrame
    seed : int
        Seed of the noise of the ranges.
    """
    map_from_odom = states[0].map_from_base
    with BagWriter(path, overwrite=True) as bag:
        for topic, msgtype in robot_messages.TOPICS.items():
            bag.add_topic(topic, msgtype, typestore=STORE,
                          qos=[robot_messages.offered_qos(topic)])
        bag.write('/tf_static', stamp_ns(states[0]),
                  robot_messages.static_transforms(stamp_ns(states[0])))
        for i, state in enumerate(states):
            _write_pose(bag, state, map_from_odom)
            if i % (ODOMETRY_HZ // FRAME_HZ) == 0:
                rng = np.random.default_rng([seed, round(state.t_s * ODOMETRY_HZ)])
                _write_sensors(bag, scene_at(state.t_s), state, next(frames), rng)


def _write_pose(bag: BagWriter, state: RobotState, map_from_odom: Matrix) -> None:
    at_ns = stamp_ns(state)
    odom_from_base = np.linalg.inv(map_from_odom) @ state.map_from_base
    bag.write('/tf', at_ns,
              robot_messages.moving_transforms(at_ns, map_from_odom, odom_from_base))
    bag.write('/odom', at_ns, robot_messages.odometry(at_ns, odom_from_base, state))


def _write_sensors(bag: BagWriter, scene: Scene, state: RobotState, frame: RenderedFrame,
                   rng: np.random.Generator) -> None:
    at_ns, m = stamp_ns(state), robot_messages
    height, width = frame.depth_m.shape
    info = m.camera_info(at_ns, width, height, frame.K)
    for topic, data in (
            ('/camera/camera_info', info), ('/camera/depth_gt/camera_info', info),
            ('/camera/image_raw/compressed', m.colour_image(at_ns, frame.rgb)),
            ('/camera/depth_gt/image_rect/compressed', m.depth_image(at_ns, frame.depth_m)),
            ('/scan', m.laser_scan(at_ns, robot_path.scan_ranges(scene, state, rng))),
            ('/lidar/points',
             m.point_cloud(at_ns, robot_path.lidar_points(scene, state, rng)))):
        bag.write(topic, at_ns, data)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(v), 4) for v in values]
