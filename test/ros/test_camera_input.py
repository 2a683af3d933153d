"""Topics and QoS of the subscriptions to a camera."""

from __future__ import annotations

from node_harness import camera_info, find_free_domain
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from marigold_ros.depth.errors import ConfigError
from marigold_ros.ros.calibration import CalibrationCache
from marigold_ros.ros.camera_input import CameraInput
from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.subscriptions import InputTopics

RAW, COMPRESSED = '/camera/image_raw', '/camera/image_raw/compressed'
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


@pytest.fixture
def make_node():
    """Make plain nodes with ROS arguments, each in a domain of its own."""
    made = []

    def make(*arguments: str):
        context = rclpy.Context()
        rclpy.init(args=['--ros-args', *arguments], context=context, domain_id=find_free_domain())
        made.append((rclpy.create_node('depth_node', context=context), context))
        return made[-1][0]

    yield make
    for node, context in made:
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.parametrize(('arguments', 'image_topic', 'compressed', 'info', 'rectified'), [
    ((), RAW, COMPRESSED, '/camera/camera_info', False),
    (('-r', 'camera/image_raw:=/usb/image_rect'),
     '/usb/image_rect', '/usb/image_rect/compressed', '/usb/camera_info', True),
    (('-r', 'camera/image_raw:=/d405/color/image_rect_raw'),  # distorted as its camera_info says
     '/d405/color/image_rect_raw', '/d405/color/image_rect_raw/compressed',
     '/d405/color/camera_info', False),
    (('-r', 'camera/image_raw:=/usb/color/compressed'),
     '/usb/color', '/usb/color/compressed', '/usb/camera_info', False),
    (('-r', 'camera/image_raw:=/tof/depth/compressedDepth'),
     '/tof/depth', '/tof/depth/compressed', '/tof/camera_info', False),
    (('-r', 'camera/image_raw:=/usb/color', '-r', 'camera/camera_info:=/calibration'),
     '/usb/color', '/usb/color/compressed', '/calibration', False),
    (('-r', '__ns:=/robot'),
     '/robot/camera/image_raw', '/robot/camera/image_raw/compressed',
     '/robot/camera/camera_info', False),
])
def test_the_other_input_topics_are_derived_from_a_remapped_image_topic(
        make_node, arguments, image_topic, compressed, info, rectified):
    topics = InputTopics(make_node(*arguments), 'camera')
    assert (topics.image, topics.compressed, topics.camera_info, topics.looks_rectified) == (
        image_topic, compressed, info, rectified)


def subscribe(node, transport: str = 'auto', received: list | None = None) -> CameraInput:
    """Subscribe to a camera."""
    received = [] if received is None else received
    return CameraInput(node, 'camera', transport,
                       CalibrationCache(False), received.append, Reporter(node))


def subscriptions(node) -> dict[str, ReliabilityPolicy]:
    """Return the reliability of every image topic that the node subscribes to."""
    return {topic: info.qos_profile.reliability for topic in (RAW, COMPRESSED)
            for info in node.get_subscriptions_info_by_topic(topic)}


def offer(node, message_type: type, topic: str, reliability: ReliabilityPolicy):
    return node.create_publisher(message_type, topic,
                                 QoSProfile(depth=1, reliability=reliability))


def test_the_subscription_matches_the_publishers(make_node):
    node = make_node()
    camera = subscribe(node)
    assert subscriptions(node) == {RAW: BEST_EFFORT}  # compatible with both kinds of publishers
    steps = []
    packed = offer(node, CompressedImage, COMPRESSED, RELIABLE)
    camera.match_publishers()
    steps.append(subscriptions(node))
    raw = offer(node, Image, RAW, RELIABLE)
    camera.match_publishers()
    steps.append(subscriptions(node))
    second = offer(node, Image, RAW, BEST_EFFORT)
    camera.match_publishers()
    steps.append(subscriptions(node))
    node.destroy_publisher(second)
    camera.match_publishers()
    steps.append(subscriptions(node))
    node.destroy_publisher(raw)
    node.destroy_publisher(packed)
    camera.match_publishers()
    steps.append(subscriptions(node))
    camera.close()
    assert steps == [{COMPRESSED: RELIABLE}, {RAW: RELIABLE}, {RAW: BEST_EFFORT},
                     {RAW: RELIABLE}, {RAW: RELIABLE}]
    assert subscriptions(node) == {}


def test_a_configured_transport_is_used(make_node):
    node = make_node()
    offer(node, Image, RAW, RELIABLE)
    camera = subscribe(node, 'compressed')
    assert list(subscriptions(node)) == [COMPRESSED]
    camera.close()


def test_the_users_reliability_overrides_that_of_the_publishers(make_node):
    node = make_node('-p', f'qos_overrides.{RAW}.subscription.reliability:=best_effort')
    offer(node, Image, RAW, RELIABLE)
    camera = subscribe(node)
    camera.match_publishers()
    assert subscriptions(node) == {RAW: BEST_EFFORT}
    camera.close()

    node = make_node('-p', f'qos_overrides.{RAW}.subscription.reliability:=sometimes')
    with pytest.raises(ConfigError, match="auto, reliable or best_effort; got 'sometimes'"):
        subscribe(node)


def test_an_incompatible_publisher_is_reported(make_node, capfd):
    node = make_node('-p', f'qos_overrides.{RAW}.subscription.reliability:=reliable')
    camera = subscribe(node)
    offer(node, Image, RAW, BEST_EFFORT)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    log = ''
    for _ in range(100):
        executor.spin_once(timeout_sec=0.1)
        log += capfd.readouterr().err
        if 'incompatible' in log:
            break
    assert f'a publisher of {RAW} offers an incompatible RELIABILITY' in log
    camera.close()
    executor.shutdown()


def test_camera_infos_are_stored_in_the_calibration_cache(make_node):
    node = make_node()
    calibrations = CalibrationCache(False)
    camera = CameraInput(node, 'camera', 'auto', calibrations,
                         lambda frame: None, Reporter(node))
    publisher = offer(node, CameraInfo, '/camera/camera_info', RELIABLE)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    for stamp_ns in range(1, 200):
        publisher.publish(camera_info(stamp_ns))
        executor.spin_once(timeout_sec=0.05)
        if not calibrations.find(stamp_ns, 120, 160).problem:
            break
    assert calibrations.find(stamp_ns, 120, 160).camera.K[0, 0] == 100.0
    camera.close()
    executor.shutdown()
