"""How steady depth is: surfaces seen twice, TAE, flicker, and the fit of the first frame."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.data.frames import DepthFrame
from marigold_ros.evaluation.metrics.temporal import (
    covisible,
    flicker,
    temporal_alignment_error,
    TemporalFollower,
    unchanged,
)

K = np.array([[40.0, 0.0, 16.0], [0.0, 40.0, 12.0], [0.0, 0.0, 1.0]])
SHAPE = (24, 32)
SMALL_K = np.array([[10.0, 0.0, 4.0], [0.0, 10.0, 3.0], [0.0, 0.0, 1.0]])
BAG = Path(__file__).parents[3] / 'sample' / 'living_room'


def motion(z_m=0.0, x_m=0.0):
    """Pose of a camera that has driven z_m ahead and x_m to the right."""
    matrix = np.eye(4)
    matrix[0, 3], matrix[2, 3] = x_m, z_m
    return matrix


def plane(depth_m):
    """Return a small wall across the whole view of `SMALL_K`."""
    return np.full((7, 9), depth_m, np.float32)


def room(depth_m, z_m=None, brightness=90, set_name='room'):
    """Return a frame of a wall that rises from depth_m to twice as far on the right half."""
    map_m = np.full(SHAPE, depth_m, np.float32)
    map_m[:, 16:] *= 2
    return DepthFrame('room', np.full((*SHAPE, 3), brightness, np.uint8), map_m, map_m > 0,
                      set_name, K=None if z_m is None else K,
                      world_from_camera=None if z_m is None else motion(z_m))


def test_a_standing_camera_sees_all_pixels_again():
    pixels = covisible(plane(2.0), plane(2.0), SMALL_K, motion())
    assert pixels.seen.all()
    np.testing.assert_allclose(pixels.u[2], np.arange(9), atol=1e-5)
    np.testing.assert_allclose(pixels.v[:, 5], np.arange(7), atol=1e-5)
    assert flicker(plane(2.0), plane(2.0), plane(2.0), pixels) == 0.0
    assert flicker(plane(2.2), plane(2.0), plane(2.0), pixels) == pytest.approx(0.1)


def test_flicker_follows_the_motion_of_the_camera():
    pixels = covisible(plane(2.0), plane(2.5), SMALL_K, motion(0.5))
    assert pixels.seen.all()
    assert flicker(plane(2.0), plane(2.5), plane(2.0), pixels) == pytest.approx(0.0, abs=1e-6)
    assert flicker(plane(2.5), plane(2.5), plane(2.0), pixels) == pytest.approx(0.5 / 2.0)


def test_a_step_to_the_right_leaves_the_border_unseen():
    # 10 px * 0.4 m / 2 m = 2 px
    pixels = covisible(plane(2.0), plane(2.0), SMALL_K, motion(x_m=0.4))
    assert pixels.seen[:, :7].all() and not pixels.seen[:, 7:].any()
    np.testing.assert_allclose(pixels.u[3], np.arange(9) + 2, atol=1e-5)


def test_a_turn_changes_depth_along_the_ray():
    """After a turn by 45 degrees the middle of the view meets the old wall aslant."""
    turn = np.eye(4)
    angle = np.radians(45.0)
    turn[0, 0] = turn[2, 2] = np.cos(angle)
    turn[0, 2], turn[2, 0] = np.sin(angle), -np.sin(angle)
    wide = np.array([[2.0, 0.0, 4.0], [0.0, 2.0, 3.0], [0.0, 0.0, 1.0]])
    # The wall 3 m ahead before: at the centre of the turned view it is 3 / cos 45 deg away.
    depth_m = plane(np.nan)
    depth_m[3, 4] = 3.0 / np.cos(angle)
    pixels = covisible(depth_m, plane(3.0), wide, turn)
    assert pixels.seen.sum() == 1
    assert pixels.u[3, 4] == pytest.approx(6.0, abs=1e-5)    # 2 px * tan 45 deg right of centre
    assert flicker(depth_m, plane(3.0), depth_m, pixels) == pytest.approx(0.0, abs=1e-6)


def test_what_stood_behind_something_does_not_count():
    before = plane(2.0)
    before[:, :3] = 1.0
    pixels = covisible(plane(2.0), before, SMALL_K, motion())
    assert not pixels.seen[:, :3].any() and pixels.seen[:, 3:].all()
    assert np.isnan(flicker(plane(2.0), plane(2.0), plane(2.0),
                            covisible(plane(2.0), plane(1.0), SMALL_K, motion())))


def test_tae_of_a_standing_camera_is_abs_rel_both_ways():
    error = temporal_alignment_error(np.full(SHAPE, 2.0), np.full(SHAPE, 2.5), K, np.eye(4))
    assert error == pytest.approx((0.5 / 2.0 + 0.5 / 2.5) / 2)


def test_tae_follows_the_motion_of_the_camera():
    ahead = motion(0.5)    # the camera stands 0.5 m ahead of where it stood
    assert temporal_alignment_error(np.full(SHAPE, 2.0), np.full(SHAPE, 2.5), K, ahead) == (
        pytest.approx(0.0, abs=1e-6))
    # 2.5 m becomes 2 m seen from here, and 3 m seen from there.
    assert temporal_alignment_error(np.full(SHAPE, 2.5), np.full(SHAPE, 2.5), K, ahead) == (
        pytest.approx(0.5 / 2.5))


def test_without_a_common_view_there_is_no_tae():
    behind = motion(9.0)
    assert np.isnan(temporal_alignment_error(np.full(SHAPE, 2.0), np.full(SHAPE, 2.0), K, behind))


def test_the_first_frame_tells_nothing_of_time():
    found = TemporalFollower().add(room(2.0).depth_m, room(2.0, z_m=0.0))
    assert np.isnan([found['tae'], found['flicker'], found['flicker_aligned']]).all()
    assert found['first_fit_abs_rel'] == pytest.approx(0.0, abs=1e-6)
    assert found['first_fit_delta1'] == 1.0


def test_a_jump_of_scale_counts_by_the_first_fit_alone():
    follower = TemporalFollower()
    frame = room(2.0, z_m=0.0)
    follower.add(frame.depth_m, frame)
    found = follower.add(1.1 * frame.depth_m, frame)    # the same view, 10 % farther
    assert found['flicker'] == pytest.approx(0.1, abs=1e-6)
    assert found['flicker_aligned'] == pytest.approx(0.0, abs=1e-6)
    assert found['first_fit_abs_rel'] == pytest.approx(0.1, abs=1e-6)
    assert found['tae'] == pytest.approx((0.1 / 1.1 + 0.1) / 2, abs=1e-6)


def test_a_drive_whose_depth_is_right_does_not_flicker():
    follower = TemporalFollower()
    wall = [np.full(SHAPE, 4.0 - z_m, np.float32) for z_m in (0.0, 0.2, 0.4)]
    for z_m, map_m in zip((0.0, 0.2, 0.4), wall):
        frame = replace(room(1.0, z_m=z_m), depth_m=map_m)
        found = follower.add(map_m, frame)
    # Of all fits to a flat wall at 4 m the one of least norm is taken, 16/17 and 4/17 m; it makes
    # 3.6 m too far by 0.4/17.
    assert found['flicker_aligned'] == pytest.approx(0.0, abs=1e-5)
    assert found['first_fit_abs_rel'] == pytest.approx(0.4 / 17 / 3.6, abs=1e-5)


def test_without_poses_flicker_counts_where_nothing_moved():
    before, now = room(2.0), room(2.0)
    now.depth_m[:12] *= 1.02    # 2 % nearer or farther is no standing surface
    now.rgb[:, 24:] += 9    # nor is what changes its brightness by 9 of 255
    pixels = unchanged(now.depth_m, before.depth_m, now.rgb, before.rgb)
    assert pixels.seen[12:, :24].all() and pixels.seen.sum() == 12 * 24
    assert flicker(1.25 * now.depth_m, now.depth_m, now.depth_m, pixels) == pytest.approx(0.25)


def test_a_follower_without_poses_has_flicker_and_no_tae():
    follower = TemporalFollower()
    follower.add(room(2.0).depth_m, room(2.0))
    found = follower.add(1.1 * room(2.0).depth_m, room(2.0))
    assert np.isnan(found['tae'])
    assert found['flicker'] == pytest.approx(0.1, abs=1e-6)


def test_sequences_do_not_know_of_each_other():
    follower = TemporalFollower()
    follower.add(room(2.0).depth_m, room(2.0, set_name='a'))
    other = follower.add(3 * room(2.0).depth_m, room(2.0, set_name='b'))
    assert np.isnan(other['flicker'])
    assert other['first_fit_abs_rel'] == pytest.approx(0.0, abs=1e-6)


def test_metric_depth_is_followed_as_it_is():
    follower = TemporalFollower(protocol='metric')
    found = follower.add(1.5 * room(2.0).depth_m, room(2.0))
    assert found['first_fit_abs_rel'] == pytest.approx(0.5)


def test_the_true_depth_of_the_sample_drive_hardly_flickers():
    """Poses, mounting and depth of the bag agree: a fifth of a % is left."""
    frames = list(islice(bag_data_set(BAG).frames(), 0, 30, 6))
    assert np.linalg.norm(frames[-1].world_from_camera[:3, 3]
                          - frames[0].world_from_camera[:3, 3]) > 0.3
    follower = TemporalFollower(protocol='metric')
    found = [follower.add(frame.depth_m, frame)['flicker'] for frame in frames]
    assert np.nanmean(found) < 5e-3
