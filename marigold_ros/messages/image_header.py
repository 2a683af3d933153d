"""The size that a JPEG or PNG stream claims, read without decoding it, and whether it is whole."""

from __future__ import annotations

from marigold_ros.depth.errors import MessageError

JPEG_START = b'\xff\xd8'
JPEG_END = b'\xff\xd9'
PNG_START = b'\x89PNG\r\n\x1a\n'
PNG_END = b'IEND\xaeB`\x82'
START_OF_SCAN = 0xda
# SOF0..SOF15 (ITU-T T.81, table B.1) without DHT, JPG and DAC, which share their range.
START_OF_FRAME = frozenset(range(0xc0, 0xd0)) - {0xc4, 0xc8, 0xcc}


def read_image_size(stream: bytes) -> tuple[int, int]:
    """
    Read the size from the header of a complete JPEG or PNG stream.

    Decoders may fill what is missing of a truncated stream with gray and report success, so the
    end marker is looked for here.

    Parameters
    ----------
    stream : bytes
        The whole stream; bytes after its end marker are ignored.

    Returns
    -------
    height, width : int
        Size, px, both above 0.

    Raises
    ------
    MessageError
        If the stream is neither JPEG nor PNG, says no size or is truncated.
    """
    if stream.startswith(JPEG_START):
        size = _read_jpeg_size(stream)
    elif stream.startswith(PNG_START):
        size = _read_png_size(stream)
    else:
        raise MessageError(f'`data` must be a JPEG or PNG stream; it starts with {stream[:8]!r}')
    if min(size) == 0:
        raise MessageError(f'`data` must hold an image; its header says {size[1]} x {size[0]}')
    return size


def _read_png_size(stream: bytes) -> tuple[int, int]:
    """Read IHDR, which the PNG specification puts first."""
    if stream[12:16] != b'IHDR' or PNG_END not in stream[24:]:
        raise MessageError(f'`data` must be a complete PNG; got {len(stream)} bytes without '
                           'IHDR in front or IEND behind')
    return int.from_bytes(stream[20:24], 'big'), int.from_bytes(stream[16:20], 'big')


def _read_jpeg_size(stream: bytes) -> tuple[int, int]:
    """Walk the segments to the frame header, and on to the scan, which an EOI must follow."""
    size = None
    position = len(JPEG_START)
    while position + 4 <= len(stream) and stream[position] == 0xff:
        marker = stream[position + 1]
        if marker == 0xff:
            position += 1
            continue
        if marker == START_OF_SCAN:
            break
        if marker in START_OF_FRAME and size is None:
            size = (int.from_bytes(stream[position + 5:position + 7], 'big'),
                    int.from_bytes(stream[position + 7:position + 9], 'big'))
        position += 2 + int.from_bytes(stream[position + 2:position + 4], 'big')
    # Searched behind the headers only: an EXIF thumbnail there has an EOI of its own.
    if size is None or stream.find(JPEG_END, position) < 0:
        raise MessageError(f'`data` must be a complete JPEG; got {len(stream)} bytes without a '
                           'frame header or an end marker')
    return size
