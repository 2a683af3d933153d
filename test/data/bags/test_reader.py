"""Reading and writing bags."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
import shutil
import sqlite3
from types import SimpleNamespace

from bag_fixtures import (
    compressed_image,
    FOREIGN_SCHEMAS,
    image,
    offered_qos,
    serialize,
    START_NS,
    STORE,
    text,
    transform,
    TYPES,
    write_bag,
    write_mcap,
)
from mcap.reader import make_reader
from mcap.writer import Writer as McapWriter
from mcap_ros2.decoder import DecoderFactory
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores

from marigold_ros.data.bags.bag_file import Channel, Definition
from marigold_ros.data.bags.messages import decompress_message, image_fields, read_stamp_ns
from marigold_ros.data.bags.reader import Bag, BagMessage, open_bag
from marigold_ros.data.bags.writer import BagWriter
from marigold_ros.depth.errors import BagError, MessageError
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb

STRING = 'std_msgs/msg/String'
# 3 x 4 pixels, all different.
RGB = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


@pytest.fixture
def bag_path(tmp_path):
    """Two texts with an image between them, 0.5 s apart."""
    return write_bag(tmp_path / 'bag', {'/note': STRING, '/image': 'sensor_msgs/msg/Image'},
                     [('/note', 0, text('first')),
                      ('/image', 500_000_000, image(RGB, 'rgb8', START_NS + 7)),
                      ('/note', 1_000_000_000, text('last'))],
                     {'/note': offered_qos(latched=True)})


def write_ros1(path: Path) -> Path:
    """Write one CameraInfo of ROS 1: its Header has a seq, its matrices are capital letters."""
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    msgtype = 'sensor_msgs/msg/CameraInfo'
    message = types[msgtype](
        header=types['std_msgs/msg/Header'](
            seq=99, stamp=types['builtin_interfaces/msg/Time'](sec=3, nanosec=4), frame_id='cam'),
        height=480, width=640, distortion_model='plumb_bob', D=np.array([0.5]),
        K=np.arange(9.0), R=np.arange(9.0), P=np.arange(12.0), binning_x=1, binning_y=2,
        roi=types['sensor_msgs/msg/RegionOfInterest'](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False))
    with Ros1Writer(path) as writer:
        connection = writer.add_connection('/camera_info', msgtype, typestore=store, latching=1)
        writer.write(connection, START_NS, store.serialize_ros1(message, msgtype))
    return path


def write_sqlite3(path: Path, messages: list[bytes]) -> Path:
    """Write texts to a ROS 2 bag of the older sqlite3 format, 1 ns apart."""
    with Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection('/note', STRING, typestore=STORE)
        for offset, data in enumerate(messages):
            writer.write(connection, START_NS + offset, data)
    return path


def test_messages_are_read_in_time_order_with_their_exact_bytes(bag_path):
    with open_bag(bag_path) as bag:
        messages = list(bag.messages())
    assert messages == [
        BagMessage('/note', STRING, START_NS, text('first')),
        BagMessage('/image', 'sensor_msgs/msg/Image', START_NS + 500_000_000,
                   image(RGB, 'rgb8', START_NS + 7)),
        BagMessage('/note', STRING, START_NS + 1_000_000_000, text('last'))]


def test_a_bag_lists_its_topics_and_times(bag_path):
    with open_bag(bag_path) as bag:
        topics = {topic.name: topic for topic in bag.topics}
        assert (bag.start_ns, bag.end_ns) == (START_NS, START_NS + 1_000_000_001)
    assert list(topics) == ['/image', '/note']
    assert (topics['/note'].msgtype, topics['/note'].message_count) == (STRING, 2)
    assert topics['/note'].qos == (offered_qos(latched=True),)
    assert topics['/image'].qos == ()


def test_topics_and_times_can_be_chosen(bag_path):
    with open_bag(bag_path) as bag:
        notes = [bag.decode(message).data for message in bag.messages(['/note'])]
        late = [message.topic for message in bag.messages(start_ns=START_NS + 1)]
        early = [message.topic for message in bag.messages(stop_ns=START_NS + 1_000_000_000)]
    assert notes == ['first', 'last']
    assert late == ['/image', '/note']
    assert early == ['/note', '/image']


def test_a_single_mcap_file_is_a_bag(bag_path):
    with open_bag(bag_path / 'bag.mcap') as bag:
        assert len(list(bag.messages())) == 3


def test_sqlite3_bags_are_read(tmp_path):
    with open_bag(write_sqlite3(tmp_path / 'old', [text('a'), text('b')])) as bag:
        assert [message.data for message in bag.messages()] == [text('a'), text('b')]


def test_ros1_messages_are_converted_to_ros2(tmp_path):
    with open_bag(write_ros1(tmp_path / 'one.bag')) as bag:
        topic = bag.topic('/camera_info', 'sensor_msgs/msg/CameraInfo')
        message, = bag.messages()
        info = bag.decode(message)
    assert message.data == serialize(
        'sensor_msgs/msg/CameraInfo', header=info.header, height=480, width=640,
        distortion_model='plumb_bob', d=np.array([0.5]), k=np.arange(9.0), r=np.arange(9.0),
        p=np.arange(12.0), binning_x=1, binning_y=2, roi=info.roi)
    assert read_stamp_ns(info) == 3_000_000_004
    assert info.header.frame_id == 'cam'
    assert topic.qos[0].durability.name == 'TRANSIENT_LOCAL'


def test_an_empty_bag_has_no_messages(tmp_path):
    with open_bag(write_bag(tmp_path / 'empty', {'/note': STRING}, [])) as bag:
        assert list(bag.messages()) == []
        assert bag.duration_s == 0.0


def test_a_missing_path_is_rejected(tmp_path):
    with pytest.raises(BagError, match='cannot open bag .*nowhere: it does not exist'):
        with open_bag(tmp_path / 'nowhere'):
            pass


@pytest.mark.parametrize('name, content', [
    ('text.mcap', b'no bag at all'), ('empty.mcap', b''), ('text.db3', b'no bag at all'),
    ('text.bag', b'no bag at all'), ('text.txt', b'no bag at all')])
def test_a_file_that_is_not_a_bag_is_rejected(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BagError, match=rf'cannot open bag .*{name}: unreadable or truncated \('):
        with open_bag(tmp_path / name):
            pass


def test_a_truncated_bag_is_rejected_without_recover(bag_path):
    whole = (bag_path / 'bag.mcap').read_bytes()
    (bag_path / 'bag.mcap').write_bytes(whole[:len(whole) // 2])
    with pytest.raises(BagError, match='unreadable or truncated'):
        with open_bag(bag_path):
            pass


def test_messages_before_damage_are_read(tmp_path):
    # Two megabytes a message make a chunk of each.
    big = text('x' * 2_000_000)
    path = write_bag(tmp_path / 'bag', {'/note': STRING},
                     [('/note', 0, big), ('/note', 250_000_000, big)])
    content = bytearray((path / 'bag.mcap').read_bytes())
    second = content.rindex(b'x' * 100) - 1_500_000
    # The length of the second message, 31 bytes before its text: 1 opcode, 8 length, 22 header.
    start = content.rindex(text('x')[:4], 0, second) - 31 + 1
    content[start:start + 8] = b'\xff' * 7 + b'\x00'
    (path / 'bag.mcap').write_bytes(content)
    with open_bag(path) as bag:
        messages = bag.messages()
        assert next(messages).data == big
        with pytest.raises(BagError, match='is damaged 0.000 s after its start'):
            next(messages)


def test_the_error_of_an_unknown_topic_lists_the_existing_ones(bag_path):
    with open_bag(bag_path) as bag:
        with pytest.raises(BagError, match=r'no topic /depth .*/image \(sensor_msgs/msg/Image\), '
                                           r'/note \(std_msgs/msg/String\)'):
            list(bag.messages(['/depth']))
        with pytest.raises(BagError, match=r'no topic /note \(sensor_msgs/msg/Image\)'):
            bag.topic('/note', 'sensor_msgs/msg/Image')


def test_a_topic_that_cannot_be_read_says_why_when_it_is_asked_for(tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', [('/note', STRING, 0, text('a'))], foreign=True)
    with open_bag(path) as bag:
        assert [message.topic for message in bag.messages()] == ['/note']
        assert [topic.name for topic in bag.topics if topic.unreadable] == sorted(FOREIGN_SCHEMAS)
        with pytest.raises(BagError, match=r'cannot read /json \(foxglove.Log, 1 messages: .* '
                                           r'not in an encoding of ROS\) in .*a.mcap'):
            bag.topic('/json')


def test_a_message_that_cannot_be_converted_is_passed_to_on_error(tmp_path):
    """As in bags whose definitions are wrong: this one promises a text, and holds a number."""
    path = tmp_path / 'a.mcap'
    with path.open('wb') as file:
        writer = McapWriter(file)
        writer.start(profile='ros1')
        schema = writer.register_schema('std_msgs/String', 'ros1msg', b'string data')
        for topic, data in (('/bad', b'\xff\xff\xff\xff'), ('/good', b'\1\0\0\0a')):
            writer.add_message(writer.register_channel(topic, 'ros1', schema), START_NS, data,
                               START_NS)
        writer.finish()
    errors = []
    with open_bag(path) as bag:
        read = list(bag.messages(on_error=lambda err, topic: errors.append((str(err), topic))))
        with pytest.raises(BagError, match='cannot convert a message on /bad'):
            list(bag.messages())
    assert [message.data for message in read] == [text('a')]
    (error, topic), = errors
    assert topic == '/bad'
    assert error.startswith(f'cannot convert a message on /bad in {path} from std_msgs/msg/String')


def test_fewer_messages_than_the_file_counts_are_an_error(tmp_path):
    class Short:
        """Counts two messages and gives one."""

        channels = (Channel(1, '/note', STRING, 'cdr', Definition(), 2),)
        start_ns, end_ns, data_loss = START_NS, START_NS + 10, None

        def messages(self, channels, start_ns, stop_ns):
            yield self.channels[0], START_NS, text('a')

    bag = Bag(tmp_path, [Short()])
    for times in ({}, {'start_ns': START_NS}, {'stop_ns': START_NS + 10}):
        messages = bag.messages(['/note'], **times)
        assert next(messages).data == text('a')
        with pytest.raises(BagError, match='counts more messages than it holds: 1 of /note are '
                                           'missing'):
            next(messages)
    assert len(list(bag.messages(start_ns=START_NS - 1, stop_ns=START_NS + 9))) == 1


def test_static_transforms_are_latched_even_if_the_bag_does_not_say_so(tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', [
        ('/tf_static', 'tf2_msgs/msg/TFMessage', 0, transform('a', 'b', (0.0, 0.0, 0.0)))])
    with open_bag(path) as bag:
        assert bag.topic('/tf_static').qos[0].durability.name == 'TRANSIENT_LOCAL'


@pytest.mark.parametrize('statement', [
    'DROP TABLE message_definitions', 'DROP TABLE schema',
    "UPDATE message_definitions SET encoding = 'unknown', encoded_message_definition = ''",
    'ALTER TABLE topics DROP COLUMN offered_qos_profiles',
    "UPDATE topics SET offered_qos_profiles = '{'"])
def test_sqlite3_bags_of_every_distribution_are_read(tmp_path, statement):
    path = write_sqlite3(tmp_path / 'old', [text('a'), text('b')]) / 'old.db3'
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)
    with open_bag(path) as bag:
        assert [message.data for message in bag.messages()] == [text('a'), text('b')]


def test_messages_in_the_log_of_a_killed_recorder_are_read(tmp_path):
    path = write_sqlite3(tmp_path / 'old', [text('a')]) / 'old.db3'
    with closing(sqlite3.connect(path)) as database:
        database.execute('PRAGMA journal_mode = WAL')
        with database:
            database.execute('INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)',
                             (START_NS + 1, text('b')))
        shutil.copytree(path.parent, tmp_path / 'killed')
    with open_bag(tmp_path / 'killed' / 'old.db3') as bag:
        assert [message.data for message in bag.messages()] == [text('a'), text('b')]


def test_bytes_of_another_type_are_rejected(bag_path):
    with open_bag(bag_path) as bag:
        with pytest.raises(BagError, match='cannot decode .* /note .* as sensor_msgs/msg/Image'):
            bag.decode(BagMessage('/note', 'sensor_msgs/msg/Image', 0, text('hello')))


def test_other_mcap_readers_decode_written_bags(bag_path):
    with (bag_path / 'bag.mcap').open('rb') as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        decoded = [(channel.topic, message) for _, channel, _, message
                   in reader.iter_decoded_messages()]
    assert [topic for topic, _ in decoded] == ['/note', '/image', '/note']
    assert decoded[0][1].data == 'first'
    assert bytes(decoded[1][1].data) == RGB.tobytes()
    assert decoded[1][1].header.stamp.nanosec == 7


def test_an_existing_bag_is_kept_unless_overwrite_is_set(bag_path):
    with pytest.raises(BagError, match='already exists'):
        BagWriter(bag_path)
    with BagWriter(bag_path, overwrite=True):
        pass
    with open_bag(bag_path) as bag:
        assert bag.topics == ()


def test_a_folder_that_is_not_a_bag_is_never_overwritten(tmp_path):
    (tmp_path / 'thesis.tex').write_text('ten years of work')
    with pytest.raises(BagError, match='is not a bag, so it is not overwritten'):
        BagWriter(tmp_path, overwrite=True)
    assert (tmp_path / 'thesis.tex').exists()


def test_a_bag_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(BagError, match='cannot create bag folder .*file/bag: Not a directory'):
        BagWriter(tmp_path / 'file' / 'bag')


def test_a_bag_is_valid_when_recording_fails(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with BagWriter(tmp_path / 'bag') as writer:
            writer.add_topic('/note', STRING, typestore=STORE)
            writer.write('/note', START_NS, text('saved'))
            raise ZeroDivisionError
    with open_bag(tmp_path / 'bag') as bag:
        assert [message.data for message in bag.messages()] == [text('saved')]


def test_a_full_disk_ends_a_recording_before_the_index_lacks_space(tmp_path, monkeypatch):
    with pytest.raises(BagError, match=r'disk full: cannot write to .*bag \(31 MiB free'):
        with BagWriter(tmp_path / 'bag') as writer:
            writer.add_topic('/note', STRING, typestore=STORE)
            writer.write('/note', START_NS, text('saved'))
            monkeypatch.setattr(shutil, 'disk_usage',
                                lambda path: SimpleNamespace(free=31 * 2 ** 20))
            writer.write('/note', START_NS + 1, text('lost'))
    with open_bag(tmp_path / 'bag') as bag:
        assert [message.data for message in bag.messages()] == [text('saved')]


def test_a_jpeg_is_converted_to_a_raw_image_with_the_same_header(tmp_path):
    flat = np.full((16, 24, 3), (30, 120, 200), np.uint8)
    path = write_bag(tmp_path / 'bag', {'/image/compressed': 'sensor_msgs/msg/CompressedImage'}, [
        ('/image/compressed', 0, compressed_image(flat, '.jpg', 'jpeg', START_NS + 5))])
    with open_bag(path) as bag:
        message, = bag.messages()
        raw = bag.decode(BagMessage('/image', 'sensor_msgs/msg/Image', 0,
                                    decompress_message(bag, message)))
    assert (raw.height, raw.width, raw.encoding, raw.step) == (16, 24, 'rgb8', 72)
    assert (raw.header.frame_id, read_stamp_ns(raw)) == ('camera_optical_frame', START_NS + 5)
    # OpenCV's (30, 120, 200) is blue, green, red; JPEG is off by a little.
    np.testing.assert_allclose(decode_rgb(image_fields(raw)),
                               np.broadcast_to((200, 120, 30), (16, 24, 3)), atol=3)


def test_compressed_depth_keeps_its_millimetres(tmp_path):
    depth_mm = np.array([[0, 1, 257], [1500, 40000, 65535]], np.uint16)
    path = write_bag(tmp_path / 'bag', {'/depth/compressed': 'sensor_msgs/msg/CompressedImage'}, [
        ('/depth/compressed', 0,
         compressed_image(depth_mm, '.png', '16UC1; png compressed ', START_NS))])
    with open_bag(path) as bag:
        message, = bag.messages()
        fields = image_fields(bag.decode(message))
    assert fields.encoding == '16UC1'
    np.testing.assert_array_equal(fields.data.view(np.uint16).reshape(2, 3), depth_mm)
    np.testing.assert_allclose(unpack_depth(fields)[1], [1.5, 40.0, 65.535], rtol=1e-6)


def test_colours_in_a_depth_format_are_rejected():
    message = TYPES['sensor_msgs/msg/CompressedImage'](
        header=None, format='16UC1; png compressed ',
        data=STORE.deserialize_cdr(compressed_image(RGB, '.png', 'png', 0),
                                   'sensor_msgs/msg/CompressedImage').data)
    with pytest.raises(MessageError, match='a single 16-bit channel'):
        image_fields(message)
