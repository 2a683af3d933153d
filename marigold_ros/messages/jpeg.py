"""Decode JPEG streams; reject those that have lost pixels."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
import simplejpeg

from marigold_ros.depth.errors import MessageError

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
# Webcams such as the Logitech C270 leave up to about 10 bytes before a marker.  The more are
# tolerated, the more damage passes: 16 accept at most 7 % more of randomly damaged streams than 0.
MAX_STRAY_BYTES = 16
STRAY_BYTES_BEFORE_END = re.compile(r'(\d+) extraneous bytes before marker 0xd9')
SEGMENT = re.compile(rb'\xff([\xc0-\xcf\xda-\xfe])(..)', re.DOTALL)  # marker and length
FRAME_MARKERS, RESTART_INTERVAL_MARKER, SCAN_MARKER = (0xc0, 0xc1), 0xdd, 0xda
RESTART = re.compile(rb'\xff([\xd0-\xd7])')
# Inside coded data, 0xff is followed by 0, by 0xff as padding, or by a restart marker.
END_OF_CODED_DATA = re.compile(rb'\xff[^\x00\xff\xd0-\xd7]')
BLOCK_PX = 8
MAX_SIDE_PX = 65500  # of libjpeg; longer intervals are rejected


def decode_jpeg(stream: bytes) -> NDArray[np.uint8]:
    """
    Decode a JPEG stream.

    libjpeg fills unreadable parts with grey or the preceding pixels and only warns; these
    warnings are treated as errors, except for few stray bytes before a marker and a missing end
    marker, which cost no pixels.  JPEG has no checksum, so damage that leaves a valid stream is
    not detected.

    Parameters
    ----------
    stream : bytes
        An EXIF orientation is ignored.

    Returns
    -------
    uint8 [H, W] or [H, W, 3]
        Grey or RGB.

    Raises
    ------
    MessageError
        If the stream is truncated or damaged.
    """
    try:
        is_gray = simplejpeg.decode_jpeg_header(stream)[2] == 'Gray'
        color_space = 'GRAY' if is_gray else 'RGB'
        try:
            pixels = simplejpeg.decode_jpeg(stream, color_space)
        except ValueError:
            if not _is_complete(stream):
                raise
            pixels = simplejpeg.decode_jpeg(stream, color_space, strict=False)
    except ValueError as err:
        raise MessageError(f'`data` must be a valid JPEG; {err}') from err
    return np.asarray(pixels[..., 0] if is_gray else pixels, np.uint8)


def drop_stray_bytes_in_header(stream: bytes) -> bytes:
    """Remove bytes between the header's segments, which libjpeg skips; else return the stream."""
    segments, rest = _split_header(stream)
    length = len(JPEG_START) + sum(2 + len(payload) for _, payload in segments) + len(rest)
    return _join(segments, rest) if segments and length < len(stream) else stream


def _is_complete(stream: bytes) -> bool:
    """
    Check that all coded data of a stream can be decoded, whatever else is wrong with it.

    libjpeg tells only its first warning.  Therefore each restart interval is decoded as an image
    of its own, in which stray bytes are the last thing that it can warn of.
    """
    images = _split_at_restarts(stream)
    return bool(images) and all(map(_is_followed_by_few_stray_bytes, images))


def _is_followed_by_few_stray_bytes(stream: bytes) -> bool:
    try:  # at the smallest size, since only the reading of the coded data is of interest
        simplejpeg.decode_jpeg(stream, 'GRAY', min_height=1, min_width=1, min_factor=8)
    except ValueError as err:
        stray = STRAY_BYTES_BEFORE_END.search(str(err))
        return stray is not None and int(stray[1]) <= MAX_STRAY_BYTES
    return True


def _split_at_restarts(stream: bytes) -> list[bytes]:
    """
    Return each restart interval of a sequential stream as an image of one row of coded units.

    Returns
    -------
    list of bytes
        Empty if a marker is missing, surplus or out of order, and for a progressive stream.
    """
    segments, rest = _split_header(stream)
    if not segments:
        return []
    payloads = dict(segments)
    frame = next((payloads[each] for each in FRAME_MARKERS if each in payloads), b'')
    end = END_OF_CODED_DATA.search(rest)
    if (len(frame) < 11 or payloads[SCAN_MARKER][2:3] != frame[7:8]
            or (end is not None and end[0] != JPEG_END)):
        return []
    height, width = (int.from_bytes(frame[at:at + 2], 'big') for at in (3, 5))
    # Sampling factors; the minimum coded unit (MCU) of a single component is one block.
    factors = frame[9::3] if frame[7] > 1 else b'\x11'
    mcu_height = BLOCK_PX * max(1, *(each & 15 for each in factors))
    mcu_width = BLOCK_PX * max(1, *(each >> 4 for each in factors))
    mcus = -(-height // mcu_height) * -(-width // mcu_width)
    interval = int.from_bytes(payloads.get(RESTART_INTERVAL_MARKER, b'')[2:4], 'big') or mcus
    parts = RESTART.split(rest if end is None else rest[:end.start()])
    intervals, numbers = parts[::2], [marker[0] & 7 for marker in parts[1::2]]
    if (numbers != [each % 8 for each in range(len(numbers))]
            or len(intervals) != -(-mcus // interval)):
        return []
    if len(intervals) == 1:
        return [_join(segments, intervals[0] + JPEG_END)]
    return [_join(segments, coded + JPEG_END,
                  (mcu_height, mcu_width * min(interval, mcus - each * interval)))
            for each, coded in enumerate(intervals)]


def _split_header(stream: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """
    Return marker and payload of each segment up to the first scan, and all bytes after it.

    Returns
    -------
    segments : list of (int, bytes)
        A payload begins with its length, two bytes; empty if there is no valid header.
    rest : bytes
    """
    segments: list[tuple[int, bytes]] = []
    at = len(JPEG_START)
    while not (segments and segments[-1][0] == SCAN_MARKER):
        found = SEGMENT.search(stream, at)
        if found is None or found.start() - at > MAX_STRAY_BYTES:
            return [], b''
        at = found.start(2) + max(2, int.from_bytes(found[2], 'big'))
        segments.append((found[1][0], stream[found.start(2):at]))
    return segments, stream[at:]


def _join(segments: list[tuple[int, bytes]], rest: bytes,
          size: tuple[int, int] | None = None) -> bytes:
    """Build a stream, with another height and width if `size` is given."""
    parts = [JPEG_START]
    for marker, payload in segments:
        if size is not None and marker in FRAME_MARKERS:
            sides = b''.join(min(side, MAX_SIDE_PX + 1).to_bytes(2, 'big') for side in size)
            payload = payload[:3] + sides + payload[7:]
        parts += [bytes((0xff, marker)), payload]
    return b''.join([*parts, rest])
