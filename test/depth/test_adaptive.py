"""AdaptiveDepth with networks that run at once: results, seeds, decisions, observed latency."""

from __future__ import annotations

from dataclasses import replace
import time

from adaptive_fixtures import scene
import numpy as np
import pytest

from marigold_ros.depth.adaptive import (
    AdaptiveConfig,
    AdaptiveDepth,
    AdaptivePrediction,
    Frame,
)
from marigold_ros.depth.complexity import entropy, gradient_energy
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.errors import ConfigError, DepthError, InputError
from marigold_ros.depth.networks import ImmediateExecutor
from marigold_ros.depth.types import BatchTiming

FIXED = StepPolicyConfig(policy='fixed', max_inference_steps=2, latency_cap_s=None)


def frame(camera='left', height=48, width=64, age_s=0.0, stamp_s=0.0, rgb=None):
    if rgb is None:
        rgb = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    return Frame(camera, rgb, round(1e9 * stamp_s), time.monotonic() - age_s)


def at_once(engine, config, cameras=(), **kwargs):
    """Return an AdaptiveDepth of which every run has ended when its frame is returned."""
    return AdaptiveDepth(engine, config, cameras, networks=ImmediateExecutor(), **kwargs)


def depth(result):
    return result.affine_invariant_depth


def test_results_keep_the_order_of_frames_of_several_sizes(engine):
    adaptive = at_once(engine, AdaptiveConfig(FIXED), ['left', 'right', 'rear'])
    frames = [frame('left'), frame('right', 64, 48), frame('rear')]
    found = adaptive.process(frames)
    assert [depth(each).shape for each in found] == [(48, 64), (64, 48), (48, 64)]
    alone = engine.infer(frames[1].rgb, num_inference_steps=2, seed=1)
    assert depth(found[1]) == pytest.approx(depth(alone), abs=1e-5)


def test_a_cameras_seed_is_its_index(engine):
    """Whatever frames are processed before and together with it."""
    adaptive = at_once(engine, AdaptiveConfig(FIXED), ['left', 'right'])
    first, = adaptive.process([frame('right')])
    adaptive.process([frame('left')])
    again = adaptive.process([frame('left'), frame('right')])[1]
    of_left, of_unlisted = (adaptive.process([frame(name)])[0] for name in ('left', 'unlisted'))
    assert depth(again) == pytest.approx(depth(first), abs=1e-5)
    assert not np.allclose(depth(of_left), depth(first), atol=1e-3)
    assert depth(of_unlisted) == pytest.approx(depth(of_left), abs=1e-5)


@pytest.mark.parametrize('measure, formula',
                         [('gradient_energy', gradient_energy), ('entropy', entropy)])
def test_a_prediction_contains_the_decision_on_its_steps(engine, measure, formula):
    config = AdaptiveConfig(StepPolicyConfig('complexity', complexity_min=0.0, alpha=1e9,
                                             latency_cap_s=None), measure)
    image = frame(age_s=2.0)
    found, = at_once(engine, config).process([image])
    assert isinstance(found, AdaptivePrediction)
    assert found.decision.complexity == formula(image.rgb)
    assert 2.0 <= found.decision.age_s < 3.0
    assert found.decision.decided_steps == found.num_inference_steps == 4
    assert found.decision.reason.startswith('complexity: T(')


def test_the_reason_mentions_a_reached_deadline(engine):
    """Without latency measurements the policy decides Tmax for a late frame."""
    config = AdaptiveConfig(StepPolicyConfig(policy='fixed', latency_cap_s=0.1))
    found, = at_once(engine, config).process([frame(age_s=1.0)])
    assert (found.decision.decided_steps, found.num_inference_steps) == (4, 1)
    assert found.decision.reason == 'fixed: Tmax = 4; stopped after 1 by the deadline'


