"""Names of the input topics after remapping, and subscriptions that match their publishers."""

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
from marigold_ros.messages.camera_info import rectified_by_name
from marigold_ros.messages.image_transport import base_topic, camera_info_beside
from marigold_ros.ros.diagnostics import Reporter

Policies = tuple[ReliabilityPolicy, DurabilityPolicy]
OVERRIDES = {'reliability': ('RELIABLE', 'BEST_EFFORT'),
             'durability': ('VOLATILE', 'TRANSIENT_LOCAL')}


class InputTopics:
    """
    Names of one camera's input topics after remapping.

    If the image topic is remapped, the names of the camera_info and the compressed topic are
    derived from it as in image_transport, unless they are remapped themselves.

    Parameters
    ----------
    node : Node
    camera : str
    image, camera_info : str
        Topic names relative to the camera's name, before remapping.
    """

    def __init__(self, node: Node, camera: str, image: str = 'image_raw',
                 camera_info: str = 'camera_info') -> None:
        """Resolve the names."""
        own_image, own_info = f'{camera}/{image}', f'{camera}/{camera_info}'
        image = node.resolve_topic_name(own_image)
        self.image = base_topic(image)
        self.only_compressed = self.image != image
        self.compressed = _remapped(node, f'{own_image}/compressed', f'{self.image}/compressed')
        self.camera_info = _remapped(node, own_info, camera_info_beside(self.image))

    @property
    def looks_rectified(self) -> bool:
        """Check whether the image topic has the name that ROS uses for rectified images."""
        return bool(rectified_by_name(self.image))


def _remapped(node: Node, topic: str, default: str) -> str:
    """Return the name that a topic is remapped to, or the default if it is not remapped."""
    name = node.resolve_topic_name(topic)
    return default if name == node.resolve_topic_name(topic, only_expand=True) else name


class QosMatchingSubscription:
    """
    A subscription to serialized messages whose QoS matches that of the publishers.

    It is RELIABLE if all publishers are, else BEST_EFFORT, which is compatible with both kinds.
    It is TRANSIENT_LOCAL if all publishers are, so that it receives messages that were published
    before it subscribed.  The parameters qos_overrides.<topic>.subscription.reliability and
    .durability override this.

    Parameters
    ----------
    node : Node
    camera : str
    message_type : type
    topic : str
    callback : callable
        Called with each serialized message.
    depth : int
        Length of the queue.
    reporter : Reporter
        Counts lost messages and publishers of incompatible QoS.
    """

    def __init__(self, node: Node, camera: str, message_type: type, topic: str,
                 callback: Callable[[bytes], None], depth: int, reporter: Reporter) -> None:
        """Declare the QoS parameters; `match_publishers` subscribes."""
        self.topic = topic
        self._node, self._type, self._callback, self._depth = node, message_type, callback, depth
        self._camera, self._reporter = camera, reporter
        self._subscription: Subscription | None = None
        self._policies: Policies | None = None
        self._publisher_gids: set[tuple[int, ...]] = set()
        self._last_sequence: int | None = None
        self._overrides = (self._override('reliability', ReliabilityPolicy),
                           self._override('durability', DurabilityPolicy))

    def has_publishers(self) -> bool:
        """Check whether the topic has a publisher of the right message type."""
        return bool(self._publishers())

    def match_publishers(self) -> None:
        """Subscribe, or subscribe again if the QoS of the publishers has changed."""
        publishers = self._publishers()
        gids = {tuple(each.endpoint_gid) for each in publishers}
        if gids != self._publisher_gids:
            self._publisher_gids, self._last_sequence = gids, None
        reliable = bool(publishers) and all(
            each.qos_profile.reliability == ReliabilityPolicy.RELIABLE for each in publishers)
        latched = bool(publishers) and all(
            each.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for each in publishers)
        reliability, durability = self._overrides
        policies = (
            reliability or (ReliabilityPolicy.RELIABLE if reliable
                            else ReliabilityPolicy.BEST_EFFORT),
            durability or (DurabilityPolicy.TRANSIENT_LOCAL if latched
                           else DurabilityPolicy.VOLATILE))
        if self._subscription is None or (publishers and policies != self._policies):
            self.close()
            self._subscribe(policies)

    def close(self) -> None:
        """Unsubscribe; further calls do nothing."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _override(self, policy: str, values: type[IntEnum]) -> Any:
        """
        Declare a policy's parameter and return the policy that the user set, if any.

        rclpy's own QoS overriding declares the first value as the default, so that a later change
        of the publishers could not be matched.
        """
        name = f'qos_overrides.{self.topic}.subscription.{policy}'
        choices = [value.lower() for value in OVERRIDES[policy]]
        if not self._node.has_parameter(name):
            self._node.declare_parameter(name, 'auto', ParameterDescriptor(
                read_only=True, description='auto matches the publishers of the topic',
                additional_constraints=', '.join(['auto', *choices])))
        value = self._node.get_parameter(name).value
        if value == 'auto':
            return None
        if value not in choices:
            raise ConfigError(f'`{name}` must be auto, {" or ".join(choices)}; got {value!r}')
        return values[value.upper()]

    def _publishers(self) -> list[TopicEndpointInfo]:
        name = f'{self._type.__module__.split(".")[0]}/msg/{self._type.__name__}'
        return [info for info in self._node.get_publishers_info_by_topic(self.topic)
                if info.topic_type == name]

    def _subscribe(self, policies: Policies) -> None:
        self._policies, self._last_sequence = policies, None
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=self._depth,
                         reliability=policies[0], durability=policies[1])
        receive: Any = self._receive  # rclpy's annotations lack the message info argument
        self._subscription = self._node.create_subscription(
            self._type, self.topic, receive, qos, raw=True,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._report_incompatible_qos),
            qos_overriding_options=QoSOverridingOptions(
                (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)))

    def _receive(self, message: bytes, info: Mapping[str, int]) -> None:
        # Each publisher numbers its messages; with several, a gap cannot be assigned to one.
        sequence, last = info['publication_sequence_number'], self._last_sequence
        self._last_sequence = sequence
        if last is not None and sequence > last + 1 and len(self._publisher_gids) == 1:
            missed = sequence - last - 1
            self._reporter.report_event(
                self._camera, 'missed', f'{missed} messages on {self.topic} were lost before the '
                'node received them; if this continues, start the camera with the Fast DDS '
                'profile fastdds_large_images.xml, too', missed)
        self._callback(message)

    def _report_incompatible_qos(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self._reporter.report_event(
            self._camera, 'incompatible_qos', f'a publisher of {self.topic} offers an '
            f'incompatible {policy}; the node receives nothing from it')


def match_first_published(subscriptions: Sequence[QosMatchingSubscription]) -> None:
    """Use the first subscription whose topic is published, else the first; close the others."""
    chosen = next((each for each in subscriptions if each.has_publishers()), subscriptions[0])
    for each in subscriptions:
        if each is not chosen:
            each.close()
    chosen.match_publishers()
