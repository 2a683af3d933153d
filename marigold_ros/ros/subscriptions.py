"""Subscriptions that follow remapped names and what their publishers offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    qos_policy_name_from_kind,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from marigold_ros.depth.errors import ConfigError
from marigold_ros.ros.diagnostics import Reporter

Policies = tuple[ReliabilityPolicy, DurabilityPolicy]
OVERRIDES = {'reliability': ('RELIABLE', 'BEST_EFFORT'),
             'durability': ('VOLATILE', 'TRANSIENT_LOCAL')}


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
    A raw subscription that asks for what its publishers offer.

    It is RELIABLE where all of them are and BEST_EFFORT elsewhere, which hears both kinds, and
    TRANSIENT_LOCAL where all of them are, so that it gets what was published before it came.  The
    parameters qos_overrides.<topic>.subscription.reliability and .durability set that for good.

    Parameters
    ----------
    node : Node
    camera : str
    message_type : type
    topic : str
    callback : callable
        Gets the serialized message.
    depth : int
        Of the queue.
    reporter : Reporter
        Is told when messages are kept away by a publisher's QoS, or were lost on their way.
    """

    def __init__(self, node: Node, camera: str, message_type: type, topic: str,
                 callback: Callable[[bytes], None], depth: int, reporter: Reporter) -> None:
        """Prepare; `follow` subscribes."""
        self.topic = topic
        self._node, self._type, self._callback, self._depth = node, message_type, callback, depth
        self._camera, self._reporter = camera, reporter
        self._subscription: Subscription | None = None
        self._policies: Policies | None = None
        self._publishers: set[tuple[int, ...]] = set()  # by their global ids
        self._last_sequence: int | None = None
        self._overrides = (self._override('reliability', ReliabilityPolicy),
                           self._override('durability', DurabilityPolicy))

    def has_publishers(self) -> bool:
        """Return whether anybody publishes a message of the right type on the topic."""
        return bool(self._offered())

    def follow(self) -> None:
        """Subscribe, or subscribe anew if the publishers offer something else now."""
        offered = self._offered()
        publishers = {tuple(each.endpoint_gid) for each in offered}
        if publishers != self._publishers:
            self._publishers, self._last_sequence = publishers, None
        reliable = bool(offered) and all(
            each.qos_profile.reliability == ReliabilityPolicy.RELIABLE for each in offered)
        latched = bool(offered) and all(
            each.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for each in offered)
        reliability, durability = self._overrides
        wanted = (
            reliability or (ReliabilityPolicy.RELIABLE if reliable
                            else ReliabilityPolicy.BEST_EFFORT),
            durability or (DurabilityPolicy.TRANSIENT_LOCAL if latched
                           else DurabilityPolicy.VOLATILE))
        if self._subscription is None or (offered and wanted != self._policies):
            self.close()
            self._subscribe(wanted)

    def close(self) -> None:
        """Unsubscribe; does nothing the second time."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _override(self, policy: str, values: type[IntEnum]) -> Any:
        """
        Declare a policy's parameter and return the policy that the user set, if any.

        rclpy's own overriding would hold on to the first value that it saw for ever.
        """
        name = f'qos_overrides.{self.topic}.subscription.{policy}'
        choices = [value.lower() for value in OVERRIDES[policy]]
        if not self._node.has_parameter(name):
            self._node.declare_parameter(name, 'auto', ParameterDescriptor(
                read_only=True, description='auto follows the publishers',
                additional_constraints=', '.join(['auto', *choices])))
        value = self._node.get_parameter(name).value
        if value == 'auto':
            return None
        if value not in choices:
            raise ConfigError(f'`{name}` must be auto, {" or ".join(choices)}; got {value!r}')
        return values[value.upper()]

    def _offered(self) -> list[TopicEndpointInfo]:
        name = f'{self._type.__module__.split(".")[0]}/msg/{self._type.__name__}'
        return [info for info in self._node.get_publishers_info_by_topic(self.topic)
                if info.topic_type == name]

    def _subscribe(self, policies: Policies) -> None:
        self._policies, self._last_sequence = policies, None
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=self._depth,
                         reliability=policies[0], durability=policies[1])
        receive: Any = self._receive  # rclpy's types do not know of the message's info
        self._subscription = self._node.create_subscription(
            self._type, self.topic, receive, qos, raw=True,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._incompatible),
            qos_overriding_options=QoSOverridingOptions(
                (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)))

    def _receive(self, message: bytes, info: Mapping[str, int]) -> None:
        # A publisher numbers its messages; the numbers of several cannot be told apart.
        sequence, last = info['publication_sequence_number'], self._last_sequence
        self._last_sequence = sequence
        if last is not None and sequence > last + 1 and len(self._publishers) == 1:
            missed = sequence - last - 1
            self._reporter.event(
                self._camera, 'missed', f'{missed} messages on {self.topic} were lost before they '
                'could be taken; if that goes on, start the camera too with '
                'fastdds_large_images.xml', missed)
        self._callback(message)

    def _incompatible(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self._reporter.event(
            self._camera, 'incompatible_qos', f'a publisher of {self.topic} offers an '
            f'incompatible {policy}; nothing is received from it')


def follow_first_published(subscriptions: Sequence[FollowingSubscription]) -> None:
    """Follow the first whose topic somebody publishes, else the first, and close the others."""
    used = next((each for each in subscriptions if each.has_publishers()), subscriptions[0])
    for each in subscriptions:
        if each is not used:
            each.close()
    used.follow()
