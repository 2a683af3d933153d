"""MCAP files whose writing broke off: reading what is whole of one, and ending one early."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from io import FileIO
from os import SEEK_END
from pathlib import Path
import struct

from mcap.opcode import Opcode
from mcap.reader import NonSeekingReader
from mcap.records import Channel, Message, Schema
from mcap.writer import MCAP0_MAGIC
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

from marigold_ros.depth.errors import BagError

# Opcode and length, then the content: https://mcap.dev/spec
RECORD_HEAD = struct.Struct('<BQ')
# A DataEnd without a checksum, a Footer that names no summary, and the magic again.
END = (RECORD_HEAD.pack(Opcode.DATA_END, 4) + bytes(4)
       + RECORD_HEAD.pack(Opcode.FOOTER, 20) + bytes(20) + MCAP0_MAGIC)


class TruncatedMcapReader:
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
        self._files = mcap_files(path)
        self.typestore = get_typestore(Stores.EMPTY)
        self._channels: dict[tuple[Path, int], Connection] = {}
        counts: Counter[tuple[Path, int]] = Counter()
        start_ns, last_ns = 2 ** 63, 0
        for file, schema, channel, message in self._whole_messages():
            if (file, channel.id) not in self._channels:
                self._channels[file, channel.id] = self._connection(schema, channel)
            counts[file, channel.id] += 1
            start_ns, last_ns = min(start_ns, message.log_time), max(last_ns, message.log_time)
        if not counts:
            raise BagError(f'{path} was cut off before its first message was whole')
        self.connections = [connection._replace(msgcount=counts[key])
                            for key, connection in self._channels.items()]
        self.message_count = counts.total()
        self.start_time, self.end_time = start_ns, last_ns + 1
        self.loss = (f'{path} was cut off {(last_ns - start_ns) * 1e-9:.3f} s after its start: '
                     f'{self.message_count} messages are whole, what came after is lost')

    def messages(self, connections: Collection[Connection], start: int | None = None,
                 stop: int | None = None) -> Iterator[tuple[Connection, int, bytes]]:
        """
        Read the chosen messages as they were written, which is nearly in the order of log times.

        Yields
        ------
        connection : Connection
        log_time_ns : int
        data : bytes
        """
        wanted = {connection.id for connection in connections}
        for file, _, channel, message in self._whole_messages(start, stop):
            connection = self._channels[file, channel.id]
            if connection.id in wanted:
                yield connection, message.log_time, message.data

    def _whole_messages(
        self, start_ns: int | None = None, stop_ns: int | None = None,
    ) -> Iterator[tuple[Path, Schema, Channel, Message]]:
        for path in self._files:
            with path.open('rb') as file:
                # Ordering by time would take the whole file into memory.
                messages = NonSeekingReader(file, validate_crcs=True).iter_messages(
                    log_time_order=False, starting_at=start_ns, ending_before=stop_ns)
                try:
                    for schema, channel, message in messages:
                        if schema is not None:
                            yield path, schema, channel, message
                except Exception:  # torn bytes make the parsers fail in many ways
                    continue

    def _connection(self, schema: Schema, channel: Channel) -> Connection:
        text = schema.data.decode()
        self.typestore.register({
            name: fields for name, fields in get_types_from_msg(text, schema.name).items()
            if name not in self.typestore.fielddefs})
        return Connection(len(self._channels), channel.topic, schema.name,
                          MessageDefinition(MessageDefinitionFormat.MSG, text), '', 0,
                          ConnectionExtRosbag2('cdr', []), self)


def mcap_files(path: Path) -> list[Path]:
    """List the MCAP files of a bag, in the order of their numbers; a lone file is its own."""
    if not path.is_dir():
        return [path]
    return sorted(path.glob('*.mcap'), key=lambda file: (len(file.name), file.name))


def finalize_truncated(path: Path) -> None:
    """
    Cut a file after its last whole record, and end it there, so that every reader opens it.

    The library's writer appends an end of its own only after an index, for which a full disk may
    have no room.

    Parameters
    ----------
    path : Path
        Begins with the magic and a header.  What is cut off makes room for the 50 bytes of the
        end, also on a full disk; readers scan the rest, since it has no index.

    Raises
    ------
    OSError
        If the end does not fit in place of the last record either.
    """
    with FileIO(path, 'r+') as file:
        ends = _record_ends(file)
        for end in reversed(ends[1:]):
            with suppress(OSError):
                _end_after(file, end)
                return
        _end_after(file, ends[0])


def _end_after(file: FileIO, size: int) -> None:
    """Keep so many bytes and write the end after them."""
    file.truncate(size)
    file.seek(size)
    if file.write(END) < len(END):
        raise OSError('no room for the end of the file')


def _record_ends(file: FileIO) -> list[int]:
    """Say where each whole record ends, without reading it; the header is the first."""
    size, position = file.seek(0, SEEK_END), len(MCAP0_MAGIC)
    ends: list[int] = []
    while position + RECORD_HEAD.size <= size:
        file.seek(position)
        _, length = RECORD_HEAD.unpack(file.read(RECORD_HEAD.size))
        position += RECORD_HEAD.size + length
        if position <= size:
            ends.append(position)
    return ends
