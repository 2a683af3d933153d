"""The step policy meets the cap on a simulated device with load, spikes and drift."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.step_policy import StepPolicy
from marigold_ros.depth.types import BatchTiming, StepRequest

SIZE = (96, 128)
BEFORE_S, STEP_S, AFTER_S, JITTER = 0.006, 0.010, 0.007, 0.04
FRAMES, PERIOD_S = 1500, 1.0 / 15.0


@dataclass(frozen=True)
class Outcome:
    """Receipt, latency and steps of a frame."""

    received_s: float
    latency_s: float
    steps: int


def simulate(policy, slowdown, *, seed=0):
    """
    Simulate a camera and a device whose work takes `slowdown(time, rng)` times as long.

    As in the node and the denoising loop, the newest frame is processed, a running step is not
    interrupted, and a step is not started if it would end after the deadline, assuming that it
    takes as long as the step before.
    """
    rng, free_s, outcomes = np.random.default_rng(seed), 0.0, []

    def work(time_s, seconds):
        return time_s + seconds * slowdown(time_s, rng) * rng.lognormal(0.0, JITTER)

    for k in range(FRAMES):
        received_s = k * PERIOD_S
        if received_s + PERIOD_S < free_s:
            continue  # superseded before the device is free
        start_s = max(free_s, received_s)
        request = [StepRequest('camera', rng.uniform(), start_s - received_s)]
        decision = policy.decide(request, padded_size=SIZE)[0]
        if decision.num_inference_steps == 0:
            outcomes.append(Outcome(received_s, 0.0, 0))
            continue
        deadline_s = policy.deadline_s(request, padded_size=SIZE)
        encoded_s = now_s = work(start_s, BEFORE_S)
        steps = 0
        while steps < decision.num_inference_steps:
            steps, last_s, now_s = steps + 1, now_s, work(now_s, STEP_S)
            if deadline_s is not None and 2 * now_s - last_s > start_s + deadline_s:
                break
        denoised_s, free_s = now_s, work(now_s, AFTER_S)
        policy.observe(BatchTiming(SIZE, (steps,), encoded_s - start_s, denoised_s - encoded_s,
                                   free_s - denoised_s))
        outcomes.append(Outcome(received_s, free_s - received_s, steps))
    return outcomes


def steady(time_s, rng):
    """Return no slowdown."""
    return 1.0


def switching_load(time_s, rng):
    """Return a load that uses half of the processor for 5 of every 10 s."""
    return 1.9 if time_s % 10.0 >= 5.0 else 1.0


def spikes(time_s, rng):
    """Slow one call in 500 down by a factor of 5."""
    return 5.0 if rng.uniform() < 0.002 else 1.0


def drift(time_s, rng):
    """Slow down gradually, by a factor of 1.8 after 100 s."""
    return 1.0 + 0.8 * min(1.0, time_s / 100.0)


@cache
def cap_s():
    """Return the unloaded 95 % quantile of the latency at Tmax, without a cap."""
    policy = StepPolicy(StepPolicyConfig(policy='fixed', latency_cap_s=None))
    return float(np.quantile([outcome.latency_s for outcome in simulate(policy, steady)], 0.95))


@pytest.mark.parametrize('slowdown', [steady, switching_load, spikes, drift])
def test_99_percent_of_the_frames_meet_the_cap(slowdown):
    """Without depth to carry; the mean number of steps without load stays high."""
    cap = cap_s()
    config = StepPolicyConfig('complexity', 1, complexity_min=0.0, alpha=3.0,
                              latency_cap_s=cap)  # C in 0..1: T is 2.5 on average
    outcomes = simulate(StepPolicy(config), slowdown)
    run = [outcome for outcome in outcomes if outcome.steps]
    assert np.quantile([outcome.latency_s for outcome in run], 0.99) <= cap
    assert len(run) >= 0.95 * len(outcomes)
    assert len(outcomes) == FRAMES  # none was superseded
    undisturbed = [outcome.steps for outcome in run if outcome.received_s % 10.0 < 5.0]
    if slowdown is not drift:
        assert np.mean(undisturbed) > 1.9  # of 2.5 without a cap


def test_without_the_policy_the_load_exceeds_the_cap():
    """Control: with Tmax, the frames under load are late."""
    policy = StepPolicy(StepPolicyConfig(policy='fixed', latency_cap_s=None))
    late = [outcome.latency_s > cap_s() for outcome in simulate(policy, switching_load)
            if outcome.received_s % 10.0 >= 5.0]
    assert np.mean(late) > 0.95


def test_the_policy_adapts_to_a_slowdown_within_three_frames():
    cap = cap_s()
    config = StepPolicyConfig('complexity', 1, complexity_min=0.0, alpha=3.0, latency_cap_s=cap)
    outcomes = simulate(StepPolicy(config), switching_load)
    late_per_change = np.zeros(10)
    for outcome in outcomes:
        if outcome.latency_s > cap:
            late_per_change[int(outcome.received_s // 10.0)] += 1
    assert late_per_change.max() <= 3
