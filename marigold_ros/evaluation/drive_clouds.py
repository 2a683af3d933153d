"""The clouds that the node would publish along a recorded drive, for every scale source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bag_messages import image_fields, matched_by_stamp
from marigold_ros.data.bags import open_bag
from marigold_ros.depth.errors import BagError, InputError
from marigold_ros.depth.types import FloatImage, RgbImage
from marigold_ros.evaluation.known_scene import KnownScene, Matrix
from marigold_ros.geometry.anchors import (Anchors, anchors_from_depth, anchors_from_points,
                                           points_from_scan)
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.geometry.scale import MetricScale, ScaleFrame
from marigold_ros.geometry.scale_sources import make_scale_source, ScaleConfig
from marigold_ros.messages.cloud import CloudFields, CloudPacker, unpack_cloud
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine

CAMERA = 'camera'
TRUTH = 'truth'
SOURCES = (TRUTH, 'depth', 'cloud', 'scan', 'ground_plane', 'fixed')
BAG_TOPICS = ('/camera/image_raw/compressed', '/camera/depth_gt/image_rect/compressed',
              '/camera/camera_info', '/scan', '/lidar/points')
# What config/demo.yaml assumes.
ASSUMED_M = (0.5, 4.5)
# What the node does by default.
FILTER = DepthFilter(0.1, 20.0, min_surface_angle_deg=2.0)


@dataclass(frozen=True, eq=False)
class DriveFrame:
    """
    What the robot's sensors saw at one moment; the camera's images are free of distortion.

    Attributes
    ----------
    stamp_ns : int
    rgb : uint8 [H, W, 3]
    depth_m : float32 [H, W]
        True, along Z, m; NaN unknown.
    K : float64 [3, 3]
        px.
    scan : float32 [n, 3]
        In the scanner's frame, m; NaN without a measurement.
    lidar : float32 [h, w, 3]
        In the lidar's frame, m.
    """

    stamp_ns: int
    rgb: RgbImage
    depth_m: FloatImage
    K: Matrix
    scan: FloatImage
    lidar: FloatImage


def read_drive(path: Path) -> Iterator[DriveFrame]:
    """
    Read the frames of a bag with the sample drive's topics.

    Raises
    ------
    BagError
        If a topic is missing or the camera's images are distorted.
    """
    with open_bag(path) as bag:
        for topic in BAG_TOPICS:
            bag.topic(topic)
        for stamp_ns, (image, depth, info, scan, cloud) in matched_by_stamp(bag, BAG_TOPICS):
            if any(info.d):
                raise BagError(f'the images of {path} must be free of distortion; '
                               f'got {list(info.d)}')
            yield DriveFrame(
                stamp_ns, decode_rgb(image_fields(image)), unpack_depth(image_fields(depth)),
                np.reshape(info.k, (3, 3)),
                points_from_scan(scan.ranges, scan.angle_min, scan.angle_increment,
                                 scan.range_min, scan.range_max),
                unpack_cloud(_cloud_fields(cloud))[0])


def make_clouds(frames: Iterable[DriveFrame], sources: Collection[str], scene: KnownScene,
                engine: DepthEngine | None, *, num_inference_steps: int = 1, stride: int = 4
                ) -> Iterator[tuple[DriveFrame, dict[str, FloatImage | None]]]:
    """
    Make each frame's clouds as the node does, one for every scale source.

    Parameters
    ----------
    frames : iterable of DriveFrame
        In the order of time.
    sources : collection of str
        Of `SOURCES`.
    scene : KnownScene
        Where the sensors are mounted.
    engine : DepthEngine or None
        None if only `truth` is asked for.
    num_inference_steps : int
    stride : int
        Parameter point_stride.

    Yields
    ------
    frame : DriveFrame
    clouds : dict
        Source -> float32 [h, w, 3], m, optical frame; None while the source knows no metres.
    """
    scales = {source: make_scale_source(_config(source, scene)) for source in sources
              if source != TRUTH}
    packer = CloudPacker()
    for frame in frames:
        relative, confidence, metric = _true_prediction(frame.depth_m)
        metrics: dict[str, MetricScale | None] = {TRUTH: metric}
        predictions = {TRUTH: (relative, confidence)}
        if engine is not None:
            prediction = engine.infer(frame.rgb, num_inference_steps=num_inference_steps, seed=0)
            relative, confidence = prediction.affine_invariant_depth, prediction.confidence
        for source, scale in scales.items():
            anchors, problem = _reference(source, frame, scene)
            predictions[source] = relative, confidence
            metrics[source] = scale.update(ScaleFrame(
                CAMERA, frame.stamp_ns, relative, confidence, frame.K, anchors, problem)).metric
        yield frame, {source: _cloud(*predictions[source], metrics[source], frame, packer, stride)
                      for source in sources}


def _cloud(relative: FloatImage, confidence: FloatImage | None, metric: MetricScale | None,
           frame: DriveFrame, packer: CloudPacker, stride: int) -> FloatImage | None:
    """Make the message and read it as a consumer does."""
    if metric is None:
        return None
    depth_m = FILTER.apply(metric.to_metres(relative), frame.K, affine_invariant_depth=relative,
                           confidence=confidence)
    return unpack_cloud(packer.pack(depth_m, frame.K, frame.rgb, stride=stride))[0]


def _true_prediction(depth_m: FloatImage) -> tuple[FloatImage, FloatImage | None, MetricScale]:
    """Say of the true depth what a perfect model and a perfect scale would."""
    low, high = float(np.nanmin(depth_m)), float(np.nanmax(depth_m))
    return ((depth_m - np.float32(low)) / np.float32(high - low), None,
            MetricScale(high - low, low, 1.0, TRUTH, False))


def _config(source: str, scene: KnownScene) -> ScaleConfig:
    low_m, high_m = ASSUMED_M
    return ScaleConfig(source, low_m, high_m, camera_height_m=scene.camera_height_m,
                       camera_pitch_deg=float(np.degrees(scene.camera_pitch_rad)),
                       camera_roll_deg=0.0)


def _reference(source: str, frame: DriveFrame, scene: KnownScene) -> tuple[Anchors | None, str]:
    """Make the anchors of a source that has some, or say why there are none."""
    size = frame.depth_m.shape[0], frame.depth_m.shape[1]
    camera_from_base = np.linalg.inv(scene.base_from_camera)
    makers: dict[str, Callable[[], Anchors]] = {
        'depth': lambda: anchors_from_depth(frame.depth_m, frame.K, np.eye(4), frame.K, size,
                                            frame.stamp_ns),
        'cloud': lambda: anchors_from_points(frame.lidar, camera_from_base @ scene.base_from_lidar,
                                             frame.K, size, frame.stamp_ns),
        'scan': lambda: anchors_from_points(frame.scan, camera_from_base @ scene.base_from_scanner,
                                            frame.K, size, frame.stamp_ns)}
    if source not in makers:
        return None, ''
    try:
        return makers[source](), ''
    except InputError as err:
        return None, str(err)


def _cloud_fields(message: Any) -> CloudFields:
    data: NDArray[np.uint8] = np.asarray(message.data, np.uint8)
    return CloudFields(
        message.height, message.width,
        tuple((field.name, field.offset, field.datatype, field.count) for field in message.fields),
        bool(message.is_bigendian), message.point_step, message.row_step, data,
        bool(message.is_dense))
