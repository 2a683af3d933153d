"""Protocols: sizes, depth ranges, fits and labels."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.protocol_a import depth_metrics
from marigold_ros.evaluation.metrics.protocols import (
    abs_rel_label,
    format_depth_range,
    FrameTruth,
    mean_scores,
    score,
    Scores,
)


def truth(depth_m):
    """Return a frame with this true depth; NaN is not valid."""
    depth_m = np.asarray(depth_m, np.float32)
    return DepthFrame('truth', np.zeros((*depth_m.shape, 3), np.uint8), depth_m,
                      ~np.isnan(depth_m))


def test_a_prediction_is_compared_at_the_truths_size():
    depth_m = np.array([[1.0, 2.0], [3.0, np.nan]], np.float32)
    prediction = np.repeat(np.repeat([[0.1, 0.2], [0.3, 9.0]], 2, axis=0), 2, axis=1)
    assert score(prediction, truth(depth_m))['abs_rel'] == pytest.approx(0.0, abs=1e-6)


def test_the_range_extends_to_80_m_or_to_farther_measurements():
    # A flat prediction is fitted by the mean, so a pixel that did not count would show.
    for farthest_m, mean_m in ((50.0, 13.25), (200.0, 50.75)):
        depth_m = np.array([[1.0, 1.0, 1.0, farthest_m]], np.float32)
        expected = (3 * (mean_m - 1) + (farthest_m - mean_m) / farthest_m) / 4
        found = score(np.ones((1, 4)), truth(depth_m))
        assert found['abs_rel'] == pytest.approx(expected, rel=1e-6)


def test_a_prediction_beyond_the_range_is_clipped_to_it():
    # The fitted line is 19.5, 56.5, 56.5, 93.5 m; its end is clipped to 80 m.
    depth_m = np.array([[1.0, 75.0, 75.0, 75.0]], np.float32)
    expected = (18.5 + 2 * 18.5 / 75 + 5 / 75) / 4
    found = score(np.array([[0.0, 1.0, 1.0, 2.0]]), truth(depth_m))
    assert found['abs_rel'] == pytest.approx(expected)


def test_sky_counts_in_boundaries_only():
    depth_m = np.full((3, 3), np.inf, np.float32)
    depth_m[1, 1], depth_m[0, 0] = 1.0, 2.0
    prediction = np.where(np.isfinite(depth_m), depth_m / 10, 0.9)
    found = score(prediction, truth(depth_m))
    assert found['abs_rel'] == pytest.approx(0.0, abs=1e-6)
    assert found['boundary_f1'] == pytest.approx(1.0)    # 9 m behind 1 and 2 m


def test_a_frame_without_any_measurement_is_rejected():
    with pytest.raises(InputError, match='must have a valid pixel'):
        score(np.ones((2, 2)), truth(np.full((2, 2), np.nan)))


@pytest.mark.parametrize(('protocol', 'alignment'), [
    ('A', 'least_square'), ('A-disparity', 'least_square_disparity'), ('metric', None)])
def test_a_frame_is_scored_as_depth_metrics_scores_its_maps(protocol, alignment):
    rng = np.random.default_rng(4)
    depth_m = rng.uniform(0.2, 12.0, (12, 16)).astype(np.float32)
    depth_m[depth_m > 10] = np.nan    # a set's mask leaves out what its range does
    prediction = rng.random((12, 16)) - 0.1
    rules = Rules(min_depth_m=0.1, max_depth_m=10.0, extend_to_farthest=False)
    expected = depth_metrics(prediction, depth_m, ~np.isnan(depth_m), alignment=alignment,
                             min_depth_m=0.1, max_depth_m=10.0)
    found = score(prediction, truth(depth_m), rules, protocol)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(('protocol', 'rules', 'expected'), [
    ('A', Rules(), '0.001 to 80+ m'),
    ('A-disparity', Rules(1e-3, 10.0, extend_to_farthest=False), '0.001 to 10 m'),
    ('A', Rules(1e-5, np.inf, extend_to_farthest=False), 'above 0.00001 m'),
    ('metric', Rules(0.1, 20.0, extend_to_farthest=False), '0.1 to 20 m'),
    ('B', Rules(), 'above 0 m'),
    ('B', Rules(b_min_depth_m=0.1, b_max_depth_m=10.0), '0.1 to 10 m')])
def test_the_depth_range_of_a_protocol_is_formatted(protocol, rules, expected):
    assert format_depth_range(protocol, rules) == expected
    assert abs_rel_label(protocol, expected) == f'AbsRel ({protocol}, {expected})'


def test_scores_name_their_protocol_and_range():
    frame = truth([[1.0, 2.0, 3.0, 4.0]])
    linear = score(np.array([[0.1, 0.2, 0.3, 0.4]]), frame)
    log = score(np.log([[1.0, 2.0, 3.0, 4.0]]), frame, Rules(b_masks_edges=False), 'B')
    assert linear.label == 'protocol A (least squares in depth), 0.001 to 80+ m'
    assert log.label == 'protocol B (RANSAC in log depth, edges masked), above 0 m'
    assert mean_scores([linear, linear]).label == linear.label


def test_scores_of_two_protocols_or_ranges_are_never_averaged():
    frame = truth([[1.0, 2.0, 3.0, 4.0]])
    linear = score(np.array([[0.1, 0.2, 0.3, 0.4]]), frame)
    near = score(np.array([[0.1, 0.2, 0.3, 0.4]]), frame, Rules(max_depth_m=10.0))
    log = score(np.log([[1.0, 2.0, 3.0, 4.0]]), frame, Rules(b_masks_edges=False), 'B')
    for other, range_or_protocol in ((log, 'protocol B .*'), (near, r'.*0.001 to 10\+ m')):
        with pytest.raises(InputError, match=f'one protocol and depth range; got .*'
                                             f'{range_or_protocol}'):
            mean_scores([linear, other])
    with pytest.raises(InputError, match='got none'):
        mean_scores([])
    with pytest.raises(InputError, match="must be one of A, A-disparity, B, metric; got 'C'"):
        score(np.ones((1, 4)), frame, protocol='C')


def test_a_mean_ignores_frames_without_a_value():
    scores = [Scores('A', '', {'abs_rel': 0.1, 'boundary_f1': float('nan')}),
              Scores('A', '', {'abs_rel': 0.3, 'boundary_f1': 0.5})]
    assert mean_scores(scores).values == pytest.approx({'abs_rel': 0.2, 'boundary_f1': 0.5})
    assert np.isnan(mean_scores(scores[:1])['boundary_f1'])


def test_metric_depth_is_not_aligned():
    # 10 % too far, which any fit would remove.
    found = score(np.array([[1.1, 2.2]]), truth([[1.0, 2.0]]), protocol='metric')
    assert found['abs_rel'] == pytest.approx(0.1)
    assert score(np.array([[1.1, 2.2]]), truth([[1.0, 2.0]]))['abs_rel'] == pytest.approx(0.0)


def test_disparity_is_fitted_in_inverse_depth():
    depth_m = np.array([[1.0, 2.0, 4.0, 8.0]])
    assert score(3 / depth_m + 2, truth(depth_m), protocol='A-disparity')['abs_rel'] == (
        pytest.approx(0.0, abs=1e-6))
    assert score(3 / depth_m + 2, truth(depth_m))['abs_rel'] > 0.1


def test_protocol_b_ignores_outliers():
    # Log depth with a tenth of outliers, which would bias least squares.
    rng = np.random.default_rng(2)
    depth_m = rng.uniform(1.0, 8.0, (20, 20))
    prediction = (np.log(depth_m) - 1.0) / 2.0
    prediction[:2] = 5.0
    aligned = FrameTruth(truth(depth_m), Rules(b_masks_edges=False), 'B').align(prediction)
    assert (aligned.scale, aligned.shift) == pytest.approx((2.0, 1.0), abs=1e-4)
    np.testing.assert_allclose(aligned.depth_m[2:], depth_m[2:], rtol=1e-3)
    # Clipped to the largest depth that is compared.
    np.testing.assert_allclose(aligned.depth_m[:2], depth_m.max(), rtol=1e-6)


def test_protocol_b_matches_the_mean_of_an_inverted_map():
    depth_m = np.array([[1.0, 2.0, 4.0, 8.0]])
    prediction = 3.0 - np.log(depth_m)
    aligned = FrameTruth(truth(depth_m), Rules(b_masks_edges=False), 'B').align(prediction)
    assert aligned.scale == pytest.approx(np.log(depth_m).mean() / prediction.mean(), rel=1e-5)
    assert aligned.shift == 0.0


def test_protocol_b_excludes_steep_pixels_and_depths_out_of_range():
    depth_m = np.full((9, 12), 2.0)
    depth_m[:, 6:] = 3.0    # 1 m over two columns: the Sobel sum is 4 m beside the step
    rules = Rules(b_min_depth_m=2.5, b_max_depth_m=9.0)
    compared = FrameTruth(truth(depth_m), Rules(), 'B').align(depth_m).compared
    assert not compared[:, 5:7].any() and compared[:, :5].all() and compared[:, 7:].all()
    assert FrameTruth(truth(depth_m), rules, 'B').align(depth_m).compared.sum() == 9 * 5
    gentle = 2.0 + np.tile(np.arange(12) * 0.037, (9, 1))    # 8 * 0.037 = 0.296 m
    assert FrameTruth(truth(gentle), Rules(), 'B').align(gentle).compared[:, 1:-1].all()
    steep = 2.0 + np.tile(np.arange(12) * 0.038, (9, 1))     # 0.304 m
    assert not FrameTruth(truth(steep), Rules(), 'B').align(steep).compared[:, 1:-1].any()


def test_protocol_b_excludes_no_edges_in_sparse_depth():
    sparse = np.full((20, 20), np.nan)
    sparse[::4, ::4] = np.random.default_rng(0).uniform(1, 9, (5, 5))
    assert FrameTruth(truth(sparse), Rules(), 'B').align(np.ones((20, 20))).compared.sum() == 25


def test_a_given_fit_is_applied():
    depth_m = np.array([[1.0, 2.0, 3.0, 4.0]])
    aligned = FrameTruth(truth(depth_m), Rules(), 'A').align(depth_m / 10, (20.0, 1.0))
    assert aligned.depth_m[0].tolist() == pytest.approx([3.0, 5.0, 7.0, 9.0])
    assert (aligned.scale, aligned.shift) == (20.0, 1.0)
    log = FrameTruth(truth(depth_m), Rules(b_masks_edges=False), 'B').align(
        np.log(depth_m), (1.0, np.log(0.5)))
    assert log.depth_m[0].tolist() == pytest.approx([0.5, 1.0, 1.5, 2.0], abs=1e-5)


def test_a_prediction_that_is_not_finite_is_rejected():
    with pytest.raises(InputError, match='truth: `prediction` must be finite'):
        score(np.array([[np.nan, 1.0]]), truth([[1.0, 2.0]]))
