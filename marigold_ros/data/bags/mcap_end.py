"""End an MCAP file whose writing broke off, so that readers open what is whole of it."""

from __future__ import annotations

from contextlib import suppress
from io import FileIO
from os import SEEK_END
from pathlib import Path
import struct

MAGIC = b'\x89MCAP0\r\n'
# Opcode and length, then the content: https://mcap.dev/spec
RECORD_HEAD = struct.Struct('<BQ')
# DataEnd without a checksum, a Footer that names no summary, and the magic again.
END = (RECORD_HEAD.pack(0x0F, 4) + bytes(4) + RECORD_HEAD.pack(0x02, 20) + bytes(20) + MAGIC)


def end_early(path: Path) -> None:
    """
    Cut a file after its last whole record, and end it there.

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
                _end_at(file, end)
                return
        _end_at(file, ends[0])


def _end_at(file: FileIO, end: int) -> None:
    file.truncate(end)
    file.seek(end)
    if file.write(END) < len(END):
        raise OSError('no room for the end of the file')


def _record_ends(file: FileIO) -> list[int]:
    """Say where each whole record ends; the header is the first."""
    size, position = file.seek(0, SEEK_END), len(MAGIC)
    ends: list[int] = []
    while position + RECORD_HEAD.size <= size:
        file.seek(position)
        _, length = RECORD_HEAD.unpack(file.read(RECORD_HEAD.size))
        position += RECORD_HEAD.size + length
        if position <= size:
            ends.append(position)
    return ends
