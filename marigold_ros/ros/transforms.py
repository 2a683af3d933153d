"""Poses of coordinate frames from TF, if tf2_ros is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.time import Time

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import check_transform, Matrix, pose_matrix, without_slash


class Transforms:
    """
    A tf2_ros buffer and listener, or the reason why there is none.

    Parameters
    ----------
    node : Node
    report : callable
        Called in the executor's thread for each ignored transform, with its frames and the
        reason.
    """

    def __init__(self, node: Node, report: Callable[[str, str], None]) -> None:
        """Subscribe to /tf and /tf_static; imports tf2_ros here, because PyPI's ROS has none."""
        self._tf2: Any = None
        try:
            import tf2_ros
        except ImportError as err:
            self._missing = f'tf2_ros cannot be imported ({err})'
            return
        self._tf2 = tf2_ros
        self._buffer = tf2_ros.Buffer(node=node)
        self._listener = tf2_ros.TransformListener(_ValidTransforms(self._buffer, report), node)

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
                without_slash(target), without_slash(source),
                Time(nanoseconds=stamp_ns, clock_type=ClockType.ROS_TIME))
        except tf2.TransformException as err:
            raise InputError(f'TF has no transform from {source} to {target} at that time: '
                             f'{err}') from err
        t, q = found.transform.translation, found.transform.rotation
        return pose_matrix((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))


class _ValidTransforms:
    """
    Pass the valid geometry_msgs/TransformStamped of a listener on to a tf2_ros buffer.

    tf2 ignores the others, too, but does not tell its user, and logs each of them.
    """

    def __init__(self, buffer: Any, report: Callable[[str, str], None]) -> None:
        self._buffer, self._report = buffer, report

    def set_transform(self, transform: Any, authority: str) -> None:
        """Add a moving transform."""
        if self._is_valid(transform):
            self._buffer.set_transform(transform, authority)

    def set_transform_static(self, transform: Any, authority: str) -> None:
        """Add a static transform."""
        if self._is_valid(transform):
            self._buffer.set_transform_static(transform, authority)

    def _is_valid(self, transform: Any) -> bool:
        parent, child = (without_slash(frame_id) for frame_id in (
            transform.header.frame_id, transform.child_frame_id))
        t, q = transform.transform.translation, transform.transform.rotation
        try:
            check_transform(parent, child, (t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
        except InputError as err:
            frames = f'from {child!r} to {parent!r}'
            self._report(frames, f'the transform {frames} is ignored: {err}')
            return False
        return True
