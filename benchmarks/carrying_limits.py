"""
Where does carrying lose against running the network in every frame?

    python -m benchmarks.carrying_limits

Drives of 5 s through the room of the second drive, 50 frames of 320x240 each, rendered once into
the folder `--frames`; remove it after a change of the code.  Every condition differs in one thing
from the first, a drive at 0.8 m/s, or from standing where that drive begins:

- at 0.35 m/s;
- a turn on the spot, left and back right, at 60 or 120 deg/s, without motion blur;
- the same turn with a rolling shutter: strips of 8 rows, each from its own pose, over 30 ms;
- no textures: every material has one colour all over; light, shadows and edges remain;
- low light: noise, as `scenes.sensor` models it, of 35 or 60 % of the light at mid grey; in the
  dark the gain is at its end: 1/32 of the light is left, with noise of 27 % at mid grey;
- a crowd: six people walk past, across, and towards the robot, which drives at 0.3 m/s.

`novelty` and `fixed`, with one denoising step, see the same frames at 10 Hz.  AbsRel is that of
relative depth after least squares in every frame, over all pixels that have a depth, also those
that the carried depth does not cover; its difference is relative to `fixed`, with a 95 % interval
from a bootstrap over blocks of half a second.  How good the few runs happen to be decides much of
it, for the network's error changes from frame to frame; so the true depth, taken for the network's
at the same runs, is carried, too: its AbsRel is what carrying alone adds.  Where the robot stands
nothing is new: all runs are needless but one whenever the depth is `max_carry_s` old.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.data.datasets.data_set import MAX_DEPTH_M, MIN_DEPTH_M
from marigold_ros.depth.adaptive import AdaptiveConfig, AdaptiveDepth, Frame
from marigold_ros.depth.carry import DepthCarrier
from marigold_ros.depth.complexity import reduce_to_grey
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.networks import ImmediateExecutor
from marigold_ros.depth.types import FloatImage, Mask, RgbImage
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.evaluation.metrics.protocol_a import align
from marigold_ros.evaluation.statistics import Blocks
from marigold_ros.progress import progress_bar
from scenes import drive_bag, render, robot_path, second_drive, second_room, sensor
from scenes.drive_bag import FRAME_HZ
from scenes.moving import MovingScene
from scenes.robot_path import RobotState
from scenes.scene_types import Quality, Sensor
from scenes.second_drive import FrameJob
from scenes.second_room import Walk

WIDTH, HEIGHT = 320, 240
# With fewer passes the noise of reflections looks like changes.
QUALITY = Quality(passes=6, edge_samples=4, texture_size=512)
SEED = 52
DURATION_S, BLOCK_FRAMES = 5.0, 5
# A rolling shutter reads this many strips, each from the next pose.
STRIPS, POSES_HZ = 30, 1000

Controls = list[tuple[float, float, float]]
START, MIDDLE = (0.75, 2.0, 0.0), (3.3, 2.4, 0.0)
AHEAD: Controls = [(0.0, 0.8, 0.1), (5.0, 0.8, -0.1)]
SLOWLY: Controls = [(0.0, 0.35, 0.1), (5.0, 0.35, -0.1)]
# Towards the camera, across, away.
CROWD = (Walk((6.2, 2.75), (0.2, 2.8), 0.0, 5.0), Walk((6.0, 1.4), (0.4, 1.3), 1.5, 6.2),
         Walk((5.0, 4.3), (5.0, 0.9), -1.0, 1.9), Walk((4.0, 0.9), (4.0, 4.2), 1.5, 4.3),
         Walk((3.2, 4.2), (3.4, 0.9), 3.2, 6.0), Walk((1.8, 2.9), (6.3, 3.3), 0.5, 4.5))


def _turn(degrees_per_s: float) -> Controls:
    """Turn left on the spot, then right."""
    rate = float(np.radians(degrees_per_s))
    return [(0.0, 0.0, 0.0), (0.3, 0.0, rate), (2.2, 0.0, rate), (2.8, 0.0, -rate),
            (4.7, 0.0, -rate), (5.0, 0.0, 0.0)]


@dataclass(frozen=True)
class Drive:
    """What the robot does, in what, and how its camera reads the rows."""

    controls: Controls
    start: tuple[float, float, float] = START
    crowd: tuple[Walk, ...] = ()
    textures: bool = True
    rolling: bool = False


DRIVES = {
    'ahead': Drive(AHEAD), 'slow': Drive(SLOWLY), 'standing': Drive([(0.0, 0.0, 0.0)]),
    'turn_60': Drive(_turn(60.0), MIDDLE), 'turn_120': Drive(_turn(120.0), MIDDLE),
    'rolling': Drive(_turn(60.0), MIDDLE, rolling=True),
    'plain': Drive(AHEAD, textures=False),
    'crowd': Drive([(0.0, 0.3, 0.0)], crowd=CROWD)}


CLEAR = Sensor(gain=1.0, noise=0.003, vignette=0.06)
LOW, VERY_LOW = replace(CLEAR, noise=0.35), replace(CLEAR, noise=0.6)
DARK = replace(CLEAR, noise=0.018, exposure_ev=-5.0)
# Drive and camera by condition.
CONDITIONS = {
    '0.8 m/s ahead': ('ahead', CLEAR), '0.35 m/s ahead': ('slow', CLEAR),
    'standing': ('standing', CLEAR),
    'turn, 60 deg/s': ('turn_60', CLEAR), 'turn, 120 deg/s': ('turn_120', CLEAR),
    'turn, 60 deg/s, rolling shutter': ('rolling', CLEAR), 'no textures': ('plain', CLEAR),
    'low light': ('ahead', LOW), 'low light, standing': ('standing', LOW),
    'very low light, standing': ('standing', VERY_LOW),
    'dark': ('ahead', DARK), 'dark, standing': ('standing', DARK),
    'crowd': ('crowd', CLEAR), 'crowd, dark': ('crowd', DARK)}


def _configure(policy: str = 'novelty', alpha: float | None = None,
               max_carry_s: float = 2.0) -> AdaptiveConfig:
    return AdaptiveConfig(StepPolicyConfig(policy=policy, max_inference_steps=1, alpha=alpha,
                                           latency_cap_s=None), max_carry_s=max_carry_s)


FIXED, NOVELTY = 'step_policy: fixed', 'step_policy: novelty'
POLICIES = {FIXED: _configure('fixed'), NOVELTY: _configure(),
            'alpha: 25': _configure(alpha=25.0), 'max_carry_s: 0.5': _configure(max_carry_s=0.5)}


class Recording(NamedTuple):
    """Exposed light, true depth, m, and where people are, in all frames of a drive."""

    light: NDArray[np.float16]
    depth_m: NDArray[np.float32]
    people: NDArray[np.bool_]

    def develop(self, camera: Sensor) -> list[RgbImage]:
        """Return the images, each with its own noise."""
        return [sensor.develop(light.astype(np.float32), replace(camera, seed=SEED + number))
                for number, light in enumerate(self.light)]


def load_drive(folder: Path, name: str) -> Recording:
    """Read the frames of a drive; render them first if that has not been done."""
    path = folder / f'{name}.npz'
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix('.part.npz')
        np.savez_compressed(part, **render_drive(name)._asdict())
        part.rename(path)
    with np.load(path) as kept:
        return Recording(**kept)


def render_drive(name: str) -> Recording:
    """Render all frames of a drive."""
    drive = DRIVES[name]
    moving = second_room.make_second_room(SEED, QUALITY.texture_size, drive.crowd)
    if not drive.textures:
        dark = moving.dark
        moving = replace(moving, dark=replace(dark, materials=dark.materials.without_textures()))
    states = robot_path.integrate_path(drive.start, drive.controls, POSES_HZ, DURATION_S)
    jobs = second_drive.plan_frames(moving, states[::POSES_HZ // FRAME_HZ], SEED)
    frames = []
    for job in progress_bar(jobs, desc=name):
        first = round(job.state.t_s * POSES_HZ)
        strips = states[first:first + STRIPS] if drive.rolling else [job.state]
        frames.append(render_frame(moving, job, strips))
    return Recording(*map(np.stack, zip(*frames)))


def render_frame(moving: MovingScene, job: FrameJob,
                 strips: Sequence[RobotState]) -> tuple[NDArray[np.float16], FloatImage, Mask]:
    """Render a frame as strips of rows from several poses, from top to bottom."""
    scene = moving.at(job.state.t_s)
    empty = replace(moving, things=tuple(each for each in moving.things
                                         if 'person' not in each.name)).at(job.state.t_s)
    look = Sensor(seed=SEED * 1000 + job.light_number)
    rows = HEIGHT // len(strips)
    parts = []
    for number, state in enumerate(strips):
        camera = drive_bag.robot_camera(state, WIDTH, HEIGHT, look)
        K = camera.K - np.array([[0, 0, 0], [0, 0, number * rows], [0, 0, 0]])
        strip = replace(camera, height=rows, K=K)
        parts.append((*render.render_radiance(scene, strip, QUALITY),
                      render.depth_along_z(empty, strip)))
    radiance, depth_m, empty_m = map(np.concatenate, zip(*parts))
    light = np.minimum(radiance * job.gain, 100.0).astype(np.float16)
    return light, depth_m, depth_m < 0.99 * empty_m


class Outcome(NamedTuple):
    """What a policy does in each frame of a condition, float64 [F]; NaN where no people are."""

    ran: NDArray[np.float64]
    covered: NDArray[np.float64]
    abs_rel: NDArray[np.float64]
    people_abs_rel: NDArray[np.float64]
    truth_abs_rel: NDArray[np.float64]


def play(engine: DepthEngine, config: AdaptiveConfig, images: Sequence[RgbImage],
         truth: Recording) -> Outcome:
    """Give a policy all frames of a condition, and score its depth."""
    adaptive, scores = AdaptiveDepth(engine, config, networks=ImmediateExecutor()), []
    carrier = DepthCarrier(reduce_to_grey(images[0]))
    for number, (rgb, depth_m) in enumerate(zip(images, truth.depth_m)):
        stamp_ns = drive_bag.START_NS + number * 10 ** 9 // FRAME_HZ
        prediction, = adaptive.process([Frame('camera', rgb, stamp_ns, received_s=0.0)])
        carrier.advance(reduce_to_grey(rgb))
        if prediction.num_inference_steps:
            farthest_m = depth_m[np.isfinite(depth_m)].max()
            carrier.begin_run()
            carrier.finish_run(np.minimum(depth_m, farthest_m), None, rgb.shape[1::-1])
        error, truth_error = (relative_error(each, depth_m) for each in (
            prediction.affine_invariant_depth, carrier.carry().depth))
        people = error[truth.people[number]]
        scores.append((prediction.num_inference_steps > 0, prediction.covered_share,
                       np.nanmean(error), np.nanmean(people) if people.size else np.nan,
                       np.nanmean(truth_error)))
    return Outcome(*np.array(scores, np.float64).T)


def relative_error(depth: FloatImage, depth_m: FloatImage) -> NDArray[np.float64]:
    """Return the relative error after least squares, [H, W]; NaN on the sky."""
    known = np.isfinite(depth_m)
    aligned_m, _, _ = align(depth, depth_m, known, alignment='least_square',
                            min_depth_m=MIN_DEPTH_M, max_depth_m=MAX_DEPTH_M)
    truth_m = np.where(known, depth_m, np.nan)
    return np.asarray(np.abs(aligned_m - truth_m) / truth_m, np.float64)


def measure(engine: DepthEngine, condition: str, recording: Recording) -> dict[str, Outcome]:
    """Return what every policy does under a condition."""
    images = recording.develop(CONDITIONS[condition][1])
    return {name: play(engine, config, images, recording)
            for name, config in progress_bar(POLICIES.items(), desc=condition)}


def format_difference(values: NDArray[np.float64], fixed: NDArray[np.float64]) -> str:
    """Format the relative difference of the means with its 95 % interval."""
    blocks = Blocks([str(number // BLOCK_FRAMES) for number in range(len(fixed))],
                    mean_of_blocks=False)
    difference, whole = values - fixed, blocks.mean(fixed)
    low, high = blocks.bootstrap_interval(difference)
    return f'{blocks.mean(difference) / whole:+.1%} ({low / whole:+.1%}..{high / whole:+.1%})'


def format_row(condition: str, outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Format what carrying costs and saves under a condition as a row."""
    fixed, novelty = outcomes[FIXED], outcomes[NOVELTY]
    needed = np.ceil(len(novelty.ran) / (POLICIES[NOVELTY].max_carry_s * FRAME_HZ))
    return {
        'condition': condition, 'runs saved': f'{1 - novelty.ran.mean():.0%}',
        'covered': f'{novelty.covered.mean():.1%}', 'AbsRel, fixed': f'{fixed.abs_rel.mean():.4f}',
        'novelty': f'{novelty.abs_rel.mean():.4f}',
        'difference (95 %)': format_difference(novelty.abs_rel, fixed.abs_rel),
        'of the truth, carried': f'{novelty.truth_abs_rel.mean():.4f}',
        'on people': '' if np.isnan(fixed.people_abs_rel).all() else format_difference(
            novelty.people_abs_rel, fixed.people_abs_rel),
        'needless runs': f'{novelty.ran.sum() - needed:.0f}' if 'standing' in condition else ''}


