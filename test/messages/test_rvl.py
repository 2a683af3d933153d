"""RVL, against the encoder of `bag_fixtures`, written from the description of the format."""

from __future__ import annotations

import struct

from bag_fixtures import encode_rvl
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
import numpy as np
import pytest

from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.rvl import decode_rvl


def make_depth():
    """Draw a slope with noise and holes."""
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:48, :64]
    depth_mm = 800 + 30 * v + 2 * u + rng.integers(-9, 10, (48, 64))
    depth_mm[rng.random((48, 64)) < 0.1] = 0
    depth_mm[:5] = 0
    return depth_mm.astype(np.uint16)


@pytest.mark.parametrize('samples', [
    make_depth(), np.zeros((3, 5)), np.full((3, 5), 65535), [[65535, 0, 1, 65535]],
    [[0, 0, 7]], [[7, 0, 0]], [[1]], [[0]], np.arange(1000)[None] % 2 * 40000])
def test_an_encoded_image_is_decoded_exactly(samples):
    samples = np.array(samples, np.uint16)
    decoded = decode_rvl(encode_rvl(samples), max_pixels=samples.size)
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, samples)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(samples=arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=12),
                      elements=st.one_of(st.just(0), st.integers(0, 65535))))
def test_any_image_is_decoded_exactly(samples):
    np.testing.assert_array_equal(decode_rvl(encode_rvl(samples), max_pixels=144), samples)


def test_a_known_stream_is_decoded():
    # 3 x 2: [0, 0, 1000] [998, 0, 0].  2 zeros; 2 others; +1000 = 2000 (0o3720), -2 = 3; 2 zeros;
    # none.  Nibbles: 2 2 8 a f 3 3 2 | 0.
    data = struct.pack('<4I', 3, 2, 0x228af332, 0)
    assert decode_rvl(data, max_pixels=6).tolist() == [[0, 0, 1000], [998, 0, 0]]


def test_a_truncated_stream_is_rejected():
    data = encode_rvl(make_depth())
    for length in range(len(data)):
        with pytest.raises(MessageError, match='RVL'):
            decode_rvl(data[:length], max_pixels=10_000)


def test_surplus_data_are_rejected():
    with pytest.raises(MessageError, match='must be valid RVL; its content is truncated or dama'):
        decode_rvl(encode_rvl(make_depth()) + bytes(4), max_pixels=10_000)


@pytest.mark.parametrize('width, height', [(0, 5), (5, 0), (101, 100), (2 ** 31, 2 ** 31)])
def test_the_size_is_checked_before_decoding(width, height):
    with pytest.raises(MessageError, match='at least 1 and at most 10000 pixels; its RVL header '
                                           f'declares {width} x {height}'):
        decode_rvl(struct.pack('<3I', width, height, 0), max_pixels=10_000)


def test_damage_is_nearly_always_rejected():
    data = encode_rvl(make_depth())
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(200):
        damaged = bytearray(data)
        at = int(rng.integers(8, len(data) - 16))
        damaged[at:at + 16] = rng.bytes(16)
        try:
            assert decode_rvl(bytes(damaged), max_pixels=10_000).shape == (48, 64)
        except MessageError:
            rejected += 1
    assert rejected > 190


@settings(derandomize=True, deadline=None, max_examples=300)
@given(data=st.binary(max_size=80))
def test_random_bytes_are_an_image_or_an_error(data):
    try:
        samples = decode_rvl(struct.pack('<II', 4, 3) + data, max_pixels=12)
    except MessageError:
        return
    assert samples.shape == (3, 4)
