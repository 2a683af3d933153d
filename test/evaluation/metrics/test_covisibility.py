"""Flicker: reprojection between hand-made planes, the fit over a sequence, and the sample bag."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import flicker as module
from benchmarks.flicker import at_stride, read_drive, score_sequence, STARTS
from marigold_ros.data.frames import DepthFrame
from marigold_ros.evaluation.metrics.covisibility import covisible, flicker

BAG = Path(__file__).parents[3] / 'sample' / 'living_room'
K = np.array([[10.0, 0.0, 4.0], [0.0, 10.0, 3.0], [0.0, 0.0, 1.0]])
SHAPE = (7, 9)


def wall(depth_m):
    return np.full(SHAPE, depth_m, np.float32)


def motion(x=0.0, y=0.0, z=0.0):
    """Pose in which the camera stands x m to the right, y m down and z m ahead of the last."""
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def test_a_standing_camera_sees_all_pixels_where_they_were():
    pixels = covisible(wall(2.0), wall(2.0), K, motion())
    assert pixels.seen.all()
    np.testing.assert_allclose(pixels.u[2], np.arange(9), atol=1e-5)
    np.testing.assert_allclose(pixels.v[:, 5], np.arange(7), atol=1e-5)
    assert flicker(wall(2.0), wall(2.0), wall(2.0), pixels) == 0.0
    assert flicker(wall(2.2), wall(2.0), wall(2.0), pixels) == pytest.approx(0.1)


def test_driving_towards_a_wall_is_no_flicker_but_a_depth_that_stands_still_is():
    pixels = covisible(wall(2.0), wall(2.5), K, motion(z=0.5))
    assert pixels.seen.all()
    assert flicker(wall(2.0), wall(2.5), wall(2.0), pixels) == pytest.approx(0.0, abs=1e-6)
    assert flicker(wall(2.5), wall(2.5), wall(2.0), pixels) == pytest.approx(0.5 / 2.0)


def test_a_step_to_the_right_shifts_the_pixels_and_leaves_the_border_unseen():
    pixels = covisible(wall(2.0), wall(2.0), K, motion(x=0.4))     # 10 px * 0.4 m / 2 m = 2 px
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
    depth_m = wall(np.nan)
    depth_m[3, 4] = 3.0 / np.cos(angle)
    pixels = covisible(depth_m, wall(3.0), wide, turn)
    assert pixels.seen.sum() == 1
    assert pixels.u[3, 4] == pytest.approx(6.0, abs=1e-5)    # 2 px * tan 45 deg right of centre
    assert flicker(depth_m, wall(3.0), depth_m, pixels) == pytest.approx(0.0, abs=1e-6)


def test_what_stood_behind_something_does_not_count():
    before = wall(2.0)
    before[:, :3] = 1.0
    pixels = covisible(wall(2.0), before, K, motion())
    assert not pixels.seen[:, :3].any() and pixels.seen[:, 3:].all()
    assert np.isnan(flicker(wall(2.0), wall(2.0), wall(2.0),
                            covisible(wall(2.0), wall(1.0), K, motion())))


def test_a_jump_of_the_shift_counts_with_one_fit_and_vanishes_with_a_fit_per_frame():
    depth_m = wall(1.0)
    depth_m[3:] = 3.0
    depth_m = depth_m[:6]    # as many pixels at 1 m as at 3 m
    whole_m = np.repeat(np.repeat(depth_m, 4, axis=0), 4, axis=1)
    frame = DepthFrame('wall', np.zeros((24, 36, 3), np.uint8), whole_m, whole_m > 0,
                       K=np.diag([4.0, 4.0, 1.0]) @ K, world_from_camera=motion())
    score = score_sequence([depth_m, depth_m + 1.0], [frame, frame])
    # Predictions 1, 3, 2, 4 of 1, 3, 1, 3 m: slope (1.5 + .5 + .5 + 1.5) / 5 = 0.8, so the second
    # frame lies 0.8 m above the first.
    assert score.flicker == pytest.approx((0.8 / 1.0 + 0.8 / 3.0) / 2, abs=1e-6)
    # Shift 0: errors 0.2 / 1, 0.6 / 3; 0.6 / 1, 0.2 / 3.
    assert score.abs_rel_one_fit == pytest.approx((0.2 + 0.2 + 0.6 + 0.2 / 3) / 4, abs=1e-6)
    assert score.flicker_aligned == pytest.approx(0.0, abs=1e-6)
    assert score.abs_rel == pytest.approx(0.0, abs=1e-6)


def test_the_four_starts():
    noise, last = torch.full((1, 4, 2, 3), 1.0), torch.full((1, 4, 2, 3), 3.0)
    fresh, fixed, mixed, warm = STARTS.values()
    first, second = (fresh(number, noise, last)['latents'] for number in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(first, fresh(1, noise, last)['latents'])
    assert fixed(5, noise, last) == {'latents': noise}
    torch.testing.assert_close(mixed(5, noise, last)['latents'], torch.full((1, 4, 2, 3), 1.2))
    assert warm(5, noise, last) == {'latents': noise, 'warm_start': last}


def test_the_sample_drive_is_consistent_with_its_own_depth():
    """Poses, mounting and depth of the bag agree: its true depth flickers by a fifth of a %."""
    frames = list(islice(read_drive(BAG), 0, 30, 6))
    assert np.linalg.norm(frames[-1].world_from_camera[:3, 3]
                          - frames[0].world_from_camera[:3, 3]) > 0.3
    truths = [at_stride(frame.depth_m) for frame in frames]
    assert score_sequence(truths, frames).flicker < 5e-3


def test_a_missing_bag_is_an_error_in_words(capsys):
    assert module.main(['--bag', '/does/not/exist']) == 2
    assert 'does not exist' in capsys.readouterr().err
