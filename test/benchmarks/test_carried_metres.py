"""The errors of carried metres: none in the frame itself, and less with poses than without."""

from __future__ import annotations

from itertools import islice

import pytest

from benchmarks import carried_metres
from marigold_ros.data.datasets.bag import bag_data_set


def test_poses_halve_the_error_of_carried_true_depth():
    frames = list(islice(bag_data_set(carried_metres.SAMPLE).frames(), 20, 29))
    known = carried_metres.true_depth(frames[0])
    along_image, with_poses = (known.errors(frames, with_poses=use) for use in (False, True))
    assert len(along_image) == len(with_poses) == len(carried_metres.CARRIED)
    assert along_image[0] == with_poses[0] == pytest.approx((0.0, 1.0))
    assert along_image[-1][0] > 2 * with_poses[-1][0] > 0.0
