"""Convert compressed image messages to raw ones."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.image import COLOR_FORMATS, DEPTH_FORMATS, ImageFields, pack_image
from marigold_ros.messages.image_stream import decode_stream, PNG_START
from marigold_ros.messages.rvl import decode_rvl

# Quantization type and its parameters a and b: sample = a / depth + b.
DEPTH_HEADER = struct.Struct('<iff')
DEPTH_CODECS = ('png', 'rvl')


def decompress_image(data: NDArray[np.uint8] | bytes, image_format: str, *,
                     max_pixels: int) -> ImageFields:
    """
    Decompress a sensor_msgs/CompressedImage to the fields of a sensor_msgs/Image.

    The format of image_transport names the encoding of the raw image, the codec and, where it
    differs, the encoding of the compressed image: 'bayer_rggb8; jpeg compressed ' is a mosaic,
    'bayer_rggb8; jpeg compressed mono8' is grey.  Colours have the order of JPEG and PNG whatever
    the format says: only image_transport before 2013 compressed swapped ones.

    Parameters
    ----------
    data : uint8 [N] or bytes
        A JPEG or PNG stream, or compressed depth.
    image_format : str
        The message's `format` as written by image_transport ('16UC1; png compressed',
        '32FC1; compressedDepth rvl') or abbreviated ('jpeg').
    max_pixels : int
        Largest permitted image; checked against the header before decoding.

    Returns
    -------
    ImageFields
        16UC1, mono16 or 32FC1 for compressed depth, 16UC1 or a Bayer pattern if the format
        declares it, else rgb8, rgb16, mono8 or mono16 as the stream has channels and bits.

    Raises
    ------
    MessageError
        If the stream is neither JPEG nor PNG, is truncated or damaged, is too large, or does not
        contain the single 16-bit channel that its format declares.
    """
    stream = bytes(data)
    encoding, _, transport = (part.strip() for part in image_format.partition(';'))
    # Old versions of compressed_depth_image_transport write nothing but the encoding.
    if 'compressedDepth' in transport or stream.startswith(PNG_START, DEPTH_HEADER.size):
        return _decompress_depth(stream, encoding, image_format, max_pixels)
    samples = decode_stream(stream, max_pixels=max_pixels)
    if encoding in ('16UC1', '32FC1'):
        return pack_image(_check_depth(samples, image_format), '16UC1')
    layout = 'rgb' if samples.ndim == 3 else 'mono'
    compressed = transport.partition('compressed')[2].strip() or encoding
    if layout == 'mono' and compressed.startswith('bayer_'):
        layout = compressed.rstrip('0123456789')
        if f'{layout}8' not in COLOR_FORMATS:
            raise MessageError('`format` must name a Bayer pattern of sensor_msgs; '
                               f'got {image_format!r}')
    return pack_image(samples, f'{layout}{8 * samples.itemsize}')


def _decompress_depth(data: bytes, encoding: str, image_format: str,
                      max_pixels: int) -> ImageFields:
    """Decode the format of compressed_depth_image_transport's `codec.cpp`."""
    codec = image_format.partition('compressedDepth')[2].strip() or 'png'
    if encoding not in DEPTH_FORMATS or codec not in DEPTH_CODECS:
        raise MessageError(f'`format` must be {" or ".join(DEPTH_FORMATS)} in '
                           f'{" or ".join(DEPTH_CODECS)} for compressed depth; '
                           f'got {image_format!r}')
    if len(data) < DEPTH_HEADER.size:
        raise MessageError(f'`data` must begin with a header of {DEPTH_HEADER.size} bytes for the '
                           f'format {image_format!r}; got {len(data)}')
    stream = data[DEPTH_HEADER.size:]
    samples = (decode_rvl(stream, max_pixels=max_pixels) if codec == 'rvl' else _check_depth(
        decode_stream(stream, max_pixels=max_pixels), image_format))
    if encoding != '32FC1':
        return pack_image(samples, encoding)
    _, a, b = DEPTH_HEADER.unpack_from(data)
    with np.errstate(divide='ignore', invalid='ignore'):
        depth_m = np.float32(a) / (samples.astype(np.float32) - np.float32(b))
    depth_m[samples == 0] = np.nan
    return pack_image(depth_m, encoding)


def _check_depth(samples: NDArray[np.uint16], image_format: str) -> NDArray[np.uint16]:
    """Require a single 16-bit channel, as only PNG can contain."""
    if samples.dtype != np.uint16 or samples.ndim != 2:
        raise MessageError(f'`data` must contain a single 16-bit channel for the format '
                           f'{image_format!r}; got {samples.dtype} {list(samples.shape)}')
    return samples
