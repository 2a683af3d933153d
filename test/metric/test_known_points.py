"""Points whose place is known move into later images, and are forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.known_points import HeldAnchors, KnownPoints

SECOND = 10 ** 9
K = np.array([[100.0, 0.0, 80.0], [0.0, 100.0, 60.0], [0.0, 0.0, 1.0]])
SIZE = (120, 160)
CELLS = 8 * 10  # of 16 px


def at(x: float = 0.0, z: float = 0.0, turn: float = 0.0) -> np.ndarray:
    """Return the pose of a camera that looks along z; turned to the right by an angle, rad."""
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    pose[:3, 3] = x, 0.0, z
    return pose


def anchors(*pixels: tuple[int, int, float], seconds: float = 0.0, sigma_log=None) -> Anchors:
    """Return anchors of (row, column, depth)."""
    rows, columns, depth_m = zip(*pixels)
    return Anchors(np.array(rows), np.array(columns), np.array(depth_m, np.float32),
                   round(seconds * SECOND), sigma_log)


class Held:
    """Hold anchors of frames at a time."""

    def __init__(self):
        self.all = HeldAnchors()

    def update(self, new=None, pose=at(), seconds: float = 0.0):
        return self.all.update(new, K, pose, round(seconds * SECOND), SIZE)


def listed(found: Anchors) -> list[tuple[int, int, float]]:
    return list(zip(found.rows.tolist(), found.columns.tolist(),
                    found.depth_m.round(4).tolist()))


@pytest.mark.parametrize('pose, expected', [
    (at(), (70, 90, 2.0)),  # the point lies 0.2 m to the right, 0.2 m down and 2 m ahead
    (at(z=1.0), (80, 100, 1.0)), (at(x=0.2), (70, 80, 2.0)), (at(x=-0.2), (70, 100, 2.0)),
    # At a turn by 0.1 rad, x = 0.2 cos - 2 sin = -0.0007 and z = 2 cos + 0.2 sin = 2.01.
    (at(turn=0.1), (70, 80, 2.01))])
def test_a_held_point_moves_with_the_pose_to_its_pixel_and_depth(pose, expected):
    held = Held()
    held.update(anchors((70, 90, 2.0)))
    row, column, depth_m = expected
    (found_row, found_column, found_m), = listed(held.update(pose=pose, seconds=0.1))
    assert (found_row, found_column) == (row, column)
    assert found_m == pytest.approx(depth_m, abs=1e-4)


def test_a_point_out_of_the_image_or_behind_the_camera_is_forgotten():
    for pose in (at(x=5.0), at(z=3.0)):
        held = Held()
        held.update(anchors((70, 90, 2.0)))
        assert held.update(pose=pose, seconds=0.1) is None
        assert held.update(seconds=0.2) is None


def test_anchors_of_a_frame_replace_held_ones_in_their_cell_only():
    held = Held()
    held.update(anchors((60, 80, 2.0), (20, 20, 4.0)))
    found = held.update(anchors((61, 82, 3.0), seconds=0.5), seconds=0.5)
    assert listed(found) == [(61, 82, 3.0), (20, 20, 4.0)]
    assert found.stamp_ns == SECOND // 2
    assert sorted(listed(held.update(seconds=0.6))) == [(20, 20, 4.0), (61, 82, 3.0)]


def test_points_that_nearer_ones_hide_are_not_visible():
    points = KnownPoints(np.array([[0.0, 0.0, 1.0], [0.02, 0.0, 2.0], [0.5, 0.0, 2.0]]),
                         np.zeros(3), np.zeros(3, np.int64))
    found, visible, in_image = points.find_visible(K, at(), 0, SIZE)
    assert listed(found) == [(60, 80, 1.0), (60, 105, 2.0)]
    assert visible.tolist() == [0, 2] and in_image.all()


def test_points_that_were_never_measured_are_not_visible():
    points = KnownPoints.unknown(2).joined(KnownPoints(np.array([[0.0, 0.0, 1.0]]), np.zeros(1),
                                                       np.zeros(1, np.int64)))
    found, visible, in_image = points.find_visible(K, at(), 0, SIZE)
    assert visible.tolist() == [2] and in_image.tolist() == [False, False, True]
    assert len(found) == 1


@pytest.mark.parametrize('sigma_log, seconds, grown', [
    (None, 1.0, 0.05), (None, 2.0, 0.1), (0.12, 1.0, 0.13), (0.12, 0.0, 0.12)])
def test_sigma_grows_by_5_percent_a_second_and_beyond_all_bounds_at_20_percent(sigma_log, seconds,
                                                                               grown):
    held = Held()
    held.update(anchors((60, 80, 2.0), sigma_log=None if sigma_log is None else np.array(
        [sigma_log], np.float32)))
    expected = grown / np.sqrt(1 - (grown / 0.2) ** 2)
    assert held.update(seconds=seconds).sigma_log == pytest.approx([expected])


@pytest.mark.parametrize('sigma_log, last_s', [(0.0, 3.9), (0.12, 3.1), (0.19, 1.1)])
def test_points_expire_by_their_sigma_and_not_later_than_after_4_s(sigma_log, last_s):
    held = Held()
    held.update(anchors((60, 80, 2.0), sigma_log=np.array([sigma_log], np.float32)))
    assert len(held.update(seconds=last_s)) == 1
    assert held.update(seconds=last_s + 0.2) is None


def test_nothing_is_held_in_a_frame_without_a_pose_and_the_points_come_back_with_it():
    held = Held()
    held.update(anchors((60, 80, 2.0)))
    assert held.update(pose=None, seconds=0.1) is None
    assert held.update(seconds=0.2).depth_m.tolist() == [2.0]


def test_without_poses_anchors_are_passed_through_and_not_held():
    held, one = Held(), anchors((60, 80, 2.0))
    assert held.update(one, pose=None) is one
    assert held.update(seconds=0.1) is None


def test_one_point_is_held_for_each_cell():
    """After two hundred frames at 10 Hz, each with 500 anchors."""
    held, rng = Held(), np.random.default_rng(0)
    for number in range(200):
        seconds = 0.1 * number
        new = Anchors(rng.integers(0, 120, 500), rng.integers(0, 160, 500),
                      rng.uniform(1.0, 4.0, 500).astype(np.float32), round(seconds * SECOND))
        found = held.update(new, at(), seconds)
        assert len(held.all._known.points) <= CELLS
        assert len(found) <= 500 + CELLS


def test_memory_stays_bounded_where_held_points_come_together():
    """One new anchor a frame while the camera moves back: what is old expires."""
    held = Held()
    for number in range(200):
        held.update(anchors((5, 5 + number % 150, 2.0), seconds=0.1 * number),
                    at(z=-0.05 * number), 0.1 * number)
        assert len(held.all._known.points) <= 31
