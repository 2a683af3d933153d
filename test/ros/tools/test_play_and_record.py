"""play_bag and record_bag as real processes over real DDS."""

from __future__ import annotations

from collections.abc import Sequence
import os
import re
import signal
import sys
import time

from bag_fixtures import (
    compressed_depth,
    header,
    image,
    offered_qos,
    serialize,
    START_NS,
    text,
    UNINSTALLED,
    webcam_jpeg,
    write_bag,
    write_mcap,
)
from node_harness import find_free_domain
import numpy as np
import pytest
from rosbags.interfaces import QosDurability, QosReliability

from marigold_ros.data.bags.messages import image_fields
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.ros.tools.command_line import split_ros_arguments
from marigold_ros.ros.tools.processes import LoggedProcess, make_domain_environment

pytestmark = pytest.mark.node
STRING = 'std_msgs/msg/String'
RATE_HZ = 20
MESSAGES = 20
PERIOD_NS = 10 ** 9 // RATE_HZ
SIM_NS = 12 * 10 ** 9


@pytest.fixture
def start(tmp_path):
    """Start tools in the ROS domain of this test; kill those still running at its end."""
    environment = {**os.environ, **make_domain_environment(find_free_domain())}
    processes = []

    def start_tool(tool: str, *arguments: object, prefix: Sequence[str] = ()) -> LoggedProcess:
        command = [*prefix, sys.executable, '-m', f'marigold_ros.ros.tools.{tool}',
                   *map(str, arguments)]
        processes.append(LoggedProcess(f'{tool}{len(processes)}', command, tmp_path, environment))
        return processes[-1]

    yield start_tool
    for process in processes:
        process.kill()


def finish(process: LoggedProcess, number: int | None = None) -> tuple[int, str]:
    """Send a signal, if any, and return the exit code and the output."""
    code = process.wait(30) if number is None else process.stop(number)
    return code, process.log.read_text()


def padded(data: bytes) -> bytes:
    """Pad to a multiple of 4 bytes, as RTPS does with payloads between processes."""
    return data + b'\0' * (-len(data) % 4)


def read(path, topic: str) -> list[tuple[int, bytes]]:
    """Return log times and bytes of a topic."""
    with open_bag(path) as bag:
        return [(message.log_time_ns, message.data) for message in bag.messages([topic])]


def recorded_clock_ns(path) -> list[int]:
    with open_bag(path) as bag:
        ticks = [bag.decode(message).clock for message in bag.messages(['/clock'])]
    return [tick.sec * 10 ** 9 + tick.nanosec for tick in ticks]


@pytest.fixture
def drive(tmp_path):
    """One second of notes, images, compressed images and transforms, and one latched note."""
    pixels = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    messages = [('/plan', 0, text('the plan'))]
    for number in range(MESSAGES):
        offset_ns = number * PERIOD_NS
        stamp_ns = START_NS + offset_ns
        messages += [
            ('/note', offset_ns, text(f'note {number}')),
            ('/image', offset_ns, image(np.roll(pixels, number), 'rgb8', stamp_ns)),
            ('/front/compressed', offset_ns, serialize(
                'sensor_msgs/msg/CompressedImage', header=header(stamp_ns), format='jpeg',
                data=np.frombuffer(webcam_jpeg(
                    np.full((32, 32, 3), number * 10, np.uint8))[1], np.uint8))),
            ('/depth/compressedDepth', offset_ns, compressed_depth(
                np.full((4, 6), 1000 + number, np.uint16), stamp_ns, 'rvl')),
            ('/absent', offset_ns, serialize(UNINSTALLED, text='a note'))]
    return write_bag(
        tmp_path / 'drive',
        {'/plan': STRING, '/note': STRING, '/image': 'sensor_msgs/msg/Image',
         '/front/compressed': 'sensor_msgs/msg/CompressedImage',
         '/depth/compressedDepth': 'sensor_msgs/msg/CompressedImage',
         '/absent': UNINSTALLED},
        messages,
        {'/plan': offered_qos(latched=True), '/image': offered_qos(reliable=False)})


