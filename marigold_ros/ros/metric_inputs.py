"""What metres are measured from in the running node: references, their place, and the scale."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import threading
import time
from typing import TYPE_CHECKING

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.geometry.poses import Matrix
from marigold_ros.messages.header import peek_header
from marigold_ros.metric.anchors import Anchors, anchors_from_depth, anchors_from_points
from marigold_ros.metric.checks import check_clock, FrozenContentCheck
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.sources.ground_plane import tilt_from_down_vector
from marigold_ros.metric.sources.reference import pose_without_tf
from marigold_ros.metric.tracker import ScaleTracker
from marigold_ros.metric.types import ScaleFrame, ScaleReport
from marigold_ros.ros.calibration import Calibration, CalibrationCache
from marigold_ros.ros.conversions import (
    depth_from_message,
    points_from_cloud,
    points_from_scan_message,
)
from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.subscriptions import (
    follow_first_published,
    FollowingSubscription,
    InputTopics,
)
from marigold_ros.ros.transforms import Transforms

if TYPE_CHECKING:
    from marigold_ros.depth.types import DepthPrediction, RgbImage

# A few, so that the one nearest to an image is still there when its turn comes.
REMEMBERED = 8


class MetricInputs:
    """
    The scale of every camera: its tracker, reference subscriptions and TF.

    Parameters
    ----------
    node : Node
    config : ScaleConfig
    cameras : sequence of str
    rectified : bool
        Whether all reference depths are free of distortion; else their topics' names tell.
    max_input_pixels : int
        Larger reference images are refused before they are decoded.
    reporter : Reporter
    """

    def __init__(self, node: Node, config: ScaleConfig, cameras: Sequence[str], *,
                 rectified: bool, max_input_pixels: int, reporter: Reporter) -> None:
        """Listen to nothing yet."""
        self._node, self._config, self._reporter = node, config, reporter
        self._tracker = ScaleTracker(config)
        self._max_input_pixels = max_input_pixels
        self._references = {camera: CameraReference(
            rectified or _reference_topics(node, camera).looks_rectified) for camera in cameras}
        self._inputs: list[ReferenceInput] = []
        self._transforms: Transforms | None = None
        self._opened: tuple[str | None, bool] = (None, False)  # reference, TF

    # Called from the executor's thread

    def open(self, config: ScaleConfig) -> None:
        """Listen to what the source needs, and to nothing else; go on where that is so already."""
        needed = config.reference_source, config.needs_transforms
        if needed == self._opened:
            return
        self.close()
        self._opened = needed
        if config.needs_transforms:
            self._transforms = Transforms(self._node)
        if config.reference_source is not None:
            self._inputs = [
                ReferenceInput(self._node, camera, config.reference_source, reference,
                               self._reporter)
                for camera, reference in self._references.items()]

    def follow(self) -> None:
        """Look at the publishers again; to be called now and then while active."""
        for each in self._inputs:
            each.follow()

    def close(self) -> None:
        """Listen to nothing; does nothing the second time."""
        for each in self._inputs:
            each.close()
        self._inputs, self._opened = [], (None, False)
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None

    # Called in the worker's thread

    def configure(self, config: ScaleConfig, max_input_pixels: int) -> None:
        """Use another configuration; a tracker that it changes starts afresh."""
        self._max_input_pixels = max_input_pixels
        if config != self._config:
            self._config, self._tracker = config, ScaleTracker(config)
            self.reset()

    def reset(self) -> None:
        """Forget what earlier frames and references taught."""
        self._tracker.reset()
        for reference in self._references.values():
            reference.reset()

    def find_scale(self, frame: ReceivedFrame, rgb: RgbImage, calibration: Calibration,
                   prediction: DepthPrediction) -> ScaleReport:
        """
        Measure or look up the scale of one frame, and report what is wrong with it.

        Parameters
        ----------
        frame : ReceivedFrame
        rgb : uint8 [H, W, 3]
            The image that was processed, rectified.
        calibration : Calibration
            Of that image.
        prediction : DepthPrediction
            Of that image; NaN where it shows nothing.
        """
        if calibration.problem:  # which has been reported
            report = ScaleReport('none', None)
        else:
            anchors, problem = self._find_anchors(frame, rgb, calibration)
            report = self._tracker.update(ScaleFrame(
                frame.camera, frame.stamp_ns, prediction.affine_invariant_depth,
                prediction.confidence, calibration.camera.K, anchors, problem,
                find_tilt(frame, self._config, self._transforms)))
        self._reporter.scale(frame.camera, report)
        return report

    def _find_anchors(self, frame: ReceivedFrame, rgb: RgbImage,
                      calibration: Calibration) -> tuple[Anchors | None, str]:
        """Make anchors of the reference, if the source has one; or say what is wrong with it."""
        if self._config.reference_source is None:
            return None, ''
        try:
            return self._references[frame.camera].anchors(
                frame, rgb, calibration, self._config, self._transforms,
                self._max_input_pixels), ''
        except InputError as err:
            return None, str(err)


class CameraReference:
    """
    The reference of one camera: what arrives, and the anchors for an image or what is wrong.

    Parameters
    ----------
    rectified : bool
        Whether the reference depth is free of distortion already.
    """

    def __init__(self, rectified: bool) -> None:
        """Start without any reference."""
        self.store = ReferenceStore()
        self.calibrations = CalibrationCache(rectified)
        self._freeze = FrozenContentCheck()

    def reset(self) -> None:
        """Forget what came before; camera_infos stay."""
        self.store.clear()
        self._freeze = FrozenContentCheck()

    def anchors(self, frame: ReceivedFrame, rgb: RgbImage, calibration: Calibration,
                config: ScaleConfig, transforms: Transforms | None,
                max_input_pixels: int) -> Anchors | None:
        """
        Make anchors of the reference nearest in time to an image.

        Parameters
        ----------
        frame, rgb, calibration
            See `MetricInputs.find_scale`.
        config : ScaleConfig
        transforms : Transforms or None
        max_input_pixels : int

        Returns
        -------
        Anchors or None
            None while nothing has come, or nothing for a time that is near enough.

        Raises
        ------
        InputError
            If what comes must not be used; the text says what is wrong with it.
        """
        # 1. The reference of the image's time.
        reference, newest = self.store.nearest(frame.stamp_ns), self.store.newest()
        if reference is None or newest is None:
            return None
        hold_s = config.filter.hold_s
        if abs(frame.stamp_ns - reference.stamp_ns) * 1e-9 > hold_s:
            check_clock(frame.stamp_ns, newest.stamp_ns, frame.received_s - newest.received_s,
                        self.store.stamp_stands_s, hold_s)
            return None
        self._freeze.check(memoryview(reference.message)[reference.content:],
                           reference.stamp_ns, rgb)

        # 2. Where it was measured from.
        pose = _camera_from_reference(reference, frame, config, transforms)
        K, size = calibration.camera.K, rgb.shape[:2]

        # 3. Its depth image or its points, where the image shows them.
        if config.source == 'depth':
            depth_m = depth_from_message(reference.message, compressed=reference.compressed,
                                         max_pixels=max_input_pixels)
            own = self.calibrations.find(reference.stamp_ns, *depth_m.shape)
            if own.problem:
                raise InputError(f'reference depth: {own.problem}')
            if own.rectifier is not None:
                depth_m = own.rectifier.rectify_depth(depth_m)
            return anchors_from_depth(depth_m, own.camera.K, pose, K, size, reference.stamp_ns)
        points = (points_from_cloud(reference.message) if config.source == 'cloud'
                  else points_from_scan_message(reference.message))
        return anchors_from_points(points, pose, K, size, reference.stamp_ns)


@dataclass(frozen=True)
class Reference:
    """A message of a reference topic as it came, and when, on the steady clock."""

    message: bytes
    compressed: bool
    stamp_ns: int
    frame_id: str
    content: int  # where it begins behind the header, bytes
    received_s: float


class ReferenceStore:
    """The newest references of one camera; filled by one thread and read by another."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._kept: deque[Reference] = deque(maxlen=REMEMBERED)
        self._stamp_since_s = 0.0

    def put(self, message: bytes, compressed: bool = False) -> None:
        """
        Remember a serialized message; the oldest makes room.

        Raises
        ------
        MessageError
            If it has no header.
        """
        stamp_ns, frame_id, end = peek_header(message)
        now_s = time.monotonic()
        with self._lock:
            if not self._kept or self._kept[-1].stamp_ns != stamp_ns:
                self._stamp_since_s = now_s
            self._kept.append(
                Reference(message, compressed, stamp_ns, frame_id, end, now_s))

    def clear(self) -> None:
        """Forget all, as after a jump back in time."""
        with self._lock:
            self._kept.clear()

    def nearest(self, stamp_ns: int) -> Reference | None:
        """Give the reference nearest in time to an image; of equals the one that came last."""
        with self._lock:
            return min(reversed(self._kept), key=lambda each: abs(each.stamp_ns - stamp_ns),
                       default=None)

    def newest(self) -> Reference | None:
        """Give the reference that came last, whatever its stamp."""
        with self._lock:
            return self._kept[-1] if self._kept else None

    @property
    def stamp_stands_s(self) -> float:
        """For how long messages of one and the same stamp have been arriving, s."""
        with self._lock:
            return self._kept[-1].received_s - self._stamp_since_s if self._kept else 0.0


