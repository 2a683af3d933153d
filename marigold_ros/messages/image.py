"""Convert between image message fields and arrays."""

from __future__ import annotations

from dataclasses import dataclass
import struct
from typing import Any, NamedTuple, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.messages.header import peek_header

if TYPE_CHECKING:
    from marigold_ros.depth.types import RgbImage
    from marigold_ros.messages.memory import MessageMemory


@dataclass(frozen=True, eq=False)
class ImageFields:
    """
    Fields of sensor_msgs/Image without its header.

    Attributes
    ----------
    height, width : int
        Size, px.
    encoding : str
        See sensor_msgs/image_encodings.hpp.
    is_bigendian : bool
        Byte order of samples wider than one byte.
    step : int
        Bytes from one row to the next, including padding.
    data : uint8 [N]
        All rows, contiguous.
    memory : MessageMemory or None
        What `data` are in, if it has room for the rest of the message.
    """

    height: int
    width: int
    encoding: str
    is_bigendian: bool
    step: int
    data: NDArray[np.uint8]
    memory: MessageMemory | None = None


class PixelFormat(NamedTuple):
    """
    Memory layout of an encoding and its conversion to RGB.

    Attributes
    ----------
    dtype : str
        NumPy dtype of a sample.
    channels : int
        Samples per pixel.
    to_rgb : int or None
        cv2.cvtColor code; None if no conversion is needed.
    even : (int, int)
        Height and width must be multiples of these.
    min_px : int
        Smallest height and width; OpenCV's demosaicing returns black below 3.
    has_chroma_plane : bool
        Whether H/2 rows of interleaved chroma follow the H rows of luminance.
    """

    dtype: str
    channels: int
    to_rgb: int | None = None
    even: tuple[int, int] = (1, 1)
    min_px: int = 1
    has_chroma_plane: bool = False

    @property
    def pixel_bytes(self) -> int:
        """Return the size of a pixel, bytes."""
        return self.channels * np.dtype(self.dtype).itemsize

    def rows(self, height: int) -> int:
        """Return the number of rows of the data, including chroma."""
        return height * 3 // 2 if self.has_chroma_plane else height


# cv2 names a Bayer pattern by its second row, ROS by its first; 8UC3 is OpenCV's BGR.
COLOR_FORMATS = {
    'rgb8': PixelFormat('u1', 3),
    'bgr8': PixelFormat('u1', 3, cv2.COLOR_BGR2RGB),
    '8UC3': PixelFormat('u1', 3, cv2.COLOR_BGR2RGB),
    'rgba8': PixelFormat('u1', 4, cv2.COLOR_RGBA2RGB),
    'bgra8': PixelFormat('u1', 4, cv2.COLOR_BGRA2RGB),
    'mono8': PixelFormat('u1', 1, cv2.COLOR_GRAY2RGB),
    '8UC1': PixelFormat('u1', 1, cv2.COLOR_GRAY2RGB),
    'bayer_rggb8': PixelFormat('u1', 1, cv2.COLOR_BayerBG2RGB, min_px=3),
    'bayer_bggr8': PixelFormat('u1', 1, cv2.COLOR_BayerRG2RGB, min_px=3),
    'bayer_gbrg8': PixelFormat('u1', 1, cv2.COLOR_BayerGR2RGB, min_px=3),
    'bayer_grbg8': PixelFormat('u1', 1, cv2.COLOR_BayerGB2RGB, min_px=3),
    'yuv422': PixelFormat('u1', 2, cv2.COLOR_YUV2RGB_UYVY, even=(1, 2)),
    'uyvy': PixelFormat('u1', 2, cv2.COLOR_YUV2RGB_UYVY, even=(1, 2)),
    'yuv422_yuy2': PixelFormat('u1', 2, cv2.COLOR_YUV2RGB_YUY2, even=(1, 2)),
    'yuyv': PixelFormat('u1', 2, cv2.COLOR_YUV2RGB_YUY2, even=(1, 2)),
    'nv12': PixelFormat('u1', 1, cv2.COLOR_YUV2RGB_NV12, even=(2, 2), has_chroma_plane=True),
}
# mono16, rgb16, bayer_rggb16, ...: the same layouts with 16-bit samples.
COLOR_FORMATS |= {name[:-1] + '16': pixel._replace(dtype='u2')
                  for name, pixel in COLOR_FORMATS.items() if name.endswith('8')}
