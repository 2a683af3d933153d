"""
AdaptiveDepth: carry the depth of cameras along, and run the networks beside them.

The networks run in a thread of their own, one batch at a time.  Meanwhile frames get the depth of
the last run that has finished, moved along; the result of a run is moved into the frame that is
then the newest.  Only a frame into which nothing can be carried waits for its run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
import math
import time
from typing import NamedTuple, TYPE_CHECKING

import numpy as np

from marigold_ros.depth.camera_depth import CameraDepth
from marigold_ros.depth.camera_depth import Frame as Frame
from marigold_ros.depth.carry import StepFinder
from marigold_ros.depth.complexity import complexity_share, measure_complexity
from marigold_ros.depth.config import AdaptiveConfig as AdaptiveConfig
from marigold_ros.depth.errors import DepthError, InputError
from marigold_ros.depth.step_policy import LatencyModel, StepPolicy
from marigold_ros.depth.types import AdaptivePrediction as AdaptivePrediction
from marigold_ros.depth.types import (
    BatchTiming,
    DepthPrediction,
    Flow,
    FrameDecision,
    GaugeChange,
    GreyImage,
    StepDecision,
    StepRequest,
)

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine


# Share of changed pixels in a small window from which on the networks run.
MAX_LOCAL_CHANGE = 0.65


@dataclass(eq=False)
class _Camera:
    """A camera: its depth, its newest frame, and the frames that have no depth yet."""

    depth: CameraDepth
    newest: _Candidate | None = None
    # The newest frame, after one on which the networks run, if that has no depth yet either.
    waiting: list[_Candidate] = field(default_factory=list)
    unshown_run: AdaptivePrediction | None = None  # whose depth no frame has got yet
    last_run_s: float = -math.inf  # when the last run began
    output_s: float = 0.0  # how long the last frame took, from its depth to the caller's end


@dataclass(eq=False)
class _Candidate:
    """A frame of a camera, and what the step policy knows and decides about it."""

    camera: _Camera
    frame: Frame
    padded_size: tuple[int, int]
    grey: GreyImage
    request: StepRequest
    complexity_s: float
    flow: Flow | None
    decision: StepDecision | None = None  # undecided while the networks are busy
    was_run: bool = False  # or is in the run in flight
    prediction: AdaptivePrediction | None = None  # of a run on this very frame


class Inferred(NamedTuple):
    """What the networks found, and when that was known."""

    predictions: list[DepthPrediction]
    ended_s: float


@dataclass(frozen=True, eq=False)
class _Run:
    """A batch that the networks process."""

    padded_size: tuple[int, int]
    candidates: list[_Candidate]
    started_s: float
    future: Future[Inferred]
    latency: LatencyModel  # of the configuration with which it began


class AdaptiveDepth:
    """
    Estimate the depth of one or several cameras with an adaptive number of steps.

    Not thread-safe, but never waits for the networks unless it says so.

    Parameters
    ----------
    engine : DepthEngine
    config : AdaptiveConfig
    cameras : sequence of str
        A camera's index here is the seed of its initial noise; a camera that is not listed has
        seed 0.
    policy : StepPolicy or None
        Decides instead of one with `config.step_policy`.
    networks : Executor or None
        Runs the engine, one call at a time; None creates a thread.  With `ImmediateExecutor`
        every run has ended when its frame is returned.
    on_run_end : callable or None
        Called in the thread of the networks when a run has ended; then `advance` has something to
        do, even without a new frame.
    clock : callable
        Returns the time, s, on the clock of `Frame.received_s`.
    steps : StepFinder or None
        Finds what happens between frames; None creates one for each camera.

    Examples
    --------
    >>> import numpy as np
    >>> from marigold_ros.depth.config import StepPolicyConfig
    >>> from marigold_ros.depth.engine import DepthEngine
    >>> config = AdaptiveConfig(StepPolicyConfig(max_inference_steps=1))
    >>> adaptive = AdaptiveDepth(DepthEngine.load(device='cpu'), config)
    >>> rgb = np.zeros((48, 64, 3), np.uint8)
    >>> frame = Frame('front', rgb, stamp_ns=0, received_s=time.monotonic())
    >>> prediction, = adaptive.process([frame])
    >>> prediction.affine_invariant_depth.shape, prediction.num_inference_steps
    ((48, 64), 1)
    """

    def __init__(self, engine: DepthEngine, config: AdaptiveConfig, cameras: Sequence[str] = (),
                 *, policy: StepPolicy | None = None, networks: Executor | None = None,
                 on_run_end: Callable[[], object] | None = None,
                 clock: Callable[[], float] = time.monotonic, steps: StepFinder | None = None
                 ) -> None:
        """Start without statistics."""
        self.engine, self._config, self._clock = engine, config, clock
        self.policy = policy or StepPolicy(config.step_policy)
        self._networks = networks or ThreadPoolExecutor(1, thread_name_prefix='networks')
        self._on_run_end = on_run_end
        self._seeds = {camera: seed for seed, camera in enumerate(cameras)}
        self._cameras: defaultdict[str, _Camera] = defaultdict(
            lambda: _Camera(CameraDepth(steps)))
        self._run: _Run | None = None
        self._failures: list[DepthError] = []

    def warm_up(self, sizes: Sequence[tuple[int, int]], batch_sizes: Sequence[int]) -> None:
        """
        Warm up the engine and observe its latency.

        Parameters
        ----------
        sizes, batch_sizes
            See `DepthEngine.warm_up`.
        """
        for timing in self.engine.warm_up(sizes, batch_sizes,
                                          self._config.step_policy.max_inference_steps,
                                          ensemble_size=self._config.ensemble_size):
            self.policy.observe(timing)

    def configure(self, config: AdaptiveConfig) -> None:
        """Set the configuration; keep the statistics that it does not invalidate."""
        before, self._config = self._config, config
        self.policy.config = config.step_policy
        if config.ensemble_size != before.ensemble_size:
            self.policy.latency = LatencyModel()
        measured = (config.complexity_measure, config.step_policy.policy == 'novelty')
        if measured != (before.complexity_measure, before.step_policy.policy == 'novelty'):
            self.policy.reset()
            # Frames that are not decided yet are measured anew.
            for camera in self._cameras.values():
                if camera.newest is not None:
                    camera.newest.request = self._request(
                        camera, camera.newest.frame, camera.newest.grey)
                    self.policy.observe_complexity(camera.newest.request)

    def reset(self) -> None:
        """Discard the statistics of C and all depth, as after a jump back in time."""
        self.policy.reset()
        self.discard_depth()

    def discard_depth(self) -> None:
        """Discard all depth and the frames that wait for it, also what a run in flight finds."""
        self._cameras.clear()

    def discard_waiting(self) -> None:
        """Discard the frames that wait for depth, or for a run."""
        for camera in self._cameras.values():
            camera.waiting.clear()
            camera.newest = None

    def carried_depth(self, camera: str) -> DepthPrediction:
        """
        Return the depth of a camera's last run, moved into its newest frame.

        Parameters
        ----------
        camera : str
            Depth can be carried into its newest frame.

        Returns
        -------
        DepthPrediction
            Of 0 steps, at the size of the image; confidence 0 where it is not covered.

        Raises
        ------
        InputError
            If the camera has no frame yet.
        """
        newest = self._cameras[camera].newest if camera in self._cameras else None
        if newest is None:
            raise InputError(f'`camera` must have a frame; got {camera!r}')
        return self._carry(newest)

    def set_scale(self, camera: str, scale_shift: tuple[float, float] | None) -> None:
        """
        Set the metric fit of a camera's last depth, with which it is moved in three dimensions.

        Parameters
        ----------
        camera : str
            One without a frame has no depth that could be moved.
        scale_shift : (float, float) or None
            Metric depth is scale * relative depth + shift, m; None if that is not measured.
        """
        if camera in self._cameras:
            self._cameras[camera].depth.set_scale(scale_shift)

    @property
    def waiting_frames(self) -> set[Frame]:
        """Return the frames that have no depth yet and still wait for it."""
        return {each.frame for camera in self._cameras.values() for each in camera.waiting}

    @property
    def run_s(self) -> float:
        """Return for how long the run in flight has been going on, s; 0 without one."""
        run = self._run
        return 0.0 if run is None else self._clock() - run.started_s

    def process(self, frames: Sequence[Frame]) -> list[AdaptivePrediction]:
        """
        Return the depth of frames; wait for the networks only where nothing can be carried.

        The frames are returned together, so all wait if one must; `advance` never waits.

        Parameters
        ----------
        frames : sequence of Frame
            At most one of each camera, of any size.

        Returns
        -------
        list of AdaptivePrediction
            In the order of `frames`.

        Raises
        ------
        InputError
            If two frames are of one camera.
        DepthError
            See `advance`; the depth of the other frames is lost.
        """
        if len({frame.camera for frame in frames}) < len(frames):
            raise InputError('`frames` must be at most one of each camera; got those of '
                             + ', '.join(frame.camera for frame in frames))
        found = dict(self.advance(frames))
        while not all(frame in found for frame in frames):
            self.wait()
            found.update(self.advance([]))
        return [found[frame] for frame in frames]

    def wait(self) -> None:
        """Wait for the end of the run in flight, if there is one."""
        if self._run is not None:
            self._run.future.exception()

    def advance(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, AdaptivePrediction]]:
        """
        Go on to the newest frames, and return the depth that is known now; never waits.

        A frame that gets no depth waits for it until a newer one of its camera gets depth or, if
        the networks do not run on it, until a newer one comes.

        Parameters
        ----------
        frames : iterable of Frame
            Newest frames, at most one of each camera, of any size; none to look for the end of a
            run.

        Yields
        ------
        Frame, AdaptivePrediction
            A frame, now or earlier given, and its depth.  What the caller does with it until it
            asks for more, such as publishing, counts as time after a run.

        Raises
        ------
        DepthError
            If a run has failed, or the depth of a camera; raised when the others are done.  Frames
            of these cameras that waited for it wait no more.
        """
        # 1. Carry the depth of a run that has ended from now on.
        self._finish_run()

        # 2. Move depth along to the new frames, and measure what is new in them.
        for frame in frames:
            with self._starting_afresh_on_error(frame.camera):
                self._look_at(frame)

        # 3. Run the networks on what needs it most, if they are free.
        while self._begin_run() and self._finish_run():
            pass  # only networks that run at once have finished already

        # 4. Return the depth of each camera's newest frame.
        for name, camera in list(self._cameras.items()):
            started_s, shown = self._clock(), None
            with self._starting_afresh_on_error(name):
                shown = self._take_depth(camera)
            if shown is not None:
                yield shown
                camera.output_s = self._clock() - started_s
        failures, self._failures = self._failures, []
        if failures:
            raise _all_failures(failures)

    @contextmanager
    def _starting_afresh_on_error(self, camera: str) -> Iterator[None]:
        """Let one camera start afresh if the block fails, and the others go on."""
        try:
            yield
        except Exception as err:  # whatever a frame may cause
            self._cameras.pop(camera, None)
            self._failures.append(_depth_error(err, [camera]))

    def _look_at(self, frame: Frame) -> None:
        """Move the camera's depth along to the frame, and let it wait for depth."""
        started_s = time.perf_counter()
        padded_size = self.engine.padded_size(*frame.rgb.shape[:2])
        camera = self._cameras[frame.camera]
        grey = camera.depth.steps.reduce(frame.rgb)
        camera.depth.advance(frame, grey, self._config.max_carry_s)
        request = self._request(camera, frame, grey)
        self.policy.observe_complexity(request)
        camera.newest = _Candidate(camera, frame, padded_size, grey, request,
                                   time.perf_counter() - started_s, camera.depth.flow)
        running = [] if self._run is None else self._run.candidates
        # A frame whose own run has just ended is given its depth if the new one gets none.
        camera.waiting = [each for each in camera.waiting
                          if each in running or each.prediction is not None] + [camera.newest]

    def _request(self, camera: _Camera, frame: Frame, grey: GreyImage) -> StepRequest:
        """Tell the step policy what is new in a camera's newest frame."""
        config, depth = self._config, camera.depth
        if config.step_policy.policy != 'novelty':
            complexity = measure_complexity(config.complexity_measure, grey)
        else:
            complexity = (complexity_share(config.complexity_measure, grey, depth.new)
                          if depth.can_carry else 1.0)
        run_reason = ''
        if depth.can_carry and depth.largest_change > MAX_LOCAL_CHANGE:
            run_reason = f'{depth.largest_change:.0%} of a small region changed'
        elif depth.can_carry and depth.is_run_due(config.max_carry_s):
            run_reason = f'carried for {depth.carried_s:.1f} s'
        return StepRequest(frame.camera, complexity, self._clock() - frame.received_s,
                           can_carry=depth.can_carry, run_reason=run_reason)

    def _begin_run(self) -> bool:
        """Begin a run with the most overdue camera, if one needs it and the networks are free."""
        if self._run is not None:
            return False
        wanting = [camera.newest for camera in self._cameras.values()
                   if camera.newest is not None and self._wants_run(camera.newest)]
        if not wanting:
            return False
        padded_size = min(wanting, key=lambda each: each.camera.last_run_s).padded_size
        candidates = [each for each in wanting if each.padded_size == padded_size]
        started_s = self._clock()
        for each in candidates:
            each.camera.last_run_s, each.was_run = started_s, True
            each.camera.depth.begin_run()
        self._run = _Run(padded_size, candidates, started_s,
                         self._submit(padded_size, candidates), self.policy.latency)
        if self._on_run_end is not None:
            on_run_end = self._on_run_end
            self._run.future.add_done_callback(lambda _: on_run_end())
        return True

    def _wants_run(self, candidate: _Candidate) -> bool:
        """Whether a newest frame needs a run; decides that, once per frame."""
        if candidate.was_run:
            return False
        if candidate.decision is None:
            candidate.decision = self.policy.choose_steps(candidate.request)
        return candidate.decision.num_inference_steps > 0

    def _submit(self, padded_size: tuple[int, int], candidates: Sequence[_Candidate]
                ) -> Future[Inferred]:
        """Let the networks infer a ragged batch; the latency cap limits the steps."""
        now_s = self._clock()
        requests = [replace(each.request, age_s=now_s - each.frame.received_s)
                    for each in candidates]
        decisions = self.policy.limit_steps(
            requests, [each.decision for each in candidates if each.decision is not None],
            padded_size=padded_size)
        for candidate, request, decision in zip(candidates, requests, decisions):
            candidate.request, candidate.decision = request, decision
        return self._networks.submit(
            self._infer, [each.frame for each in candidates],
            [each.num_inference_steps for each in decisions], self._config.ensemble_size,
            self.policy.deadline_s(requests, padded_size=padded_size))

    def _infer(self, frames: Sequence[Frame], num_inference_steps: Sequence[int],
               ensemble_size: int, deadline_s: float | None) -> Inferred:
        """Infer a batch with the seed of each camera; in the thread of the networks."""
        predictions = self.engine.infer_batch(
            [frame.rgb for frame in frames], num_inference_steps,
            seed=[self._seeds.get(frame.camera, 0) for frame in frames],
            ensemble_size=ensemble_size, deadline_s=deadline_s, upsample=False)
        return Inferred(predictions, self._clock())

    def _finish_run(self) -> bool:
        """Take over the depth of the run in flight, if it has ended."""
        run = self._run
        if run is None or not run.future.done():
            return False
        self._run = None
        err = run.future.exception()
        if err is not None:
            self._failures.append(_depth_error(err, [each.frame.camera
                                                     for each in run.candidates]))
            for each in run.candidates:
                each.camera.depth.fail_run()
                each.camera.waiting = [other for other in each.camera.waiting
                                       if other is not each]
            return True
        predictions, ended_s = run.future.result()
        # A camera that has been discarded since is not in `_cameras`, so nothing comes of it.
        for each, prediction in zip(run.candidates, predictions):
            self._take_over(each, prediction, ended_s)
        if run.latency is self.policy.latency:
            self.policy.observe(BatchTiming.from_stages(
                run.padded_size, [each.num_inference_steps for each in predictions],
                predictions[0].timing, elapsed_s=ended_s - run.started_s + sum(
                    each.camera.output_s for each in run.candidates)))
        return True

    def _take_over(self, candidate: _Candidate, prediction: DepthPrediction,
                   ended_s: float) -> None:
        """Carry the depth of a run from now on; its own frame gets it unless that has depth."""
        camera, newest = candidate.camera, candidate.camera.newest
        change = camera.depth.finish_run(prediction, ended_s - candidate.frame.received_s)
        if camera.unshown_run is not None:  # the last depth that was shown is that of an older run
            earlier = camera.unshown_run.gauge_change
            change = None if change is None or earlier is None else change.after(earlier)
        camera.unshown_run = candidate.prediction = _complete(candidate, prediction, change)
        if newest is not None and newest is not candidate:  # less of it is new now
            newest.request = self._request(camera, newest.frame, newest.grey)

    def _take_depth(self, camera: _Camera) -> tuple[Frame, AdaptivePrediction] | None:
        """Return the newest frame that has no depth yet, or one before it, with its depth."""
        if not camera.waiting:
            return None
        oldest, newest = camera.waiting[0], camera.waiting[-1]
        if newest.prediction is not None:
            taken, prediction = newest, self.engine.upsample(newest.prediction, newest.frame.rgb)
        elif camera.depth.can_carry:
            taken, prediction = newest, self._carry_into_newest(newest)
        elif oldest.prediction is not None:
            taken, prediction = oldest, self.engine.upsample(oldest.prediction, oldest.frame.rgb)
        else:
            return None
        camera.waiting = [] if taken is newest else [newest]
        camera.unshown_run = None
        return taken.frame, prediction

    def _carry(self, newest: _Candidate) -> DepthPrediction:
        """Return the depth of the last run, moved into a frame that is the newest."""
        carried = newest.camera.depth.carry()
        prediction = self.engine.upsample(carried.as_prediction(), newest.frame.rgb)
        if prediction.confidence is not None and prediction.covered is not None:
            np.copyto(prediction.confidence, 0.0, where=~prediction.covered)
        return prediction

    def _carry_into_newest(self, candidate: _Candidate) -> AdaptivePrediction:
        """Return what a newest frame shows: carried depth, and the run if it is shown first."""
        depth, carried = candidate.camera.depth, self._carry(candidate)
        run = candidate.camera.unshown_run or AdaptivePrediction(
            **vars(carried), decision=_decision(candidate))
        decision = replace(
            run.decision, age_s=candidate.request.age_s, complexity_s=candidate.complexity_s,
            carried_s=depth.carried_s,
            stale=depth.carried_s > depth.longest_carry_s(self._config.max_carry_s))
        return replace(run, affine_invariant_depth=carried.affine_invariant_depth,
                       confidence=carried.confidence, uncertainty=None, covered=carried.covered,
                       decision=decision, flow=candidate.flow)


