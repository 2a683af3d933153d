"""Publishers and subscribers of every QoS, started before or after the node."""

from __future__ import annotations

import time

from checkpoints import make_checkpoint
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_harness import camera_info, find_free_domain, image, Robot, start_node
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

pytestmark = pytest.mark.node
RGB = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
SETTINGS = {
    'cameras': '[early, mixed, forced, latched]', 'scale.sources': '[fixed]',
    'scale.min_depth_m': 1, 'scale.max_depth_m': 5, 'latency_cap_ms': 0, 'max_age_s': 30,
    'qos_overrides./forced/image_raw.subscription.reliability': 'reliable',
    'qos_overrides./early/depth_relative/image.publisher.reliability': 'best_effort',
    'qos_overrides./early/points.publisher.durability': 'transient_local',
    'qos_overrides./early/points.publisher.depth': 7}


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    """Start a node after some of its cameras."""
    checkpoint = make_checkpoint(tmp_path_factory.mktemp('models') / 'random')
    domain = find_free_domain()
    robot = Robot(domain)
    robot.offer('/early/image_raw', Image, reliable=False)
    robot.offer('/latched/camera_info', CameraInfo, latched=True)
    robot.publish('/latched/camera_info', camera_info(time.time_ns()))
    robot.offer('/latched/image_raw', Image)
    process = start_node(
        tmp_path_factory.mktemp('node'), domain, '-p', f'checkpoint:={checkpoint}',
        *(word for name, value in SETTINGS.items() for word in ('-p', f'{name}:={value}')))
    robot.until(lambda: robot.node.count_subscribers('/mixed/image_raw'), 200, 'an active node')
    robot.listen_all({'/depth_node/status': DiagnosticArray, **{
        f'/{camera}/depth_relative/image': Image for camera in ('mixed', 'forced', 'latched')}})
    yield process, robot
    robot.close()
    process.stop()


def show(robot: Robot, topic: str) -> dict[str, str]:
    stamp_ns = time.time_ns()
    robot.publish(topic, image(RGB, stamp_ns))
    return robot.status_of(stamp_ns)


def wait_until_received(robot: Robot, topic: str) -> None:
    """Publish until the node receives an image; it may match later than this side."""
    def received() -> bool:
        stamp_ns = time.time_ns()
        robot.publish(topic, image(RGB, stamp_ns))
        robot.spin(0.3)
        return any(array.header.stamp.sec * 10 ** 9 + array.header.stamp.nanosec == stamp_ns
                   for array in robot.messages['/depth_node/status'])

    robot.until(received, what=f'an image received on {topic}')


def offered(robot: Robot, topic: str) -> list[QoSProfile]:
    return [info.qos_profile for info in robot.node.get_publishers_info_by_topic(topic)]


def test_a_best_effort_camera_started_before_the_node_is_received(running):
    _, robot = running
    robot.wait_for_match('/early/image_raw')
    wait_until_received(robot, '/early/image_raw')


def test_a_latched_camera_info_from_before_the_node_is_received(running):
    """It stays valid after a jump back in time, as when a recording starts again."""
    _, robot = running
    robot.wait_for_match('/latched/image_raw')
    robot.wait_for_match('/latched/camera_info')
    wait_until_received(robot, '/latched/image_raw')
    robot.until(lambda: show(robot, '/latched/image_raw')['scale_sources'] == 'fixed (assumed)',
                what='the camera_info')
    stamp_ns = time.time_ns() - 7200 * 10 ** 9
    robot.publish('/latched/image_raw', image(RGB, stamp_ns))
    assert robot.status_of(stamp_ns)['scale_sources'] == 'fixed (assumed)'
    assert robot.counters('latched')['stamp_jumped_back'] == 1


def test_two_publishers_of_different_reliability_are_received(running):
    _, robot = running
    topic = '/mixed/image_raw'
    robot.offer(topic, Image)
    second = robot.node.create_publisher(
        Image, topic, QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
    robot.until(lambda: [each.qos_profile.reliability for each in
                         robot.node.get_subscriptions_info_by_topic(topic)]
                == [ReliabilityPolicy.BEST_EFFORT], what='a best-effort subscription')
    wait_until_received(robot, topic)
    stamp_ns = time.time_ns()
    robot.until(second.get_subscription_count, what='a match')
    second.publish(image(RGB, stamp_ns))
    assert robot.status_of(stamp_ns)['outcome'] == 'processed'


def test_a_camera_that_is_incompatible_with_an_override_is_reported(running):
    process, robot = running
    topic = '/forced/image_raw'
    robot.offer(topic, Image, reliable=False)
    text = f'a publisher of {topic} offers an incompatible RELIABILITY'
    assert f'forced: incompatible_qos: {text}' in process.wait_for_log(text)
    robot.listen('/diagnostics', DiagnosticArray)

    def shown() -> list[DiagnosticStatus]:
        return [status for array in robot.messages['/diagnostics'] for status in array.status
                if status.name == 'depth_node: forced'
                and any(each.key == 'last_incompatible_qos' and text in each.value
                        for each in status.values)]

    assert robot.until(shown, what='the mismatch in /diagnostics')[0].level == (
        DiagnosticStatus.STALE)
    assert robot.counters('forced')['incompatible_qos'] == 1
    robot.retire(topic)
    robot.advertise(topic, Image)
    wait_until_received(robot, topic)


def test_the_qos_of_outputs_can_be_overridden(running):
    _, robot = running
    robot.until(lambda: offered(robot, '/early/points'), what='a publisher')
    [relative] = offered(robot, '/early/depth_relative/image')
    [color] = offered(robot, '/early/depth/image_color')
    [points] = offered(robot, '/early/points')
    assert (relative.reliability, relative.durability) == (
        ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
    assert (color.reliability, color.durability) == (
        ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
    assert (points.reliability, points.durability) == (
        ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)


def test_a_subscriber_of_incompatible_durability_is_reported(running):
    process, robot = running
    robot.node.create_subscription(Image, '/early/depth/image_color', lambda _: None, QoSProfile(
        depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    text = ('early: incompatible_qos: a subscriber of early/depth/image_color requests an '
            'incompatible DURABILITY; it receives nothing')
    process.wait_for_log(text)
    assert robot.counters('early')['incompatible_qos'] == 1
