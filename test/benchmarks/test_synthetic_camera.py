"""The fake camera's faults."""

from __future__ import annotations

import numpy as np

from benchmarks.synthetic_camera import calibration, image_of, jpeg_of, spoil


def test_faults_spoil_what_they_say_and_leave_the_rest():
    rgb = np.zeros((48, 64, 3), np.uint8)
    raw, jpeg = image_of(rgb), jpeg_of(rgb)
    assert len(spoil(raw, 'short_data').data) == 48 * 64 * 3 - 1
    assert spoil(raw, 'bad_encoding').encoding == '32FC1'
    assert len(spoil(jpeg, 'truncated_jpeg').data) == len(jpeg.data) // 2
    assert all(spoil(raw, fault) is raw for fault in ('truncated_jpeg', 'nan_camera_info', ''))
    assert calibration(64, 48).d[0] != 0.0
