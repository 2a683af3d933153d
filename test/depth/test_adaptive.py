"""AdaptiveDepth: results, seeds, decisions and observed latency."""

from __future__ import annotations

import time

from checkpoints import make_checkpoint
import numpy as np
import pytest

from marigold_ros.depth.adaptive import (
    AdaptiveConfig,
    AdaptiveDepth,
    AdaptivePrediction,
    Frame,
    SkippedFrame,
)
from marigold_ros.depth.complexity import entropy, gradient_energy
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.types import BatchTiming

FIXED = StepPolicyConfig(policy='fixed', max_inference_steps=2, latency_cap_s=None)


@pytest.fixture(scope='module')
def engine(tmp_path_factory):
    folder = make_checkpoint(tmp_path_factory.mktemp('checkpoint'))
    return DepthEngine.load(str(folder), device='cpu', dtype='float32')


def frame(camera='left', height=48, width=64, age_s=0.0):
    rgb = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    return Frame(camera, rgb, 0, time.monotonic() - age_s)


def depth(result):
    return result.affine_invariant_depth


def test_results_keep_the_order_of_frames_of_several_sizes(engine):
    adaptive = AdaptiveDepth(engine, AdaptiveConfig(FIXED), ['left', 'right', 'rear'])
    frames = [frame('left'), frame('right', 64, 48), frame('rear')]
    found = adaptive.process(frames)
    assert [depth(each).shape for each in found] == [(48, 64), (64, 48), (48, 64)]
    alone = engine.infer(frames[1].rgb, num_inference_steps=2, seed=1)
    assert depth(found[1]) == pytest.approx(depth(alone), abs=1e-5)


def test_a_cameras_seed_is_its_index(engine):
    """Whatever frames are processed before and together with it."""
    adaptive = AdaptiveDepth(engine, AdaptiveConfig(FIXED), ['left', 'right'])
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
    config = AdaptiveConfig(
        StepPolicyConfig(complexity_min=0.0, alpha=1e9, latency_cap_s=None), measure)
    image = frame(age_s=2.0)
    found, = AdaptiveDepth(engine, config).process([image])
    assert isinstance(found, AdaptivePrediction)
    assert found.decision.complexity == formula(image.rgb)
    assert 2.0 <= found.decision.age_s < 3.0
    assert found.decision.decided_steps == found.num_inference_steps == 4
    assert found.decision.reason.startswith('complexity: T(')


def test_the_reason_mentions_a_reached_deadline(engine):
    """Without latency measurements the policy decides Tmax for a late frame."""
    config = AdaptiveConfig(StepPolicyConfig(policy='fixed', latency_cap_s=0.1))
    found, = AdaptiveDepth(engine, config).process([frame(age_s=1.0)])
    assert (found.decision.decided_steps, found.num_inference_steps) == (4, 1)
    assert found.decision.reason == 'fixed: Tmax = 4; stopped after 1 by the deadline'


def test_a_late_frame_is_skipped_if_configured(engine):
    config = AdaptiveConfig(StepPolicyConfig(latency_cap_s=0.1, late_frames='skip'))
    adaptive = AdaptiveDepth(engine, config)
    size = engine.padded_size(48, 64)
    adaptive.policy.observe(BatchTiming(size, (1,), 0.0, 1.0, 0.0))
    found, = adaptive.process([frame()])
    assert isinstance(found, SkippedFrame)
    assert found.decision.decided_steps == 0 and found.decision.reason.startswith('late, skipped')
    known = adaptive.policy.latency.estimate(size, 1)
    adaptive.observe(time.monotonic() + 60.0)
    assert adaptive.policy.latency.estimate(size, 1) == known  # a skipped frame is not measured


@pytest.mark.parametrize('publication_s, expected_s', [(5.0, 5.0), (None, 0.0)])
def test_observe_includes_the_time_after_inference(engine, publication_s, expected_s):
    """Without a call, the next `process` observes inference alone."""
    adaptive = AdaptiveDepth(engine, AdaptiveConfig(FIXED))
    adaptive.process([frame()])
    size = engine.padded_size(48, 64)
    assert adaptive.policy.latency.estimate(size, 1) is None
    if publication_s is None:
        adaptive.process([frame('left', 96, 96)])
    else:
        adaptive.observe(time.monotonic() + publication_s)
    assert adaptive.policy.latency.estimate(size, 1).after_s == pytest.approx(expected_s, abs=1.0)


def test_configure_keeps_the_statistics_that_stay_valid(engine):
    adaptive = AdaptiveDepth(engine, AdaptiveConfig(FIXED))
    adaptive.warm_up([(48, 64)], [1])
    size = engine.padded_size(48, 64)
    adaptive.configure(AdaptiveConfig(StepPolicyConfig(latency_cap_s=None)))
    assert adaptive.process([frame()])[0].decision.reason.startswith('complexity: ')
    assert adaptive.policy.latency.estimate(size, 1) is not None
    adaptive.configure(AdaptiveConfig(StepPolicyConfig(latency_cap_s=None), ensemble_size=3))
    assert adaptive.policy.latency.estimate(size, 1) is None  # members cost more


@pytest.mark.parametrize('values, message', [
    ({'complexity_measure': 'colour'}, 'must be one of gradient_energy, entropy; got .colour.'),
    ({'ensemble_size': 0}, '`ensemble_size` must be at least 1; got 0')])
def test_invalid_settings_are_rejected_with_their_value(values, message):
    with pytest.raises(ConfigError, match=message):
        AdaptiveConfig(**values)
