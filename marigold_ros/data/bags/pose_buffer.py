"""Where the camera of a bag was: poses from /tf, /tf_static and /odom, as they come in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from marigold_ros.data.bags.messages import stamp_ns
from marigold_ros.data.bags.reader import BagTopic

# Between two transforms that are farther apart, nobody knows where the camera went.
MAX_GAP_NS = 10 ** 9
# Transforms older than this before the newest are forgotten: no frame waits that long.
KEPT_NS = 60 * 10 ** 9
ODOMETRY, TRANSFORMS = 'nav_msgs/msg/Odometry', 'tf2_msgs/msg/TFMessage'
STATIC_TOPIC = '/tf_static'
TOPICS = {'/odom': ODOMETRY, '/tf': TRANSFORMS, STATIC_TOPIC: TRANSFORMS}

Matrix = NDArray[np.float64]


class PoseBuffer:
    """
    A tree of coordinate frames, parts of which move.

    The newest minute is kept, so that memory stays bounded.
    """

    def __init__(self) -> None:
        self._static: dict[str, tuple[str, Matrix]] = {}
        self._moving: dict[str, tuple[str, list[tuple[int, Any]]]] = {}

    def add(self, topic: str, message: Any) -> None:
        """
        Take a message of one of `TOPICS`.

        Parameters
        ----------
        topic : str
        message : object
            Decoded nav_msgs/Odometry or tf2_msgs/TFMessage.
        """
        if message.__msgtype__ == ODOMETRY:
            pose = message.pose.pose
            self._add_pose(message.child_frame_id, message.header.frame_id, stamp_ns(message),
                           (pose.position, pose.orientation))
            return
        for transform in message.transforms:
            child, parent = transform.child_frame_id, transform.header.frame_id
            placement = (transform.transform.translation, transform.transform.rotation)
            if topic == STATIC_TOPIC:
                self._static[_without_slash(child)] = (_without_slash(parent),
                                                       _pose_matrix(*placement))
            else:
                self._add_pose(child, parent, stamp_ns(transform), placement)

    def world_from(self, frame_id: str, at_ns: int) -> Matrix | None:
        """
        Find the pose of a coordinate frame in the root of its tree.

        Parameters
        ----------
        frame_id : str
        at_ns : int
            Time, ns; between two transforms the pose is interpolated.

        Returns
        -------
        float64 [4, 4] or None
            None if nothing on the way to the root moves, or a part of the way is unknown then.
        """
        chain = self._chain_to_root(frame_id)
        if not any(frame in self._moving for frame in chain):
            return None
        return self._compose(chain, at_ns)

    def lookup_transform(self, target: str, source: str, at_ns: int) -> Matrix | None:
        """
        Find the pose of one coordinate frame in another, as tf2's `lookup_transform`.

        Parameters
        ----------
        target, source : str
            Names of the frames.
        at_ns : int
            See `world_from`.

        Returns
        -------
        float64 [4, 4] or None
            Takes points of the source frame to the target frame; None if nothing joins them then.
        """
        up, other = self._chain_to_root(source), self._chain_to_root(target)
        common = next((frame for frame in up if frame in other), None)
        if common is None:
            return None
        from_source, from_target = (self._compose(chain[:chain.index(common) + 1], at_ns)
                                    for chain in (up, other))
        if from_source is None or from_target is None:
            return None
        return np.asarray(np.linalg.inv(from_target) @ from_source, np.float64)

    def _chain_to_root(self, frame_id: str) -> list[str]:
        """Name a frame and all above it; none where they turn in a circle."""
        chain = [_without_slash(frame_id)]
        while (link := self._moving.get(chain[-1]) or self._static.get(chain[-1])) is not None:
            if link[0] in chain:
                return []
            chain.append(link[0])
        return chain

    def _compose(self, chain: list[str], at_ns: int) -> Matrix | None:
        """Find the pose of the first frame of a chain in the last; None where a link is lost."""
        pose: Matrix = np.eye(4)
        for frame_id in chain[:-1]:
            link = (_interpolate(self._moving[frame_id][1], at_ns)
                    if frame_id in self._moving else self._static[frame_id][1])
            if link is None:
                return None
            pose = link @ pose
        return pose

    def _add_pose(self, child: str, parent: str, at_ns: int, placement: tuple[Any, Any]) -> None:
        parent, child = _without_slash(parent), _without_slash(child)
        known, track = self._moving.setdefault(child, (parent, []))
        if known != parent:
            return
        place = bisect_left(track, at_ns, key=itemgetter(0))
        if place == len(track) or track[place][0] != at_ns:
            track.insert(place, (at_ns, placement))
        del track[:bisect_left(track, track[-1][0] - KEPT_NS, key=itemgetter(0))]


def pose_topics(topics: Iterable[BagTopic]) -> list[str]:
    """Pick the topics of a bag that tell poses."""
    return [topic.name for topic in topics if TOPICS.get(topic.name) == topic.msgtype]


def _without_slash(frame_id: str) -> str:
    """Drop the slash with which tf's first version began names."""
    return frame_id.removeprefix('/')


def _interpolate(track: list[tuple[int, Any]], at_ns: int) -> Matrix | None:
    """Interpolate translation linearly and rotation on the shortest arc."""
    place = bisect_left(track, at_ns, key=itemgetter(0))
    if place < len(track) and track[place][0] == at_ns:
        return _pose_matrix(*track[place][1])
    if place in (0, len(track)) or track[place][0] - track[place - 1][0] > MAX_GAP_NS:
        return None
    (start_ns, first), (end_ns, second) = track[place - 1], track[place]
    part = (at_ns - start_ns) / (end_ns - start_ns)
    start, end = _pose_matrix(*first), _pose_matrix(*second)
    matrix = (1 - part) * start + part * end
    turns = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([start[:3, :3], end[:3, :3]])))
    matrix[:3, :3] = turns(part).as_matrix()
    return matrix


def _pose_matrix(translation: Any, rotation: Any) -> Matrix:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(
        [rotation.x, rotation.y, rotation.z, rotation.w]).as_matrix()
    matrix[:3, 3] = translation.x, translation.y, translation.z
    return matrix