class ReferenceInput:
    """
    The subscriptions to the reference of one camera, from activate to deactivate.

    Topics are <camera>/scale/depth (or /compressedDepth below it, or /compressed) with a
    camera_info beside it, <camera>/scale/cloud and <camera>/scale/scan; remap them to the
    sensor's own.

    Parameters
    ----------
    node : Node
    camera : str
    source : str
        Of `metric.config.REFERENCES`.
    reference : CameraReference
        Gets what arrives.
    reporter : Reporter
    """

    def __init__(self, node: Node, camera: str, source: str, reference: CameraReference,
                 reporter: Reporter) -> None:
        """Subscribe to what is published now, or to what should be."""
        self._camera, self._reference, self._reporter = camera, reference, reporter
        self._info: FollowingSubscription | None = None
        if source == 'depth':
            topics = _reference_topics(node, camera)
            self._info = FollowingSubscription(
                node, camera, CameraInfo, topics.camera_info, self._receive_info, 5, reporter)
            candidates = [(Image, topics.image),
                          (CompressedImage, f'{topics.image}/compressedDepth'),
                          (CompressedImage, topics.compressed)]
        else:
            candidates = [(PointCloud2 if source == 'cloud' else LaserScan,
                           node.resolve_topic_name(f'{camera}/scale/{source}'))]
        self._references = [
            FollowingSubscription(
                node, camera, message_type, topic,
                partial(self._receive, compressed=message_type is CompressedImage), 1, reporter)
            for message_type, topic in candidates]
        self.follow()

    def follow(self) -> None:
        """Look at the publishers again; to be called now and then while active."""
        if self._info is not None:
            self._info.follow()
        follow_first_published(self._references)

    def close(self) -> None:
        """Unsubscribe from everything."""
        for each in self._references:
            each.close()
        if self._info is not None:
            self._info.close()

    def _receive(self, message: bytes, compressed: bool) -> None:
        try:
            self._reference.store.put(message, compressed)
        except MessageError as err:
            self._reporter.event(self._camera, 'bad_reference', str(err))

    def _receive_info(self, message: bytes) -> None:
        try:
            self._reference.calibrations.put(message)
        except MessageError as err:
            self._reporter.event(self._camera, 'bad_camera_info', str(err))


