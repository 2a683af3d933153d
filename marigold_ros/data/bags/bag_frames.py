"""Read pairs of image and depth map from a bag, one at a time and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bags.message_times import MessageTimes
from marigold_ros.data.bags.messages import COMPRESSED_IMAGE, find_transport, IMAGE
from marigold_ros.data.bags.pair_decoder import (
    CAMERA_INFO,
    NO_CALIBRATION,
    PairDecoder,
    read_camera,
)
from marigold_ros.data.bags.pose_buffer import MAX_GAP_NS, pose_topics, PoseBuffer, STATIC_TOPIC
from marigold_ros.data.bags.read_issues import ReadIssues
from marigold_ros.data.bags.reader import Bag, BagMessage, open_bag
from marigold_ros.data.bags.stamp_matching import StampMatcher
from marigold_ros.data.frames import check_frame, DepthFrame, Part, WHOLE
from marigold_ros.depth.config import require
from marigold_ros.depth.errors import BagError, InputError
from marigold_ros.geometry.camera import Camera
from marigold_ros.messages.camera_info import rectified_by_name
from marigold_ros.messages.image_transport import camera_info_beside

# Less than half a period at 30 Hz: depth further away in time belongs to another image.
TOLERANCE_MS = 15.0
# A pair waits for its pose until this many newer pairs have been read.
POSE_WINDOW_PAIRS = 8
# Depth, references and transforms may be logged so long before or after their image.
LOG_DELAY_NS = 2 * 10 ** 9

# Stamp of the image (ns), its log time (ns) and the image, depth, pose of the camera.
PosedPair = tuple[int, tuple[int, Any], Any, NDArray[np.float64] | None]


@dataclass(frozen=True)
class BagTopics:
    """
    Topics of a bag that hold images and their depth.

    Attributes
    ----------
    image : str
        sensor_msgs Image or CompressedImage, any colour encoding.  If the bag holds only
        '<image>/compressedDepth' or '<image>/compressed', that topic is read.
    depth : str
        As `image`, with encoding 16UC1 or mono16 (mm) or 32FC1 (m), registered to the image.
    camera_info : str or None
        None selects 'camera_info' in the namespace of the image, as image_transport does.
    tolerance_ms : float
        Largest difference between the times of an image and its depth.
    references : tuple of str
        Depth, clouds and scans of scale sources, whose times are compared with those of the
        frames.
    input_rectified : bool or None
        Whether the images are already rectified; None decides by the name of their topic.

    Raises
    ------
    ConfigError
        If the tolerance is not positive and finite.
    """

    image: str
    depth: str
    camera_info: str | None = None
    tolerance_ms: float = TOLERANCE_MS
    references: tuple[str, ...] = ()
    input_rectified: bool | None = None

    def __post_init__(self) -> None:
        """Check the tolerance."""
        require(0 < self.tolerance_ms < math.inf, 'tolerance_ms', 'positive and finite',
                self.tolerance_ms)

    @property
    def camera_info_topic(self) -> str:
        """Return the name of the camera_info topic."""
        if self.camera_info is not None:
            return self.camera_info
        return camera_info_beside(self.image)

    @property
    def image_is_rectified(self) -> bool:
        """Check whether P describes the images, and not K and D."""
        if self.input_rectified is not None:
            return self.input_rectified
        return bool(rectified_by_name(self.image))

    def depth_is_rectified(self, camera: Camera | None) -> bool:
        """
        Tell whether the depth is registered to the rectified image; else it is to the raw one.

        Raises
        ------
        BagError
            If the name of the topic contradicts that of the rectified images of `camera`.
        """
        by_name = rectified_by_name(self.depth)
        if by_name is None or self.input_rectified:
            return self.image_is_rectified
        if (self.image_is_rectified and not by_name and camera is not None
                and camera.needs_rectification):
            raise BagError(f'{self.depth} is raw but {self.image} is rectified, so their pixels '
                           'do not match; choose two raw or two rectified topics, or set '
                           '`input_rectified` if both are raw (false) or rectified (true)')
        return by_name


def count_frames(path: Path, topics: BagTopics) -> int:
    """
    Check that a bag holds the topics, and count its frames.

    Returns
    -------
    int
        Upper limit: the number of image or depth messages, whichever is smaller.

    Raises
    ------
    BagError
        If the bag cannot be read, is empty or lacks one of the topics.
    """
    with open_bag(path, recover=True) as bag:
        image, depth, _ = _find_topics(bag, topics)
        counts = [bag.topic(name).message_count for name in (image, depth)]
        for name, count in zip((image, depth), counts):
            if count == 0:
                raise BagError(f'{path} is empty: no message on {name}')
    return min(counts)


@dataclass(frozen=True)
class LogWindow:
    """
    Range of log times of a part of a bag, ns; None is the end of the bag.

    A frame belongs to the part in which its image was logged.

    Attributes
    ----------
    lead_in_ns : int or None
        From here on, frames lead in to the part.
    start_ns, stop_ns : int or None
        Of the frames of the part itself.
    """

    lead_in_ns: int | None = None
    start_ns: int | None = None
    stop_ns: int | None = None

    @classmethod
    def of_part(cls, bag: Bag, part: Part) -> LogWindow:
        """Return the range of a part of a bag; the outer ends of the bag are open."""
        part_ns = part.split(bag.end_ns - bag.start_ns)
        start_ns = None if part.index == 0 else bag.start_ns + part_ns.start
        stop_ns = None if part.index == part.count - 1 else bag.start_ns + part_ns.stop
        lead_in_ns = None if start_ns is None else start_ns - round(1e9 * part.lead_in_s)
        return cls(lead_in_ns, start_ns, stop_ns)

    def holds(self, logged_ns: int) -> bool:
        """Check whether a frame is of the part or leads in to it."""
        return ((self.lead_in_ns is None or logged_ns >= self.lead_in_ns)
                and (self.stop_ns is None or logged_ns < self.stop_ns))

    def leads_in(self, logged_ns: int) -> bool:
        """Check whether a frame is before the part."""
        return self.start_ns is not None and logged_ns < self.start_ns

    def decoded_messages(self, bag: Bag, topics: Collection[str],
                         on_error: Callable[[BagError, str], None]
                         ) -> Iterator[tuple[BagMessage, Any]]:
        """Read what the frames may need, and before it static transforms from the start on."""
        from_ns = None if self.lead_in_ns is None else self.lead_in_ns - LOG_DELAY_NS
        until_ns = None if self.stop_ns is None else self.stop_ns + LOG_DELAY_NS
        if from_ns is not None and STATIC_TOPIC in topics:
            yield from bag.decoded_messages([STATIC_TOPIC], stop_ns=from_ns, on_error=on_error)
        yield from bag.decoded_messages(topics, start_ns=from_ns, stop_ns=until_ns,
                                        on_error=on_error)


def count_parts(path: Path, part_s: float) -> int:
    """
    Return the number of equal parts of a bag that last at most `part_s` seconds.

    There are no more than a camera of 1 Hz would fill: a bag whose clock jumps, as when NTP sets
    it, seems to last for years.
    """
    with open_bag(path, recover=True) as bag:
        images = max((topic.message_count for topic in bag.topics
                      if topic.msgtype in (IMAGE, COMPRESSED_IMAGE)), default=0)
        return max(1, math.ceil(min(bag.duration_s, images) / part_s))


def read_bag_frames(path: Path, topics: BagTopics, notes: list[str] | None = None,
                    part: Part = WHOLE) -> Iterator[DepthFrame]:
    """
    Read the frames of a bag; raw images of a distorted camera are rectified.

    Parameters
    ----------
    path : Path
        Any bag that `open_bag` reads.
    topics : BagTopics
    notes : list of str or None
        Cleared, then filled with one text per kind of skipped or lost data.  None makes every
        unreadable message an error.
    part : Part
        Of the log times.  It may hold no frame; then nothing is yielded.

    Yields
    ------
    DepthFrame
        In order of time.  A block is one second, counted from the first frame.  `stamp_ns` is
        the log time if the stamps of a topic carry no time.  `K` and `world_from_camera` are None
        where the bag holds no calibration or pose.

    Raises
    ------
    BagError
        If the bag cannot be read, is empty, lacks one of the topics, no image has depth within
        the tolerance, or neither stamps nor log times carry a time.
    InputError
        If `check_frame` rejects a frame; with `notes`, if it rejects each of the first ten.
    """
    issues = ReadIssues(notes)
    with open_bag(path, recover=notes is not None) as bag:
        image_topic, depth_topic, info_topic = _find_topics(bag, topics)
        issues.note(bag.notes)
        camera = _read_calibration(bag, info_topic, topics, issues)
        decoder = PairDecoder(camera, image_is_rectified=topics.image_is_rectified,
                              depth_is_rectified=topics.depth_is_rectified(camera), issues=issues)
        matcher = StampMatcher(round(1e6 * topics.tolerance_ms))
        times = message_times(bag, topics)
        issues.note(times.notes)
        window, names = LogWindow.of_part(bag, part), (image_topic, depth_topic)
        first_ns = None if part.index == 0 else _first_pair_ns(bag, names, times, topics)
        for stamp, (logged_ns, image), depth, pose in _posed_pairs(bag, names, times, matcher,
                                                                   issues, window):
            first_ns = stamp if first_ns is None else first_ns
            if not window.holds(logged_ns):
                continue
            name = f'{path}, {topics.image} at {stamp} ns'
            issues.check_registration(image.header.frame_id, depth.header.frame_id)
            frame = _decode_frame(decoder, issues, name, (image, depth, stamp, first_ns, pose))
            if frame is not None:
                issues.frames += 1
                yield replace(frame, is_lead_in=window.leads_in(logged_ns))
    # What a truncated bag lacks is missing at its end.
    issues.finish(matcher, bag.data_loss if window.stop_ns is None else None)
    if issues.frames == 0 and part.count == 1:
        raise BagError(_describe_lack(path, topics, times, matcher))


def _decode_frame(decoder: PairDecoder, issues: ReadIssues, name: str,
                  pair: tuple[Any, Any, int, int, NDArray[np.float64] | None]
                  ) -> DepthFrame | None:
    """Decode and check a frame from what `PairDecoder.decode` takes; None if it is skipped."""
    try:
        frame = decoder.decode(name, *pair)
        if not frame.valid.any():
            issues.count('frames have no depth at all')
            return None
        check_frame(frame, same_size=False)
    except InputError as err:
        issues.skip(err if str(err).startswith(name) else InputError(f'{name}: {err}'))
        return None
    return frame


def _posed_pairs(bag: Bag, names: tuple[str, str], times: MessageTimes, matcher: StampMatcher,
                 issues: ReadIssues, window: LogWindow) -> Iterator[PosedPair]:
    """Match images with depth; a pair waits until a later transform gives its pose."""
    poses = PoseBuffer(MAX_GAP_NS)
    pose_names = pose_topics(bag.topics)
    waiting: deque[tuple[int, tuple[int, Any], Any]] = deque()

    def ready(*, ended: bool) -> Iterator[PosedPair]:
        while waiting:
            stamp, image, depth = waiting[0]
            pose = poses.world_from_frame(image[1].header.frame_id, stamp)
            if pose is None and pose_names and len(waiting) <= POSE_WINDOW_PAIRS and not ended:
                return
            waiting.popleft()
            yield stamp, image, depth, pose

    def skip(err: BagError, topic: str) -> None:
        if topic in pose_names:
            issues.skip_dispensable(err, topic)
        else:
            issues.skip(err)

    try:
        for message, decoded in window.decoded_messages(bag, [*names, *pose_names], skip):
            if message.topic in pose_names:
                poses.add(message.topic, decoded, times.log_time_ns(message))
            else:
                side = names.index(message.topic)
                item = decoded if side else (message.log_time_ns, decoded)
                waiting.extend(matcher.add(side, times.time_ns(message, decoded), item))
            yield from ready(ended=False)
    except BagError as err:
        issues.stop_at_damage(err)
    waiting.extend(matcher.flush())
    yield from ready(ended=True)
    issues.note(poses.notes)


def _first_pair_ns(bag: Bag, names: tuple[str, str], times: MessageTimes,
                   topics: BagTopics) -> int | None:
    """Return the stamp of the first image of a bag with depth, from which blocks are counted."""
    pairs = _posed_pairs(bag, names, times, StampMatcher(round(1e6 * topics.tolerance_ms)),
                         ReadIssues([]), LogWindow())
    return next((stamp for stamp, *_ in pairs), None)


def message_times(bag: Bag, topics: BagTopics) -> MessageTimes:
    """Return the times of frames and references, which are all stamps or all log times."""
    return MessageTimes(bag, [find_transport(bag.topics, name)
                              for name in (topics.image, topics.depth, *topics.references)])


def find_image_topic(bag: Bag, name: str) -> str:
    """
    Return the name of an image topic, or of its compressed version if only that was recorded.

    Raises
    ------
    BagError
        If the bag holds neither.
    """
    return bag.topic(find_transport(bag.topics, name), IMAGE, COMPRESSED_IMAGE).name


def find_calibration_topic(bag: Bag, topics: BagTopics) -> str | None:
    """
    Return the name of the camera_info topic; None if none is named and none can be read.

    Raises
    ------
    BagError
        If the bag does not hold the named topic, or it cannot be read.
    """
    names = {topic.name for topic in bag.topics
             if topic.msgtype == CAMERA_INFO and topic.unreadable is None}
    if topics.camera_info is None and topics.camera_info_topic not in names:
        return None
    return bag.topic(topics.camera_info_topic, CAMERA_INFO).name


def _find_topics(bag: Bag, topics: BagTopics) -> tuple[str, str, str | None]:
    """Return the topics of image, depth and camera_info; the last is optional unless named."""
    if not bag.topics:
        raise BagError(f'{bag.path} is empty: no topics')
    found: list[Any] = []
    problems = []
    for find in (partial(find_image_topic, bag, topics.image),
                 partial(find_image_topic, bag, topics.depth),
                 partial(find_calibration_topic, bag, topics)):
        try:
            found.append(find())
        except BagError as err:
            problems.append(str(err))
    if problems:
        raise BagError('; '.join(problems))
    image, depth, calibration = found
    return image, depth, calibration


def _read_calibration(bag: Bag, topic: str | None, topics: BagTopics,
                      issues: ReadIssues) -> Camera | None:
    """Read the calibration of the images; without a valid one return None, and note why."""
    if topic is None:
        return None
    try:
        return read_camera(bag, topic, rectified=topics.image_is_rectified)
    except BagError as err:
        issues.note([NO_CALIBRATION.format(err)])
        return None


def _describe_lack(path: Path, topics: BagTopics, times: MessageTimes,
                   matcher: StampMatcher) -> str:
    """Say why there is no frame; if no time fits, with the offsets between image and depth."""
    if matcher.pairs:
        return (f'{path}: none of the {matcher.pairs} matched depth maps of {topics.depth} holds '
                'a measurement')
    text = (f'{path}: no image on {topics.image} has depth on {topics.depth} within '
            f'{topics.tolerance_ms:g} ms' + ''.join(f' ({note})' for note in times.notes))
    offsets_ms = matcher.offsets_ns() / 1e6
    if offsets_ms.size == 0:
        return text
    nearest = offsets_ms[np.argmin(np.abs(offsets_ms))]
    return (f'{text}: offset of the nearest depth over {offsets_ms.size} images: closest '
            f'{nearest:+.3f} ms, median {np.median(offsets_ms):+.3f} ms, range '
            f'{offsets_ms.min():+.3f} to {offsets_ms.max():+.3f} ms; if it shows the same moment, '
            'set `tolerance_ms` above that')
