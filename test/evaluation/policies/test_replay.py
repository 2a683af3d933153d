"""Replayed policies: carrying, simulated arrivals, latency cap; numbers computed by hand."""

from __future__ import annotations

from dataclasses import replace
import gc
from itertools import islice
from pathlib import Path
import weakref

import cv2
import numpy as np
import pytest

from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.adaptive import AdaptiveConfig, AdaptiveDepth, Frame
from marigold_ros.depth.carry import StepFinder
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.networks import ImmediateExecutor
from marigold_ros.depth.types import DepthPrediction, StageTiming
from marigold_ros.evaluation.config import fixed_name
from marigold_ros.evaluation.metrics.protocols import FrameScorer
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable
from marigold_ros.evaluation.policies.replay import (
    ArrivalSimulation,
    EvaluatedFrame,
    PolicyReplay,
    RecordedFrame,
    SharedSteps,
)

SAMPLE = Path(__file__).parents[3] / 'sample' / 'living_room'
T_MAX = 4
# 19 ms of other stages and 10 ms a step beside the frames, which take 3 ms each.
COST = FrameCost(preprocess_s=0.004, encode_s=0.005, step_s=0.01, decode_s=0.006,
                 postprocess_s=0.004, complexity_s=0.001, carry_s=0.002)
SIZE = HEIGHT, WIDTH = 96, 128
MS = 10 ** 6
SCORER = FrameScorer(Rules(), 'A')


class FakeEngine:
    """Stand for the engine whose predictions were recorded."""

    def padded_size(self, height, width):
        return height, width

    def upsample(self, prediction, rgb):
        """Of maps that have the size of the image."""
        return prediction


def picture(seed=0):
    """Return an image with a texture that flow can follow, and its depth."""
    rng = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(rng.normal(size=SIZE).astype(np.float32), (0, 0), 3)
    grey = np.clip(128 + 60 * blobs / blobs.std(), 0, 255).astype(np.uint8)
    return np.dstack([grey] * 3), 1.0 + 3.0 * np.tile(
        np.linspace(0, 1, WIDTH, dtype=np.float32) ** 2, (HEIGHT, 1))


def frame(number, at_ms, errors=(0.1, 0.2, 0.3, 0.4), seed=0):
    """
    Return a frame that was run with every T.

    The prediction of T steps has the error errors[T - 1]: a bump of that height.
    """
    rgb, depth_m = picture(seed)
    stamp_ns = None if at_ms is None else 10 ** 12 + at_ms * MS
    truth = DepthFrame(str(number), rgb, depth_m, np.ones(SIZE, bool), 'camera', 'block', stamp_ns,
                       np.array([[100.0, 0, 63.5], [0, 100, 47.5], [0, 0, 1]]), np.eye(4))
    predictions = {}
    for steps, error in enumerate(errors, 1):
        bump = error * np.sin(np.linspace(0, 9, WIDTH, dtype=np.float32))
        predictions[steps] = DepthPrediction(
            (depth_m - 1.0) / 3.0 + bump, None, None, None, steps, 'schedule',
            StageTiming(9.0, 9.0, 9.0, 9.0, 9.0))
    return record(number, truth, predictions)


def record(number, truth, predictions):
    """Return a frame with its runs and their scores."""
    scores = {steps: SCORER.score(each.affine_invariant_depth, truth)
              for steps, each in predictions.items()}
    evaluated = EvaluatedFrame(
        number, truth.name, truth.block, truth.set_name, truth.stamp_ns, truth.rgb.shape[:2],
        {fixed_name(steps): each.quality for steps, each in scores.items()}, 0.0)
    return RecordedFrame(truth, evaluated, predictions, SCORER, {}, scores)


def make_replay(policy, cap_ms=None, timed=False, steps=None):
    return PolicyReplay(policy, FakeEngine(), LatencyTable({}, {SIZE: [COST]}), T_MAX,
                        cap_ms and cap_ms / 1e3, timed=timed, steps=steps)


def replay(policy, frames):
    """Process one frame after the other."""
    each_in_turn = make_replay(policy)
    return [each_in_turn.process(each).result for each in frames]


def simulate(policy, frames, cap_ms=None):
    """Simulate frame arrivals with one cost for all frames."""
    simulation = ArrivalSimulation(make_replay(policy, cap_ms, timed=True))
    found = [each.result for recorded in frames for each in simulation.add(recorded)]
    return [*found, *(each.result for each in simulation.finish())]


def steps_of(results):
    return [each.num_inference_steps for each in results]


def test_frames_that_come_while_the_first_waits_for_its_run_are_superseded():
    """It takes 62 ms; then the newest is processed, which is 42 ms old."""
    found = simulate('fixed-4', [frame(i, 10 * i) for i in range(3)])
    assert [each.outcome for each in found] == ['processed', 'superseded', 'processed']
    assert steps_of(found) == [4, 0, 0]
    assert (found[0].age_s, found[0].latency_s) == pytest.approx((0.0, 0.062))
    assert (found[2].age_s, found[2].latency_s) == pytest.approx((0.042, 0.045))


