"""Checks of the frames of data sets."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.data.frames import (
    check_frame,
    check_frame_set,
    DepthFrame,
    evenly_spaced_indices,
)
from marigold_ros.depth.errors import InputError


def frame(height=16, width=24, depth=2.0):
    random = np.random.default_rng(0)
    depth_m = np.full((height, width), depth, np.float32)
    return DepthFrame('a.png', random.integers(0, 256, (height, width, 3), dtype=np.uint8),
                      depth_m, depth_m > 0)


@pytest.mark.parametrize(('depth', 'rule'), [
    (2000.0, r'a\.png: the median depth must lie between 0\.05 and 200\.0 m; got 2000 m: is the '
             'unit wrong'),
    (0.002, r'got 0\.002 m'),
    (np.nan, 'at least one pixel must have a valid depth; got none')])
def test_depth_in_a_wrong_unit_or_missing_is_rejected(depth, rule):
    with pytest.raises(InputError, match=rule):
        check_frame(frame(depth=depth))


def test_different_shapes_and_valid_nan_are_rejected():
    good = frame()
    with pytest.raises(InputError, match=r'a\.png: image, depth and mask must have the same'):
        check_frame(DepthFrame('a.png', good.rgb, good.depth_m[:8], good.valid[:8]))
    with pytest.raises(InputError, match=r'a\.png: the image must be uint8'):
        check_frame(DepthFrame('a.png', good.rgb / 2, good.depth_m, good.valid))
    good.depth_m[3, 3] = np.nan
    with pytest.raises(InputError, match=r'a\.png: valid depth must be above 0 and not NaN'):
        check_frame(good)


def test_evenly_spaced_frames_are_checked_and_an_empty_set_is_rejected():
    assert evenly_spaced_indices(5, 3) == [0, 2, 4]
    assert evenly_spaced_indices(2, 9) == [0, 1]
    with pytest.raises(InputError, match='desk must hold at least one frame; got none'):
        check_frame_set('desk', [], 3)
    with pytest.raises(InputError, match='median'):
        check_frame_set('desk', [frame(), frame(depth=5000.0)], 2)
