"""Decode RVL, the lossless compression of 16-bit depth."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import MessageError

SIZE_HEADER = struct.Struct('<II')  # columns, rows
WORD_BYTES, WORD_NIBBLES = 4, 8
# 30 bits: more than a difference of 16-bit samples or a run in a permitted image needs.
MAX_NIBBLES = 10


def decode_rvl(data: bytes, *, max_pixels: int) -> NDArray[np.uint16]:
    """
    Decode an image in the RVL format of compressed_depth_image_transport.

    After the size follow, over and over, the number of zeros, the number n of other samples, and
    n differences, each to the last sample that was not zero; the least significant bit of a
    difference is its sign.  RVL has no checksum: damage is detected if the numbers do not add up
    to the size of the image and the length of the data.

    Parameters
    ----------
    data : bytes
        Columns and rows as uint32, then words of 32 bits, all little-endian.
    max_pixels : int
        Largest permitted image; checked before decoding.

    Returns
    -------
    uint16 [H, W]

    Raises
    ------
    MessageError
        If the image is empty or too large, or the data are truncated or damaged.

    References
    ----------
    A. D. Wilson, "Fast Lossless Depth Image Compression", ISS 2017;
    `rvl_codec.cpp` of compressed_depth_image_transport.

    Examples
    --------
    1 zero, then 3 others that differ by 5, 0 and -1 (coded as 10 = 2 + 1 * 8, 0 and 1):

    >>> data = struct.pack('<III', 2, 2, 0x13a1_0100)
    >>> decode_rvl(data, max_pixels=4).tolist()
    [[0, 5], [5, 4]]
    """
    if len(data) < SIZE_HEADER.size or len(data) % WORD_BYTES:
        raise MessageError(f'`data` must contain {SIZE_HEADER.size} bytes of size and words of '
                           f'{WORD_BYTES} bytes in RVL; got {len(data)} bytes')
    width, height = SIZE_HEADER.unpack_from(data)
    if not 0 < height * width <= max_pixels:
        raise MessageError(f'`data` must contain at least 1 and at most {max_pixels} pixels; '
                           f'its RVL header declares {width} x {height}')
    numbers = _read_numbers(np.frombuffer(data, '<u4', offset=SIZE_HEADER.size))
    starts, end = _find_runs(numbers, height * width)
    is_difference = np.ones(end, bool)
    is_difference[starts] = is_difference[starts + 1] = False
    coded = numbers[:end][is_difference]
    counts = np.stack([numbers[starts], numbers[starts + 1]], axis=1).reshape(-1)
    is_zero = np.repeat(np.arange(counts.size) % 2 == 0, counts)
    samples = np.zeros(height * width, np.uint16)
    samples[~is_zero] = np.cumsum((coded >> 1) ^ -(coded & 1), dtype=np.int32)
    return samples.reshape(height, width)


def _read_numbers(words: NDArray[np.uint32]) -> NDArray[np.int32]:
    """
    Read the numbers of a stream of nibbles, which begins at the most significant one of a word.

    A nibble holds 3 bits of a number, least significant first; its highest bit is set if the
    number goes on.
    """
    octets = words.astype('>u4').view(np.uint8)
    nibbles = np.stack([octets >> 4, octets & 15], axis=1).reshape(-1)
    ends = np.flatnonzero(nibbles < 8).astype(np.int32)
    starts = np.concatenate([np.zeros(1, np.int32), ends + 1])[:-1]
    further = ends - starts
    if further.max(initial=0) >= MAX_NIBBLES:
        raise _damaged()
    bits = nibbles & 7
    numbers: NDArray[np.int32] = bits[starts].astype(np.int32)
    unfinished = np.flatnonzero(further)
    for at in range(1, further.max(initial=0) + 1):
        numbers[unfinished] |= bits[starts[unfinished] + at].astype(np.int32) << 3 * at
        unfinished = unfinished[further[unfinished] > at]
    return numbers


def _find_runs(numbers: NDArray[np.int32], pixels: int) -> tuple[NDArray[np.int64], int]:
    """Return the index of each number of zeros [runs], and the end of the last run."""
    # From each number of zeros to the next; single elements are read faster than the array's.
    following = (np.arange(2, numbers.size + 1) + numbers[1:]).data
    found, at = [], 0
    while at < len(following):
        found.append(at)
        at = following[at]
    starts = np.array(found, np.int64)
    decoded = np.cumsum(numbers[starts] + numbers[starts + 1], dtype=np.int64)
    last = int(np.searchsorted(decoded, pixels))
    if last == starts.size or decoded[last] != pixels:
        raise _damaged()
    end = int(following[found[last]])
    if not 0 <= numbers.size - end < WORD_NIBBLES:  # the last word is padded
        raise _damaged()
    return starts[:last + 1], end


def _damaged() -> MessageError:
    return MessageError('`data` must be valid RVL; its content is truncated or damaged')
