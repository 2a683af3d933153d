"""Buffer the transforms of a bag (/tf, /tf_static, /odom) and look up camera poses."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from marigold_ros.data.bags.messages import read_stamp_ns
from marigold_ros.data.bags.reader import BagTopic

# Poses are not interpolated across a longer gap between two transforms.
MAX_GAP_NS = 10 ** 9
# Older transforms, relative to the newest, are discarded: no frame waits that long.
HISTORY_NS = 60 * 10 ** 9
ODOMETRY, TRANSFORMS = 'nav_msgs/msg/Odometry', 'tf2_msgs/msg/TFMessage'
STATIC_TOPIC = '/tf_static'
POSE_TOPICS = {'/odom': ODOMETRY, '/tf': TRANSFORMS, STATIC_TOPIC: TRANSFORMS}

Matrix = NDArray[np.float64]


class PoseBuffer:
    """
    Tree of coordinate frames with static and moving transforms.

    Only the newest minute of transforms is kept, so that memory stays bounded.

    Examples
    --------
    Where the sample robot carries its camera (metres ahead of, left of and above its base):

    >>> from marigold_ros.data.bags.reader import open_bag
    >>> poses = PoseBuffer()
    >>> with open_bag('sample/living_room') as bag:
    ...     for message in bag.messages(['/tf_static']):
    ...         poses.add(message.topic, bag.decode(message))
    >>> base_from_camera = poses.lookup_transform('base_link', 'camera_optical_frame', 0)
    >>> base_from_camera[:3, 3].tolist()
    [0.12, 0.0, 0.35]
    """

    def __init__(self) -> None:
        self._static: dict[str, tuple[str, Matrix]] = {}
        self._moving: dict[str, tuple[str, list[tuple[int, Any]]]] = {}

    def add(self, topic: str, message: Any, time_ns: int | None = None) -> None:
        """
        Add the transforms of a message.

        Parameters
        ----------
        topic : str
            '/tf', '/tf_static' or '/odom'.
        message : object
            Decoded tf2_msgs/TFMessage or nav_msgs/Odometry.
        time_ns : int or None
            Time of the poses, ns; None takes their stamps.
        """
        if message.__msgtype__ == ODOMETRY:
            pose = message.pose.pose
            self._add_pose(message.child_frame_id, message.header.frame_id,
                           time_ns or read_stamp_ns(message), (pose.position, pose.orientation))
            return
        for transform in message.transforms:
            child, parent = transform.child_frame_id, transform.header.frame_id
            pose = (transform.transform.translation, transform.transform.rotation)
            if topic == STATIC_TOPIC:
                self._static[_without_slash(child)] = (_without_slash(parent),
                                                       _pose_matrix(*pose))
            else:
                self._add_pose(child, parent, time_ns or read_stamp_ns(transform), pose)

    def world_from_frame(self, frame_id: str, time_ns: int) -> Matrix | None:
        """
        Return the pose of a coordinate frame in the root frame of its tree.

        Parameters
        ----------
        frame_id : str
        time_ns : int
            Time, ns; the pose is interpolated between two transforms.

        Returns
        -------
        float64 [4, 4] or None
            None if no transform to the root moves, or one is unknown at that time.
        """
        chain = self._chain_to_root(frame_id)
        if not any(frame in self._moving for frame in chain):
            return None
        return self._compose(chain, time_ns)

    def lookup_transform(self, target: str, source: str, time_ns: int) -> Matrix | None:
        """
        Return the transform between two coordinate frames, like tf2's `lookup_transform`.

        Parameters
        ----------
        target, source : str
            Coordinate frames.
        time_ns : int
            See `world_from_frame`.

        Returns
        -------
        float64 [4, 4] or None
            Maps points from the source to the target frame; None if the frames are not
            connected at that time.
        """
        chains = self._chain_to_root(source), self._chain_to_root(target)
        common = next((frame for frame in chains[0] if frame in chains[1]), None)
        if common is None:
            return None
        from_source, from_target = (self._compose(chain[:chain.index(common) + 1], time_ns)
                                    for chain in chains)
        if from_source is None or from_target is None:
            return None
        return np.asarray(np.linalg.inv(from_target) @ from_source, np.float64)

    def _chain_to_root(self, frame_id: str) -> list[str]:
        """List a frame and its ancestors; empty if they form a cycle."""
        chain = [_without_slash(frame_id)]
        while (transform := self._moving.get(chain[-1])
               or self._static.get(chain[-1])) is not None:
            if transform[0] in chain:
                return []
            chain.append(transform[0])
        return chain

    def _compose(self, chain: list[str], time_ns: int) -> Matrix | None:
        """Return the pose of the first frame of a chain in the last; None if it is unknown."""
        pose: Matrix = np.eye(4)
        for frame_id in chain[:-1]:
            transform = (_interpolate(self._moving[frame_id][1], time_ns)
                         if frame_id in self._moving else self._static[frame_id][1])
            if transform is None:
                return None
            pose = transform @ pose
        return pose

    def _add_pose(self, child: str, parent: str, time_ns: int,
                  pose: tuple[Any, Any]) -> None:
        parent, child = _without_slash(parent), _without_slash(child)
        known, track = self._moving.setdefault(child, (parent, []))
        if known != parent:
            return
        index = bisect_left(track, time_ns, key=itemgetter(0))
        if index == len(track) or track[index][0] != time_ns:
            track.insert(index, (time_ns, pose))
        del track[:bisect_left(track, track[-1][0] - HISTORY_NS, key=itemgetter(0))]


def pose_topics(topics: Iterable[BagTopic]) -> list[str]:
    """Return the names of the topics that hold poses."""
    return [topic.name for topic in topics if POSE_TOPICS.get(topic.name) == topic.msgtype]


def _without_slash(frame_id: str) -> str:
    """Remove the leading slash that tf (version 1) put before names."""
    return frame_id.removeprefix('/')


def _interpolate(track: list[tuple[int, Any]], time_ns: int) -> Matrix | None:
    """Interpolate the translation linearly and the rotation by slerp."""
    index = bisect_left(track, time_ns, key=itemgetter(0))
    if index < len(track) and track[index][0] == time_ns:
        return _pose_matrix(*track[index][1])
    if index in (0, len(track)) or track[index][0] - track[index - 1][0] > MAX_GAP_NS:
        return None
    (start_ns, first), (end_ns, second) = track[index - 1], track[index]
    fraction = (time_ns - start_ns) / (end_ns - start_ns)
    start, end = _pose_matrix(*first), _pose_matrix(*second)
    matrix = (1 - fraction) * start + fraction * end
    rotations = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([start[:3, :3], end[:3, :3]])))
    matrix[:3, :3] = rotations(fraction).as_matrix()
    return matrix


def _pose_matrix(translation: Any, rotation: Any) -> Matrix:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(
        [rotation.x, rotation.y, rotation.z, rotation.w]).as_matrix()
    matrix[:3, 3] = translation.x, translation.y, translation.z
    return matrix
