"""Buffer the transforms of a bag (/tf, /tf_static, /odom) and look up camera poses."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from marigold_ros.data.bags.messages import read_stamp_ns
from marigold_ros.data.bags.reader import BagTopic
from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import (
    check_transform,
    Matrix,
    pose_matrix,
    Quaternion,
    Vector3,
    without_slash,
)

# Poses are not interpolated across a longer gap between two transforms.
MAX_GAP_NS = 10 ** 9
# Older transforms, relative to the newest, are discarded: no frame waits that long.
HISTORY_NS = 60 * 10 ** 9
ODOMETRY, TRANSFORMS = 'nav_msgs/msg/Odometry', 'tf2_msgs/msg/TFMessage'
STATIC_TOPIC = '/tf_static'
POSE_TOPICS = {'/odom': ODOMETRY, '/tf': TRANSFORMS, STATIC_TOPIC: TRANSFORMS}

Pose = tuple[Vector3, Quaternion]


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
        self._moving: dict[str, tuple[str, list[tuple[int, Pose]]]] = {}
        self._ignored: Counter[str] = Counter()
        self._first_ignored: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """Return one text for each topic of which transforms were ignored."""
        return [f'transforms ignored on {topic}: {count}; the first, {self._first_ignored[topic]}'
                for topic, count in self._ignored.items()]

    def add(self, topic: str, message: Any, time_ns: int | None = None) -> None:
        """
        Add the transforms of a message; invalid ones are ignored, as by tf2, and counted.

        Parameters
        ----------
        topic : str
            '/tf', '/tf_static' or '/odom'.
        message : object
            Decoded tf2_msgs/TFMessage or nav_msgs/Odometry.
        time_ns : int or None
            Time of the poses, ns; None takes their stamps.
        """
        for parent, child, stamp_ns, pose in _transforms(message):
            try:
                check_transform(parent, child, *pose)
                if topic == STATIC_TOPIC:
                    self._static[child] = parent, pose_matrix(*pose)
                else:
                    self._add_moving(parent, child, time_ns or stamp_ns, pose)
            except InputError as err:
                self._ignored[topic] += 1
                self._first_ignored.setdefault(
                    topic, f'{parent!r} to {child!r} at {time_ns or stamp_ns} ns: {err}')

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
        chain = [without_slash(frame_id)]
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

    def _add_moving(self, parent: str, child: str, time_ns: int, pose: Pose) -> None:
        known, track = self._moving.setdefault(child, (parent, []))
        if known != parent:
            raise InputError(f'the parent of a moving frame must stay the same; it was {known!r}')
        index = bisect_left(track, time_ns, key=itemgetter(0))
        if index == len(track) or track[index][0] != time_ns:
            track.insert(index, (time_ns, pose))
        del track[:bisect_left(track, track[-1][0] - HISTORY_NS, key=itemgetter(0))]


def pose_topics(topics: Iterable[BagTopic]) -> list[str]:
    """Return the names of the topics that hold poses which can be read."""
    return [topic.name for topic in topics
            if POSE_TOPICS.get(topic.name) == topic.msgtype and topic.unreadable is None]


def _transforms(message: Any) -> Iterator[tuple[str, str, int, Pose]]:
    """Yield parent, child, stamp in ns, and pose of each transform of a message."""
    if message.__msgtype__ == ODOMETRY:
        pose = message.pose.pose
        stamped = [(message, pose.position, pose.orientation)]
    else:
        stamped = [(each, each.transform.translation, each.transform.rotation)
                   for each in message.transforms]
    for each, t, q in stamped:
        yield (without_slash(each.header.frame_id), without_slash(each.child_frame_id),
               read_stamp_ns(each), ((t.x, t.y, t.z), (q.x, q.y, q.z, q.w)))


def _interpolate(track: list[tuple[int, Pose]], time_ns: int) -> Matrix | None:
    """Interpolate the translation linearly and the rotation by slerp."""
    index = bisect_left(track, time_ns, key=itemgetter(0))
    if index < len(track) and track[index][0] == time_ns:
        return pose_matrix(*track[index][1])
    if index in (0, len(track)) or track[index][0] - track[index - 1][0] > MAX_GAP_NS:
        return None
    (start_ns, first), (end_ns, second) = track[index - 1], track[index]
    fraction = (time_ns - start_ns) / (end_ns - start_ns)
    start, end = pose_matrix(*first), pose_matrix(*second)
    matrix = (1 - fraction) * start + fraction * end
    rotations = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([start[:3, :3], end[:3, :3]])))
    matrix[:3, :3] = rotations(fraction).as_matrix()
    return matrix