# mono16 is grey in an image and 16UC1 in depth.
DEPTH_FORMATS = {'32FC1': PixelFormat('f4', 1), '16UC1': PixelFormat('u2', 1),
                 'mono16': PixelFormat('u2', 1)}
PACKED_FORMATS = {name: pixel for name, pixel in (COLOR_FORMATS | DEPTH_FORMATS).items()
                  if name.startswith(('rgb8', 'rgb16', 'mono', 'bayer_', '32FC1', '16UC1'))}


def read_image(message: bytes) -> ImageFields:
    """
    Read the fields of a serialized image without copying its data.

    Parameters
    ----------
    message : bytes
        CDR of a sensor_msgs/Image, see `peek_header` for its encapsulation.

    Returns
    -------
    ImageFields
        Its data are those of the message, read-only.

    Raises
    ------
    MessageError
        If the message is truncated, or its header is invalid.
    """
    at = peek_header(message)[2]
    try:
        order = '<' if message[1] & 1 else '>'
        at += -at % 4
        height, width, length = struct.unpack_from(order + 'III', message, at)
        encoding = bytes(message[at + 12:at + 12 + length]).rstrip(b'\0')
        at += 12 + length
        is_bigendian = message[at]
        at += 1 + -(at + 1) % 4
        step, size = struct.unpack_from(order + 'II', message, at)
        if at + 8 + size > len(message):
            raise IndexError
    except (IndexError, struct.error) as err:
        raise MessageError(f'cannot deserialize the Image: its {len(message)} bytes are '
                           'truncated or corrupt') from err
    return ImageFields(height, width, encoding.decode(errors='replace'), bool(is_bigendian), step,
                       np.frombuffer(message, np.uint8, size, at + 8))


def read_pixels(fields: ImageFields, formats: dict[str, PixelFormat]) -> NDArray[Any]:
    """
    Return the samples of an image message without row padding, in native byte order.

    Parameters
    ----------
    fields : ImageFields
    formats : dict
        Permitted encodings and their layouts.

    Returns
    -------
    [rows, W] or [rows, W, channels]
        May share memory with the message.  rows is H, or 3/2 H with a chroma plane.

    Raises
    ------
    MessageError
        If the fields are inconsistent or the encoding is not among the formats.
    """
    pixel = formats.get(fields.encoding)
    if pixel is None:
        raise MessageError(f'`encoding` must be one of {", ".join(formats)}; '
                           f'got {fields.encoding!r}')
    _check_layout(fields, pixel)
    rows = pixel.rows(fields.height)
    table = fields.data.reshape(rows, fields.step)[:, :fields.width * pixel.pixel_bytes]
    stored = np.dtype(pixel.dtype).newbyteorder('>' if fields.is_bigendian else '<')
    samples: NDArray[Any] = np.ascontiguousarray(table).view(stored)
    samples = samples.astype(pixel.dtype, copy=False)
    if pixel.channels > 1:
        samples = samples.reshape(rows, fields.width, pixel.channels)
    return samples


