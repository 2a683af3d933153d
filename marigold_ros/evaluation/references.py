"""Read the references of a bag as the node's scale source would: anchors and camera tilt."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bags.bag_frames import (
    BagTopics,
    find_calibration_topic,
    find_image_topic,
    message_times,
)
from marigold_ros.data.bags.messages import cloud_fields, image_fields, read_stamp_ns
from marigold_ros.data.bags.pair_decoder import CAMERA_INFO, read_camera
from marigold_ros.data.bags.pose_buffer import pose_topics, PoseBuffer, STATIC_TOPIC
from marigold_ros.depth.errors import BagError, ConfigError, InputError
from marigold_ros.geometry.camera import Camera, Rectification
from marigold_ros.messages.camera_info import check_image_size, rectified_by_name
from marigold_ros.messages.cloud import measured_points
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image_transport import camera_info_beside
from marigold_ros.messages.laser_scan import points_from_scan
from marigold_ros.metric.anchors import Anchors, anchors_from_depth, anchors_from_points
from marigold_ros.metric.checks import FrozenContentCheck
from marigold_ros.metric.sources.ground_plane import lookup_tilt
from marigold_ros.metric.sources.reference import describe_axes, place_nearest, pose_without_tf

if TYPE_CHECKING:
    from marigold_ros.data.bags.reader import Bag, BagMessage
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.types import FloatImage
    from marigold_ros.metric.config import ScaleConfig
    from marigold_ros.metric.types import TransformTilt

MESSAGE_TYPES = {'cloud': 'sensor_msgs/msg/PointCloud2', 'scan': 'sensor_msgs/msg/LaserScan'}

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FrameReference:
    """
    The reference for one frame, and the geometry of its camera.

    Attributes
    ----------
    stamp_ns : int
        Stamp of the image.
    K : float64 [3, 3]
        Intrinsics of the image, px.
    anchors : Anchors or None
        From the reference nearest in time; None if none is within `scale.hold_s`.
    problem : str
        Why the reference is rejected, or why TF does not tell the tilt; empty if nothing is wrong.
    tilt : TransformTilt or None
        From TF, where the scale source needs it.
    base_from_camera : float64 [4, 4] or None
        Pose of the optical frame in the level base frame of the robot, from TF.
    """

    stamp_ns: int
    K: Matrix
    anchors: Anchors | None
    problem: str
    tilt: TransformTilt | None
    base_from_camera: Matrix | None


class BagReferences:
    """
    Read the references and transforms of a bag in step with its frames, in bounded memory.

    Each frame gets the reference nearest in time whose pose is known, earlier or later, as in the
    node when all messages arrive in time.

    Parameters
    ----------
    bag : Bag
        Must stay open.
    image : BagTopics
        Topics of the frames and of the reference.
    config : ScaleConfig
    camera_info : str or None
        camera_info topic of a reference depth; None uses the one in the same namespace.

    Raises
    ------
    BagError
        If a topic is missing or does not have the message type of the scale source, or the images
        or a reference depth have no valid calibration.
    ConfigError
        If the scale source needs a topic and none is given.
    """

    def __init__(self, bag: Bag, image: BagTopics, config: ScaleConfig, *,
                 camera_info: str | None = None) -> None:
        """Find the topics and start reading."""
        self._bag, self._config = bag, config
        self._topic = None if image.reference is None else self._find_topic(image.reference)
        if self._topic is None and config.reference_source is not None:
            raise ConfigError(f'`reference` must name a topic of the bag for `scale_source` '
                              f'{config.source}; got None')
        self._camera_frame = self._first_frame_id(find_image_topic(bag, image.image))
        _check_calibration(bag, image)
        self._camera: Camera | None = None
        if config.source == 'depth' and self._topic is not None:
            rectified = bool(image.input_rectified or rectified_by_name(self._topic))
            info = camera_info or camera_info_beside(self._topic)
            self._camera = read_camera(bag, bag.topic(info, CAMERA_INFO).name,
                                       rectified=rectified)
            self._rectification = Rectification(rectified=rectified)
        self._poses = PoseBuffer()
        self._times = message_times(bag, image)
        topics = [*pose_topics(bag.topics), *([] if self._topic is None else [self._topic])]
        self._messages: Iterator[tuple[BagMessage, Any]] = iter(
            bag.decoded_messages(topics, on_error=self._skip) if topics else ())
        self._read_until_ns = 0
        self._near: deque[tuple[int, Any]] = deque()
        self._newest_ns = -1
        self._repeated, self._any_near = 0, False
        self._skipped = 0
        self._freeze = FrozenContentCheck()
        self._notes: list[str] = []

    @property
    def notes(self) -> list[str]:
        """Return one text for each kind of reference that is missing or left out."""
        notes = list(self._notes)
        if self._skipped:
            notes.append(f'{self._skipped} messages on {self._topic} cannot be used')
        if self._repeated:
            notes.append(f'{self._repeated} messages on {self._topic} with the time of an earlier '
                         'one are left out')
        if self._topic is not None and not self._any_near:
            notes.append(f'no message on {self._topic} is within {self._config.filter.hold_s:g} s '
                         'of a frame: do the clocks of camera and reference agree?')
        return notes

    def lookup(self, frame: DepthFrame) -> FrameReference:
        """
        Find the reference for a frame; frames must come in the order of time.

        Raises
        ------
        InputError
            If the frame has no stamp or no intrinsics.
        """
        if frame.stamp_ns is None or frame.K is None:
            raise InputError(f'{frame.name}: metric depth needs a stamp, and a camera_info for '
                             'images of this size')
        at_ns, hold_ns = frame.stamp_ns, int(1e9 * self._config.filter.hold_s)
        self._near = deque(each for each in self._near if each[0] >= at_ns - hold_ns)
        self._read_until(at_ns - hold_ns, at_ns + hold_ns)
        tilt, problem = lookup_tilt(self._config, self._poses.transforms.lookup_newest,
                                    self._camera_frame, at_ns)
        near = sorted((each for each in self._near if each[0] <= at_ns + hold_ns),
                      key=lambda each: abs(each[0] - at_ns))
        self._note_axes(near[0][1].header.frame_id if near else None)
        anchors = None
        if near:
            self._any_near = True
            try:
                nearest, pose = place_nearest(near, self._camera_from_reference,
                                              self._config.filter.hold_s)
                anchors = self._anchors(nearest, pose, frame, frame.K)
            except InputError as err:
                problem = str(err)
        return FrameReference(at_ns, frame.K, anchors, problem, tilt, self._find_mount(at_ns))

    def _find_topic(self, name: str) -> str:
        """Find the topic of the references; it must have the type of the scale source."""
        if self._config.reference_source is None:
            raise ConfigError(f'`reference` must not be set for `scale_source` '
                              f'{self._config.source}, which reads no topic; got {name!r}')
        if self._config.source == 'depth':
            return find_image_topic(self._bag, name)
        return self._bag.topic(name, MESSAGE_TYPES[self._config.source]).name

    def _first_frame_id(self, topic: str) -> str:
        """Read the coordinate frame from the first message of a topic that can be read."""
        # Who reads the frames reports the others.
        for _, image in self._bag.decoded_messages([topic], on_error=lambda *_: None):
            return str(image.header.frame_id)
        raise BagError(f'{self._bag.path} has no message on {topic} that can be read')

    def _read_until(self, from_ns: int, until_ns: int) -> None:
        """
        Read until a reference is later; keep the references from `from_ns` on.

        Poses may have another clock, and tell the time only where there are no references.
        """
        while self._read_until_ns <= until_ns:
            try:
                following = next(self._messages, None)
            except BagError as err:
                self._notes.append(f'references end early: {err}')
                self._messages = iter(())
                return
            if following is None:
                return
            message, decoded = following
            if message.topic == self._topic:
                time_ns = self._times.time_ns(message, decoded)
                if time_ns == self._newest_ns:  # a clock that stands still
                    self._repeated += 1
                elif time_ns >= from_ns:
                    self._near.append((time_ns, decoded))
                self._newest_ns = self._read_until_ns = time_ns
                continue
            log_time_ns = self._times.log_time_ns(message)
            self._poses.add(message.topic, decoded, log_time_ns)
            if self._topic is None and message.topic != STATIC_TOPIC:
                self._read_until_ns = log_time_ns or max(
                    map(read_stamp_ns, getattr(decoded, 'transforms', [decoded])), default=0)

    def _skip(self, err: BagError, topic: str) -> None:
        if topic != self._topic:
            return  # poses are counted where the frames are read
        if not self._skipped:
            self._notes.append(f'first unusable message on {topic}: {err}')
        self._skipped += 1

    def _find_mount(self, at_ns: int) -> Matrix | None:
        """Look up the pose of the optical frame in the base frame of the robot, [4, 4]."""
        try:
            return self._poses.transforms.lookup(self._config.base_frame, self._camera_frame,
                                                 at_ns)
        except InputError:
            return None

    def _anchors(self, reference: tuple[int, Any], pose: Matrix, frame: DepthFrame, K: Matrix
                 ) -> Anchors:
        """Compute anchors from a reference as depth_node does."""
        stamp, message = reference
        content = message.ranges if self._config.source == 'scan' else message.data
        self._freeze.check(np.ascontiguousarray(content).tobytes(), stamp, frame.rgb)
        size = frame.rgb.shape[:2]
        if self._camera is not None:
            depth_m, depth_K = self._rectified_depth(message, self._camera)
            return anchors_from_depth(depth_m, depth_K, pose, K, size, stamp)
        points = (measured_points(cloud_fields(message)) if self._config.source == 'cloud'
                  else points_from_scan(message.ranges, message.angle_min,
                                        message.angle_increment, message.range_min,
                                        message.range_max))
        return anchors_from_points(points, pose, K, size, stamp)

    def _note_axes(self, reference_frame: str | None) -> None:
        """Note once what is assumed about the axes of a coordinate frame."""
        text = describe_axes(self._config, self._camera_frame, reference_frame)
        if text and text not in self._notes:
            self._notes.append(text)

    def _camera_from_reference(self, reference: tuple[int, Any]) -> Matrix:
        """Return the pose of a reference in the camera frame, [4, 4]."""
        stamp, frame_id = reference[0], reference[1].header.frame_id
        found = pose_without_tf(self._config, self._camera_frame, frame_id)
        if found is not None:
            return found
        try:
            return self._poses.transforms.lookup(self._camera_frame, frame_id, stamp)
        except InputError as err:
            raise InputError(f'the bag has no transform from {frame_id} to {self._camera_frame} '
                             f'at {stamp} ns: {err}; record it or set `extrinsics`') from err

    def _rectified_depth(self, message: Any, camera: Camera) -> tuple[FloatImage, Matrix]:
        """Return a reference depth and its intrinsics without lens distortion."""
        depth_m = unpack_depth(image_fields(message))
        check_image_size(camera, *depth_m.shape)
        camera, rectifier = self._rectification.find(camera)
        if rectifier is not None:
            depth_m = rectifier.rectify_depth(depth_m)
        return depth_m, camera.K


def _check_calibration(bag: Bag, image: BagTopics) -> None:
    """Check that the images have a calibration, which metric depth needs."""
    topic = find_calibration_topic(bag, image)
    if topic is None:
        raise BagError(f'metric depth needs the calibration of {image.image}; {bag.path} has no '
                       f'{image.camera_info_topic}')
    try:
        read_camera(bag, topic, rectified=image.image_is_rectified)
    except BagError as err:
        raise BagError(f'metric depth needs the calibration of {image.image}; {err}') from err
