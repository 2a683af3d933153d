"""A page to look at a recording of depth_node: its frames, clouds and obstacles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TYPE_CHECKING

import numpy as np

from marigold_ros.data.bags.messages import cloud_fields, image_fields, read_stamp_ns
from marigold_ros.data.bags.pose_buffer import PoseBuffer
from marigold_ros.data.bags.reader import Bag
from marigold_ros.data.bags.stamp_matching import match_by_stamp
from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.costmap import LayerConfig
from marigold_ros.evaluation.metrics.metric_depth import COMPARED_RANGE
from marigold_ros.evaluation.metrics.obstacle_map import ObstacleMap, ReferenceMap
from marigold_ros.evaluation.metrics.obstacles import ObstacleBoxes, ObstacleScorer
from marigold_ros.evaluation.metrics.protocol_a import relative_error
from marigold_ros.evaluation.metrics.protocols import abs_rel_label
from marigold_ros.evaluation.recording import (
    describe_recording,
    FrameError,
    FrameStatus,
    GROUND_TRUTH,
    read_relative_depth,
    RecordingSummary,
)
from marigold_ros.evaluation.report.html import write_page
from marigold_ros.evaluation.report.look import (
    describe_depth,
    RecordingLook,
    StripFrame,
)
from marigold_ros.messages.camera_info import camera_from_info
from marigold_ros.messages.cloud import measured_points, unpack_cloud
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb
from marigold_ros.metric.anchors import Anchors, anchors_from_points
from marigold_ros.progress import progress_bar

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

TEMPLATE = 'recording.html.j2'


def write_recording_page(path: Path, bag: Bag, summary: RecordingSummary,
                         obstacle_map: ObstacleMap | None = None) -> None:
    """
    Write a page that shows a recording of depth_node.

    Parameters
    ----------
    path : Path
    bag : Bag
    summary : RecordingSummary
        Of the same bag.
    obstacle_map : ObstacleMap or None
        From `map_obstacles`.
    """
    look = RecordingLook(obstacle_map=obstacle_map)
    processed = sorted(summary.processed, key=lambda each: each.stamp_ns)
    numbers = {frame.stamp_ns: number for number, frame in enumerate(processed)}
    errors = {each.stamp_ns: each for each in summary.errors}
    for stamp_ns, images in progress_bar(_read_images(bag, summary), 'page', len(processed),
                                         unit='frame'):
        number = numbers.get(stamp_ns)
        if number is not None and look.wants(number):
            look.add(_strip_frame(number, processed[number], images, summary.latency_cap_ms,
                                  errors.get(stamp_ns)))
    look.frames.items = dict(sorted(look.frames.items.items()))
    write_page(path, TEMPLATE, look, len(processed), camera=summary.camera, name=bag.path.name,
               rows=describe_recording(summary))


def map_obstacles(bag: Bag, camera: str, poses: PoseBuffer, config: LayerConfig, *,
                  scene: ObstacleBoxes | None = None, lidar: str | None = None
                  ) -> ObstacleMap | None:
    """
    Compare the costmap of the recorded clouds with the scene, or else with that of a lidar.

    Parameters
    ----------
    bag : Bag
    camera : str
    poses : PoseBuffer
        Of camera and lidar.
    config : LayerConfig
        Of the costmaps.
    scene : ObstacleBoxes or None
        In the frame of the poses; needs the true depth in the recording.
    lidar : str or None
        Topic of its clouds.

    Returns
    -------
    ObstacleMap or None
        None without clouds, poses, or what to compare them with.

    Raises
    ------
    InputError
        If the camera is outside the scene.
    """
    topics = {topic.name: topic.message_count for topic in bag.topics if topic.message_count}
    points, info = f'/{camera}/points', f'/{camera}/depth/camera_info'
    truth = f'/{camera}/{GROUND_TRUTH}'
    if not {points, info} <= topics.keys():
        return None
    if scene is not None and truth in topics:
        scorer = ObstacleScorer(scene, config)
        matched = match_by_stamp(bag, [points, info, truth])
        for stamp_ns, (cloud, calibration, depth) in progress_bar(matched, 'map', topics[points],
                                                                  unit='cloud'):
            pose = poses.world_from_frame(cloud.header.frame_id, stamp_ns)
            if pose is not None:
                xyz, _ = unpack_cloud(cloud_fields(cloud))
                target_m = unpack_depth(image_fields(depth))
                scorer.add(target_m, camera_from_info(calibration).K, pose, xyz,
                           -(-target_m.shape[1] // xyz.shape[1]))
        return scorer.map()
    if lidar in topics:
        return _map_beside_lidar(bag, (points, info, lidar), poses, config)
    return None


def _map_beside_lidar(bag: Bag, topics: tuple[str, str, str], poses: PoseBuffer,
                      config: LayerConfig) -> ObstacleMap | None:
    """Compare the costmaps of our clouds and of the newest cloud of the lidar."""
    points, info, lidar = topics
    # The node may publish depth without a cloud before it knows the calibration.
    calibrated = next(match_by_stamp(bag, [points, info]), None)
    if calibrated is None:
        return None
    camera = camera_from_info(calibrated[1][1])
    compared = ReferenceMap('lidar', config)
    newest: tuple[int, FloatImage] | None = None  # in the world
    count = sum(topic.message_count for topic in bag.topics if topic.name in (points, lidar))
    for message, decoded in progress_bar(bag.decoded_messages([points, lidar]), 'map', count,
                                         unit='cloud'):
        stamp_ns = read_stamp_ns(decoded)
        pose = poses.world_from_frame(decoded.header.frame_id, stamp_ns)
        if pose is None:
            continue
        if message.topic == lidar:
            xyz = measured_points(cloud_fields(decoded))
            newest = stamp_ns, np.asarray(xyz @ pose[:3, :3].T + pose[:3, 3], np.float32)
            continue
        camera_from_world = np.asarray(np.linalg.inv(pose), np.float64)
        anchors: Anchors | None = None
        if newest is not None:
            try:
                anchors = anchors_from_points(newest[1], camera_from_world, camera.K,
                                              (camera.height, camera.width), newest[0])
            except InputError:
                anchors = None  # nothing of it is in view
        xyz, _ = unpack_cloud(cloud_fields(decoded))
        compared.add(xyz, anchors, camera.K, pose)
    return compared.map()


def _read_images(bag: Bag, summary: RecordingSummary) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the messages of each frame by topic below the camera's name, complete ones first."""
    required = ['rgb/image_rect', 'depth_relative/image']
    optional = [topic for topic in ('depth/image_rect', 'points', GROUND_TRUTH)
                if summary.message_counts.get(f'/{summary.camera}/{topic}')]
    remaining = {frame.stamp_ns for frame in summary.processed}
    for names in ([*required, *optional], required) if optional else (required,):
        topics = [f'/{summary.camera}/{name}' for name in names]
        if not remaining or not all(summary.message_counts.get(topic) for topic in topics):
            return
        for stamp_ns, messages in match_by_stamp(bag, topics, stamps_ns=frozenset(remaining)):
            remaining.discard(stamp_ns)
            yield stamp_ns, dict(zip(names, messages))


