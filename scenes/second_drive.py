"""
Render the second drive, in which things happen, and write its bag.

    python -m scenes.second_drive --out out/drive2

An interrupted run goes on where it stopped: frames are kept in the folder `frames` until the bag
is complete.  Remove that folder after a change of the code.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
import json
import multiprocessing
from pathlib import Path
import shutil
from typing import Any

import numpy as np
import yaml

from marigold_ros.progress import progress_bar
from scenes import drive_bag, render, robot_path, second_room, sensor
from scenes.drive_bag import FRAME_HZ, ODOMETRY_HZ, stamp_ns
from scenes.moving import MovingScene
from scenes.robot_path import RobotState
from scenes.scene_types import BULK, FINE, Quality, RenderedFrame, Sensor

SEED = 52
DURATION_S = 34.0
# A thing counts as visible from this share of the image on.
VISIBLE_SHARE = 0.01
# Time in which the exposure makes up for most of a change of the light, s.
EXPOSURE_LAG_S = 0.4

# Along the room, past the ball, to the person; left about; to the door; back to the table.
START = (0.75, 2.0, 0.0)
TURN_RATE = float(np.radians(60.0))
CONTROLS = [(0.0, 0.0, 0.0), (0.6, 0.35, 0.0), (1.5, 0.35, 0.12), (3.5, 0.35, -0.12),
            (5.0, 0.35, 0.0), (5.6, 0.0, 0.0), (10.6, 0.0, 0.0), (11.2, 0.32, 0.0),
            (13.0, 0.32, -0.06), (14.6, 0.3, 0.12), (17.4, 0.25, 0.0), (18.0, 0.0, 0.0),
            (18.2, 0.0, 0.0), (18.4, 0.0, TURN_RATE), (20.0, 0.0, TURN_RATE), (20.2, 0.0, 0.0),
            (20.6, 0.0, 0.0), (21.2, 0.25, -0.15), (23.0, 0.25, 0.0), (25.0, 0.22, 0.0),
            (26.0, 0.12, 0.35),
            (29.0, 0.12, 0.35), (30.0, 0.32, 0.1), (34.0, 0.3, 0.0)]


@dataclass(frozen=True)
class Event:
    """A named stretch of the drive, from its first to its last frame, s."""

    name: str
    start_s: float
    end_s: float


EVENTS = (Event('driving_at_first', 0.0, 5.0), Event('stop', 5.6, 8.6),
          Event('ball', 8.7, second_room.BALL_S[1]), Event('person', *second_room.PERSON_S),
          Event('turn', 18.4, 20.0), Event('door', *second_room.DOOR_S),
          Event('lamp', second_room.LAMP_S, 29.0), Event('driving_at_last', 30.0, 33.9))


def write_second_drive(out: Path, *, quality: Quality = FINE, seed: int = SEED, workers: int = 1,
                       size: tuple[int, int] = (drive_bag.WIDTH, drive_bag.HEIGHT),
                       window_s: tuple[float, float] = (0.0, DURATION_S)) -> None:
    """
    Render the drive and write the bag `parlour`, `scene.json` and `events.yaml`.

    Parameters
    ----------
    out : Path
        Folder; an existing bag in it is overwritten.
    quality : Quality
    seed : int
        Seed of the room's appearance and the sensor noise.
    workers : int
        Number of rendering processes.
    size : (int, int)
        Width and height of the images, px.
    window_s : (float, float)
        Part of the drive to render, from a frame on.
    """
    moving = _moving_scene(seed, quality.texture_size)
    states = [s for s in drive_states() if window_s[0] <= s.t_s < window_s[1]]
    frame_states = states[::ODOMETRY_HZ // FRAME_HZ]
    jobs = plan_frames(moving, frame_states, seed)
    kept = out / 'frames' / f'{seed}-{quality.passes}-{quality.texture_size}-{size[0]}'
    kept.mkdir(parents=True, exist_ok=True)
    job = partial(_render_once, seed=seed, quality=quality, size=size, folder=kept)
    with multiprocessing.get_context('spawn').Pool(workers) as pool:
        frames = progress_bar(pool.imap(job, jobs), total=len(jobs), desc='frames')
        drive_bag.write_bag(out / moving.lit.place, moving.at, states, iter(frames), seed)
    room_m = (second_room.WIDTH_M, second_room.DEPTH_M, second_room.HEIGHT_M)
    scene = drive_bag.describe_scene(moving.lit, states, seed, room_m)
    scene['moving'] = [_describe_motion(moving, thing.name, frame_states)
                       for thing in moving.things]
    (out / 'scene.json').write_text(json.dumps(scene, indent=1) + '\n', encoding='utf-8')
    events = yaml.safe_dump(describe_events(moving, frame_states, size), sort_keys=False)
    (out / 'events.yaml').write_text(events, encoding='utf-8')
    shutil.rmtree(out / 'frames')


def drive_states() -> list[RobotState]:
    """
    Return the states of the robot along the whole drive.

    Returns
    -------
    list of RobotState
    """
    return robot_path.integrate_path(START, CONTROLS, ODOMETRY_HZ, DURATION_S)


@dataclass(frozen=True)
class FrameJob:
    """
    What a frame needs to be rendered.

    Attributes
    ----------
    state : RobotState
    number : int
        Of the frame in the drive: the seed of its sensor noise.
    light_number : int
        Frame whose light samples are taken: the same while the robot stands, so that images of an
        unchanged view differ by the sensor noise only.
    gain : float
        Exposure.
    """

    state: RobotState
    number: int
    light_number: int
    gain: float


def plan_frames(moving: MovingScene, states: Sequence[RobotState], seed: int) -> list[FrameJob]:
    """
    Plan the exposure and the noise of each frame.

    The exposure follows the light with a lag, as in a real camera, and is kept while the robot
    stands.

    Parameters
    ----------
    moving : MovingScene
    states : sequence of RobotState
        Of the frames.
    seed : int

    Returns
    -------
    list of FrameJob
    """
    share = 1 - np.exp(-1 / (FRAME_HZ * EXPOSURE_LAG_S))
    jobs: list[FrameJob] = []
    for state in progress_bar(states, desc='exposure'):
        number = round(state.t_s * FRAME_HZ)
        if jobs and _is_same_pose(state, jobs[-1].state):
            jobs.append(replace(jobs[-1], state=state, number=number))
            continue
        gain = drive_bag.metered_gain(moving.at(state.t_s), state)
        if jobs:
            gain = jobs[-1].gain * (gain / jobs[-1].gain) ** share
        jobs.append(FrameJob(state, number, number, float(gain)))
    return jobs


def render_frame(moving: MovingScene, job: FrameJob, size: tuple[int, int], quality: Quality,
                 seed: int) -> RenderedFrame:
    """
    Render the image and the depth of a frame.

    Parameters
    ----------
    moving : MovingScene
    job : FrameJob
    size : (int, int)
        Width and height, px.
    quality : Quality
    seed : int

    Returns
    -------
    RenderedFrame
    """
    look = Sensor(gain=job.gain, noise=0.003, vignette=0.06,
                  seed=seed * 1000 + job.light_number)
    camera = drive_bag.robot_camera(job.state, *size, look)
    radiance, depth_m = render.render_radiance(moving.at(job.state.t_s), camera, quality)
    noisy = replace(look, seed=seed * 1000 + job.number)
    return RenderedFrame(sensor.develop(radiance, noisy), depth_m, camera.K)


def describe_events(moving: MovingScene, states: Sequence[RobotState],
                    size: tuple[int, int]) -> dict[str, Any]:
    """
    Return the contents of `events.yaml`.

    Parameters
    ----------
    moving : MovingScene
    states : sequence of RobotState
        Of the frames.
    size : (int, int)
        Width and height of the images, px.

    Returns
    -------
    dict
        Each event that has frames, with the stamps of its first and last.  For ball, person and
        door also the first and last frame in which they cover at least `visible_share` of the
        image; and, where they are seen, their share and their box in each frame: left, top,
        right, bottom, the last two exclusive.
    """
    names = {thing.name for thing in moving.things}
    events = []
    for event in EVENTS:
        within = [s for s in states if event.start_s <= s.t_s <= event.end_s]
        if within:
            entry = {'name': event.name, 'start_ns': stamp_ns(within[0]),
                     'end_ns': stamp_ns(within[-1])}
            if event.name in names:
                entry |= _describe_view(moving, event.name, within, size)
            events.append(entry)
    return {'visible_share': VISIBLE_SHARE, 'events': events}


def _describe_view(moving: MovingScene, name: str, states: Sequence[RobotState],
                   size: tuple[int, int]) -> dict[str, Any]:
    """Return the frames in which a thing is seen, and the first and last that show enough."""
    frames, visible = [], []
    for state in states:
        mask = moving.visible_pixels(name, state.t_s, drive_bag.robot_camera(state, *size))
        if mask.any():
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            frames.append({'stamp_ns': stamp_ns(state), 'share': round(float(mask.mean()), 5),
                           'box_px': [int(columns[0]), int(rows[0]), int(columns[-1]) + 1,
                                      int(rows[-1]) + 1]})
        if mask.mean() >= VISIBLE_SHARE:
            visible.append(stamp_ns(state))
    limits = {'first_visible_ns': visible[0], 'last_visible_ns': visible[-1]} if visible else {}
    return {**limits, 'frames': frames}


def _describe_motion(moving: MovingScene, name: str,
                     states: Sequence[RobotState]) -> dict[str, Any]:
    """Return the box of a moving thing at the stamp of each frame in which it is there."""
    boxes = []
    for state in states:
        bounds = moving.bounds(name, state.t_s)
        if bounds is not None:
            box = drive_bag.describe_box(name, *bounds.tolist())
            boxes.append({'stamp_ns': stamp_ns(state), 'min_m': box['min_m'],
                          'max_m': box['max_m']})
    return {'name': name, 'boxes': boxes}


def _is_same_pose(a: RobotState, b: RobotState) -> bool:
    return (a.x_m, a.y_m, a.yaw) == (b.x_m, b.y_m, b.yaw)


@lru_cache(maxsize=1)
def _moving_scene(seed: int, texture_size: int) -> MovingScene:
    return second_room.make_second_room(seed, texture_size)


def _render_once(job: FrameJob, *, seed: int, quality: Quality, size: tuple[int, int],
                 folder: Path) -> RenderedFrame:
    """Render a frame and keep it, or read the one that an earlier run has kept."""
    path = folder / f'{job.number:04d}.npz'
    if not path.is_file():
        moving = _moving_scene(seed, quality.texture_size)
        frame = render_frame(moving, job, size, quality, seed)
        part = path.with_suffix('.part.npz')
        np.savez(part, rgb=frame.rgb, depth_m=frame.depth_m, K=frame.K)
        part.rename(path)
    with np.load(path) as kept:
        return RenderedFrame(kept['rgb'], kept['depth_m'], kept['K'])


def main() -> None:
    """Parse the command line and write the bag of the second drive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--out', type=Path, default=Path('out/drive2'), help='folder for the bag')
    parser.add_argument('--draft', action='store_true', help='render fast at low quality')
    parser.add_argument('--seed', type=int, default=SEED, help="seed of the room's appearance")
    parser.add_argument('--workers', type=int, default=1, help='number of rendering processes')
    a = parser.parse_args()
    write_second_drive(a.out, quality=BULK if a.draft else FINE, seed=a.seed, workers=a.workers)


if __name__ == '__main__':
    main()
