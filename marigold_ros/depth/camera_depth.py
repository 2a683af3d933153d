"""The depth of one camera over time: the last run, and when it is too old to be carried."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
import math
from statistics import median_low
from typing import NamedTuple

from marigold_ros.depth.carry import CarriedDepth, DepthCarrier, Motion, StepFinder, View
from marigold_ros.depth.types import (
    DepthPrediction,
    Flow,
    GaugeChange,
    GreyImage,
    Mask,
    Matrix,
    RgbImage,
)

# Of the image; with less, another scene is in view.
MIN_COVERED_SHARE = 0.5
# Of runs and of the time between frames: enough for jitter, few enough to follow a change.
TIMES_TO_REMEMBER = 5
CLOCK_TOLERANCE_S = 1e-6


@dataclass(frozen=True, eq=False)
class Frame:
    """
    An image of a camera.

    Attributes
    ----------
    camera : str
    rgb : uint8 [H, W, 3]
    stamp_ns : int
        Acquisition time, ns, on the clock of the message stamps; 0 if the stamps carry no time.
    received_s : float
        Time of receipt, s, on `time.monotonic`; the frame's age is measured from it.
    K : float64 [3, 3] or None
        Intrinsics, px; None if unknown.
    pose : float64 [4, 4] or None
        Of the camera's optical frame in a fixed coordinate frame, m; None if unknown.
    """

    camera: str
    rgb: RgbImage
    stamp_ns: int
    received_s: float
    K: Matrix | None = None
    pose: Matrix | None = None

    @property
    def view(self) -> View | None:
        """Return the pose with the intrinsics; None if one is unknown."""
        return None if self.K is None or self.pose is None else View(self.K, self.pose)


class _Instant(NamedTuple):
    """What is remembered of a frame; its image would take memory."""

    size: tuple[int, int]  # width and height, px
    stamp_ns: int
    received_s: float
    view: View | None


@dataclass(eq=False)
class _RunInFlight:
    """The frame on which the networks run, and the change that made them."""

    instant: _Instant
    carrier: DepthCarrier
    change: float


class CameraDepth:
    """
    The depth of one camera.

    Every frame goes through `advance`.  `begin_run` says that the networks run on it, and
    `finish_run` or `fail_run`, some frames later, how that ended.

    Parameters
    ----------
    steps : StepFinder or None
        See `DepthCarrier`.

    Attributes
    ----------
    steps : StepFinder
    largest_change : float
        Largest share, in any small window, of pixels that changed between two frames since the
        last run began.
    flow : Flow or None
        Between the last two frames; None if the camera has started afresh with the last.
    """

    def __init__(self, steps: StepFinder | None = None) -> None:
        """Start without depth."""
        self.steps = steps or StepFinder()
        self.largest_change = 0.0
        self.flow: Flow | None = None
        self._scale_shift: tuple[float, float] | None = None
        self._carrier: DepthCarrier | None = None
        self._last: _Instant | None = None
        self._periods_s: deque[float] = deque(maxlen=TIMES_TO_REMEMBER)  # between frames
        self._run: _Instant | None = None  # whose depth is carried
        self._in_flight: _RunInFlight | None = None
        self._run_times_s: deque[float] = deque(maxlen=TIMES_TO_REMEMBER)
        self._view: View | None = None

    def advance(self, frame: Frame, grey: GreyImage, max_pause_s: float) -> None:
        """
        Move the depth of the last run, and what becomes of that in flight, to the next frame.

        Starts afresh if the size of the image is another, time jumped back, or the camera paused.

        Parameters
        ----------
        frame : Frame
        grey : uint8 [h, w]
            Its reduced image.
        max_pause_s : float
            Longest time since the last frame, s.
        """
        last, self._last = self._last, _instant(frame)
        period_s = 0.0 if last is None else _elapsed_s(last, self._last)
        if self._carrier is None or last is None or last.size != self._last.size or not (
                0.0 <= period_s <= max_pause_s):
            self._carrier, self._run = DepthCarrier(grey, self.steps), None
            self._view, self.largest_change, self.flow = frame.view, 0.0, None
            self._periods_s.clear()
            return
        self._periods_s.append(period_s)
        self.largest_change = max(self.largest_change, self._carrier.advance(grey))
        assert self._carrier.source is not None  # it has advanced
        self.flow = Flow(last.stamp_ns, self._carrier.source)
        self._view = frame.view or self._view
        self._forget_another_scene()

    @property
    def can_carry(self) -> bool:
        """Whether there is depth that can be carried into the last frame."""
        return self._run is not None

    @property
    def new(self) -> Mask:
        """Return the pixels that the carried depth does not cover; see `DepthCarrier.new`."""
        return self._started().new

    @property
    def carried_s(self) -> float:
        """Return the time from the run whose depth is carried to the last frame, s."""
        return (0.0 if self._run is None or self._last is None
                else _elapsed_s(self._run, self._last))

    def longest_carry_s(self, max_carry_s: float) -> float:
        """
        Return for how long depth is valid, s: at least twice the time that a run takes.

        That is the (lower) median of the latest runs, as one that hung must not let old depth be
        valid.
        """
        run_s = median_low(self._run_times_s) if self._run_times_s else 0.0
        return max(max_carry_s, 2.0 * run_s)

    def is_run_due(self, max_carry_s: float) -> bool:
        """
        Whether depth could get too old before the end of a run begun on the next frame.

        It assumes that the frame and the run are as late as the latest of those remembered.
        """
        run_s, period_s = max(self._run_times_s, default=0.0), max(self._periods_s, default=0.0)
        frames = max(1, math.ceil(run_s / period_s)) if period_s else 1
        oldest_s = self.carried_s + frames * period_s
        return oldest_s > self.longest_carry_s(max_carry_s) + CLOCK_TOLERANCE_S

    def set_scale(self, scale_shift: tuple[float, float] | None) -> None:
        """
        Set the metric fit of the depth in the last frame; see `AdaptiveDepth.set_scale`.

        Until the first fit the depth has moved along the image only.  So the first fit already
        contains the motion of the camera up to the last frame; only later motion changes depth.
        """
        if self._scale_shift is None and self._run is not None:
            self._run = self._run._replace(view=self._view)
        self._scale_shift = scale_shift

    def begin_run(self) -> None:
        """Take the last frame as that on which the networks run."""
        assert self._last is not None  # `advance` comes first
        self._in_flight = _RunInFlight(self._last, self._started(), self.largest_change)
        self._started().begin_run(self._motion())
        self.largest_change = 0.0

    def finish_run(self, prediction: DepthPrediction, seconds: float) -> GaugeChange | None:
        """
        Carry the depth of the run from now on.

        Nothing happens if the camera has started afresh since it began.

        Parameters
        ----------
        prediction : DepthPrediction
            Its maps may have any size.
        seconds : float
            Time from the receipt of the frame to the end of the run, s.

        Returns
        -------
        GaugeChange or None
            From the depth that was carried so far to that of the run; None if nothing was carried,
            or the two cannot be compared.
        """
        run, self._in_flight = self._in_flight, None
        self._run_times_s.append(seconds)
        if run is None or run.carrier is not self._carrier:
            return None
        change = run.carrier.finish_run(prediction.affine_invariant_depth, prediction.confidence,
                                        run.instant.size)
        self._run = run.instant
        self._scale_shift = (change.rescale(*self._scale_shift)
                             if change is not None and self._scale_shift is not None else None)
        self._forget_another_scene()
        return change

    def fail_run(self) -> None:
        """Take it that the run in flight found nothing, so that its reason persists."""
        run, self._in_flight = self._in_flight, None
        if run is not None and run.carrier is self._carrier:
            run.carrier.fail_run()
            self.largest_change = max(self.largest_change, run.change)

    def carry(self) -> CarriedDepth:
        """Return the carried depth of the last frame."""
        return self._started().carry(self._motion())

    def _started(self) -> DepthCarrier:
        assert self._carrier is not None  # `advance` comes first
        return self._carrier

    def _motion(self) -> Motion | None:
        """Return how the camera moved since the run, if its poses and the scale are known."""
        run_view = None if self._run is None else self._run.view
        if run_view is None or self._view is None or self._scale_shift is None:
            return None
        return Motion(run_view, self._view, *self._scale_shift)

    def _forget_another_scene(self) -> None:
        if self._run is not None and self._started().covered_share < MIN_COVERED_SHARE:
            self._run = None
            self._started().forget()


def _instant(frame: Frame) -> _Instant:
    return _Instant(frame.rgb.shape[1::-1], frame.stamp_ns, frame.received_s, frame.view)


def _elapsed_s(earlier: _Instant, later: _Instant) -> float:
    """Return the time between two frames, s: by their stamps if these carry time."""
    if earlier.stamp_ns and later.stamp_ns:
        return (later.stamp_ns - earlier.stamp_ns) * 1e-9
    return later.received_s - earlier.received_s
