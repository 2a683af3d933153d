"""The benchmark of motion: poses that are wrong, a row of the table, the run over a long time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.motion_anchors import (
    main,
    make_late,
    measure,
    read_drive,
    run_long,
    Setting,
    slip_and_drift,
    true_poses,
)

ROOT = Path(__file__).parents[2]
BAG = ROOT / 'sample' / 'living_room'


def straight_poses() -> list[np.ndarray]:
    """Return poses 0.1 m apart along the camera's axis."""
    poses = np.tile(np.eye(4), (11, 1, 1))
    poses[:, 2, 3] = 0.1 * np.arange(11)
    return list(poses)


def test_slipping_wheels_are_longer_and_drift_turns_the_camera():
    last = slip_and_drift(straight_poses())[-1]
    assert np.linalg.norm(last[:3, 3]) == pytest.approx(1.03, rel=0.01)
    assert np.degrees(np.arccos(last[0, 0])) == pytest.approx(0.5, rel=0.05)


def test_late_poses_are_those_of_20_ms_later():
    late = make_late(straight_poses(), 0.1 * np.arange(11))
    assert late[3][2, 3] == pytest.approx(0.32)
    assert late[-1][2, 3] == pytest.approx(1.0)  # the last one known


def test_the_rows_of_a_short_drive():
    drive = read_drive(BAG, max_frames=14)
    poses = true_poses(drive)
    row = measure(drive, Setting('true', poses, False))
    assert row['poses'] == 'true' and int(row['anchors']) > 10
    assert float(row['AbsRel, motion + floor']) < 0.3
    row = run_long(drive, poses, minutes=0.1)
    assert row['frames'] == '60' and float(row['growth'].removesuffix(' %')) < 50


def test_a_missing_bag_is_reported(tmp_path, capsys):
    assert main(['--bag', str(tmp_path / 'nowhere')]) == 2
    assert 'nowhere: it does not exist' in capsys.readouterr().err
