"""Play frames at their recorded rate through engine and step policy, in real time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from marigold_ros.data.read_ahead import read_ahead
from marigold_ros.depth.adaptive import AdaptiveDepth, AdaptivePrediction, Frame
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.types import RgbImage
from marigold_ros.evaluation.config import EvaluationConfig, fixed_name, OFFLINE_POLICIES
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable
from marigold_ros.evaluation.policies.replay import (
    adaptive_config,
    EvaluatedFrame,
    Quality,
    ReplayedFrame,
)
from marigold_ros.evaluation.policies.step_policies import make_step_policy
from marigold_ros.progress import progress_bar
from marigold_ros.stop_flag import StopFlag

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.engine import DepthEngine
    from marigold_ros.evaluation.metrics.protocols import FrameScorer

# Frames that may wait for their scores.
MAX_UNSCORED = 8

Result = TypeVar('Result')


@dataclass(frozen=True)
class DeliveredFrame:
    """
    A frame as it was delivered.

    Attributes
    ----------
    number : int
    rgb : uint8 [H, W, 3]
    received_s : float
        Time of receipt on `time.monotonic`, s.
    truth : DepthFrame or None
        What its depth is scored by.
    """

    number: int
    rgb: RgbImage
    received_s: float
    truth: DepthFrame | None = None


class NewestFrameBuffer:
    """A thread-safe buffer for one frame, in which a newer frame replaces a waiting one."""

    def __init__(self) -> None:
        """Create an empty buffer."""
        self._changed = threading.Condition()
        self._frame: DeliveredFrame | None = None
        self._closed = False

    def put(self, frame: DeliveredFrame) -> None:
        """Store a frame; it replaces a frame that is still waiting."""
        with self._changed:
            self._frame = frame
            self._changed.notify()

    def close(self) -> None:
        """Signal that no more frames will come."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self) -> DeliveredFrame | None:
        """Wait for a frame and remove it; return None after the last one."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed)
            frame, self._frame = self._frame, None
            return frame


def process_newest(frames: Iterable[DeliveredFrame],
                   process: Callable[[DeliveredFrame], Result]) -> list[Result | None]:
    """
    Process the newest frame whenever the previous one is done, as the node does.

    Parameters
    ----------
    frames : iterable of DeliveredFrame
        Yields each frame when it is due; iterated in a separate thread.
    process : callable

    Returns
    -------
    list of Result or None
        One per frame, in order; None for a frame that was superseded by a newer one.
    """
    buffer, numbers = NewestFrameBuffer(), []

    def deliver() -> None:
        try:
            for frame in frames:
                numbers.append(frame.number)
                buffer.put(frame)
        finally:
            buffer.close()

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    results = {}
    while (taken := buffer.take()) is not None:
        results[taken.number] = process(taken)
    thread.join()
    return [results.get(number) for number in numbers]


class LiveRun:
    """
    Run one policy in real time on frames that are already evaluated.

    Parameters
    ----------
    engine : DepthEngine
    config : EvaluationConfig
        The first policy is run.
    frames : sequence of EvaluatedFrame
        In the order in which they will be read.
    table : LatencyTable
        Initial costs for the policy; the node gets them from its warm-up.
    max_inference_steps : int
        Tmax.
    scorer : FrameScorer

    Raises
    ------
    ConfigError
        If the policy cannot run live, or the frames have no stamps.
    """

    def __init__(self, engine: DepthEngine, config: EvaluationConfig,
                 frames: Sequence[EvaluatedFrame], table: LatencyTable,
                 max_inference_steps: int, scorer: FrameScorer) -> None:
        name = config.policies[0]
        check_live_policy(name)
        if frames[0].stamp_ns is None:
            raise ConfigError('`live` needs frames with stamps: evaluate a bag')
        self._frames, self._scorer = frames, scorer
        policy = make_step_policy(name, max_inference_steps, config.latency_cap_s, _unknown)
        for size in table.samples:
            policy.observe(table.typical_timing(size, policy.config.max_inference_steps))
        self._adaptive = AdaptiveDepth(
            engine, adaptive_config(name, policy.config, config.ensemble_size), policy=policy)

    def run(self, read: Iterable[DepthFrame], stop: StopFlag) -> list[ReplayedFrame]:
        """
        Deliver frames at the times of their stamps; the engine takes the newest when it is idle.

        Parameters
        ----------
        read : iterable of DepthFrame
            The same frames again; they are read in a separate thread.
        stop : StopFlag
            Ends the run.

        Returns
        -------
        list of ReplayedFrame
            One per delivered frame, in order.  Depth that no run of the evaluation had is scored
            beside the next frames; a frame for which there is no time has no scores.
        """
        scores: dict[int, Future[Quality]] = {}
        waiting: deque[Future[Quality]] = deque()
        with (progress_bar(total=len(self._frames), unit='frame', desc='live') as bar,
              ThreadPoolExecutor(1, 'scores') as pool):
            def process(taken: DeliveredFrame) -> ReplayedFrame:
                replayed, prediction = self._process(taken)
                while waiting and waiting[0].done():
                    waiting.popleft()
                if not replayed.quality and len(waiting) < MAX_UNSCORED:
                    waiting.append(pool.submit(self._score, taken, prediction))
                    scores[taken.number] = waiting[-1]
                bar.update(taken.number + 1 - bar.n)
                return replayed

            results = process_newest(self._deliver_when_due(read, stop), process)
            self._adaptive.wait()  # the engine is used again after this
        return [_add_scores(frame, result, scores.get(frame.number))
                for frame, result in zip(self._frames, results)]

    def _deliver_when_due(self, read: Iterable[DepthFrame],
                          stop: StopFlag) -> Iterator[DeliveredFrame]:
        first = self._frames[0].stamp_ns or 0
        start_s = None
        for number, frame in enumerate(islice(read_ahead(read), len(self._frames))):
            now_s = time.monotonic()
            start_s = now_s if start_s is None else start_s
            due_s = start_s + ((frame.stamp_ns or 0) - first) * 1e-9
            if not stop.sleep_until(due_s):
                return
            yield DeliveredFrame(number, frame.rgb, time.monotonic(), frame)

    def _score(self, taken: DeliveredFrame, prediction: AdaptivePrediction) -> Quality:
        """Score depth in the second thread; only the numbers are kept."""
        assert taken.truth is not None  # as `_deliver_when_due` delivers it
        return self._scorer.score(prediction.affine_invariant_depth, taken.truth,
                                  prediction.covered).errors

    def _process(self, taken: DeliveredFrame) -> tuple[ReplayedFrame, AdaptivePrediction]:
        """Carry or infer a frame; its scores are known if it is a run of the evaluation."""
        frame = self._frames[taken.number]
        started_s = time.monotonic()
        result, = self._adaptive.process([
            Frame(frame.camera, taken.rgb, frame.stamp_ns or 0, taken.received_s)])
        done_s = time.monotonic()
        decision, steps, timing = result.decision, result.num_inference_steps, result.timing
        of_this_frame = result.covered is None
        cost = FrameCost(
            timing.preprocess_s, timing.encode_s, timing.denoise_s / max(steps, 1),
            timing.decode_s, timing.postprocess_s, decision.complexity_s,
            carry_s=0.0 if of_this_frame else done_s - started_s - decision.complexity_s)
        quality = (frame.quality.get(fixed_name(steps), {})
                   if of_this_frame and result.stopped_by == 'schedule' else {})
        return ReplayedFrame(
            frame, 'processed', steps, decision.complexity, decision.reason,
            result.covered_share, quality, age_s=started_s - taken.received_s,
            latency_s=done_s - taken.received_s, cost=cost), result


def check_live_policy(policy: str) -> None:
    """
    Check that a policy can run live.

    Raises
    ------
    ConfigError
        If it is one of `OFFLINE_POLICIES`.
    """
    if policy in OFFLINE_POLICIES:
        raise ConfigError(f'`live` runs the first policy, which must not be '
                          f'{" or ".join(OFFLINE_POLICIES)}; got {policy!r}')


def _add_scores(frame: EvaluatedFrame, result: ReplayedFrame | None,
                scored: Future[Quality] | None) -> ReplayedFrame:
    """Return the result of a frame, which was superseded if it has none."""
    if result is None:
        return ReplayedFrame(frame, 'superseded')
    return result if scored is None else replace(result, quality=scored.result())


def _unknown(num_inference_steps: int) -> float:
    """Stand for the truth, which only policies that cannot run live ask for."""
    raise AssertionError('a live policy does not know the truth')
