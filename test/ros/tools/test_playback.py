"""What play_bag publishes and when, without live topics."""

from __future__ import annotations

import time

from bag_fixtures import offered_qos, START_NS, text, write_bag
import pytest

from marigold_ros.data.bags.reader import BagTopic, open_bag
from marigold_ros.depth.errors import BagError
from marigold_ros.ros.tools.playback import (
    AHEAD_MESSAGES,
    plan_routes,
    prepared_ahead,
    scheduled,
    ticks_until,
)

STRING = 'std_msgs/msg/String'
COMPRESSED = BagTopic('/camera/image_raw/compressed', 'sensor_msgs/msg/CompressedImage', 3, ())
INFO = BagTopic('/camera/camera_info', 'sensor_msgs/msg/CameraInfo', 3, ())


def published(routes):
    """Name and type of each route."""
    return [(route.topic, route.msgtype) for route in routes]


def test_compressed_images_are_published_raw():
    route, = plan_routes([COMPRESSED])
    assert published([route]) == [('/camera/image_raw', 'sensor_msgs/msg/Image')]
    assert route.decompresses


def test_compressed_images_stay_so_on_request_or_beside_their_raw_twin():
    as_recorded = [('/camera/image_raw/compressed', 'sensor_msgs/msg/CompressedImage')]
    assert published(plan_routes([COMPRESSED], decompress=False)) == as_recorded
    raw = BagTopic('/camera/image_raw', 'sensor_msgs/msg/Image', 3, ())
    assert as_recorded[0] in published(plan_routes([COMPRESSED, raw]))


@pytest.mark.parametrize('name', ['/camera/image_raw', '/camera/image_raw/compressed'])
def test_a_topic_is_chosen_and_renamed_by_its_recorded_or_its_raw_name(name):
    assert published(plan_routes([INFO, COMPRESSED], chosen=[name], remap={name: '/front'})) == [
        ('/front', 'sensor_msgs/msg/Image')]


@pytest.mark.parametrize('request_', [{'chosen': ['/imu']}, {'remap': {'/imu': '/imu2'}}])
def test_a_name_that_is_not_in_the_bag_lists_those_that_are(request_):
    with pytest.raises(BagError, match=r'no topic /imu .*/camera/camera_info '
                                       r'\(sensor_msgs/msg/CameraInfo\)'):
        plan_routes([INFO], **request_)


def test_latched_messages_from_before_the_start_are_due_at_the_start(tmp_path):
    path = write_bag(
        tmp_path / 'bag', {'/tf_static': STRING, '/note': STRING},
        [('/tf_static', 0, text('mounting')), ('/note', 0, text('too early')),
         ('/note', 2_000_000_000, text('in time'))],
        {'/tf_static': offered_qos(latched=True)})
    start_ns = START_NS + 1_000_000_000
    with open_bag(path) as bag:
        due = [(time_ns - start_ns, message.data)
               for time_ns, _, message in scheduled(bag, plan_routes(bag.topics), start_ns)]
    assert due == [(0, text('mounting')), (1_000_000_000, text('in time'))]


def test_messages_are_made_ready_in_order_before_they_are_due():
    made = []

    def prepare(item):
        made.append(item)
        return -item

    ready = prepared_ahead(range(100), prepare)
    assert next(ready) == 0
    time.sleep(0.1)
    assert made == list(range(AHEAD_MESSAGES + 1))
    assert list(ready) == [-item for item in range(1, 100)]


def test_an_error_while_reading_ahead_reaches_the_player():
    def damaged():
        yield 1
        raise BagError('damaged')

    with pytest.raises(BagError, match='damaged'):
        list(prepared_ahead(damaged(), abs))


def test_the_clock_ticks_up_to_and_with_the_message():
    assert list(ticks_until(100, 10, 120)) == [100, 110, 120]
    assert list(ticks_until(130, 10, 129)) == []
