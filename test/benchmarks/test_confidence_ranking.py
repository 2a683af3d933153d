"""Sparsification: the curve and its area on values counted by hand, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import confidence_ranking
from benchmarks.confidence_ranking import area_under_curve, relative_error, sparsification_curve
from marigold_ros.depth.errors import InputError

SHARED = Path(__file__).parents[3] / 'shared' / 'data'
TWENTY = np.arange(20.0)


def test_the_right_order_lowers_the_error_of_what_remains():
    error = np.array([4.0, 3.0, 2.0, 1.0])    # mean 2.5
    curve = sparsification_curve(error, np.array([0.1, 0.2, 0.7, 0.9]))
    assert curve[0] == 1.0
    assert curve[5] == pytest.approx(2.0 / 2.5)     # 25 % removed: 3, 2, 1 remain
    assert curve[10] == pytest.approx(1.5 / 2.5)
    assert curve[15] == pytest.approx(1.0 / 2.5)
    assert curve[19] == pytest.approx(1.0 / 2.5)    # one pixel always remains


def test_the_wrong_order_raises_it():
    curve = sparsification_curve(np.array([4.0, 3.0, 2.0, 1.0]), np.array([0.9, 0.7, 0.2, 0.1]))
    assert curve[15] == pytest.approx(4.0 / 2.5)
    assert area_under_curve(curve) > 1.0


def test_equal_confidence_is_a_random_ranking_in_any_pixel_order():
    for error in (TWENTY, TWENTY[::-1]):
        assert sparsification_curve(error, np.ones(20)) == pytest.approx(np.ones(20))


def test_equals_share_their_mean():
    # One sure pixel of error 0, then three equals of mean 2: with two left, (0 + 2) / 2.
    curve = sparsification_curve(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 0.5, 0.5, 0.5]))
    assert curve[10] == pytest.approx(1.0 / 1.5)


def test_only_the_order_of_the_confidence_counts():
    confidence = np.linspace(0.1, 0.9, 20)[::-1]
    once, twice = (sparsification_curve(TWENTY, c) for c in (confidence, confidence ** 3))
    assert once == pytest.approx(twice)


def test_the_area_of_a_random_ranking_is_1_and_of_a_straight_fall_half():
    assert area_under_curve(np.ones(20)) == pytest.approx(1.0)
    assert area_under_curve(np.linspace(1.0, 0.0, 20)) == pytest.approx(0.5)


def test_the_oracle_on_a_linear_error():
    # Errors 0 .. 19 (mean 9.5): k of them removed leave a mean of (19 - k) / 2.
    curve = sparsification_curve(TWENTY, -TWENTY)
    assert curve == pytest.approx((19.0 - np.arange(20)) / 19.0)


@pytest.mark.parametrize(('error', 'confidence', 'match'), [
    (np.ones(3), np.ones(4), 'one shape'),
    (np.ones((2, 2)), np.ones((2, 2)), 'one shape'),
    (np.array([1.0, np.nan]), np.ones(2), 'finite'),
    (np.array([1.0, -1.0]), np.ones(2), 'negative'),
    (np.zeros(2), np.ones(2), 'above 0'),
])
def test_invalid_input_is_rejected(error, confidence, match):
    with pytest.raises(InputError, match=match):
        sparsification_curve(error, confidence)


def test_the_error_is_relative_after_a_fit_on_measured_pixels():
    truth_m = np.array([[1.0, 2.0], [3.0, np.nan]], np.float32)
    found = relative_error((truth_m - 0.5) / 4.0, truth_m)
    assert np.isnan(found[1, 1])
    np.testing.assert_allclose(found[truth_m > 0], 0.0, atol=1e-6)
    # A flat prediction is fitted to the mean, 2 m.
    flat = relative_error(np.full((2, 2), 0.3, np.float32), truth_m)
    np.testing.assert_allclose(flat[truth_m > 0], [1.0, 0.0, 1 / 3], atol=1e-6)


def test_sky_and_gaps_are_ignored():
    truth_m = np.array([[1.0, np.inf, 3.0, np.nan]], np.float32)
    found = relative_error(np.array([[0.1, 0.9, 0.3, 0.5]], np.float32), truth_m)
    assert np.isnan(found[0, [1, 3]]).all() and np.isfinite(found[0, [0, 2]]).all()


@pytest.mark.skipif(not SHARED.is_dir(), reason='the shared frames are not here')
def test_the_confidence_beats_a_random_ranking_on_real_frames(tmp_path, capsys, monkeypatch):
    """Published only because it does; the area there is near 0.87, the oracle's near 0.46."""
    monkeypatch.setattr(confidence_ranking, 'STEPS', (1,))
    assert confidence_ranking.main(['--folder', str(SHARED), '--out', str(tmp_path)]) == 0
    rows = {row[1].strip(): float(row[2].split()[0])
            for row in (line.split('|') for line in capsys.readouterr().out.splitlines()[4:])}
    assert rows['oracle'] < rows['confidence'] < 0.95
    assert (tmp_path / 'confidence_ranking.png').stat().st_size > 10_000


def test_a_missing_folder_is_reported(capsys):
    assert confidence_ranking.main(['--frames', '/does/not/exist']) == 2
    assert 'must hold' in capsys.readouterr().err
