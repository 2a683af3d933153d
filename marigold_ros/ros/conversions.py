"""ROS messages to and from the arrays and fields of messages/; no convention lives here."""

from __future__ import annotations

import array
import sys
from typing import Any, TYPE_CHECKING

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.camera_info import (
    camera_from_fields,
    CameraInfoFields,
    fields_from_camera,
)
from marigold_ros.messages.cloud import CloudFields, unpack_cloud
from marigold_ros.messages.compressed import decompress_image
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.header import NS_PER_S
from marigold_ros.messages.image import decode_rgb, ImageFields
from marigold_ros.messages.image_stream import decode_compressed_rgb
from marigold_ros.messages.laser_scan import points_from_scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marigold_ros.depth.types import FloatImage, RgbImage
    from marigold_ros.geometry.camera import Camera

LENGTH_BYTES = 4  # of a CDR sequence, before its elements


def header_of(stamp_ns: int, frame_id: str) -> Header:
    """Make a header."""
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
        Largest image that is decoded.

    Returns
    -------
    uint8 [H, W, 3]

    Raises
    ------
    MessageError
        If the message breaks its own rules or is too large.
    """
    if compressed:
        data = _deserialized(message, CompressedImage).data
        return decode_compressed_rgb(np.frombuffer(data, np.uint8), max_pixels=max_pixels)
    return decode_rgb(_image_fields(message, max_pixels))


def depth_from_message(message: bytes, *, compressed: bool, max_pixels: int) -> FloatImage:
    """
    Decode a serialized depth image, 16UC1 in mm or 32FC1 in m.

    Parameters
    ----------
    message, compressed, max_pixels
        See `rgb_from_message`; compressed depth is PNG or compressedDepth.

    Returns
    -------
    float32 [H, W]
        m, NaN unknown.

    Raises
    ------
    MessageError
        If the message breaks its own rules, is no depth or is too large.
    """
    if not compressed:
        return unpack_depth(_image_fields(message, max_pixels))
    packed = _deserialized(message, CompressedImage)
    return unpack_depth(decompress_image(np.frombuffer(packed.data, np.uint8), packed.format,
                                         max_pixels=max_pixels))


def points_from_cloud(message: bytes) -> FloatImage:
    """
    Read the points of a serialized cloud.

    Returns
    -------
    float32 [H, W, 3]
        m.

    Raises
    ------
    MessageError
        If it has no points, or no x, y and z, or its fields contradict each other.
    """
    cloud = _deserialized(message, PointCloud2)
    return unpack_cloud(CloudFields(
        height=cloud.height, width=cloud.width,
        fields=tuple((each.name, each.offset, each.datatype, each.count)
                     for each in cloud.fields),
        is_bigendian=cloud.is_bigendian, point_step=cloud.point_step, row_step=cloud.row_step,
        data=np.frombuffer(cloud.data, np.uint8), is_dense=cloud.is_dense))[0]


def points_from_scan_message(message: bytes) -> FloatImage:
    """
    Read the points of a serialized laser scan.

    Returns
    -------
    float32 [n, 3]
        m; NaN where there is no measurement.

    Raises
    ------
    InputError
        If its angles and limits make no scan.
    """
    scan = _deserialized(message, LaserScan)
    return points_from_scan(np.asarray(scan.ranges, np.float32), scan.angle_min,
                            scan.angle_increment, scan.range_min, scan.range_max)


def camera_from_message(message: bytes) -> Camera:
    """
    Read a serialized camera_info.

    Raises
    ------
    MessageError
        If its numbers make no camera.
    """
    info = _deserialized(message, CameraInfo)
    return camera_from_fields(CameraInfoFields(
        height=info.height, width=info.width, distortion_model=info.distortion_model,
        d=info.d, k=info.k, r=info.r, p=info.p, binning_x=info.binning_x,
        binning_y=info.binning_y,
        roi=(info.roi.x_offset, info.roi.y_offset, info.roi.height, info.roi.width)))


def camera_info_message(header: Header, camera: Camera) -> CameraInfo:
    """Make the camera_info of an image with this header."""
    fields = fields_from_camera(camera)
    return CameraInfo(header=header, height=fields.height, width=fields.width,
                      distortion_model=fields.distortion_model, d=fields.d, k=fields.k,
                      r=fields.r, p=fields.p)


def serialized_image(header: Header, fields: ImageFields) -> bytes:
    """
    Make the CDR of an image message; rclpy publishes bytes as they are.

    The data are an Image's last field and may be of any length, so they are joined to what rclpy
    makes of the rest: two copies of each large image less than through the message's setter.
    """
    empty = serialize_message(Image(
        header=header, height=fields.height, width=fields.width, encoding=fields.encoding,
        is_bigendian=int(fields.is_bigendian), step=fields.step))
    length = fields.data.size.to_bytes(LENGTH_BYTES, sys.byteorder)
    return b''.join((empty[:-LENGTH_BYTES], length, fields.data.data))


def cloud_message(header: Header, fields: CloudFields,
                  memory: array.array[int] | None = None) -> PointCloud2:
    """Make a cloud message; its data lie in `memory`, if given, until that is used again."""
    message = PointCloud2(
        check_fields=True, header=header, height=fields.height, width=fields.width,
        fields=[PointField(name=name, offset=offset, datatype=datatype, count=count)
                for name, offset, datatype, count in fields.fields],
        is_bigendian=fields.is_bigendian, point_step=fields.point_step,
        row_step=fields.row_step, is_dense=fields.is_dense)
    message.data = message_bytes(fields.data, memory)
    return message


def message_bytes(data: NDArray[np.uint8],
                  memory: array.array[int] | None = None) -> array.array[int]:
    """
    Copy contiguous bytes into the one type that rclpy takes without looking at each element.

    Only the setter of a message that checks its fields takes the array as it is: the constructor
    copies it, and a setter that does not check copies it once more.
    """
    memory = array.array('B') if memory is None else memory
    if len(memory) == data.size:
        np.copyto(np.frombuffer(memory, np.uint8), data)
    else:
        del memory[:]
        memory.frombytes(data.data)
    return memory


def _image_fields(message: bytes, max_pixels: int) -> ImageFields:
    image = _deserialized(message, Image)
    if image.height * image.width > max_pixels:
        raise MessageError(f'image must have at most {max_pixels} pixels (max_input_pixels); '
                           f'got {image.width} x {image.height}')
    return ImageFields(
        height=image.height, width=image.width, encoding=image.encoding,
        is_bigendian=bool(image.is_bigendian), step=image.step,
        data=np.frombuffer(image.data, np.uint8))


def _deserialized(message: bytes, message_type: type) -> Any:
    try:
        return deserialize_message(message, message_type)
    except RuntimeError as err:  # rclpy's RMWError is one
        raise MessageError(f'{message_type.__name__} must be whole; its {len(message)} bytes '
                           'cannot be read') from err
