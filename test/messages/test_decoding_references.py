"""
Messages are decoded as by a reference written here, by cv_bridge and by sensor_msgs_py.

The last two are not on PyPI; on a robot `colcon test` finds those of the distribution.  The node
does not use cv_bridge.  A cv_bridge built for NumPy 1 can be imported with NumPy 2, but its first
conversion aborts the process.  It also shears images whose row padding is not a whole number of
pixels, and fails on is_bigendian with NumPy 2.
"""

from __future__ import annotations

from collections.abc import Callable
import importlib.util
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2, PointField

from marigold_ros.messages.cloud import CloudFields, unpack_cloud
from marigold_ros.messages.image import COLOR_FORMATS, decode_rgb, ImageFields

# Full-range RGB from studio-range YUV, ITU-R BT.601.
YUV_TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
YUV_SCALE = np.array([255 / 219, 255 / 224, 255 / 224])
YUV_ORDER = {'yuv422': 'uyvy', 'uyvy': 'uyvy', 'yuv422_yuy2': 'yuyv', 'yuyv': 'yuyv'}


def channels_of(encoding: str) -> int:
    """Return the number of samples per pixel."""
    if encoding in YUV_ORDER:
        return 2
    if encoding == '8UC1':
        return 1
    return {'rgb': 3, 'bgr': 3, '8UC': 3, 'rgba': 4, 'bgra': 4}.get(
        encoding.rstrip('0123456789'), 1)


