"""Decode JPEG and PNG streams; reject streams that are too large, truncated or damaged."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
import simplejpeg

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.image import to_8_bit

if TYPE_CHECKING:
    from marigold_ros.depth.types import RgbImage

JPEG_START = b'\xff\xd8'
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


def decode_compressed_rgb(data: NDArray[np.uint8] | bytes, *, max_pixels: int) -> RgbImage:
    """
    Decode the JPEG or PNG stream of a sensor_msgs/CompressedImage.

    libjpeg fills unreadable parts with grey or the preceding pixels and only warns; these
    warnings are treated as errors.  JPEG has no checksum, so damage that leaves a valid stream is
    not detected.  PNG has a checksum for every chunk.

    Parameters
    ----------
    data : uint8 [N] or bytes
        Grey or colour, 8 or 16 bits per sample.  An EXIF orientation is ignored, since
        camera_info describes the sensor's rows and columns.
    max_pixels : int
        Largest permitted image; checked against the header before decoding.

    Returns
    -------
    uint8 [H, W, 3]
        RGB, contiguous.

    Raises
    ------
    MessageError
        If the stream is neither JPEG nor PNG, is truncated or damaged, or is too large.
    """
    stream = bytes(data)
    _check_size(stream, max_pixels)
    if stream.startswith(JPEG_START):
        try:
            return np.asarray(simplejpeg.decode_jpeg(stream, 'RGB', strict=True), np.uint8)
        except ValueError as err:
            raise MessageError(f'`data` must be a valid JPEG; {err}') from err
    bgr = _decode_png(stream, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if bgr.dtype == np.uint16:
        bgr = to_8_bit(bgr)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def decode_png_samples(data: bytes, *, max_pixels: int) -> NDArray[Any]:
    """
    Decode a PNG stream without converting its samples.

    Parameters
    ----------
    data : bytes
    max_pixels : int
        Largest permitted image; checked against the header before decoding.

    Returns
    -------
    uint8 or uint16 [H, W] or [H, W, 3]
        In OpenCV's channel order.

    Raises
    ------
    MessageError
        If the stream is not PNG, is truncated or damaged, or is too large.
    """
    _check_size(data, max_pixels)
    return _decode_png(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)


def _check_size(stream: bytes, max_pixels: int) -> None:
    height, width = read_image_size(stream)
    if height * width > max_pixels:
        raise MessageError(f'`data` must contain at most {max_pixels} pixels; '
                           f'its header declares {width} x {height}')


def _decode_png(stream: bytes, flags: int) -> NDArray[Any]:
    """Decode with OpenCV, which verifies all checksums."""
    if not stream.startswith(PNG_START):
        raise MessageError(f'`data` must be a PNG stream; it starts with {stream[:8]!r}')
    try:
        pixels: NDArray[Any] | None = cv2.imdecode(
            np.frombuffer(stream, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as err:
        raise MessageError(f'`data` must be a valid PNG; got {err}') from err
    if pixels is None:
        raise MessageError('`data` must be a valid PNG; its content is damaged')
    return pixels