def decode_rgb(fields: ImageFields) -> RgbImage:
    """
    Convert a colour or grey image message to RGB.

    Parameters
    ----------
    fields : ImageFields
        16-bit samples are scaled by 255 / 65535 and rounded, as in cv_bridge.

    Returns
    -------
    uint8 [H, W, 3]
        RGB, contiguous, a new array.

    Raises
    ------
    MessageError
        If the fields are inconsistent or the encoding is not in COLOR_FORMATS.

    Examples
    --------
    >>> data = np.array([255, 0, 0, 0, 255, 0], np.uint8)  # a blue and a green pixel
    >>> fields = ImageFields(1, 2, 'bgr8', is_bigendian=False, step=6, data=data)
    >>> decode_rgb(fields).tolist()
    [[[0, 0, 255], [0, 255, 0]]]
    """
    pixels = read_pixels(fields, COLOR_FORMATS)
    code = COLOR_FORMATS[fields.encoding].to_rgb
    rgb: NDArray[Any] = pixels.copy() if code is None else np.asarray(cv2.cvtColor(pixels, code))
    return to_8_bit(rgb) if rgb.dtype == np.uint16 else rgb


def pack_image(array: NDArray[Any], encoding: str,
               memory: MessageMemory | None = None) -> ImageFields:
    """
    Convert an array to little-endian message fields without row padding.

    Parameters
    ----------
    array : [H, W] or [H, W, 3]
        uint8 [H, W, 3] for rgb8, uint8 [H, W] for mono8, float32 [H, W] for 32FC1,
        uint16 [H, W] for 16UC1; likewise for the others.
    encoding : str
        One of PACKED_FORMATS.
    memory : MessageMemory or None
        What the array is in.

    Returns
    -------
    ImageFields
        Shares memory with a contiguous array.

    Raises
    ------
    InputError
        If the encoding is unknown or does not match the array's dtype and shape.

    Examples
    --------
    >>> fields = pack_image(np.zeros((48, 64, 3), np.uint8), 'rgb8')
    >>> fields.height, fields.width, fields.step, fields.data.size
    (48, 64, 192, 9216)
    """
    pixel = PACKED_FORMATS.get(encoding)
    if pixel is None:
        raise InputError(f'`encoding` must be one of {", ".join(PACKED_FORMATS)}; '
                         f'got {encoding!r}')
    expected = (*array.shape[:2], *((pixel.channels,) if pixel.channels > 1 else ()))
    if array.ndim < 2 or array.shape != expected or array.dtype != pixel.dtype:
        raise InputError(f'`array` must be {np.dtype(pixel.dtype)} with {pixel.channels} channels '
                         f'for {encoding}; got {array.dtype} {list(array.shape)}')
    height, width = array.shape[:2]
    little = np.ascontiguousarray(array, np.dtype(pixel.dtype).newbyteorder('<'))
    return ImageFields(height=height, width=width, encoding=encoding, is_bigendian=False,
                       step=width * pixel.pixel_bytes,
                       data=little.reshape(-1).view(np.uint8), memory=memory)


def _check_layout(fields: ImageFields, pixel: PixelFormat) -> None:
    """
    Raise MessageError if size, step and data are inconsistent.

    As strict as cv_bridge's `matFromImage`: surplus bytes may be padding that is missing in
    `step`, which would shear the image.
    """
    height, width = fields.height, fields.width
    if height < pixel.min_px or width < pixel.min_px:
        raise MessageError(f'`height` and `width` must be at least {pixel.min_px} for '
                           f'{fields.encoding}; got {height} and {width}')
    if height % pixel.even[0] or width % pixel.even[1]:
        raise MessageError(f'`height` and `width` must be multiples of {pixel.even[0]} and '
                           f'{pixel.even[1]} for {fields.encoding}; got {height} and {width}')
    row_bytes = width * pixel.pixel_bytes
    if fields.step < row_bytes:
        raise MessageError(f'`step` must be at least {row_bytes} bytes for {width} px of '
                           f'{fields.encoding}; got {fields.step}')
    rows = pixel.rows(height)
    if fields.data.size != rows * fields.step:
        raise MessageError(f'`data` must be {rows} rows x {fields.step} = {rows * fields.step} '
                           f'bytes; got {fields.data.size}')


def to_8_bit(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale uint16 0..65535 to uint8 0..255 with rounding."""
    return np.asarray(cv2.convertScaleAbs(samples, alpha=255 / 65535), np.uint8)
