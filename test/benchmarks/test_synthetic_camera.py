"""Faults of the synthetic camera."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.synthetic_camera import (
    apply_fault,
    make_camera_info,
    make_images,
    make_jpeg_message,
    make_raw_message,
)


def test_each_fault_changes_only_its_kind_of_message():
    rgb = np.zeros((48, 64, 3), np.uint8)
    raw, jpeg = make_raw_message(rgb), make_jpeg_message(rgb)
    assert len(apply_fault(raw, 'short_data').data) == 48 * 64 * 3 - 1
    assert apply_fault(raw, 'bad_encoding').encoding == '32FC1'
    assert len(apply_fault(jpeg, 'truncated_jpeg').data) == len(jpeg.data) // 2
    assert all(apply_fault(raw, fault) is raw
               for fault in ('truncated_jpeg', 'nan_camera_info', ''))
    assert make_camera_info(64, 48).d[0] != 0.0


@pytest.mark.parametrize(('size', 'step_px'), [((64, 48), 1), ((320, 240), 7)])
def test_a_moving_scene_goes_there_and_back_without_a_cut(size, step_px):
    """At 10 Hz a step is 2.1 % of the width, and 2 s in each direction are 40 images."""
    images = make_images('moving', size, 10.0)
    assert images[0].shape == (size[1], size[0], 3) and len(images) == 40
    for earlier, later, dx in ((images[0], images[1], step_px), (images[-1], images[0], -step_px)):
        first, second = (earlier, later) if dx > 0 else (later, earlier)
        assert np.array_equal(first[:, step_px:], second[:, :-step_px])
    different = make_images('cuts', size, 10.0)
    assert len(different) == 16 and not np.array_equal(different[0], different[1])
