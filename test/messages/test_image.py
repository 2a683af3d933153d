"""Conversion between image messages and RGB arrays."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.messages.image import COLOR_FORMATS, decode_rgb, ImageFields, pack_image

BROWN = (200, 100, 50)


def make_fields(rows, encoding, *, width, height=None, is_bigendian=False):
    """Make a message from rows of bytes."""
    data = np.array(rows, np.uint8)
    return ImageFields(height=height or len(data), width=width, encoding=encoding,
                       is_bigendian=is_bigendian, step=data.shape[1], data=data.reshape(-1))


@pytest.mark.parametrize('encoding, pixel', [
    ('rgb8', [200, 100, 50]), ('bgr8', [50, 100, 200]), ('8UC3', [50, 100, 200]),
    ('rgba8', [200, 100, 50, 7]), ('bgra8', [50, 100, 200, 7])])
def test_channel_order_follows_the_encoding(encoding, pixel):
    rgb = decode_rgb(make_fields([pixel + [0] * len(pixel)], encoding, width=2))
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, [[BROWN, (0, 0, 0)]])


def test_grey_becomes_three_equal_channels():
    rgb = decode_rgb(make_fields([[0, 9, 255]], 'mono8', width=3))
    np.testing.assert_array_equal(rgb, [[[0] * 3, [9] * 3, [255] * 3]])


@pytest.mark.parametrize('is_bigendian', [False, True])
def test_16_bit_grey_is_scaled_to_8_bits_in_either_byte_order(is_bigendian):
    # By 257: 1285 -> 5 exactly, 128 -> 0.498 -> 0, 129 -> 0.502 -> 1, 33000 -> 128.405 -> 128.
    order = '>' if is_bigendian else '<'
    data = np.array([[1285, 65535, 128, 129, 33000]], order + 'u2').view(np.uint8)
    rgb = decode_rgb(make_fields(data, 'mono16', width=5, is_bigendian=is_bigendian))
    np.testing.assert_array_equal(rgb[0, :, 0], [5, 255, 0, 1, 128])


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8'])
def test_the_byte_order_does_not_affect_8_bit_samples(encoding):
    row = [[1, 2, 3]]
    width = 3 if encoding == 'mono8' else 1
    np.testing.assert_array_equal(
        decode_rgb(make_fields(row, encoding, width=width, is_bigendian=True)),
        decode_rgb(make_fields(row, encoding, width=width)))


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_a_uniform_bayer_mosaic_keeps_its_colour(pattern):
    value = dict(zip('rgb', BROWN))
    tile = np.array([value[letter] for letter in pattern]).reshape(2, 2)
    rgb = decode_rgb(make_fields(np.tile(tile, (3, 4)), f'bayer_{pattern}8', width=8))
    assert (rgb[1:-1, 1:-1] == BROWN).all()


# Studio-range BT.601: red is Y 81, U 90, V 240; mid grey Y 126, U and V 128.
@pytest.mark.parametrize('encoding, red, grey', [
    ('yuv422', [90, 81, 240, 81], [128, 126, 128, 126]),
    ('uyvy', [90, 81, 240, 81], [128, 126, 128, 126]),
    ('yuv422_yuy2', [81, 90, 81, 240], [126, 128, 126, 128]),
    ('yuyv', [81, 90, 81, 240], [126, 128, 126, 128]),
])
def test_yuv422_has_one_chroma_sample_per_two_pixels(encoding, red, grey):
    rgb = decode_rgb(make_fields([red + grey], encoding, width=4)).astype(int)
    expected = np.array([[(255, 0, 0)] * 2 + [(128, 128, 128)] * 2])
    assert np.abs(rgb - expected).max() <= 2


def test_nv12_has_its_chroma_in_a_second_plane():
    rows = [[81, 81, 126, 126, 0], [81, 81, 126, 126, 0], [90, 240, 128, 128, 0]]
    rgb = decode_rgb(make_fields(rows, 'nv12', width=4, height=2)).astype(int)
    expected = np.array([[(255, 0, 0)] * 2 + [(128, 128, 128)] * 2] * 2)
    assert np.abs(rgb - expected).max() <= 2


def test_row_padding_is_ignored():
    rows = [[1, 2, 3, 4, 5, 6, 99, 99], [7, 8, 9, 10, 11, 12, 99, 99]]
    rgb = decode_rgb(make_fields(rows, 'rgb8', width=2))
    np.testing.assert_array_equal(rgb, [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]])
    padded = decode_rgb(make_fields(rows, 'bgr8', width=2))
    np.testing.assert_array_equal(padded, rgb[..., ::-1])


def test_16_bit_samples_may_have_an_odd_step():
    rows = [[0x05, 0x05, 99], [0x0a, 0x0a, 99]]
    rgb = decode_rgb(make_fields(rows, 'mono16', width=1))
    np.testing.assert_array_equal(rgb[:, 0, 0], [5, 10])


def test_the_decoded_image_is_a_copy():
    data = np.arange(6, dtype=np.uint8)
    data.flags.writeable = False
    rgb = decode_rgb(ImageFields(1, 2, 'rgb8', False, 6, data))
    rgb[:] = 0
    assert data[5] == 5


@pytest.mark.parametrize('changes, match', [
    ({'height': 0}, '`height` and `width` must be at least 1 for rgb8; got 0 and 2'),
    ({'width': 0}, 'must be at least 1 .* got 2 and 0'),
    ({'step': 5}, '`step` must be at least 6 bytes for 2 px of rgb8; got 5'),
    ({'data': np.zeros(11, np.uint8)}, '`data` must be 2 rows x 6 = 12 bytes; got 11'),
    ({'data': np.zeros(13, np.uint8)}, '`data` must be 2 rows x 6 = 12 bytes; got 13'),
    ({'encoding': '32FC1'}, "`encoding` must be one of rgb8, bgr8, .*, nv12, .*; got '32FC1'"),
    ({'encoding': ''}, "got ''"),
    ({'encoding': 'yuv422', 'width': 1}, 'multiples of 1 and 2 for yuv422; got 2 and 1'),
    ({'encoding': 'nv12', 'height': 3}, 'multiples of 2 and 2 for nv12; got 3 and 2'),
    ({'encoding': 'bayer_rggb8'}, 'at least 3 for bayer_rggb8; got 2 and 2'),
])
def test_inconsistent_fields_are_rejected_with_the_value(changes, match):
    fields = {'height': 2, 'width': 2, 'encoding': 'rgb8', 'is_bigendian': False, 'step': 6,
              'data': np.zeros(12, np.uint8)}
    with pytest.raises(MessageError, match=match):
        decode_rgb(ImageFields(**(fields | changes)))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(height=st.integers(0, 9), width=st.integers(0, 9), step=st.integers(0, 40),
       surplus=st.sampled_from([-1, 0, 0, 0, 0, 0, 1]), is_bigendian=st.booleans(),
       encoding=st.sampled_from([*COLOR_FORMATS, '32FC1', 'jpeg']),
       seed=st.integers(0, 2 ** 16))
def test_any_fields_yield_an_image_of_their_size_or_an_error(
        height, width, step, surplus, is_bigendian, encoding, seed):
    rows = height * 3 // 2 if encoding == 'nv12' else height
    data = np.random.default_rng(seed).integers(
        0, 256, max(rows * step + surplus, 0), dtype=np.uint8)
    try:
        rgb = decode_rgb(ImageFields(height, width, encoding, is_bigendian, step, data))
    except MessageError:
        return
    assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    if encoding in ('rgb8', 'bgr8', '8UC3'):
        order = (0, 1, 2) if encoding == 'rgb8' else (2, 1, 0)
        assert rgb[-1, -1].tolist() == [
            data[(height - 1) * step + (width - 1) * 3 + channel] for channel in order]


@pytest.mark.parametrize('encoding, dtype, tail, step', [
    ('rgb8', np.uint8, (3,), 15), ('mono8', np.uint8, (), 5),
    ('32FC1', np.float32, (), 20), ('16UC1', np.uint16, (), 10)])
def test_packing_is_little_endian_without_padding_or_copy(encoding, dtype, tail, step):
    array = np.arange(4 * 5 * max(len(tail) * 3, 1)).reshape(4, 5, *tail).astype(dtype)
    fields = pack_image(array, encoding)
    assert (fields.height, fields.width, fields.step) == (4, 5, step)
    assert fields.encoding == encoding and fields.is_bigendian is False
    assert fields.data.ndim == 1 and fields.data.tobytes() == array.tobytes()
    assert np.shares_memory(fields.data, array)


def test_packing_a_view_yields_contiguous_rows():
    rgb = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    fields = pack_image(rgb[:, ::2], 'rgb8')
    assert fields.data.tolist() == [0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20]


@pytest.mark.parametrize('shape', [(1, 1), (1, 7), (6, 1)])
def test_a_round_trip_keeps_the_image(shape):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_rgb(pack_image(rgb, 'rgb8')), rgb)


@pytest.mark.parametrize('array, encoding, match', [
    (np.zeros((2, 2), np.float32), 'rgba8', "must be one of rgb8, .*; got 'rgba8'"),
    (np.zeros((2, 2), np.float64), '32FC1', 'must be float32 with 1 channels .* got float64'),
    (np.zeros((2, 2, 1), np.uint8), 'mono8', r'got uint8 \[2, 2, 1\]'),
    (np.zeros((2, 2, 4), np.uint8), 'rgb8', r'with 3 channels for rgb8; got uint8 \[2, 2, 4\]'),
    (np.zeros(3, np.uint8), 'mono8', r'got uint8 \[3\]'),
])
def test_arrays_that_do_not_match_the_encoding_are_rejected(array, encoding, match):
    with pytest.raises(InputError, match=match):
        pack_image(array, encoding)
