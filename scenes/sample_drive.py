"""Make the sample bag: python -m scenes.sample_drive --out sample/."""
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
from scenes import cameras, drive, drive_messages, render, sample_room, sensor
from scenes.drive import DriveState, Matrix
from scenes.types import BULK, Camera, FINE, Quality, RenderedFrame, Scene, Sensor

SEED = 26
START_NS = 1_750_000_000 * 10 ** 9
DURATION_S = 8.0
FRAME_HZ = 10
ODOMETRY_HZ = 20
WIDTH, HEIGHT = 640, 480
HORIZONTAL_FOV = np.radians(70.0)

# From before the dining table, around the end of the sofa, to the view across the lounge.
START = (2.75, 0.55, float(np.radians(114.0)))
CONTROLS = [(0.0, 0.15, 0.0), (0.6, 0.32, 0.0), (1.8, 0.34, -0.12), (2.6, 0.34, -0.65),
            (4.8, 0.36, -0.65), (5.8, 0.42, -0.2), (7.0, 0.45, 0.05), (8.0, 0.3, 0.1)]


def make_sample(out: Path, *, quality: Quality = FINE, seed: int = SEED,
                duration_s: float = DURATION_S, workers: int = 2) -> None:
    """
    Render the drive and write the bag `living_room` and `scene.json`.

    Parameters
    ----------
    out : Path
        Folder; a bag of an earlier run in it is replaced.
    quality : Quality
    seed : int
        Of the room's looks and the sensors' noise.
    duration_s : float
        How much of the drive to make.
    workers : int
        Processes that render.
    """
    scene = _scene(seed, quality.texture_size)
    states = drive.integrate(START, CONTROLS, ODOMETRY_HZ, duration_s)
    seen = states[::ODOMETRY_HZ // FRAME_HZ]
    gains = _smooth([_metered_gain(scene, state) for state in tqdm(seen, desc='exposure')])
    job = partial(_render, seed=seed, quality=quality)
    out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context('spawn').Pool(workers) as pool:
        frames = tqdm(pool.imap(job, zip(seen, gains, range(len(seen)))), total=len(seen),
                      desc='frames')
        _write_bag(out / 'living_room', scene, states, iter(frames), seed)
    text = json.dumps(describe(scene, states, seed), indent=1)
    (out / 'scene.json').write_text(text + '\n', encoding='utf-8')


def drive_camera(state: DriveState, width: int, height: int, sensor_: Sensor = Sensor()) -> Camera:
    """
    Give the robot's camera where it is.

    Returns
    -------
    Camera
    """
    map_from_optical = (state.map_from_base @ drive.base_from_camera_link()
                        @ drive.camera_link_from_optical())
    return Camera(width, height, cameras.pinhole(width, height, HORIZONTAL_FOV),
                  map_from_optical[:3, :3], map_from_optical[:3, 3], sensor_)


def describe(scene: Scene, states: Sequence[DriveState], seed: int) -> dict[str, Any]:
    """
    Say what stands where: what `scene.json` holds.

    Parameters
    ----------
    scene : Scene
    states : sequence of DriveState
    seed : int

    Returns
    -------
    dict
        Metres and radians in the map frame.
    """
    mounting = drive.base_from_camera_link() @ drive.camera_link_from_optical()
    size = (sample_room.WIDTH_M, sample_room.DEPTH_M)
    return {
        'place': scene.place, 'seed': seed, 'frame_id': 'map', 'bag': 'living_room',
        'floor': {'height_m': 0.0, 'min_m': [0.0, 0.0], 'max_m': list(size)},
        'walls': {'min_m': [0.0, 0.0, 0.0], 'max_m': [*size, sample_room.HEIGHT_M]},
        'obstacles': [{'name': o.name, 'min_m': _rounded(o.min_m), 'max_m': _rounded(o.max_m)}
                      for o in scene.obstacles],
        'camera': {
            'parent_frame_id': 'base_link', 'frame_id': drive_messages.OPTICAL_FRAME,
            'xyz_m': mounting[:3, 3].tolist(),
            'quaternion_xyzw': Rotation.from_matrix(mounting[:3, :3]).as_quat().tolist(),
            'height_m': drive.CAMERA_XYZ_M[2], 'pitch_down_rad': float(drive.CAMERA_PITCH),
            'width': WIDTH, 'height': HEIGHT,
            'K': cameras.pinhole(WIDTH, HEIGHT, HORIZONTAL_FOV).tolist()},
        'scanner': {'frame_id': 'laser_link', 'xyz_m': list(drive.SCANNER_XYZ_M)},
        'lidar': {'frame_id': 'lidar_link', 'xyz_m': list(drive.LIDAR_XYZ_M)},
        'range_noise_m': drive.RANGE_NOISE_M,
        'trajectory': [{'stamp_ns': _stamp_ns(s), 'x_m': round(s.x_m, 6), 'y_m': round(s.y_m, 6),
                        'yaw_rad': round(s.yaw, 6)} for s in states]}


def _write_bag(path: Path, scene: Scene, states: Sequence[DriveState],
               frames: Iterator[RenderedFrame], seed: int) -> None:
    map_from_odom = states[0].map_from_base
    with BagWriter(path, overwrite=True) as bag:
        for topic, msgtype in drive_messages.TOPICS.items():
            bag.add_topic(topic, msgtype, typestore=STORE,
                          qos=[drive_messages.offered_qos(topic)])
        bag.write('/tf_static', _stamp_ns(states[0]),
                  drive_messages.static_transforms(_stamp_ns(states[0])))
        for i, state in enumerate(states):
            _write_motion(bag, state, map_from_odom)
            if i % (ODOMETRY_HZ // FRAME_HZ) == 0:
                _write_sensing(bag, scene, state, next(frames), np.random.default_rng([seed, i]))


def _write_motion(bag: BagWriter, state: DriveState, map_from_odom: Matrix) -> None:
    stamp_ns = _stamp_ns(state)
    odom_from_base = np.linalg.inv(map_from_odom) @ state.map_from_base
    bag.write('/tf', stamp_ns,
              drive_messages.moving_transforms(stamp_ns, map_from_odom, odom_from_base))
    bag.write('/odom', stamp_ns, drive_messages.odometry(stamp_ns, odom_from_base, state))


def _write_sensing(bag: BagWriter, scene: Scene, state: DriveState, frame: RenderedFrame,
                   rng: np.random.Generator) -> None:
    stamp_ns, m = _stamp_ns(state), drive_messages
    info = m.camera_info(stamp_ns, WIDTH, HEIGHT, frame.K)
    for topic, data in (
            ('/camera/camera_info', info), ('/camera/depth_gt/camera_info', info),
            ('/camera/image_raw/compressed', m.colour_image(stamp_ns, frame.rgb)),
            ('/camera/depth_gt/image_rect/compressed', m.depth_image(stamp_ns, frame.depth_m)),
            ('/scan', m.laser_scan(stamp_ns, drive.scan(scene, state, rng))),
            ('/lidar/points', m.point_cloud(stamp_ns, drive.lidar_points(scene, state, rng)))):
        bag.write(topic, stamp_ns, data)


@lru_cache(maxsize=1)
def _scene(seed: int, texture_size: int) -> Scene:
    return sample_room.make_sample_room(seed, texture_size)


def _render(job: tuple[DriveState, float, int], *, seed: int, quality: Quality) -> RenderedFrame:
    state, gain, number = job
    eye = Sensor(gain=gain, noise=0.003, vignette=0.06, seed=seed * 1000 + number)
    return render.render(_scene(seed, quality.texture_size),
                         drive_camera(state, WIDTH, HEIGHT, eye), quality)


def _metered_gain(scene: Scene, state: DriveState) -> float:
    """Exposure for what the camera sees, from a small image."""
    small = drive_camera(state, WIDTH // 5, HEIGHT // 5)
    return sensor.meter(render.render_radiance(scene, small, BULK)[0])


def _smooth(gains: Sequence[float]) -> list[float]:
    """Let the exposure follow slowly, as a camera's does: within about half a second."""
    window = np.hanning(13)[1:-1]
    padded = np.pad(np.log(gains), len(window) // 2, mode='edge')
    smooth = np.exp(np.convolve(padded, window / window.sum(), mode='valid'))
    return [float(gain) for gain in smooth]


def _stamp_ns(state: DriveState) -> int:
    return START_NS + round(state.t_s * 10 ** 9)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(v), 4) for v in values]


def main() -> None:
    """Read the command line and make the sample."""
    parser = argparse.ArgumentParser(description='Render the sample drive and write its bag.')
    parser.add_argument('--out', type=Path, default=Path('sample'), help='folder for the bag')
    parser.add_argument('--draft', action='store_true', help='render fast and coarsely')
    parser.add_argument('--seed', type=int, default=SEED, help="of the room's looks")
    parser.add_argument('--workers', type=int, default=2, help='processes that render')
    a = parser.parse_args()
    make_sample(a.out, quality=BULK if a.draft else FINE, seed=a.seed, workers=a.workers)


if __name__ == '__main__':
    main()