def _decision(candidate: _Candidate) -> FrameDecision:
    """Return what was decided about a frame, with its inputs."""
    decision, request = candidate.decision, candidate.request
    if decision is None:
        decision = StepDecision(0, 'carried while the networks are busy')
    return FrameDecision(request.complexity, request.age_s, decision.num_inference_steps,
                         decision.reason, candidate.complexity_s)


def _complete(candidate: _Candidate, prediction: DepthPrediction,
              gauge_change: GaugeChange | None) -> AdaptivePrediction:
    """Add a run's decision, with the deadline in its reason if it was reached, and its gauge."""
    decision = _decision(candidate)
    if prediction.stopped_by == 'deadline':
        stopped = f'stopped after {prediction.num_inference_steps} by the deadline'
        decision = replace(decision, reason=f'{decision.reason}; {stopped}')
    return AdaptivePrediction(**vars(prediction), decision=decision, gauge_change=gauge_change,
                              flow=candidate.flow)


def _all_failures(failures: Sequence[DepthError]) -> DepthError:
    """Return one error that names the failures of several cameras, with the cause of the first."""
    if len(failures) == 1:
        return failures[0]
    error = DepthError('; '.join(map(str, failures)),
                       tuple(camera for each in failures for camera in each.cameras))
    error.__cause__ = failures[0].__cause__
    return error


def _depth_error(err: BaseException, cameras: Sequence[str]) -> DepthError:
    error = DepthError(f'{type(err).__name__}: {err}', tuple(cameras))
    error.__cause__ = err
    return error
