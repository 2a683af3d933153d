"""How steady depth is: TAE, flicker with and without poses, and the fit of the first frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marigold_ros.data.frames import DepthFrame
from marigold_ros.evaluation.metrics.covisibility import flicker, unchanged
from marigold_ros.evaluation.metrics.temporal import temporal_alignment_error, TemporalFollower

K = np.array([[40.0, 0.0, 16.0], [0.0, 40.0, 12.0], [0.0, 0.0, 1.0]])
SHAPE = (24, 32)


def motion(z_m):
    """Pose of a camera that has driven z_m ahead."""
    matrix = np.eye(4)
    matrix[2, 3] = z_m
    return matrix


def room(depth_m, z_m=None, brightness=90, set_name='room'):
    """Return a frame of a wall that rises from depth_m to twice as far on the right half."""
    map_m = np.full(SHAPE, depth_m, np.float32)
    map_m[:, 16:] *= 2
    return DepthFrame('room', np.full((*SHAPE, 3), brightness, np.uint8), map_m, map_m > 0,
                      set_name, K=None if z_m is None else K,
                      world_from_camera=None if z_m is None else motion(z_m))


def test_a_standing_camera_has_the_relative_error_of_its_two_predictions_both_ways():
    error = temporal_alignment_error(np.full(SHAPE, 2.0), np.full(SHAPE, 2.5), K, np.eye(4))
    assert error == pytest.approx((0.5 / 2.0 + 0.5 / 2.5) / 2)


def test_driving_towards_a_wall_is_no_error_but_a_wall_that_stands_still_is():
    ahead = motion(0.5)    # the camera stands 0.5 m ahead of where it stood
    assert temporal_alignment_error(np.full(SHAPE, 2.0), np.full(SHAPE, 2.5), K, ahead) == (
        pytest.approx(0.0, abs=1e-6))
    # 2.5 m becomes 2 m seen from here, and 3 m seen from there.
    assert temporal_alignment_error(np.full(SHAPE, 2.5), np.full(SHAPE, 2.5), K, ahead) == (
        pytest.approx(0.5 / 2.5))


def test_without_a_common_view_there_is_no_error_to_tell():
    behind = motion(9.0)
    assert np.isnan(temporal_alignment_error(np.full(SHAPE, 2.0), np.full(SHAPE, 2.0), K, behind))


def test_the_first_frame_of_a_sequence_tells_nothing_of_time():
    found = TemporalFollower().add(room(2.0).depth_m, room(2.0, z_m=0.0))
    assert np.isnan([found.tae, found.flicker, found.flicker_aligned]).all()
    assert (found.first_fit_abs_rel, found.first_fit_delta1) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert found.protocol == 'A'


def test_a_jump_of_the_scale_counts_with_the_first_fit_and_not_with_one_a_frame():
    follower = TemporalFollower()
    frame = room(2.0, z_m=0.0)
    follower.add(frame.depth_m, frame)
    found = follower.add(1.1 * frame.depth_m, frame)    # the same view, 10 % farther
    assert found.flicker == pytest.approx(0.1, abs=1e-6)
    assert found.flicker_aligned == pytest.approx(0.0, abs=1e-6)
    assert found.first_fit_abs_rel == pytest.approx(0.1, abs=1e-6)
    assert found.tae == pytest.approx((0.1 / 1.1 + 0.1) / 2, abs=1e-6)


def test_a_drive_whose_depth_is_right_does_not_flicker():
    follower = TemporalFollower()
    wall = [np.full(SHAPE, 4.0 - z_m, np.float32) for z_m in (0.0, 0.2, 0.4)]
    for z_m, map_m in zip((0.0, 0.2, 0.4), wall):
        frame = replace(room(1.0, z_m=z_m), depth_m=map_m)
        found = follower.add(map_m, frame)
    # Of all fits to a flat wall at 4 m the one of least norm is taken, 16/17 and 4/17 m; it makes
    # 3.6 m too far by 0.4/17.
    assert found.flicker_aligned == pytest.approx(0.0, abs=1e-5)
    assert found.first_fit_abs_rel == pytest.approx(0.4 / 17 / 3.6, abs=1e-5)


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
    assert np.isnan(found.tae)
    assert found.flicker == pytest.approx(0.1, abs=1e-6)


def test_sequences_do_not_know_of_each_other():
    follower = TemporalFollower()
    follower.add(room(2.0).depth_m, room(2.0, set_name='a'))
    other = follower.add(3 * room(2.0).depth_m, room(2.0, set_name='b'))
    assert np.isnan(other.flicker)
    assert other.first_fit_abs_rel == pytest.approx(0.0, abs=1e-6)


def test_metric_depth_is_followed_as_it_is():
    follower = TemporalFollower(protocol='metric')
    found = follower.add(1.5 * room(2.0).depth_m, room(2.0))
    assert (found.protocol, found.first_fit_abs_rel) == ('metric', pytest.approx(0.5))
