"""Convert between point clouds and the fields of sensor_msgs/PointCloud2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.geometry.unproject import unproject
from marigold_ros.messages.memory import MessageMemory

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, RgbImage

FLOAT32 = 7
COLOR_NAMES = ('rgb', 'rgba')
KNOWN_NAMES = ('x', 'y', 'z', *COLOR_NAMES)
# Some drivers send a point for every beam.  One without a return is NaN, Inf, at the sensor (which
# measures nothing nearer than this), or at the sensor's smallest or largest range: the noise of
# real ranges is larger than the tolerance, so that no such share of them is the same.  A sensor
# with coarse steps may give the nearest patch of a surface one range; but then the surface goes on
# behind it, and points within 5 % are more.
MIN_RANGE_M = 0.05
MARK_SHARE, MARK_POINTS, MARK_TOLERANCE = 0.1, 10, 1e-5
SURFACE_TOLERANCE, MARK_SHARE_OF_SURFACE = 0.05, 0.5
# sensor_msgs/PointField: INT8 = 1 to FLOAT64 = 8.
FIELD_DTYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}


@dataclass(frozen=True, eq=False)
class CloudFields:
    """
    Fields of sensor_msgs/PointCloud2 without its header.

    Attributes
    ----------
    height, width : int
        Rows and columns of the image; height is 1 for an unorganized cloud.
    fields : tuple of (name, offset, datatype, count)
        See sensor_msgs/PointField.
    is_bigendian : bool
        Byte order of the points.
    point_step, row_step : int
        Size of a point and of a row, bytes.
    data : uint8 [N]
        All rows, contiguous.
    is_dense : bool
        Whether all points are finite.
    memory : MessageMemory or None
        What `data` are in, if it has room for the rest of the message.
    """

    height: int
    width: int
    fields: tuple[tuple[str, int, int, int], ...]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: NDArray[np.uint8]
    is_dense: bool = False
    memory: MessageMemory | None = None


def pack_cloud(points: FloatImage, rgb: RgbImage | None) -> CloudFields:
    """
    Convert organized points to message fields.

    Parameters
    ----------
    points : float32 [H, W, 3]
        x, y, z, m.
    rgb : uint8 [H, W, 3] or None
        Colour of each point.

    Returns
    -------
    CloudFields
        float32 x, y, z and, with colour, rgb = 0x00RRGGBB stored as float32; 12 or 16 bytes per
        point, little-endian.  A point that is not finite becomes three NaN, since MoveIt checks
        for NaN only.

    Raises
    ------
    InputError
        If an array has another dtype or shape.

    Examples
    --------
    >>> points = np.array([[[0.1, 0.2, 1.0], [np.nan, 0.2, 1.0]]], np.float32)
    >>> cloud = pack_cloud(points, np.full((1, 2, 3), 255, np.uint8))
    >>> cloud.point_step, cloud.row_step, [name for name, *_ in cloud.fields]
    (16, 32, ['x', 'y', 'z', 'rgb'])
    >>> unpacked, rgb = unpack_cloud(cloud)
    >>> unpacked[0, 1].tolist(), rgb[0, 0].tolist()
    ([nan, nan, nan], [255, 255, 255])
    """
    if points.ndim != 3 or points.shape[2] != 3 or points.dtype != np.float32:
        raise InputError('`points` must be float32 [H, W, 3]; '
                         f'got {points.dtype} {list(points.shape)}')
    if rgb is not None and (rgb.shape != points.shape or rgb.dtype != np.uint8):
        raise InputError(f'`rgb` must be uint8 {list(points.shape)}; '
                         f'got {rgb.dtype} {list(rgb.shape)}')
    packed = np.empty((*points.shape[:2], 3 if rgb is None else 4), np.float32)
    packed[..., :3] = points
    if rgb is not None:
        _pack_colors(packed, rgb)
    # A sum is finite only if all its terms are.
    with np.errstate(invalid='ignore', over='ignore'):
        packed[~np.isfinite(points[..., 0] + points[..., 1] + points[..., 2]), :3] = np.nan
    return _cloud_fields(packed)


class CloudPacker:
    """Convert the depth images of one camera to coloured clouds in memory that is reused."""

    def __init__(self) -> None:
        """Start with empty memory; the first depth image sets the size."""
        self._memory = MessageMemory()

    def pack(self, depth_m: FloatImage, K: NDArray[np.float64], rgb: RgbImage, *,
             stride: int = 1) -> CloudFields:
        """
        Convert one depth image.

        Parameters
        ----------
        depth_m : float32 [H, W]
            Filtered depth along Z, m; a pixel that is not finite becomes a point of three NaN.
        K : float64 [3, 3]
            Intrinsics, px.
        rgb : uint8 [H, W, 3]
            Colour of each pixel.
        stride : int
            Distance of the used pixels along both axes.

        Returns
        -------
        CloudFields
            `pack_cloud` of the unprojected points; overwritten by the next call.

        Raises
        ------
        InputError
            See `unproject`; also if the two images differ in size.
        """
        if rgb.shape != (*depth_m.shape, 3) or rgb.dtype != np.uint8:
            raise InputError(f'`rgb` must be uint8 {[*depth_m.shape, 3]}; '
                             f'got {rgb.dtype} {list(rgb.shape)}')
        colors = rgb[::stride, ::stride]
        packed = self._memory.array((*colors.shape[:2], 4), np.float32)
        unproject(depth_m, K, stride=stride, out=packed[..., :3])
        _pack_colors(packed, colors)
        return _cloud_fields(packed, self._memory)


def unpack_cloud(fields: CloudFields) -> tuple[FloatImage, RgbImage | None]:
    """
    Convert message fields to points and colours; ignore all other point fields.

    Parameters
    ----------
    fields : CloudFields

    Returns
    -------
    points : float32 [H, W, 3]
        x, y, z, m.
    rgb : uint8 [H, W, 3] or None
        None if the cloud has no field `rgb` or `rgba`.

    Raises
    ------
    MessageError
        If x, y or z is missing or the fields contradict each other.
    """
    table = _structured_points(fields)
    names = table.dtype.names or ()
    missing = [name for name in 'xyz' if name not in names]
    if missing:
        raise MessageError(f'`fields` must hold x, y and z; got {", ".join(names) or "none"}')
    with np.errstate(over='ignore', invalid='ignore'):  # overflow of float64 becomes Inf
        points = np.stack([table[name] for name in 'xyz'], axis=-1, dtype=np.float32)
    color = next((name for name in COLOR_NAMES if name in names), None)
    if color is None:
        return points, None
    if table[color].itemsize != 4:
        raise MessageError(f'`{color}` must be 4 bytes wide; got {table[color].itemsize}')
    bits = table[color].astype(np.uint32)
    return points, np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=-1,
                            dtype=np.uint8, casting='unsafe')


def measured_points(fields: CloudFields) -> FloatImage:
    """
    Read the points of a sensor's cloud, without those that mean "no return".

    Parameters
    ----------
    fields : CloudFields
        In the frame of the sensor.

    Returns
    -------
    float32 [n, 3]
        x, y, z, m, finite.

    Raises
    ------
    MessageError
        See `unpack_cloud`.

    Examples
    --------
    >>> points = np.array([[[4.0, 1.0, 0.0], [0.0, 0.0, 0.0], [np.nan] * 3]], np.float32)
    >>> measured_points(pack_cloud(points, None)).tolist()
    [[4.0, 1.0, 0.0]]
    """
    points: FloatImage = unpack_cloud(fields)[0].reshape(-1, 3)
    with np.errstate(over='ignore', invalid='ignore'):
        range_m = np.linalg.norm(points, axis=1)
    measured = np.isfinite(range_m) & (range_m > MIN_RANGE_M)
    count = np.count_nonzero(measured)
    for mark_m in (range_m[measured].min(initial=np.inf), range_m[measured].max(initial=0.0)):
        marked, surface = (measured & np.isclose(range_m, mark_m, rtol=tolerance, atol=0.0)
                           for tolerance in (MARK_TOLERANCE, SURFACE_TOLERANCE))
        if np.count_nonzero(marked) >= max(MARK_POINTS, MARK_SHARE * count,
                                           MARK_SHARE_OF_SURFACE * np.count_nonzero(surface)):
            measured &= ~marked
    return np.asarray(points[measured])


def _pack_colors(packed: FloatImage, rgb: RgbImage) -> None:
    """Write the bits 0x00RRGGBB to the last channel of float32 [H, W, 4]."""
    if not rgb.flags.c_contiguous:  # copied faster by channel than by pixel
        rgb = np.stack([rgb[..., channel] for channel in range(3)], axis=-1)
    color = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA)).view(np.uint32)[..., 0]
    np.bitwise_and(color, np.uint32(0x00ffffff), out=packed.view(np.uint32)[..., 3])


def _cloud_fields(packed: FloatImage, memory: MessageMemory | None = None) -> CloudFields:
    """Return the message fields of a contiguous float32 [H, W, 3] or [H, W, 4]."""
    height, width, count = packed.shape
    return CloudFields(
        height=height, width=width,
        fields=tuple((name, 4 * index, FLOAT32, 1)
                     for index, name in enumerate(('x', 'y', 'z', 'rgb')[:count])),
        is_bigendian=False, point_step=4 * count, row_step=width * 4 * count,
        data=packed.reshape(-1).view(np.uint8), memory=memory)


def _structured_points(fields: CloudFields) -> NDArray[np.void]:
    """Return the data as a structured array [H, W] of the fields in KNOWN_NAMES."""
    if fields.height < 1 or fields.width < 1:
        raise MessageError(f'`height` and `width` must be at least 1; '
                           f'got {fields.height} and {fields.width}')
    row_bytes = fields.width * fields.point_step
    if fields.point_step < 1 or fields.row_step < row_bytes:
        raise MessageError(f'`row_step` must be at least {fields.width} points x point_step = '
                           f'{row_bytes} bytes; got {fields.row_step}')
    if fields.data.size != fields.height * fields.row_step:
        raise MessageError(f'`data` must be {fields.height} rows x {fields.row_step} bytes; '
                           f'got {fields.data.size}')
    names = [name for name, *_ in fields.fields if name in KNOWN_NAMES]
    if len(set(names)) < len(names):
        raise MessageError(f'`fields` must hold each name once; got {", ".join(names)}')
    order = '>' if fields.is_bigendian else '<'
    formats = {name: (order + _field_dtype(name, datatype), offset)
               for name, offset, datatype, count in fields.fields
               if name in KNOWN_NAMES and datatype in FIELD_DTYPES and count <= 1}
    ends = [offset + np.dtype(dtype).itemsize for dtype, offset in formats.values()]
    if max(ends, default=0) > fields.point_step:
        raise MessageError(f'`point_step` must hold every field; got {fields.point_step} bytes '
                           f'for fields that end at {max(ends)}')
    dtype = np.dtype({'names': list(formats), 'formats': [form for form, _ in formats.values()],
                      'offsets': [offset for _, offset in formats.values()],
                      'itemsize': fields.point_step})
    rows = fields.data.reshape(fields.height, fields.row_step)[:, :row_bytes]
    return np.ascontiguousarray(rows).view(dtype)


def _field_dtype(name: str, datatype: int) -> str:
    """Return the NumPy dtype of a field; PCL declares packed rgb bytes as float32."""
    dtype = FIELD_DTYPES[datatype]
    return 'u4' if name in COLOR_NAMES and dtype == 'f4' else dtype
