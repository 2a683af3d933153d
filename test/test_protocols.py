"""Protocols: sizes, ranges, fits and labels of a comparison with the truth."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.protocols import score


def truth(depth_m):
    """Return a frame of nothing but depth; NaN is not valid."""
    depth_m = np.asarray(depth_m, np.float32)
    return DepthFrame('truth', np.zeros((*depth_m.shape, 3), np.uint8), depth_m,
                      ~np.isnan(depth_m))


def test_a_prediction_is_fitted_on_measured_pixels_and_compared_at_the_truths_size():
    depth_m = np.array([[1.0, 2.0], [3.0, np.nan]], np.float32)
    prediction = np.repeat(np.repeat([[0.1, 0.2], [0.3, 9.0]], 2, axis=0), 2, axis=1)
    assert score(prediction, truth(depth_m))['abs_rel'] == pytest.approx(0.0, abs=1e-6)


def test_the_range_reaches_to_80_m_or_to_the_largest_measurement():
    # A flat prediction is fitted by the mean, so a pixel that did not count would show.
    for farthest_m, mean_m in ((50.0, 13.25), (200.0, 50.75)):
        depth_m = np.array([[1.0, 1.0, 1.0, farthest_m]], np.float32)
        expected = (3 * (mean_m - 1) + (farthest_m - mean_m) / farthest_m) / 4
        found = score(np.ones((1, 4)), truth(depth_m))
        assert found['abs_rel'] == pytest.approx(expected, rel=1e-6)


def test_a_prediction_beyond_the_range_is_clipped_to_it():
    # The fitted line is 19.5, 56.5, 56.5, 93.5 m; its end is clipped to 80 m.
    depth_m = np.array([[1.0, 75.0, 75.0, 75.0]], np.float32)
    expected = (18.5 + 2 * 18.5 / 75 + 5 / 75) / 4
    found = score(np.array([[0.0, 1.0, 1.0, 2.0]]), truth(depth_m))
    assert found['abs_rel'] == pytest.approx(expected)


def test_sky_counts_in_borders_only():
    depth_m = np.full((3, 3), np.inf, np.float32)
    depth_m[1, 1], depth_m[0, 0] = 1.0, 2.0
    prediction = np.where(np.isfinite(depth_m), depth_m / 10, 0.9)
    found = score(prediction, truth(depth_m))
    assert found['abs_rel'] == pytest.approx(0.0, abs=1e-6)
    assert found['boundary_f1'] == pytest.approx(1.0)    # 9 m behind 1 and 2 m


def test_a_frame_without_any_measurement_is_refused():
    with pytest.raises(InputError, match='must have a valid pixel'):
        score(np.ones((2, 2)), truth(np.full((2, 2), np.nan)))
