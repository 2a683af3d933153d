"""What play_bag publishes and when, without live topics."""

from __future__ import annotations

from dataclasses import replace
import time
from types import SimpleNamespace

from bag_fixtures import offered_qos, START_NS, text, write_bag
import pytest
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

from marigold_ros.data.bags.reader import BagTopic, open_bag
from marigold_ros.depth.errors import BagError
from marigold_ros.ros.tools import play_bag
from marigold_ros.ros.tools.play_bag import (
    plan_routes,
    Player,
    schedule_messages,
    split_playable_routes,
    ticks_until,
)
from marigold_ros.stop_flag import StopFlag

STRING = 'std_msgs/msg/String'
COMPRESSED = BagTopic('/camera/image_raw/compressed', 'sensor_msgs/msg/CompressedImage', 3, ())
INFO = BagTopic('/camera/camera_info', 'sensor_msgs/msg/CameraInfo', 3, ())


@pytest.fixture
def bag(tmp_path):
    """Open a bag with one text."""
    path = write_bag(tmp_path / 'bag', {'/note': 'std_msgs/msg/String'}, [('/note', 0, text('a'))])
    with open_bag(path) as opened:
        yield opened


def published(routes):
    """Name and type of each route."""
    return [(route.topic, route.msgtype) for route in routes]


def test_compressed_images_are_published_raw():
    route, = plan_routes([COMPRESSED])
    assert published([route]) == [('/camera/image_raw', 'sensor_msgs/msg/Image')]
    assert route.decompresses


def test_depth_is_published_raw_from_its_lossless_transport_that_has_messages():
    depth = '/camera/depth/image_raw'
    packed = [BagTopic(f'{depth}/{suffix}', 'sensor_msgs/msg/CompressedImage', count, ())
              for suffix, count in (('compressed', 3), ('compressedDepth', 3))]
    assert published(plan_routes(packed)) == [
        (f'{depth}/compressed', 'sensor_msgs/msg/CompressedImage'),
        (depth, 'sensor_msgs/msg/Image')]
    without_messages = replace(packed[1], message_count=0)
    assert (depth, 'sensor_msgs/msg/Image') == published(
        plan_routes([packed[0], without_messages]))[0]


def test_compressed_images_stay_compressed_on_request():
    as_recorded = [('/camera/image_raw/compressed', 'sensor_msgs/msg/CompressedImage')]
    assert published(plan_routes([COMPRESSED], decompress=False)) == as_recorded
    raw = BagTopic('/camera/image_raw', 'sensor_msgs/msg/Image', 3, ())
    assert as_recorded[0] in published(plan_routes([COMPRESSED, raw]))


def test_a_compressed_image_replaces_a_raw_one_without_messages_or_that_cannot_be_read():
    raw = BagTopic('/camera/image_raw', 'sensor_msgs/msg/Image', 0, ())
    route, = plan_routes([raw, COMPRESSED])
    assert (route.recorded, route.topic, route.decompresses) == (COMPRESSED, raw.name, True)
    assert published(plan_routes([raw, COMPRESSED], decompress=False)) == [
        (topic.name, topic.msgtype) for topic in (raw, COMPRESSED)]
    unreadable = replace(raw, message_count=3, unreadable='messages in JSON')
    first, second = plan_routes([unreadable, COMPRESSED])    # the first will be named and skipped
    assert (first.recorded, second.recorded, second.topic) == (unreadable, COMPRESSED, raw.name)


@pytest.mark.parametrize('name', ['/camera/image_raw', '/camera/image_raw/compressed'])
def test_a_topic_is_chosen_by_its_recorded_or_raw_name(name):
    assert published(plan_routes([INFO, COMPRESSED], chosen=[name], remap={name: '/front'})) == [
        ('/front', 'sensor_msgs/msg/Image')]


@pytest.mark.parametrize('request_', [{'chosen': ['/imu']}, {'remap': {'/imu': '/imu2'}}])
def test_the_error_of_an_unknown_topic_lists_the_existing_ones(request_):
    with pytest.raises(BagError, match=r'no topic /imu .*/camera/camera_info '
                                       r'\(sensor_msgs/msg/CameraInfo\)'):
        plan_routes([INFO], **request_)


def test_earlier_latched_messages_are_due_at_the_start(tmp_path):
    path = write_bag(
        tmp_path / 'bag', {'/tf_static': STRING, '/note': STRING},
        [('/tf_static', 0, text('mounting')), ('/note', 0, text('too early')),
         ('/note', 2_000_000_000, text('in time'))],
        {'/tf_static': offered_qos(latched=True)})
    start_ns = START_NS + 1_000_000_000
    with open_bag(path) as bag:
        scheduled = schedule_messages(bag, plan_routes(bag.topics), start_ns)
        due = [(time_ns - start_ns, message.data) for time_ns, _, message in scheduled]
    assert due == [(0, text('mounting')), (1_000_000_000, text('in time'))]


def test_the_clock_ticks_up_to_and_including_the_message():
    assert list(ticks_until(100, 10, 120)) == [100, 110, 120]
    assert list(ticks_until(130, 10, 129)) == []


def test_nodes_know_the_time_before_the_first_message(bag):
    """Else the first message of a loop seems as old as the bag is long."""
    published = []

    class Node:
        def create_publisher(self, _, topic, __):
            return SimpleNamespace(
                publish=lambda message: published.append((topic, time.monotonic())))

    with StopFlag() as stop:
        player = Player(Node(), bag, plan_routes(bag.topics), clock_hz=100.0)
        player.play(bag.start_ns, 1.0, stop)
    (clock, clock_s), (note, note_s) = published
    assert (clock, note) == ('/clock', '/note')
    assert note_s - clock_s >= 0.1


def test_a_type_with_another_definition_is_skipped(bag, monkeypatch):
    other = get_typestore(Stores.EMPTY)
    other.register(get_types_from_msg('int32 data', 'std_msgs/msg/String'))
    monkeypatch.setattr(play_bag, 'read_installed_typestore', lambda msgtype: other)
    assert split_playable_routes(bag, plan_routes(bag.topics)) == (
        [], ['/note (std_msgs/msg/String, 1 messages: installed definition differs)'])


def test_a_second_type_on_a_live_topic_is_skipped(tmp_path):
    """Also one that the player publishes itself."""
    path = write_bag(tmp_path / 'bag', {
        '/a': STRING, '/b': 'std_msgs/msg/Header', '/clock': STRING}, [('/a', 0, text('a'))])
    with open_bag(path) as bag:
        routes, skipped = split_playable_routes(bag, plan_routes(bag.topics, remap={'/b': '/a'}))
    assert published(routes) == [('/a', STRING)]
    assert skipped == [
        '/b (std_msgs/msg/Header, 0 messages: std_msgs/msg/String is published on /a)',
        '/clock (std_msgs/msg/String, 0 messages: rosgraph_msgs/msg/Clock is published on /clock)']


def test_an_invalid_topic_name_is_skipped(bag):
    routes, skipped = split_playable_routes(bag, plan_routes(bag.topics, remap={'/note': '/1 a'}))
    assert (routes, skipped) == (
        [], ['/note (std_msgs/msg/String, 1 messages: invalid topic name in ROS 2)'])
