"""The benchmark of the field: how it draws anchors, and what it reports of known errors."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.anchor_field import (
    Calibration,
    draw_anywhere,
    draw_rings,
    draw_row,
    fit_draw,
    format_tables,
    main,
    PATTERNS,
    score_frame,
)

K = np.array([[100.0, 0.0, 79.5], [0.0, 100.0, 59.5], [0.0, 0.0, 1.0]])
ROWS, COLUMNS = np.mgrid[:120, :160]
RELATIVE = (ROWS / 119).astype(np.float32)
DEPTH_M = ((3 * RELATIVE + 1) * np.exp(0.2 * np.sin(COLUMNS / 40))).astype(np.float32)


@pytest.mark.parametrize('draw, count, heights', [
    (draw_anywhere(50), 50, None), (draw_rings, 200, {7, 22, 37, 52, 67, 82, 97, 112}),
    (draw_row, 64, {72})])
def test_anchors_are_drawn_from_measured_pixels(draw, count, heights):
    measured = np.random.default_rng(0).random(DEPTH_M.shape) < 0.5
    chosen = draw(measured, np.random.default_rng(1))
    assert len(np.unique(chosen)) == len(chosen) == count
    assert measured.ravel()[chosen].all()
    if heights is not None:
        rows = set(chosen // 160)
        assert all(min(abs(row - height) for height in heights) <= 1 for row in rows)
        assert all(min(abs(row - height) for row in rows) <= 1 for height in heights)


def test_the_field_gains_where_the_error_is_smooth():
    calibration = Calibration()
    score = score_frame(RELATIVE, DEPTH_M, K, PATTERNS['200 anywhere'],
                        np.random.default_rng(0), calibration)
    assert score.field_abs_rel < 0.4 * score.fit_abs_rel
    assert score.started_abs_rel == pytest.approx(score.field_abs_rel, rel=0.05)
    assert min(score.fit_s, score.field_s, score.started_s) > 0.0


def test_the_field_before_does_not_decide_which_anchors_are_drawn():
    pattern = PATTERNS['50 anywhere']
    rng = np.random.default_rng(0)
    fit_draw(RELATIVE, DEPTH_M, pattern, rng)
    expected = fit_draw(RELATIVE, DEPTH_M, pattern, rng).chosen
    rng = np.random.default_rng(0)
    score_frame(RELATIVE, DEPTH_M, K, pattern, rng, Calibration())
    np.testing.assert_array_equal(fit_draw(RELATIVE, DEPTH_M, pattern, rng).chosen, expected)


def test_the_calibration_counts_frames_alike():
    calibration = Calibration()
    calibration.add(np.full(10, 0.75, np.float32), np.arange(10) < 5)
    calibration.add(np.full(1000, 0.75, np.float32), np.ones(1000, bool))
    calibration.add(np.full(10, 1.0, np.float32), np.ones(10, bool))
    rows = {row['confidence']: row for row in calibration.rows()}
    assert rows['0.7 to 0.8'] == {'confidence': '0.7 to 0.8', 'pixels': '67%',
                                  'mean confidence': '0.750', 'right': '0.750'}
    assert rows['0.99 to 1']['pixels'] == '33%'
    assert rows['0 to 0.7']['right'] == '-'


def test_a_row_by_pattern_and_the_worst_set_is_named():
    frames = [('good', RELATIVE, DEPTH_M, K), ('exact', RELATIVE, 3 * RELATIVE + 1, None)]
    table = format_tables(iter(frames), draws=1)
    lines = table.splitlines()
    assert [line.split('|')[1].strip() for line in lines[2:9]] == list(PATTERNS)
    assert '(exact)' in lines[3]  # where nothing is left to gain
    assert len(lines) == 2 + 7 + 1 + 2 + 6


def test_a_missing_folder_is_an_error_with_its_name(capsys, tmp_path):
    assert main(['--folder', str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
