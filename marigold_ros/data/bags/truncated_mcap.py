"""Read the complete messages of truncated MCAP files, and make such files valid again."""

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
# A DataEnd without checksum, a Footer without summary, and the closing magic.
FILE_END = (RECORD_HEAD.pack(Opcode.DATA_END, 4) + bytes(4)
            + RECORD_HEAD.pack(Opcode.FOOTER, 20) + bytes(20) + MCAP0_MAGIC)


class TruncatedMcapReader:
    """
    Read the complete messages of a truncated file, which has no index.

    Offers the part of rosbags' AnyReader that `Bag` uses; scans the file once when it is opened.

    Parameters
    ----------
    path : Path
        The file, or a bag folder; of a split recording, the last file is truncated.

    Attributes
    ----------
    data_loss : str
        Description of what is missing.

    Raises
    ------
    BagError
        If no message is complete.
    """

    is2 = True

    def __init__(self, path: Path) -> None:
        self._files = mcap_files(path)
        self.typestore = get_typestore(Stores.EMPTY)
        self._channels: dict[tuple[Path, int], Connection] = {}
        counts: Counter[tuple[Path, int]] = Counter()
        start_ns, last_ns = 2 ** 63, 0
        for file, schema, channel, message in self._complete_messages():
            if (file, channel.id) not in self._channels:
                self._channels[file, channel.id] = self._connection(schema, channel)
            counts[file, channel.id] += 1
            start_ns, last_ns = min(start_ns, message.log_time), max(last_ns, message.log_time)
        if not counts:
            raise BagError(f'cannot open bag {path}: truncated before the end of its first '
                           'message')
        self.connections = [connection._replace(msgcount=counts[key])
                            for key, connection in self._channels.items()]
        self.message_count = counts.total()
        self.start_time, self.end_time = start_ns, last_ns + 1
        self.data_loss = (f'{path} is truncated {(last_ns - start_ns) * 1e-9:.3f} s after its '
                          f'start: {self.message_count} messages are complete, later data is lost')

    def messages(self, connections: Collection[Connection], start: int | None = None,
                 stop: int | None = None) -> Iterator[tuple[Connection, int, bytes]]:
        """
        Read messages in the order in which they were written: nearly that of their log times.

        Yields
        ------
        connection : Connection
        log_time_ns : int
        data : bytes
        """
        wanted = {connection.id for connection in connections}
        for file, _, channel, message in self._complete_messages(start, stop):
            connection = self._channels[file, channel.id]
            if connection.id in wanted:
                yield connection, message.log_time, message.data

    def _complete_messages(
        self, start_ns: int | None = None, stop_ns: int | None = None,
    ) -> Iterator[tuple[Path, Schema, Channel, Message]]:
        for path in self._files:
            with path.open('rb') as file:
                # Sorting by time would load the whole file into memory.
                messages = NonSeekingReader(file, validate_crcs=True).iter_messages(
                    log_time_order=False, starting_at=start_ns, ending_before=stop_ns)
                try:
                    for schema, channel, message in messages:
                        if schema is not None:
                            yield path, schema, channel, message
                except Exception:  # damaged bytes make the parsers fail in many ways
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
    """List the MCAP files of a bag in the order of their numbers; `path` may be one file."""
    if not path.is_dir():
        return [path]
    return sorted(path.glob('*.mcap'), key=lambda file: (len(file.name), file.name))


def finalize_truncated(path: Path) -> None:
    """
    Finalize a truncated file after its last complete record, so that every reader opens it.

    The writer of the mcap library ends a file only after an index, for which a full disk may
    have no space.

    Parameters
    ----------
    path : Path
        Begins with the magic and a header.  The incomplete record that is removed makes space for
        the 50 bytes of the file end, also on a full disk.  Without an index, readers scan the
        file.

    Raises
    ------
    OSError
        If there is no space for the file end, even in place of the last record.
    """
    with FileIO(path, 'r+') as file:
        ends = _record_ends(file)
        for end in reversed(ends[1:]):
            with suppress(OSError):
                _truncate_and_end(file, end)
                return
        _truncate_and_end(file, ends[0])


def _truncate_and_end(file: FileIO, size: int) -> None:
    """Truncate a file to `size` bytes and append the file end."""
    file.truncate(size)
    file.seek(size)
    if file.write(FILE_END) < len(FILE_END):
        raise OSError('no space for the end of the file')


def _record_ends(file: FileIO) -> list[int]:
    """Return the end position of each complete record; the first record is the header."""
    size, position = file.seek(0, SEEK_END), len(MCAP0_MAGIC)
    ends: list[int] = []
    while position + RECORD_HEAD.size <= size:
        file.seek(position)
        _, length = RECORD_HEAD.unpack(file.read(RECORD_HEAD.size))
        position += RECORD_HEAD.size + length
        if position <= size:
            ends.append(position)
    return ends
