"""
Render the sample drive and write its bag.

    python -m scenes.sample_drive --out sample/
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import lru_cache, partial
import json
import multiprocessing
from pathlib import Path

import numpy as np

from marigold_ros.progress import progress_bar
from scenes import drive_bag, drive_room, render, robot_path
from scenes.drive_bag import FRAME_HZ, ODOMETRY_HZ
from scenes.robot_path import RobotState
from scenes.scene_types import BULK, FINE, Quality, RenderedFrame, Scene, Sensor

SEED = 26
DURATION_S = 8.0

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
    gains = _smooth_gains([drive_bag.metered_gain(scene, state)
                           for state in progress_bar(frame_states, desc='exposure')])
    job = partial(_render, seed=seed, quality=quality)
    out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context('spawn').Pool(workers) as pool:
        frames = progress_bar(pool.imap(job, zip(frame_states, gains, range(len(frame_states)))),
                              'frames', len(frame_states))
        drive_bag.write_bag(out / scene.place, lambda t_s: scene, states, iter(frames), seed)
    size_m = (drive_room.WIDTH_M, drive_room.DEPTH_M, drive_room.HEIGHT_M)
    text = json.dumps(drive_bag.describe_scene(scene, states, seed, size_m), indent=1)
    (out / 'scene.json').write_text(text + '\n', encoding='utf-8')


@lru_cache(maxsize=1)
def _scene(seed: int, texture_size: int) -> Scene:
    return drive_room.make_drive_room(seed, texture_size)


def _render(job: tuple[RobotState, float, int], *, seed: int, quality: Quality) -> RenderedFrame:
    state, gain, number = job
    camera_sensor = Sensor(gain=gain, noise=0.003, vignette=0.06, seed=seed * 1000 + number)
    return render.render(_scene(seed, quality.texture_size),
                         drive_bag.robot_camera(state, drive_bag.WIDTH, drive_bag.HEIGHT,
                                                camera_sensor), quality)


def _smooth_gains(gains: Sequence[float]) -> list[float]:
    """Smooth the exposure over about half a second, as a real camera does."""
    window = np.hanning(13)[1:-1]
    padded = np.pad(np.log(gains), len(window) // 2, mode='edge')
    smooth = np.exp(np.convolve(padded, window / window.sum(), mode='valid'))
    return [float(gain) for gain in smooth]


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
