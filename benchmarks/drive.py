"""Every measured scale source along a recorded drive: error, jitter, outage and floor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bags.messages import image_fields
from marigold_ros.data.bags.poses import PoseBuffer, topics_of
from marigold_ros.data.bags.reader import Bag, open_bag
from marigold_ros.data.bags.stamp_matching import matched_by_stamp
from marigold_ros.depth.errors import BagError
from marigold_ros.depth.types import FloatImage
from marigold_ros.evaluation.metrics.protocol_a import error_metrics, MIN_PREDICTION_M
from marigold_ros.evaluation.metrics.protocols import mean_scores, Scores
from marigold_ros.geometry.camera import Rectifier
from marigold_ros.messages.camera_info import camera_from_fields, CameraInfoFields
from marigold_ros.messages.cloud import CloudFields, unpack_cloud
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb
from marigold_ros.messages.laser_scan import points_from_scan
from marigold_ros.metric.anchors import (
    Anchors,
    anchors_from_depth,
    anchors_from_points,
)
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.sources.ground_plane import down_vector, tilt_of
from marigold_ros.metric.tracker import ScaleTracker
from marigold_ros.metric.types import MetricScale, ScaleFrame

TOPICS = ('/camera/image_raw/compressed', '/camera/depth_gt/image_rect/compressed',
          '/camera/camera_info', '/lidar/points', '/scan')
BASE = 'base_link'
# A weak depth camera: a quarter of the resolution, noise as a stereo camera's, holes, short sight.
WEAK_STRIDE, WEAK_NOISE_PER_M, WEAK_HOLES, WEAK_RANGE_M = 4, 0.01, 0.3, 4.0
# Truth this close to the plane under the robot is floor.
FLOOR_M = 0.01
OUTAGE_S = (3.0, 5.0)
# The scale has recovered when it is this close to what it would be without the outage.
RECOVERED = 0.02

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DriveFrame:
    """
    One image of the drive with all that is known of it.

    Attributes
    ----------
    stamp_ns : int
    relative : float32 [H, W]
    confidence : float32 [H, W] or None
    depth_m : float32 [H, W]
        True, m; NaN unknown.
    K : float64 [3, 3]
    fall : float64 [H, W]
        How far each pixel's ray falls per metre of Z.
    tilt : (float, float)
        True pitch and roll of the camera, rad.
    height_m : float
        True height of the camera.
    anchors : dict
        Source -> Anchors.
    """

    stamp_ns: int
    relative: FloatImage
    confidence: FloatImage | None
    depth_m: FloatImage
    K: Matrix
    fall: Matrix
    tilt: tuple[float, float]
    height_m: float
    anchors: dict[str, Anchors]


def read_drive(path: Path, predict: Callable[[NDArray[np.uint8]], Any]) -> list[DriveFrame]:
    """
    Read a drive with the topics `TOPICS` and /tf_static, and predict every frame.

    Raises
    ------
    BagError
        If something is missing.
    """
    frames = []
    rng = np.random.default_rng(0)
    with open_bag(path) as bag:
        poses = _poses(bag)
        for stamp_ns, (image, depth, info, cloud, scan) in matched_by_stamp(bag, TOPICS):
            rectifier = Rectifier(camera_from_fields(CameraInfoFields(
                info.height, info.width, info.distortion_model, info.d, info.k, info.r, info.p)))
            K = rectifier.camera.rectified().K
            base, camera, lidar, laser = (_world_from(poses, name, stamp_ns) for name in (
                BASE, info.header.frame_id, cloud.header.frame_id, scan.header.frame_id))
            base_from_camera = np.linalg.inv(base) @ camera
            prediction = predict(rectifier.rectify(decode_rgb(image_fields(image))))
            depth_m = unpack_depth(image_fields(depth))
            depth_m[~rectifier.valid] = np.nan
            size = depth_m.shape
            points = unpack_cloud(CloudFields(
                cloud.height, cloud.width,
                tuple((f.name, f.offset, f.datatype, f.count) for f in cloud.fields),
                bool(cloud.is_bigendian), cloud.point_step, cloud.row_step, cloud.data))[0]
            tilt = tilt_of(-base_from_camera[2, :3])
            frames.append(DriveFrame(
                stamp_ns, prediction.affine_invariant_depth, prediction.confidence, depth_m, K,
                _fall(size, K, tilt), tilt, float(base_from_camera[2, 3]), {
                    'depth': _weak_depth(depth_m, K, rng, stamp_ns),
                    'cloud': anchors_from_points(points, np.linalg.inv(camera) @ lidar, K,
                                                 size, stamp_ns),
                    'scan': anchors_from_points(points_from_scan(
                        scan.ranges, scan.angle_min, scan.angle_increment, scan.range_min,
                        scan.range_max), np.linalg.inv(camera) @ laser, K, size, stamp_ns)}))
    if not frames:
        raise BagError(f'{path} has no {", ".join(TOPICS)} of one stamp')
    return frames


def _poses(bag: Bag) -> PoseBuffer:
    """Read all poses of a bag, whose recording is shorter than what the buffer keeps."""
    poses = PoseBuffer()
    for message in bag.messages(topics_of(bag.topics)):
        poses.add(message.topic, bag.decode(message))
    return poses


def _world_from(poses: PoseBuffer, frame_id: str, stamp_ns: int) -> Matrix:
    found = poses.world_from(frame_id, stamp_ns)
    if found is None:
        raise BagError(f'the bag does not say where {frame_id} is at {stamp_ns} ns')
    return found


def _fall(size: tuple[int, int], K: Matrix, tilt: tuple[float, float]) -> Matrix:
    x, y, z = down_vector(*tilt)
    rows, columns = np.mgrid[:size[0], :size[1]]
    return np.asarray((columns - K[0, 2]) / K[0, 0] * x + (rows - K[1, 2]) / K[1, 1] * y + z)


def _weak_depth(depth_m: FloatImage, K: Matrix, rng: np.random.Generator, stamp_ns: int
                ) -> Anchors:
    """Degrade the truth to what a small stereo camera in the same place would see of it."""
    seen = depth_m[::WEAK_STRIDE, ::WEAK_STRIDE].copy()
    seen += WEAK_NOISE_PER_M * seen ** 2 * rng.standard_normal(seen.shape).astype(np.float32)
    seen[(seen > WEAK_RANGE_M) | (rng.random(seen.shape) < WEAK_HOLES)] = np.nan
    small = K / np.array([[WEAK_STRIDE], [WEAK_STRIDE], [1.0]])
    return anchors_from_depth(seen, small, np.eye(4), K, depth_m.shape, stamp_ns)


def with_true_depth(frames: Iterable[DriveFrame]) -> list[DriveFrame]:
    """Put relative depth made of the truth, between its 2 % and 98 % quantiles, in its place."""
    better = []
    for frame in frames:
        low, high = np.nanquantile(frame.depth_m, (0.02, 0.98))
        unit = np.clip((frame.depth_m - low) / (high - low), 0, 1).astype(np.float32)
        better.append(replace(frame, relative=unit, confidence=None))
    return better


@dataclass(frozen=True)
class DriveScore:
    """
    One source along the drive, over the frames that became metric.

    Attributes
    ----------
    metric_frames : int
    scores : Scores
        Mean over the frames, metric: without any alignment.
    jitter, largest_step : float
        Mean and largest relative change of the depth of affine-invariant 0.5 between frames.
    floor_error : float
        Mean over the frames of |median height of the camera above its floor pixels / truth - 1|.
    recovery_s : float
        From the first reference after an outage until the scale is what it would be without.
    update_ms : float
        Median time of one update, the projection of the reference not included.
    """

    metric_frames: int
    scores: Scores
    jitter: float
    largest_step: float
    floor_error: float
    recovery_s: float
    update_ms: float


def run_source(frames: Sequence[DriveFrame], config: ScaleConfig, *, outage: bool = False
               ) -> tuple[list[MetricScale | None], float]:
    """Give a source's scale at every frame, and the median time of an update in ms."""
    source = ScaleTracker(config)
    scales, seconds = [], []
    for frame in frames:
        t_s = (frame.stamp_ns - frames[0].stamp_ns) * 1e-9
        dark = outage and OUTAGE_S[0] <= t_s < OUTAGE_S[1]
        started_s = time.perf_counter()
        if dark and config.source == 'ground_plane':  # no floor in view
            shown = np.full_like(frame.relative, 0.5)
        else:
            shown = frame.relative
        scales.append(source.update(ScaleFrame(
            'camera', frame.stamp_ns, shown, frame.confidence, frame.K,
            None if dark else frame.anchors.get(config.source))).metric)
        seconds.append(time.perf_counter() - started_s)
    return scales, 1e3 * float(np.median(seconds))


