"""Replayed policies: simulated arrivals, latency cap, costs; numbers computed by hand."""

from __future__ import annotations

import pytest

from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable
from marigold_ros.evaluation.policies.replay import choose_steps, EvaluatedFrame, simulate_arrivals

T_MAX = 4
# 20 ms of other stages and 10 ms a step.
COST = FrameCost(0.004, 0.005, 0.01, 0.006, 0.004, 0.001)
MS = 10 ** 6


def frame(number, at_ms, complexity=0.0, abs_rel=(0.1, 0.2, 0.3, 0.4)):
    """Return a frame that was run with every T."""
    steps = {f'fixed-{t}': t for t in range(1, T_MAX + 1)}
    quality = {f'fixed-{t}': {'abs_rel': value} for t, value in enumerate(abs_rel, 1)}
    return EvaluatedFrame(number, str(number), 'block', 'camera',
                          None if at_ms is None else at_ms * MS, (96, 128),
                          {'gradient_energy': complexity, 'entropy': complexity}, steps,
                          quality, 0.0)


def simulate(policy, frames, cap_ms=None):
    """Simulate frame arrivals with one cost for all frames."""
    return simulate_arrivals(policy, frames, T_MAX, cap_ms and cap_ms / 1e3,
                             LatencyTable({}, {(96, 128): [COST]}))


def test_the_engine_takes_the_newest_frame_when_it_is_idle_again():
    """Each frame takes 60 ms: the third supersedes the waiting second and starts 40 ms old."""
    found = simulate('fixed-4', [frame(i, 10 * i) for i in range(3)])
    assert [each.outcome for each in found] == ['processed', 'superseded', 'processed']
    assert [each.num_inference_steps for each in found] == [4, 0, 4]
    assert (found[0].age_s, found[0].latency_s) == pytest.approx((0.0, 0.060))
    assert (found[2].age_s, found[2].latency_s) == pytest.approx((0.040, 0.100))


def test_a_frame_does_not_wait_for_an_idle_engine():
    found = simulate('fixed-4', [frame(0, 0), frame(1, 60), frame(2, 500)])
    assert [each.age_s for each in found] == pytest.approx([0, 0, 0])
    assert {each.outcome for each in found} == {'processed'}


def test_the_cap_reduces_steps_but_not_those_of_fixed_policies():
    """50 ms - 5 % - 20 ms leave 27.5 ms: two steps."""
    oracle, = simulate('oracle', [frame(0, 0, abs_rel=(0.4, 0.3, 0.2, 0.1))], cap_ms=50)
    assert (oracle.num_inference_steps, oracle.run) == (2, 'fixed-2')
    assert 'reduced to 2' in oracle.reason
    fixed, = simulate('fixed-4', [frame(0, 0)], cap_ms=50)
    assert fixed.num_inference_steps == 4


def test_a_frame_that_has_waited_gets_fewer_steps():
    found = simulate('oracle', [frame(i, 20 * i, abs_rel=(0.4, 0.3, 0.2, 0.1)) for i in range(2)],
                     cap_ms=70)
    # 70 - 3.5 - 20 leave four steps; the next is 40 ms old when the first ends after 60 ms.
    assert [each.num_inference_steps for each in found] == [4, 1]
    assert found[1].reason.endswith('ms a step')
    assert 'late, run with 1' in found[1].reason


def test_a_jump_back_in_time_resets_the_simulation():
    found = simulate('fixed-4', [frame(0, 1000), frame(1, 1010), frame(2, 0)])
    assert [each.outcome for each in found] == ['processed'] * 3
    assert found[2].age_s == 0.0


def test_frames_without_stamps_never_wait():
    found = simulate('fixed-4', [frame(i, None) for i in range(3)], cap_ms=200)
    assert [(each.outcome, each.age_s) for each in found] == [('processed', 0.0)] * 3
    assert [each.latency_s for each in found] == pytest.approx([0.06] * 3)


def test_oracle_and_random_are_deterministic():
    frames = [frame(i, None, abs_rel=(0.3, 0.1, 0.2, 0.4)) for i in range(30)]
    assert {choice.run for choice in choose_steps('oracle', frames, T_MAX)} == {'fixed-2'}
    drawn = [choice.num_inference_steps for choice in choose_steps('random', frames, T_MAX)]
    assert set(drawn) == {1, 2, 3, 4}
    assert drawn == [each.num_inference_steps
                     for each in choose_steps('random', frames, T_MAX)]


def test_a_frame_has_the_same_cost_with_every_policy():
    costs = [FrameCost(0, 0, 0.01 * i, 0, 0, 0) for i in range(1, 6)]
    table = LatencyTable({}, {(96, 128): costs})
    drawn = [table.sample((96, 128), number) for number in range(50)]
    assert drawn == [table.sample((96, 128), number) for number in range(50)]
    assert len(set(drawn)) == 5
    assert table.median((96, 128)).step_s == pytest.approx(0.03)


def test_a_saved_table_is_loaded_unchanged(tmp_path):
    table = LatencyTable({'device': 'cpu'}, {(96, 128): [COST], (8, 8): [COST, COST]}, 'today')
    table.save(tmp_path / 'table.json')
    again = LatencyTable.load(tmp_path / 'table.json')
    assert (again.machine, again.samples, again.measured_utc) == (
        table.machine, table.samples, 'today')
