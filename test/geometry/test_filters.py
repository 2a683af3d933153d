"""Filters of metric depth."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.geometry.filters import DepthFilter, find_flying_pixels, mark_out_of_range

# With f = 100 px, neighbours on a surface at 2 degrees differ by 29 %: 1 / (100 tan(2 deg)).
K = np.array([[100.0, 0.0, 0.0], [0.0, 100.0, 0.0], [0.0, 0.0, 1.0]])


def row(*depth_m: float) -> np.ndarray:
    """Make a depth image of one row."""
    return np.array([depth_m], np.float32)


def test_out_of_range_depth_is_marked_by_rep_117():
    depth_m = row(-1.0, 0.0, 0.4, 0.5, 1.0, 4.0, 4.1, np.nan, np.inf, -np.inf)
    limited = mark_out_of_range(depth_m, 0.5, 4.0)
    assert limited.dtype == np.float32
    np.testing.assert_array_equal(
        limited, [[-np.inf, -np.inf, -np.inf, 0.5, 1, 4, np.inf, np.nan, np.inf, -np.inf]])
    assert depth_m[0, 0] == -1.0


def test_the_range_includes_its_ends_in_float32():
    # In float32, 0.1 is rounded up and 0.7 is rounded down.
    depth_m = row(0.1, 0.7)
    np.testing.assert_array_equal(mark_out_of_range(depth_m, 0.1, 0.7), depth_m)


@pytest.mark.parametrize('low, high', [(0.0, 1.0), (2.0, 2.0), (np.nan, 1.0), (1.0, np.nan)])
def test_an_empty_range_or_one_with_zero_is_rejected(low, high):
    with pytest.raises(InputError, match='`min_depth_m` must be above 0'):
        mark_out_of_range(np.ones((1, 1), np.float32), low, high)
    with pytest.raises(ConfigError, match='`min_depth_m` must be above 0'):
        DepthFilter(low, high)


def apply(depth_filter: DepthFilter, depth_m: np.ndarray, relative=None, confidence=None):
    """Apply a filter; the default relative depth and confidence keep all pixels."""
    relative = np.zeros_like(depth_m) if relative is None else relative
    confidence = np.ones_like(depth_m) if confidence is None else confidence
    kept = depth_m.copy()
    depth_filter.mark_single_pixels(kept, relative, confidence)
    depth_filter.mark_flying_pixels(kept, K)
    return kept


def test_depth_with_a_low_confidence_is_unknown():
    depth_m = np.full((1, 4), 2.0, np.float32)
    kept = apply(DepthFilter(confidence_min=0.5), depth_m,
                 confidence=row(0.0, 0.5, 0.9, np.nan))
    np.testing.assert_array_equal(kept, [[np.nan, 2, 2, np.nan]])
    assert (depth_m == 2.0).all()


def test_a_large_relative_depth_is_sky():
    relative = row(0.5, 0.9, 0.91, 1.0, np.nan)
    depth_m = row(2.0, 6.0, 6.1, 6.5, np.nan)
    kept = apply(DepthFilter(max_relative_depth=0.9, min_surface_angle_deg=0.0), depth_m, relative)
    np.testing.assert_array_equal(kept, row(2.0, 6.0, np.inf, np.inf, np.nan))
    # By default no relative depth is sky.
    np.testing.assert_array_equal(
        apply(DepthFilter(min_surface_angle_deg=0.0), depth_m, relative), depth_m)


def test_pixels_between_two_surfaces_are_flying():
    flying = find_flying_pixels(row(1, 1, 1, 2, 3, 3, 3), K, 2.0)
    np.testing.assert_array_equal(flying[0], [0, 0, 0, 1, 0, 0, 0])
    # A decreasing edge of three pixels, as a row and as a column.
    ramp = row(16, 16, 8, 4, 2, 1, 1)
    np.testing.assert_array_equal(find_flying_pixels(ramp, K, 2.0)[0], [0, 0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(find_flying_pixels(ramp.T, K, 2.0)[:, 0], [0, 0, 1, 1, 1, 0, 0])


def test_sharp_edges_and_thin_objects_are_kept():
    assert not find_flying_pixels(row(1, 1, 3, 3), K, 2.0).any()
    assert not find_flying_pixels(row(3, 3, 1, 3, 3), K, 2.0).any()


@pytest.mark.parametrize(('angle_deg', 'is_flying'), [(4.9, False), (5.1, True)])
@pytest.mark.parametrize('f_px', [500.0, 5000.0])
def test_a_plane_is_flying_only_below_the_angle(angle_deg, is_flying, f_px):
    # A floor h below the camera has the depth f h / v and the angle atan(h / z).
    v = np.arange(1.0, f_px)
    depth_m = (f_px * 0.5 / v)[:, None].astype(np.float32)
    flying = find_flying_pixels(depth_m, np.diag([f_px, f_px, 1.0]), angle_deg)[:, 0]
    seen_deg = np.degrees(np.arctan(0.5 / depth_m[:, 0]))
    there = np.argmin(np.abs(seen_deg - 5.0))
    assert flying[there] == is_flying
    assert not flying[seen_deg > angle_deg * 1.2].any()
    assert flying[1:-1][seen_deg[1:-1] < angle_deg * 0.8].all()


def test_edges_to_infinity_have_flying_pixels_but_not_edges_to_nan():
    far, near, unknown = np.inf, -np.inf, np.nan
    np.testing.assert_array_equal(find_flying_pixels(row(2, 2, 4, far, far), K, 2.0)[0],
                                  [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(find_flying_pixels(row(near, 1, 2, 2), K, 2.0)[0], [0, 1, 0, 0])
    assert not find_flying_pixels(row(1, 1.01, far, far), K, 2.0).any()
    assert not find_flying_pixels(row(1, unknown, 2, unknown, 3), K, 2.0).any()


def test_a_soft_edge_to_the_sky_is_removed():
    relative = row(0.1, 0.1, 0.5, 0.97, 0.99)
    kept = apply(DepthFilter(max_relative_depth=0.95, min_surface_angle_deg=2.0),
                 1 + 10 * relative, relative)
    np.testing.assert_array_equal(kept, row(2.0, 2.0, np.nan, np.inf, np.inf))


def test_flying_pixels_are_unknown_unless_the_angle_is_0():
    depth_m = row(1, 1, 2, 3, 3)
    kept = apply(DepthFilter(min_surface_angle_deg=2.0), depth_m)
    np.testing.assert_array_equal(kept, row(1, 1, np.nan, 3, 3))
    np.testing.assert_array_equal(apply(DepthFilter(min_surface_angle_deg=0.0), depth_m), depth_m)


@pytest.mark.parametrize('angle', [0.0, 90.0, np.nan])
def test_an_invalid_angle_is_rejected(angle):
    with pytest.raises(InputError, match='`min_surface_angle_deg` must be above 0 and below 90'):
        find_flying_pixels(row(1, 2), K, angle)


def test_intrinsics_without_focal_length_are_rejected():
    with pytest.raises(InputError, match='focal lengths above 0; got fx=0.0'):
        find_flying_pixels(row(1, 2), np.zeros((3, 3)), 2.0)


def plain_flying_pixels(depth_m, max_ratio_x, max_ratio_y):
    """Mark the pixels between two steps of one sign, one after the other."""
    found = np.zeros(depth_m.shape, bool)
    rows, columns = depth_m.shape
    for v, u in np.ndindex(rows, columns):
        z = depth_m[v, u]
        for before, after, ratio in (((v, u - 1), (v, u + 1), max_ratio_x),
                                     ((v - 1, u), (v + 1, u), max_ratio_y)):
            if min(before) >= 0 and after[0] < rows and after[1] < columns:
                a, b = depth_m[before], depth_m[after]
                found[v, u] |= (z > a * ratio and b > z * ratio) or (a > z * ratio
                                                                     and z > b * ratio)
    return found


@pytest.mark.parametrize('strip_pixels', [1, 25, 2 ** 17])
@pytest.mark.parametrize('shape', [(1, 1), (1, 2), (2, 1), (1, 9), (9, 1), (2, 2), (3, 3),
                                   (13, 10), (8, 23)])
def test_flying_pixels_are_those_of_the_plain_formulation(monkeypatch, shape, strip_pixels):
    monkeypatch.setattr('marigold_ros.geometry.filters.STRIP_PIXELS', strip_pixels)
    rng = np.random.default_rng(0)
    depth_m = rng.choice(np.float32([1.0, 1.2, 1.5, 2.0, 3.0, 4.5, np.nan, np.inf]), shape)
    K_wide = np.diag([60.0, 200.0, 1.0])
    slope = np.tan(np.radians(2.0))
    expected = plain_flying_pixels(depth_m, *(np.float32(1 + 1 / (f * slope))
                                              for f in (60.0, 200.0)))
    assert expected.any() or min(shape) < 3
    np.testing.assert_array_equal(find_flying_pixels(depth_m, K_wide, 2.0), expected)
    np.testing.assert_array_equal(find_flying_pixels(np.asfortranarray(depth_m), K_wide, 2.0),
                                  expected)


def test_filtering_in_strips_gives_what_the_whole_image_gives(monkeypatch):
    rng = np.random.default_rng(0)
    depth_m = rng.choice(np.float32([0.01, 1.0, 1.5, 2.0, 3.0, 4.5, 30.0, np.nan]), (13, 10))
    whole = apply(DepthFilter(), depth_m)
    assert np.isnan(whole).sum() > np.isnan(depth_m).sum()
    for pixels in (1, 25, 60):  # 1, 2 and 6 rows
        monkeypatch.setattr('marigold_ros.geometry.filters.STRIP_PIXELS', pixels)
        np.testing.assert_array_equal(apply(DepthFilter(), depth_m), whole)
