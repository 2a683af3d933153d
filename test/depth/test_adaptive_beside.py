"""AdaptiveDepth with networks that run beside the frames, and end when the test says so."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
import threading
import time

from adaptive_fixtures import scene
import numpy as np
import pytest

from marigold_ros.depth.adaptive import AdaptiveConfig, AdaptiveDepth, Frame
from marigold_ros.depth.carry import StepFinder
from marigold_ros.depth.complexity import measure_complexity, reduce_to_grey
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.errors import DepthError

NOVELTY = AdaptiveConfig(StepPolicyConfig(latency_cap_s=None))
ALWAYS = AdaptiveConfig(StepPolicyConfig('fixed', max_inference_steps=1, latency_cap_s=None))
K = np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]])


class HeldNetworks(Executor):
    """Networks that are busy until `end` is called."""

    def __init__(self):
        self.held = []
        self.runs = 0

    def submit(self, call, /, *args, **kwargs):
        assert not self.held, 'one run at a time'
        self.runs += 1
        self.held = [(Future(), partial(call, *args, **kwargs))]
        return self.held[0][0]

    def end(self, error=None):
        (future, call), = self.held
        self.held = []
        if error is None:
            future.set_result(call())
        else:
            future.set_exception(error)


class Robot:
    """An AdaptiveDepth on a simulated clock, whose stamps and receipts are the same time."""

    def __init__(self, engine, config=NOVELTY, cameras=('left', 'right')):
        self.networks, self.now_s = HeldNetworks(), 10.0
        self.adaptive = AdaptiveDepth(engine, config, cameras, networks=self.networks,
                                      clock=lambda: self.now_s)

    def send(self, *images, cameras=('left', 'right'), after_s=0.1, **kwargs):
        """Let time pass, send an image of each camera, and return their depth by camera."""
        self.now_s += after_s
        return self.advance(*(Frame(camera, rgb, round(1e9 * self.now_s), self.now_s, **kwargs)
                              for camera, rgb in zip(cameras, images)))

    def advance(self, *frames):
        return {frame.camera: prediction for frame, prediction in self.adaptive.advance(frames)}

    def end_run(self, *args):
        self.networks.end(*args)
        return self.advance()

    @property
    def waiting(self):
        """When the frames were received that have no depth yet, s."""
        return sorted(frame.received_s for frame in self.adaptive.waiting_frames)


def test_only_the_first_frame_waits_and_the_newest_gets_its_depth(engine):
    robot = Robot(engine)
    assert robot.send(scene()) == {} and robot.send(scene(dx=4)) == {}
    assert robot.send(scene(dx=8)) == {}
    assert robot.waiting == pytest.approx([10.1, 10.3])
    found = robot.end_run()['left']
    assert (found.num_inference_steps, found.decision.carried_s) == (1, pytest.approx(0.2))
    assert found.decision.reason == 'novelty: nothing to carry -> 1'
    alone = engine.infer(scene(), num_inference_steps=1)
    moved = found.affine_invariant_depth[8:-8, 24:-16] - alone.affine_invariant_depth[8:-8, 16:-24]
    assert np.abs(moved).mean() < 0.03
    assert found.covered_share == pytest.approx(1 - 8 / 320, abs=0.01)
    assert robot.waiting == []


def test_a_frame_that_waits_gets_the_depth_of_its_own_run(engine):
    """Unless a newer one gets it."""
    robot = Robot(engine)
    robot.send(scene())
    found = robot.end_run()['left']
    alone = engine.infer(scene(), num_inference_steps=1)
    assert np.array_equal(found.affine_invariant_depth, alone.affine_invariant_depth)
    assert found.covered is None and found.decision.carried_s == 0.0


def test_a_frame_never_waits_while_depth_can_be_carried(engine):
    """A run for what came into view is shown by the first frame after its end."""
    robot = Robot(engine)
    robot.send(scene())
    robot.end_run()
    frames = [robot.send(scene(dx=dx))['left'] for dx in (30, 38, 46)]
    assert [each.num_inference_steps for each in frames] == [0, 0, 0]
    assert [each.decision.decided_steps for each in frames] == [1, 0, 0]
    assert frames[2].decision.reason == 'carried while the networks are busy'
    assert robot.end_run() == {}  # no frame is waiting
    shown = robot.send(scene(dx=50))['left']
    assert (shown.num_inference_steps, shown.decision.carried_s) == (1, pytest.approx(0.3))
    assert shown.decision.reason.startswith('novelty: T(0.')
    assert shown.covered_share == pytest.approx(1 - 20 / 320, abs=0.015)
    assert robot.send(scene(dx=50))['left'].num_inference_steps == 0
    assert robot.networks.runs == 2


def test_what_changed_while_the_networks_were_busy_is_not_forgotten(engine):
    robot, with_thing = Robot(engine), scene()
    with_thing[100:128, 150:178] = 255  # 1 % of the image
    robot.send(scene())
    for _ in range(2):
        robot.send(with_thing)  # it comes during the first run
    robot.end_run()
    assert robot.networks.runs == 2 and robot.networks.held
    shown = robot.end_run(), robot.send(with_thing)['left']
    assert shown[0] == {} and '100% of a small region changed' in shown[1].decision.reason
    robot.send(with_thing)
    assert robot.networks.runs == 2


def test_after_a_cut_the_newest_frame_waits_for_a_run_of_its_own(engine):
    robot = Robot(engine)
    robot.send(scene())
    assert robot.send(scene(seed=9)) == {}
    first = robot.end_run()  # nothing of it is in the second frame, so it has its own depth
    assert first['left'].decision.carried_s == 0.0
    assert robot.networks.held and robot.waiting == pytest.approx([10.2])
    second = robot.end_run()['left']
    assert np.array_equal(second.affine_invariant_depth, engine.infer(
        scene(seed=9), num_inference_steps=1).affine_invariant_depth)


def test_frames_that_all_differ_get_their_own_depth_as_fast_as_the_networks_run(engine):
    robot, found = Robot(engine), []
    for seed in range(1, 10):
        found += robot.send(scene(seed=seed)).values()
        if seed % 3 == 0:
            found += robot.end_run().values()
    assert [each.decision.carried_s for each in found] == [0.0] * 3
    assert robot.networks.runs == 4


def test_a_run_that_ends_with_the_next_frame_is_not_lost(engine):
    """Every frame shows another scene, and each run ends just before one comes."""
    robot, found = Robot(engine), []
    for seed in range(1, 7):
        if robot.networks.held:
            robot.networks.end()
        found += robot.send(scene(seed=seed)).values()
    assert len(found) == 5
    assert [each.decision.carried_s for each in found] == [0.0] * 5


def test_the_most_overdue_camera_is_next_with_others_of_its_size(engine):
    cameras = ('left', 'small', 'right')
    robot = Robot(engine, ALWAYS, cameras)
    sizes = []

    def infer_batch(frames, *args, _infer=engine.infer_batch, **kwargs):
        sizes.append([rgb.shape[0] for rgb in frames])
        return _infer(frames, *args, **kwargs)

    robot.adaptive.engine = _Engine(engine, infer_batch)
    for _ in range(5):
        robot.send(scene(), scene()[:120], scene(), cameras=cameras)
        robot.end_run()
    assert sizes == [[240, 240], [120], [240, 240], [120], [240, 240]]


class _Engine:
    """An engine of which one method is replaced."""

    def __init__(self, engine, infer_batch):
        self._engine, self.infer_batch = engine, infer_batch

    def __getattr__(self, name):
        return getattr(self._engine, name)


def test_the_complexity_of_every_frame_counts(engine):
    """Also of those that come while the networks are busy, and are not decided."""
    robot, observed = Robot(engine, AdaptiveConfig(
        StepPolicyConfig('complexity', latency_cap_s=None))), []
    observe = robot.adaptive.policy.observe_complexity
    robot.adaptive.policy.observe_complexity = lambda request: (
        observed.append(request.complexity), observe(request))
    for _ in range(5):
        robot.send(scene())
    assert len(observed) == 5 and robot.networks.runs == 1


def test_a_failed_run_drops_only_what_waited_for_it_and_is_tried_again(engine):
    robot = Robot(engine)
    robot.send(scene())
    with pytest.raises(DepthError, match='OSError: no device') as caught:
        robot.end_run(OSError('no device'))
    assert caught.value.cameras == ('left',) and robot.waiting == []
    assert robot.networks.runs == 1  # not on the same frame again
    robot.send(scene())
    robot.end_run()
    # Depth goes on being carried, and so does the reason of the run.
    assert robot.send(scene(dx=30))['left'].decision.decided_steps == 1
    with pytest.raises(DepthError):
        robot.end_run(OSError('no device'))
    again = robot.send(scene(dx=30))['left']
    assert again.decision.decided_steps == 1 and again.num_inference_steps == 0
    robot.end_run()
    assert robot.send(scene(dx=30))['left'].num_inference_steps == 1


def test_a_change_that_made_a_run_that_failed_makes_another(engine):
    robot, with_thing = Robot(engine), scene()
    with_thing[100:128, 150:178] = 255
    robot.send(scene())
    robot.end_run()
    robot.send(with_thing)
    with pytest.raises(DepthError):
        robot.end_run(OSError('no device'))
    assert robot.send(with_thing)['left'].decision.decided_steps == 1


def test_depth_of_hung_networks_gets_stale(engine):
    """After 2 s, or twice the time of a run: 0.1 s here."""
    robot = Robot(engine)
    robot.send(scene())
    robot.end_run()
    found = [robot.send(scene())['left'].decision for _ in range(25)]
    assert robot.networks.runs == 2  # due after 2 s
    assert [each.stale for each in found] == [False] * 20 + [True] * 5
    assert robot.adaptive.run_s == pytest.approx(0.6, abs=0.11)
    robot.end_run()
    assert not robot.send(scene())['left'].decision.stale


def test_one_run_that_hung_does_not_let_old_depth_be_valid(engine):
    """A minute of a standing camera after a hang of 60 s, with networks that are fast again."""
    robot = Robot(engine)
    robot.send(scene())
    robot.end_run()
    for _ in range(3):  # of 0.1 s, then the hang
        while not robot.networks.held:
            robot.send(scene())
        robot.now_s += 0.1
        robot.end_run()
    while not robot.networks.held:
        robot.send(scene())
    for _ in range(600):
        robot.send(scene())
    robot.end_run()
    decisions = []
    for _ in range(600):
        if robot.networks.held:
            robot.end_run()
        decisions.append(robot.send(scene())['left'].decision)
    assert max(each.carried_s for each in decisions) <= 2.0 + 1e-6
    assert not any(each.stale for each in decisions)


@pytest.mark.parametrize('periods_s', [(0.8, 1.2), (0.1, 0.2, 0.3), (0.03, 0.037)])
def test_jitter_makes_no_frame_stale(engine, periods_s):
    """Runs end within a frame."""
    robot, stale = Robot(engine), []
    rng = np.random.default_rng(0)
    for _ in range(300):
        after_s = float(rng.choice(periods_s))
        stale += [each.decision.stale
                  for each in robot.send(scene(), after_s=after_s).values()]
        if robot.networks.held:
            stale += [each.decision.stale for each in robot.end_run().values()]
    assert sum(stale) <= 1 and len(stale) >= 299


def test_an_error_of_one_camera_lets_it_start_afresh_and_the_others_go_on(engine, monkeypatch):
    robot, reduce = Robot(engine), StepFinder.reduce

    def fail_once(self, rgb):
        if rgb.shape[0] == 120:
            raise ValueError('simulated')
        return reduce(self, rgb)

    robot.send(scene(), scene())
    robot.end_run()
    monkeypatch.setattr(StepFinder, 'reduce', fail_once)
    found = []
    with pytest.raises(DepthError, match='ValueError: simulated') as caught:
        for frame, prediction in robot.adaptive.advance([
                Frame('left', scene()[:120], 1, robot.now_s),
                Frame('right', scene(), round(1e9 * robot.now_s) + 1, robot.now_s)]):
            found.append((frame.camera, prediction.num_inference_steps))
    assert found == [('right', 0)] and caught.value.cameras == ('left',)
    assert robot.waiting == []
    monkeypatch.undo()
    assert list(robot.send(scene(), scene())) == ['right']  # the left one waits for a run
    assert set(robot.end_run()) == {'left'}


@pytest.mark.parametrize(('run_s', 'longest_s'), [(0.3, 2.0), (1.5, 3.0)])
def test_depth_is_valid_for_twice_the_time_of_a_run(engine, run_s, longest_s):
    """So depth is never stale while a standing camera waits for slow networks."""
    robot, decisions, begun_s = Robot(engine), [], {}
    for _ in range(400):
        decisions += [each.decision for each in robot.send(scene(), after_s=0.05).values()]
        # A run may begin at the end of the last.
        began_s = begun_s.setdefault(robot.networks.runs, robot.now_s)
        if robot.networks.held and robot.now_s >= began_s + run_s - 1e-6:
            robot.end_run()
            begun_s.setdefault(robot.networks.runs, robot.now_s)
    assert len(decisions) > 360 and not any(each.stale for each in decisions)
    assert longest_s - 0.2 < max(each.carried_s for each in decisions) <= longest_s + 1e-6


def test_what_is_discarded_does_not_come_back_from_the_run_in_flight(engine):
    robot = Robot(engine)
    robot.send(scene())
    robot.adaptive.reset()
    assert robot.waiting == []
    assert robot.end_run() == {} and robot.send(scene()) == {}
    assert robot.end_run()['left'].decision.carried_s == 0.0


def test_discarded_frames_get_no_depth_and_no_run(engine):
    robot = Robot(engine)
    robot.send(scene())
    robot.send(scene(), scene())
    robot.adaptive.discard_waiting()
    assert robot.waiting == []
    assert robot.end_run() == {} and robot.networks.runs == 1
    assert robot.send(scene())['left'].num_inference_steps == 1  # carried from the first frame


def test_another_size_during_a_run_starts_afresh(engine):
    robot = Robot(engine)
    robot.send(scene())
    assert robot.send(scene()[:120]) == {}
    own = robot.end_run()['left']
    assert own.affine_invariant_depth.shape == (240, 320) and own.decision.carried_s == 0.0
    assert robot.end_run()['left'].affine_invariant_depth.shape == (120, 320)


def test_metric_depth_follows_the_camera_through_a_run(engine):
    """The camera drives 0.1 m a frame towards a wall; metres hold although a run takes three."""
    robot = Robot(engine, ALWAYS)
    wall = np.full((240, 320), 0.5, np.float32)

    def infer_batch(frames, *args, _infer=engine.infer_batch, **kwargs):
        # Each run has a gauge of its own: metric depth is 4 m * relative depth + 1 m in the first.
        factor, offset = gauges.pop(0)
        depth = (wall - np.float32(robot.z_m / 4)) * factor + offset
        return [replace(each, affine_invariant_depth=np.float32(depth) + 0.001 * ramp * factor)
                for each in _infer(frames, *args, **kwargs)]

    ramp = np.tile(np.linspace(-1, 1, 320, dtype=np.float32), (240, 1))
    gauges = [(1.0, 0.0), (0.5, 0.2), (2.0, -0.5)]
    robot.adaptive.engine = _Engine(engine, infer_batch)
    scale, shift = 4.0, 1.0
    for number in range(8):
        pose = np.eye(4)
        pose[2, 3] = 0.1 * number
        for found in robot.send(scene(), K=K, pose=pose).values():
            if found.gauge_change is not None:
                scale, shift = found.gauge_change.rescale(scale, shift)
            metres = scale * found.affine_invariant_depth + shift
            assert np.median(metres) == pytest.approx(3.0 - pose[2, 3], abs=0.02)
            robot.adaptive.set_scale('left', (scale, shift))
        if number == 0:
            robot.z_m = 0.0
            robot.end_run()
            robot.adaptive.set_scale('left', (scale, shift))
        elif number % 3 == 0:
            robot.z_m = 0.1 * (number - 2)  # the run began two frames ago
            robot.end_run()
    assert gauges == []


def test_a_late_first_fit_moves_metres_once(engine):
    """The camera drives 0.1 m a frame towards a wall at 3 m; the fit comes after five frames."""
    robot = Robot(engine)

    def infer_batch(*args, _infer=engine.infer_batch, **kwargs):
        return [replace(each, affine_invariant_depth=np.full((240, 320), 0.5, np.float32))
                for each in _infer(*args, **kwargs)]

    robot.adaptive.engine = _Engine(engine, infer_batch)
    for number in range(11):
        pose = np.eye(4)
        pose[2, 3] = 0.1 * number
        found = robot.send(scene(), K=K, pose=pose)
        if number == 0:
            found = robot.end_run()
        relative = float(np.median(found['left'].affine_invariant_depth))
        if number < 5:
            assert relative == pytest.approx(0.5)
        else:
            if number == 5:  # what a sensor measures now: 2.5 m
                robot.adaptive.set_scale('left', (4.0, 0.5))
            assert 4.0 * relative + 0.5 == pytest.approx(3.0 - pose[2, 3], abs=0.02)


def test_two_runs_between_frames_change_the_gauge_by_both(engine):
    """Metric scale belongs to the depth that was shown last."""
    robot, factors = Robot(engine, ALWAYS), iter([1.0, 0.8, 0.4])

    def infer_batch(frames, *args, **kwargs):
        factor = np.float32(next(factors))
        return [replace(each, affine_invariant_depth=factor * each.affine_invariant_depth)
                for each in engine.infer_batch(frames, *args, **kwargs)]

    robot.adaptive.engine = _Engine(engine, infer_batch)
    robot.send(scene())
    robot.end_run()
    robot.send(scene())
    robot.send(scene())  # the second run ends after it, and the third begins at once
    assert robot.end_run() == {} and robot.networks.runs == 3
    robot.networks.end()
    shown = robot.send(scene())['left']
    assert shown.num_inference_steps == 1
    assert (shown.gauge_change.factor, shown.gauge_change.offset) == pytest.approx((0.4, 0.0),
                                                                                   abs=1e-3)


@pytest.mark.parametrize('changed', [
    AdaptiveConfig(StepPolicyConfig('complexity', latency_cap_s=None),
                   complexity_measure='gradient_energy'),
    AdaptiveConfig(StepPolicyConfig('complexity', latency_cap_s=None))])
def test_frames_that_wait_for_a_decision_are_measured_anew_after_a_change(engine, changed):
    robot = Robot(engine)
    robot.send(scene())
    robot.send(scene(dx=60))
    robot.adaptive.configure(changed)
    assert robot.end_run()['left'].num_inference_steps == 1
    complexity = measure_complexity(changed.complexity_measure, reduce_to_grey(scene(dx=60)))
    reason = robot.end_run()['left'].decision.reason
    assert reason.startswith(f'complexity: T({complexity:.4g}) = ')
    assert f'(C - {complexity:.4g})' in reason  # the only frame that counts


def test_a_run_of_another_ensemble_size_says_nothing_of_the_cost(engine):
    robot = Robot(engine)
    robot.send(scene())
    robot.adaptive.configure(replace(NOVELTY, ensemble_size=2))
    robot.end_run()
    size = engine.padded_size(240, 320)
    assert robot.adaptive.policy.latency.estimate(size, 1) is None
    robot.send(scene(seed=5))
    robot.end_run()
    assert robot.adaptive.policy.latency.estimate(size, 1) is not None


def test_all_failures_are_told_at_once(engine, monkeypatch):
    robot = Robot(engine)

    def fail(self, rgb):
        raise ValueError(f'simulated, {rgb.shape[0]} rows')

    with monkeypatch.context() as context:
        context.setattr(StepFinder, 'reduce', fail)
        with pytest.raises(DepthError, match='240 rows; ValueError: .*120 rows') as caught:
            robot.send(scene(), scene()[:120])
    assert caught.value.cameras == ('left', 'right')
    robot.send(scene(), scene()[:120])
    assert [*robot.end_run(), *robot.end_run()] == ['left', 'right']


def test_networks_have_a_thread_by_default(engine, monkeypatch):
    """It tells when a run has ended."""
    may_end, ended, threads = threading.Event(), threading.Event(), []
    infer = AdaptiveDepth._infer

    def infer_later(self, *args):
        assert may_end.wait(60.0)
        return infer(self, *args)

    def end():
        threads.append(threading.current_thread().name)
        ended.set()

    monkeypatch.setattr(AdaptiveDepth, '_infer', infer_later)
    adaptive = AdaptiveDepth(engine, NOVELTY, on_run_end=end)
    assert list(adaptive.advance([Frame('left', scene(), 1, time.monotonic())])) == []
    may_end.set()
    assert ended.wait(60.0) and threads[0].startswith('networks')
    (_, found), = adaptive.advance([])
    assert found.num_inference_steps == 1


def test_process_waits_for_what_cannot_be_carried(engine):
    adaptive = AdaptiveDepth(engine, NOVELTY, ['left', 'right'])
    images = scene(), scene()[:120]
    found = adaptive.process([Frame(camera, rgb, 1, time.monotonic())
                              for camera, rgb in zip(('left', 'right'), images)])
    assert [each.affine_invariant_depth.shape for each in found] == [(240, 320), (120, 320)]
    assert [each.num_inference_steps for each in found] == [1, 1]