def test_played_messages_are_recorded_unchanged_and_on_time(drive, tmp_path, start):
    recorder = start('record_bag', tmp_path / 'copy', '--all')
    player = start('play_bag', drive, '--wait-for-subscribers', 20, '--clock', 50)
    code, printed = finish(player)
    assert code == 0, printed
    assert (f'Skipped /absent ({UNINSTALLED}, 20 messages: message type not installed)'
            in printed)
    assert 'Played 81 messages on 5 topics' in printed
    max_lateness_ns = 1e6 * float(re.search(r'at most ([\d.]+) ms late', printed).group(1))
    code, printed = finish(recorder, signal.SIGINT)
    assert code == 0, printed

    for topic in ('/plan', '/note', '/image'):
        assert [data for _, data in read(tmp_path / 'copy', topic)] == [
            padded(data) for _, data in read(drive, topic)], topic
    with open_bag(tmp_path / 'copy') as bag:
        fronts = [bag.decode(message) for message in bag.messages(['/front'])]
        depths = [image_fields(bag.decode(message)) for message in bag.messages(['/depth'])]
        clock = [bag.decode(message).clock for message in bag.messages(['/clock'])]
        qos = {topic.name: topic.qos for topic in bag.topics}
    assert [front.data.tolist() for front in fronts] == [
        [number * 10] * 32 * 32 * 3 for number in range(MESSAGES)]
    assert [(depth.encoding, depth.data.view('<u2').tolist()) for depth in depths] == [
        ('16UC1', [1000 + number] * 24) for number in range(MESSAGES)]
    assert qos['/plan'][0].durability == QosDurability.TRANSIENT_LOCAL
    assert qos['/image'][0].reliability == QosReliability.BEST_EFFORT
    # 50 ticks a second over the 0.95 s of the bag, both ends counted.
    ticks_ns = np.array([tick.sec * 10 ** 9 + tick.nanosec for tick in clock])
    np.testing.assert_array_equal(ticks_ns, START_NS + np.arange(48) * 20_000_000)

    arrival_ns = np.array([log_time_ns for log_time_ns, _ in read(tmp_path / 'copy', '/note')])
    played_ns = arrival_ns - arrival_ns[0]
    # A busy machine delays the player, which reports it, and the reception.
    late_ns = played_ns - np.arange(MESSAGES) * PERIOD_NS
    assert np.abs(late_ns).max() < max_lateness_ns + 200_000_000


