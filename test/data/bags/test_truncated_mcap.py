"""Truncated MCAP files."""

from __future__ import annotations

from bag_fixtures import START_NS, text, write_bag
from mcap.reader import make_reader
from mcap.writer import Writer
import pytest

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.bags.truncated_mcap import finalize_truncated
from marigold_ros.depth.errors import BagError

STRING = 'std_msgs/msg/String'
# Two megabytes a message make a chunk of each.
TEXTS = [text(letter * 2_000_000) for letter in 'abcd']


@pytest.fixture
def truncated(tmp_path):
    """Four chunks, of which the last is incomplete."""
    path = write_bag(tmp_path / 'bag', {'/note': STRING}, [
        ('/note', number * 10 ** 9, data) for number, data in enumerate(TEXTS)]) / 'bag.mcap'
    whole = path.read_bytes()
    path.write_bytes(whole[:whole.rindex(b'd' * 1000) - 1000])
    return path


def test_all_complete_messages_are_read_and_the_loss_is_reported(truncated):
    with open_bag(truncated, recover=True) as bag:
        messages = list(bag.messages(['/note']))
        late = list(bag.messages(start_ns=START_NS + 1, stop_ns=START_NS + 2 * 10 ** 9))
        topic = bag.topic('/note', STRING)
    assert [message.data for message in messages] == TEXTS[:3]
    assert [message.data for message in late] == TEXTS[1:2]
    assert (bag.start_ns, bag.end_ns) == (START_NS, START_NS + 2 * 10 ** 9 + 1)
    assert topic.message_count == 3
    assert bag.data_loss == (f'{truncated} is truncated 2.000 s after its start: 3 messages are '
                             'complete, later data is lost')


# A message takes 45 bytes: 9 of opcode and length, 22 of header, 14 of CDR.
@pytest.mark.parametrize(('missing_bytes', 'complete'), [(0, 3), (1, 2), (45, 2), (46, 1)])
def test_messages_outside_of_chunks_are_read_up_to_the_truncation(
        tmp_path, missing_bytes, complete):
    path = tmp_path / 'plain.mcap'
    with path.open('wb') as file:
        writer = Writer(file, use_chunking=False)
        writer.start()
        schema = writer.register_schema(STRING, 'ros2msg', b'string data')
        channel = writer.register_channel('/note', 'cdr', schema)
        for number in range(3):
            writer.add_message(channel, START_NS + number, text('hello'), START_NS + number)
        size = file.tell()
    path.write_bytes(path.read_bytes()[:size - missing_bytes])
    with open_bag(path, recover=True) as bag:
        assert len(list(bag.messages())) == complete


def test_zeros_after_a_power_cut_end_the_file(truncated):
    truncated.write_bytes(truncated.read_bytes()[:-500_000] + bytes(500_000))
    with open_bag(truncated, recover=True) as bag:
        assert len(list(bag.messages())) == 3


def test_other_readers_open_a_finalized_file(truncated):
    size = truncated.stat().st_size
    finalize_truncated(truncated)
    assert truncated.stat().st_size < size
    with truncated.open('rb') as file:
        assert [message.data for _, _, message in make_reader(file).iter_messages()] == TEXTS[:3]
    with open_bag(truncated) as bag:
        assert bag.data_loss is None
        assert [message.data for message in bag.messages()] == TEXTS[:3]


def test_a_file_without_a_complete_message_is_rejected(truncated):
    truncated.write_bytes(truncated.read_bytes()[:200])
    with pytest.raises(BagError, match='bag.mcap: truncated before the end of its first message'):
        with open_bag(truncated, recover=True):
            pass
