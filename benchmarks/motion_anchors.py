"""
How good are anchors from motion, and what do they cost?

    OMP_NUM_THREADS=1 python -m benchmarks.motion_anchors

On the sample drive, with the true poses, with odometry whose wheels slip by 3 %, that drifts by
0.5 degrees a metre and has 1 % of noise, and with poses of 20 ms later.  Each is measured
without and with the flow of carrying, where corners are searched from afar or begin where it
takes them, then also with `scale.motion.refine_rotation`, and in carrying's reduced frame in
place of the whole image, for which only the anchors are compared.  Errors are those of the
anchors against the true depth of their pixels; those that were not measured in the same image
are held.  AbsRel is that of metric depth, from the anchors alone and together with the floor.
Times are medians, of all settings frame by frame in turn.

    python -m benchmarks.motion_anchors --minutes 60

runs the drive to and fro for so long a time of its own, and tells how the memory grows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, pairwise
import os
from pathlib import Path
import sys
import time
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from benchmarks.node_rig import memory_bytes
from benchmarks.timing import format_markdown_table
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.datasets.bag import bag_data_set, SAMPLE_TOPICS
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.adaptive import AdaptiveConfig, AdaptiveDepth, AdaptivePrediction, Frame
from marigold_ros.depth.carry import resize_matrix
from marigold_ros.depth.complexity import reduce_to_grey
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.depth.networks import ImmediateExecutor
from marigold_ros.depth.types import GreyImage, Matrix
from marigold_ros.evaluation.metrics.metric_depth import MetricDepthEvaluator
from marigold_ros.evaluation.references import BagReferences, FrameReference
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.sources.ground_plane import Floor
from marigold_ros.metric.sources.motion import MotionAnchors
from marigold_ros.progress import progress_bar

NAME = 'motion_anchors'
SLIP, NOISE, DRIFT_RAD_PER_M = 0.03, 0.01, np.radians(0.5)
LATE_S = 0.02
# Each image again, so that the drive has no end: the time between two of them, ns.
PERIOD_NS = 10 ** 8
WARM_UP_FRAMES = 600


class DriveFrame(NamedTuple):
    """A frame of the drive, its prediction, and the mount of the camera."""

    frame: DepthFrame
    prediction: AdaptivePrediction
    reference: FrameReference


class AnchorResult(NamedTuple):
    """The anchors of a frame: time, number, those measured in it, and their errors [n]."""

    seconds: float
    anchors: int
    fresh: int
    errors: NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """How corners are tracked."""

    uses_flow: bool
    refine_rotation: bool = False
    reduced: bool = False  # in carrying's reduced frame


SETTINGS = (Setting(False), Setting(True), Setting(True, refine_rotation=True),
            Setting(True, reduced=True))


def read_drive(path: Path, max_frames: int | None = None) -> list[DriveFrame]:
    """Predict the depth of every frame of a drive, with one step."""
    adaptive = AdaptiveDepth(
        DepthEngine.load('tiny'), AdaptiveConfig(StepPolicyConfig(
            'fixed', max_inference_steps=1, latency_cap_s=None)), networks=ImmediateExecutor())
    drive: list[DriveFrame] = []
    with open_bag(path) as bag:
        references = BagReferences(bag, SAMPLE_TOPICS,
                                   ScaleConfig(('ground_plane',), camera_height_m=1.0))
        for frame in bag_data_set(path).frames():
            if len(drive) == max_frames:
                break
            prediction, = adaptive.process([
                Frame('camera', frame.rgb, frame.stamp_ns or 0, time.monotonic())])
            drive.append(DriveFrame(frame, prediction, references.lookup(frame)))
    return drive


def true_poses(drive: Sequence[DriveFrame]) -> list[Matrix]:
    """
    Return the pose of the camera at each frame.

    Raises
    ------
    MarigoldError
        If one is unknown.
    """
    poses = [each.frame.world_from_camera for each in drive]
    known = [each for each in poses if each is not None]
    if len(known) < len(poses):
        raise MarigoldError('each frame of the drive must have a pose')
    return known


def slip_and_drift(poses: Sequence[Matrix]) -> list[Matrix]:
    """Return poses as of odometry whose wheels slip, and that drifts to one side."""
    rng, wrong = np.random.default_rng(0), [poses[0]]
    for before, after in pairwise(poses):
        motion = np.linalg.inv(before) @ after
        distance_m = np.linalg.norm(motion[:3, 3])
        motion[:3, 3] *= (1.0 + SLIP) * (1.0 + NOISE * rng.standard_normal())
        turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
        turn = turn * (1.0 + NOISE * rng.standard_normal()) + (0.0, DRIFT_RAD_PER_M * distance_m,
                                                               0.0)
        motion[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
        wrong.append(wrong[-1] @ motion)
    return wrong


def make_late(poses: Sequence[Matrix], stamps_s: Sequence[float]) -> list[Matrix]:
    """Return the poses of `LATE_S` later."""
    at_s = np.clip(np.array(stamps_s) + LATE_S, stamps_s[0], stamps_s[-1])
    rotations = Slerp(stamps_s, Rotation.from_matrix([each[:3, :3] for each in poses]))(at_s)
    late = np.tile(np.eye(4), (len(poses), 1, 1))
    late[:, :3, :3] = rotations.as_matrix()
    for axis in range(3):
        late[:, axis, 3] = np.interp(at_s, stamps_s, [each[axis, 3] for each in poses])
    return list(late)


def measure(drive: Sequence[DriveFrame], name: str, poses: Sequence[Matrix]
            ) -> list[dict[str, str]]:
    """Return the rows of the table for some poses."""
    trackers = {each: MotionAnchors(each.refine_rotation) for each in SETTINGS}
    results: dict[Setting, list[AnchorResult]] = {each: [] for each in SETTINGS}
    for shown, pose in zip(drive, poses):
        grey = to_grey(shown.frame)
        for setting, motion in trackers.items():
            results[setting].append(track(motion, setting, shown, grey, pose))
    return [{'poses': name, **format_row(setting, frames),
             **{f'AbsRel, {title}': '-' if setting.reduced
                else f'{abs_rel(drive, poses, setting, sources):.3f}'
                for title, sources in (('motion', ('motion',)),
                                       ('motion + floor', ('motion', 'ground_plane')))}}
            for setting, frames in results.items()]


def track(motion: MotionAnchors, setting: Setting, shown: DriveFrame, grey: GreyImage,
          pose: Matrix) -> AnchorResult:
    """Track the corners into a frame, and compare the anchors with the truth."""
    (frame, prediction, reference), K = shown, shown.reference.K
    target_m = frame.known_depth_m
    if setting.reduced:
        grey = reduce_to_grey(frame.rgb)
        size = grey.shape[1::-1]
        K = resize_matrix(frame.rgb.shape[1::-1], size) @ K
        target_m = np.asarray(cv2.resize(target_m, size, interpolation=cv2.INTER_NEAREST),
                              np.float32)
    started_s = time.perf_counter()
    anchors = motion.update(grey, K, pose, reference.stamp_ns, floor_of(reference),
                            prediction.flow if setting.uses_flow else None)
    seconds = time.perf_counter() - started_s
    with np.errstate(invalid='ignore'):
        error = np.abs(anchors.depth_m / target_m[anchors.rows, anchors.columns] - 1.0)
    return AnchorResult(seconds, len(anchors), motion.fresh, error[np.isfinite(error)])


def format_row(setting: Setting, frames: Sequence[AnchorResult]) -> dict[str, str]:
    """Format what a setting has found in all frames."""
    median, high = np.quantile(np.concatenate([each.errors for each in frames]), (0.5, 0.9))
    return {'image': 'reduced' if setting.reduced else 'whole',
            'flow': 'yes' if setting.uses_flow else 'no',
            'rotation refined': 'yes' if setting.refine_rotation else 'no',
            'anchors': f'{np.mean([each.anchors for each in frames]):.0f}',
            'measured in the image': f'{np.mean([each.fresh for each in frames]):.0f}',
            'error: median, 90 %': f'{median:.1%}, {high:.1%}'.replace('%', ' %'),
            'ms': f'{1e3 * np.median([each.seconds for each in frames]):.1f}'}


def abs_rel(drive: Sequence[DriveFrame], poses: Sequence[Matrix], setting: Setting,
            sources: tuple[str, ...]) -> float:
    """Return the error of metric depth from some sources."""
    mount = drive[0].reference.base_from_camera
    evaluator = MetricDepthEvaluator(ScaleConfig(
        sources, camera_height_m=None if mount is None else float(mount[2, 3]),
        refine_rotation=setting.refine_rotation))
    for (frame, prediction, reference), pose in zip(drive, poses):
        evaluator.add(replace(frame, world_from_camera=pose), prediction, reference,
                      prediction.gauge_change, prediction.flow if setting.uses_flow else None)
    return evaluator.mean('abs_rel')


def to_grey(frame: DepthFrame) -> GreyImage:
    """Return the image of a frame in grey, uint8 [H, W]."""
    return np.asarray(cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def floor_of(reference: FrameReference) -> Floor | None:
    """Return the floor below the camera; None where its mount is unknown."""
    mount = reference.base_from_camera
    return None if mount is None else Floor(-mount[2, :3], float(mount[2, 3]))


def run_long(drive: Sequence[DriveFrame], poses: Sequence[Matrix], minutes: float
             ) -> dict[str, str]:
    """Run the drive to and fro, and return how the memory has grown."""
    images = [(to_grey(each.frame), each.reference, pose) for each, pose in zip(drive, poses)]
    motion, count = MotionAnchors(), round(60 * minutes * 10 ** 9 / PERIOD_NS)
    warm_up, at_start = min(WARM_UP_FRAMES, count // 2), 0
    to_and_fro = cycle([*images, *images[-2:0:-1]])
    for number, (grey, reference, pose) in zip(progress_bar(range(count), unit='frame'),
                                               to_and_fro):
        if number == warm_up:
            at_start = memory_bytes(os.getpid())
        motion.update(grey, reference.K, pose, number * PERIOD_NS, floor_of(reference))
    at_end = memory_bytes(os.getpid())
    return {'frames': str(count),
            f'memory after {warm_up} frames': f'{at_start / 2 ** 20:.0f} MiB',
            'at the end': f'{at_end / 2 ** 20:.0f} MiB',
            'growth': f'{at_end / at_start - 1:.1%}'.replace('%', ' %')}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bag', type=Path, default=Path('sample/living_room'))
    parser.add_argument('--max-frames', type=int, metavar='N',
                        help='use only the first N frames')
    parser.add_argument('--minutes', type=float,
                        help='only measure how the memory grows in so long a time')
    options = parser.parse_args(arguments)
    reserve_one_core()
    cv2.setNumThreads(1)
    try:
        drive = read_drive(options.bag, options.max_frames)
        poses = true_poses(drive)
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return 2
    if options.minutes is not None:
        print(format_markdown_table([run_long(drive, poses, options.minutes)]))
        return 0
    stamps_s = [each.reference.stamp_ns * 1e-9 for each in drive]
    print(format_markdown_table([row for name, each in (
        ('true', poses), ('slip and drift', slip_and_drift(poses)),
        ('20 ms late', make_late(poses, stamps_s))) for row in measure(drive, name, each)]))
    return 0


if __name__ == '__main__':
    sys.exit(main())
