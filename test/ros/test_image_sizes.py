"""The image sizes that camera_infos announce while nothing spins."""

from __future__ import annotations

import os
import time

from node_harness import camera_info, find_free_domain
import pytest
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo

from marigold_ros.ros.image_sizes import AnnouncedImageSizes

pytestmark = pytest.mark.node
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def node(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=find_free_domain())
    node = rclpy.create_node(f'sizes_{os.getpid()}', context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def publish(node, topic, qos, **fields):
    message = camera_info(0, **{name: fields.pop(name) for name in ('width', 'height')})
    for name, value in fields.items():
        setattr(message, name, value)
    publisher = node.create_publisher(CameraInfo, topic, qos)
    publisher.publish(message)
    return lambda: publisher.publish(message)


def test_latched_and_running_camera_infos_announce_sizes(node):
    """Uncalibrated ones, too; binning halves the size; a silent camera announces none."""
    publish(node, 'front/camera_info', LATCHED, width=640, height=480, k=[0.0] * 9)
    announced = AnnouncedImageSizes(node, ['front', 'rear', 'silent'])
    send = publish(node, 'rear/camera_info', 1, width=1280, height=800, binning_x=2, binning_y=2)
    expected, found, ends_s = {(400, 640), (480, 640)}, set(), time.monotonic() + 20.0
    while found != expected and time.monotonic() < ends_s:
        send()
        found.update(announced.read())
    assert found == expected
    announced.close()
    assert not [info for name in ('front', 'rear', 'silent')
                for info in node.get_subscriptions_info_by_topic(f'/{name}/camera_info')]