def test_publishing_counts_as_time_of_the_batch(engine):
    """As that of the frame before, and not for the batches of other cameras."""
    adaptive = at_once(engine, AdaptiveConfig(FIXED))
    frames = small, large = frame(), frame('right', 48, 96)
    for _ in range(2):
        for each, _ in adaptive.advance(frames):
            time.sleep(0.5 if each.camera == 'left' else 0.0)
        frames = frame(), frame('right', 48, 96)
    costs = [adaptive.policy.latency.estimate(engine.padded_size(*each.rgb.shape[:2]), 1)
             for each in (small, large)]
    assert costs[0].after_s > 0.5 > costs[1].after_s


def test_configure_keeps_the_statistics_that_stay_valid(engine):
    adaptive = at_once(engine, AdaptiveConfig(FIXED))
    adaptive.warm_up([(48, 64)], [1])
    size = engine.padded_size(48, 64)
    adaptive.configure(AdaptiveConfig(StepPolicyConfig(latency_cap_s=None)))
    assert adaptive.process([frame()])[0].decision.reason.startswith('novelty: ')
    assert adaptive.policy.latency.estimate(size, 1) is not None
    adaptive.configure(AdaptiveConfig(StepPolicyConfig(latency_cap_s=None), ensemble_size=3))
    assert adaptive.policy.latency.estimate(size, 1) is None  # members cost more


@pytest.mark.parametrize('values, message', [
    ({'complexity_measure': 'colour'}, 'must be one of entropy, gradient_energy; got .colour.'),
    ({'ensemble_size': 0}, '`ensemble_size` must be at least 1; got 0'),
    ({'max_carry_s': 0.0}, '`max_carry_s` must be positive; got 0.0')])
def test_invalid_settings_are_rejected_with_their_value(values, message):
    with pytest.raises(ConfigError, match=message):
        AdaptiveConfig(**values)


NOVELTY = AdaptiveConfig(StepPolicyConfig(latency_cap_s=None))


def steps_of(adaptive, *images, camera='left', first_s=1.0, period_s=0.1):
    """Process images in turn; return their numbers of steps."""
    return [adaptive.process([frame(camera, rgb=rgb, stamp_s=first_s + i * period_s)])[0]
            .num_inference_steps for i, rgb in enumerate(images)]


def test_a_standing_camera_runs_when_depth_is_too_old(engine):
    """At 10 Hz for 4.1 s, with 2 s as the longest time: the first, the 21st and the 41st frame."""
    steps = steps_of(at_once(engine, NOVELTY, clock=lambda: 0.0), *[scene()] * 41)
    assert [i for i, each in enumerate(steps) if each] == [0, 20, 40]


def test_a_carried_prediction_says_so(engine):
    adaptive = at_once(engine, NOVELTY)
    run, = adaptive.process([frame(rgb=scene(), stamp_s=1.0)])
    carried, = adaptive.process([frame(rgb=scene(dx=10), stamp_s=1.5)])
    assert carried.num_inference_steps == carried.decision.decided_steps == 0
    assert carried.latent is None and carried.timing.total_s == 0.0
    assert carried.decision.carried_s == pytest.approx(0.5)
    assert carried.decision.reason.startswith('novelty: T(0.03')
    assert carried.covered_share == pytest.approx(1 - 10 / 320, abs=0.01)
    assert np.abs(depth(carried)[:, 12:] - depth(run)[:, 2:-10]).mean() < 0.05
    assert np.isnan(carried.known_depth[:, :8]).all()
    assert (carried.confidence[:, :8] == 0.0).all()
    assert not np.isnan(carried.known_depth[:, 12:]).any()
    assert run.covered is None and run.known_depth is run.affine_invariant_depth


def test_what_comes_into_view_asks_for_a_run(engine):
    """7 % of the image: after 23 of 320 columns."""
    steps = steps_of(at_once(engine, NOVELTY), *(scene(dx=8 * i) for i in range(9)))
    assert [i for i, each in enumerate(steps) if each] == [0, 3, 6]


