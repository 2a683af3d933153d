"""Conversion between depth images and messages."""

from __future__ import annotations

import struct

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.geometry.filters import mark_out_of_range
from marigold_ros.messages.depth import colorize, pack_depth, unpack_depth
from marigold_ros.messages.image import ImageFields

# Depths inside and outside the range of 0.1 to 20 m, marked by REP-117.
MIXED = mark_out_of_range(
    np.array([[0.05, 0.1, 1.2345, 20.0, 20.1, np.nan, 0.0, -1.0]], np.float32), 0.1, 20.0)


def test_32fc1_keeps_the_marks_of_rep_117():
    fields = pack_depth(MIXED)
    assert (fields.encoding, fields.step, fields.is_bigendian) == ('32FC1', 32, False)
    np.testing.assert_array_equal(
        fields.data.view('<f4'),
        np.array([-np.inf, 0.1, 1.2345, 20.0, np.inf, np.nan, -np.inf, -np.inf], np.float32))


def test_16uc1_is_rounded_to_millimetres_with_0_for_unknown():
    fields = pack_depth(MIXED, '16UC1')
    assert (fields.encoding, fields.step) == ('16UC1', 16)
    # 1234.5 mm: 1.2345 as float32 is 1.23450005, so it rounds up.
    assert fields.data.view('<u2').tolist() == [0, 100, 1235, 20000, 0, 0, 0, 0]


def test_16uc1_does_not_wrap_around():
    depth_m = np.array([[65.535, 65.536, 70.0, 1e9, np.inf, -1.0]], np.float32)
    fields = pack_depth(depth_m, '16UC1')
    assert fields.data.view('<u2').tolist() == [65535, 0, 0, 0, 0, 0]


@pytest.mark.parametrize('encoding, expected', [
    ('32FC1', [np.nan, 0.1, 1.2345, 20.0, np.nan, np.nan, np.nan, np.nan]),
    ('16UC1', [np.nan, 0.1, 1.235, 20.0, np.nan, np.nan, np.nan, np.nan])])
def test_unpacking_yields_metres_and_nan(encoding, expected):
    depth_m = unpack_depth(pack_depth(MIXED, encoding))
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(depth_m[0], expected, rtol=1e-6)


@pytest.mark.parametrize('encoding, dtype, values', [
    ('16UC1', 'u2', [[1500, 0], [65535, 1]]), ('mono16', 'u2', [[1500, 0], [65535, 1]]),
    ('32FC1', 'f4', [[1.5, 0.0], [np.inf, 0.001]])])
@pytest.mark.parametrize('order', ['<', '>'])
def test_unpacking_supports_padding_byte_order_and_zero(encoding, dtype, values, order):
    samples = np.array(values, order + dtype)
    rows = np.hstack([samples.view(np.uint8), np.full((2, 3), 255, np.uint8)])
    depth_m = unpack_depth(ImageFields(2, 2, encoding, order == '>', rows.shape[1],
                                       rows.reshape(-1)))
    last = np.nan if encoding == '32FC1' else 65.535
    np.testing.assert_allclose(depth_m, [[1.5, np.nan], [last, 0.001]], rtol=1e-6)


def test_unpacking_does_not_change_the_message():
    data = np.zeros(4, np.uint8)
    data.flags.writeable = False
    assert np.isnan(unpack_depth(ImageFields(1, 1, '32FC1', False, 4, data))).all()


def test_a_colour_encoding_is_rejected():
    with pytest.raises(MessageError, match='`encoding` must be one of 32FC1, 16UC1, mono16; got'):
        unpack_depth(ImageFields(1, 1, 'rgb8', False, 3, np.zeros(3, np.uint8)))


@pytest.mark.parametrize('depth_m, encoding, match', [
    (MIXED, '64FC1', "`encoding` must be 32FC1 or 16UC1; got '64FC1'"),
    (MIXED.astype(np.float64), '32FC1', '`array` must be float32'),
    (MIXED[0], '16UC1', '`array` must be uint16 with 1 channels'),
])
def test_invalid_arguments_are_rejected(depth_m, encoding, match):
    with pytest.raises(InputError, match=match):
        pack_depth(depth_m, encoding)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.floats(width=32), min_size=1, max_size=12),
       st.sampled_from(['32FC1', '16UC1']))
