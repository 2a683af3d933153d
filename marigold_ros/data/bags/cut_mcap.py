"""Read an MCAP file that was cut off: all records up to where it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import breakup_chunk, StreamReader
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
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
        The file, or a bag folder; of a recording that was split, the last file was cut off.

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
        self.files = mcap_files(path)
        self.connections: list[Connection] = []
        self.typestore = get_typestore(Stores.EMPTY)
        self._channels: dict[tuple[Path, int], Connection] = {}
        self._schemas: dict[tuple[Path, int], Schema] = {}
        counts: Counter[tuple[Path, int]] = Counter()
        times_ns: list[int] = []
        for file, message in self._records():
            counts[file, message.channel_id] += 1
            times_ns = [min([*times_ns, message.log_time]), max([*times_ns, message.log_time])]
        if not times_ns:
            raise BagError(f'{path} was cut off before its first message was whole')
        self.message_count = counts.total()
        self.start_time, self.end_time = times_ns[0], times_ns[-1] + 1
        self._channels = {key: connection._replace(msgcount=counts[key])
                          for key, connection in self._channels.items()}
        self.connections = list(self._channels.values())
        self.loss = (f'{path} was cut off {(times_ns[-1] - times_ns[0]) * 1e-9:.3f} s after its '
                     f'start: {self.message_count} messages are whole, what came after is lost')

    def messages(self, connections: Collection[Connection], start: int | None = None,
                 stop: int | None = None) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield connection, log time in ns and bytes of the chosen messages."""
        wanted = {connection.id for connection in connections}
        for file, message in self._records():
            connection = self._channels[file, message.channel_id]
            if (connection.id in wanted and (start is None or message.log_time >= start)
                    and (stop is None or message.log_time < stop)):
                yield connection, message.log_time, message.data

    def _records(self) -> Iterator[tuple[Path, Message]]:
        """Yield messages, ordered by time within each chunk, and learn topics on the way."""
        for path in self.files:
            with path.open('rb') as file:
                records = StreamReader(file, emit_chunks=True,
                                       record_size_limit=MAX_RECORD_BYTES).records
                for chunk in _whole(records):
                    found = [message for record in chunk
                             if (message := self._learn(path, record)) is not None]
                    for message in sorted(found, key=lambda message: message.log_time):
                        yield path, message

    def _learn(self, path: Path, record: McapRecord) -> Message | None:
        if isinstance(record, Message):
            return record
        if isinstance(record, Schema):
            self._schemas[path, record.id] = record
        elif isinstance(record, Channel) and (path, record.id) not in self._channels:
            schema = self._schemas[path, record.schema_id]
            text = schema.data.decode()
            self.typestore.register({
                name: fields for name, fields in get_types_from_msg(text, schema.name).items()
                if name not in self.typestore.fielddefs})
            self._channels[path, record.id] = Connection(
                len(self._channels), record.topic, schema.name,
                MessageDefinition(MessageDefinitionFormat.MSG, text), '', 0,
                ConnectionExtRosbag2('cdr', []), self)
        return None


def mcap_files(path: Path) -> list[Path]:
    """List the MCAP files of a bag, in the order of their numbers; a lone file is its own."""
    if not path.is_dir():
        return [path]
    return sorted(path.glob('*.mcap'), key=lambda file: (len(file.name), file.name))


def _whole(records: Iterator[McapRecord]) -> Iterator[list[McapRecord]]:
    """Yield records, those of a chunk together, until one is torn."""
    while True:
        try:
            record = next(records)
            whole = (breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk)
                     else [record])
        except Exception:  # torn bytes make the parsers fail in many ways
            return
        yield whole
