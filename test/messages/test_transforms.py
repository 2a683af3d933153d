"""Serialized transforms are read as the message says."""

from __future__ import annotations

import struct

from bag_fixtures import header, quaternion, serialize, TYPES, vector
import pytest

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.transforms import read_transforms


def stamped(parent, child, xyz, stamp_ns=0, xyzw=(0.0, 0.0, 0.0, 1.0)):
    return TYPES['geometry_msgs/msg/TransformStamped'](
        header=header(stamp_ns, parent), child_frame_id=child,
        transform=TYPES['geometry_msgs/msg/Transform'](translation=vector(*xyz),
                                                       rotation=quaternion(*xyzw)))


def test_every_transform_is_read_whatever_the_lengths_of_the_names():
    names = [('a' * parent, 'b' * child) for parent in range(9) for child in range(9)]
    names.append(('Gestell_ä', 'Kamera_µ'))
    message = serialize('tf2_msgs/msg/TFMessage', transforms=[
        stamped(*each, (number, 2.0, -3.0), -5 * 10 ** 9 + number, (0.5, -0.5, 0.5, -0.5))
        for number, each in enumerate(names)])
    assert list(read_transforms(message)) == [
        (*each, -5 * 10 ** 9 + number, ((number, 2.0, -3.0), (0.5, -0.5, 0.5, -0.5)))
        for number, each in enumerate(names)]


def test_the_byte_order_is_that_of_the_encapsulation():
    message = struct.pack('>4BIiII4sI4s4x7d', 0, 0, 0, 0, 1, 3, 4, 4, b'map\0', 4, b'arm\0',
                          *range(7))
    assert list(read_transforms(message)) == [
        ('map', 'arm', 3_000_000_004, ((0.0, 1.0, 2.0), (3.0, 4.0, 5.0, 6.0)))]


@pytest.mark.parametrize('length', [0, 3, 7, 20, 50, 90])
def test_a_truncated_message_is_rejected(length):
    message = serialize('tf2_msgs/msg/TFMessage', transforms=[stamped('odom', 'base', (1, 2, 3))])
    with pytest.raises(MessageError, match=f'as many transforms as it says; got {length} bytes'):
        list(read_transforms(message[:length]))


def test_a_message_without_transforms_is_empty():
    assert list(read_transforms(serialize('tf2_msgs/msg/TFMessage', transforms=[]))) == []