def test_networks_run_beside_the_frames():
    """A run takes 59 ms, so at 40 ms it is shown by the second frame after it has begun."""
    found = simulate('fixed-4', [frame(i, 40 * i) for i in range(2, 9)])
    assert {each.outcome for each in found[2:]} == {'processed'}
    assert steps_of(found) == [4, 0, 0, 0, 4, 0, 4]
    assert [each.latency_s for each in found[3:]] == pytest.approx([0.003] * 4)


def test_depth_is_carried_while_nothing_is_new():
    """
    A standing camera at 10 Hz: one run, and another after `max_carry_s`, 2 s.

    If runs take time, the frame after that has its depth.
    """
    frames = [frame(i, 100 * i) for i in range(25)]
    at_once, timed = replay('novelty', frames), simulate('novelty', frames)
    assert np.flatnonzero(steps_of(at_once)).tolist() == [0, 20]
    assert np.flatnonzero(steps_of(timed)).tolist() == [0, 21]
    assert [each.latency_s for each in timed[:2]] == pytest.approx([0.032, 0.003])
    assert timed[1].covered_share == 1.0
    assert 'carried for 2.0 s' in at_once[20].reason and 'carried for 2.0 s' in timed[21].reason


def test_carried_frames_do_not_wait_at_30_hz():
    """The first takes 32 ms, so no frame is superseded at 33 ms."""
    found = simulate('novelty', [frame(i, 33 * i) for i in range(20)])
    assert {each.outcome for each in found} == {'processed'}
    assert sum(steps_of(found)) == 1


def test_another_scene_is_run_at_once():
    found = replay('novelty', [frame(i, 100 * i, seed=int(i >= 3)) for i in range(6)])
    assert steps_of(found) == [1, 0, 0, 1, 0, 0]


def test_single_frames_never_carry():
    for policy in ('novelty', 'complexity-entropy', 'random', 'oracle', 'every-3'):
        assert min(steps_of(replay(policy, [frame(i, None) for i in range(6)]))) == 1


def test_every_n_runs_every_nth_frame():
    assert steps_of(replay('every-3', [frame(i, 100 * i) for i in range(8)])) == [
        1, 0, 0, 1, 0, 0, 1, 0]


def test_carried_depth_is_scored_as_it_is():
    """The error of the run stays in the frames into which it is carried."""
    frames = [frame(0, 0, errors=(0.3,) * 4), *(frame(i, 100 * i) for i in (1, 2))]
    found = replay('novelty', frames)
    assert steps_of(found) == [1, 0, 0]
    first, *carried = [each.quality['abs_rel'] for each in found]
    assert carried == pytest.approx([first, first], rel=0.02)
    assert frames[1].evaluated.quality['fixed-1']['abs_rel'] < 0.5 * first


def test_policies_that_did_the_same_are_scored_once():
    frames = [frame(i, 100 * i) for i in range(3)]
    for policy in ('novelty', 'every-20', 'every-3'):
        replay(policy, frames)
    assert [len(each.scores) for each in frames] == [4, 5, 5]


def test_depth_that_is_moved_by_a_scale_of_its_own_is_scored_on_its_own():
    """The camera moves 0.2 m ahead; only one policy knows the scale, and so the error falls."""
    still, ahead = frame(0, 0, errors=(0.0,) * 4), frame(1, 100)
    ahead.frame.world_from_camera[2, 3] = 0.2
    nearer_m = ahead.frame.depth_m - 0.2
    ahead = record(1, replace(ahead.frame, depth_m=nearer_m), ahead.predictions)
    errors = []
    for scaled in (False, True):
        policy = make_replay('novelty')
        policy.process(still)
        if scaled:
            policy.set_scale('camera', (3.0, 1.0))
        prediction = policy.process(ahead).prediction
        errors.append(np.abs(3.0 * prediction.affine_invariant_depth + 1.0 - nearer_m).mean())
    assert len(ahead.scores) == T_MAX + 2
    assert errors[1] < errors[0] - 0.15


def test_replays_keep_no_images():
    """But for the newest frame, and the one that waits in a simulation."""
    each_in_turn, simulation = make_replay('novelty'), ArrivalSimulation(make_replay('fixed-4'))
    results, images = [], []
    for i in range(6):
        recorded = frame(i, 10 * i)
        images.append(weakref.ref(recorded.frame))
        results.append(each_in_turn.process(recorded).result)
        results += [each.result for each in simulation.add(recorded)]
    del recorded
    gc.collect()
    assert len(results) > 6 and sum(image() is not None for image in images) <= 2


def test_the_cap_reduces_steps_but_not_those_of_fixed_policies():
    """50 ms - 5 % - 1 ms - 19 ms leave 27.5 ms: two steps."""
    oracle, = simulate('oracle', [frame(0, 0, errors=(0.4, 0.3, 0.2, 0.1))], cap_ms=50)
    assert oracle.num_inference_steps == 2
    assert 'reduced to 2' in oracle.reason
    fixed, = simulate('fixed-4', [frame(0, 0)], cap_ms=50)
    assert fixed.num_inference_steps == 4


