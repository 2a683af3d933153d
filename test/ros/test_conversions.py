"""Rule of the images that the node sends: the bytes are the message's own CDR."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from marigold_ros.messages.image import pack_image
from marigold_ros.ros.conversions import header_of, peek_header, serialized_image


@pytest.mark.parametrize('frame_id', ['', 'a', 'abc', 'camera_optical_frame'])
@pytest.mark.parametrize('array, encoding', [
    (np.arange(12, dtype=np.float32).reshape(3, 4), '32FC1'),
    (np.arange(7, dtype=np.uint8).reshape(1, 7), 'mono8'),  # 7 bytes: no multiple of anything
    (np.arange(45, dtype=np.uint8).reshape(3, 5, 3), 'rgb8'),
    (np.arange(6, dtype=np.uint16).reshape(2, 3), '16UC1')])
def test_an_image_in_bytes_reads_as_the_message(frame_id, array, encoding):
    data = serialized_image(header_of(1_500_000_007, frame_id), pack_image(array, encoding))
    image = deserialize_message(data, Image)
    assert (image.header.stamp.sec, image.header.stamp.nanosec) == (1, 500_000_007)
    assert (image.header.frame_id, image.encoding, image.is_bigendian) == (frame_id, encoding, 0)
    assert (image.height, image.width) == array.shape[:2]
    assert image.step == array[0].nbytes
    assert bytes(image.data) == array.tobytes()
    assert peek_header(data)[:2] == (1_500_000_007, frame_id)
