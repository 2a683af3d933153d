"""The subscriptions of one camera, whose reliability and transport follow its publishers."""

from __future__ import annotations

import time
from typing import Any, Callable

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (HistoryPolicy, qos_policy_name_from_kind, QoSPolicyKind, QoSProfile,
                       ReliabilityPolicy)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from marigold_ros.depth.errors import ConfigError, MessageError
from marigold_ros.ros.calibration import CalibrationCache
from marigold_ros.ros.conversions import peek_header
from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.newest import ReceivedFrame

RELIABILITIES = {'reliable': ReliabilityPolicy.RELIABLE,
                 'best_effort': ReliabilityPolicy.BEST_EFFORT}


class InputTopics:
    """
    Names of one camera's input topics after remapping.

    The camera_info and the compressed topic follow a remapped image topic, as image_transport
    has it, unless they are remapped themselves.

    Parameters
    ----------
    node : Node
    camera : str
    image, camera_info : str
        Names below the camera's, before remapping.
    """

    def __init__(self, node: Node, camera: str, image: str = 'image_raw',
                 camera_info: str = 'camera_info') -> None:
        """Resolve the names."""
        own_image, own_info = f'{camera}/{image}', f'{camera}/{camera_info}'
        image = node.resolve_topic_name(own_image)
        self.image = image.removesuffix('/compressed')
        self.only_compressed = self.image != image
        self.compressed = _remapped(node, f'{own_image}/compressed', f'{self.image}/compressed')
        self.camera_info = _remapped(node, own_info,
                                     self.image.rpartition('/')[0] + '/camera_info')

    @property
    def looks_rectified(self) -> bool:
        """Whether the image topic is named as ROS names rectified images."""
        return self.image.rpartition('/')[2].startswith('image_rect')


def _remapped(node: Node, topic: str, otherwise: str) -> str:
    """Return what a topic is remapped to, or another name if it is not."""
    name = node.resolve_topic_name(topic)
    return otherwise if name == node.resolve_topic_name(topic, only_expand=True) else name


class FollowingSubscription:
    """
    A raw subscription with the reliability that its publishers offer.

    It is RELIABLE where all of them are and BEST_EFFORT elsewhere, which hears both kinds; the
    parameter qos_overrides.<topic>.subscription.reliability sets it for good.

    Parameters
    ----------
    node : Node
    message_type : type
    topic : str
    callback : callable
        Gets the serialized message.
    depth : int
        Of the queue.
    on_incompatible : callable
        Gets a sentence when a publisher's QoS keeps its messages away.
    """

    def __init__(self, node: Node, message_type: type, topic: str,
                 callback: Callable[[bytes], None], depth: int,
                 on_incompatible: Callable[[str], None]) -> None:
        """Prepare; `follow` subscribes."""
        self.topic = topic
        self._node, self._type, self._callback, self._depth = node, message_type, callback, depth
        self._on_incompatible = on_incompatible
        self._subscription: Subscription | None = None
        self._reliability: ReliabilityPolicy | None = None
        name = f'qos_overrides.{topic}.subscription.reliability'
        if not node.has_parameter(name):
            node.declare_parameter(name, 'auto', ParameterDescriptor(
                read_only=True, description='auto follows the publishers',
                additional_constraints='auto, reliable, best_effort'))
        value = node.get_parameter(name).value
        if value not in ('auto', *RELIABILITIES):
            raise ConfigError(f'`{name}` must be auto, reliable or best_effort; got {value!r}')
        self._override = RELIABILITIES.get(value)

    def has_publishers(self) -> bool:
        """Return whether anybody publishes a message of the right type on the topic."""
        return bool(self._offered())

    def follow(self) -> None:
        """Subscribe, or subscribe anew if the publishers offer another reliability now."""
        offered = self._offered()
        reliable = bool(offered) and all(
            policy == ReliabilityPolicy.RELIABLE for policy in offered)
        wanted = self._override or (
            ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT)
        if self._subscription is None or (offered and wanted != self._reliability):
            self.close()
            self._subscribe(wanted)

    def close(self) -> None:
        """Unsubscribe; does nothing the second time."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _offered(self) -> list[ReliabilityPolicy]:
        name = f'{self._type.__module__.split(".")[0]}/msg/{self._type.__name__}'
        return [info.qos_profile.reliability
                for info in self._node.get_publishers_info_by_topic(self.topic)
                if info.topic_type == name]

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._reliability = reliability
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=self._depth,
                         reliability=reliability)
        self._subscription = self._node.create_subscription(
            self._type, self.topic, self._callback, qos, raw=True,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._incompatible),
            # Not RELIABILITY: rclpy would hold on to the first value for ever.
            qos_overriding_options=QoSOverridingOptions(
                (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.DURABILITY)))

    def _incompatible(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self._on_incompatible(f'a publisher of {self.topic} offers an incompatible {policy}; '
                              'nothing is received from it')


class CameraInput:
    """
    Everything that one camera sends, from activate to deactivate.

    Parameters
    ----------
    node : Node
    camera : str
    topics : InputTopics
    transport : {'auto', 'raw', 'compressed'}
    calibrations : CalibrationCache
        Gets the camera_infos.
    on_frame : callable
        Gets the images.
    reporter : Reporter
    """

    def __init__(self, node: Node, camera: str, topics: InputTopics, transport: str,
                 calibrations: CalibrationCache, on_frame: Callable[[ReceivedFrame], None],
                 reporter: Reporter) -> None:
        """Subscribe to what is published now, or to the raw image if nothing is yet."""
        self._camera, self._on_frame, self._reporter = camera, on_frame, reporter
        self._calibrations = calibrations
        self._transport = 'compressed' if topics.only_compressed else transport

        def subscription(message_type: type, topic: str, callback: Callable[[bytes], None],
                         depth: int) -> FollowingSubscription:
            return FollowingSubscription(
                node, message_type, topic, callback, depth,
                lambda text: reporter.event(camera, 'incompatible_qos', text))

        # The executor serves subscriptions in this order: the camera_info before its image.
        self._info = subscription(CameraInfo, topics.camera_info, self._receive_info, 5)
        self._raw = subscription(Image, topics.image, self._receive_raw, 1)
        self._compressed = subscription(CompressedImage, topics.compressed,
                                        self._receive_compressed, 1)
        self.follow()

    def follow(self) -> None:
        """Look at the publishers again; to be called now and then while active."""
        self._info.follow()
        use_compressed = self._transport == 'compressed' or (
            self._transport == 'auto' and not self._raw.has_publishers()
            and self._compressed.has_publishers())
        used, idle = ((self._compressed, self._raw) if use_compressed
                      else (self._raw, self._compressed))
        idle.close()
        used.follow()

    def close(self) -> None:
        """Unsubscribe from everything."""
        for subscription in (self._info, self._raw, self._compressed):
            subscription.close()

    def _receive_info(self, message: bytes) -> None:
        try:
            self._calibrations.put(message)
        except MessageError as err:
            self._reporter.event(self._camera, 'bad_camera_info', str(err))

    def _receive_raw(self, message: bytes) -> None:
        self._receive_image(message, False)

    def _receive_compressed(self, message: bytes) -> None:
        self._receive_image(message, True)

    def _receive_image(self, message: bytes, compressed: bool) -> None:
        received_s = time.monotonic()
        try:
            stamp_ns, frame_id, _ = peek_header(message)
        except MessageError as err:
            self._reporter.event(self._camera, 'headless_image', str(err))
            return
        self._on_frame(ReceivedFrame(self._camera, message, compressed, stamp_ns, frame_id,
                                     received_s))
