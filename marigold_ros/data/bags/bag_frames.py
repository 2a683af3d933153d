"""Read the images of a bag with their depth, one by one and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bags.messages import COMPRESSED_IMAGE, IMAGE, stamp_ns
from marigold_ros.data.bags.pair_decoder import base_topic, CAMERA_INFO, PairDecoder, read_camera
from marigold_ros.data.bags.pose_buffer import pose_topics, PoseBuffer
from marigold_ros.data.bags.read_issues import ReadIssues
from marigold_ros.data.bags.reader import Bag, open_bag
from marigold_ros.data.bags.stamp_matching import StampMatcher
from marigold_ros.data.frames import check_frame, DepthFrame
from marigold_ros.depth.errors import BagError, InputError

# Less than half a period at 30 Hz: depth that is farther away belongs to another image.
TOLERANCE_NS = 15_000_000
# A pair waits for its pose until so many younger pairs have come.
POSE_WINDOW = 8
COMPRESSIONS = ('', '/compressed', '/compressedDepth')

# Stamp of the image, ns, image, depth, and the camera's pose.
PosedPair = tuple[int, Any, Any, NDArray[np.float64] | None]


@dataclass(frozen=True)
class BagTopics:
    """
    Which topics of a bag hold images and their depth.

    Attributes
    ----------
    image : str
        sensor_msgs Image or CompressedImage, of any colour encoding; where only a compressed
        topic below this name was recorded, that one.
    depth : str
        The same with 16UC1 (mm) or 32FC1 (m), registered to the image.
    camera_info : str or None
        None is the image's sibling, as image_transport names it.
    tolerance_ns : int
        Most that the stamps of an image and its depth may differ by.
    """

    image: str
    depth: str
    camera_info: str | None = None
    tolerance_ns: int = TOLERANCE_NS

    @property
    def calibration(self) -> str:
        """Name of the topic of the image's calibration."""
        if self.camera_info is not None:
            return self.camera_info
        return base_topic(self.image).rpartition('/')[0] + '/camera_info'


def frame_count(path: Path, topics: BagTopics) -> int:
    """
    Check that a bag has what is asked for.

    Returns
    -------
    int
        Frames at most: the messages of image or depth, whichever are fewer.

    Raises
    ------
    BagError
        If it cannot be read, is empty, or has not the topics.
    """
    with open_bag(path, recover=True) as bag:
        image, depth, _ = _find_topics(bag, topics)
        counts = [bag.topic(name).message_count for name in (image, depth)]
        for name, count in zip((image, depth), counts):
            if count == 0:
                raise BagError(f'{path} is empty: it holds no message of {name}')
    return min(counts)


def read_bag_frames(path: Path, topics: BagTopics,
                    notes: list[str] | None = None) -> Iterator[DepthFrame]:
    """
    Read the frames of a bag, in the rectified image wherever the calibration asks for it.

    Parameters
    ----------
    path : Path
        Whatever `open_bag` reads.
    topics : BagTopics
    notes : list of str or None
        Is emptied, and filled with what was left out or lost, in words.  Without it, everything
        that cannot be read is an error.

    Yields
    ------
    DepthFrame
        In the order of time; a block is a second after the first frame.  `K` and
        `world_from_camera` are there where the bag tells them.

    Raises
    ------
    BagError
        If the bag cannot be read, is empty, has not the topics, or no image has a depth within
        the tolerance.
    InputError
        If a frame breaks a rule of `check_frame`; with `notes`, if none of the first ten keeps
        them.
    """
    problems = ReadIssues(notes)
    with open_bag(path, recover=notes is not None) as bag:
        image_topic, depth_topic, info_topic = _find_topics(bag, topics)
        decoder = PairDecoder(read_camera(bag, info_topic), image_topic, depth_topic)
        matcher = StampMatcher(topics.tolerance_ns)
        first_ns = None
        for stamp, image, depth, pose in _posed_pairs(bag, (image_topic, depth_topic), matcher,
                                                      problems):
            first_ns = stamp if first_ns is None else first_ns
            name = f'{path}, {topics.image} at {stamp} ns'
            problems.check_registration(image.header.frame_id, depth.header.frame_id)
            try:
                frame = decoder.decode(name, image, depth, stamp, first_ns, pose)
                if not frame.valid.any():
                    problems.count('frames have no depth at all')
                    continue
                check_frame(frame, one_size=False)
            except InputError as err:
                problems.leave_out(
                    err if str(err).startswith(name) else InputError(f'{name}: {err}'))
                continue
            problems.frames += 1
            yield frame
    problems.report(matcher.unmatched, bag.loss)
    if matcher.pairs == 0:
        raise BagError(_describe_mismatch(path, topics, matcher))
    if problems.frames == 0:
        raise BagError(f'{path}: none of the {matcher.pairs} depth maps of {topics.depth} that '
                       'belong to an image holds a measurement')