def test_a_round_trip_keeps_depth_within_the_range(values, encoding):
    depth_m = np.array([values], np.float32)
    back = unpack_depth(pack_depth(mark_out_of_range(depth_m, 0.1, 20.0), encoding))
    inside = (depth_m >= np.float32(0.1)) & (depth_m <= np.float32(20.0))
    np.testing.assert_array_equal(np.isfinite(back), inside)
    tolerance = 0.0 if encoding == '32FC1' else 0.000501
    assert (np.abs(back[inside] - depth_m[inside]) <= tolerance).all()


@settings(derandomize=True, deadline=None, max_examples=300)
@given(encoding=st.sampled_from(['32FC1', '16UC1', '32FC1', 'mono16', 'mono8']),
       height=st.integers(0, 4), width=st.integers(0, 4), padding=st.integers(-1, 5),
       is_bigendian=st.booleans(), surplus=st.sampled_from([0, 0, 0, 0, 1, -1]),
       words=st.lists(st.sampled_from([0, 1, 0x3fc00000, 0x7f800000, 0xff800000, 0x7fc00000,
                                       0x80000000, 0xffff, 0x41200000]), min_size=1, max_size=6))
def test_any_fields_yield_the_depth_of_their_data_or_an_error(
        encoding, height, width, padding, is_bigendian, surplus, words):
    order, code, unit_m = ('>' if is_bigendian else '<', *{'32FC1': ('f', 1.0)}.get(
        encoding, ('H', 0.001)))
    step = max(width * struct.calcsize(code) + padding, 0)
    pattern = b''.join(struct.pack(order + 'I', word) for word in words)
    size = max(height * step + surplus, 0)
    data = (pattern * (size // len(pattern) + 1))[:size]
    fields = ImageFields(height, width, encoding, is_bigendian, step,
                         np.frombuffer(data, np.uint8))
    is_valid = encoding != 'mono8' and min(height, width) > 0 and padding >= 0 and surplus == 0
    if not is_valid:
        with pytest.raises(MessageError):
            unpack_depth(fields)
        return
    depth_m = unpack_depth(fields)
    assert depth_m.shape == (height, width) and depth_m.dtype == np.float32
    for v, u in np.ndindex(height, width):
        value = struct.unpack_from(order + code, data, v * step + u * struct.calcsize(code))[0]
        if 0 < value < float('inf'):
            assert depth_m[v, u] == pytest.approx(value * unit_m, rel=1e-6)
        else:
            assert np.isnan(depth_m[v, u])


def test_colours_range_from_red_near_to_blue_far():
    rgb = colorize(np.array([[0.05, 0.5, 0.92, np.nan]], np.float32))
    assert rgb.dtype == np.uint8
    assert rgb[0].argmax(axis=-1).tolist()[:3] == [0, 1, 2]
    assert rgb[0, 3].tolist() == [0, 0, 0]


def test_colours_saturate():
    rgb = colorize(np.array([[-0.5, 0.0, 1.0, 1.5]], np.float32))
    np.testing.assert_array_equal(rgb[0, 0], rgb[0, 1])
    np.testing.assert_array_equal(rgb[0, 2], rgb[0, 3])


def test_colours_are_written_to_given_memory():
    depth = np.array([[0.0, 0.5, 1.0, 1.5, -0.5, np.nan]], np.float32)
    out = np.empty((1, 6, 3), np.uint8)
    assert np.shares_memory(colorize(depth, out), out)
    np.testing.assert_array_equal(out, colorize(depth))
    np.testing.assert_array_equal(out[0, 3:5], out[0, [2, 0]])
    assert not out[0, 5].any()


def test_colours_have_255_levels_and_one_for_unknown_depth():
    # Also in the last values of a row, which OpenCV converts one by one.
    depth = np.append(np.linspace(1, 0, 255, dtype=np.float32), [np.nan] * 13)[None].repeat(3, 0)
    depth = np.roll(depth, 5)
    rgb = colorize(depth.astype(np.float32))
    assert not rgb[np.isnan(depth)].any()
    levels = np.linspace(0, 255, 255).round().astype(np.uint8)[None]
    turbo = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[0, :, ::-1]
    np.testing.assert_array_equal(rgb[~np.isnan(depth)], np.tile(turbo, (3, 1)))
