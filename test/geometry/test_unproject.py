"""Unprojection and projection with the pinhole model."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.unproject import project, unproject

K = np.array([[100.0, 0.0, 2.0], [0.0, 50.0, 1.0], [0.0, 0.0, 1.0]])


def test_points_follow_the_pinhole_model_in_the_optical_frame():
    points = unproject(np.full((3, 4), 2.0, np.float32), K)
    assert points.shape == (3, 4, 3) and points.dtype == np.float64
    assert points.flags.c_contiguous
    np.testing.assert_allclose(points[1, 2], [0.0, 0.0, 2.0])
    # Pixel (u, v) = (3, 2): x = (3 - 2) * 2 / 100, y = (2 - 1) * 2 / 50.
    np.testing.assert_allclose(points[2, 3], [0.02, 0.04, 2.0], rtol=1e-6)
    np.testing.assert_allclose(points[0, 0], [-0.04, -0.04, 2.0], rtol=1e-6)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_invalid_depth_becomes_three_nan(bad):
    depth_m = np.full((2, 2), 3.0, np.float32)
    depth_m[1, 0] = bad
    points = unproject(depth_m, K)
    assert np.isnan(points[1, 0]).all()
    assert np.isfinite(np.delete(points.reshape(-1, 3), 2, axis=0)).all()
    np.testing.assert_array_equal(depth_m[1, 0], np.float32(bad))


def test_a_stride_selects_points_of_the_full_cloud():
    depth_m = np.random.default_rng(0).uniform(0.5, 9, (7, 10)).astype(np.float32)
    strided = unproject(depth_m, K, stride=4)
    assert strided.shape == (2, 3, 3) and strided.flags.c_contiguous
    np.testing.assert_array_equal(strided, unproject(depth_m, K)[::4, ::4])


def test_float64_depth_and_views_are_supported():
    points = unproject(np.full((4, 6), 0.1)[:, ::2], K)
    assert points.shape == (4, 3, 3) and (points[..., 2] == 0.1).all()


def test_points_in_an_output_array_are_rounded_once():
    depth_m = np.random.default_rng(0).uniform(0.1, 20, (48, 64)).astype(np.float32)
    memory = np.zeros((24, 32, 4), np.float32)
    points = unproject(depth_m, K, stride=2, out=memory[..., :3])
    assert np.shares_memory(points, memory) and not memory[..., 3].any()
    np.testing.assert_array_equal(points, unproject(depth_m, K, stride=2).astype(np.float32))


@pytest.mark.parametrize('stride', [1, 3, 4, 64])
@pytest.mark.parametrize('height, width', [
    (1, 1), (480, 640), (479, 641), (1080, 1920), (48, 7680), (4320, 64)])
def test_projection_inverts_unprojection(height, width, stride):
    intrinsics, depth_m = random_view(height, width)
    uv = project(unproject(depth_m, intrinsics, stride=stride), intrinsics)
    assert distance_px(uv, stride) < 1e-9


@pytest.mark.parametrize('height, width', [(480, 640), (1080, 1920), (60, 3354), (60, 7680)])
def test_a_float32_cloud_has_rounding_errors_only(height, width):
    intrinsics, depth_m = random_view(height, width)
    memory = np.empty((height, width, 3), np.float32)
    uv = project(unproject(depth_m, intrinsics, out=memory), intrinsics)
    # Half a unit in the last place is at most 2^-24 of x, and x is proportional to u - cx.
    bound_px = (width / 2 - 0.3) * 2 ** -24
    assert distance_px(uv, 1) <= bound_px
    assert (bound_px < 1e-4) == (width <= 3354)


def random_view(height, width):
    """Return intrinsics with a fractional principal point, and random depth."""
    intrinsics = np.array([[0.8 * width, 0, width / 2 - 0.7], [0, 0.9 * width, height / 2 + 0.3],
                           [0, 0, 1]])
    return intrinsics, np.random.default_rng(1).uniform(0.1, 20, (height, width)).astype('f4')


def distance_px(uv, stride):
    """Return the largest distance of projected points from their original pixels."""
    rows, columns = (stride * np.arange(count) for count in uv.shape[:2])
    return max(np.abs(uv[..., 0] - columns).max(), np.abs(uv[..., 1] - rows[:, None]).max())


def test_projection_by_hand_and_nan_behind_the_camera():
    points = np.array([[1.0, 2.0, 4.0], [1.0, 1.0, -1.0], [0.0, 0.0, 0.0], [np.nan] * 3])
    uv = project(points.astype(np.float32), K)
    np.testing.assert_array_equal(uv[0], [27.0, 26.0])
    assert np.isnan(uv[1:]).all()


@pytest.mark.parametrize('shape, intrinsics, stride, match', [
    ((2, 2, 1), K, 1, r'`depth_m` must have the shape \[H, W\]; got \(2, 2, 1\)'),
    ((2, 2), K, 0, '`stride` must be at least 1; got 0'),
    ((2, 2), np.zeros((3, 3)), 1, '`K` must have focal lengths above 0; got fx=0.0'),
])
def test_invalid_arguments_are_rejected(shape, intrinsics, stride, match):
    with pytest.raises(InputError, match=match):
        unproject(np.ones(shape, np.float32), intrinsics, stride=stride)


def test_an_output_array_of_another_shape_is_rejected():
    with pytest.raises(InputError, match=r'shape \(2, 2, 3\); got \(2, 2, 4\)'):
        unproject(np.ones((2, 2), np.float32), K, out=np.empty((2, 2, 4), np.float32))