def _posed_pairs(bag: Bag, names: tuple[str, str], matcher: StampMatcher,
                 problems: ReadIssues) -> Iterator[PosedPair]:
    """Match image with depth; a pair waits a little for the transform after it."""
    poses = PoseBuffer()
    names_of_poses = pose_topics(bag.topics)
    waiting: deque[tuple[int, Any, Any]] = deque()

    def ready(*, ended: bool) -> Iterator[PosedPair]:
        while waiting:
            stamp, image, depth = waiting[0]
            pose = poses.world_from(image.header.frame_id, stamp)
            if pose is None and names_of_poses and len(waiting) <= POSE_WINDOW and not ended:
                return
            waiting.popleft()
            yield stamp, image, depth, pose

    try:
        for message in bag.messages([*names, *names_of_poses]):
            try:
                decoded = bag.decode(message)
            except BagError as err:
                problems.leave_out(err)
                continue
            if message.topic in names_of_poses:
                poses.add(message.topic, decoded)
            else:
                waiting.extend(matcher.add(names.index(message.topic), stamp_ns(decoded),
                                           decoded))
            yield from ready(ended=False)
    except BagError as err:
        problems.lose_rest(err)
    waiting.extend(matcher.finish())
    yield from ready(ended=True)


def find_image_topic(bag: Bag, name: str) -> str:
    """
    Find an image topic; where only a compressed one below the name was recorded, that one.

    Raises
    ------
    BagError
        If there is none.
    """
    names = {topic.name for topic in bag.topics}
    return bag.topic(next((name + suffix for suffix in COMPRESSIONS if name + suffix in names),
                          name), IMAGE, COMPRESSED_IMAGE).name


def _find_topics(bag: Bag, topics: BagTopics) -> tuple[str, str, str | None]:
    """Find the topics of image, depth and calibration; the last may be missing if not named."""
    names = {topic.name for topic in bag.topics}
    if not names:
        raise BagError(f'{bag.path} is empty: it has no topics')
    image, depth = (find_image_topic(bag, name) for name in (topics.image, topics.depth))
    info = topics.calibration
    if topics.camera_info is None and info not in names:
        return image, depth, None
    return image, depth, bag.topic(info, CAMERA_INFO).name


def _describe_mismatch(path: Path, topics: BagTopics, matcher: StampMatcher) -> str:
    """Say how far image and depth are apart."""
    text = (f'{path} has no image of {topics.image} with a depth of {topics.depth} within '
            f'{topics.tolerance_ns / 1e6:g} ms')
    offsets_ms = matcher.offsets_ns() / 1e6
    if offsets_ms.size == 0:
        return text
    nearest = offsets_ms[np.argmin(np.abs(offsets_ms))]
    return (f'{text}: the nearest depth is {nearest:+.3f} ms off, the median over '
            f'{offsets_ms.size} images {np.median(offsets_ms):+.3f} ms, from '
            f'{offsets_ms.min():+.3f} to {offsets_ms.max():+.3f} ms')
