"""ROS 2 messages in CDR from the fields that `messages/` packs, without ROS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marigold_ros.data.bags.reader import jazzy_typestore
from marigold_ros.messages.cloud import CloudFields
from marigold_ros.messages.image import ImageFields

STORE = jazzy_typestore()


def new_message(msgtype: str, **fields: Any) -> Any:
    """Make a message, or a part of one."""
    return STORE.types[msgtype](**fields)


def serialized(msgtype: str, **fields: Any) -> bytes:
    """Make a message and serialize it."""
    return bytes(STORE.serialize_cdr(new_message(msgtype, **fields), msgtype))


def header(stamp_ns: int, frame_id: str) -> Any:
    """Make a std_msgs Header."""
    sec, nanosec = divmod(stamp_ns, 10 ** 9)
    stamp = new_message('builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec)
    return new_message('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)


def image_message(stamp_ns: int, frame_id: str, fields: ImageFields) -> bytes:
    """Serialize a sensor_msgs Image."""
    return serialized(
        'sensor_msgs/msg/Image', header=header(stamp_ns, frame_id), height=fields.height,
        width=fields.width, encoding=fields.encoding, is_bigendian=int(fields.is_bigendian),
        step=fields.step, data=fields.data)


def cloud_message(stamp_ns: int, frame_id: str, fields: CloudFields) -> bytes:
    """Serialize a sensor_msgs PointCloud2."""
    described = [new_message('sensor_msgs/msg/PointField', name=name, offset=offset,
                             datatype=datatype, count=count)
                 for name, offset, datatype, count in fields.fields]
    return serialized(
        'sensor_msgs/msg/PointCloud2', header=header(stamp_ns, frame_id), height=fields.height,
        width=fields.width, fields=described, is_bigendian=fields.is_bigendian,
        point_step=fields.point_step, row_step=fields.row_step, data=fields.data,
        is_dense=fields.is_dense)


def status_message(stamp_ns: int, frame_id: str, name: str, text: str,
                   values: Mapping[str, object], *, ok: bool) -> bytes:
    """Serialize a diagnostic_msgs DiagnosticArray with one status: OK, or a warning."""
    status = new_message(
        'diagnostic_msgs/msg/DiagnosticStatus', level=0 if ok else 1, name=name, message=text,
        hardware_id='', values=[new_message('diagnostic_msgs/msg/KeyValue', key=key,
                                            value=str(value)) for key, value in values.items()])
    return serialized('diagnostic_msgs/msg/DiagnosticArray', header=header(stamp_ns, frame_id),
                      status=[status])
