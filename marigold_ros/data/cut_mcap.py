"""Read an MCAP file that was cut off: all records up to where it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import breakup_chunk, StreamReader
from rosbags.interfaces import (Connection, ConnectionExtRosbag2, MessageDefinition,
                                MessageDefinitionFormat)
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

from marigold_ros.depth.errors import BagError

# Beyond any chunk, far below what a torn length field can claim.
MAX_RECORD_BYTES = 2 ** 31


class CutMcapReader:
    """
    Reads what was written before the end, without the index that a whole file ends with.

    It offers what `Bag` uses of rosbags' AnyReader, and goes through the file once to learn that.

    Parameters
    ----------
    path : Path
        The file, or a bag folder with exactly one.

    Attributes
    ----------
    loss : str
        What is missing, in words.

    Raises
    ------
    BagError
        If not a single message is whole.
    """

    is2 = True

    def __init__(self, path: Path) -> None:
        self.path = next(path.glob('*.mcap')) if path.is_dir() else path
        self.connections: list[Connection] = []
        self.typestore = get_typestore(Stores.EMPTY)
        self._channels: dict[int, Connection] = {}
        self._schemas: dict[int, Schema] = {}
        counts: Counter[int] = Counter()
        times_ns: list[int] = []
        for message in self._records():
            counts[message.channel_id] += 1
            times_ns = [min([*times_ns, message.log_time]), max([*times_ns, message.log_time])]
        if not times_ns:
            raise BagError(f'{path} was cut off before its first message was whole')
        self.message_count = counts.total()
        self.start_time, self.end_time = times_ns[0], times_ns[-1] + 1
        self._channels = {number: connection._replace(msgcount=counts[number])
                          for number, connection in self._channels.items()}
        self.connections = list(self._channels.values())
        self.loss = (f'{path} was cut off {(times_ns[-1] - times_ns[0]) * 1e-9:.3f} s after its '
                     f'start: {self.message_count} messages are whole, what came after is lost')

    def messages(self, connections: Collection[Connection], start: int | None = None,
                 stop: int | None = None) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield connection, log time in ns and bytes of the chosen messages."""
        wanted = {connection.id for connection in connections}
        for message in self._records():
            if (message.channel_id in wanted and (start is None or message.log_time >= start)
                    and (stop is None or message.log_time < stop)):
                yield self._channels[message.channel_id], message.log_time, message.data

    def _records(self) -> Iterator[Message]:
        """Yield messages, ordered by time within each chunk, and learn topics on the way."""
        with self.path.open('rb') as file:
            records = StreamReader(file, emit_chunks=True,
                                   record_size_limit=MAX_RECORD_BYTES).records
            while True:
                try:
                    record = next(records)
                    inner = (breakup_chunk(record, validate_crc=True)
                             if isinstance(record, Chunk) else [record])
                except (StopIteration, McapError, ValueError, EOFError, RuntimeError):
                    return
                yield from sorted(filter(None, map(self._learn, inner)),
                                  key=lambda message: message.log_time)

    def _learn(self, record: McapRecord) -> Message | None:
        if isinstance(record, Message):
            return record
        if isinstance(record, Schema):
            self._schemas[record.id] = record
        elif isinstance(record, Channel) and record.id not in self._channels:
            schema = self._schemas[record.schema_id]
            text = schema.data.decode()
            self.typestore.register({
                name: fields for name, fields in get_types_from_msg(text, schema.name).items()
                if name not in self.typestore.fielddefs})
            self._channels[record.id] = Connection(
                record.id, record.topic, schema.name,
                MessageDefinition(MessageDefinitionFormat.MSG, text), '', 0,
                ConnectionExtRosbag2('cdr', []), self)
        return None
