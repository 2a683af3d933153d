"""Frames by the clock through engine and step policy, as depth_node's worker takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
import threading
import time
from typing import Sequence

import numpy as np

from benchmarks.cap_load import processor_seconds
from marigold_ros.depth.adaptive import (
    AdaptiveConfig,
    AdaptiveDepth,
    AdaptivePrediction,
    Frame,
    SkippedFrame,
)
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.step_policy import StepPolicy
from marigold_ros.depth.types import BatchTiming, DepthPrediction, RgbImage, StepRequest
from marigold_ros.evaluation.policies.live import Delivered, NewestFrame
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.messages.cloud import CloudPacker
from marigold_ros.messages.depth import pack_depth
from marigold_ros.metric.outputs import metric_depth, POINT_STRIDE
from marigold_ros.metric.scale import MetricScale

CAMERA = 'camera'
# What is published: depth_node's defaults, with a fixed scale and a VGA camera of 62 degrees.
SCALE = MetricScale(scale=4.0, shift=0.5, confidence=0.0, source='fixed', assumed=True)
K = np.array([[525.0, 0.0, 319.5], [0.0, 525.0, 239.5], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Outcome:
    """
    What became of a frame.

    Attributes
    ----------
    number : int
    received_s : float
        After the first delivery was due.
    fate : {'published', 'late', 'superseded'}
        'late' frames were skipped by the policy.
    latency_s : float or None
        Receipt to publication.
    steps_wanted, steps_granted, steps_run : int
        T without a cap, T as decided, and T as run.
    stopped_by : str
        As `DepthPrediction.stopped_by`; '' if it was not run.
    reason : str
        The decision's own explanation; '' if none was made.
    work_s : (float, float)
        `processor_seconds` at receipt.
    """

    number: int
    received_s: float
    fate: str
    latency_s: float | None = None
    steps_wanted: int = 0
    steps_granted: int = 0
    steps_run: int = 0
    stopped_by: str = ''
    reason: str = ''
    work_s: tuple[float, float] = (0.0, 0.0)

    @property
    def cut(self) -> bool:
        """Whether the cap took steps from a published frame, beforehand or by its deadline."""
        return self.fate == 'published' and (
            self.steps_granted < self.steps_wanted or self.stopped_by == 'deadline')


class Walk:
    """
    A frame's way from receipt to the bytes of its messages.

    Parameters
    ----------
    engine : DepthEngine
    config : StepPolicyConfig
    seeds : sequence of BatchTiming
        What the engine's warm-up has measured.
    """

    def __init__(self, engine: DepthEngine, config: StepPolicyConfig,
                 seeds: Sequence[BatchTiming]) -> None:
        """Start with what the node knows once it is configured."""
        self.adaptive = AdaptiveDepth(engine, AdaptiveConfig(config))
        for timing in seeds:
            self.adaptive.policy.observe(timing)
        # Sees the same frames and decides as if there were no cap.
        self._without_cap = StepPolicy(replace(config, latency_cap_s=None))

    def process(self, frame: Delivered, start_s: float) -> Outcome:
        """Decide, infer, make the messages, learn: depth_node's order."""
        result, = self.adaptive.process([
            Frame(CAMERA, frame.rgb, frame.number, frame.received_s)])
        if isinstance(result, AdaptivePrediction):
            make_messages(result, frame.rgb)
        published_s = time.monotonic()
        self.adaptive.observe(published_s)
        choice, received_s = result.choice, frame.received_s - start_s
        wanted = self._without_cap.decide(
            [StepRequest(CAMERA, choice.complexity, choice.age_s)],
            resolution=self.adaptive.engine.processing_size(*frame.rgb.shape[:2]))[0]
        if isinstance(result, SkippedFrame):
            return Outcome(frame.number, received_s, 'late', reason=choice.reason,
                           steps_wanted=wanted.num_inference_steps)
        return Outcome(frame.number, received_s, 'published', published_s - frame.received_s,
                       wanted.num_inference_steps, choice.granted, result.num_inference_steps,
                       result.stopped_by, choice.reason)


def make_messages(prediction: DepthPrediction, rgb: RgbImage) -> list[bytes]:
    """Make what depth_node publishes by default where a scale is known: depth and points."""
    depth_m = metric_depth(prediction.affine_invariant_depth, prediction.confidence, K, SCALE,
                           DepthFilter())
    depth = pack_depth(depth_m)
    cloud = CloudPacker().pack(depth_m, K, rgb, stride=POINT_STRIDE)  # [120,160]
    return [depth.data.tobytes(), cloud.data.tobytes()]


def drive(walk: Walk, frames: Sequence[RgbImage], period_s: float, start_s: float
          ) -> list[Outcome]:
    """
    Deliver frames by the clock while the walk takes the newest whenever it is free.

    Parameters
    ----------
    walk : Walk
    frames : sequence of uint8 [H, W, 3]
    period_s : float
        Time between deliveries.
    start_s : float
        Of the first, on `time.monotonic`.

    Returns
    -------
    list of Outcome
        One per frame, in order.
    """
    place = NewestFrame()
    received_s: list[float] = []
    work_s: list[tuple[float, float]] = []

    def deliver() -> None:
        for number, rgb in enumerate(frames):
            time.sleep(max(0.0, start_s + number * period_s - time.monotonic()))
            work_s.append(processor_seconds())
            received_s.append(time.monotonic())
            place.put(Delivered(number, rgb, received_s[-1]))
        place.close()

    outcomes: dict[int, Outcome] = {}
    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    while (frame := place.take()) is not None:
        outcomes[frame.number] = walk.process(frame, start_s)
    thread.join()
    return [replace(outcomes.get(number, Outcome(number, received - start_s, 'superseded')),
                    work_s=work)
            for number, (received, work) in enumerate(zip(received_s, work_s))]