def score_source(frames: Sequence[DriveFrame], config: ScaleConfig) -> DriveScore:
    """Judge one source along the drive."""
    scales, update_ms = run_source(frames, config)
    scores, floors = [], []
    for frame, scale in zip(frames, scales):
        if scale is not None:
            depth_m = scale.to_metres(frame.relative)
            known = np.isfinite(frame.depth_m)
            scores.append(Scores('metric', 'above 0 m', error_metrics(
                np.maximum(depth_m[known], MIN_PREDICTION_M), frame.depth_m[known])))
            floor = np.abs(frame.depth_m * frame.fall - frame.height_m) < FLOOR_M
            floors.append(abs(np.median((depth_m * frame.fall)[floor]) / frame.height_m - 1))
    middles = np.array([np.nan if scale is None else scale.scale / 2 + scale.shift
                        for scale in scales])
    steps = np.abs(np.diff(np.log(middles)))
    return DriveScore(len(scores), mean_scores(scores), float(np.nanmean(steps)),
                      float(np.nanmax(steps)), float(np.mean(floors)),
                      _recovery_s(frames, config, middles), update_ms)


def _recovery_s(frames: Sequence[DriveFrame], config: ScaleConfig, middles: Matrix) -> float:
    after, _ = run_source(frames, config, outage=True)
    for frame, scale, usual in zip(frames, after, middles):
        t_s = (frame.stamp_ns - frames[0].stamp_ns) * 1e-9
        if t_s >= OUTAGE_S[1] and scale is not None and (
                abs((scale.scale / 2 + scale.shift) / usual - 1) < RECOVERED):
            return t_s - OUTAGE_S[1]
    return float('inf')


