"""Tiny bags for tests, with values chosen by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import (
    Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime)

from marigold_ros.data.bag_writer import BagWriter
from marigold_ros.data.bags import jazzy_typestore

START_NS = 1_700_000_000 * 10 ** 9
STORE = jazzy_typestore()
TYPES = STORE.types


def offered_qos(*, reliable: bool = True, latched: bool = False) -> Qos:
    """Describe a recorded publisher."""
    no_limit = QosTime(9223372036, 854775807)
    return Qos(QosHistory.KEEP_LAST, 5,
               QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
               QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
               no_limit, no_limit, QosLiveliness.AUTOMATIC, no_limit, False)


def header(stamp_ns: int, frame_id: str = 'camera_optical_frame') -> Any:
    """Make a header."""
    stamp = TYPES['builtin_interfaces/msg/Time'](sec=stamp_ns // 10 ** 9,
                                                 nanosec=stamp_ns % 10 ** 9)
    return TYPES['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id)


def text(data: str) -> bytes:
    """Serialize a std_msgs String."""
    return serialize('std_msgs/msg/String', data=data)


def image(pixels: np.ndarray, encoding: str, stamp_ns: int) -> bytes:
    """Serialize a sensor_msgs Image."""
    return serialize('sensor_msgs/msg/Image', header=header(stamp_ns), height=pixels.shape[0],
                     width=pixels.shape[1], encoding=encoding, is_bigendian=0,
                     step=pixels.strides[0], data=pixels.reshape(-1).view(np.uint8))


def compressed_image(pixels: np.ndarray, extension: str, image_format: str,
                     stamp_ns: int) -> bytes:
    """Serialize a sensor_msgs CompressedImage; colours are given as BGR."""
    stream = cv2.imencode(extension, pixels)[1].reshape(-1)
    return serialize('sensor_msgs/msg/CompressedImage', header=header(stamp_ns),
                     format=image_format, data=stream)


def serialize(msgtype: str, **fields: Any) -> bytes:
    """Serialize a message of any type of Jazzy."""
    return bytes(STORE.serialize_cdr(TYPES[msgtype](**fields), msgtype))


def write_bag(path: Path, topics: dict[str, str], messages: list[tuple[str, int, bytes]],
              qos: dict[str, Qos] | None = None) -> Path:
    """
    Write an MCAP bag.

    Parameters
    ----------
    path : Path
        Folder to make.
    topics : dict
        Types by names.
    messages : list of (str, int, bytes)
        Topic, ns after START_NS, CDR.
    qos : dict
        What the publishers of some topics offered.
    """
    with BagWriter(path) as writer:
        for name, msgtype in topics.items():
            offered = [qos[name]] if qos and name in qos else []
            writer.add_topic(name, msgtype, typestore=STORE, qos=offered)
        for name, offset_ns, data in messages:
            writer.write(name, START_NS + offset_ns, data)
    return path
