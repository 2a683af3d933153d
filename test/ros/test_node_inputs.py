"""Which topics a camera is heard on, with which QoS, and what is read of a message unopened."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from node_harness import camera_info, compressed, free_domain, image, stamp_of
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from marigold_ros.depth.errors import ConfigError, MessageError
from marigold_ros.ros.calibration import CalibrationCache
from marigold_ros.ros.camera_input import CameraInput, InputTopics
from marigold_ros.ros.conversions import (
    camera_from_message,
    header_of,
    peek_header,
    rgb_from_message,
)
from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.frame_buffer import NewestFrames, ReceivedFrame

RAW, COMPRESSED = '/camera/image_raw', '/camera/image_raw/compressed'
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


@pytest.fixture
def make_node():
    """Make plain nodes with ROS arguments, each in a domain of its own."""
    made = []

    def make(*arguments: str):
        context = rclpy.Context()
        rclpy.init(args=['--ros-args', *arguments], context=context, domain_id=free_domain())
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
    (('-r', 'camera/image_raw:=/usb/color/compressed'),
     '/usb/color', '/usb/color/compressed', '/usb/camera_info', False),
    (('-r', 'camera/image_raw:=/usb/color', '-r', 'camera/camera_info:=/calibration'),
     '/usb/color', '/usb/color/compressed', '/calibration', False),
    (('-r', '__ns:=/robot'),
     '/robot/camera/image_raw', '/robot/camera/image_raw/compressed',
     '/robot/camera/camera_info', False),
])
def test_the_other_input_topics_follow_a_remapped_image_topic(
        make_node, arguments, image_topic, compressed, info, rectified):
    topics = InputTopics(make_node(*arguments), 'camera')
    assert (topics.image, topics.compressed, topics.camera_info, topics.looks_rectified) == (
        image_topic, compressed, info, rectified)


def hear(node, transport: str = 'auto', received: list | None = None) -> CameraInput:
    """Listen to the only camera."""
    received = [] if received is None else received
    return CameraInput(node, 'camera', InputTopics(node, 'camera'), transport,
                       CalibrationCache(False), received.append, Reporter(node))


def heard(node) -> dict[str, ReliabilityPolicy]:
    """Image topics that the node subscribes to, and how."""
    return {topic: info.qos_profile.reliability for topic in (RAW, COMPRESSED)
            for info in node.get_subscriptions_info_by_topic(topic)}


def offer(node, message_type: type, topic: str, reliability: ReliabilityPolicy):
    return node.create_publisher(message_type, topic,
                                 QoSProfile(depth=1, reliability=reliability))


def test_the_subscription_follows_what_is_published(make_node):
    node = make_node()
    camera = hear(node)
    assert heard(node) == {RAW: BEST_EFFORT}  # hears both kinds that may still come
    steps = []
    packed = offer(node, CompressedImage, COMPRESSED, RELIABLE)
    camera.follow()
    steps.append(heard(node))
    raw = offer(node, Image, RAW, RELIABLE)
    camera.follow()
    steps.append(heard(node))
    second = offer(node, Image, RAW, BEST_EFFORT)
    camera.follow()
    steps.append(heard(node))
    node.destroy_publisher(second)
    camera.follow()
    steps.append(heard(node))
    node.destroy_publisher(raw)
    node.destroy_publisher(packed)
    camera.follow()
    steps.append(heard(node))
    camera.close()
    assert steps == [{COMPRESSED: RELIABLE}, {RAW: RELIABLE}, {RAW: BEST_EFFORT},
                     {RAW: RELIABLE}, {RAW: RELIABLE}]
    assert heard(node) == {}


def test_a_transport_that_is_asked_for_is_kept(make_node):
    node = make_node()
    offer(node, Image, RAW, RELIABLE)
    camera = hear(node, 'compressed')
    assert list(heard(node)) == [COMPRESSED]
    camera.close()


def test_the_users_reliability_rules_over_what_is_offered(make_node):
    node = make_node('-p', f'qos_overrides.{RAW}.subscription.reliability:=best_effort')
    offer(node, Image, RAW, RELIABLE)
    camera = hear(node)
    camera.follow()
    assert heard(node) == {RAW: BEST_EFFORT}
    camera.close()

    node = make_node('-p', f'qos_overrides.{RAW}.subscription.reliability:=sometimes')
    with pytest.raises(ConfigError, match="auto, reliable or best_effort; got 'sometimes'"):
        hear(node)


def test_an_incompatible_publisher_is_reported(make_node, capfd):
    node = make_node('-p', f'qos_overrides.{RAW}.subscription.reliability:=reliable')
    camera = hear(node)
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


@pytest.mark.parametrize('frame_id', ['', 'x', 'camera_optical_frame', 'größe'])
def test_the_header_of_an_unopened_message_is_the_messages_own(frame_id):
    message = image(np.zeros((2, 2, 3), np.uint8), 1_700_000_000_123_456_789)
    message.header.frame_id = frame_id
    stamp_ns, seen, end = peek_header(serialize_message(message))
    assert (stamp_ns, seen) == (stamp_of(message.header), frame_id)
    assert end == 16 + len(frame_id.encode()) + 1


@pytest.mark.parametrize('keep', [0, 3, 10, 18, 60])
def test_a_message_cut_short_is_an_error_and_no_crash(keep):
    message = serialize_message(image(np.zeros((2, 2, 3), np.uint8), 5))[:keep]
    with pytest.raises(MessageError):
        if keep < 20:
            peek_header(message)
        else:
            rgb_from_message(message, compressed=False, max_pixels=100)


SOUND = {'raw': bytes(serialize_message(image(np.full((6, 8, 3), 7, np.uint8), 5))),
         'compressed': bytes(serialize_message(compressed(b'\xff\xd8' + bytes(50), 5))),
         'info': bytes(serialize_message(camera_info(5)))}


@settings(derandomize=True, deadline=None, max_examples=600)
@given(kind=st.sampled_from(sorted(SOUND)), length=st.one_of(st.none(), st.integers(0, 400)),
       changes=st.lists(st.tuples(st.integers(0, 120), st.one_of(
           st.sampled_from([0, 1, 127, 128, 255]), st.integers(0, 255))), max_size=3))
def test_any_serialized_message_is_read_or_is_a_message_error(kind, length, changes):
    message = bytearray(SOUND[kind])
    for at, value in changes:
        message[at % len(message)] = value
    message = bytes(message[:length])
    try:
        stamp_ns, frame_id, end = peek_header(message)
        assert header_of(stamp_ns, frame_id).stamp.nanosec < 10 ** 9 and end <= len(message)
        if kind == 'info':
            assert camera_from_message(message).width > 0
        else:
            rgb = rgb_from_message(message, compressed=kind == 'compressed', max_pixels=1000)
            assert rgb.dtype == np.uint8 and rgb.size <= 3000
    except MessageError:
        return
    assert length is None or length >= 52  # a header and more


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=40))
def test_any_bytes_have_a_header_or_are_a_message_error(message):
    try:
        stamp_ns, _, end = peek_header(message)
    except MessageError:
        return
    order = 'little' if message[1] & 1 else 'big'
    words = [int.from_bytes(message[at:at + 4], order) for at in (4, 8, 12)]
    assert stamp_ns % 10 ** 9 == words[1]
    assert stamp_ns // 10 ** 9 == words[0] - (2 ** 32 if words[0] >= 2 ** 31 else 0)
    assert end == 16 + words[2] <= len(message)


def test_a_stamp_that_is_no_time_is_refused():
    message = bytearray(SOUND['raw'])
    message[8:12] = (10 ** 9).to_bytes(4, 'little')
    with pytest.raises(MessageError, match='`nanosec` .* below 1000000000; got 1000000000'):
        peek_header(bytes(message))


def test_an_image_of_more_pixels_than_allowed_is_refused():
    message = serialize_message(image(np.zeros((4, 5, 3), np.uint8), 5))
    assert rgb_from_message(message, compressed=False, max_pixels=20).shape == (4, 5, 3)
    with pytest.raises(MessageError, match='at most 19 pixels .max_input_pixels.; got 5 x 4'):
        rgb_from_message(message, compressed=False, max_pixels=19)


def info(stamp_ns: int, **changes) -> bytes:
    return serialize_message(camera_info(stamp_ns, **changes))


def test_a_camera_info_is_matched_by_stamp_and_else_the_last_one_serves():
    cache = CalibrationCache(rectified=False)
    assert cache.find(1, 120, 160).problem == 'no camera_info'
    cache.put(info(1, f=100.0))
    cache.put(info(2, f=200.0))
    found = {stamp_ns: cache.find(stamp_ns, 120, 160) for stamp_ns in (1, 2, 3)}
    assert {ns: (each.camera.K[0, 0], each.by_stamp) for ns, each in found.items()} == {
        1: (100.0, True), 2: (200.0, True), 3: (200.0, False)}
    # A camera_info that is latched comes once: a jump back in time must not lose it.
    cache.forget_stamps()
    last = cache.find(1, 120, 160)
    assert (last.camera.K[0, 0], last.by_stamp) == (200.0, False)


def test_only_a_raw_image_is_rectified_and_a_rectified_one_is_described_by_P():
    message = camera_info(1, d=(0.1, 0.0, 0.0, 0.0, 0.0))
    message.p[0] = message.p[5] = 90.0
    raw, rectified = CalibrationCache(rectified=False), CalibrationCache(rectified=True)
    for cache in (raw, rectified):
        cache.put(serialize_message(message))
        assert cache.find(1, 120, 160).camera.K[0, 0] == 90.0
    assert raw.find(1, 120, 160).rectifier is not None
    assert rectified.find(1, 120, 160).rectifier is None
    # The maps are made once, whatever the stamp.
    message.header.stamp.sec, message.header.stamp.nanosec = 7, 0
    first = raw.find(1, 120, 160).rectifier
    raw.put(serialize_message(message))
    assert raw.find(7 * 10 ** 9, 120, 160).rectifier is first


def test_a_camera_info_of_the_whole_sensor_fits_the_image_that_its_binning_and_roi_leave():
    """160 x 120 of 400 x 300: a window of 320 x 240 at (40, 30), two pixels in one."""
    message = camera_info(1, width=400, height=300)
    message.roi.x_offset, message.roi.y_offset = 40, 30
    message.roi.width, message.roi.height = 320, 240
    message.binning_x = message.binning_y = 2
    cache = CalibrationCache(rectified=False)
    cache.put(serialize_message(message))
    found = cache.find(1, 120, 160)
    assert found.problem == ''
    # f / 2; (200 - 40) / 2; (150 - 30) / 2.
    np.testing.assert_array_equal(found.camera.K, [[50, 0, 80], [0, 50, 60], [0, 0, 1]])


def test_a_camera_info_of_another_size_is_no_calibration_even_in_the_same_proportion():
    """Whether such an image was binned, scaled or cropped is what binning and roi would say."""
    cache = CalibrationCache(rectified=False)
    cache.put(info(1, width=320, height=240))
    found = cache.find(1, 120, 160)
    assert found.problem == 'camera_info is for 320 x 240, the image is 160 x 120'
    assert (found.camera.width, found.camera.height) == (160, 120)
    assert not found.camera.is_calibrated


def test_the_newest_frame_supersedes_the_one_of_its_own_camera_only():
    def frame(camera: str, stamp_ns: int) -> ReceivedFrame:
        return ReceivedFrame(camera, b'', False, stamp_ns, '', 0.0)

    newest = NewestFrames()
    assert newest.put(frame('front', 1)) is None
    assert newest.put(frame('rear', 2)) is None
    assert newest.put(frame('front', 3)) == frame('front', 1)
    assert sorted(each.stamp_ns for each in newest.take()) == [2, 3]
    assert newest.take() == []


def test_a_camera_info_topic_feeds_the_calibration(make_node):
    node = make_node()
    calibrations = CalibrationCache(False)
    camera = CameraInput(node, 'camera', InputTopics(node, 'camera'), 'auto', calibrations,
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