def test_rate_offset_remap_topics_and_loop(drive, tmp_path, start):
    recorder = start('record_bag', tmp_path / 'copy', '--topics', '/renamed', '/clock')
    player = start('play_bag', drive, '--topics', '/note', '--remap', '/note:=/renamed', '--rate',
                   4, '--start-offset', 0.5, '--loop', '--clock', '--wait-for-subscribers', 20)
    recorder.wait_for_log('Recording /renamed')
    time.sleep(4.0)
    code, printed = finish(player, signal.SIGINT)
    assert code == 0, printed
    assert finish(recorder, signal.SIGTERM)[0] == 0

    notes = read(tmp_path / 'copy', '/renamed')
    # The second half of the bag, ten notes, again and again.
    expected = [padded(text(f'note {10 + number % 10}')) for number in range(len(notes))]
    assert [data for _, data in notes] == expected
    assert len(notes) > 10
    gaps_ns = np.diff([log_time_ns for log_time_ns, _ in notes])
    assert np.median(gaps_ns) < PERIOD_NS / 2
    with open_bag(tmp_path / 'copy') as bag:
        clock = [bag.decode(message).clock for message in bag.messages(['/clock'])]
        assert {topic.name for topic in bag.topics} == {'/renamed', '/clock'}
    assert {tick.sec for tick in clock} == {START_NS // 10 ** 9}
    # 100 ticks a second are 40 ms apart at four times the speed; with the loop, time jumps back.
    nanoseconds = np.array([tick.nanosec for tick in clock])
    assert nanoseconds[0] == 500_000_000
    assert set(np.diff(nanoseconds)) == {40_000_000, 500_000_000 - nanoseconds.max()}


def test_the_clock_of_a_simulation_is_the_recorded_one(tmp_path, start):
    times_ns = [SIM_NS + number * 10 ** 7 for number in range(50)]
    simulation = write_bag(
        tmp_path / 'simulation', {'/clock': 'rosgraph_msgs/msg/Clock', '/note': STRING},
        [message for number, time_ns in enumerate(times_ns) for message in (
            ('/clock', number * 20_000_000, serialize(
                'rosgraph_msgs/msg/Clock', clock=header(time_ns).stamp)),
            ('/note', number * 20_000_000, text(f'note {number}')))])
    recorder = start('record_bag', tmp_path / 'copy', '--all')
    code, printed = finish(start('play_bag', simulation, '--topics', '/note', '--clock', 200,
                                 '--wait-for-subscribers', 20))
    assert code == 0, printed
    assert '/clock is the recorded one' in printed
    assert finish(recorder, signal.SIGINT)[0] == 0
    assert recorded_clock_ns(tmp_path / 'copy') == times_ns
    assert len(read(tmp_path / 'copy', '/note')) == 50


def test_a_clock_for_stamps_of_a_simulation_follows_them(tmp_path, start):
    pixels = np.zeros((4, 4), np.uint8)
    stamps_ns = [SIM_NS + number * PERIOD_NS for number in range(MESSAGES)]
    simulation = write_bag(tmp_path / 'simulation', {'/image': 'sensor_msgs/msg/Image'}, [
        ('/image', number * PERIOD_NS, image(pixels, 'mono8', stamp_ns))
        for number, stamp_ns in enumerate(stamps_ns)])
    recorder = start('record_bag', tmp_path / 'copy', '--all')
    code, printed = finish(start('play_bag', simulation, '--clock', 50,
                                 '--wait-for-subscribers', 20))
    assert code == 0, printed
    assert '/clock follows the stamps on /image, -1699999988 s from their log times' in printed
    assert finish(recorder, signal.SIGINT)[0] == 0
    clock_ns = recorded_clock_ns(tmp_path / 'copy')
    assert clock_ns == sorted(clock_ns)
    assert set(stamps_ns) <= set(clock_ns)
    assert max(np.diff(clock_ns)) <= 20_000_000


def test_messages_that_cannot_be_read_are_skipped_and_counted(tmp_path, start):
    """One topic of ROS 1 whose definition is wrong, an image, and topics of another world."""
    drive = write_mcap(tmp_path / 'drive.mcap', [
        ('/note', STRING, number, text(f'note {number}')) for number in range(3)],
        ros1=True, foreign=True, profile='')
    bad = write_mcap(tmp_path / 'bad.mcap', [
        ('/front/compressed', 'sensor_msgs/msg/CompressedImage', number, text('no image'))
        for number in range(3)] + [('/note', STRING, 3, text('a note'))])
    for path, played, skipped in (
            (drive, 'Played 3 messages on 1 topics', 'Skipped /incomplete (my_msgs/msg/Pair, '),
            (bad, 'Played 1 messages on 2 topics', ', 3 on /front/compressed skipped')):
        code, printed = finish(start('play_bag', path))
        assert code == 0, printed
        assert played in printed and skipped in printed
    assert printed.count('Skipped a message on /front/compressed: ') == 1


def test_latched_messages_reach_a_late_recorder(drive, tmp_path, start):
    player = start('play_bag', drive, '--topics', '/plan', '/note', '--rate', 0.05,
                   '--reliability', 'best_effort')
    time.sleep(2.0)
    recorder = start('record_bag', tmp_path / 'copy', '--topics', '/note', '/plan')
    recorder.wait_for_log('Recording /plan')
    time.sleep(1.5)
    code, printed = finish(recorder, signal.SIGINT)
    assert code == 0, printed
    assert finish(player, signal.SIGINT)[0] == 0
    assert [data for _, data in read(tmp_path / 'copy', '/plan')] == [padded(text('the plan'))]
    with open_bag(tmp_path / 'copy') as bag:
        assert bag.topic('/note').qos[0].reliability == QosReliability.BEST_EFFORT
        assert bag.topic('/plan').qos[0].reliability == QosReliability.RELIABLE


def test_recording_ends_by_itself_after_its_duration(tmp_path, start):
    code, printed = finish(start('record_bag', tmp_path / 'copy', '--topics', '/missing',
                                 '--duration', 0.5))
    assert code == 0, printed
    assert '     0  /missing' in printed
    with open_bag(tmp_path / 'copy') as bag:
        assert bag.topics == ()


def test_an_invalid_command_prints_its_error_without_a_traceback(drive, tmp_path, start):
    cases = [
        (('play_bag', tmp_path / 'nowhere'), 1, 'nowhere: it does not exist'),
        (('play_bag', drive, '--topics', '/imu'), 1, 'no topic /imu in the bag; it has'),
        (('play_bag', drive, '--start-offset', 100), 1, 'lasts 1.0 s'),
        (('play_bag', drive, '--topics', '/absent'), 1, 'no topic of .* can be published here'),
        (('play_bag', drive, '--rate', 0), 2, 'must be above 0'),
        (('play_bag', drive, '--remap', '/note'), 2, 'must be /old:=/new'),
        (('record_bag', drive, '--all'), 1, 'already exists'),
        (('record_bag', tmp_path / 'copy'), 2, 'one of the arguments --topics --all is required')]
    running = [(start(*map(str, command)), code, message) for command, code, message in cases]
    for process, code, message in running:
        returned, printed = finish(process)
        assert returned == code, printed
        assert 'Traceback' not in printed
        assert re.search(message, printed), printed


def test_a_full_disk_ends_the_recording_with_a_message(drive, tmp_path, start):
    three_megabytes_a_file = ['bash', '-c', 'ulimit -f 3072; exec "$@"', '--']
    start('play_bag', drive, '--topics', '/image', '--loop', '--rate', '3')
    code, printed = finish(start('record_bag', tmp_path / 'copy', '--topics', '/image',
                                 prefix=three_megabytes_a_file))
    assert code == 1
    assert f'cannot write to {tmp_path / "copy"}: File too large' in printed
    assert 'Traceback' not in printed
    # Its complete chunks, of at least a megabyte each, are kept.
    played = {padded(data) for _, data in read(drive, '/image')}
    kept = [data for _, data in read(tmp_path / 'copy' / 'copy.mcap', '/image')]
    assert len(kept) * len(kept[0]) >= 2 * 2 ** 20
    assert set(kept) <= played


def test_a_second_ctrl_c_changes_nothing(drive, tmp_path, start):
    recorder = start('record_bag', tmp_path / 'copy', '--topics', '/image')
    player = start('play_bag', drive, '--topics', '/image', '--loop')
    recorder.wait_for_log('Recording /image')
    time.sleep(1.0)
    for process in (recorder, player):
        process.send_signal(signal.SIGINT)
        code, printed = finish(process, signal.SIGINT)
        assert code == 0, printed
    assert len(read(tmp_path / 'copy', '/image')) > 5


def test_ros_arguments_are_split_from_the_tools_own():
    assert split_ros_arguments(
        ['bag', '--ros-args', '-r', '__node:=a', '--', '--remap', '/a:=/b']) == (
            ['bag', '--remap', '/a:=/b'], ['--ros-args', '-r', '__node:=a'])