def reference_yuv(luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> np.ndarray:
    yuv = np.stack([np.maximum(luma - 16.0, 0), blue - 128.0, red - 128.0], axis=-1)
    return np.clip(np.floor(yuv * YUV_SCALE @ YUV_TO_RGB.T + 0.5), 0, 255)


def reference_mosaic(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """Average the nearest pixels of each colour; copy the border from its neighbours."""
    height, width = mosaic.shape
    rgb = np.zeros((height, width, 3), np.int64)
    for v in range(1, height - 1):
        for u in range(1, width - 1):
            around = mosaic[v - 1:v + 2, u - 1:u + 2].astype(np.int64)
            sites = np.array([[pattern[(y % 2) * 2 + x % 2] for x in range(u - 1, u + 2)]
                              for y in range(v - 1, v + 2)])
            for channel, color in enumerate('rgb'):
                same = around[sites == color] if sites[1, 1] != color else around[1, 1]
                # Half rounds up.
                rgb[v, u, channel] = int(np.floor(np.mean(same) + 0.5))
    rgb[0], rgb[-1] = rgb[1], rgb[-2]
    rgb[:, 0], rgb[:, -1] = rgb[:, 1], rgb[:, -2]
    return rgb


def reference_decode(samples: np.ndarray, fields: ImageFields) -> np.ndarray:
    """Convert samples [rows, W] or [rows, W, channels] to 8-bit RGB."""
    rgb = reference_rgb(samples, fields.encoding)
    return np.floor(rgb * (255 / 65535) + 0.5) if fields.encoding.endswith('16') else rgb


def reference_rgb(samples: np.ndarray, encoding: str) -> np.ndarray:
    """Convert samples to RGB of the same bit depth."""
    kind = encoding.rstrip('0123456789')
    if encoding == 'nv12':
        height = len(samples) * 2 // 3
        chroma = samples[height:].reshape(height // 2, -1, 2).repeat(2, axis=0).repeat(2, axis=1)
        return reference_yuv(samples[:height], chroma[..., 0], chroma[..., 1])
    if encoding in YUV_ORDER:
        pairs = samples.reshape(len(samples), -1, 4)
        order = YUV_ORDER[encoding]
        luma = pairs[..., [i for i in range(4) if order[i] == 'y']].reshape(len(samples), -1)
        return reference_yuv(luma, pairs[..., order.index('u')].repeat(2, axis=1),
                             pairs[..., order.index('v')].repeat(2, axis=1))
    if kind.startswith('bayer'):
        return reference_mosaic(samples, kind.removeprefix('bayer_'))
    if kind in ('mono', '8UC') and samples.ndim == 2:
        return np.repeat(samples[..., None], 3, axis=-1)
    return samples[..., [2, 1, 0] if kind in ('bgr', 'bgra', '8UC') else [0, 1, 2]]


def make_message(encoding: str, height: int, width: int, padding: int, is_bigendian: bool,
                 seed: int) -> tuple[np.ndarray, ImageFields]:
    """Draw random samples and write them to a message."""
    rng = np.random.default_rng(seed)
    wide = encoding.endswith('16')
    rows = height * 3 // 2 if encoding == 'nv12' else height
    shape = (rows, width, channels_of(encoding))
    samples = rng.integers(0, 65536 if wide else 256, shape)
    stored = samples.astype(('>' if is_bigendian else '<') + 'u2' if wide else 'u1')
    table = np.frombuffer(stored.tobytes(), np.uint8).reshape(rows, -1)
    table = np.hstack([table, rng.integers(0, 256, (rows, padding)).astype(np.uint8)])
    fields = ImageFields(height, width, encoding, is_bigendian, table.shape[1], table.reshape(-1))
    return samples[..., 0] if shape[2] == 1 else samples, fields


def has_working_cv_bridge() -> bool:
    """Run a conversion in another process, which a build for another NumPy would abort."""
    if importlib.util.find_spec('cv_bridge') is None:
        return False
    code = ('import cv_bridge, numpy as np; bridge = cv_bridge.CvBridge(); bridge.imgmsg_to_cv2('
            'bridge.cv2_to_imgmsg(np.zeros((1, 1, 3), np.uint8), "bgr8"), "rgb8")')
    return subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0


def decode_with_cv_bridge(samples: np.ndarray, fields: ImageFields) -> np.ndarray:
    """Decode with cv_bridge."""
    from cv_bridge import CvBridge

    return CvBridge().imgmsg_to_cv2(SimpleNamespace(
        height=fields.height, width=fields.width, encoding=fields.encoding, step=fields.step,
        is_bigendian=int(fields.is_bigendian), data=fields.data.tobytes()), 'rgb8')


class Reference(NamedTuple):
    """An independent decoder and its capabilities."""

    decode: Callable[[np.ndarray, ImageFields], np.ndarray]
    encodings: frozenset[str]
    padding_unit: Callable[[str], int]  # bytes
    byte_orders: tuple[bool, ...]
    yuv_tolerance: int


REFERENCES = {'by hand': Reference(
    reference_decode, frozenset(COLOR_FORMATS), lambda encoding: 1, (False, True),
    yuv_tolerance=1)}  # OpenCV's coefficients are fixed-point numbers
if has_working_cv_bridge():
    REFERENCES['cv_bridge'] = Reference(
        decode_with_cv_bridge, frozenset(COLOR_FORMATS) - {'8UC3', 'nv12', 'uyvy', 'yuyv'},
        lambda encoding: COLOR_FORMATS[encoding].pixel_bytes,
        (False, True) if np.lib.NumpyVersion(np.__version__) < '2.0.0' else (False,),
        yuv_tolerance=0)


@pytest.mark.parametrize('name', REFERENCES)
@settings(derandomize=True, deadline=None, max_examples=300)
@given(data=st.data(), half_height=st.integers(2, 5), half_width=st.integers(2, 6),
       odd=st.booleans(), padding=st.integers(0, 5), seed=st.integers(0, 2 ** 16))
def test_every_encoding_is_decoded_as_by_the_reference(
        name, data, half_height, half_width, odd, padding, seed):
    reference = REFERENCES[name]
    encoding = data.draw(st.sampled_from(sorted(reference.encodings)))
    is_yuv = encoding in YUV_ORDER or encoding == 'nv12'
    samples, fields = make_message(
        encoding, 2 * half_height + (odd and not is_yuv), 2 * half_width + (odd and not is_yuv),
        padding * reference.padding_unit(encoding),
        data.draw(st.sampled_from(reference.byte_orders)), seed)
    difference = np.abs(decode_rgb(fields).astype(int) - reference.decode(samples, fields))
    assert difference.max() <= (reference.yuv_tolerance if is_yuv else 0)


def reference_points(table: np.ndarray, message: PointCloud2) -> np.ndarray:
    """Return the numbers that were written."""
    return table


def read_with_sensor_msgs_py(table: np.ndarray, message: PointCloud2) -> np.ndarray:
    """Read with sensor_msgs_py; reshaped here, since it swaps the axes."""
    from sensor_msgs_py.point_cloud2 import read_points

    return read_points(message).reshape(message.height, message.width)


CLOUD_READERS = {'by hand': reference_points}
if importlib.util.find_spec('sensor_msgs_py') is not None:
    CLOUD_READERS['sensor_msgs_py'] = read_with_sensor_msgs_py


@pytest.mark.parametrize('name', CLOUD_READERS)
@settings(derandomize=True, deadline=None, max_examples=100)
@given(height=st.integers(1, 4), width=st.integers(1, 4), is_bigendian=st.booleans(),
       order=st.permutations(['x', 'y', 'z', 'rgb', 'intensity']), padding=st.integers(0, 7),
       xyz=st.sampled_from(['f4', 'f8', 'i2']), seed=st.integers(0, 2 ** 16))
def test_every_cloud_layout_is_read_as_by_the_reference(
        name, height, width, is_bigendian, order, padding, xyz, seed):
    formats = {'x': xyz, 'y': xyz, 'z': xyz, 'rgb': 'u4', 'intensity': 'u2'}
    byte_order = '>' if is_bigendian else '<'
    packed = np.dtype([(field, byte_order + formats[field]) for field in order])
    dtype = np.dtype({'names': order, 'formats': [packed[field] for field in order],
                      'offsets': [packed.fields[field][1] for field in order],
                      'itemsize': packed.itemsize + padding})
    rng = np.random.default_rng(seed)
    table = np.zeros((height, width), dtype)
    for field in order:
        table[field] = rng.integers(0, 2 ** 15, (height, width))
    message = PointCloud2(
        height=height, width=width, is_bigendian=is_bigendian, point_step=dtype.itemsize,
        row_step=width * dtype.itemsize, data=table.tobytes(), fields=[
            PointField(name=field, offset=dtype.fields[field][1], count=1,
                       datatype={'f4': 7, 'f8': 8, 'i2': 3, 'u4': 6, 'u2': 4}[formats[field]])
            for field in order])
    points, rgb = unpack_cloud(CloudFields(
        height, width, tuple((each.name, each.offset, each.datatype, each.count)
                             for each in message.fields), is_bigendian, message.point_step,
        message.row_step, np.frombuffer(message.data, np.uint8)))
    expected = CLOUD_READERS[name](table, message)
    for axis, field in enumerate('xyz'):
        np.testing.assert_array_equal(points[..., axis], expected[field])
    for channel, shift in enumerate((16, 8, 0)):
        np.testing.assert_array_equal(rgb[..., channel], expected['rgb'] >> shift & 255)
