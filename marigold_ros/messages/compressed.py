"""Convert compressed image messages to raw ones."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.image import ImageFields, pack_image
from marigold_ros.messages.image_stream import decode_compressed_rgb, decode_png_samples

# Quantization type and its parameters a and b: sample = a / depth + b.
DEPTH_HEADER = struct.Struct('<iff')


def decompress_image(data: NDArray[np.uint8] | bytes, image_format: str, *,
                     max_pixels: int) -> ImageFields:
    """
    Decompress a sensor_msgs/CompressedImage to the fields of a sensor_msgs/Image.

    Parameters
    ----------
    data : uint8 [N] or bytes
        The JPEG or PNG stream.
    image_format : str
        The message's `format` as written by image_transport ('16UC1; png compressed',
        '32FC1; compressedDepth png') or abbreviated ('jpeg').
    max_pixels : int
        Largest permitted image; checked against the header before decoding.

    Returns
    -------
    ImageFields
        16UC1 or 32FC1 if the format declares depth in that encoding, else rgb8.

    Raises
    ------
    MessageError
        If the stream is neither JPEG nor PNG, is truncated or damaged, is too large, or does not
        contain the single 16-bit channel that its format declares.
    """
    encoding, _, transport = (part.strip() for part in image_format.partition(';'))
    if 'compressedDepth' in transport:
        return _decompress_depth(bytes(data), encoding, image_format, max_pixels)
    if encoding != '16UC1':
        return pack_image(decode_compressed_rgb(data, max_pixels=max_pixels), 'rgb8')
    return pack_image(_decode_samples(bytes(data), image_format, max_pixels), '16UC1')


def _decompress_depth(data: bytes, encoding: str, image_format: str,
                      max_pixels: int) -> ImageFields:
    """Decode the format of compressed_depth_image_transport's `codec.cpp`: header, then PNG."""
    if encoding not in ('16UC1', '32FC1') or 'rvl' in image_format:
        raise MessageError(f'`format` must be 16UC1 or 32FC1 in PNG for compressed depth; '
                           f'got {image_format!r}')
    if len(data) < DEPTH_HEADER.size:
        raise MessageError(f'`data` must begin with a header of {DEPTH_HEADER.size} bytes for the '
                           f'format {image_format!r}; got {len(data)}')
    samples = _decode_samples(data[DEPTH_HEADER.size:], image_format, max_pixels)
    if encoding == '16UC1':
        return pack_image(samples, encoding)
    _, a, b = DEPTH_HEADER.unpack_from(data)
    with np.errstate(divide='ignore', invalid='ignore'):
        depth_m = np.float32(a) / (samples.astype(np.float32) - np.float32(b))
    depth_m[samples == 0] = np.nan
    return pack_image(depth_m, encoding)


def _decode_samples(data: bytes, image_format: str, max_pixels: int) -> NDArray[np.uint16]:
    """Decode a PNG with a single 16-bit channel."""
    samples = decode_png_samples(data, max_pixels=max_pixels)
    if samples.dtype != np.uint16 or samples.ndim != 2:
        raise MessageError(f'`data` must contain a single 16-bit channel for the format '
                           f'{image_format!r}; got {samples.dtype} {list(samples.shape)}')
    return samples
