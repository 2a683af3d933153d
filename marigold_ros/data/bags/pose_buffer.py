"""Buffer the transforms of a bag (/tf, /tf_static, /odom) and look up poses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from marigold_ros.data.bags.messages import read_stamp_ns
from marigold_ros.data.bags.reader import BagTopic
from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import Matrix, Pose, without_slash
from marigold_ros.geometry.transform_buffer import TransformBuffer

# The pose of a frame in the world is not interpolated across a longer gap between two transforms.
MAX_GAP_NS = 10 ** 9
# No frame waits longer for its pose.
HISTORY_NS = 60 * 10 ** 9
ODOMETRY, TRANSFORMS = 'nav_msgs/msg/Odometry', 'tf2_msgs/msg/TFMessage'
STATIC_TOPIC = '/tf_static'
POSE_TOPICS = {'/odom': ODOMETRY, '/tf': TRANSFORMS, STATIC_TOPIC: TRANSFORMS}


class PoseBuffer:
    """
    The transforms of a bag, a `PoseSource`.

    Parameters
    ----------
    max_gap_ns : int or None
        See `TransformBuffer`.

    Attributes
    ----------
    transforms : TransformBuffer
        Holds the newest minute.

    Examples
    --------
    Where the sample robot carries its camera (metres ahead of, left of and above its base):

    >>> from marigold_ros.data.bags.reader import open_bag
    >>> poses = PoseBuffer()
    >>> with open_bag('sample/living_room') as bag:
    ...     for message in bag.messages(['/tf_static']):
    ...         poses.add(message.topic, bag.decode(message))
    >>> base_from_camera = poses.transforms.lookup('base_link', 'camera_optical_frame', 0)
    >>> base_from_camera[:3, 3].tolist()
    [0.12, 0.0, 0.35]
    """

    def __init__(self, max_gap_ns: int | None = None) -> None:
        self.transforms = TransformBuffer(HISTORY_NS, max_gap_ns)
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
                if topic == STATIC_TOPIC:
                    self.transforms.set_static(parent, child, pose)
                else:
                    self._set_moving(parent, child, time_ns or stamp_ns, pose)
            except InputError as err:
                self._ignored[topic] += 1
                self._first_ignored.setdefault(
                    topic, f'{parent!r} to {child!r} at {time_ns or stamp_ns} ns: {err}')

    def world_from_frame(self, frame_id: str, time_ns: int) -> Matrix | None:
        """
        Return the pose of a coordinate frame in the root frame of its tree.

        Returns
        -------
        float64 [4, 4] or None
            None if no transform to the root moves, or one is unknown at that time.
        """
        poses, problem = self.transforms.ancestors(without_slash(frame_id), time_ns)
        if problem or not any(map(self.transforms.moving_parent, poses)):
            return None
        return poses[next(reversed(poses))]

    def _set_moving(self, parent: str, child: str, time_ns: int, pose: Pose) -> None:
        """Add a moving transform, unless another publisher places the frame in another world."""
        known = self.transforms.moving_parent(child)
        if known not in (None, parent):
            raise InputError('the parent of a moving frame must stay the same; it was '
                             f'{known!r}')
        self.transforms.set_moving(parent, child, time_ns, pose)


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
