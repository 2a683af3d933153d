"""Rules of laser scans: points of a plane, and NaN where nothing was measured."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.messages.laser_scan import points_from_scan


def test_a_scan_is_a_plane_of_points_within_its_own_limits():
    ranges = np.array([1.0, 2.0, 0.01, 50.0, np.inf, np.nan], np.float32)
    points = points_from_scan(ranges, -np.pi / 2, np.pi / 2, 0.05, 12.0)
    np.testing.assert_allclose(points[0], [0, -1, 0], atol=1e-6)
    np.testing.assert_allclose(points[1], [2, 0, 0], atol=1e-6)
    assert np.isnan(points[2:]).all()


@pytest.mark.parametrize('limits', [(0.0, np.nan, 0.1, 1.0), (0.0, 0.1, 2.0, 1.0)])
def test_a_scan_that_contradicts_itself_is_refused(limits):
    with pytest.raises(InputError, match='range_min < range_max; got'):
        points_from_scan(np.ones(3, np.float32), *limits)
