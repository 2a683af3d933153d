"""Conversion between point clouds and PointCloud2 messages."""

from __future__ import annotations

from dataclasses import replace
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from rosbags.typesys import get_typestore, Stores

from marigold_ros.depth.errors import InputError, MessageError
from marigold_ros.geometry.unproject import unproject
from marigold_ros.messages.cloud import (
    CloudFields,
    CloudPacker,
    measured_points,
    pack_cloud,
    unpack_cloud,
)
from marigold_ros.messages.image import ImageFields

POINTS = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [np.nan] * 3]], np.float32)
RGB = np.array([[[255, 128, 1], [0, 0, 0]], [[1, 2, 3], [9, 8, 7]]], np.uint8)


def test_a_coloured_cloud_is_organized_with_16_bytes_a_point():
    cloud = pack_cloud(POINTS, RGB)
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (2, 2, 16, 32)
    assert cloud.fields == (('x', 0, 7, 1), ('y', 4, 7, 1), ('z', 8, 7, 1), ('rgb', 12, 7, 1))
    assert cloud.is_dense is False and cloud.is_bigendian is False
    assert cloud.data.shape == (64,) and cloud.data.dtype == np.uint8
    np.testing.assert_array_equal(cloud.data.view('<f4').reshape(4, 4)[:3, :3],
                                  [[1, 2, 3], [4, 5, 6], [7, 8, 9]])


def test_colours_are_packed_as_0x00rrggbb():
    words = pack_cloud(POINTS, RGB).data.view('<u4').reshape(4, 4)[:, 3]
    assert words.tolist() == [0x00ff8001, 0, 0x00010203, 0x00090807]


def test_a_cloud_without_colour_has_12_bytes_a_point():
    cloud = pack_cloud(POINTS, None)
    assert (cloud.point_step, cloud.row_step, len(cloud.fields)) == (12, 24, 3)
    assert cloud.data.view('<f4')[:6].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize('rgb', [None, RGB])
