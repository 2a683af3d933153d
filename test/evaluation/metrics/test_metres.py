"""Metric depth without alignment: a floor before a wall, whose metres are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marigold_ros.data.frames import DepthFrame
from marigold_ros.evaluation.metrics.metres import MetricFollower, MetricFrame, recovery_s
from marigold_ros.evaluation.references import FrameReference
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.config import ScaleConfig

K = np.array([[40.0, 0, 39.5], [0, 40, 29.5], [0, 0, 1]])
SHAPE = (60, 80)
HEIGHT_M, NEAR_M, FAR_M = 0.5, 0.6, 5.0
# A level optical frame 0.5 m above the robot's base.
MOUNT = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, HEIGHT_M],
                  [0.0, 0.0, 0.0, 1.0]])
ROWS, COLUMNS = np.mgrid[:60, :80]
FALL = (ROWS - K[1, 2]) / K[1, 1]
DEPTH_M = np.where(FALL > 0.1, HEIGHT_M / np.maximum(FALL, 1e-3), FAR_M).astype(np.float32)
RELATIVE = ((DEPTH_M - NEAR_M) / (FAR_M - NEAR_M)).astype(np.float32)
TILTED = ScaleConfig('ground_plane', camera_height_m=HEIGHT_M)
FIXED = ScaleConfig('fixed', NEAR_M, FAR_M)


def frame(number=0, depth_m=DEPTH_M):
    """Return one of ten frames a second of the same place."""
    return DepthFrame(str(number), np.zeros((*SHAPE, 3), np.uint8), depth_m, ~np.isnan(depth_m),
                      'camera', stamp_ns=number * 10 ** 8, K=K, world_from_camera=np.eye(4))


def reference(number=0, factor=1.0, **changes):
    """Say that a sensor has measured each pixel, by a factor wrong."""
    stamp_ns = number * 10 ** 8
    anchors = Anchors(ROWS.ravel(), COLUMNS.ravel(), factor * DEPTH_M.ravel(), stamp_ns)
    return replace(FrameReference(stamp_ns, K, anchors, '', (0.0, 0.0), MOUNT), **changes)


def follow(config, references, relative=RELATIVE):
    """Judge frames that all look alike."""
    follower = MetricFollower(config)
    for number, each in enumerate(references):
        follower.add(frame(number), relative, None, each)
    return follower


@pytest.mark.parametrize('config', [ScaleConfig('depth'), TILTED])
def test_true_relative_depth_becomes_true_metres(config):
    found = follow(config, [reference(number) for number in range(20)]).summary()
    assert (found['frames'], found['frames_with_metres']) == (20, 20)
    assert found['abs_rel'] < 0.02 and found['floor_error'] < 0.02 and found['delta1'] == 1.0
    assert found['jitter'] < 1e-3
    assert found['range'] == '0.1 to 20 m'
    assert (found['outages'], found['complaint'], found['states']) == (0, None, {'tracking': 20})
    assert np.isnan(found['recovery_s'])


def test_a_wrong_camera_height_makes_everything_as_wrong():
    found = follow(replace(TILTED, camera_height_m=0.6), [reference()]).summary()
    assert found['floor_error'] == pytest.approx(0.2, abs=0.02)
    assert found['abs_rel'] == pytest.approx(0.2, abs=0.02)


def test_metres_are_compared_without_alignment():
    found = follow(ScaleConfig('fixed', 1.1 * NEAR_M, 1.1 * FAR_M), [reference()]).summary()
    assert found['abs_rel'] == pytest.approx(0.1, abs=1e-5)
    assert found['rmse'] == pytest.approx(0.1 * np.sqrt(np.mean(DEPTH_M ** 2)), rel=1e-5)


def test_what_is_not_published_is_counted_and_not_compared():
    unknown = RELATIVE.copy()
    unknown[:15] = np.nan    # a quarter, all of it wall
    found = follow(FIXED, [reference()], unknown).summary()
    assert found['published_share'] == pytest.approx(0.75)
    assert found['abs_rel'] == pytest.approx(0.0, abs=1e-5)


def test_beyond_the_range_the_prediction_counts_as_its_end():
    # 25 m is published as +Inf, and counts as 20 m.
    far = np.where(RELATIVE == 1.0, 1.0, RELATIVE * 4.4 / 24.4).astype(np.float32)
    found = follow(ScaleConfig('fixed', NEAR_M, 25.0), [reference()], far).summary()
    wall = np.mean(DEPTH_M == FAR_M)
    assert found['abs_rel'] == pytest.approx(wall * (20.0 - FAR_M) / FAR_M, rel=1e-4)


def test_truth_of_half_the_size_is_compared_as_well():
    follower = MetricFollower(FIXED)
    follower.add(frame(depth_m=np.full((30, 40), FAR_M, np.float32)),
                 np.ones(SHAPE, np.float32), None, reference())
    assert follower.summary()['abs_rel'] == pytest.approx(0.0, abs=1e-6)
    assert follower.frames[0].values['published_share'] == 1.0


def test_without_a_reference_no_metres_are_known():
    found = follow(ScaleConfig('cloud'), [reference(0, anchors=None)] * 3).summary()
    assert (found['frames_with_metres'], found['share_with_metres']) == (0, 0.0)
    assert np.isnan([found[name] for name in ('abs_rel', 'jitter', 'floor_error')]).all()
    assert found['states'] == {'waiting': 3}


def test_what_the_scale_complains_of_most_is_said():
    found = follow(ScaleConfig('cloud'), [
        reference(0, anchors=None, problem='no transform'),
        reference(1, anchors=None, problem='no transform'),
        reference(2, anchors=None, problem='frozen')]).summary()
    assert (found['complaint'], found['states']) == ('no transform', {'refused': 3})


def test_jitter_is_the_change_of_the_middle_depth():
    references = [reference(0), reference(1, factor=1.02), reference(2, factor=1.02)]
    follower = follow(ScaleConfig('depth'), references)
    middles = np.array([each.middle_m for each in follower.frames])
    steps = np.diff(np.log(middles))
    assert middles[0] == pytest.approx((NEAR_M + FAR_M) / 2, rel=0.01)
    assert (steps > 0).all()    # it follows, at its pace
    found = follower.summary()
    assert found['jitter'] == pytest.approx(steps.mean())
    assert found['largest_step'] == pytest.approx(steps.max())


def test_an_outage_lasts_until_the_scale_is_right_again():
    # 2 s without a reference, then one that says 30 % more: 10 % a second are allowed.
    follower = follow(ScaleConfig('depth'), [
        *(reference(number) for number in range(10)),
        *(reference(number, anchors=None) for number in range(10, 30)),
        *(reference(number, factor=1.3) for number in range(30, 60))])
    assert follower.outages() == [30]
    found = follower.summary()
    assert found['outages'] == 1
    assert found['states'] == {'tracking': 50, 'holding': 10}
    right = next(number for number, each in enumerate(follower.frames) if number >= 30
                 and abs(each.middle_m / each.fit_middle_m - 1) < 0.02)
    assert found['recovery_s'] == pytest.approx((right - 30) / 10)
    assert found['recovery_s'] > 0.5


@pytest.mark.parametrize(('middles', 'expected'), [
    ((3.0, 2.1, 2.03, 2.5), 0.2), ((2.0, 9.0, 9.0, 9.0), 0.0), ((9.0, 9.0, 9.0, 9.0), np.nan)])
def test_a_scale_has_recovered_within_2_percent(middles, expected):
    frames = [MetricFrame(number * 10 ** 8, '', '', True, middle, 0.0, {})
              for number, middle in enumerate((7.0, *middles))]
    assert recovery_s(frames, 1, [2.0] * 5) == pytest.approx(expected, nan_ok=True)
