"""T(C), the latency model and the cap, compared with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from marigold_ros.depth.complexity import (
    complexity_share,
    entropy,
    gradient_energy,
    reduce_to_grey,
)
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.depth.step_policy import BatchCost, LatencyModel, StepPolicy
from marigold_ros.depth.types import BatchTiming, StepRequest

SIZE = (48, 64)


def grey(levels):
    """Return an RGB image of rows of grey levels."""
    return np.repeat(np.array(levels, np.uint8)[..., None], 3, axis=2)


def decide(policy, complexity, age_s=0.0, **kwargs):
    """Decide one frame."""
    return policy.decide([StepRequest('camera', complexity, age_s, **kwargs)],
                         padded_size=SIZE)[0]


def timing(step_s, other_s, steps=(4,)):
    """Return the timing of a batch whose steps take `step_s` each."""
    return BatchTiming(SIZE, steps, 0.25 * other_s, step_s * max(steps), 0.75 * other_s)


def test_gradient_energy_by_hand():
    """One pixel with both neighbours: dx = 51/255 = 0.2, dy = 102/255 = 0.4, C = 0.2."""
    assert gradient_energy(grey([[0, 51], [102, 0]])) == pytest.approx(0.04 + 0.16)
    assert gradient_energy(grey([[7, 7], [7, 7]])) == 0.0
    assert gradient_energy(grey([[0, 255, 0]])) == 0.0


def test_gradient_energy_counts_both_colours_of_a_checkerboard():
    """Every neighbour differs by 1: C = 1 + 1."""
    board = (np.indices((10, 10)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert gradient_energy(grey(board)) == pytest.approx(2.0)


def test_entropy_by_hand():
    """One level: 0 bits; two equally frequent: 1 bit; 256: 8 bits; 3/4 and 1/4: 0.811 bits."""
    assert entropy(grey([[9, 9]])) == 0.0
    assert entropy(grey([[0, 255]])) == 1.0
    assert entropy(grey(np.arange(256).reshape(16, 16))) == 8.0
    assert entropy(grey([[0, 0, 0, 1]])) == pytest.approx(
        -0.75 * math.log2(0.75) - 0.25 * math.log2(0.25))


def test_complexity_is_measured_at_320_px():
    """C of a larger image equals C of the image reduced by area averaging."""
    small = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    assert gradient_energy(large) == gradient_energy(small)
    assert entropy(large) == entropy(small)


def test_complexity_rejects_arrays_that_are_not_rgb_images():
    with pytest.raises(InputError, match=r'uint8 \[H, W, 3\].*got float32 \[2, 2\]'):
        entropy(np.zeros((2, 2), np.float32))


@pytest.mark.parametrize('complexity, steps', [(0.0, 1), (0.1, 1), (0.149, 1), (0.15, 2),
                                               (0.2, 2), (0.3, 3), (0.4, 4), (9.0, 4)])
def test_steps_are_linear_in_complexity_and_clipped(complexity, steps):
    """T(C) = clip(round(1 + 10 (C - 0.1)), 1, 4)."""
    policy = StepPolicy(StepPolicyConfig('complexity', 1, complexity_min=0.1, alpha=10.0,
                                         latency_cap_s=None))
    decision = decide(policy, complexity)
    assert decision.num_inference_steps == steps
    assert decision.reason.startswith(f'complexity: T({complexity:.4g}) = 1 + 10 (C - 0.1)')


def test_the_automatic_line_spans_the_cameras_quantiles():
    """After C = 0..1 evenly, 0.7 maps to Tmin and 0.95 to Tmax; the first frame gets Tmin."""
    policy = StepPolicy(StepPolicyConfig('complexity', 1, 10, latency_cap_s=None))
    assert decide(policy, 0.5).num_inference_steps == 1
    for complexity in np.linspace(0.0, 1.0, 200):
        decide(policy, float(complexity))
    assert decide(policy, 0.7).num_inference_steps == 1
    assert decide(policy, 0.825).num_inference_steps in (5, 6)
    assert decide(policy, 0.95).num_inference_steps == 10


def test_a_static_scene_gets_tmin():
    """A variation of C below 5 % is regarded as sensor noise."""
    policy = StepPolicy(StepPolicyConfig('complexity', 1, latency_cap_s=None))
    noise = np.random.default_rng(0).uniform(0.0100, 0.0104, 50)
    assert {decide(policy, float(c)).num_inference_steps for c in noise} == {1}


def test_a_new_configuration_keeps_the_statistics():
    """Another Tmax changes the line but not its quantiles."""
    policy = StepPolicy(StepPolicyConfig('complexity', 1, latency_cap_s=None))
    for complexity in np.linspace(0.0, 1.0, 100):
        decide(policy, float(complexity))
    policy.config = StepPolicyConfig('complexity', 1, 10, latency_cap_s=None)
    assert decide(policy, 0.95).num_inference_steps == 10


def test_statistics_are_per_camera_and_discarded_on_reset():
    policy = StepPolicy(StepPolicyConfig('complexity', 1, latency_cap_s=None))
    for complexity in np.linspace(0.0, 1.0, 100):
        decide(policy, float(complexity))
    other = policy.decide([StepRequest('other', 0.9, 0.0)], padded_size=SIZE)[0]
    assert other.num_inference_steps == 1
    policy.reset()
    assert decide(policy, 0.9).num_inference_steps == 1


@pytest.mark.parametrize('complexity, steps', [(0.0, 0), (0.069, 0), (0.07, 1), (0.25, 2),
                                               (1.0, 4)])
def test_novelty_carries_depth_until_enough_is_new(complexity, steps):
    """T(C) = round(7.2 C), whatever C was before."""
    policy = StepPolicy(StepPolicyConfig(latency_cap_s=None))
    for _ in range(3):
        decision = decide(policy, complexity, can_carry=True)
        assert decision.num_inference_steps == steps
        assert decision.reason.startswith(f'novelty: T({complexity:.4g}) = 0 + 7.2 (C - 0)')


def test_what_must_run_runs_once_more_than_the_line_says():
    """Also if there is nothing to carry."""
    policy = StepPolicy(StepPolicyConfig(latency_cap_s=None))
    due = decide(policy, 0.0, can_carry=True, run_reason='carried for 2.0 s')
    assert (due.num_inference_steps, due.reason.split('; ')[1]) == (1, '1: carried for 2.0 s')
    first = decide(policy, 1.0)
    assert (first.num_inference_steps, first.reason) == (1, 'novelty: nothing to carry -> 1')


@pytest.mark.parametrize('age_s', [0.0, 10.0])
def test_the_cap_limits_only_the_frames_that_wait_for_their_run(age_s):
    """A step takes 10 ms a frame: two steps of both fit in 60 ms, whatever the age of one."""
    policy = StepPolicy(StepPolicyConfig('fixed', latency_cap_s=0.06))
    policy.observe(timing(step_s=0.01, other_s=0.0))
    waits = StepRequest('waits', 1.0, 0.0)
    carries = StepRequest('carries', 1.0, age_s, can_carry=True)
    decisions = policy.decide([waits, carries], padded_size=SIZE)
    assert [each.num_inference_steps for each in decisions] == [2, 4]
    assert decisions[1].reason == 'fixed: Tmax = 4'


def test_the_fixed_policy_returns_tmax():
    policy = StepPolicy(StepPolicyConfig(policy='fixed', latency_cap_s=None))
    assert decide(policy, 0.0).num_inference_steps == 4


def test_the_cap_limits_the_steps():
    """200 ms - 20 age - 50 other - 10 margin leaves 120 ms: three steps of 40 ms."""
    policy = StepPolicy(StepPolicyConfig(policy='fixed', latency_cap_s=0.2))
    for _ in range(20):
        policy.observe(timing(step_s=0.0399, other_s=0.05))
    decision = decide(policy, 0.0, age_s=0.02)
    assert decision.num_inference_steps == 3
    assert decision.reason.endswith(
        'reduced to 3 by the cap: 200 ms - age 20 - other 50 - margin 10 at 40 ms a step')


def test_without_measurements_the_cap_does_not_limit_the_steps():
    assert decide(StepPolicy(StepPolicyConfig(policy='fixed')), 0.0).num_inference_steps == 4


def test_a_late_frame_that_waits_is_run_with_the_fewest_steps():
    """However often, as nothing else can give it depth; no frame is late that does not wait."""
    policy = StepPolicy(StepPolicyConfig('fixed', 2))
    policy.observe(timing(step_s=0.01, other_s=0.01))
    for _ in range(10):
        late = decide(policy, 0.0, age_s=0.5)
        assert late.num_inference_steps == 2
        assert late.reason.startswith('late, run with 2: the cap: 200 ms - age 500 - other 10 ')
    assert decide(policy, 0.0, age_s=0.5, can_carry=True).reason == 'fixed: Tmax = 4'


def test_deadline_leaves_time_to_decode_and_publish():
    """200 ms - 10 margin - 50 age of the oldest - 30 afterwards = 110 ms to denoise."""
    policy = StepPolicy(StepPolicyConfig(latency_cap_s=0.2))
    requests = [StepRequest('a', 0.0, 0.05), StepRequest('b', 0.0, 0.0)]
    assert policy.deadline_s(requests, padded_size=SIZE) == pytest.approx(0.14)
    policy.observe(timing(step_s=0.01, other_s=0.04, steps=(1, 1)))
    assert policy.deadline_s(requests, padded_size=SIZE) == pytest.approx(0.11)
    policy.config = StepPolicyConfig(latency_cap_s=None)
    assert policy.deadline_s(requests, padded_size=SIZE) is None


def test_only_frames_that_wait_have_a_deadline():
    """200 ms - 10 margin - 50 age of the frame that waits - 30 after a batch of two."""
    policy = StepPolicy(StepPolicyConfig(latency_cap_s=0.2))
    policy.observe(timing(step_s=0.01, other_s=0.04, steps=(1, 1)))
    waits, carries = StepRequest('a', 0.0, 0.05), StepRequest('b', 0.0, 0.1, can_carry=True)
    assert policy.deadline_s([waits, carries], padded_size=SIZE) == pytest.approx(0.11)
    assert policy.deadline_s([carries], padded_size=SIZE) is None


def test_a_spike_affects_one_frame_and_a_slowdown_more():
    """One slow batch of 20 affects the next frame only; two of 20 are the 95 % quantile."""
    policy = StepPolicy(StepPolicyConfig(policy='fixed', latency_cap_s=0.2))
    seen = []
    for step_s in [0.01] * 20 + [0.1] + [0.01] * 20 + [0.1, 0.1] + [0.01] * 20:
        policy.observe(timing(step_s=step_s, other_s=0.01))
        seen.append(decide(policy, 0.0).num_inference_steps)
    assert seen == [4] * 20 + [1] + [4] * 20 + [1, 1] + [1] * 18 + [4] * 2


def test_a_slowdown_applies_at_once_and_expires_after_twenty_batches():
    """A step of 100 ms limits the next frame; twenty fast batches remove the limit."""
    policy = StepPolicy(StepPolicyConfig(policy='fixed', latency_cap_s=0.2))
    for _ in range(20):
        policy.observe(timing(step_s=0.01, other_s=0.01))
    assert decide(policy, 0.0).num_inference_steps == 4
    policy.observe(timing(step_s=0.1, other_s=0.01))
    assert decide(policy, 0.0).num_inference_steps == 1
    for _ in range(20):
        policy.observe(timing(step_s=0.01, other_s=0.01))
    assert decide(policy, 0.0).num_inference_steps == 4


def test_the_oldest_frame_determines_the_steps_of_a_batch():
    """The frames of a batch are published together."""
    policy = StepPolicy(StepPolicyConfig(policy='fixed', latency_cap_s=0.2))
    policy.observe(timing(step_s=0.02, other_s=0.02, steps=(4, 4)))
    young, old = policy.decide([StepRequest('a', 0.0, 0.0), StepRequest('b', 0.0, 0.12)],
                               padded_size=SIZE)
    assert young.num_inference_steps == old.num_inference_steps == 2


def test_unmeasured_batch_sizes_scale_the_nearest_cost_up_only():
    """Measured at batch size 1: a step of 10 ms; estimate for batch size 2: 20 ms."""
    model = LatencyModel()
    model.observe(timing(step_s=0.01, other_s=0.04, steps=(2,)))
    assert model.estimate(SIZE, 1) == BatchCost(*map(pytest.approx, (0.01, 0.01, 0.03)))
    assert model.estimate(SIZE, 2) == BatchCost(*map(pytest.approx, (0.02, 0.02, 0.06)))
    assert model.estimate((8, 8), 1) is None


def test_a_ragged_batch_yields_the_cost_of_a_full_step():
    """6 frame steps in 25 ms: a step of all three frames is estimated at 12.5 ms."""
    model = LatencyModel()
    model.observe(BatchTiming(SIZE, (4, 1, 1), 0.0, 0.025, 0.0))
    assert model.estimate(SIZE, 3).step_s == pytest.approx(0.0125)


@pytest.mark.parametrize('kwargs, message', [
    ({'policy': 'magic'}, "one of novelty, complexity, fixed; got 'magic'"),
    ({'min_inference_steps': -1}, '`min_inference_steps` must be between 0 and 50; got -1'),
    ({'max_inference_steps': 0}, '`max_inference_steps` must be between 1 and 50; got 0'),
    ({'min_inference_steps': 5}, r'at most max_inference_steps \(4\); got 5'),
    ({'alpha': math.nan}, '`alpha` must be a finite number'),
    ({'latency_cap_s': 0.0}, '`latency_cap_s` must be positive, or None .*; got 0.0'),
])
def test_invalid_settings_are_rejected_with_their_value(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        StepPolicyConfig(**kwargs)


def test_the_complexity_of_some_pixels_is_their_part_of_the_whole():
    """Of two halves with different content, at full size and reduced."""
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    image[:, 48:] //= 4
    left = np.indices((64, 96))[1] < 48
    for measure, compute in (('gradient_energy', gradient_energy), ('entropy', entropy)):
        parts = [compute(image, where=left), compute(image, where=~left)]
        assert parts[0] > parts[1] > 0.0
        assert sum(parts) == pytest.approx(compute(image))
        assert complexity_share(measure, reduce_to_grey(image), left) == pytest.approx(
            parts[0] / sum(parts))
    large = image.repeat(8, axis=0).repeat(8, axis=1)
    assert entropy(large, left.repeat(8, axis=0).repeat(8, axis=1)) == pytest.approx(
        0.5 * entropy(large), rel=0.5)
    assert complexity_share('entropy', np.full((4, 4), 7, np.uint8), left[:4, 46:50]) == 0.5