def _strip_frame(number: int, status: FrameStatus, images: Mapping[str, Any],
                 cap_ms: float | None, accuracy: FrameError | None) -> StripFrame:
    depth_m = target_m = points = colors = None
    if 'depth/image_rect' in images:
        depth_m = unpack_depth(image_fields(images['depth/image_rect']))
    if 'points' in images:
        points, colors = unpack_cloud(cloud_fields(images['points']))
    if GROUND_TRUTH in images:
        target_m = unpack_depth(image_fields(images[GROUND_TRUTH]))
    error = (None if depth_m is None or target_m is None or depth_m.shape != target_m.shape
             else relative_error(depth_m, target_m))
    values, steps = status.values, status.num_inference_steps
    facts = {
        'depth': describe_depth(steps, float(values.get('carried_s', 'nan')),
                                float(values.get('covered_share', 'nan'))),
        'time': f'age {float(values.get("age_ms", "nan")):.0f} ms, '
                f'latency {status.latency_ms:.0f} ms, '
                + ('no cap' if cap_ms is None else f'cap {cap_ms:.0f} ms'),
        'scale': f'{values.get("scale_state", "unknown")}: {values.get("scale_sources", "")}'}
    if accuracy is not None:
        metric = np.isfinite(accuracy.metric_abs_rel)
        facts[abs_rel_label('metric' if metric else 'A', COMPARED_RANGE)] = (
            f'{accuracy.metric_abs_rel if metric else accuracy.abs_rel:.3f}')
    return StripFrame(number, status.stamp_ns, decode_rgb(image_fields(images['rgb/image_rect'])),
                      np.clip(read_relative_depth(images['depth_relative/image']), 0.0, 1.0),
                      depth_m, error, points, colors, steps,
                      {**facts, 'reason': values.get('step_reason', '')})