@pytest.mark.parametrize('bad', [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize('axis', [0, 1, 2])
def test_a_point_that_is_not_finite_becomes_three_nan(rgb, bad, axis):
    points = POINTS.copy()
    points[0, 1, axis] = bad
    points[1, 1] = (np.inf, -np.inf, 1.0)
    packed, _ = unpack_cloud(pack_cloud(points, rgb))
    np.testing.assert_array_equal(packed[0, 0], [1, 2, 3])
    assert np.isnan(packed[0, 1]).all() and np.isnan(packed[1, 1]).all()
    assert points[1, 1, 2] == 1.0


def test_strided_views_pack_like_copies():
    points = np.random.default_rng(0).random((6, 9, 3)).astype(np.float32)
    rgb = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    views = pack_cloud(points[::2, ::3], rgb[::2, ::3])
    np.testing.assert_array_equal(
        views.data, pack_cloud(points[::2, ::3].copy(), rgb[::2, ::3].copy()).data)


def test_a_round_trip_keeps_points_and_colours():
    points, rgb = unpack_cloud(pack_cloud(POINTS, RGB))
    np.testing.assert_array_equal(points, POINTS)
    np.testing.assert_array_equal(rgb, RGB)
    assert unpack_cloud(pack_cloud(POINTS, None))[1] is None


def beams(count, range_m, seed=0):
    """Return points in random directions at one range, [count, 3]."""
    direction = np.random.default_rng(seed).normal(size=(count, 3))
    return range_m * direction / np.linalg.norm(direction, axis=1, keepdims=True)


@pytest.mark.parametrize('marks', [
    np.zeros((900, 3)), np.full((900, 3), np.nan), np.full((900, 3), -np.inf),
    np.full((900, 3), 1e30), np.tile([np.nan, 1.0, 1.0], (900, 1)), beams(900, 0.001),
    beams(900, 0.12), beams(900, 120.0), np.tile([0.3, 0.0, 0.0], (900, 1))],
    ids=['origin', 'NaN', 'Inf', 'overflow', 'partly NaN', 'error code', 'smallest range',
         'largest range', 'one point'])
def test_points_that_mean_no_return_are_no_measurements(marks):
    wall = np.random.default_rng(1).uniform((2.0, -2.0, -1.0), (2.1, 2.0, 1.0), (100, 3))
    points = np.concatenate([wall[:50], marks, wall[50:]]).astype(np.float32)
    np.testing.assert_array_equal(measured_points(pack_cloud(points[None], None)),
                                  wall.astype(np.float32))
    assert measured_points(pack_cloud(points[None, 50:950], None)).shape == (0, 3)


@pytest.mark.parametrize(('wall_m', 'view_deg', 'share'), [
    (1.0, (120, 30), 0.02), (0.3, (45, 45), 0.14)])
def test_measurements_at_the_ends_of_the_range_are_kept(wall_m, view_deg, share):
    """A sensor with steps of 1 cm before a wall, of which it gives a part one range."""
    azimuth, elevation = np.radians(np.meshgrid(*(
        np.linspace(-each / 2, each / 2, each + 1) for each in view_deg)))
    direction = np.stack([np.cos(azimuth) * np.cos(elevation),
                          np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=-1)
    range_m = np.round(wall_m / direction[..., 0], 2)
    points = (range_m[..., None] * direction).astype(np.float32)
    assert (range_m == wall_m).mean() > share
    assert len(measured_points(pack_cloud(points, None))) == range_m.size


def test_few_measurements_of_one_range_are_kept():
    few = beams(9, 2.0).astype(np.float32)
    assert len(measured_points(pack_cloud(few[None], None))) == 9


def test_a_packer_reuses_its_buffer():
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(0.5, 9, (6, 9)).astype(np.float32)
    depth_m[0, :4] = np.nan, np.inf, -np.inf, 0
    rgb = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    K = np.array([[100.0, 0, 4.2], [0, 90.0, 3.1], [0, 0, 1]])
    packer = CloudPacker()
    for stride in (1, 2, 4):
        cloud = packer.pack(depth_m, K, rgb, stride=stride)
        expected = pack_cloud(unproject(depth_m, K, stride=stride).astype(np.float32),
                              rgb[::stride, ::stride])
        np.testing.assert_array_equal(cloud.data, expected.data)
        assert (cloud.height, cloud.width, cloud.fields, cloud.row_step, cloud.is_dense) == (
            expected.height, expected.width, expected.fields, expected.row_step, False)
    again = packer.pack(depth_m + 1, K, rgb, stride=4)
    assert np.shares_memory(again.data, cloud.data)


def test_a_packer_rejects_an_image_of_another_size():
    with pytest.raises(InputError, match=r'uint8 \[2, 2, 3\]; got uint8 \[2, 3, 3\]'):
        CloudPacker().pack(np.ones((2, 2), np.float32), np.eye(3), np.zeros((2, 3, 3), np.uint8))


@pytest.mark.parametrize('order', ['<', '>'])
def test_padding_and_other_fields_are_ignored(order):
    dtype = np.dtype({'names': ['intensity', 'z', 'x', 'y', 'rgba'],
                      'formats': ['u2', order + 'f8', order + 'f4', order + 'f4', order + 'u4'],
                      'offsets': [0, 2, 12, 16, 24], 'itemsize': 30})
    table = np.zeros((2, 1), dtype)
    table['x'], table['y'], table['z'] = [[1], [4]], [[2], [5]], [[3], [6]]
    table['rgba'] = 0xff0a0b0c
    rows = np.hstack([table.view(np.uint8), np.full((2, 5), 77, np.uint8)])
    cloud = CloudFields(
        height=2, width=1, is_bigendian=order == '>', point_step=30, row_step=35,
        data=rows.reshape(-1), fields=(('intensity', 0, 4, 1), ('z', 2, 8, 1), ('x', 12, 7, 1),
                                       ('y', 16, 7, 1), ('rgba', 24, 6, 1)))
    points, rgb = unpack_cloud(cloud)
    assert points.dtype == np.float32 and points.flags.c_contiguous
    np.testing.assert_array_equal(points, [[[1, 2, 3]], [[4, 5, 6]]])
    np.testing.assert_array_equal(rgb, [[[10, 11, 12]], [[10, 11, 12]]])


@pytest.mark.parametrize('changes, match', [
    ({'fields': (('x', 0, 7, 1), ('y', 4, 7, 1))}, '`fields` must hold x, y and z; got x, y'),
    ({'fields': ()}, 'must hold x, y and z; got none'),
    ({'fields': (('x', 0, 7, 1), ('y', 4, 7, 1), ('z', 8, 7, 1), ('y', 12, 7, 1))},
     '`fields` must hold each name once; got x, y, z, y'),
    ({'fields': (('x', 0, 7, 1), ('y', 4, 7, 1), ('z', 13, 7, 1))}, '`point_step` must hold'),
    ({'fields': (('x', 0, 7, 1), ('y', 4, 7, 1), ('z', 8, 7, 1), ('rgb', 12, 4, 1))},
     '`rgb` must be 4 bytes wide; got 2'),
    ({'width': 0}, '`height` and `width` must be at least 1; got 2 and 0'),
    ({'row_step': 31}, '`row_step` must be at least 2 points x point_step = 32 bytes; got 31'),
    ({'point_step': 0}, '`row_step` must be'),
    ({'data': np.zeros(63, np.uint8)}, '`data` must be 2 rows x 32 bytes; got 63'),
])
def test_inconsistent_clouds_are_rejected_with_the_value(changes, match):
    with pytest.raises(MessageError, match=match):
        unpack_cloud(replace(pack_cloud(POINTS, RGB), **changes))


CODES = {1: 'b', 2: 'B', 3: 'h', 4: 'H', 5: 'i', 6: 'I', 7: 'f', 8: 'd'}
FIELD = st.tuples(st.sampled_from(['rgb', 'rgba', 'ring', '', 'x']), st.integers(0, 24),
                  st.sampled_from([*range(10), 5, 6, 7]), st.integers(0, 2))
XYZ = st.sampled_from([(('x', 0, 7, 1), ('y', 4, 7, 1), ('z', 8, 7, 1)),
                       (('z', 1, 8, 1), ('x', 9, 3, 1), ('y', 11, 5, 0)), ()])
MOSTLY_VALID = st.sampled_from([1, 2, 3, 3, 2, 0])


def read_by_hand(cloud, name, point, code=None):
    """Read one number of a valid cloud."""
    _, offset, datatype, _ = next(each for each in cloud.fields if each[0] == name)
    row, column = divmod(point, cloud.width)
    order = '>' if cloud.is_bigendian else '<'
    return struct.unpack_from(order + (code or CODES[datatype]), cloud.data.tobytes(),
                              row * cloud.row_step + column * cloud.point_step + offset)[0]


@settings(derandomize=True, deadline=None, max_examples=400)
@given(xyz=XYZ, fields=st.lists(FIELD, max_size=2).map(tuple), height=MOSTLY_VALID,
       width=MOSTLY_VALID, point_step=st.sampled_from([32, 33, 28, 14]),
       padding=st.sampled_from([0, 1, 3, -1]), is_bigendian=st.booleans(),
       surplus=st.sampled_from([0, 0, 0, 0, 1]), seed=st.integers(0, 99))
@pytest.mark.filterwarnings('error')
def test_any_cloud_is_unpacked_or_raises_a_message_error(
        xyz, fields, height, width, point_step, padding, is_bigendian, surplus, seed):
    row_step = max(width * point_step + padding, 0)
    data = np.random.default_rng(seed).integers(0, 256, height * row_step + surplus)
    cloud = CloudFields(height, width, xyz + fields, is_bigendian, point_step, row_step,
                        data.astype(np.uint8))
    try:
        points, rgb = unpack_cloud(cloud)
    except MessageError:
        return
    assert points.shape == (height, width, 3) and points.dtype == np.float32
    color = next((name for name in ('rgb', 'rgba') if name in {
        each[0] for each in cloud.fields if each[2] in CODES and each[3] <= 1}), None)
    assert (rgb is None) == (color is None)
    for point in range(height * width):
        with np.errstate(over='ignore', invalid='ignore'):
            expected = np.array([read_by_hand(cloud, name, point) for name in 'xyz'], np.float32)
        np.testing.assert_array_equal(points.reshape(-1, 3)[point], expected)
        if color is not None:
            word = read_by_hand(cloud, color, point, 'I')
            assert rgb.reshape(-1, 3)[point].tolist() == [word >> 16 & 255, word >> 8 & 255,
                                                          word & 255]


@pytest.mark.parametrize('points, rgb, match', [
    (POINTS.astype(np.float64), None, '`points` must be float32'),
    (POINTS[0], None, r'got float32 \[2, 3\]'),
    (POINTS, RGB[:1], r'`rgb` must be uint8 \[2, 2, 3\]; got uint8 \[1, 2, 3\]'),
    (POINTS, RGB.astype(np.float32), 'got float32'),
])
def test_arrays_of_another_shape_or_dtype_are_rejected(points, rgb, match):
    with pytest.raises(InputError, match=match):
        pack_cloud(points, rgb)


@pytest.mark.parametrize('fields_class, name', [(CloudFields, 'PointCloud2'),
                                                (ImageFields, 'Image')])
def test_field_names_are_those_of_the_message(fields_class, name):
    message = get_typestore(Stores.ROS2_JAZZY).fielddefs[f'sensor_msgs/msg/{name}'][1]
    assert ['header', *fields_class.__dataclass_fields__] == [
        *(field for field, _ in message), 'memory']
