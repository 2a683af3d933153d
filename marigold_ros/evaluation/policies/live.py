"""Play frames at their own rate through engine and step policy, in real time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from marigold_ros.data.read_ahead import read_ahead
from marigold_ros.depth.adaptive import AdaptiveConfig, AdaptiveDepth, Frame, SkippedFrame
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.types import RgbImage
from marigold_ros.evaluation.config import (
    COMPLEXITY_POLICIES,
    EvaluationConfig,
    fixed_name,
    REFERENCE_POLICIES,
    step_policy_config,
)
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable
from marigold_ros.evaluation.policies.replay import FrameRuns, Replayed
from marigold_ros.stop_flag import StopFlag

if TYPE_CHECKING:
    from marigold_ros.data.frames import DepthFrame
    from marigold_ros.depth.engine import DepthEngine

Outcome = TypeVar('Outcome')


@dataclass(frozen=True)
class Delivered:
    """A frame and the time of its receipt on `time.monotonic`."""

    number: int
    rgb: RgbImage
    received_s: float


class NewestFrame:
    """A place for one frame, filled by one thread and emptied by another; the newest wins."""

    def __init__(self) -> None:
        """Start empty."""
        self._changed = threading.Condition()
        self._frame: Delivered | None = None
        self._closed = False

    def put(self, frame: Delivered) -> None:
        """Store a frame in the place of one that still waits."""
        with self._changed:
            self._frame = frame
            self._changed.notify()

    def close(self) -> None:
        """Say that no more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self) -> Delivered | None:
        """Wait for a frame and take it; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed)
            frame, self._frame = self._frame, None
            return frame


def process_newest(frames: Iterable[Delivered],
                   process: Callable[[Delivered], Outcome]) -> list[Outcome | None]:
    """
    Process the newest frame whenever the one before it is done, as the node does.

    Parameters
    ----------
    frames : iterable of Delivered
        Yields each when it is due; iterated in a thread of its own.
    process : callable

    Returns
    -------
    list of Outcome or None
        One per frame, in order; None where a newer frame has superseded it.
    """
    place, numbers = NewestFrame(), []

    def deliver() -> None:
        try:
            for frame in frames:
                numbers.append(frame.number)
                place.put(frame)
        finally:
            place.close()

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    outcomes = {}
    while (taken := place.take()) is not None:
        outcomes[taken.number] = process(taken)
    thread.join()
    return [outcomes.get(number) for number in numbers]


class LiveRun:
    """
    One policy in real time, over frames that were evaluated before.

    Parameters
    ----------
    engine : DepthEngine
    config : EvaluationConfig
        Its first policy runs.
    frames : sequence of FrameRuns
        What is known of the frames, in the order in which they will be read.
    table : LatencyTable
        What the policy knows at the start, as the node from its warm-up.
    max_inference_steps : int
        Tmax.

    Raises
    ------
    ConfigError
        If the policy cannot run live, or the frames have no stamps.
    """

    def __init__(self, engine: DepthEngine, config: EvaluationConfig,
                 frames: Sequence[FrameRuns], table: LatencyTable,
                 max_inference_steps: int) -> None:
        self._name = config.policies[0]
        check_live(self._name)
        if frames[0].stamp_ns is None:
            raise ConfigError('`live` needs frames with stamps, as a bag has them')
        self._frames = frames
        policy = step_policy_config(self._name, max_inference_steps, config.latency_cap_s)
        self._adaptive = AdaptiveDepth(engine, AdaptiveConfig(
            policy, COMPLEXITY_POLICIES.get(self._name, 'gradient_energy'), config.ensemble_size))
        for size in table.samples:
            self._adaptive.policy.observe(
                table.typical(size).timing(size, policy.max_inference_steps))

    def run(self, read: Iterable[DepthFrame], stop: StopFlag) -> list[Replayed]:
        """
        Deliver frames by their stamps while the engine takes the newest whenever it is free.

        Parameters
        ----------
        read : iterable of DepthFrame
            The same frames again; reading them goes on beside the engine.
        stop : StopFlag
            Ends the run.

        Returns
        -------
        list of Replayed
            One per delivered frame, in order.  A frame that its deadline has cut short has a depth
            that was never scored.
        """
        with tqdm(total=len(self._frames), unit='frame', desc='live') as bar:
            def process(taken: Delivered) -> Replayed:
                replayed = self._process(taken)
                bar.update(taken.number + 1 - bar.n)
                return replayed

            outcomes = process_newest(self._by_the_clock(read, stop), process)
        return [outcome or Replayed(frame, 'superseded')
                for frame, outcome in zip(self._frames, outcomes)]

    def _by_the_clock(self, read: Iterable[DepthFrame],
                      stop: StopFlag) -> Iterator[Delivered]:
        first = self._frames[0].stamp_ns or 0
        start_s = None
        for number, frame in enumerate(islice(read_ahead(read), len(self._frames))):
            now_s = time.monotonic()
            start_s = now_s if start_s is None else start_s
            due_s = start_s + ((frame.stamp_ns or 0) - first) * 1e-9
            if not stop.sleep_until(due_s):
                return
            yield Delivered(number, frame.rgb, time.monotonic())

    def _process(self, taken: Delivered) -> Replayed:
        frame = self._frames[taken.number]
        result, = self._adaptive.process([
            Frame(frame.camera, taken.rgb, frame.stamp_ns or 0, taken.received_s)])
        done_s = time.monotonic()
        choice = result.choice
        if isinstance(result, SkippedFrame):
            return Replayed(frame, 'late', reason=choice.reason)
        self._adaptive.observe(done_s)
        steps, timing = result.num_inference_steps, result.timing
        return Replayed(
            frame, 'processed', fixed_name(steps) if result.stopped_by == 'schedule' else '',
            steps, choice.reason, choice.age_s, done_s - taken.received_s,
            FrameCost(timing.preprocess_s, timing.encode_s, timing.denoise_s / steps,
                      timing.decode_s, timing.postprocess_s, choice.complexity_s))


def check_live(policy: str) -> None:
    """
    Refuse a policy that must know what nobody knows in time.

    Raises
    ------
    ConfigError
    """
    if policy in REFERENCE_POLICIES:
        raise ConfigError(f'`live` runs the first policy, which must not be one of '
                          f'{" and ".join(REFERENCE_POLICIES)}; got {policy!r}')
