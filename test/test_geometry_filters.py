"""Rules of what may not become an obstacle."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.filters import limit_range, mask_low_confidence


def test_too_near_is_minus_inf_beyond_is_inf_unknown_is_nan():
    depth_m = np.array([[-1.0, 0.0, 0.4, 0.5, 1.0, 4.0, 4.1, np.nan, np.inf, -np.inf]], np.float32)
    limited = limit_range(depth_m, 0.5, 4.0)
    assert limited.dtype == np.float32
    np.testing.assert_array_equal(
        limited, [[-np.inf, -np.inf, -np.inf, 0.5, 1, 4, np.inf, np.nan, np.inf, -np.inf]])
    assert depth_m[0, 0] == -1.0


def test_the_ends_of_the_range_are_inside_in_float32_too():
    # 0.1 as float32 is above 0.1 and 0.7 as float32 below 0.7: compare in one precision.
    depth_m = np.array([[0.1, 0.7]], np.float32)
    np.testing.assert_array_equal(limit_range(depth_m, 0.1, 0.7), depth_m)


@pytest.mark.parametrize('low, high', [(0.0, 1.0), (2.0, 2.0), (np.nan, 1.0), (1.0, np.nan)])
def test_an_empty_range_or_one_that_holds_zero_is_refused(low, high):
    with pytest.raises(InputError, match='`min_depth_m` must be above 0'):
        limit_range(np.ones((1, 1), np.float32), low, high)


def test_untrusted_depth_is_unknown():
    depth_m = np.full((1, 4), 2.0, np.float32)
    confidence = np.array([[0.0, 0.5, 0.9, np.nan]], np.float32)
    np.testing.assert_array_equal(
        mask_low_confidence(depth_m, confidence, 0.5), [[np.nan, 2, 2, np.nan]])
    assert (depth_m == 2.0).all()


def test_a_confidence_of_another_size_is_refused():
    with pytest.raises(InputError, match=r'got \(1, 2\)'):
        mask_low_confidence(np.ones((2, 2), np.float32), np.ones((1, 2), np.float32), 0.5)
