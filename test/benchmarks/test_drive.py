"""Rules of the scale evaluation: hand-made frames whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.anchors import abs_rel, best_in_hindsight, folder_table, main, score_anchors
from benchmarks.drive import DriveFrame, score_source, with_true_depth
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.config import ScaleConfig

K = np.array([[40.0, 0, 39.5], [0, 40, 29.5], [0, 0, 1]])


def test_hindsight_finds_the_line_that_most_pixels_lie_on():
    relative = np.linspace(0, 1, 1000)
    depth_m = 3 * relative + 1
    depth_m[:300] = 9.0
    assert best_in_hindsight(relative, depth_m) == pytest.approx((3.0, 1.0), rel=1e-3)


def test_abs_rel_is_relative_to_the_truth_and_clipped():
    relative, depth_m = np.array([0.0, 1.0]), np.array([2.0, 100.0])
    assert abs_rel(relative, depth_m, 200.0, 1.0) == pytest.approx((0.5 + 0.0) / 2)


def test_anchors_of_a_perfect_prediction_leave_no_error_however_wrong_a_fifth_of_them_is():
    relative = np.linspace(0, 1, 5000)
    scores = score_anchors(relative, 3 * relative + 1, np.random.default_rng(0))
    assert scores['clean'] < 1e-3 and scores['outliers'] < 2e-3
    assert scores['hindsight, least AbsRel'] < 1e-6
    assert scores['outliers by least squares'] > 0.2  # what robustness buys


def test_the_table_averages_sets_and_not_frames():
    relative = np.tile(np.linspace(0, 1, 60, dtype=np.float32), (40, 1))
    depth_m = 3 * relative + 1
    table = folder_table(iter([('a', relative, depth_m), ('a', relative, depth_m),
                               ('b', relative, depth_m[::2, ::2])]), 2)
    names = [line.split('|')[1].strip() for line in table.splitlines()]
    assert names == ['', '---', 'a', 'b', 'mean of sets']


def drive(count: int = 70) -> list[DriveFrame]:
    """See a floor 0.5 m below a level camera for seven seconds, with exact anchors."""
    rows, columns = np.mgrid[:60, :80]
    fall = np.asarray((rows - K[1, 2]) / K[1, 1])
    depth_m = np.where(fall > 0.1, 0.5 / np.maximum(fall, 1e-3), 5.0).astype(np.float32)
    anchors = Anchors(rows.ravel(), columns.ravel(), depth_m.ravel(), 0)
    frames = [DriveFrame(i * 10 ** 8, np.zeros_like(depth_m), None, depth_m, K, fall, (0.0, 0.0),
                         0.5, {'depth': Anchors(anchors.rows, anchors.columns, anchors.depth_m,
                                                i * 10 ** 8)}) for i in range(count)]
    return with_true_depth(frames)


@pytest.mark.parametrize('config', [
    ScaleConfig('depth'),
    ScaleConfig('ground_plane', camera_height_m=0.5, camera_pitch_deg=0.0, camera_roll_deg=0.0)])
def test_a_true_relative_depth_becomes_true_metres_and_stays_there(config):
    score = score_source(drive(), config)
    assert score.metric_frames == 70
    assert score.scores['abs_rel'] < 0.02 and score.floor_error < 0.02
    assert score.jitter < 1e-3 and score.recovery_s == 0.0


def test_a_wrong_camera_height_makes_everything_as_wrong():
    config = ScaleConfig('ground_plane', camera_height_m=0.6, camera_pitch_deg=0.0,
                         camera_roll_deg=0.0)
    score = score_source(drive(), config)
    assert score.floor_error == pytest.approx(0.2, abs=0.02)
    assert score.scores['abs_rel'] == pytest.approx(0.2, abs=0.02)


def test_a_missing_folder_is_an_error_with_its_name(capsys, tmp_path):
    assert main(['--folder', str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
