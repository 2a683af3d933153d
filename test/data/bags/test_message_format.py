"""Messages of other encodings and definitions, converted to ROS 2 Jazzy."""

from __future__ import annotations

from bag_fixtures import (
    camera_info,
    FOREIGN_SCHEMAS,
    header,
    image,
    ROS1,
    serialize,
    START_NS,
    text,
    to_ros1,
    write_mcap,
)
from mcap.writer import Writer
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores
import zstandard

from marigold_ros.data.bags.bag_file import Definition
from marigold_ros.data.bags.message_format import MessageFormat
from marigold_ros.data.bags.pose_buffer import pose_topics
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.depth.errors import BagError

STRING, INFO = 'std_msgs/msg/String', 'sensor_msgs/msg/CameraInfo'
IDL = (b'=' * 80 + b'\nIDL: std_msgs/msg/String\n'
       b'module std_msgs { module msg { struct String { string data; }; }; };\n')


@pytest.mark.parametrize('name', FOREIGN_SCHEMAS)
def test_messages_of_no_ros_are_rejected_with_a_reason(name):
    msgtype, language, schema, encoding = FOREIGN_SCHEMAS[name]
    with pytest.raises(BagError, match='an encoding of ROS|cannot be parsed|lacks the type'):
        MessageFormat(msgtype, encoding, Definition(language, schema))


@pytest.mark.parametrize('definition', [
    Definition(), Definition('unknown', b''), Definition('ros2msg', b''),
    Definition('ros2msg', b'string data'), Definition('ros2idl', IDL),
    Definition('omgidl', IDL.partition(b'String\n')[2])])
def test_every_definition_of_a_type_and_none_give_the_same(definition):
    known = MessageFormat(STRING, 'cdr', definition)
    assert known.to_cdr(text('hello')) == text('hello')


@pytest.mark.parametrize('encoding', ['ros1', 'ros'])
@pytest.mark.parametrize('definition', [Definition('ros1msg', b'string data'), Definition()])
def test_ros1_is_known_by_its_encoding(encoding, definition):
    known = MessageFormat(STRING, encoding, definition)
    assert known.to_cdr(b'\5\0\0\0hello') == text('hello')


def test_ros1_messages_need_the_definition_of_an_unknown_type():
    with pytest.raises(BagError, match='no definition, which messages of ROS 1 need'):
        MessageFormat('my_msgs/msg/Odd', 'ros1', Definition())


def test_an_mcap_of_ros1_is_read_as_ros2(tmp_path):
    info = camera_info((0.1, 0.2, 0.3, 0.4, 0.5))
    picture = image(np.arange(6, dtype=np.uint8).reshape(2, 3), 'mono8', START_NS + 5)
    path = write_mcap(tmp_path / 'a.mcap', [
        ('/camera_info', INFO, 0, info), ('/image', 'sensor_msgs/msg/Image', 1, picture)],
        ros1=True, profile='ros1')
    assert to_ros1(INFO, info) != info
    with open_bag(path) as bag:
        assert [(topic.name, topic.msgtype) for topic in bag.topics] == [
            ('/camera_info', INFO), ('/image', 'sensor_msgs/msg/Image')]
        messages = list(bag.messages())
        decoded = [bag.decode(message) for message in messages]
    assert [message.data for message in messages] == [info, picture]
    assert decoded[0].d.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert decoded[1].header.stamp.nanosec == 5


@pytest.mark.parametrize('latching', ['1', 'true'])
def test_a_latched_topic_of_ros1_stays_latched_in_mcap(tmp_path, latching):
    path = tmp_path / 'a.mcap'
    with path.open('wb') as file:
        writer = Writer(file)
        writer.start(profile='ros1')
        channel = writer.register_channel(
            '/plan', 'ros1', writer.register_schema('std_msgs/String', 'ros1msg', b'string data'),
            {'latching': latching})
        writer.add_message(channel, START_NS, b'\5\0\0\0hello', START_NS)
        writer.finish()
    with open_bag(path) as bag:
        qos, = bag.topic('/plan', STRING).qos
    assert qos.durability.name == 'TRANSIENT_LOCAL'


def test_two_topics_may_define_a_type_differently(tmp_path):
    """Such files come from two robots; each topic is read by its own definition."""
    path = tmp_path / 'a.mcap'
    with path.open('wb') as file:
        writer = Writer(file)
        writer.start()
        for topic, definition in (('/int', b'int32 a'), ('/text', b'string a')):
            channel = writer.register_channel(topic, 'cdr', writer.register_schema(
                'my_msgs/msg/One', 'ros2msg', definition))
            data = b'\0\1\0\0' + (b'\7\0\0\0' if topic == '/int' else b'\3\0\0\0hi\0')
            writer.add_message(channel, START_NS, data, START_NS)
        writer.finish()
    with open_bag(path) as bag:
        values = {message.topic: bag.decode(message).a for message in bag.messages()}
    assert values == {'/int': 7, '/text': 'hi'}


@pytest.mark.parametrize('kind', ['bag', 'mcap'])
def test_transforms_of_the_first_tf_are_those_of_tf2(tmp_path, kind):
    """As in the RGB-D bags of TUM."""
    definition = b'geometry_msgs/TransformStamped[] transforms'
    path = tmp_path / f'a.{kind}'
    if kind == 'bag':
        store = get_typestore(Stores.ROS1_NOETIC)
        store.register(get_types_from_msg(definition.decode(), 'tf/msg/tfMessage'))
        with Ros1Writer(path) as bag_writer:
            bag_writer.write(bag_writer.add_connection('/tf', 'tf/msg/tfMessage', typestore=store),
                             START_NS, bytes(4))
    else:
        nested, _ = ROS1.generate_msgdef('geometry_msgs/msg/TransformStamped', ros_version=1)
        definition += (f'\n{"=" * 80}\nMSG: geometry_msgs/TransformStamped\n{nested}').encode()
        with path.open('wb') as file:
            writer = Writer(file)
            writer.start(profile='ros1')
            writer.add_message(writer.register_channel('/tf', 'ros1', writer.register_schema(
                'tf/tfMessage', 'ros1msg', definition)), START_NS, bytes(4), START_NS)
            writer.finish()
    with open_bag(path) as bag:
        assert pose_topics(bag.topics) == ['/tf']
        message, = bag.messages()
    assert message.data == serialize('tf2_msgs/msg/TFMessage', transforms=[])


def test_a_truncated_compressed_message_is_an_error():
    known = MessageFormat(STRING, 'cdr', Definition())
    data = zstandard.compress(text('hello'))
    assert known.to_cdr(data) == text('hello')
    with pytest.raises(zstandard.ZstdError):
        known.to_cdr(data[:-1])


def test_an_older_definition_is_converted():
    """Range had no `variance` before Jazzy."""
    separator = '=' * 80
    definition = ('std_msgs/Header header\nuint8 radiation_type\nfloat32 field_of_view\n'
                  f'float32 min_range\nfloat32 max_range\nfloat32 range\n{separator}\n'
                  'MSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n'
                  f'{separator}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n')
    known = MessageFormat('sensor_msgs/msg/Range', 'cdr',
                          Definition('ros2msg', definition.encode()))
    new = serialize('sensor_msgs/msg/Range', header=header(START_NS), radiation_type=1,
                    field_of_view=0.5, min_range=1.0, max_range=2.0, range=1.5, variance=0.0)
    assert known.to_cdr(new[:-4]) == new
