"""Temporal consistency: covisible pixels, TAE, flicker, and the fit of the first frame."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.data.frames import DepthFrame
from marigold_ros.evaluation.metrics.protocols import FrameTruth, ScoredDepth
from marigold_ros.evaluation.metrics.temporal import (
    compute_flicker,
    find_covisible_pixels,
    find_static_pixels,
    temporal_alignment_error,
    TemporalEvaluator,
)

K = np.array([[40.0, 0.0, 16.0], [0.0, 40.0, 12.0], [0.0, 0.0, 1.0]])
SHAPE = (24, 32)
SMALL_K = np.array([[10.0, 0.0, 4.0], [0.0, 10.0, 3.0], [0.0, 0.0, 1.0]])
BAG = Path(__file__).parents[3] / 'sample' / 'living_room'


def motion(z_m=0.0, x_m=0.0):
    """Return the pose of a camera that has moved z_m forward and x_m to the right."""
    matrix = np.eye(4)
    matrix[0, 3], matrix[2, 3] = x_m, z_m
    return matrix


def plane(depth_m):
    """Return the depth map of a flat wall that fills the view of `SMALL_K`."""
    return np.full((7, 9), depth_m, np.float32)


def room(depth_m, z_m=None, brightness=90, set_name='room'):
    """Return a frame with depth_m in the left half and twice as much in the right half."""
    map_m = np.full(SHAPE, depth_m, np.float32)
    map_m[:, 16:] *= 2
    return DepthFrame('room', np.full((*SHAPE, 3), brightness, np.uint8), map_m, map_m > 0,
                      set_name, K=None if z_m is None else K,
                      world_from_camera=None if z_m is None else motion(z_m))


def scored(depth, frame, protocol='A'):
    """Compare depth with the truth of a frame."""
    return ScoredDepth(FrameTruth(frame, Rules(), protocol), depth)


def test_a_static_camera_has_all_pixels_covisible():
    pixels = find_covisible_pixels(plane(2.0), plane(2.0), SMALL_K, motion())
    assert pixels.seen.all()
    np.testing.assert_allclose(pixels.u[2], np.arange(9), atol=1e-5)
    np.testing.assert_allclose(pixels.v[:, 5], np.arange(7), atol=1e-5)
    assert compute_flicker(plane(2.0), plane(2.0), plane(2.0), pixels) == 0.0
    assert compute_flicker(plane(2.2), plane(2.0), plane(2.0), pixels) == pytest.approx(0.1)


def test_flicker_compensates_the_camera_motion():
    pixels = find_covisible_pixels(plane(2.0), plane(2.5), SMALL_K, motion(0.5))
    assert pixels.seen.all()
    assert compute_flicker(plane(2.0), plane(2.5), plane(2.0), pixels) == pytest.approx(
        0.0, abs=1e-6)
    assert compute_flicker(plane(2.5), plane(2.5), plane(2.0), pixels) == pytest.approx(0.5 / 2.0)


def test_pixels_that_leave_the_view_are_not_covisible():
    # 10 px * 0.4 m / 2 m = 2 px
    pixels = find_covisible_pixels(plane(2.0), plane(2.0), SMALL_K, motion(x_m=0.4))
    assert pixels.seen[:, :7].all() and not pixels.seen[:, 7:].any()
    np.testing.assert_allclose(pixels.u[3], np.arange(9) + 2, atol=1e-5)


def test_flicker_compensates_a_rotation():
    """After a rotation by 45 degrees the image centre sees the wall at an angle."""
    turn = np.eye(4)
    angle = np.radians(45.0)
    turn[0, 0] = turn[2, 2] = np.cos(angle)
    turn[0, 2], turn[2, 0] = np.sin(angle), -np.sin(angle)
    wide = np.array([[2.0, 0.0, 4.0], [0.0, 2.0, 3.0], [0.0, 0.0, 1.0]])
    # The wall 3 m ahead before: at the centre of the turned view it is 3 / cos 45 deg away.
    depth_m = plane(np.nan)
    depth_m[3, 4] = 3.0 / np.cos(angle)
    pixels = find_covisible_pixels(depth_m, plane(3.0), wide, turn)
    assert pixels.seen.sum() == 1
    assert pixels.u[3, 4] == pytest.approx(6.0, abs=1e-5)    # 2 px * tan 45 deg right of centre
    assert compute_flicker(depth_m, plane(3.0), depth_m, pixels) == pytest.approx(0.0, abs=1e-6)


def test_occluded_pixels_are_not_covisible():
    before = plane(2.0)
    before[:, :3] = 1.0
    pixels = find_covisible_pixels(plane(2.0), before, SMALL_K, motion())
    assert not pixels.seen[:, :3].any() and pixels.seen[:, 3:].all()
    hidden = find_covisible_pixels(plane(2.0), plane(1.0), SMALL_K, motion())
    assert np.isnan(compute_flicker(plane(2.0), plane(2.0), plane(2.0), hidden))


def test_tae_of_a_static_camera_is_the_mean_abs_rel_of_both_directions():
    error = temporal_alignment_error(np.full(SHAPE, 2.0), np.full(SHAPE, 2.5), K, np.eye(4))
    assert error == pytest.approx((0.5 / 2.0 + 0.5 / 2.5) / 2)


def test_tae_compensates_the_camera_motion():
    ahead = motion(0.5)    # the camera stands 0.5 m ahead of where it stood
    assert temporal_alignment_error(np.full(SHAPE, 2.0), np.full(SHAPE, 2.5), K, ahead) == (
        pytest.approx(0.0, abs=1e-6))
    # 2.5 m becomes 2 m seen from here, and 3 m seen from there.
    assert temporal_alignment_error(np.full(SHAPE, 2.5), np.full(SHAPE, 2.5), K, ahead) == (
        pytest.approx(0.5 / 2.5))


def test_tae_is_nan_without_overlapping_views():
    behind = motion(9.0)
    assert np.isnan(temporal_alignment_error(np.full(SHAPE, 2.0), np.full(SHAPE, 2.0), K, behind))


def test_the_first_frame_has_no_temporal_scores():
    found = TemporalEvaluator().add(scored(room(2.0).depth_m, room(2.0, z_m=0.0)))
    assert np.isnan([found['tae'], found['flicker'], found['flicker_aligned']]).all()
    assert found['first_fit_abs_rel'] == pytest.approx(0.0, abs=1e-6)
    assert found['first_fit_delta1'] == 1.0


def test_a_scale_change_counts_with_the_first_fit_only():
    evaluator = TemporalEvaluator()
    frame = room(2.0, z_m=0.0)
    evaluator.add(scored(frame.depth_m, frame))
    found = evaluator.add(scored(1.1 * frame.depth_m, frame))    # the same view, 10 % farther
    assert found['flicker'] == pytest.approx(0.1, abs=1e-6)
    assert found['flicker_aligned'] == pytest.approx(0.0, abs=1e-6)
    assert found['first_fit_abs_rel'] == pytest.approx(0.1, abs=1e-6)
    assert found['tae'] == pytest.approx((0.1 / 1.1 + 0.1) / 2, abs=1e-6)


def test_correct_depth_of_a_moving_camera_does_not_flicker():
    evaluator = TemporalEvaluator()
    wall = [np.full(SHAPE, 4.0 - z_m, np.float32) for z_m in (0.0, 0.2, 0.4)]
    for z_m, map_m in zip((0.0, 0.2, 0.4), wall):
        frame = replace(room(1.0, z_m=z_m), depth_m=map_m)
        found = evaluator.add(scored(map_m, frame))
    # A flat wall at 4 m is fitted with least norm: scale 16/17 and shift 4/17 m, which makes
    # 3.6 m too far by 0.4/17 m.
    assert found['flicker_aligned'] == pytest.approx(0.0, abs=1e-5)
    assert found['first_fit_abs_rel'] == pytest.approx(0.4 / 17 / 3.6, abs=1e-5)


def test_flicker_without_poses_uses_static_pixels():
    before, now = room(2.0), room(2.0)
    now.depth_m[:12] *= 1.02    # a change of depth by 2 % is not static
    now.rgb[:, 24:] += 9    # nor is a change of brightness by 9 of 255
    pixels = find_static_pixels(now.depth_m, before.depth_m, now.rgb, before.rgb)
    assert pixels.seen[12:, :24].all() and pixels.seen.sum() == 12 * 24
    assert compute_flicker(1.25 * now.depth_m, now.depth_m, now.depth_m,
                           pixels) == pytest.approx(0.25)


def test_without_poses_flicker_is_known_and_tae_is_nan():
    evaluator = TemporalEvaluator()
    evaluator.add(scored(room(2.0).depth_m, room(2.0)))
    found = evaluator.add(scored(1.1 * room(2.0).depth_m, room(2.0)))
    assert np.isnan(found['tae'])
    assert found['flicker'] == pytest.approx(0.1, abs=1e-6)


def test_sequences_are_scored_independently():
    evaluator = TemporalEvaluator()
    evaluator.add(scored(room(2.0).depth_m, room(2.0, set_name='a')))
    other = evaluator.add(scored(3 * room(2.0).depth_m, room(2.0, set_name='b')))
    assert np.isnan(other['flicker'])
    assert other['first_fit_abs_rel'] == pytest.approx(0.0, abs=1e-6)


def test_metric_depth_is_not_aligned_over_time():
    evaluator = TemporalEvaluator()
    found = evaluator.add(scored(1.5 * room(2.0).depth_m, room(2.0), 'metric'))
    assert found['first_fit_abs_rel'] == pytest.approx(0.5)


def test_true_depth_of_the_sample_drive_has_little_flicker():
    """The poses, the camera mount and the depth of the bag are consistent to 0.2 %."""
    frames = list(islice(bag_data_set(BAG).frames(), 0, 30, 6))
    assert np.linalg.norm(frames[-1].world_from_camera[:3, 3]
                          - frames[0].world_from_camera[:3, 3]) > 0.3
    evaluator = TemporalEvaluator()
    found = [evaluator.add(scored(frame.depth_m, frame, 'metric'))['flicker'] for frame in frames]
    assert np.nanmean(found) < 5e-3
