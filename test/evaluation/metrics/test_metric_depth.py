"""Metric depth without alignment, on a floor and a wall whose depth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import DepthPrediction, StageTiming
from marigold_ros.evaluation.metrics.metric_depth import (
    MetricDepthEvaluator,
    MetricFrameResult,
    recovery_time_s,
)
from marigold_ros.evaluation.references import FrameReference
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.filter import FilterConfig
from marigold_ros.metric.types import TransformTilt

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
TILTED = ScaleConfig(('ground_plane',), camera_height_m=HEIGHT_M)
FIXED = ScaleConfig(('fixed',), NEAR_M, FAR_M)


def frame(number=0, depth_m=DEPTH_M):
    """Return a frame of the scene; frames are 0.1 s apart."""
    return DepthFrame(str(number), np.zeros((*SHAPE, 3), np.uint8), depth_m, ~np.isnan(depth_m),
                      'camera', stamp_ns=number * 10 ** 8, K=K, world_from_camera=np.eye(4))


def reference(number=0, factor=1.0, **changes):
    """Return a reference that measures every pixel, wrong by a factor."""
    stamp_ns = number * 10 ** 8
    anchors = Anchors(ROWS.ravel(), COLUMNS.ravel(), factor * DEPTH_M.ravel(), stamp_ns)
    return replace(FrameReference(stamp_ns, K, {'depth': anchors}, {},
                                  TransformTilt(0.0, 0.0, stamp_ns), MOUNT), **changes)


def evaluate(config, references, relative=RELATIVE):
    """Score identical frames."""
    evaluator = MetricDepthEvaluator(config)
    for number, each in enumerate(references):
        evaluator.add(frame(number), prediction(relative), each)
    return evaluator


def prediction(relative, covered=None):
    """Return a prediction of a run, or one that is carried."""
    return DepthPrediction(relative, None, None, None, int(covered is None), 'schedule',
                           StageTiming(0.0, 0.0, 0.0, 0.0, 0.0), covered)


def test_what_carried_depth_does_not_cover_is_compared_but_not_published():
    """The left half is not covered, and its neighbours' depth is 30 % too far."""
    relative, covered = RELATIVE.copy(), np.ones(SHAPE, bool)
    covered[:, :40] = False
    relative[~covered] = (1.3 * DEPTH_M[~covered] - NEAR_M) / (FAR_M - NEAR_M)
    evaluator = MetricDepthEvaluator(FIXED)
    scale = evaluator.add(frame(), prediction(relative, covered), reference())
    assert (scale.scale, scale.shift) == (FAR_M - NEAR_M, NEAR_M)
    assert evaluator.mean('published_share') == pytest.approx(0.5, abs=0.02)
    assert evaluator.mean('abs_rel') == pytest.approx(0.15, abs=0.02)


def test_the_temporal_error_is_that_of_metric_depth_in_a_moving_camera():
    """The camera moves 0.5 m towards a wall; the second prediction does not see it come nearer."""
    evaluator = MetricDepthEvaluator(ScaleConfig(('fixed',), 0.5, 2.5))
    for number, position_m in enumerate((0.0, 0.5)):
        at = frame(number, np.full(SHAPE, 2.5 - position_m, np.float32))
        at.world_from_camera[2, 3] = position_m
        evaluator.add(at, prediction(np.ones(SHAPE, np.float32)), reference(number))
    assert np.isnan(evaluator.column('tae')[0])
    assert evaluator.column('tae')[1] == pytest.approx((0.5 / 2.0 + 0.5 / 3.0) / 2, abs=0.01)


@pytest.mark.parametrize('config', [ScaleConfig(('depth',)), TILTED])
def test_true_relative_depth_becomes_true_metric_depth(config):
    found = evaluate(config, [reference(number) for number in range(20)]).summary()
    assert (found['frames'], found['frames_with_metric_depth']) == (20, 20)
    assert found['abs_rel'] < 0.02 and found['floor_error'] < 0.02 and found['delta1'] == 1.0
    assert found['jitter'] < 1e-3
    assert (found['outages'], found['most_frequent_problem']) == (0, None)
    assert found['states'] == {'tracking': 20}
    assert np.isnan(found['recovery_s'])


def test_a_wrong_camera_height_scales_all_errors():
    found = evaluate(replace(TILTED, camera_height_m=0.6), [reference()]).summary()
    assert found['floor_error'] == pytest.approx(0.2, abs=0.02)
    assert found['abs_rel'] == pytest.approx(0.2, abs=0.02)


