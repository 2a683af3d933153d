"""The image sizes that the cameras' camera_infos announce before the node is active."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from marigold_ros.messages.camera_info import fields_from_info
from marigold_ros.ros.subscriptions import InputTopics

# One for latched camera_infos, which a driver may have sent long ago, and one for all others.
QOS = (QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                  durability=DurabilityPolicy.TRANSIENT_LOCAL),
       QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT,
                  durability=DurabilityPolicy.VOLATILE))


class AnnouncedImageSizes:
    """
    Subscriptions to every camera's camera_info while the engine is loaded.

    Nothing is delivered in that time, since it blocks the executor; `read` takes the messages.

    Parameters
    ----------
    node : Node
    cameras : sequence of str
    """

    def __init__(self, node: Node, cameras: Sequence[str]) -> None:
        """Subscribe."""
        self._node = node
        self._subscriptions: list[Subscription] = [
            node.create_subscription(CameraInfo, InputTopics(node, camera).camera_info,
                                     lambda message: None, qos, raw=True)
            for camera in cameras for qos in QOS]

    def read(self) -> list[tuple[int, int]]:
        """Return the image sizes (H, W) that are known by now, of uncalibrated cameras, too."""
        sizes = set()
        for subscription in self._subscriptions:
            taken = subscription.handle.take_message(CameraInfo, True)
            if taken is not None:
                info = deserialize_message(taken[0], CameraInfo)
                sizes.add(fields_from_info(info).published_size)
        return sorted(size for size in sizes if min(size) > 0)

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
