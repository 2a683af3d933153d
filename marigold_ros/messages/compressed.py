"""Compressed images to the raw image message that their publisher started from."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.image import decode_compressed_rgb, ImageFields, pack_image
from marigold_ros.messages.image_header import read_image_size


def decompress_image(data: NDArray[np.uint8] | bytes, image_format: str, *,
                     max_pixels: int) -> ImageFields:
    """
    Decompress a sensor_msgs/CompressedImage into the fields of a sensor_msgs/Image.

    Parameters
    ----------
    data : uint8 [N] or bytes
        The JPEG or PNG stream.
    image_format : str
        The message's `format`, as image_transport writes it ('16UC1; png compressed') or
        shorter ('jpeg').
    max_pixels : int
        Largest image that may be decoded; compared with the header before any decoding.

    Returns
    -------
    ImageFields
        16UC1 where the format names it, so that depth in millimetres survives; else rgb8.

    Raises
    ------
    MessageError
        If the stream is neither JPEG nor PNG, is truncated or corrupt, is too large, or is not
        the single-channel 16-bit image that its format promises.
    """
    if image_format.partition(';')[0].strip() != '16UC1':
        return pack_image(decode_compressed_rgb(data, max_pixels=max_pixels), 'rgb8')
    stream = bytes(data)
    height, width = read_image_size(stream)
    if height * width > max_pixels:
        raise MessageError(f'`data` must hold at most {max_pixels} pixels; '
                           f'its header says {width} x {height}')
    samples = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_UNCHANGED)
    # The stubs do not know that a stream which OpenCV cannot decode gives None.
    if samples is None or samples.dtype != np.uint16 or samples.shape != (height, width):
        raise MessageError(f'`data` must be a sound 16-bit gray PNG of {width} x {height} for '
                           f'format {image_format!r}')
    return pack_image(samples, '16UC1')
