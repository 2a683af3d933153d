"""The benchmark of frames while another size is compiled."""

from __future__ import annotations

import pytest

from benchmarks import engine_new_size


@pytest.fixture
def seconds(tmp_path, monkeypatch):
    """Return the times of a short run, with an empty cache."""
    pytest.importorskip('openvino')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(engine_new_size, 'NEW_SIZES', ((240, 440), (360, 640)))
    monkeypatch.setattr(engine_new_size, 'AFTER_S', 0.1)
    return engine_new_size.measure_frames('openvino:CPU')


def test_frames_are_timed_alone_and_after_each_new_size(seconds):
    assert list(seconds) == ['alone', 'after a frame of another size']
    for times_s in seconds.values():
        assert len(times_s) >= 2 and min(times_s) > 0.0
        assert 0.2 <= sum(times_s) < 0.2 + 2 * max(times_s)


def test_a_row_shows_the_longest_frame():
    row = engine_new_size.format_row('empty', 'alone', [0.010] * 99 + [0.050])
    assert list(row.values()) == ['empty', 'alone', '100', '10', '10', '50']
