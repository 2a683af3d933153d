"""Poses of coordinate frames from TF, if tf2_ros is installed."""

from __future__ import annotations

from typing import Any

from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.time import Time

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import Matrix, pose_matrix


class Transforms:
    """
    A tf2_ros buffer and listener, or the reason why there is none.

    Parameters
    ----------
    node : Node
    """

    def __init__(self, node: Node) -> None:
        """Subscribe to /tf and /tf_static; imports tf2_ros here, because PyPI's ROS has none."""
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
        """Unsubscribe; further calls do nothing."""
        if self._tf2 is not None:
            self._listener.unregister()
            self._missing = 'the node has unsubscribed from TF'
            self._tf2 = None

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """
        Return the pose of a source frame in a target frame.

        Parameters
        ----------
        target, source : str
            Names of the coordinate frames.
        stamp_ns : int
            Time of the transform, ns.

        Returns
        -------
        float64 [4, 4]
            Transforms points from the source to the target frame.

        Raises
        ------
        InputError
            If TF has no such transform at that time.
        """
        tf2 = self._tf2  # another thread may call close
        if tf2 is None:
            raise InputError(self._missing)
        try:
            found = self._buffer.lookup_transform(
                target, source, Time(nanoseconds=stamp_ns, clock_type=ClockType.ROS_TIME))
        except tf2.TransformException as err:
            raise InputError(f'TF has no transform from {source} to {target} at that time: '
                             f'{err}') from err
        t, q = found.transform.translation, found.transform.rotation
        return pose_matrix((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
