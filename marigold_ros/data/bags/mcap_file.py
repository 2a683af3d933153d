"""Read MCAP files, whole or truncated, with or without an index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Set
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel as McapChannel
from mcap.records import Chunk, ChunkIndex, DataEnd, McapRecord, Message, Schema
from mcap.stream_reader import get_chunk_data_stream, StreamReader
from mcap.summary import Summary
from rosbags.convert.converter import LATCH
from rosbags.interfaces import Qos

from marigold_ros.data.bags.bag_file import (
    Channel,
    Definition,
    full_type_name,
    merge_by_time,
    parse_offered_qos,
)
from marigold_ros.data.bags.truncated_mcap import RECORD_HEAD
from marigold_ros.depth.errors import BagError

MAX_TIME_NS = 2 ** 64


class McapFile:
    """
    Reads an MCAP file; one without an index is scanned when it is opened.

    Messages come in the order of their log times, without an index in the order in which they
    were written: nearly the same.

    Parameters
    ----------
    path : Path
    recover : bool
        Also open a truncated or damaged file, and read its complete messages.

    Attributes
    ----------
    channels, start_ns, end_ns, data_loss
        See `BagFile`.

    Raises
    ------
    BagError
        If the file is truncated or damaged, and `recover` is False or no message is complete.
    """

    def __init__(self, path: Path, *, recover: bool) -> None:
        self._path = path
        self.data_loss: str | None = None
        with path.open('rb') as file:
            self._index = _read_index(file)
        if self._index is None or self._index.statistics is None:
            self._scan(recover)
            return
        statistics = self._index.statistics
        self._set_channels(self._index.channels, self._index.schemas,
                           statistics.channel_message_counts)
        self.start_ns = statistics.message_start_time
        self.end_ns = statistics.message_end_time + 1

    def messages(self, channels: Collection[Channel], start_ns: int | None,
                 stop_ns: int | None) -> Iterator[tuple[Channel, int, bytes]]:
        """See `BagFile.messages`."""
        wanted = {channel.number: channel for channel in channels}
        start_ns = start_ns or 0
        stop_ns = MAX_TIME_NS if stop_ns is None else stop_ns
        with self._path.open('rb') as file:
            records = (_scan_records(file) if self._index is None
                       else _indexed_messages(file, self._index, wanted.keys(), start_ns, stop_ns))
            try:
                for each in records:
                    if (isinstance(each, Message) and each.channel_id in wanted
                            and start_ns <= each.log_time < stop_ns):
                        yield wanted[each.channel_id], each.log_time, each.data
            except Exception:  # damaged bytes make the parsers fail in many ways
                if self.data_loss is None:
                    raise

    def _scan(self, recover: bool) -> None:
        """Find the channels, their counts and the times of a file without an index."""
        channels: dict[int, McapChannel] = {}
        schemas: dict[int, Schema] = {}
        counts: Counter[int] = Counter()
        start_ns, last_ns, error, state = MAX_TIME_NS, 0, None, ''
        with self._path.open('rb') as file:
            try:
                for record in _scan_records(file):
                    if isinstance(record, Schema):
                        schemas[record.id] = record
                    elif isinstance(record, McapChannel):
                        channels[record.id] = record
                    elif isinstance(record, Message):
                        counts[record.channel_id] += 1
                        start_ns = min(start_ns, record.log_time)
                        last_ns = max(last_ns, record.log_time)
            except Exception as err:  # damaged bytes make the parsers fail in many ways
                error, state = err, 'damaged' if file.read(1) else 'truncated'
        self._set_channels(channels, schemas, counts)
        self.start_ns, self.end_ns = start_ns, last_ns + 1
        if error is None:
            return
        if not counts:
            raise BagError(f'cannot open bag {self._path}: {state} before the end of its first '
                           'message') from error
        self.data_loss = (f'{self._path} is {state} {(last_ns - start_ns) * 1e-9:.3f} s after its '
                          f'start: {counts.total()} messages are complete, later data is lost')
        if not recover:
            raise BagError(f'cannot open bag {self._path}: unreadable or truncated '
                           f'({self.data_loss})') from error

    def _set_channels(self, channels: Mapping[int, McapChannel], schemas: Mapping[int, Schema],
                      counts: Mapping[int, int]) -> None:
        self.channels = tuple(
            _describe_channel(channel, schemas.get(channel.schema_id), counts.get(number, 0))
            for number, channel in channels.items())


def _read_index(file: BinaryIO) -> Summary | None:
    """Read the index; None if there is none, or if it does not cover every message."""
    try:
        summary = SeekingReader(file).get_summary()
    except Exception:  # a scan then tells whether messages are damaged, too
        return None
    if summary is None or summary.statistics is None:
        return None
    statistics, channels = summary.statistics, summary.channels
    counts = statistics.channel_message_counts
    complete = (sum(counts.values()) == statistics.message_count and set(counts) <= set(channels)
                and {each.schema_id for each in channels.values()} <= {0, *summary.schemas}
                and len(summary.chunk_indexes) == statistics.chunk_count
                and (statistics.chunk_count > 0 or statistics.message_count == 0))
    return summary if complete else None


def _indexed_messages(file: BinaryIO, index: Summary, channels: Set[int], start_ns: int,
                      stop_ns: int) -> Iterator[Message]:
    """Read the chunks that may hold the channels in a range of times, sorted by log time."""
    chunks = [each for each in index.chunk_indexes
              if each.message_start_time < stop_ns and each.message_end_time >= start_ns
              # Without an index of its messages, a chunk may hold any channel.
              and (not each.message_index_offsets or channels & each.message_index_offsets.keys())]
    return merge_by_time((each.message_start_time, _sorted_messages(file, each, channels))
                         for each in chunks)


def _sorted_messages(file: BinaryIO, index: ChunkIndex,
                     channels: Set[int]) -> Iterator[tuple[int, Message]]:
    file.seek(index.chunk_start_offset + RECORD_HEAD.size)
    messages = [record for record in _chunk_records(Chunk.read(ReadDataStream(file)))
                if isinstance(record, Message) and record.channel_id in channels]
    messages.sort(key=lambda message: message.log_time)
    for message in messages:
        yield message.log_time, message


def _scan_records(file: BinaryIO) -> Iterator[McapRecord]:
    """Read the records of a file up to the end of its data; an index may follow, or be damaged."""
    for record in StreamReader(file, emit_chunks=True, validate_crcs=True).records:
        if isinstance(record, DataEnd):
            return
        if isinstance(record, Chunk):
            yield from _chunk_records(record)
        else:
            yield record


def _chunk_records(chunk: Chunk) -> Iterator[McapRecord]:
    """Parse the records of a chunk; unlike the library, raise BagError if one is incomplete."""
    stream, size = get_chunk_data_stream(chunk, validate_crc=True)
    content = stream.read(size)
    if len(content) != chunk.uncompressed_size:
        raise BagError(f'a chunk has {len(content)} of {chunk.uncompressed_size} bytes')
    position = 0
    while position < size:
        opcode, length = RECORD_HEAD.unpack_from(content, position)
        start = position + RECORD_HEAD.size
        position = start + length
        if position > size:
            raise BagError(f'a record exceeds its chunk by {position - size} bytes')
        record = ReadDataStream(BytesIO(content[start:position]))
        if opcode == Opcode.MESSAGE:
            yield Message.read(record, length)
        elif opcode == Opcode.SCHEMA:
            yield Schema.read(record)
        elif opcode == Opcode.CHANNEL:
            yield McapChannel.read(record)


def _describe_channel(channel: McapChannel, schema: Schema | None, count: int) -> Channel:
    return Channel(
        channel.id, channel.topic, '' if schema is None else full_type_name(schema.name),
        channel.message_encoding,
        Definition() if schema is None else Definition(schema.encoding, schema.data), count,
        _offered_qos(channel.metadata))


def _offered_qos(metadata: Mapping[str, str]) -> tuple[Qos, ...]:
    """Read the QoS of rosbag2, or the latching of ROS 1 that `mcap convert` keeps."""
    if metadata.get('latching', '').lower() in ('1', 'true'):
        return tuple(LATCH)
    return parse_offered_qos(metadata.get('offered_qos_profiles', ''))