def test_metric_depth_is_compared_without_alignment():
    found = evaluate(ScaleConfig(('fixed',), 1.1 * NEAR_M, 1.1 * FAR_M), [reference()]).summary()
    assert found['abs_rel'] == pytest.approx(0.1, abs=1e-5)
    assert found['rmse'] == pytest.approx(0.1 * np.sqrt(np.mean(DEPTH_M ** 2)), rel=1e-5)


def test_unpublished_pixels_are_counted_but_not_compared():
    unknown = RELATIVE.copy()
    unknown[:15] = np.nan    # a quarter of the image, wall only
    found = evaluate(FIXED, [reference()], unknown).summary()
    assert found['published_share'] == pytest.approx(0.75)
    assert found['abs_rel'] == pytest.approx(0.0, abs=1e-5)


def test_predictions_beyond_the_range_are_clipped():
    # 25 m is published as +Inf, and counts as 20 m.
    far = np.where(RELATIVE == 1.0, 1.0, RELATIVE * 4.4 / 24.4).astype(np.float32)
    found = evaluate(ScaleConfig(('fixed',), NEAR_M, 25.0), [reference()], far).summary()
    wall = np.mean(DEPTH_M == FAR_M)
    assert found['abs_rel'] == pytest.approx(wall * (20.0 - FAR_M) / FAR_M, rel=1e-4)


def test_truth_of_half_the_size_is_resized():
    evaluator = MetricDepthEvaluator(FIXED)
    evaluator.add(frame(depth_m=np.full((30, 40), FAR_M, np.float32)),
                  prediction(np.ones(SHAPE, np.float32)), reference())
    assert evaluator.summary()['abs_rel'] == pytest.approx(0.0, abs=1e-6)
    assert evaluator.frames[0].values['published_share'] == 1.0


def test_without_a_reference_there_is_no_metric_depth():
    found = evaluate(ScaleConfig(('cloud',)), [reference(0, anchors={})] * 3).summary()
    assert (found['frames_with_metric_depth'], found['share_with_metric_depth']) == (0, 0.0)
    assert np.isnan([found[name] for name in ('abs_rel', 'jitter', 'floor_error')]).all()
    assert found['states'] == {'waiting': 3}


def test_the_most_frequent_scale_problem_is_reported():
    found = evaluate(ScaleConfig(('cloud',)), [
        reference(0, anchors={}, problems={'cloud': InputError('no transform')}),
        reference(1, anchors={}, problems={'cloud': InputError('no transform')}),
        reference(2, anchors={}, problems={'cloud': InputError('frozen')})]).summary()
    assert (found['most_frequent_problem'], found['states']) == ('no transform', {'rejected': 3})


def test_jitter_is_the_change_of_the_median_ratio_of_metric_depth_to_the_truth():
    """The second and the third prediction are 10 % too far, whatever the scale does."""
    evaluator = MetricDepthEvaluator(FIXED)
    for number, factor in enumerate((1.0, 1.1, 1.1)):
        far = ((factor * DEPTH_M - NEAR_M) / (FAR_M - NEAR_M)).astype(np.float32)
        evaluator.add(frame(number), prediction(far), reference(number))
    found = evaluator.summary()
    assert found['jitter'] == pytest.approx(np.log(1.1) / 2, rel=1e-3)
    assert found['largest_step'] == pytest.approx(np.log(1.1), rel=1e-3)


def test_the_scale_follows_its_reference_at_a_limited_rate():
    references = [reference(0), reference(1, factor=1.02), reference(2, factor=1.02)]
    evaluator = evaluate(ScaleConfig(('depth',)), references)
    mid_depths_m = np.array([each.mid_depth_m for each in evaluator.frames])
    assert mid_depths_m[0] == pytest.approx((NEAR_M + FAR_M) / 2, rel=0.01)
    assert (np.diff(mid_depths_m) > 0).all() and mid_depths_m[2] < 1.02 * mid_depths_m[0]


