"""The time of /clock: log times, or stamps of another time base."""

from __future__ import annotations

from bag_fixtures import header, image, serialize, START_NS, text, write_bag
import numpy as np
import pytest

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.ros.tools.bag_clock import BagClock, ClockSource, find_clock_source

IMAGE = 'sensor_msgs/msg/Image'
SIM_NS, MS = 12 * 10 ** 9, 10 ** 6
PIXELS = np.zeros((2, 2), np.uint8)


def picture(stamp_ns):
    return image(PIXELS, 'mono8', stamp_ns)


def source_of(path, stamps_ns, *, start_ms=0, topic='/image'):
    """Write a bag of images 100 ms apart with these stamps, and find what the clock follows."""
    write_bag(path, {topic: IMAGE, '/note': 'std_msgs/msg/String'}, [
        ('/note', 0, text('a')),
        *((topic, number * 100 * MS, picture(stamp)) for number, stamp in enumerate(stamps_ns))])
    with open_bag(path) as bag:
        return find_clock_source(bag, bag.topics, START_NS + start_ms * MS)


@pytest.mark.parametrize('delay_ms', [-900, 0, 30, 900])
def test_the_clock_of_a_robot_shows_log_times(tmp_path, delay_ms):
    stamps = [START_NS + (number * 100 - delay_ms) * MS for number in range(12)]
    assert source_of(tmp_path / 'bag', stamps) is None
    assert BagClock(None).time_ns(START_NS + 7) == START_NS + 7


@pytest.mark.parametrize('first_ns', [SIM_NS, START_NS - 2 * 10 ** 9, START_NS + 10 ** 12])
def test_stamps_of_another_time_base_are_followed(tmp_path, first_ns):
    stamps = [first_ns + number * 100 * MS for number in range(12)]
    source = source_of(tmp_path / 'bag', stamps, start_ms=250)
    assert (source.topic.name, source.log_time_ns, source.stamp_ns) == (
        '/image', START_NS + 300 * MS, first_ns + 300 * MS)


@pytest.mark.parametrize('stamps', [[], [0] * 12, [SIM_NS] * 12])
def test_without_stamps_the_clock_shows_log_times(tmp_path, stamps):
    assert source_of(tmp_path / 'bag', stamps) is None


def test_images_are_followed_before_other_messages(tmp_path):
    at = {'/a': 'std_msgs/msg/Header', '/b': IMAGE, '/c': 'sensor_msgs/msg/Range'}
    measured = serialize('sensor_msgs/msg/Range', header=header(SIM_NS), radiation_type=0,
                         field_of_view=0.0, min_range=0.0, max_range=0.0, range=0.0, variance=0.0)
    write_bag(tmp_path / 'bag', at, [('/b', 0, picture(SIM_NS)), ('/c', 0, measured)])
    with open_bag(tmp_path / 'bag') as bag:
        assert find_clock_source(bag, bag.topics, START_NS).topic.name == '/b'
        others = [topic for topic in bag.topics if topic.name != '/b']
        assert find_clock_source(bag, others, START_NS).topic.name == '/c'


def clock_from(log_ms, stamp_ms):
    return BagClock(ClockSource(None, START_NS + log_ms * MS, SIM_NS + stamp_ms * MS))


def show(clock, log_ms):
    """Return the time of the clock after the start of the simulation, ms."""
    return (clock.time_ns(START_NS + log_ms * MS) - SIM_NS) / MS


def follow(clock, log_ms, stamp_ms):
    clock.follow(START_NS + log_ms * MS, picture(SIM_NS + stamp_ms * MS))


def test_the_clock_runs_at_the_mean_rate_of_the_stamps():
    clock = clock_from(100, 0)
    assert [show(clock, at) for at in (50, 100, 150)] == [-50, 0, 50]
    # The simulation takes two seconds for each of its own; the clock never steps back for that.
    follow(clock, 300, 100)
    assert [show(clock, at) for at in (300, 400)] == [100, 150]
    follow(clock, 500, 200)
    assert [show(clock, at) for at in (500, 600)] == [200, 250]


def test_a_burst_after_a_pause_does_not_make_the_clock_run_ahead():
    clock = clock_from(0, 0)
    follow(clock, 1, 100)
    assert show(clock, 101) == 200
    follow(clock, 110, 150)    # older than what the clock shows
    assert show(clock, 110) == 200


def test_the_clock_steps_back_only_where_the_simulation_is_reset():
    clock = clock_from(0, 5000)
    follow(clock, 100, 4990)    # out of order
    assert show(clock, 100) == 5100
    follow(clock, 200, 20)
    assert [show(clock, at) for at in (200, 230)] == [20, 50]


def test_the_clock_is_never_below_zero():
    clock = BagClock(ClockSource(None, START_NS, 10 ** 9))
    assert clock.time_ns(START_NS - 3 * 10 ** 9) == 0


def test_a_message_without_a_header_does_not_move_the_clock():
    clock = clock_from(0, 0)
    clock.follow(START_NS + 50 * MS, b'\0\1\0\0')
    assert show(clock, 60) == 60
