"""Fits to a few anchors compared with the best fits, on lines whose fit is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.anchor_fit import (
    abs_rel,
    fit_least_abs_rel,
    format_folder_table,
    LEAST_ABS_REL,
    main,
    score_anchors,
)


def test_the_best_fit_finds_the_line_that_most_pixels_lie_on():
    relative = np.linspace(0, 1, 1000)
    depth_m = 3 * relative + 1
    depth_m[:300] = 9.0
    assert fit_least_abs_rel(relative, depth_m) == pytest.approx((3.0, 1.0), rel=1e-3)


def test_abs_rel_is_relative_to_the_truth_and_clipped():
    relative, depth_m = np.array([0.0, 1.0]), np.array([2.0, 100.0])
    assert abs_rel(relative, depth_m, 200.0, 1.0) == pytest.approx((0.5 + 0.0) / 2)


def test_a_fifth_of_outliers_hardly_changes_the_fit():
    relative = np.linspace(0, 1, 5000)
    scores = score_anchors(relative, 3 * relative + 1, np.random.default_rng(0))
    assert scores['clean'] < 1e-3 and scores['outliers'] < 2e-3
    assert scores[LEAST_ABS_REL] < 1e-6
    assert scores['outliers by least squares'] > 0.2  # what robustness buys


def test_the_table_averages_sets_and_not_frames():
    relative = np.tile(np.linspace(0, 1, 60, dtype=np.float32), (40, 1))
    depth_m = 3 * relative + 1
    table = format_folder_table(iter([('a', relative, depth_m), ('a', relative, depth_m),
                                      ('b', relative, depth_m[::2, ::2])]), 2)
    names = [line.split('|')[1].strip() for line in table.splitlines()]
    assert names[0] == 'AbsRel (metric, 0.001 to 80+ m)'
    assert names[2:] == ['a', 'b', 'mean of sets']


def test_a_missing_folder_is_an_error_with_its_name(capsys, tmp_path):
    assert main(['--folder', str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