def _camera_from_reference(reference: Reference, frame: ReceivedFrame, config: ScaleConfig,
                           transforms: Transforms | None) -> Matrix:
    """Find the pose of the reference's frame in the image's, [4,4]."""
    known = pose_without_tf(config, frame.frame_id, reference.frame_id)
    if known is not None:
        return known
    try:
        if transforms is None:
            raise InputError('TF is not listened to')
        return transforms.lookup(frame.frame_id, reference.frame_id, reference.stamp_ns)
    except InputError as err:
        raise InputError(f'where is {reference.frame_id or "the reference"} seen from '
                         f'{frame.frame_id}? {err}; else set scale.extrinsics') from err


def find_tilt(frame: ReceivedFrame, config: ScaleConfig,
              transforms: Transforms | None) -> tuple[float, float] | None:
    """Ask TF for pitch and roll of the camera, rad; None where it is searched in the image."""
    if config.source != 'ground_plane' or transforms is None:
        return None
    try:
        base_from_camera = transforms.lookup(config.base_frame, frame.frame_id, frame.stamp_ns)
    except InputError:
        return None
    return tilt_from_down_vector(-base_from_camera[2, :3])


def _reference_topics(node: Node, camera: str) -> InputTopics:
    """Resolve the names of a camera's reference depth and of the camera_info beside it."""
    return InputTopics(node, camera, 'scale/depth', 'scale/camera_info')
