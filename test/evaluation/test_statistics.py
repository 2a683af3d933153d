"""Comparing step policies: means, intervals, random baseline, oracle, savings and verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from marigold_ros.evaluation.statistics import (
    beats,
    Blocks,
    compare_at_equal_budget,
    compare_policies,
    Difference,
    oracle_results,
    raise_to_budget,
    RANDOM_BASELINE,
    random_baseline_at_budget,
    STEPS,
    summarize_policies,
)

# num_inference_steps, total_s, denoise_s, abs_rel, delta1, boundary_f1 of two frames at T = 1, 2
BY_STEPS = np.array([[[1, 3.0, 1.0, 0.1, 0.9, 0.2], [1, 3.0, 1.0, 0.4, 0.5, 0.6]],
                     [[2, 4.0, 2.0, 0.2, 0.8, 0.4], [2, 4.0, 2.0, 0.2, 0.7, 0.8]]])
APART = Blocks(('a', 'b'), mean_of_blocks=False)


def results_of(**columns):
    """Return the results of as many frames as the columns have; other columns are 1."""
    names = ('num_inference_steps', 'total_s', 'denoise_s', 'abs_rel', 'delta1', 'boundary_f1')
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


def test_one_block_gives_no_interval():
    blocks = Blocks(('a', 'a'), mean_of_blocks=True)
    assert np.isnan(blocks.bootstrap_interval(np.array([1.0, 2.0]))).all()


def test_the_random_baseline_mixes_two_fixed_t():
    # A budget of 3.25 s is a quarter of the way from 3 s at T = 1 to 4 s at T = 2.
    baseline = random_baseline_at_budget(BY_STEPS, 3.25)
    np.testing.assert_allclose(baseline[0], [1.25, 3.25, 1.25, 0.125, 0.875, 0.25])
    np.testing.assert_allclose(random_baseline_at_budget(BY_STEPS, 1.5, STEPS)[:, STEPS], 1.5)
    # The budget is clipped to the range of the fixed T.
    np.testing.assert_allclose(random_baseline_at_budget(BY_STEPS, 2.0), BY_STEPS[0])
    np.testing.assert_allclose(random_baseline_at_budget(BY_STEPS, 9.0), BY_STEPS[1])
    np.testing.assert_allclose(random_baseline_at_budget(BY_STEPS[:1], 9.0), BY_STEPS[0])


def test_the_random_baseline_goes_by_cost_if_more_steps_cost_less():
    three = np.concatenate([BY_STEPS, BY_STEPS[:1]])
    three[2, :, 1] = 3.5    # T = 3 costs less than T = 2
    np.testing.assert_allclose(random_baseline_at_budget(three, 3.75), (three[2] + three[1]) / 2)


def test_a_cheap_policy_spends_its_unused_budget_on_tmax():
    raised = raise_to_budget(BY_STEPS[0], BY_STEPS[1], 3.5)
    np.testing.assert_allclose(raised, (BY_STEPS[0] + BY_STEPS[1]) / 2)


def test_at_equal_budget_a_higher_cost_is_no_advantage():
    # On every frame T = 2 halves AbsRel.  A policy that always runs T = 2 is better than one that
    # always runs T = 1, but not once both spend the same.
    by_steps = np.stack([results_of(total_s=[1.0] * 4, abs_rel=[0.2, 0.4, 0.2, 0.4]),
                         results_of(total_s=[2.0] * 4, abs_rel=[0.1, 0.2, 0.1, 0.2])])
    blocks = Blocks(('a', 'b', 'c', 'd'), False)
    assert compare_policies(by_steps[1], by_steps[0], blocks)['abs_rel'].verdict == 'better'
    found = compare_at_equal_budget({'one': by_steps[0], 'two': by_steps[1]}, by_steps, blocks)
    assert found['two']['one']['abs_rel'] == Difference(0.0, 0.0, 0.0, 'no difference')
    assert found['one'][RANDOM_BASELINE]['abs_rel'].verdict == 'no difference'


def test_at_equal_budget_choosing_the_right_frames_wins():
    # T = 2 helps on the second frame of each block only, and the policy knows it.
    by_steps = np.stack([results_of(total_s=[1.0] * 4, abs_rel=[0.2, 0.4, 0.2, 0.4]),
                         results_of(total_s=[2.0] * 4, abs_rel=[0.2, 0.1, 0.2, 0.1])])
    good = by_steps[[0, 1, 0, 1], range(4)]
    bad = by_steps[[1, 0, 1, 0], range(4)]
    blocks = Blocks(('a', 'a', 'b', 'b'), False)
    found = compare_at_equal_budget({'good': good, 'bad': bad}, by_steps, blocks)
    # Random baseline: 0.2 and 0.25, mean 0.225; good: 0.15.
    assert found['good'][RANDOM_BASELINE]['abs_rel'].relative == pytest.approx(-1 / 3)
    assert found['good'][RANDOM_BASELINE]['abs_rel'].verdict == 'better'
    assert found['good']['bad']['abs_rel'].verdict == 'better'
    assert found['bad'][RANDOM_BASELINE]['abs_rel'].verdict == 'worse'


def test_the_oracle_uses_the_t_with_the_lowest_abs_rel():
    assert oracle_results(BY_STEPS)[:, 0].tolist() == [1.0, 2.0]


def test_savings_are_related_to_those_of_the_fastest_policy():
    middle = (BY_STEPS[0] + BY_STEPS[1]) / 2
    row = summarize_policies({'fast': BY_STEPS[0], 'slow': BY_STEPS[1], 'middle': middle}, APART,
                             fastest='fast', slowest='slow')['middle']
    assert row['num_inference_steps'] == 1.5
    assert row['time_saved'] == pytest.approx(1 / 8)    # 3.5 s of 4 s
    assert row['share_of_fastest_saving'] == pytest.approx(0.5)
    assert row['abs_rel'] == pytest.approx(0.225)


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
                   'boundary_f1': Difference(0.1, 0.1, 0.1, boundary_f1)}
    assert beats(differences) == won
