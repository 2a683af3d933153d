"""Decode JPEG and PNG streams; reject streams that are too large, truncated or damaged."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import simplejpeg

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.jpeg import decode_jpeg, drop_stray_bytes_in_header, JPEG_START

PNG_START = b'\x89PNG\r\n\x1a\n'


def read_image_size(stream: bytes) -> tuple[int, int]:
    """
    Read the image size from the header of a JPEG or PNG stream.

    Parameters
    ----------
    stream : bytes

    Returns
    -------
    height, width : int
        Size, px, both above 0.

    Raises
    ------
    MessageError
        If the stream is neither JPEG nor PNG, or its header contains no valid size.
    """
    if stream.startswith(JPEG_START):
        try:
            height, width = map(int, simplejpeg.decode_jpeg_header(stream)[:2])
        except ValueError as err:
            raise MessageError(f'`data` must be a valid JPEG; its header is not: {err}') from err
    elif stream.startswith(PNG_START):
        # The PNG specification puts IHDR first.
        if stream[12:16] != b'IHDR' or len(stream) < 24:
            raise MessageError(f'`data` must be a valid PNG; its {len(stream)} bytes do not begin '
                               'with IHDR')
        height, width = (int.from_bytes(stream[at:at + 4], 'big') for at in (20, 16))
    else:
        raise MessageError(f'`data` must be a JPEG or PNG stream; it starts with {stream[:8]!r}')
    if min(height, width) == 0:
        raise MessageError(f'`data` must contain an image; its header declares {width} x {height}')
    return height, width


def decode_stream(stream: bytes, *, max_pixels: int) -> NDArray[Any]:
    """
    Decode a JPEG or PNG stream without converting its samples.

    Parameters
    ----------
    stream : bytes
        Grey or colour, 8 or 16 bits per sample; an alpha channel is dropped.  An EXIF orientation
        is ignored, since camera_info describes the sensor's rows and columns.
    max_pixels : int
        Largest permitted image; checked against the header before decoding.

    Returns
    -------
    uint8 or uint16 [H, W] or [H, W, 3]
        Grey or RGB, contiguous.

    Raises
    ------
    MessageError
        If the stream is neither JPEG nor PNG, is truncated or damaged, or is too large.
    """
    is_jpeg = stream.startswith(JPEG_START)
    if is_jpeg:
        stream = drop_stray_bytes_in_header(stream)
    height, width = read_image_size(stream)
    if height * width > max_pixels:
        raise MessageError(f'`data` must contain at most {max_pixels} pixels; '
                           f'its header declares {width} x {height}')
    return decode_jpeg(stream) if is_jpeg else _decode_png(stream)


def _decode_png(stream: bytes) -> NDArray[Any]:
    """Decode with OpenCV, which verifies the checksum of every chunk."""
    try:
        pixels: NDArray[Any] | None = cv2.imdecode(
            np.frombuffer(stream, np.uint8),
            cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as err:
        raise MessageError(f'`data` must be a valid PNG; got {err}') from err
    if pixels is None:
        raise MessageError('`data` must be a valid PNG; its content is damaged')
    return pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
