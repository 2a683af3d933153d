"""Read the references of a bag as the node's scale sources would: anchors and camera tilt."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bags.bag_frames import (
    BagTopics,
    find_calibration_topic,
    find_image_topic,
    LogWindow,
    message_times,
)
from marigold_ros.data.bags.messages import cloud_fields, image_fields, read_stamp_ns
from marigold_ros.data.bags.pair_decoder import CAMERA_INFO, read_camera
from marigold_ros.data.bags.pose_buffer import pose_topics, PoseBuffer, STATIC_TOPIC
from marigold_ros.data.frames import Part, WHOLE
from marigold_ros.depth.errors import BagError, ConfigError, InputError
from marigold_ros.geometry.camera import Rectification
from marigold_ros.geometry.poses import motion_between
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
    from marigold_ros.geometry.camera import Camera
    from marigold_ros.metric.config import ScaleConfig
    from marigold_ros.metric.types import TransformTilt

# References are read so far beyond the time of a frame, where one of several topics has ended.
READ_AHEAD_NS = 10 ** 9
MESSAGE_TYPES = {'cloud': 'sensor_msgs/msg/PointCloud2', 'scan': 'sensor_msgs/msg/LaserScan'}

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FrameReference:
    """
    The references for one frame, and the geometry of its camera.

    Attributes
    ----------
    stamp_ns : int
        Stamp of the image.
    K : float64 [3, 3]
        Intrinsics of the image, px.
    anchors : mapping of str to Anchors
        By source: from the reference nearest in time, where one is within `scale.hold_s`.
    problems : mapping of str to InputError
        By source: why the reference is rejected, or, for `ground_plane`, why TF does not tell the
        tilt.
    tilt : TransformTilt or None
        From TF, where a source needs it.
    base_from_camera : float64 [4, 4] or None
        Pose of the optical frame in the level base frame of the robot, from TF.
    """

    stamp_ns: int
    K: Matrix
    anchors: Mapping[str, Anchors] = field(default_factory=dict)
    problems: Mapping[str, InputError] = field(default_factory=dict)
    tilt: TransformTilt | None = None
    base_from_camera: Matrix | None = None


class TopicReferences:
    """
    The references of one source: those near in time to a frame, and their anchors.

    Parameters
    ----------
    bag : Bag
    source : str
        Of `metric.config.REFERENCE_SOURCES`.
    topic : str
        Name of the topic; None of these types or no such topic raises.
    camera_info : str or None
        camera_info topic of a reference depth; None uses the one in the same namespace.
    rectified : bool
        Whether a reference depth is rectified, whatever its topic's name.

    Raises
    ------
    BagError
        If the topic is missing or has not the message type of the source, or a reference depth
        has no valid calibration.
    """

    def __init__(self, bag: Bag, source: str, topic: str, *, camera_info: str | None,
                 rectified: bool) -> None:
        """Find the topic and its calibration."""
        self.source = source
        self.topic = (find_image_topic(bag, topic) if source == 'depth'
                      else bag.topic(topic, MESSAGE_TYPES[source]).name)
        self._camera: Camera | None = None
        if source == 'depth':
            rectified = rectified or bool(rectified_by_name(self.topic))
            info = camera_info or camera_info_beside(self.topic)
            self._camera = read_camera(bag, bag.topic(info, CAMERA_INFO).name,
                                       rectified=rectified)
            self._rectification = Rectification(rectified=rectified)
        self._stored: deque[tuple[int, Any]] = deque()
        self._freeze = FrozenContentCheck()
        self._newest_ns = -1
        self._repeated, self._any_near, self._skipped = 0, False, 0
        self._first_skipped = ''

    @property
    def newest_ns(self) -> int:
        """Return the time of the last message, ns; -1 before the first."""
        return self._newest_ns

    def notes(self, hold_s: float) -> list[str]:
        """Return one text for each kind of reference that is missing or left out."""
        notes = []
        if self._skipped:
            notes += [self._first_skipped, f'{self._skipped} messages on {self.topic} cannot be '
                      'used']
        if self._repeated:
            notes.append(f'{self._repeated} messages on {self.topic} with the time of an earlier '
                         'one are left out')
        if not self._any_near:
            notes.append(f'no message on {self.topic} is within {hold_s:g} s of a frame: do the '
                         'clocks of camera and reference agree?')
        return notes

    def skip(self, err: BagError) -> None:
        """Count a message that cannot be read."""
        self._first_skipped = self._first_skipped or (
            f'first unusable message on {self.topic}: {err}')
        self._skipped += 1

    def add(self, time_ns: int, message: Any, from_ns: int) -> None:
        """Store a message, unless it is older than `from_ns` or has the time of the last one."""
        if time_ns == self._newest_ns:  # a clock that stands still
            self._repeated += 1
        elif time_ns >= from_ns:
            self._stored.append((time_ns, message))
        self._newest_ns = time_ns

    def near(self, time_ns: int, hold_ns: int) -> list[tuple[int, Any]]:
        """Return time and message of the references near a frame, the nearest first."""
        self._stored = deque(each for each in self._stored if each[0] >= time_ns - hold_ns)
        near = sorted((each for each in self._stored if each[0] <= time_ns + hold_ns),
                      key=lambda each: abs(each[0] - time_ns))
        self._any_near |= bool(near)
        return near

    def anchors(self, reference: tuple[int, Any], pose: Matrix, frame: DepthFrame, K: Matrix
                ) -> Anchors:
        """Compute anchors from a reference as depth_node does."""
        stamp, message = reference
        content = message.ranges if self.source == 'scan' else message.data
        self._freeze.check(np.ascontiguousarray(content).tobytes(), stamp, frame.rgb)
        size = frame.rgb.shape[:2]
        if self._camera is not None:
            depth_m, depth_K = self._rectified_depth(message, self._camera)
            return anchors_from_depth(depth_m, depth_K, pose, K, size, stamp)
        points = (measured_points(cloud_fields(message)) if self.source == 'cloud'
                  else points_from_scan(message.ranges, message.angle_min,
                                        message.angle_increment, message.range_min,
                                        message.range_max))
        return anchors_from_points(points, pose, K, size, stamp)

    def _rectified_depth(self, message: Any, camera: Camera) -> tuple[FloatImage, Matrix]:
        """Return a reference depth and its intrinsics without lens distortion."""
        depth_m = unpack_depth(image_fields(message))
        check_image_size(camera, *depth_m.shape)
        camera, rectifier = self._rectification.find(camera)
        if rectifier is not None:
            depth_m = rectifier.rectify_depth(depth_m)
        return depth_m, camera.K


class BagReferences:
    """
    Read the references and transforms of a bag in step with its frames, in bounded memory.

    Each frame gets the reference of each source that is nearest in time and whose pose is known,
    earlier or later, as in the node when all messages arrive in time.

    Parameters
    ----------
    bag : Bag
        Must stay open.
    image : BagTopics
        Topics of the frames.
    config : ScaleConfig
    topics : mapping of str to str
        Topic of each source that reads one.
    camera_info : str or None
        See `TopicReferences`.
    part : Part
        Of the bag, whose frames follow.

    Raises
    ------
    BagError
        If a topic is missing or does not have the message type of its source, or the images or a
        reference depth have no valid calibration.
    ConfigError
        If a source needs a topic and none is given, or the other way round.
    """

    def __init__(self, bag: Bag, image: BagTopics, config: ScaleConfig,
                 topics: Mapping[str, str] | None = None, *,
                 camera_info: str | None = None, part: Part = WHOLE) -> None:
        """Find the topics and start reading."""
        self._bag, self._config = bag, config
        topics = topics or {}
        if set(topics) != set(config.reference_sources):
            raise ConfigError('`reference` must name a topic of the bag for each of '
                              f'{list(config.reference_sources)}; got {dict(topics)}')
        self._references = [
            TopicReferences(bag, source, topics[source], camera_info=camera_info,
                            rectified=bool(image.input_rectified))
            for source in config.reference_sources]
        self._camera_frame = self._first_frame_id(find_image_topic(bag, image.image))
        _check_calibration(bag, image)
        self._poses = PoseBuffer()
        self._times = message_times(bag, replace(image, references=tuple(topics.values())))
        self._by_topic = {each.topic: each for each in self._references}
        read = [*pose_topics(bag.topics), *self._by_topic]
        self._messages: Iterator[tuple[BagMessage, Any]] = iter(
            LogWindow.of_part(bag, part).decoded_messages(bag, read, self._skip) if read else ())
        self._read_until_ns = 0  # by poses, where there are no references
        self._notes: list[str] = []

    @property
    def notes(self) -> list[str]:
        """Return one text for each kind of reference that is missing or left out."""
        hold_s = self._config.filter.hold_s
        return self._notes + [note for each in self._references for note in each.notes(hold_s)]

    def lookup(self, frame: DepthFrame) -> FrameReference:
        """
        Find the references for a frame; frames must come in the order of time.

        Raises
        ------
        InputError
            If the frame has no stamp or no intrinsics.
        """
        if frame.stamp_ns is None or frame.K is None:
            raise InputError(f'{frame.name}: metric depth needs a stamp, and a camera_info for '
                             'images of this size')
        at_ns, hold_ns = frame.stamp_ns, int(1e9 * self._config.filter.hold_s)
        self._read_until(at_ns - hold_ns, at_ns + hold_ns)
        anchors: dict[str, Anchors] = {}
        problems: dict[str, InputError] = {}
        tilt, tilt_problem = lookup_tilt(self._config, self._poses.transforms.lookup_newest,
                                         self._camera_frame, at_ns)
        if tilt_problem:
            problems['ground_plane'] = InputError(tilt_problem)
        frames: dict[str, str] = {}
        for each in self._references:
            near = each.near(at_ns, hold_ns)
            if not near:
                continue
            frames[each.source] = near[0][1].header.frame_id
            try:
                nearest, pose = place_nearest(
                    near, partial(self._camera_from_reference, each.source, at_ns),
                    self._config.filter.hold_s)
                anchors[each.source] = each.anchors(nearest, pose, frame, frame.K)
            except InputError as err:
                problems[each.source] = err
        self._note_axes(frames)
        return FrameReference(at_ns, frame.K, anchors, problems, tilt, self._find_mount(at_ns))

    def _first_frame_id(self, topic: str) -> str:
        """Read the coordinate frame from the first message of a topic that can be read."""
        # Who reads the frames reports the others.
        for _, image in self._bag.decoded_messages([topic], on_error=lambda *_: None):
            return str(image.header.frame_id)
        raise BagError(f'{self._bag.path} has no message on {topic} that can be read')

    def _read_until(self, from_ns: int, until_ns: int) -> None:
        """
        Read until a reference of each source is later; keep the references from `from_ns` on.

        Poses may have another clock, and tell the time only where there are no references.
        """
        while not self._has_read(until_ns):
            try:
                following = next(self._messages, None)
            except BagError as err:
                self._notes.append(f'references end early: {err}')
                self._messages = iter(())
                return
            if following is None:
                return
            message, decoded = following
            reference = self._by_topic.get(message.topic)
            if reference is not None:
                reference.add(self._times.time_ns(message, decoded), decoded, from_ns)
                continue
            log_time_ns = self._times.log_time_ns(message)
            self._poses.add(message.topic, decoded, log_time_ns)
            if not self._references and message.topic != STATIC_TOPIC:
                self._read_until_ns = log_time_ns or max(
                    map(read_stamp_ns, getattr(decoded, 'transforms', [decoded])), default=0)

    def _has_read(self, until_ns: int) -> bool:
        """Check whether all references up to a time are read; one topic may end before others."""
        if not self._references:
            return self._read_until_ns > until_ns
        newest = [each.newest_ns for each in self._references]
        return min(newest) > until_ns or max(newest) > until_ns + READ_AHEAD_NS

    def _skip(self, err: BagError, topic: str) -> None:
        if topic in self._by_topic:  # poses are counted where the frames are read
            self._by_topic[topic].skip(err)

    def _find_mount(self, at_ns: int) -> Matrix | None:
        """Look up the pose of the optical frame in the base frame of the robot, [4, 4]."""
        try:
            return self._poses.transforms.lookup(self._config.base_frame, self._camera_frame,
                                                 at_ns)
        except InputError:
            return None

    def _note_axes(self, reference_frames: Mapping[str, str]) -> None:
        """Note once what is assumed about the axes of coordinate frames."""
        for text in describe_axes(self._config, self._camera_frame, reference_frames):
            if text not in self._notes:
                self._notes.append(text)

    def _camera_from_reference(self, source: str, image_ns: int, reference: tuple[int, Any]
                               ) -> Matrix:
        """Return the pose of a reference in the camera frame at the time of the image, [4, 4]."""
        stamp_ns, message = reference
        moved = motion_between(self._poses, self._camera_frame, stamp_ns, image_ns)
        frame_id = message.header.frame_id
        found = pose_without_tf(self._config, source, self._camera_frame, frame_id)
        try:
            if found is None:
                found = self._poses.transforms.lookup(self._camera_frame, frame_id, stamp_ns)
            return np.asarray(moved @ found, np.float64)
        except InputError as err:
            raise InputError(f'the bag has no transform from {frame_id} to {self._camera_frame} '
                             f'at {stamp_ns} ns: {err}; record it or set the extrinsics of '
                             f'{source}') from err


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
