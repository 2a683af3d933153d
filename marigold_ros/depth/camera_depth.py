"""The depth of one camera over time: the last run, and when it is too old to be carried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from marigold_ros.depth.carry import CarriedDepth, DepthCarrier, Novelty, View
from marigold_ros.depth.types import DepthPrediction, GaugeChange, GreyImage, Matrix, RgbImage

# Of the image; with less, another scene is in view.
MIN_COVERED_SHARE = 0.5


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

    shape: tuple[int, ...]
    stamp_ns: int
    received_s: float


class CameraDepth:
    """
    The depth of one camera.

    Parameters
    ----------
    detail_px : int
        Longest edge at which the networks compute depth.

    Attributes
    ----------
    scale_shift : (float, float) or None
        Metric fit of the last depth: metric depth is scale * relative depth + shift, m.
    """

    def __init__(self, detail_px: int) -> None:
        """Start without depth."""
        self._detail_px = detail_px
        self.scale_shift: tuple[float, float] | None = None
        self._carrier: DepthCarrier | None = None
        self._last: _Instant | None = None
        self._run: _Instant | None = None
        self._view: View | None = None

    def advance(self, frame: Frame, grey: GreyImage, max_pause_s: float) -> Novelty | None:
        """
        Move the depth of the last run to the next frame.

        Parameters
        ----------
        frame : Frame
        grey : uint8 [h, w]
            Its reduced image.
        max_pause_s : float
            Longest time since the last frame.

        Returns
        -------
        Novelty or None
            None if there is nothing to carry: before the first run, and if the size of the image
            is another, time jumped back, the camera paused, or another scene is in view.
        """
        last, self._last = self._last, _instant(frame)
        if self._carrier is None or last is None or last.shape != frame.rgb.shape or not (
                0.0 <= _elapsed_s(last, frame) <= max_pause_s):
            self._carrier, self._run = DepthCarrier(grey, self._detail_px), None
            return None
        novelty = self._carrier.advance(grey)
        if novelty.covered_share < MIN_COVERED_SHARE:
            self._run = None
        self._view = frame.view or self._view
        return None if self._run is None else novelty

    def start(self, frame: Frame, prediction: DepthPrediction) -> GaugeChange | None:
        """
        Carry the depth of a run on the last frame from now on.

        Returns
        -------
        GaugeChange or None
            From the depth that was carried so far to that of the run; None if nothing was carried,
            or the two cannot be compared.
        """
        assert self._carrier is not None  # `advance` comes first
        change = None if self._run is None else self._carrier.compare(
            prediction.affine_invariant_depth, self._view, self.scale_shift)
        self._carrier.start(prediction.affine_invariant_depth, prediction.confidence, frame.view)
        self._run, self._view, self.scale_shift = _instant(frame), frame.view, None
        return change

    def carry(self) -> CarriedDepth:
        """Return the carried depth of the last frame."""
        assert self._carrier is not None  # `advance` comes first
        return self._carrier.carry(self._view, self.scale_shift)

    def carried_s(self, frame: Frame) -> float:
        """Return the time since the run, s; 0 without one."""
        return 0.0 if self._run is None else _elapsed_s(self._run, frame)


def _instant(frame: Frame) -> _Instant:
    return _Instant(frame.rgb.shape, frame.stamp_ns, frame.received_s)


def _elapsed_s(earlier: _Instant, later: Frame) -> float:
    """Return the time between two frames, s: by their stamps if these carry time."""
    if earlier.stamp_ns and later.stamp_ns:
        return (later.stamp_ns - earlier.stamp_ns) * 1e-9
    return later.received_s - earlier.received_s
