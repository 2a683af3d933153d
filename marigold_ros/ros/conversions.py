"""Conversion between ROS messages and the arrays and fields of the folder `messages`."""

from __future__ import annotations

import array
import sys
from typing import Any, TYPE_CHECKING

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.camera_info import camera_from_info, fields_from_camera
from marigold_ros.messages.cloud import CloudFields, measured_points
from marigold_ros.messages.compressed import decompress_image
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.header import NS_PER_S
from marigold_ros.messages.image import decode_rgb, ImageFields, read_image
from marigold_ros.messages.laser_scan import points_from_scan
from marigold_ros.messages.memory import copy_to_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marigold_ros.depth.types import FloatImage, RgbImage
    from marigold_ros.geometry.camera import Camera

LENGTH_BYTES = 4  # of the length that precedes the elements of a CDR sequence


def make_header(stamp_ns: int, frame_id: str) -> Header:
    """Build a header."""
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, NS_PER_S)
    return header


def rgb_from_message(message: bytes, *, compressed: bool, max_pixels: int) -> RgbImage:
    """
    Decode a serialized image message.

    Parameters
    ----------
    message : bytes
        CDR of a sensor_msgs/Image, or CompressedImage if `compressed`.
    compressed : bool
    max_pixels : int
        Largest number of pixels that is decoded.

    Returns
    -------
    uint8 [H, W, 3]

    Raises
    ------
    MessageError
        If the message is invalid or the image is too large.
    """
    return decode_rgb(_image_fields(message, compressed, max_pixels))


def depth_from_message(message: bytes, *, compressed: bool, max_pixels: int) -> FloatImage:
    """
    Decode a serialized depth image, 16UC1 or mono16 in mm or 32FC1 in m.

    Parameters
    ----------
    message, compressed, max_pixels
        See `rgb_from_message`; compressed depth is PNG or compressedDepth (PNG or RVL).

    Returns
    -------
    float32 [H, W]
        Depth along Z, m; NaN unknown.

    Raises
    ------
    MessageError
        If the message is invalid, is not a depth image, or the image is too large.
    """
    return unpack_depth(_image_fields(message, compressed, max_pixels))


def points_from_cloud(message: bytes) -> FloatImage:
    """
    Read the measured points of a serialized cloud.

    Returns
    -------
    float32 [n, 3]
        Points in the frame of the cloud, m; without those that mean "no return".

    Raises
    ------
    MessageError
        If it has no points or no x, y and z, or its fields are inconsistent.
    """
    cloud = _deserialize(message, PointCloud2)
    return measured_points(CloudFields(
        height=cloud.height, width=cloud.width,
        fields=tuple((each.name, each.offset, each.datatype, each.count)
                     for each in cloud.fields),
        is_bigendian=cloud.is_bigendian, point_step=cloud.point_step, row_step=cloud.row_step,
        data=np.frombuffer(cloud.data, np.uint8), is_dense=cloud.is_dense))


def points_from_scan_message(message: bytes) -> FloatImage:
    """
    Read the points of a serialized laser scan.

    Returns
    -------
    float32 [n, 3]
        Points in the frame of the scan, m; NaN where there is no measurement.

    Raises
    ------
    InputError
        If its angles or limits are invalid.
    """
    scan = _deserialize(message, LaserScan)
    return points_from_scan(np.asarray(scan.ranges, np.float32), scan.angle_min,
                            scan.angle_increment, scan.range_min, scan.range_max)


def camera_from_message(message: bytes) -> Camera:
    """
    Read a serialized camera_info.

    Raises
    ------
    MessageError
        If its values are invalid.
    """
    return camera_from_info(_deserialize(message, CameraInfo))


def make_camera_info(header: Header, camera: Camera) -> CameraInfo:
    """Create the camera_info of an image with this header."""
    fields = fields_from_camera(camera)
    return CameraInfo(header=header, height=fields.height, width=fields.width,
                      distortion_model=fields.distortion_model, d=fields.d, k=fields.k,
                      r=fields.r, p=fields.p)


def serialize_image(header: Header, fields: ImageFields) -> NDArray[np.uint8]:
    """
    Serialize an image message to CDR around its data.

    Returns
    -------
    uint8 [n]
        In the memory of the fields, if they have one; only the other fields are written then.
    """
    empty = serialize_message(Image(
        header=header, height=fields.height, width=fields.width, encoding=fields.encoding,
        is_bigendian=int(fields.is_bigendian), step=fields.step))
    memory = fields.memory or copy_to_memory(fields.data)
    return memory.complete(empty[:-LENGTH_BYTES] + _length(fields.data))


def serialize_cloud(header: Header, fields: CloudFields) -> NDArray[np.uint8]:
    """Serialize a cloud message to CDR around its data; see `serialize_image`."""
    empty = serialize_message(describe_cloud(header, fields))
    memory = fields.memory or copy_to_memory(fields.data)
    return memory.complete(empty[:-LENGTH_BYTES - 1] + _length(fields.data), empty[-1:])


def describe_cloud(header: Header, fields: CloudFields) -> PointCloud2:
    """Create a cloud message without its data."""
    return PointCloud2(
        header=header, height=fields.height, width=fields.width,
        fields=[PointField(name=name, offset=offset, datatype=datatype, count=count)
                for name, offset, datatype, count in fields.fields],
        is_bigendian=fields.is_bigendian, point_step=fields.point_step,
        row_step=fields.row_step, is_dense=fields.is_dense)


def _length(data: NDArray[np.uint8]) -> bytes:
    return data.size.to_bytes(LENGTH_BYTES, sys.byteorder)


def to_byte_array(data: NDArray[np.uint8]) -> array.array[int]:
    """Copy contiguous bytes into an array.array, which rclpy does not check by element."""
    copied = array.array('B')
    copied.frombytes(data.data)
    return copied


def check_pixel_count(height: int, width: int, max_pixels: int) -> None:
    """
    Check that an image is not too large.

    Raises
    ------
    MessageError
        If it is.
    """
    if height * width > max_pixels:
        raise MessageError(f'the image must have at most {max_pixels} pixels (max_input_pixels); '
                           f'got {width} x {height}')


def _image_fields(message: bytes, compressed: bool, max_pixels: int) -> ImageFields:
    if compressed:
        packed = _deserialize(message, CompressedImage)
        return decompress_image(np.frombuffer(packed.data, np.uint8), packed.format,
                                max_pixels=max_pixels)
    fields = read_image(message)
    check_pixel_count(fields.height, fields.width, max_pixels)
    return fields


def _deserialize(message: bytes, message_type: type) -> Any:
    try:
        return deserialize_message(message, message_type)
    except RuntimeError as err:  # the base class of rclpy's RMWError
        raise MessageError(f'cannot deserialize the {message_type.__name__}: its {len(message)} '
                           'bytes are truncated or corrupt') from err
