"""Compressed images to the raw image message that their publisher started from."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.image import (
    decode_compressed_rgb, decode_stream, ImageFields, pack_image)


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
        If the stream is neither JPEG nor PNG, is truncated or corrupt, is too large, or has not
        the one 16-bit sample a pixel that its format promises.
    """
    if image_format.partition(';')[0].strip() != '16UC1':
        return pack_image(decode_compressed_rgb(data, max_pixels=max_pixels), 'rgb8')
    samples = decode_stream(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR,
                            max_pixels=max_pixels)
    if samples.dtype != np.uint16 or samples.ndim != 2:
        raise MessageError(f'`data` must hold one 16-bit sample a pixel for the format '
                           f'{image_format!r}; got {samples.dtype} {list(samples.shape)}')
    return pack_image(samples, '16UC1')