def test_a_small_thing_asks_for_a_run_when_it_comes_and_when_it_goes(engine):
    with_thing = scene()
    with_thing[100:128, 150:178] = 255  # 1 % of the image
    steps = steps_of(at_once(engine, NOVELTY), scene(), scene(), with_thing, with_thing,
                     scene(), scene())
    assert [bool(each) for each in steps] == [True, False, True, False, True, False]


@pytest.mark.parametrize('other', [
    {'rgb': scene(seed=9)}, {'rgb': scene()[:120], 'stamp_s': 1.2}, {'stamp_s': 0.5},
    {'stamp_s': 4.0}], ids=['cut', 'other size', 'back in time', 'pause'])
def test_carrying_starts_afresh(engine, other):
    adaptive = at_once(engine, NOVELTY)
    assert steps_of(adaptive, scene(), scene()) == [1, 0]
    found, = adaptive.process([frame(**{'rgb': scene(), 'stamp_s': 1.2, **other})])
    assert found.num_inference_steps >= 1 and found.covered is None


def test_a_reset_discards_what_is_carried(engine):
    adaptive = at_once(engine, NOVELTY)
    assert steps_of(adaptive, scene(), scene()) == [1, 0]
    adaptive.reset()
    assert steps_of(adaptive, scene(), first_s=1.2) == [1]


def test_a_prediction_has_the_flow_from_the_frame_before(engine):
    """None at the start and after a pause."""
    adaptive = at_once(engine, AdaptiveConfig(StepPolicyConfig()))
    first, second, late = (
        adaptive.process([frame(rgb=scene(dx=dx), stamp_s=stamp_s)])[0].flow
        for dx, stamp_s in ((0, 1.0), (4, 1.1), (8, 9.0)))
    assert first is None and late is None
    assert second.since_ns == 1_000_000_000
    moved = second.source[..., 0] - np.arange(320)
    assert np.median(moved) == pytest.approx(-4.0, abs=0.3)


def test_nothing_is_carried_across_cameras(engine):
    adaptive = at_once(engine, NOVELTY, ['left', 'right'])
    steps_of(adaptive, scene())
    pair = [frame('right', rgb=scene(), stamp_s=1.1), frame('left', rgb=scene(), stamp_s=1.1)]
    assert [each.num_inference_steps for each in adaptive.process(pair)] == [1, 0]


def test_stamps_without_time_are_replaced_by_the_receipt(engine):
    adaptive, decisions = at_once(engine, NOVELTY, clock=lambda: now_s), []
    for now_s in (10.0, 11.0, 12.0):
        found, = adaptive.process([Frame('left', scene(), 0, now_s)])
        decisions.append(found.decision)
    assert [each.carried_s for each in decisions[:2]] == pytest.approx([0.0, 1.0])
    assert decisions[2].reason.endswith('1: carried for 2.0 s')


def test_the_cap_limits_the_steps_of_frames_that_wait_only(engine):
    adaptive = at_once(engine, AdaptiveConfig(StepPolicyConfig('fixed', latency_cap_s=0.5)))
    adaptive.policy.observe(BatchTiming(engine.padded_size(240, 320), (4,), 0.0, 0.8, 0.0))
    waits, = adaptive.process([frame(rgb=scene(), stamp_s=1.0)])
    assert waits.decision.decided_steps == 2
    assert waits.decision.reason.startswith('fixed: Tmax = 4; reduced to 2 by the cap: 500 ms')
    carried, = adaptive.process([frame(rgb=scene(), stamp_s=1.1)])
    assert carried.num_inference_steps == 4 and carried.decision.reason == 'fixed: Tmax = 4'
    for _ in range(20):
        adaptive.policy.observe(BatchTiming(engine.padded_size(240, 320), (1,), 0.0, 60.0, 0.0))
    late, = adaptive.process([frame(rgb=scene(seed=9), stamp_s=1.2)])
    assert late.num_inference_steps == 1 and late.decision.reason.startswith('late, run with 1')


