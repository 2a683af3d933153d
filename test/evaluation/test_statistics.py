"""Comparing step policies: means, intervals, blind baseline, savings and verdicts."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from marigold_ros.evaluation.statistics import (
    beats,
    blind_at_budget,
    Blocks,
    compare_policies,
    Difference,
    mean_results,
    saved_share,
)

# steps, total_s, network_s, abs_rel, delta1, published_delta1, boundary_f1 of two frames, T = 1, 2
BY_STEPS = np.array([[[1, 3.0, 1.0, 0.1, 0.9, 0.9, 0.2], [1, 3.0, 1.0, 0.4, 0.5, 0.5, 0.6]],
                     [[2, 4.0, 2.0, 0.2, 0.8, 0.8, 0.4], [2, 4.0, 2.0, 0.2, 0.7, 0.7, 0.8]]])
APART = Blocks(('a', 'b'), mean_of_blocks=False)


def results_of(**columns):
    """Return the results of as many frames as the columns have; other columns are 1."""
    names = ('num_inference_steps', 'total_s', 'network_s', 'abs_rel', 'delta1',
             'published_delta1', 'boundary_f1')
    count = len(next(iter(columns.values())))
    return np.stack([np.asarray(columns.get(name, [1.0] * count), float) for name in names], 1)


def test_a_mean_weights_frames_or_blocks_equally():
    values = np.array([1.0, 1.0, 4.0])
    assert Blocks(('a', 'a', 'b'), mean_of_blocks=False).mean(values) == 2.0
    assert Blocks(('a', 'a', 'b'), mean_of_blocks=True).mean(values) == 2.5


def test_frames_without_a_value_do_not_count():
    values = np.array([1.0, np.nan, 5.0, np.nan])
    names = ('a', 'a', 'b', 'c')
    assert Blocks(names, mean_of_blocks=False).mean(values) == 3.0
    assert Blocks(names, mean_of_blocks=True).mean(values) == 3.0
    assert np.isnan(Blocks(names, mean_of_blocks=True).mean(np.full(4, np.nan)))


def test_an_interval_resamples_whole_blocks():
    # Means of four draws from {0, 1}: both frames of a block come together, so 1/4 and 3/4 of
    # one block never occur.  All four alike has probability 1/16, more than 2.5 %.
    values = np.array([0.0, 0.0, 1.0, 1.0])
    blocks = Blocks(('a', 'a', 'b', 'b'), mean_of_blocks=False)
    assert blocks.bootstrap_interval(values) == (0.0, 1.0)
    low, high = Blocks(('a', 'b') * 2, mean_of_blocks=False).bootstrap_interval(values)
    assert low == high == 0.5


def test_an_interval_scales_with_the_standard_error():
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    blocks = Blocks([str(i) for i in range(400)], mean_of_blocks=False)
    low, high = blocks.bootstrap_interval(values)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.05)


@pytest.mark.parametrize('count', [7, 64, 1001])
def test_samples_are_those_of_one_draw_in_little_memory(count):
    values = np.random.default_rng(1).normal(5.0, 2.0, count)
    drawn = np.random.default_rng(0).integers(count, size=(10_000, count))
    expected = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
    tracemalloc.start()
    blocks = Blocks([f'{i:04d}' for i in range(count)], mean_of_blocks=False)
    low_high = blocks.bootstrap_interval(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert low_high == pytest.approx(expected.tolist(), rel=1e-12)
    assert peak < 4e6 + 100 * drawn.itemsize * count * 4


def test_one_block_gives_no_interval():
    blocks = Blocks(('a', 'a'), mean_of_blocks=True)
    assert np.isnan(blocks.bootstrap_interval(np.array([1.0, 2.0]))).all()


def test_the_blind_baseline_mixes_two_policies():
    # A budget of 3.25 s is a quarter of the way from 3 s at T = 1 to 4 s at T = 2.
    baseline = blind_at_budget(BY_STEPS, 3.25)
    np.testing.assert_allclose(baseline[0], [1.25, 3.25, 1.25, 0.125, 0.875, 0.875, 0.25])
    # The budget is clipped to the range of the policies.
    np.testing.assert_allclose(blind_at_budget(BY_STEPS, 2.0), BY_STEPS[0])
    np.testing.assert_allclose(blind_at_budget(BY_STEPS, 9.0), BY_STEPS[1])
    np.testing.assert_allclose(blind_at_budget(BY_STEPS[:1], 9.0), BY_STEPS[0])


def test_the_blind_baseline_goes_by_cost_if_more_steps_cost_less():
    three = np.concatenate([BY_STEPS, BY_STEPS[:1]])
    three[2, :, 1] = 3.5    # T = 3 costs less than T = 2
    np.testing.assert_allclose(blind_at_budget(three, 3.75), (three[2] + three[1]) / 2)


def test_choosing_the_right_frames_beats_the_blind_baseline():
    # T = 2 helps on the second frame of each block only, and the policy knows it.
    by_steps = np.stack([results_of(total_s=[1.0] * 4, abs_rel=[0.2, 0.4, 0.2, 0.4]),
                         results_of(total_s=[2.0] * 4, abs_rel=[0.2, 0.1, 0.2, 0.1])])
    blocks = Blocks(('a', 'a', 'b', 'b'), False)
    for chosen, verdict, relative in (([0, 1, 0, 1], 'better', -1 / 3),
                                      ([1, 0, 1, 0], 'worse', 1 / 3)):
        policy = by_steps[chosen, range(4)]
        # At the same cost: 0.2 and 0.25, mean 0.225; of the policies 0.15 and 0.3.
        found = compare_policies(policy, blind_at_budget(by_steps, policy[:, 1].mean()), blocks)
        assert found['abs_rel'].verdict == verdict
        assert found['abs_rel'].relative == pytest.approx(relative)


def test_the_saved_share_is_that_of_the_networks():
    fixed = results_of(network_s=[2.0, 2.0, 4.0, 4.0], total_s=[9.0] * 4)
    policy = results_of(network_s=[0.0, 2.0, 0.0, 0.0], total_s=[9.0] * 4)
    share, low, high = saved_share(policy, fixed, Blocks(('a', 'a', 'b', 'b'), True))
    assert share == pytest.approx(1 - 2 / 12)
    assert (low, high) == pytest.approx((0.5, 1.0))    # of block a alone, and of b alone


def test_the_saved_share_of_a_policy_against_itself_is_0():
    noisy = results_of(network_s=[1.0, 3.0, 2.0])
    assert saved_share(noisy, noisy, Blocks(('a', 'b', 'c'), False)) == (0.0, 0.0, 0.0)


def test_means_weight_quality_by_blocks_and_cost_by_frames():
    rows = results_of(total_s=[1.0, 1.0, 4.0], abs_rel=[0.1, 0.1, 0.4])
    means = mean_results(rows, Blocks(('a', 'a', 'b'), mean_of_blocks=True))
    assert (means['total_s'], means['abs_rel']) == pytest.approx((2.0, 0.25))


def test_a_difference_counts_if_its_interval_excludes_0():
    one = results_of(abs_rel=[0.2, 0.2], delta1=[0.5, 0.5], boundary_f1=[0.1, 0.5])
    other = results_of(abs_rel=[0.1, 0.1], delta1=[0.4, 0.4], boundary_f1=[0.2, 0.2])
    found = compare_policies(one, other, APART)
    assert found['abs_rel'] == Difference(1.0, 1.0, 1.0, 'worse')
    assert found['delta1'].verdict == 'better'
    assert found['delta1'].relative == pytest.approx(0.25)
    assert found['boundary_f1'].verdict == 'no difference'
    assert (found['boundary_f1'].low, found['boundary_f1'].high) == pytest.approx((-0.5, 1.5))


def test_a_difference_from_0_has_a_verdict_without_a_ratio():
    found = compare_policies(results_of(boundary_f1=[0.2, 0.3]),
                             results_of(boundary_f1=[0.0, 0.0]), APART)
    assert found['boundary_f1'].verdict == 'better'
    assert np.isnan(found['boundary_f1'].relative)


def test_with_one_block_the_difference_is_unknown():
    both = results_of(abs_rel=[0.2, 0.2]), results_of(abs_rel=[0.1, 0.1])
    assert compare_policies(*both, Blocks(('a', 'a'), False))['abs_rel'].verdict == 'unknown'


@pytest.mark.parametrize(('abs_rel', 'boundary_f1', 'won'), [
    ('better', 'no difference', True),
    ('no difference', 'better', True),
    ('better', 'worse', False),
    ('no difference', 'no difference', False),
    ('unknown', 'unknown', False),
])
def test_beats_means_better_in_one_metric_and_worse_in_none(abs_rel, boundary_f1, won):
    differences = {'abs_rel': Difference(0.1, 0.1, 0.1, abs_rel),
                   'delta1': Difference(0.1, 0.1, 0.1, 'worse'),
                   'published_delta1': Difference(0.1, 0.1, 0.1, 'no difference'),
                   'boundary_f1': Difference(0.1, 0.1, 0.1, boundary_f1)}
    assert beats(differences) == won
