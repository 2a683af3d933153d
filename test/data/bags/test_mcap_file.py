"""Whole MCAP files of any writer: without profile, index, statistics or chunks."""

from __future__ import annotations

from bag_fixtures import START_NS, text, write_mcap
from mcap.writer import CompressionType, IndexType
import pytest

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.depth.errors import BagError

STRING = 'std_msgs/msg/String'
TEXTS = [text(letter * 400) for letter in 'abcd']
MESSAGES = [('/note', STRING, number * 10 ** 9, data) for number, data in enumerate(TEXTS)]
OPTIONS = {
    'no chunks': {'use_chunking': False},
    'no index': {'index_types': IndexType.NONE},
    'no statistics': {'use_statistics': False},
    'no summary': {'use_statistics': False, 'index_types': IndexType.NONE,
                   'repeat_channels': False, 'repeat_schemas': False,
                   'use_summary_offsets': False},
    'no channels in the summary': {'repeat_channels': False},
    'no schemas in the summary': {'repeat_schemas': False},
    'no index of messages': {'index_types': IndexType.CHUNK},
    'lz4': {'compression': CompressionType.LZ4}, 'raw': {'compression': CompressionType.NONE}}


@pytest.mark.parametrize('profile', ['ros2', '', 'x'])
@pytest.mark.parametrize('options', OPTIONS)
def test_a_whole_file_is_read_and_not_called_truncated(tmp_path, options, profile):
    path = write_mcap(tmp_path / 'a.mcap', MESSAGES, profile=profile, chunk_size=1000,
                      **OPTIONS[options])
    with open_bag(path) as bag:
        assert (bag.start_ns, bag.end_ns) == (START_NS, START_NS + 3 * 10 ** 9 + 1)
        assert bag.topic('/note', STRING).message_count == 4
        assert [message.data for message in bag.messages()] == TEXTS
        late = bag.messages(['/note'], start_ns=START_NS + 1, stop_ns=START_NS + 3 * 10 ** 9)
        assert [message.data for message in late] == TEXTS[1:3]
    with open_bag(path, recover=True) as bag:
        assert bag.data_loss is None


def test_messages_come_in_order_of_log_time_from_overlapping_chunks(tmp_path):
    order = [2, 0, 3, 1]
    path = write_mcap(tmp_path / 'a.mcap', [MESSAGES[number] for number in order], chunk_size=500)
    with open_bag(path) as bag:
        assert [message.data for message in bag.messages()] == TEXTS


@pytest.mark.parametrize('change', [
    lambda content, index: content[:index], lambda content, index: content[:index] + b'\xff' * 99,
    lambda content, index: content + bytes(4096)], ids=['missing', 'damaged', 'trailing bytes'])
def test_a_file_with_all_its_data_is_whole_whatever_became_of_its_index(tmp_path, change):
    path = write_mcap(tmp_path / 'a.mcap', MESSAGES, chunk_size=300)
    content = path.read_bytes()
    path.write_bytes(change(content, content.rindex(b'std_msgs')))
    for recover in (False, True):
        with open_bag(path, recover=recover) as bag:
            assert bag.data_loss is None
            assert [message.data for message in bag.messages()] == TEXTS


def test_a_damaged_whole_file_without_index_is_not_called_truncated(tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', MESSAGES, chunk_size=300,
                      compression=CompressionType.NONE, index_types=IndexType.NONE)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'c' * 400, b'c' * 399 + b'x'))    # the checksum tells
    with open_bag(path, recover=True) as bag:
        assert bag.data_loss == (f'{path} is damaged 1.000 s after its start: 2 messages are '
                                 'complete, later data is lost')
        assert [message.data for message in bag.messages()] == TEXTS[:2]
    with pytest.raises(BagError, match='is damaged 1.000 s after its start'):
        with open_bag(path):
            pass