def drive_table(path: Path, predict: Callable[[NDArray[np.uint8]], Any]) -> str:
    """Score every source with the checkpoint's depth and with the truth's, as Markdown."""
    predicted = read_drive(path, predict)
    floor = ScaleConfig('ground_plane', camera_height_m=predicted[0].height_m)
    pitch, roll = (float(np.degrees(angle)) for angle in predicted[0].tilt)
    configs = {
        **{source: ScaleConfig(source) for source in ('depth', 'cloud', 'scan')},
        'ground_plane, tilt known': replace(floor, camera_pitch_deg=pitch, camera_roll_deg=roll),
        'ground_plane, tilt searched': floor}
    lines = ['| depth, source | metric frames | AbsRel | RMSE | delta1 | jitter | largest step | '
             'floor height error | recovery | update |',
             '|---|---|---|---|---|---|---|---|---|---|']
    for depth, frames in (('predicted', predicted), ('true', with_true_depth(predicted))):
        for name, config in configs.items():
            s = score_source(frames, config)
            lines.append(
                f'| {depth}, {name} | {s.metric_frames} of {len(frames)} | '
                f'{s.scores["abs_rel"]:.3f} | {s.scores["rmse"]:.2f} m | '
                f'{s.scores["delta1"]:.3f} | '
                f'{100 * s.jitter:.2f} % | {100 * s.largest_step:.2f} % | '
                f'{100 * s.floor_error:.1f} % | {s.recovery_s:.1f} s | {s.update_ms:.1f} ms |')
    return '\n'.join(lines)
