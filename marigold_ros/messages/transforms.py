"""Read serialized transforms (tf2_msgs/TFMessage)."""

from __future__ import annotations

from collections.abc import Iterator
import struct

from marigold_ros.depth.errors import MessageError
from marigold_ros.geometry.poses import Pose
from marigold_ros.messages.header import NS_PER_S


def read_transforms(message: bytes) -> Iterator[tuple[str, str, int, Pose]]:
    """
    Read the transforms of a serialized message without creating objects for its fields.

    Parameters
    ----------
    message : bytes
        CDR of a tf2_msgs/TFMessage, see `peek_header` for its encapsulation.

    Yields
    ------
    parent, child : str
    stamp_ns : int
    pose : Pose
        Of the child in the parent.

    Raises
    ------
    MessageError
        If the message ends too early.
    """
    try:
        order = '<' if message[1] & 1 else '>'
        header = struct.Struct(order + 'iII')  # seconds, nanoseconds, length of the parent's name
        length, numbers = struct.Struct(order + 'I'), struct.Struct(order + '7d')
        at = 8
        for _ in range(length.unpack_from(message, 4)[0]):
            sec, nanosec, size = header.unpack_from(message, at)
            parent, at = _string(message, at + 12, size)
            child, at = _string(message, at + 4, length.unpack_from(message, at)[0])
            at += (4 - at) % 8  # doubles are aligned to 8 bytes after the encapsulation
            x, y, z, qx, qy, qz, qw = numbers.unpack_from(message, at)
            at += 56
            yield parent, child, sec * NS_PER_S + nanosec, ((x, y, z), (qx, qy, qz, qw))
    except (IndexError, struct.error) as err:
        raise MessageError('message must hold as many transforms as it says; '
                           f'got {len(message)} bytes') from err


def _string(message: bytes, start: int, size: int) -> tuple[str, int]:
    """Decode a string, and return the aligned offset of what follows it."""
    end = start + size
    return message[start:end - 1].decode(errors='replace'), end + -end % 4