def test_metric_depth_is_corrected_by_the_anchors():
    """The right half is predicted 15 % too far."""
    wrong_m = np.where(COLUMNS < 40, 1.0, 1.15) * DEPTH_M
    relative = ((wrong_m - NEAR_M) / (FAR_M - NEAR_M)).astype(np.float32)
    without = evaluate(FIXED, [reference()], relative).summary()
    found = evaluate(ScaleConfig(('depth',)), [reference()], relative).summary()
    assert without['abs_rel'] == pytest.approx(0.075, abs=0.005)
    assert found['abs_rel'] < 0.02


def test_the_states_of_each_source_are_counted():
    anchors = reference().anchors['depth']
    evaluator = evaluate(ScaleConfig(('depth', 'cloud')), [
        reference(0), reference(1), reference(2, anchors={'cloud': anchors, 'depth': anchors}),
        reference(3, problems={'cloud': InputError('frozen')})])
    assert evaluator.summary()['source_states'] == {
        'depth': {'used': 4}, 'cloud': {'waiting': 2, 'used': 1, 'rejected': 1}}
    assert evaluator.frames[3].sources == {'depth': 'used', 'cloud': 'rejected'}
    assert evaluator.frames[3].detail == 'cloud: frozen'


class Scores:
    """Stand in for ObstacleScorer; records what it is given."""

    def __init__(self):
        self.given = []

    def add(self, target_m, K, map_from_camera, points, stride, *others):
        self.given.append((points is not None, [each.tolist() for each in others]))

    def scores(self):
        return {'given': self.given}


def test_the_costmap_of_a_sensor_itself_is_scored_alone_and_with_the_cloud():
    """In the second frame the lidar sees nothing."""
    one = Anchors(np.array([30]), np.array([60]), np.array([2.0], np.float32))
    evaluator = MetricDepthEvaluator(ScaleConfig(('depth', 'cloud')), Scores())
    for number, more in ((0, {'cloud': one}), (1, {})):
        evaluator.add(frame(number), prediction(RELATIVE),
                      reference(number, anchors=reference(number).anchors | more))
    # ((60 - 39.5) / 40, (30 - 29.5) / 40, 1) * 2 m
    point = [[pytest.approx(1.025), pytest.approx(0.025), 2.0]]
    found = evaluator.summary()
    assert found['obstacles']['given'] == [(True, []), (True, [])]
    assert found['sensors']['cloud']['alone'] == {'given': [(False, [point]), (False, [])]}
    assert found['sensors']['cloud']['with_cloud'] == {'given': [(True, [point]), (True, [])]}
    assert set(found['sensors']) == {'depth', 'cloud'}
    assert len(found['sensors']['depth']['alone']['given'][1][1][0]) == 60 * 80


def test_sources_that_are_no_sensors_have_no_costmap():
    evaluator = MetricDepthEvaluator(TILTED, Scores())
    evaluator.add(frame(), prediction(RELATIVE), reference())
    assert evaluator.summary()['sensors'] == {}


def test_recovery_lasts_until_the_scale_is_correct_again():
    # 2 s without a reference, then one that is 30 % larger; the scale changes by 10 % per second.
    evaluator = evaluate(ScaleConfig(('depth',), filter=FilterConfig(max_change_per_s=0.1)), [
        *(reference(number) for number in range(10)),
        *(reference(number, anchors={}) for number in range(10, 30)),
        *(reference(number, factor=1.3) for number in range(30, 90))])
    assert evaluator.outages() == [30]
    found = evaluator.summary()
    assert found['outages'] == 1
    assert found['states'] == {'tracking': 80, 'holding': 10}
    recovered = next(number for number, each in enumerate(evaluator.frames) if number >= 30
                     and abs(each.mid_depth_m / each.fit_mid_depth_m - 1) < 0.02)
    assert found['recovery_s'] == pytest.approx((recovered - 30) / 10)
    assert found['recovery_s'] > 0.5


@pytest.mark.parametrize(('mid_depths_m', 'expected'), [
    ((3.0, 2.1, 2.03, 2.5), 0.2), ((2.0, 9.0, 9.0, 9.0), 0.0), ((9.0, 9.0, 9.0, 9.0), np.nan)])
def test_a_scale_has_recovered_within_2_percent(mid_depths_m, expected):
    frames = [MetricFrameResult(number * 10 ** 8, '', '', True, mid_depth_m, 0.0, 0.0, {}, {})
              for number, mid_depth_m in enumerate((7.0, *mid_depths_m))]
    assert recovery_time_s(frames, 1, [2.0] * 5) == pytest.approx(expected, nan_ok=True)
