"""Make truncated MCAP files valid again."""

from __future__ import annotations

from contextlib import suppress
from io import FileIO
from os import SEEK_END
from pathlib import Path
import struct

from mcap.opcode import Opcode
from mcap.writer import MCAP0_MAGIC

# Opcode and length, then the content: https://mcap.dev/spec
RECORD_HEAD = struct.Struct('<BQ')
# A DataEnd without checksum, a Footer without summary, and the closing magic.
FILE_END = (RECORD_HEAD.pack(Opcode.DATA_END, 4) + bytes(4)
            + RECORD_HEAD.pack(Opcode.FOOTER, 20) + bytes(20) + MCAP0_MAGIC)


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
