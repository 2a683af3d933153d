"""
Render the sample drive and write its bag.

    python -m scenes.sample_drive --out sample/
"""
from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from marigold_ros.data.bags.messages import STORE
from marigold_ros.data.bags.writer import BagWriter
from scenes import cameras, drive_room, render, robot_messages, robot_path, sensor
from scenes.robot_path import Matrix, RobotState
from scenes.scene_types import BULK, FINE, Quality, RenderCamera, RenderedFrame, Scene, Sensor

SEED = 26
START_NS = 1_750_000_000 * 10 ** 9
DURATION_S = 8.0
FRAME_HZ = 10
ODOMETRY_HZ = 20
WIDTH, HEIGHT = 640, 480
HORIZONTAL_FOV = np.radians(70.0)

# From the dining table around the end of the sofa to the view across the lounge.
START = (2.75, 0.55, float(np.radians(114.0)))
CONTROLS = [(0.0, 0.15, 0.0), (0.6, 0.32, 0.0), (1.8, 0.34, -0.12), (2.6, 0.34, -0.65),
            (4.8, 0.36, -0.65), (5.8, 0.42, -0.2), (7.0, 0.45, 0.05), (8.0, 0.3, 0.1)]


def write_sample(out: Path, *, quality: Quality = FINE, seed: int = SEED,
                 duration_s: float = DURATION_S, workers: int = 2) -> None:
    """
    Render the drive and write the bag `living_room` and `scene.json`.

    Parameters
    ----------
    out : Path
        Folder; an existing bag in it is overwritten.
    quality : Quality
    seed : int
        Seed of the room's appearance and the sensor noise.
    duration_s : float
        Length of the drive.
    workers : int
        Number of rendering processes.
    """
    scene = _scene(seed, quality.texture_size)
    states = robot_path.integrate_path(START, CONTROLS, ODOMETRY_HZ, duration_s)
    frame_states = states[::ODOMETRY_HZ // FRAME_HZ]
    gains = _smooth_gains([_metered_gain(scene, state)
                           for state in tqdm(frame_states, desc='exposure')])
    job = partial(_render, seed=seed, quality=quality)
    out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context('spawn').Pool(workers) as pool:
        frames = tqdm(pool.imap(job, zip(frame_states, gains, range(len(frame_states)))),
                      total=len(frame_states), desc='frames')
        _write_bag(out / 'living_room', scene, states, iter(frames), seed)
    text = json.dumps(describe_scene(scene, states, seed), indent=1)
    (out / 'scene.json').write_text(text + '\n', encoding='utf-8')


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


def describe_scene(scene: Scene, states: Sequence[RobotState], seed: int) -> dict[str, Any]:
    """
    Return the contents of `scene.json`: room, obstacles, sensor poses and trajectory.

    Parameters
    ----------
    scene : Scene
    states : sequence of RobotState
    seed : int

    Returns
    -------
    dict
        Metres and radians; positions in the map frame.
    """
    mounting = robot_path.base_from_camera_link() @ robot_path.camera_link_from_optical()
    size = (drive_room.WIDTH_M, drive_room.DEPTH_M)
    return {
        'place': scene.place, 'seed': seed, 'frame_id': 'map', 'bag': 'living_room',
        'floor': {'height_m': 0.0, 'min_m': [0.0, 0.0], 'max_m': list(size)},
        'walls': {'min_m': [0.0, 0.0, 0.0], 'max_m': [*size, drive_room.HEIGHT_M]},
        'obstacles': [{'name': o.name, 'min_m': _rounded(o.min_m), 'max_m': _rounded(o.max_m)}
                      for o in scene.obstacles],
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
        'trajectory': [{'stamp_ns': _stamp_ns(s), 'x_m': round(s.x_m, 6), 'y_m': round(s.y_m, 6),
                        'yaw_rad': round(s.yaw, 6)} for s in states]}


def _write_bag(path: Path, scene: Scene, states: Sequence[RobotState],
               frames: Iterator[RenderedFrame], seed: int) -> None:
    map_from_odom = states[0].map_from_base
    with BagWriter(path, overwrite=True) as bag:
        for topic, msgtype in robot_messages.TOPICS.items():
            bag.add_topic(topic, msgtype, typestore=STORE,
                          qos=[robot_messages.offered_qos(topic)])
        bag.write('/tf_static', _stamp_ns(states[0]),
                  robot_messages.static_transforms(_stamp_ns(states[0])))
        for i, state in enumerate(states):
            _write_pose(bag, state, map_from_odom)
            if i % (ODOMETRY_HZ // FRAME_HZ) == 0:
                _write_sensors(bag, scene, state, next(frames), np.random.default_rng([seed, i]))


def _write_pose(bag: BagWriter, state: RobotState, map_from_odom: Matrix) -> None:
    stamp_ns = _stamp_ns(state)
    odom_from_base = np.linalg.inv(map_from_odom) @ state.map_from_base
    bag.write('/tf', stamp_ns,
              robot_messages.moving_transforms(stamp_ns, map_from_odom, odom_from_base))
    bag.write('/odom', stamp_ns, robot_messages.odometry(stamp_ns, odom_from_base, state))


def _write_sensors(bag: BagWriter, scene: Scene, state: RobotState, frame: RenderedFrame,
                   rng: np.random.Generator) -> None:
    stamp_ns, m = _stamp_ns(state), robot_messages
    info = m.camera_info(stamp_ns, WIDTH, HEIGHT, frame.K)
    for topic, data in (
            ('/camera/camera_info', info), ('/camera/depth_gt/camera_info', info),
            ('/camera/image_raw/compressed', m.colour_image(stamp_ns, frame.rgb)),
            ('/camera/depth_gt/image_rect/compressed', m.depth_image(stamp_ns, frame.depth_m)),
            ('/scan', m.laser_scan(stamp_ns, robot_path.scan_ranges(scene, state, rng))),
            ('/lidar/points',
             m.point_cloud(stamp_ns, robot_path.lidar_points(scene, state, rng)))):
        bag.write(topic, stamp_ns, data)


@lru_cache(maxsize=1)
def _scene(seed: int, texture_size: int) -> Scene:
    return drive_room.make_drive_room(seed, texture_size)


def _render(job: tuple[RobotState, float, int], *, seed: int, quality: Quality) -> RenderedFrame:
    state, gain, number = job
    camera_sensor = Sensor(gain=gain, noise=0.003, vignette=0.06, seed=seed * 1000 + number)
    return render.render(_scene(seed, quality.texture_size),
                         robot_camera(state, WIDTH, HEIGHT, camera_sensor), quality)


def _metered_gain(scene: Scene, state: RobotState) -> float:
    """Meter the exposure on a small image."""
    small = robot_camera(state, WIDTH // 5, HEIGHT // 5)
    return sensor.meter_exposure(render.render_radiance(scene, small, BULK)[0])


def _smooth_gains(gains: Sequence[float]) -> list[float]:
    """Smooth the exposure over about half a second, as a real camera does."""
    window = np.hanning(13)[1:-1]
    padded = np.pad(np.log(gains), len(window) // 2, mode='edge')
    smooth = np.exp(np.convolve(padded, window / window.sum(), mode='valid'))
    return [float(gain) for gain in smooth]


def _stamp_ns(state: RobotState) -> int:
    return START_NS + round(state.t_s * 10 ** 9)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(v), 4) for v in values]


def main() -> None:
    """Parse the command line and write the sample bag."""
    parser = argparse.ArgumentParser(description='Render the sample drive and write its bag.')
    parser.add_argument('--out', type=Path, default=Path('sample'), help='folder for the bag')
    parser.add_argument('--draft', action='store_true', help='render fast at low quality')
    parser.add_argument('--seed', type=int, default=SEED, help="seed of the room's appearance")
    parser.add_argument('--workers', type=int, default=2, help='number of rendering processes')
    a = parser.parse_args()
    write_sample(a.out, quality=BULK if a.draft else FINE, seed=a.seed, workers=a.workers)


if __name__ == '__main__':
    main()
