"""Serialization of images, and decoding of valid and invalid messages."""

from __future__ import annotations

import re

from bag_fixtures import encode_rvl, STORE, webcam_jpeg
import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from node_harness import camera_info, compressed, image, stamp_of
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, PointCloud2, PointField

from marigold_ros.data.bags.messages import COMPRESSED_IMAGE, image_fields
from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.cloud import CloudPacker, pack_cloud
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.header import peek_header
from marigold_ros.messages.image import decode_rgb, pack_image, read_image
from marigold_ros.messages.memory import HEAD_BYTES, MessageMemory
from marigold_ros.ros.conversions import (
    camera_from_message,
    depth_from_message,
    make_header,
    rgb_from_message,
    serialize_cloud,
    serialize_image,
)


def encode(suffix, pixels):
    """Encode with OpenCV."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.mark.parametrize('frame_id', ['', 'a', 'abc', 'camera_optical_frame'])
@pytest.mark.parametrize('array, encoding', [
    (np.arange(12, dtype=np.float32).reshape(3, 4), '32FC1'),
    (np.arange(7, dtype=np.uint8).reshape(1, 7), 'mono8'),  # 7 bytes: no multiple of anything
    (np.arange(45, dtype=np.uint8).reshape(3, 5, 3), 'rgb8'),
    (np.arange(6, dtype=np.uint16).reshape(2, 3), '16UC1')])
def test_a_serialized_image_is_deserialized_to_the_same_message(frame_id, array, encoding):
    fields = pack_image(array, encoding)
    data = serialize_image(make_header(1_500_000_007, frame_id), fields).tobytes()
    read = deserialize_message(data, Image)
    assert (read.header.stamp.sec, read.header.stamp.nanosec) == (1, 500_000_007)
    assert (read.header.frame_id, read.encoding, read.is_bigendian) == (frame_id, encoding, 0)
    assert (read.height, read.width) == array.shape[:2]
    assert read.step == array[0].nbytes
    assert bytes(read.data) == array.tobytes()
    assert peek_header(data)[:2] == (1_500_000_007, frame_id)


def test_a_serialized_cloud_is_what_rclpy_serializes():
    rgb = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    header = make_header(7, 'camera')
    for fields in (CloudPacker().pack(np.ones((2, 3), np.float32), np.eye(3), rgb),
                   pack_cloud(np.ones((2, 3, 3), np.float32), None)):
        message = PointCloud2(
            header=header, height=2, width=3, point_step=fields.point_step,
            row_step=fields.row_step, is_dense=False, data=fields.data.tobytes(),
            fields=[PointField(name=name, offset=4 * index, datatype=7, count=1)
                    for index, name in enumerate(('x', 'y', 'z', 'rgb')[:len(fields.fields)])])
        data = serialize_cloud(header, fields).tobytes()
        assert len(data) == len(serialize_message(message))
        assert deserialize_message(data, PointCloud2) == message


def test_an_image_in_memory_is_serialized_without_a_copy():
    memory = MessageMemory()
    fields = pack_image(memory.array((2, 3), np.uint8), 'mono8', memory)
    assert np.shares_memory(serialize_image(make_header(7, 'camera'), fields), memory.data)
    memory.array((2, 3), np.uint8)[:] = 5
    for frame_id in ('a', 'camera', 'x' * HEAD_BYTES):  # the last does not fit
        data = serialize_image(make_header(7, frame_id), fields).tobytes()
        assert bytes(deserialize_message(data, Image).data) == bytes([5] * 6)
        assert peek_header(data)[1] == frame_id


@pytest.mark.parametrize('frame_id', ['', 'a', 'abc', 'camera_optical_frame'])
@pytest.mark.parametrize('encoding', ['', 'rgb8', 'bayer_rggb8', '32FC1'])
def test_an_image_is_read_as_rclpy_deserializes_it(frame_id, encoding):
    message = Image(height=3, width=5, encoding=encoding, is_bigendian=1, step=7, data=bytes(21))
    message.header.frame_id = frame_id
    data = serialize_message(message)
    fields, expected = read_image(data), deserialize_message(data, Image)
    for name in ('height', 'width', 'encoding', 'is_bigendian', 'step'):
        assert getattr(fields, name) == getattr(expected, name)
    assert bytes(fields.data) == bytes(expected.data)


def test_an_image_of_the_other_byte_order_is_read():
    data = bytes.fromhex('00000000' '00000001' '00000002' '00000002' '6300' '0000'
                         '00000001' '00000003' '00000006' '6d6f6e6f3800' '00' '00'
                         '00000003' '00000003' '070809')
    fields = read_image(data)
    assert (fields.height, fields.width, fields.encoding, fields.step) == (1, 3, 'mono8', 3)
    assert fields.data.tolist() == [7, 8, 9]


@pytest.mark.parametrize('frame_id', ['', 'x', 'camera_optical_frame', 'größe'])
def test_peek_header_returns_the_header_of_a_serialized_message(frame_id):
    message = image(np.zeros((2, 2, 3), np.uint8), 1_700_000_000_123_456_789)
    message.header.frame_id = frame_id
    stamp_ns, seen, end = peek_header(serialize_message(message))
    assert (stamp_ns, seen) == (stamp_of(message.header), frame_id)
    assert end == 16 + len(frame_id.encode()) + 1


@pytest.mark.parametrize('keep', [0, 3, 10, 18, 60])
def test_a_truncated_message_is_a_message_error(keep):
    message = serialize_message(image(np.zeros((2, 2, 3), np.uint8), 5))[:keep]
    with pytest.raises(MessageError):
        if keep < 20:
            peek_header(message)
        else:
            rgb_from_message(message, compressed=False, max_pixels=100)


GREY = np.full((6, 8), 7, np.uint8)
DEPTH_MM = np.arange(48, dtype=np.uint16).reshape(6, 8) * 500


@pytest.mark.parametrize('image_format, stream', [
    ('jpeg', encode('.jpg', np.dstack([GREY, GREY + 90, GREY + 9]))),
    ('rgb8; jpeg compressed bgr8', webcam_jpeg(np.full((32, 32, 3), (7, 97, 16), np.uint8))[1]),
    ('bayer_rggb8; png compressed ', encode('.png', GREY)),
    ('bayer_grbg16; png compressed ', encode('.png', DEPTH_MM)),
    ('mono16; png compressed ', encode('.png', DEPTH_MM)),
    ('16UC1; compressedDepth png', bytes(12) + encode('.png', DEPTH_MM)),
    ('16UC1; compressedDepth rvl', bytes(12) + encode_rvl(DEPTH_MM)),
    ('mono16; compressedDepth rvl', bytes(12) + encode_rvl(DEPTH_MM))])
def test_the_node_decodes_every_compressed_image_as_bags_do(image_format, stream):
    message = compressed(stream, 5, image_format)
    data = bytes(serialize_message(message))
    fields = image_fields(STORE.deserialize_cdr(data, COMPRESSED_IMAGE))
    for live, recorded in ((rgb_from_message, decode_rgb), (depth_from_message, unpack_depth)):
        try:
            expected = recorded(fields)
        except MessageError as err:
            with pytest.raises(MessageError, match=re.escape(str(err))):
                live(data, compressed=True, max_pixels=1024)
        else:
            np.testing.assert_array_equal(live(data, compressed=True, max_pixels=1024), expected)


VALID = {'raw': bytes(serialize_message(image(np.full((6, 8, 3), 7, np.uint8), 5))),
         'compressed': bytes(serialize_message(compressed(b'\xff\xd8' + bytes(50), 5))),
         'info': bytes(serialize_message(camera_info(5)))}


@settings(derandomize=True, deadline=None, max_examples=600)
@given(kind=st.sampled_from(sorted(VALID)), length=st.one_of(st.none(), st.integers(0, 400)),
       changes=st.lists(st.tuples(st.integers(0, 120), st.one_of(
           st.sampled_from([0, 1, 127, 128, 255]), st.integers(0, 255))), max_size=3))
def test_any_modified_message_is_decoded_or_is_a_message_error(kind, length, changes):
    message = bytearray(VALID[kind])
    for at, value in changes:
        message[at % len(message)] = value
    message = bytes(message[:length])
    try:
        stamp_ns, frame_id, end = peek_header(message)
        assert make_header(stamp_ns, frame_id).stamp.nanosec < 10 ** 9 and end <= len(message)
        if kind == 'info':
            assert camera_from_message(message).width > 0
        else:
            rgb = rgb_from_message(message, compressed=kind == 'compressed', max_pixels=1000)
            assert rgb.dtype == np.uint8 and rgb.size <= 3000
    except MessageError:
        return
    assert length is None or length >= 52  # a header and more


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=40))
def test_any_bytes_have_a_header_or_are_a_message_error(message):
    try:
        stamp_ns, _, end = peek_header(message)
    except MessageError:
        return
    order = 'little' if message[1] & 1 else 'big'
    words = [int.from_bytes(message[at:at + 4], order) for at in (4, 8, 12)]
    assert stamp_ns % 10 ** 9 == words[1]
    assert stamp_ns // 10 ** 9 == words[0] - (2 ** 32 if words[0] >= 2 ** 31 else 0)
    assert end == 16 + words[2] <= len(message)


def test_an_invalid_stamp_is_rejected():
    message = bytearray(VALID['raw'])
    message[8:12] = (10 ** 9).to_bytes(4, 'little')
    with pytest.raises(MessageError, match='`nanosec` .* below 1000000000; got 1000000000'):
        peek_header(bytes(message))


def test_an_image_of_too_many_pixels_is_rejected():
    message = serialize_message(image(np.zeros((4, 5, 3), np.uint8), 5))
    assert rgb_from_message(message, compressed=False, max_pixels=20).shape == (4, 5, 3)
    with pytest.raises(MessageError, match='at most 19 pixels .max_input_pixels.; got 5 x 4'):
        rgb_from_message(message, compressed=False, max_pixels=19)
