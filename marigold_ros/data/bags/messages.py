"""Convert ROS 2 messages in CDR to arrays and back; ROS is not needed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from marigold_ros.data.bags.message_format import JAZZY
from marigold_ros.data.bags.reader import Bag, BagMessage, BagTopic
from marigold_ros.messages.cloud import CloudFields
from marigold_ros.messages.compressed import decompress_image
from marigold_ros.messages.image import ImageFields
from marigold_ros.messages.image_transport import TRANSPORT_SUFFIXES

STORE = JAZZY

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
# Above any camera; limits the memory that a forged image header can claim.
MAX_PIXELS = 2 ** 26


def read_stamp_ns(message: Any) -> int:
    """
    Read the stamp in the header of a decoded message.

    Returns
    -------
    int
        ns since the epoch of the clock of the bag.
    """
    stamp = message.header.stamp
    return int(stamp.sec) * 10 ** 9 + int(stamp.nanosec)


def find_transport(topics: Collection[BagTopic], name: str) -> str:
    """
    Find the recorded transport of an image: raw, compressedDepth or compressed.

    Parameters
    ----------
    topics : collection of BagTopic
        Topics of the bag.
    name : str
        Name without the suffix of a transport.

    Returns
    -------
    str
        The first transport that can be read and has messages, else the first that was recorded,
        else `name`.
    """
    names = [name + suffix for suffix in TRANSPORT_SUFFIXES]
    recorded = sorted((topic.unreadable is not None, topic.message_count == 0,
                       names.index(topic.name), topic.name) for topic in topics
                      if topic.name in names and topic.msgtype in (IMAGE, COMPRESSED_IMAGE))
    return recorded[0][-1] if recorded else name


def image_fields(message: Any) -> ImageFields:
    """
    Convert a decoded sensor_msgs Image or CompressedImage.

    Returns
    -------
    ImageFields
        Shares memory with a raw image; a compressed image is decompressed.

    Raises
    ------
    MessageError
        If a compressed image cannot be decoded.
    """
    if message.__msgtype__ == COMPRESSED_IMAGE:
        return decompress_image(message.data, message.format, max_pixels=MAX_PIXELS)
    return ImageFields(
        height=message.height, width=message.width, encoding=message.encoding,
        is_bigendian=bool(message.is_bigendian), step=message.step, data=message.data)


def cloud_fields(message: Any) -> CloudFields:
    """Convert a decoded sensor_msgs PointCloud2; the result shares its memory."""
    return CloudFields(
        message.height, message.width,
        tuple((field.name, field.offset, field.datatype, field.count)
              for field in message.fields),
        bool(message.is_bigendian), message.point_step, message.row_step, message.data)


def decompress_message(bag: Bag, message: BagMessage) -> bytes:
    """
    Convert a compressed image of a bag to a raw image with the same header.

    Parameters
    ----------
    bag : Bag
        Bag from which `message` was read.
    message : BagMessage
        A sensor_msgs/msg/CompressedImage.

    Returns
    -------
    bytes
        A sensor_msgs/msg/Image in CDR.

    Raises
    ------
    MessageError
        If the image cannot be decoded.
    BagError
        If the bytes are not a message of that type.
    """
    compressed = bag.decode(message)
    return serialize_image(read_stamp_ns(compressed), compressed.header.frame_id,
                           image_fields(compressed))


def new_message(msgtype: str, **fields: Any) -> Any:
    """Create a message, or a nested part of one."""
    return STORE.types[msgtype](**fields)


def serialize(msgtype: str, **fields: Any) -> bytes:
    """Create and serialize a message."""
    return bytes(STORE.serialize_cdr(new_message(msgtype, **fields), msgtype))


def make_header(stamp_ns: int, frame_id: str) -> Any:
    """Create a std_msgs Header."""
    sec, nanosec = divmod(stamp_ns, 10 ** 9)
    stamp = new_message('builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec)
    return new_message('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)


def serialize_image(stamp_ns: int, frame_id: str, fields: ImageFields) -> bytes:
    """Serialize a sensor_msgs Image."""
    return serialize(
        IMAGE, header=make_header(stamp_ns, frame_id), height=fields.height,
        width=fields.width, encoding=fields.encoding, is_bigendian=int(fields.is_bigendian),
        step=fields.step, data=fields.data)


def serialize_cloud(stamp_ns: int, frame_id: str, fields: CloudFields) -> bytes:
    """Serialize a sensor_msgs PointCloud2."""
    descriptions = [
        new_message('sensor_msgs/msg/PointField', name=name, offset=offset, datatype=datatype,
                    count=count)
        for name, offset, datatype, count in fields.fields]
    return serialize(
        'sensor_msgs/msg/PointCloud2', header=make_header(stamp_ns, frame_id),
        height=fields.height, width=fields.width, fields=descriptions,
        is_bigendian=fields.is_bigendian, point_step=fields.point_step, row_step=fields.row_step,
        data=fields.data, is_dense=fields.is_dense)


def serialize_status(stamp_ns: int, frame_id: str, name: str, text: str,
                     values: Mapping[str, object], *, ok: bool) -> bytes:
    """Serialize a diagnostic_msgs DiagnosticArray with one status: OK or WARN."""
    status = new_message(
        'diagnostic_msgs/msg/DiagnosticStatus', level=0 if ok else 1, name=name, message=text,
        hardware_id='', values=[new_message('diagnostic_msgs/msg/KeyValue', key=key,
                                            value=str(value)) for key, value in values.items()])
    return serialize('diagnostic_msgs/msg/DiagnosticArray', header=make_header(stamp_ns, frame_id),
                     status=[status])
