"""Where frames lie, from TF where tf2_ros is installed."""

from __future__ import annotations

from typing import Any

from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.time import Time

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import Matrix, pose_matrix


class Transforms:
    """
    A tf2_ros buffer and listener of the node, or the reason why there is none.

    Parameters
    ----------
    node : Node
    """

    def __init__(self, node: Node) -> None:
        """Listen to /tf and /tf_static; PyPI's ROS has no tf2_ros, so it is imported here."""
        self._tf2: Any = None
        try:
            import tf2_ros
        except ImportError as err:
            self._missing = f'tf2_ros cannot be imported ({err})'
            return
        self._tf2 = tf2_ros
        self._buffer = tf2_ros.Buffer(node=node)
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def close(self) -> None:
        """Stop listening; does nothing the second time."""
        if self._tf2 is not None:
            self._listener.unregister()
            self._missing = 'TF is not listened to any more'
            self._tf2 = None

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """
        Give the pose of a frame in another.

        Parameters
        ----------
        target, source : str
            Names of the frames.
        stamp_ns : int
            When, ns.

        Returns
        -------
        float64 [4, 4]
            Takes points of the source frame to the target frame.

        Raises
        ------
        InputError
            If TF does not know it, or not at that time.
        """
        tf2 = self._tf2  # another thread may close
        if tf2 is None:
            raise InputError(self._missing)
        try:
            found = self._buffer.lookup_transform(
                target, source, Time(nanoseconds=stamp_ns, clock_type=ClockType.ROS_TIME))
        except tf2.TransformException as err:
            raise InputError(f'TF does not lead from {source} to {target} at that time: '
                             f'{err}') from err
        move, turn = found.transform.translation, found.transform.rotation
        return pose_matrix((move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w))
