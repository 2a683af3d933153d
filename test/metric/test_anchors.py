"""Anchors: projection of another sensor's points into the image, and invalid input."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import optical_from_sensor, parse_extrinsics
from marigold_ros.metric.anchors import (
    Anchors,
    anchors_from_depth,
    anchors_from_points,
    MAX_ANCHORS,
)

K = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
SIZE = (120, 160)


def test_a_point_projects_onto_its_pixel_with_its_depth():
    points = np.array([[[0.2, -0.1, 2.0], [0.0, 0.0, -1.0], [9.0, 0.0, 1.0],
                        [np.nan, 0.0, 1.0]]], np.float32)
    anchors = anchors_from_points(points, np.eye(4), K, SIZE, 7)
    # u = 100 * 0.2 / 2 + 80, v = 100 * -0.1 / 2 + 60
    assert (anchors.columns.tolist(), anchors.rows.tolist()) == ([90], [55])
    assert (anchors.depth_m.tolist(), anchors.stamp_ns) == ([2.0], 7)


def test_a_lidar_in_body_axes_is_rotated_to_optical_axes():
    # The lidar stands 0.3 m above and 0.1 m behind the camera, looking the same way.
    camera_from_lidar = optical_from_sensor(parse_extrinsics('-0.1 0 0.3 0 0 0'), False)
    ahead_left = np.array([[2.1, 0.5, -0.3]], np.float32)  # x forward, y left, z up
    anchors = anchors_from_points(ahead_left, camera_from_lidar, K, SIZE)
    # In the camera's body frame (2.0, 0.5, 0.0): 2 m ahead, 0.5 m left.
    assert (anchors.columns.tolist(), anchors.rows.tolist()) == ([55], [60])
    assert anchors.depth_m.tolist() == pytest.approx([2.0])


def test_another_cameras_depth_is_projected_with_its_own_k():
    # 40 x 30 px of the same view, 0.1 m to the right; a wall 2 m ahead.
    small = np.array([[25.0, 0, 19.625], [0, 25, 14.625], [0, 0, 1]])
    camera_from_reference = np.eye(4)
    camera_from_reference[0, 3] = 0.1
    anchors = anchors_from_depth(np.full((30, 40), 2.0, np.float32), small,
                                 camera_from_reference, K, SIZE)
    assert set(anchors.depth_m) == {2.0}
    # Its first column sees x = (0 - 19.625) / 25 * 2 + 0.1 = -1.47: u = 100 * -1.47 / 2 + 80
    assert (anchors.columns.min(), anchors.rows.min()) == (6, 2)
    assert anchors.coverage(SIZE) > 0.9


def test_invalid_pixels_of_a_depth_image_are_ignored():
    depth_m = np.full(SIZE, np.nan, np.float32)
    with pytest.raises(InputError, match='no finite pixel'):
        anchors_from_depth(depth_m, K, np.eye(4), K, SIZE)
    depth_m[60, 80] = depth_m[61:70, 81:90] = 1.5
    assert set(anchors_from_depth(depth_m, K, np.eye(4), K, SIZE).depth_m) == {1.5}


def test_a_large_depth_image_is_subsampled_evenly():
    big = np.array([[400.0, 0, 320], [0, 400, 240], [0, 0, 1]])
    anchors = anchors_from_depth(np.full((480, 640), 2.0, np.float32), big, np.eye(4), K, SIZE)
    assert len(anchors.depth_m) <= MAX_ANCHORS
    assert anchors.coverage(SIZE) == 1.0


def test_points_that_are_occluded_for_the_camera_are_removed():
    near = np.array([[x, 0.0, 1.0] for x in np.linspace(-0.01, 0.01, 5)], np.float32)
    far = np.array([[0.1, 0.0, 5.0]], np.float32)  # u = 82, in the same cell
    apart = np.eye(4)
    apart[1, 3] = 0.02
    anchors = anchors_from_points(np.concatenate([near, far]), apart, K, SIZE)
    assert anchors.depth_m.max() < 1.1
    together = anchors_from_points(np.concatenate([near, far]), np.eye(4), K, SIZE)
    assert together.depth_m.max() == 5.0  # without a baseline nothing is occluded


@pytest.mark.parametrize('baseline_m', [0.0, 0.5])
def test_points_on_one_pixel_count_once_as_the_nearest(baseline_m):
    # 300 copies of one point, 300 behind it, and a wall 4 m ahead on every 20th row and column.
    rows, columns = (each.ravel() for each in np.mgrid[:120:20, :160:20])
    wall = np.stack([(columns - 80) / 25, (rows - 60) / 25, np.full(48, 4.0)], axis=-1)
    copies = np.repeat([[0.05, 0.05, 0.65], [0.1, 0.1, 1.3]], 300, axis=0)
    apart = np.eye(4)
    apart[0, 3] = baseline_m
    points = np.concatenate([copies, wall]).astype(np.float32) - apart[:3, 3].astype(np.float32)
    anchors = anchors_from_points(points, apart, K, SIZE)
    # u = 100 * 0.05 / 0.65 + 80
    assert (anchors.columns[0], anchors.rows[0]) == (88, 68)
    assert np.unique(anchors.rows * 160 + anchors.columns).size == len(anchors.depth_m)
    np.testing.assert_allclose(anchors.depth_m[0], 0.65, rtol=1e-6)
    assert anchors.depth_m.tolist()[1:] == [4.0] * 48


@pytest.mark.parametrize(('points', 'message'), [
    (np.zeros((0, 3), np.float32), 'no measured point'),
    (np.full((4, 3), np.nan, np.float32), 'no measured point'),
    (np.array([[0.0, 0.0, -2.0]], np.float32), "projects into the camera's image"),
    (np.zeros((4, 2), np.float32), r'shape \[..., 3\]; got \(4, 2\)'),
])
def test_points_without_any_anchor_are_rejected(points, message):
    with pytest.raises(InputError, match=message):
        anchors_from_points(points, np.eye(4), K, SIZE)


def test_joined_anchors_have_the_newer_time_and_a_sigma_if_one_has_it():
    one = Anchors(np.array([1]), np.array([2]), np.array([3.0], np.float32), 7)
    two = Anchors(np.array([4, 5]), np.array([6, 7]), np.array([8.0, 9.0], np.float32), 5,
                  np.array([0.1, 0.2], np.float32))
    for joined, sigma_log in ((one.joined(two), [0.0, 0.1, 0.2]), (two.joined(one),
                                                                   [0.1, 0.2, 0.0])):
        assert len(joined) == 3 and joined.stamp_ns == 7
        assert joined.sigma_log == pytest.approx(sigma_log)
    assert one.joined(two).depth_m.tolist() == [3.0, 8.0, 9.0]
    assert one.joined(one).sigma_log is None


def test_selected_anchors_keep_time_and_sigma():
    anchors = Anchors(np.arange(3), np.arange(3, 6), np.ones(3, np.float32), 7,
                      np.array([0.1, 0.2, 0.3], np.float32))
    for chosen in (np.array([False, True, True]), np.array([1, 2])):
        found = anchors.select(chosen)
        assert (found.rows.tolist(), found.columns.tolist(), found.stamp_ns) == ([1, 2], [4, 5], 7)
        assert found.sigma_log == pytest.approx([0.2, 0.3])
