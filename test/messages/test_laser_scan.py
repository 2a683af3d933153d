"""Conversion of laser scans to points."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.messages.laser_scan import points_from_scan


def test_ranges_outside_the_limits_become_nan():
    ranges = np.array([1.0, 2.0, 0.01, 50.0, np.inf, np.nan], np.float32)
    points = points_from_scan(ranges, -np.pi / 2, np.pi / 2, 0.05, 12.0)
    np.testing.assert_allclose(points[0], [0, -1, 0], atol=1e-6)
    np.testing.assert_allclose(points[1], [2, 0, 0], atol=1e-6)
    assert np.isnan(points[2:]).all()


@pytest.mark.parametrize(('mark', 'range_min'), [
    (0.0, 0.0), (0.01, 0.0), (0.1, 0.1), (12.0, 0.1), (np.nan, 0.0), (np.inf, 0.0), (-1.0, 0.0)])
def test_a_beam_without_a_return_is_no_measurement(mark, range_min):
    """float32 of 0.1 is above 0.1: the limits have the same precision as the ranges."""
    ranges = np.array([mark, 2.0, mark], np.float32)
    points = points_from_scan(ranges, 0.0, 0.1, float(np.float32(range_min)), 12.0)
    assert np.isfinite(points).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize('limits', [(0.0, np.nan, 0.1, 1.0), (0.0, 0.1, 2.0, 1.0)])
def test_inconsistent_limits_are_rejected(limits):
    with pytest.raises(InputError, match='range_min < range_max; got'):
        points_from_scan(np.ones(3, np.float32), *limits)
