"""Faults of the synthetic camera."""

from __future__ import annotations

import numpy as np

from benchmarks.synthetic_camera import (
    apply_fault,
    make_camera_info,
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