def test_only_a_frame_that_waits_is_late():
    """A step needs 30 ms and the cap leaves 24."""
    found = simulate('oracle', [frame(i, 100 * i, errors=(0.4, 0.3, 0.2, 0.1))
                                for i in range(3)], cap_ms=25)
    assert steps_of(found) == [1, 0, 4]
    assert 'late, run with 1' in found[0].reason
    assert [each.latency_s > 0.025 for each in found] == [True, False, False]


def test_a_jump_back_in_time_resets_the_simulation():
    found = simulate('novelty', [frame(0, 1000), frame(1, 1100), frame(2, 0)])
    assert [each.outcome for each in found] == ['processed'] * 3
    assert steps_of(found) == [1, 0, 1]
    assert found[2].age_s == 0.0


def test_a_bag_that_loops_in_the_middle_of_a_run_is_simulated_again():
    """The simulated time goes on, so the run ends, and the second pass is as the first."""
    once = [frame(i, 40 * i) for i in range(12)]
    found = simulate('fixed-4', [*once, *once])
    first, second = found[:12], found[12:]
    assert [each.outcome for each in second] == [each.outcome for each in first]
    assert max(each.latency_s for each in second[1:] if each.outcome == 'processed') < 0.1


def test_frames_without_stamps_never_wait():
    found = simulate('fixed-4', [frame(i, None) for i in range(3)], cap_ms=200)
    assert [(each.outcome, each.age_s) for each in found] == [('processed', 0.0)] * 3
    assert [each.latency_s for each in found] == pytest.approx([0.062] * 3)


def test_the_oracle_takes_the_smallest_error_carried_or_not():
    runs = [frame(0, 0, errors=(0.3, 0.1, 0.2, 0.4)), frame(1, 100, errors=(0.3, 0.2, 0.2, 0.4)),
            frame(2, 200, errors=(0.3, 0.2, 0.01, 0.4))]
    assert steps_of(replay('oracle', runs)) == [2, 0, 3]


def test_random_is_deterministic():
    frames = [frame(i, 100 * i) for i in range(40)]
    drawn = steps_of(replay('random', frames))
    assert set(drawn) == {0, 1, 2, 3, 4}
    assert drawn == steps_of(replay('random', frames))


def test_a_sequence_is_replayed_as_the_node_processes_it():
    """The depth of the replay is that of AdaptiveDepth with the networks, in every frame."""
    engine = DepthEngine.load('tiny', device='cpu', dtype='float32', processing_resolution=160)
    adaptive = AdaptiveDepth(engine, AdaptiveConfig(StepPolicyConfig(latency_cap_s=None)),
                             networks=ImmediateExecutor(), clock=lambda: 0.0)
    size = engine.padded_size(480, 640)
    replayed = PolicyReplay('novelty', engine, LatencyTable({}, {size: [COST]}), T_MAX)
    steps = []
    for number, truth in enumerate(islice(bag_data_set(SAMPLE).frames(), 12, 26, 2)):
        runs = {count: engine.infer_batch([truth.rgb], [count], upsample=False)[0]
                for count in range(1, T_MAX + 1)}
        recorded = record(number, truth, {count: engine.upsample(each, truth.rgb)
                                          for count, each in runs.items()})
        found = replayed.process(RecordedFrame(
            truth, EvaluatedFrame(number, '', '', 'camera', truth.stamp_ns, size,
                                  recorded.evaluated.quality, 0.0), runs, SCORER, {},
            recorded.scores))
        wanted, = adaptive.process([Frame('camera', truth.rgb, truth.stamp_ns, 0.0, truth.K,
                                          truth.world_from_camera)])
        assert found.prediction.num_inference_steps == wanted.num_inference_steps
        np.testing.assert_array_equal(found.prediction.affine_invariant_depth,
                                      wanted.affine_invariant_depth)
        steps.append(wanted.num_inference_steps)
    assert 0 in steps and 1 in steps[1:]


def test_a_frame_has_the_same_cost_with_every_policy():
    costs = [FrameCost(0, 0, 0.01 * i, 0, 0, 0, 0) for i in range(1, 6)]
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


def test_what_policies_share_is_computed_once_and_changes_nothing(monkeypatch):
    """Two policies that do the same, and one that is a frame behind."""
    flows, upsamplings = [], []
    find, upsample = StepFinder.find, FakeEngine.upsample
    monkeypatch.setattr(StepFinder, 'find', lambda *args: flows.append(0) or find(*args))
    monkeypatch.setattr(FakeEngine, 'upsample',
                        lambda *args: upsamplings.append(0) or upsample(*args))

    def run(steps):
        frames = [frame(number, 100 * number) for number in range(6)]
        replays = [make_replay('novelty', steps=steps) for _ in range(3)]
        return [each.process(frames[number - lag]).prediction.affine_invariant_depth
                for number in range(1, 6) for each, lag in zip(replays, (0, 0, 1))]

    alone = run(None)
    assert len(flows) == 3 * 4
    flows.clear()
    upsamplings.clear()
    np.testing.assert_array_equal(run(SharedSteps()), alone)
    assert len(flows) == 5  # from each of the six frames to the next
    assert len(upsamplings) == 6 + 1  # frame 1 is run by two policies, and carried into by one
