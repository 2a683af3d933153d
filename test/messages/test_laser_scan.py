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


@pytest.mark.parametrize('limits', [(0.0, np.nan, 0.1, 1.0), (0.0, 0.1, 2.0, 1.0)])
def test_inconsistent_limits_are_rejected(limits):
    with pytest.raises(InputError, match='range_min < range_max; got'):
        points_from_scan(np.ones(3, np.float32), *limits)