def format_options(condition: str, outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Format the saved runs, and the difference of AbsRel, with every other option as a row."""
    fixed = outcomes[FIXED].abs_rel
    return {'condition': condition, **{
        name: f'{1 - each.ran.mean():.0%}; {each.abs_rel.mean() / fixed.mean() - 1:+.1%}'
        for name, each in outcomes.items() if name != FIXED}}


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=Path, default=Path('out/frames/carrying_limits'),
                        help='folder in which rendered drives are kept')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Render what is missing, measure, and write the report."""
    options = make_parser().parse_args(arguments)
    reserve_one_core()
    cv2.setNumThreads(1)
    facts = describe_environment()
    engine = DepthEngine.load()
    results = {name: measure(engine, name, load_drive(options.frames, drive))
               for name, (drive, _) in CONDITIONS.items()}
    text = '\n\n'.join(format_markdown_table([make_row(*item) for item in results.items()])
                       for make_row in (format_row, format_options))
    write_benchmark_report(options.out, 'carrying_limits', facts, {'conditions': {
        name: {policy: {column: [None if np.isnan(value) else float(value) for value in values]
                        for column, values in outcome._asdict().items()}
               for policy, outcome in outcomes.items()}
        for name, outcomes in results.items()}}, text)


if __name__ == '__main__':
    main()
