"""Publishing of serialized messages from where they are."""

from __future__ import annotations

from collections.abc import Iterator
import time

from node_harness import find_free_domain
import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image

from marigold_ros.messages.image import pack_image
from marigold_ros.ros.conversions import make_header, serialize_image
from marigold_ros.ros.rclpy_workarounds import publish_serialized, RCLError

pytestmark = pytest.mark.node


@pytest.fixture
def topic() -> Iterator[tuple[LifecyclePublisher, Subscription, rclpy.Context]]:
    """Match a publisher that is not active yet with a subscription that no executor runs."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=find_free_domain())
    node = LifecycleNode('publishing', context=context)
    publisher = node.create_lifecycle_publisher(Image, 'image', 5)
    subscription = node.create_subscription(Image, 'image', lambda _: None, 5, raw=True)
    while not publisher.get_subscription_count():
        time.sleep(0.01)
    yield publisher, subscription, context
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def take(subscription: Subscription, wait_s: float) -> bytes | None:
    end_s = time.monotonic() + wait_s
    while time.monotonic() < end_s:
        taken = subscription.handle.take_message(Image, True)
        if taken is not None:
            return taken[0]
        time.sleep(0.01)
    return None


def message(frame_id: str) -> np.ndarray:
    pixels = np.arange(48 * 64, dtype=np.float32).reshape(48, 64)
    return serialize_image(make_header(7, frame_id), pack_image(pixels, '32FC1'))


def test_an_active_publisher_sends_the_bytes_as_they_are(topic):
    publisher, subscription, _ = topic
    publish_serialized(publisher, message('before'))
    publisher.on_activate(None)
    sent = message('after')
    expected = sent.tobytes()
    publish_serialized(publisher, sent)
    sent[:] = 0  # it may be used again at once
    assert take(subscription, 20.0) == expected
    assert take(subscription, 0.2) is None


def test_a_publisher_that_cannot_send_raises_an_error(topic):
    publisher, _, context = topic
    publisher.on_activate(None)
    rclpy.shutdown(context=context)
    with pytest.raises(RCLError, match='failed to publish on image: .*context is invalid'):
        publish_serialized(publisher, message('late'))
