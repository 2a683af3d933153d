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


@pytest.fixture(scope='module')
def drive():
    return read_drive(BAG, max_frames=30)


@pytest.mark.parametrize('poses', ['true', 'slip and drift', '20 ms late'])
def test_metres_hold_with_odometry_that_slips_drifts_or_is_late(drive, poses):
    stamps_s = [each.reference.stamp_ns * 1e-9 for each in drive]
    true = true_poses(drive)
    given = {'true': true, 'slip and drift': slip_and_drift(true),
             '20 ms late': make_late(true, stamps_s)}[poses]
    rows = measure(drive, poses, given)
    assert [(row['image'], row['flow'], row['rotation refined']) for row in rows] == [
        ('whole', 'no', 'no'), ('whole', 'yes', 'no'), ('whole', 'yes', 'yes'),
        ('reduced', 'yes', 'no')]
    assert int(rows[-1]['anchors']) > 0 and rows[-1]['AbsRel, motion'] == '-'
    for row in rows[:-1]:
        assert int(row['anchors']) > 80
        assert float(row['AbsRel, motion + floor']) < 0.19  # with true poses 0.168
    assert int(rows[1]['measured in the image']) > int(rows[0]['measured in the image'])


def test_a_long_run_plays_the_drive_to_and_fro(drive):
    row = run_long(drive, true_poses(drive), minutes=0.2)
    assert row['frames'] == '120' and float(row['growth'].removesuffix(' %')) < 10


def test_a_missing_bag_is_reported(tmp_path, capsys):
    assert main(['--bag', str(tmp_path / 'nowhere')]) == 2
    assert 'nowhere: it does not exist' in capsys.readouterr().err
