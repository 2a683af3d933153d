"""Poses of coordinate frames from TF, if its message type is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import threading

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.geometry.poses import Matrix, Pose, without_slash
from marigold_ros.geometry.transform_buffer import TransformBuffer
from marigold_ros.messages.transforms import read_transforms

# Messages that wait in the middleware: a second of 1000 Hz, the fastest that robots send.
QUEUE_LENGTH = 1000
STATIC_TOPIC = '/tf_static'
# Transforms are read at each lookup, and with this period, so that none is lost between images.
READ_PERIOD_S = 0.1


class Transforms:
    """
    The transforms on /tf and /tf_static, or the reason why there are none.

    rclpy's executor spends a third of a core on 1000 messages per second, and the listener of
    tf2_ros creates seven objects for each transform in them, which takes the GIL from the worker.
    So the executor does not see the subscriptions, and serialized messages are read in bulk.

    Parameters
    ----------
    node : Node
    report : callable
        Called for each ignored transform, with its frames and the reason.
    """

    def __init__(self, node: Node, report: Callable[[str, str], None]) -> None:
        """Subscribe; imports tf2_msgs here, because PyPI's ROS has none."""
        self._node, self._report = node, report
        self._buffer, self._lock = TransformBuffer(), threading.Lock()
        self._subscriptions: list[Subscription] = []
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError as err:
            self._missing = f'tf2_msgs cannot be imported ({err})'
            return
        self._missing = ''
        group = _NotExecuted()
        self._subscriptions = [
            node.create_subscription(
                TFMessage, topic, self._not_called, QoSProfile(
                    depth=QUEUE_LENGTH, durability=durability,
                    reliability=ReliabilityPolicy.RELIABLE),
                callback_group=group, raw=True,
                # A wait for the events of a subscription would end with each of its messages.
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False))
            for topic, durability in (('/tf', DurabilityPolicy.VOLATILE),
                                      (STATIC_TOPIC, DurabilityPolicy.TRANSIENT_LOCAL))]
        self._timer = node.create_timer(READ_PERIOD_S, self._read_in_time,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Unsubscribe; further calls do nothing."""
        with self._lock:
            if self._subscriptions:
                self._missing = 'the node has unsubscribed from TF'
                self._node.destroy_timer(self._timer)
            for each in self._subscriptions:
                self._node.destroy_subscription(each)
            self._subscriptions = []

    def clear_moving(self) -> None:
        """Discard the moving transforms, as tf2 does when the time jumps back."""
        with self._lock:
            self._read()
            self._buffer.clear_moving()

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """Return a pose at a time, see `TransformBuffer.lookup`."""
        with self._updated_buffer() as buffer:
            return buffer.lookup(target, source, stamp_ns)

    def lookup_newest(self, target: str, source: str, stamp_ns: int) -> tuple[Matrix, int]:
        """Return a pose and its time, see `TransformBuffer.lookup_newest`."""
        with self._updated_buffer() as buffer:
            return buffer.lookup_newest(target, source, stamp_ns)

    def lookup_moving(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """Return the pose of a moving frame, see `TransformBuffer.lookup_moving`."""
        with self._updated_buffer() as buffer:
            return buffer.lookup_moving(target, source, stamp_ns)

    @contextmanager
    def _updated_buffer(self) -> Iterator[TransformBuffer]:
        """Lock the buffer, which holds everything that has arrived."""
        with self._lock:
            if self._missing:
                raise InputError(self._missing)
            self._read()
            yield self._buffer

    def _read_in_time(self) -> None:
        """Read in the executor's thread, before the queues are full."""
        with self._lock:
            self._read()

    def _read(self) -> None:
        """Add all waiting messages to the buffer; report what tf2 would ignore."""
        for subscription in self._subscriptions:
            static = subscription.topic == STATIC_TOPIC
            # As rclpy.wait_for_message takes messages without an executor.
            while (taken := subscription.handle.take_message(subscription.msg_type, True)):
                try:
                    for parent, child, stamp_ns, pose in read_transforms(taken[0]):
                        self._add(parent, child, stamp_ns, pose, static)
                except MessageError as err:
                    self._report(subscription.topic, f'{subscription.topic}: {err}')

    def _add(self, parent: str, child: str, stamp_ns: int, pose: Pose, static: bool) -> None:
        try:
            if static:
                self._buffer.set_static(parent, child, pose)
            else:
                self._buffer.set_moving(parent, child, stamp_ns, pose)
        except InputError as err:
            frames = f'from {without_slash(child)!r} to {without_slash(parent)!r}'
            self._report(frames, f'the transform {frames} is ignored: {err}')

    def _not_called(self, message: bytes) -> None:
        """Stand for the callback, which rclpy wants."""


class OdometryPoses:
    """
    Poses of coordinate frames in that of the odometry, a `PoseSource`.

    One thread asks for poses; another may set where they come from.

    Attributes
    ----------
    problem : str
        Why the last pose is unknown; empty if it is known.
    """

    def __init__(self) -> None:
        """Start without transforms."""
        self.problem = ''
        self.use(None, '')

    def use(self, transforms: Transforms | None, odom_frame: str) -> None:
        """Set the transforms, None where no pose is needed, and the name of the fixed frame."""
        self._origin = transforms, odom_frame

    def world_from_frame(self, frame_id: str, time_ns: int) -> Matrix | None:
        """Return a pose, see `PoseSource`; at time 0, which stands for none, it is unknown."""
        transforms, odom_frame = self._origin
        self.problem = ('odom_frame is empty' if not odom_frame
                        else 'not needed without a measured scale' if transforms is None
                        else 'the stamp carries no time' if not time_ns else '')
        if self.problem or transforms is None:
            return None
        try:
            return transforms.lookup_moving(odom_frame, frame_id, time_ns)
        except InputError as err:
            self.problem = str(err)
            return None


class _NotExecuted(CallbackGroup):
    """Entities for which no executor waits."""

    def can_execute(self, entity: object) -> bool:
        return False

    def beginning_execution(self, entity: object) -> bool:
        return False

    def ending_execution(self, entity: object) -> None:
        """Do nothing: no execution begins."""