def test_an_error_of_one_size_does_not_keep_the_others(engine, monkeypatch):
    adaptive, infer = at_once(engine, NOVELTY), engine.infer_batch

    def fail_for_small_images(frames, *args, **kwargs):
        if frames[0].shape[0] < 100:
            raise OSError('simulated')
        return infer(frames, *args, **kwargs)

    monkeypatch.setattr(engine, 'infer_batch', fail_for_small_images)
    results = adaptive.advance([frame('left', 48, 96), frame('right', rgb=scene())])
    assert next(results)[0].camera == 'right'
    with pytest.raises(DepthError, match='OSError: simulated') as caught:
        next(results)
    assert caught.value.cameras == ('left',) and isinstance(caught.value.__cause__, OSError)
    with pytest.raises(DepthError):
        adaptive.process([frame('left', 48, 96)])


def test_two_frames_of_a_camera_at_once_are_rejected(engine):
    with pytest.raises(InputError, match='`frames` must be at most one of each camera'):
        at_once(engine, NOVELTY).process([frame('left'), frame('left')])


def test_metric_depth_follows_the_camera_with_the_last_scale(engine):
    """
    A wall at 3 m by the fit; the camera comes 0.5 m nearer in one frame.

    Before the first fit it moves along the image only, so the fit holds what it moved until then.
    """
    adaptive, K = at_once(engine, NOVELTY), np.array(
        [[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    there = np.eye(4)
    there[2, 3] = 0.5

    def process(stamp_s, pose):
        result, = adaptive.process([Frame('left', scene(), round(1e9 * stamp_s),
                                          time.monotonic(), K, pose)])
        return depth(result)

    behind = np.eye(4)
    behind[2, 3] = -0.3
    run = process(1.0, behind)
    assert np.abs(process(1.1, np.eye(4)) - run).max() < 0.02  # no scale yet
    adaptive.set_scale('left', (2.0, 1.0))
    assert np.abs(2.0 * process(1.2, there) + 1.0 - (2.0 * run + 1.0 - 0.5)).max() < 0.02
    adaptive.set_scale('left', (2.0, 1.0))  # as of every frame
    assert np.abs(2.0 * process(1.3, None) + 1.0 - (2.0 * run + 0.5)).max() < 0.02  # newest pose
    adaptive.set_scale('left', None)
    assert np.abs(process(1.4, there) - run).max() < 0.02


@pytest.mark.parametrize('policy', [NOVELTY, AdaptiveConfig(FIXED)], ids=['novelty', 'fixed'])
def test_a_run_tells_how_its_gauge_differs_from_what_was_carried(engine, monkeypatch, policy):
    """A tenth of the image comes into view, and the run there has half the contrast."""
    adaptive, infer = at_once(engine, policy), engine.infer_batch
    ramp = np.tile(np.linspace(0.1, 0.9, 320, dtype=np.float32), (240, 1))

    def predict(*args, **kwargs):
        return [replace(each, affine_invariant_depth=runs.pop(0)) for each in infer(
            *args, **kwargs)]

    monkeypatch.setattr(engine, 'infer_batch', predict)
    runs = [ramp, 0.5 * np.roll(ramp, 32, axis=1) + np.float32(0.25), ramp]
    known = {'K': np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]]), 'pose': np.eye(4)}
    first, = adaptive.process([replace(frame(rgb=scene(), stamp_s=1.0), **known)])
    adaptive.set_scale('left', (4.0, 1.0))
    second, = adaptive.process([replace(frame(rgb=scene(dx=32), stamp_s=1.1), **known)])
    assert first.gauge_change is None  # there was nothing to compare with
    assert second.num_inference_steps > 0
    assert second.gauge_change.factor == pytest.approx(0.5, abs=0.02)
    assert second.gauge_change.offset == pytest.approx(0.25, abs=0.02)
    cut, = adaptive.process([frame(rgb=scene(seed=9), stamp_s=1.2)])
    assert cut.num_inference_steps > 0 and cut.gauge_change is None
