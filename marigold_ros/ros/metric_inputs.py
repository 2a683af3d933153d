"""The scale in the running node: subscriptions to references, TF, poses, and the tracker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
import threading
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.geometry.poses import ContinuousPoses, Matrix, motion_between
from marigold_ros.messages.header import peek_header
from marigold_ros.metric.anchors import Anchors, anchors_from_depth, anchors_from_points
from marigold_ros.metric.checks import check_clock, FrozenContentCheck
from marigold_ros.metric.config import REFERENCE_SOURCES, ScaleConfig
from marigold_ros.metric.sources.ground_plane import lookup_tilt
from marigold_ros.metric.sources.reference import describe_axes, place_nearest, pose_without_tf
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
    InputTopics,
    match_first_published,
    QosMatchingSubscription,
)
from marigold_ros.ros.transforms import OdometryPoses, Transforms

if TYPE_CHECKING:
    from marigold_ros.depth.adaptive import AdaptivePrediction
    from marigold_ros.depth.types import RgbImage

# The newest references, so that the one nearest in time to an image is still there when the image
# is processed, and as many that are spread over the time before, for those whose transforms are
# late.
NEWEST_SIZE, BUFFER_SIZE = 8, 16
NO_TF = 'the node does not subscribe to TF'


class MetricInputs:
    """
    The scale tracker, the reference subscriptions of every camera, and TF.

    Parameters
    ----------
    node : Node
    config : ScaleConfig
    cameras : sequence of str
    rectified : bool
        Whether the depth images of all references are rectified; if False, the names of their
        topics decide.
    max_input_pixels : int
        Larger depth images are rejected before they are decoded.
    reporter : Reporter
    """

    def __init__(self, node: Node, config: ScaleConfig, cameras: Sequence[str], *,
                 rectified: bool, max_input_pixels: int, reporter: Reporter) -> None:
        """Create the tracker; `open` subscribes."""
        self._node, self._config, self._reporter = node, config, reporter
        self._tracker = ScaleTracker(config)
        self._max_input_pixels = max_input_pixels
        self._references = {camera: {source: References(
            source, rectified or _reference_topics(node, camera).looks_rectified,
            config.filter.hold_s) for source in REFERENCE_SOURCES} for camera in cameras}
        self._timed: dict[str, bool] = {}  # whether the camera's last frame had a time
        self._inputs: list[ReferenceInput] = []
        self._transforms: Transforms | None = None
        self._odometry, self._odom_frame = OdometryPoses(), ''
        self._poses = ContinuousPoses(self._odometry)
        self._subscribed: tuple[tuple[str, ...], bool] = ((), False)  # sources, TF

    # Called from the executor's thread

    def open(self, config: ScaleConfig, odom_frame: str) -> None:
        """
        Subscribe to exactly what is needed; nothing happens if that has not changed.

        Parameters
        ----------
        config : ScaleConfig
        odom_frame : str
            Fixed frame in which TF tells where the cameras are; empty: their poses are not used.
        """
        # Only measured metres can be moved by metres.
        needs_poses = bool(odom_frame) and config.is_measured
        needed = config.reference_sources, config.needs_transforms or needs_poses
        if needed != self._subscribed:
            self._subscribe(*needed)
        self._odom_frame = odom_frame
        self._odometry.use(self._transforms if needs_poses else None, odom_frame)

    def _subscribe(self, sources: tuple[str, ...], needs_transforms: bool) -> None:
        self.close()
        self._subscribed = sources, needs_transforms
        if needs_transforms:
            self._transforms = Transforms(self._node, self._report_ignored_transform)
        self._inputs = [
            ReferenceInput(self._node, camera, references[source], self._reporter)
            for camera, references in self._references.items() for source in sources]

    def match_publishers(self) -> None:
        """Match topics and QoS to the publishers; must be called periodically while active."""
        for each in self._inputs:
            each.match_publishers()

    def close(self) -> None:
        """Unsubscribe from everything; further calls do nothing."""
        for each in self._inputs:
            each.close()
        self._inputs, self._subscribed = [], ((), False)
        self._odometry.use(None, self._odom_frame)
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None

    def _report_ignored_transform(self, frames: str, detail: str) -> None:
        for camera in self._references:
            self._reporter.report_once(camera, 'ignored_transforms', frames, detail)

    # Called in the worker's thread

    def configure(self, config: ScaleConfig, max_input_pixels: int) -> None:
        """Use another configuration; if it differs, reset the scale."""
        self._max_input_pixels = max_input_pixels
        if config != self._config:
            self._config, self._tracker = config, ScaleTracker(config)
            for reference in self._all_references():
                reference.buffer.span_s = config.filter.hold_s
            self.reset_scale()

    def reset(self) -> None:
        """Discard everything with a stamp: the scale, the references and moving transforms."""
        self.reset_scale()
        transforms = self._transforms
        if transforms is not None:
            transforms.clear_moving()

    def reset_scale(self) -> None:
        """Discard the scale of every camera and the stored references."""
        self._tracker.reset()
        for reference in self._all_references():
            reference.reset()

    def _all_references(self) -> Iterator[References]:
        for references in self._references.values():
            yield from references.values()

    def find_pose(self, frame_id: str, stamp_ns: int) -> tuple[Matrix | None, str]:
        """
        Find where a camera is; never waits for a transform.

        Parameters
        ----------
        frame_id : str
            Its optical frame.
        stamp_ns : int
            0 if its stamp carries no time.

        Returns
        -------
        pose : float64 [4, 4] or None
            In a fixed coordinate frame.
        origin : str
            `odom_frame`, or why the pose is unknown.
        """
        pose = self._poses.world_from_frame(frame_id, stamp_ns)
        return pose, self._odometry.problem or self._odom_frame

    def update_scale(self, frame: ReceivedFrame, rgb: RgbImage, calibration: Calibration,
                     prediction: AdaptivePrediction, pose: Matrix | None, pose_problem: str
                     ) -> ScaleReport:
        """
        Update the scale with one frame, and report it.

        Parameters
        ----------
        frame : ReceivedFrame
            With stamp 0 if its stamp carries no time.  Then, or if a reference has stamp 0,
            times of receipt are used for all, as log times are in a bag.
        rgb : uint8 [H, W, 3]
            The processed image, rectified.
        calibration : Calibration
            Calibration of that image.
        prediction : AdaptivePrediction
            Prediction of that image; NaN unknown.
        pose, pose_problem
            Where the camera is, or why that is unknown, from `find_pose`.

        Returns
        -------
        ScaleReport
        """
        config = self._config
        if calibration.problem:  # already reported
            report = ScaleReport('none', None)
        elif not config.is_measured:
            report = self._tracker.update(ScaleFrame(
                frame.camera, frame.stamp_ns, prediction.affine_invariant_depth, None,
                calibration.camera.K))
        else:
            frame = self._with_common_time(frame)
            time_ns = _time_ns(frame, bool(frame.stamp_ns))
            anchors, problems = self._compute_anchors(frame, rgb, calibration)
            tilt, tilt_problem = lookup_tilt(config, self._lookup_newest, frame.frame_id,
                                             frame.stamp_ns)
            if tilt_problem:
                problems['ground_plane'] = InputError(tilt_problem)
            if tilt is not None and not frame.stamp_ns:
                tilt = replace(tilt, stamp_ns=time_ns)  # it is the newest
            self._report_axes(frame)
            grey = (np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
                    if 'motion' in config.sources else None)
            report = self._tracker.update(ScaleFrame(
                frame.camera, time_ns, prediction.known_depth, prediction.confidence,
                calibration.camera.K, anchors, problems, tilt, prediction.gauge_change, grey,
                prediction.flow, pose, pose_problem))
        self._reporter.report_scale(frame.camera, report)
        return report

    def _with_common_time(self, frame: ReceivedFrame) -> ReceivedFrame:
        """Set the stamp to 0 if a reference has no time; reset the scale at a change."""
        for source in self._config.reference_sources:
            newest = self._references[frame.camera][source].buffer.newest()
            if newest is not None and not newest.stamp_ns and frame.stamp_ns:
                self._reporter.report_once(
                    frame.camera, 'unstamped_reference', '',
                    'reference stamps are 0; times of receipt are used instead, for images as '
                    'well')
                frame = replace(frame, stamp_ns=0)
        timed = bool(frame.stamp_ns)
        if self._timed.setdefault(frame.camera, timed) != timed:
            self._timed[frame.camera] = timed
            self._tracker.discard(frame.camera)
        return frame

    def _compute_anchors(self, frame: ReceivedFrame, rgb: RgbImage, calibration: Calibration
                         ) -> tuple[dict[str, Anchors], dict[str, InputError]]:
        """Compute the anchors of each reference, or say why it is invalid, by source."""
        anchors: dict[str, Anchors] = {}
        problems: dict[str, InputError] = {}
        for source in self._config.reference_sources:
            try:
                found = self._references[frame.camera][source].compute_anchors(
                    frame, rgb, calibration, self._config,
                    partial(self._camera_from_reference, source, frame), self._max_input_pixels)
                if found is not None:
                    anchors[source] = found
            except InputError as err:
                problems[source] = err
        return anchors, problems

    def _camera_from_reference(self, source: str, frame: ReceivedFrame, reference: Reference
                               ) -> Matrix:
        """
        Return the pose of a reference in the camera's optical frame when the image was taken.

        Where the image has no time, the transform is the newest, and the robot does not move.
        """
        pose = pose_without_tf(self._config, source, frame.frame_id, reference.frame_id)
        timed = bool(frame.stamp_ns)
        try:
            if pose is None:
                transforms = self._transforms
                if transforms is None:
                    raise InputError(NO_TF)
                pose = transforms.lookup(frame.frame_id, reference.frame_id,
                                         reference.stamp_ns if timed else 0)
        except InputError as err:
            raise InputError(
                f'the pose of the reference (frame {reference.frame_id!r}) in the camera (frame '
                f'{frame.frame_id!r}) is unknown: {err}; publish the transform or set '
                f'scale.{source}.extrinsics') from err
        if not timed:
            return pose
        moved = motion_between(self._odometry, frame.frame_id, reference.stamp_ns, frame.stamp_ns)
        return np.asarray(moved @ pose, np.float64)

    def _lookup_newest(self, target: str, source: str, stamp_ns: int) -> tuple[Matrix, int]:
        """Look up a pose in TF, see `TransformBuffer.lookup_newest`."""
        transforms = self._transforms  # the executor's thread may close it
        if transforms is None:
            raise InputError(NO_TF)
        return transforms.lookup_newest(target, source, stamp_ns)

    def _report_axes(self, frame: ReceivedFrame) -> None:
        """Say once what is assumed about the axes of coordinate frames."""
        newest = {source: self._references[frame.camera][source].buffer.newest()
                  for source in self._config.reference_sources}
        for text in describe_axes(self._config, frame.frame_id, {
                source: each.frame_id for source, each in newest.items() if each is not None}):
            self._reporter.report_once(frame.camera, 'assumed_axes', text, text, warn=False)


class References:
    """
    The references of one source of a camera, and the anchors that they yield for an image.

    Parameters
    ----------
    source : str
        Of `metric.config.REFERENCE_SOURCES`.
    rectified : bool
        Whether depth images are already rectified.
    hold_s : float
        Largest time between an image and its reference, s.
    """

    def __init__(self, source: str, rectified: bool, hold_s: float) -> None:
        """Start without references."""
        self.source = source
        self.buffer = ReferenceBuffer(hold_s)
        self.calibrations = CalibrationCache(rectified)
        self._frozen_content = FrozenContentCheck()

    def reset(self) -> None:
        """Discard the references; the camera_infos stay."""
        self.buffer.clear()
        self._frozen_content = FrozenContentCheck()

    def compute_anchors(self, frame: ReceivedFrame, rgb: RgbImage, calibration: Calibration,
                        config: ScaleConfig, locate: Callable[[Reference], Matrix],
                        max_input_pixels: int) -> Anchors | None:
        """
        Compute anchors from the reference nearest in time to an image whose pose is known.

        Parameters
        ----------
        frame, rgb, calibration
            See `MetricInputs.update_scale`.
        config : ScaleConfig
        locate : callable
            Returns the pose of a reference in the camera's optical frame, or raises an InputError.
        max_input_pixels : int

        Returns
        -------
        Anchors or None
            None if no reference is close enough in time.

        Raises
        ------
        InputError
            If the reference is invalid.
        """
        # 1. Find the references near in time; if there are none, check the clocks.
        hold_s, timed, newest = config.filter.hold_s, bool(frame.stamp_ns), self.buffer.newest()
        near = self.buffer.near(frame, hold_s)
        if newest is None:
            return None
        if not near:
            if timed:
                check_clock(frame.stamp_ns, newest.stamp_ns, frame.received_s - newest.received_s,
                            self.buffer.unchanged_stamp_s, hold_s)
            return None

        # 2. Find the nearest one whose pose is known, and check its content.
        reference, pose = place_nearest(near, locate, hold_s)
        time_ns = _time_ns(reference, timed)
        self._frozen_content.check(memoryview(reference.message)[reference.content_offset:],
                                   time_ns, rgb)
        K, size = calibration.camera.K, rgb.shape[:2]

        # 3. Decode the depth image or the points, and project them into the image.
        if self.source == 'depth':
            depth_m = depth_from_message(reference.message, compressed=reference.compressed,
                                         max_pixels=max_input_pixels)
            found = self.calibrations.find(reference.stamp_ns, *depth_m.shape)
            if found.problem:
                raise InputError(f'the reference depth has no valid calibration: {found.problem}')
            if found.rectifier is not None:
                depth_m = found.rectifier.rectify_depth(depth_m)
            return anchors_from_depth(depth_m, found.camera.K, pose, K, size, time_ns)
        points = (points_from_cloud(reference.message) if self.source == 'cloud'
                  else points_from_scan_message(reference.message))
        return anchors_from_points(points, pose, K, size, time_ns)


@dataclass(frozen=True)
class Reference:
    """A serialized message of a reference topic."""

    message: bytes
    compressed: bool  # whether it is a CompressedImage
    stamp_ns: int
    frame_id: str
    content_offset: int  # index of the first byte after the header
    received_s: float  # time.monotonic() at receipt


class ReferenceBuffer:
    """
    Buffer of one camera's newest references; one thread puts and another reads.

    Parameters
    ----------
    span_s : float
        Time over which the references are spread that are not among the newest, s.
    """

    def __init__(self, span_s: float) -> None:
        """Start empty."""
        self.span_s = span_s
        self._lock = threading.Lock()
        self._references: list[Reference] = []
        self._stamp_since_s = 0.0

    def put(self, message: bytes, compressed: bool = False) -> None:
        """
        Store a serialized message, and discard another if the buffer is full.

        Raises
        ------
        MessageError
            If it has no valid header.
        """
        stamp_ns, frame_id, end = peek_header(message)
        now_s = time.monotonic()
        with self._lock:
            if not self._references or self._references[-1].stamp_ns != stamp_ns:
                self._stamp_since_s = now_s
            self._references.append(
                Reference(message, compressed, stamp_ns, frame_id, end, now_s))
            if len(self._references) > BUFFER_SIZE:
                del self._references[self._index_to_discard()]

    def _index_to_discard(self) -> int:
        """Return the oldest reference if it is too old, else the one with the nearest others."""
        timed = bool(self._references[-1].stamp_ns)
        times = [_time_ns(each, timed) for each in self._references]
        if times[-1] - times[0] > 1e9 * self.span_s:
            return 0
        return min(range(1, BUFFER_SIZE - NEWEST_SIZE + 1),
                   key=lambda index: times[index + 1] - times[index - 1])

    def clear(self) -> None:
        """Discard all references."""
        with self._lock:
            self._references.clear()

    def near(self, frame: ReceivedFrame, hold_s: float) -> list[Reference]:
        """Return the references near in time to an image, the nearest and newest first."""
        timed = bool(frame.stamp_ns)

        def apart_s(each: Reference) -> float:
            return abs(_time_ns(each, timed) - _time_ns(frame, timed)) * 1e-9

        with self._lock:
            near = [each for each in reversed(self._references) if apart_s(each) <= hold_s]
        return sorted(near, key=apart_s)

    def newest(self) -> Reference | None:
        """Return the reference that was received last."""
        with self._lock:
            return self._references[-1] if self._references else None

    @property
    def unchanged_stamp_s(self) -> float:
        """Return how long messages with the same stamp have been arriving, s."""
        with self._lock:
            return (self._references[-1].received_s - self._stamp_since_s if self._references
                    else 0.0)


class ReferenceInput:
    """
    Subscriptions to the reference of one camera, from activate to deactivate.

    The topics are <camera>/scale/depth (or its /compressedDepth or /compressed transport) with
    <camera>/scale/camera_info, <camera>/scale/cloud and <camera>/scale/scan; the user remaps them
    to the topics of the sensor.

    Parameters
    ----------
    node : Node
    camera : str
    reference : References
        Stores the messages.
    reporter : Reporter
    """

    def __init__(self, node: Node, camera: str, reference: References, reporter: Reporter
                 ) -> None:
        """Subscribe to the topic that has a publisher, or to the first if none has."""
        source = reference.source
        self._camera, self._reference, self._reporter = camera, reference, reporter
        self._info: QosMatchingSubscription | None = None
        if source == 'depth':
            topics = _reference_topics(node, camera)
            self._info = QosMatchingSubscription(
                node, camera, CameraInfo, topics.camera_info, self._receive_info, 5, reporter)
            candidates = [(Image, topics.image),
                          (CompressedImage, f'{topics.image}/compressedDepth'),
                          (CompressedImage, topics.compressed)]
        else:
            candidates = [(PointCloud2 if source == 'cloud' else LaserScan,
                           node.resolve_topic_name(f'{camera}/scale/{source}'))]
        self._references = [
            QosMatchingSubscription(
                node, camera, message_type, topic,
                partial(self._receive, compressed=message_type is CompressedImage), 1, reporter)
            for message_type, topic in candidates]
        self.match_publishers()

    def match_publishers(self) -> None:
        """Match topics and QoS to the publishers; must be called periodically while active."""
        if self._info is not None:
            self._info.match_publishers()
        match_first_published(self._references)

    def close(self) -> None:
        """Unsubscribe from everything."""
        for each in self._references:
            each.close()
        if self._info is not None:
            self._info.close()

    def _receive(self, message: bytes, compressed: bool) -> None:
        try:
            self._reference.buffer.put(message, compressed)
        except MessageError as err:
            self._reporter.report_event(self._camera, 'bad_reference', str(err))

    def _receive_info(self, message: bytes) -> None:
        try:
            self._reference.calibrations.put(message)
        except MessageError as err:
            self._reporter.report_event(self._camera, 'bad_camera_info', str(err))


def _time_ns(message: Reference | ReceivedFrame, timed: bool) -> int:
    """Return the stamp of a message, or the time of its receipt if stamps carry no time, ns."""
    return message.stamp_ns if timed else round(1e9 * message.received_s)


def _reference_topics(node: Node, camera: str) -> InputTopics:
    """Resolve the topics of a camera's reference depth and its camera_info."""
    return InputTopics(node, camera, 'scale/depth', 'scale/camera_info')
