"""TF in a node: what is received, what is left behind, and what a lookup costs."""

from __future__ import annotations

from collections.abc import Iterator
import sys
import time

from bag_fixtures import transform
from node_harness import find_free_domain, TF2_MSGS_PATH, TFMessage
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile

from marigold_ros.depth.errors import InputError
from marigold_ros.ros.transforms import OdometryPoses, QUEUE_LENGTH, READ_PERIOD_S, Transforms

pytestmark = pytest.mark.node
SECOND = 10 ** 9
QUARTER_LEFT = (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5))


class Broadcaster:
    """Publishes TF to a node that no executor runs."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=find_free_domain())
        self.node = rclpy.create_node('listener', context=self.context)
        self._robot = rclpy.create_node('robot', context=self.context)
        self.reports: list[tuple[str, str]] = []
        self._publishers = {
            topic: self._robot.create_publisher(TFMessage, topic, QoSProfile(
                depth=QUEUE_LENGTH, durability=durability))
            for topic, durability in (('/tf', DurabilityPolicy.VOLATILE),
                                      ('/tf_static', DurabilityPolicy.TRANSIENT_LOCAL))}

    def listen(self) -> Transforms:
        """Subscribe to TF, and wait for the match."""
        transforms = Transforms(self.node, lambda *report: self.reports.append(report))
        for publisher in self._publishers.values():
            self.until(publisher.get_subscription_count)
        return transforms

    def move(self, *arguments, stamp_s: float = 0.0, **options) -> None:
        self._publishers['/tf'].publish(
            transform(*arguments, stamp_ns=round(stamp_s * SECOND), **options))

    def mount(self, *arguments) -> None:
        self._publishers['/tf_static'].publish(transform(*arguments))

    def send(self, message: bytes) -> None:
        self._publishers['/tf'].publish(message)

    @staticmethod
    def until(condition):
        """Wait until a condition is truthy; a lookup that fails is not."""
        end_s = time.monotonic() + 20.0
        while time.monotonic() < end_s:
            try:
                if result := condition():
                    return result
            except InputError:
                pass
            time.sleep(0.01)
        return condition()

    def close(self) -> None:
        self.node.destroy_node()
        self._robot.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def robot(monkeypatch) -> Iterator[Broadcaster]:
    for path in TF2_MSGS_PATH:
        monkeypatch.syspath_prepend(path)
    robot = Broadcaster()
    yield robot
    robot.close()
    if TF2_MSGS_PATH:
        del sys.modules['tf2_msgs.msg'], sys.modules['tf2_msgs']


def test_a_transform_maps_points_from_source_to_target(robot):
    robot.mount('/base', 'lidar', (2.0, 0.0, 0.0), QUARTER_LEFT)  # before the node subscribes
    transforms = robot.listen()
    for stamp_s in (5.0, 6.0):
        robot.move('odom', 'base', (stamp_s, 0.0, 0.0), stamp_s=stamp_s)
    robot.until(lambda: transforms.lookup('odom', 'lidar', 6 * SECOND).any())
    moved = transforms.lookup('odom', '/lidar', 5_500_000_000) @ [1, 0, 0, 1]
    np.testing.assert_allclose(moved, [7.5, 1, 0, 1], atol=1e-12)
    pose, found_ns = transforms.lookup_newest('odom', 'lidar', 9 * SECOND)
    assert (pose[0, 3], found_ns) == (8.0, 6 * SECOND)
    transforms.close()
    transforms.close()
    with pytest.raises(InputError, match='has unsubscribed from TF'):
        transforms.lookup('odom', 'lidar', 6 * SECOND)


def test_odometry_tells_poses_or_why_there_is_none(robot):
    robot.mount('base', 'camera', (0.5, 0.0, 0.0))
    transforms = robot.listen()
    robot.until(lambda: transforms.lookup('base', 'camera', 0).any())
    poses = OdometryPoses()
    for origin, stamp_ns, problem in (
            ((None, ''), SECOND, 'odom_frame is empty'),
            ((None, 'odom'), SECOND, 'not needed without a measured scale'),
            ((transforms, '/odom'), 0, 'the stamp carries no time')):
        poses.use(*origin)
        assert poses.world_from_frame('camera', stamp_ns) is None
        assert poses.problem == problem
    assert poses.world_from_frame('camera', SECOND) is None
    assert poses.problem == "'odom' is not a coordinate frame of TF"
    for stamp_s in (5.0, 5.1):
        robot.move('odom', 'base', (stamp_s, 0.0, 0.0), stamp_s=stamp_s)
    robot.until(lambda: poses.world_from_frame('camera', 5_100_000_000) is not None)
    started_s = time.perf_counter()
    for _ in range(100):
        pose = poses.world_from_frame('/camera', 5_140_000_000)
    assert (time.perf_counter() - started_s) / 100 < 1e-3
    assert (pose[0, 3], poses.problem) == (pytest.approx(5.64), '')
    assert poses.world_from_frame('camera', 5_160_000_000) is None
    assert 'would need extrapolation into the future, 0.060 s from the newest' in poses.problem
    transforms.close()
    assert poses.world_from_frame('camera', 5_100_000_000) is None


def entities(node) -> dict[str, int]:
    """Count everything that a node holds, and the topics and services that others see of it."""
    name, namespace = node.get_name(), node.get_namespace()
    return {kind: len(list(getattr(node, kind))) for kind in (
        'subscriptions', 'publishers', 'timers', 'services', 'clients', 'guards', 'waitables')} | {
        'seen services': len(node.get_service_names_and_types_by_node(name, namespace)),
        'seen topics': len(node.get_subscriber_names_and_types_by_node(name, namespace))}


def test_nothing_is_left_behind(robot, monkeypatch):
    handles: list[object] = []
    create = robot.node.get_clock().create_jump_callback
    monkeypatch.setattr(robot.node.get_clock(), 'create_jump_callback',
                        lambda *args, **kwargs: handles.append(create(*args, **kwargs)))
    before = entities(robot.node)
    for _ in range(5):
        robot.listen().close()
    robot.until(lambda: entities(robot.node) == before)
    assert entities(robot.node) == before and handles == []


def test_every_failure_names_the_frames_or_the_time(robot):
    transforms = robot.listen()
    with pytest.raises(InputError, match='there are no transforms on /tf and /tf_static'):
        transforms.lookup('odom', 'base', SECOND)
    for stamp_s in (5.0, 6.0):
        robot.move('odom', 'base', (0.0, 0.0, 0.0), stamp_s=stamp_s)
    robot.until(lambda: transforms.lookup('odom', 'base', 6 * SECOND).any())
    for source, stamp_ns, text in (
            ('radar', 6 * SECOND, "'radar' is not a coordinate frame of TF"),
            ('base', -SECOND, "of 'base' is unknown: the time -1000000000 ns would need "
                              'extrapolation into the past'),
            ('base', 4 * SECOND, 'into the past, 1.000 s from the oldest at 5000000000 ns'),
            ('base', 2 ** 62, 'into the future')):
        with pytest.raises(InputError, match=text):
            transforms.lookup('odom', source, stamp_ns)
    transforms.close()


def test_a_jump_back_in_time_discards_moving_transforms(robot):
    robot.mount('base', 'lidar', (2.0, 0.0, 0.0))
    transforms = robot.listen()
    robot.move('odom', 'base', (1.0, 0.0, 0.0), stamp_s=100.0)
    robot.until(lambda: transforms.lookup('odom', 'lidar', 100 * SECOND).any())
    transforms.clear_moving()
    assert transforms.lookup('base', 'lidar', 100 * SECOND)[0, 3] == 2.0
    robot.move('odom', 'base', (1.0, 0.0, 0.0), stamp_s=5.0)
    robot.until(lambda: transforms.lookup('odom', 'lidar', 5 * SECOND).any())
    transforms.close()


def test_transforms_that_tf2_ignores_are_reported_with_their_frames(robot):
    transforms = robot.listen()
    for child, x, w in (('base', 0.0, 0.0), ('base', np.nan, 1.0), ('/arm', np.inf, 1.0),
                        ('odom', 0.0, 1.0), ('', 0.0, 1.0)):
        robot.move('odom', child, (x, 0.0, 0.0), (0.0, 0.0, 0.0, w), stamp_s=1.0)
    robot.send(b'\0\1\0\0\1\0\0\0')
    robot.move('odom', 'base', (3.0, 0.0, 0.0), stamp_s=20.0)
    robot.move('odom', 'base', (3.0, 0.0, 0.0), stamp_s=1.0)
    robot.until(lambda: transforms.lookup('odom', 'base', 20 * SECOND).any()
                and len(robot.reports) == 7)
    assert [frames for frames, _ in robot.reports] == [
        *(f"from '{child}' to 'odom'" for child in ('base', 'base', 'arm', 'odom', '')), '/tf',
        "from 'base' to 'odom'"]
    assert robot.reports[2][1] == ("the transform from 'arm' to 'odom' is ignored: the "
                                   'translation must be finite; got (inf, 0.0, 0.0)')
    assert robot.reports[5][1] == ('/tf: message must hold as many transforms as it says; got 8 '
                                   'bytes')
    assert 'its stamp 1000000000 ns is 19.0 s older' in robot.reports[6][1]
    transforms.close()


def test_the_executor_does_not_wake_for_transforms_and_yet_reads_them(robot):
    executor = SingleThreadedExecutor(context=robot.context)
    executor.add_node(robot.node)
    transforms = robot.listen()
    busy_s, started_s = 0.0, time.monotonic()
    for stamp in range(1, 6):
        robot.move('odom', 'base', (1.0, 0.0, 0.0), stamp_s=stamp)
        before_s = time.thread_time()
        executor.spin_once(timeout_sec=1.0)  # until the timer reads
        busy_s += time.thread_time() - before_s
    assert time.monotonic() - started_s > 4 * READ_PERIOD_S
    assert busy_s < 0.5 * READ_PERIOD_S
    assert transforms._buffer.lookup('odom', 'base', 3 * SECOND)[0, 3] == 1.0  # reads nothing
    transforms.close()
    executor.shutdown()


def test_without_tf2_msgs_the_reason_is_named(monkeypatch):
    for name in ('tf2_msgs', 'tf2_msgs.msg'):
        monkeypatch.setitem(sys.modules, name, None)
    transforms = Transforms('node', pytest.fail)
    with pytest.raises(InputError, match='tf2_msgs cannot be imported'):
        transforms.lookup('camera', 'lidar', 0)
    transforms.clear_moving()
    transforms.close()
