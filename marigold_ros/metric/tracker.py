"""The scale of every camera over time, for every scale source."""

from __future__ import annotations

from collections import defaultdict

from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import GaugeChange
from marigold_ros.metric.checks import check_residual
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.filter import ScaleFilter
from marigold_ros.metric.fit import ScaleFit
from marigold_ros.metric.sources.ground_plane import GroundPlane
from marigold_ros.metric.sources.reference import fit_reference
from marigold_ros.metric.types import CameraTilt, MetricScale, ScaleFrame, ScaleReport


class ScaleTracker:
    """
    Measure the scale of each frame, smooth it, hold it, and discard it when it is too old.

    The sources `none` and `fixed` measure nothing and return the same report for every frame.

    Parameters
    ----------
    config : ScaleConfig
    """

    def __init__(self, config: ScaleConfig) -> None:
        """Start without a scale."""
        self._config = config
        self._floor = GroundPlane(config) if config.source == 'ground_plane' else None
        self.reset()

    def reset(self) -> None:
        """Discard the scale of every camera."""
        self._filters: defaultdict[str, ScaleFilter] = defaultdict(
            lambda: ScaleFilter(self._config.filter))
        self._expired: set[str] = set()
        self._gauge_changes: dict[str, GaugeChange] = {}  # since the last fit
        if self._floor is not None:
            self._floor.reset()

    def discard(self, camera: str) -> None:
        """Discard the scale of one camera."""
        self._filters.pop(camera, None)
        self._expired.discard(camera)
        self._gauge_changes.pop(camera, None)
        if self._floor is not None:
            self._floor.discard(camera)

    def update(self, frame: ScaleFrame) -> ScaleReport:
        """
        Update the scale with one frame and return its report.

        Parameters
        ----------
        frame : ScaleFrame
            Frames of one camera must be passed in the order of their stamps.

        Returns
        -------
        ScaleReport
            An invalid reference does not raise; its `detail` contains the reason.

        Examples
        --------
        A reference that measured a depth of 3 m * relative + 1 m at every pixel:

        >>> import numpy as np
        >>> from marigold_ros.metric.anchors import Anchors
        >>> relative = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))
        >>> rows, columns = (each.ravel() for each in np.mgrid[:30, :40])
        >>> anchors = Anchors(rows, columns, 3 * relative.ravel() + 1)
        >>> frame = ScaleFrame('camera', 0, relative, None, np.eye(3), anchors)
        >>> report = ScaleTracker(ScaleConfig('depth')).update(frame)
        >>> scale = report.metric_scale
        >>> print(f'{report.state}: {scale.scale:.2f} m, {scale.shift:.2f} m')
        tracking: 3.00 m, 1.00 m
        """
        if not self._config.is_measured:
            return _unmeasured_report(self._config)
        filter_ = self._filters[frame.camera]
        self._note_gauge_change(frame)
        if filter_.expire(frame.stamp_ns):
            self._expired.add(frame.camera)
        tilt, rejection = None, ''
        try:
            if self._floor is not None:
                tilt = self._floor.find_tilt(frame)
            measurement = self._measure(frame, tilt, filter_.scale_shift)
            if measurement is not None:
                fit, weight = measurement
                check_residual(fit)
                tilt_age_s = 0.0 if tilt is None else tilt.age_s or 0.0
                filter_.add(fit, frame.stamp_ns, weight,
                            valid_ns=frame.stamp_ns - round(1e9 * tilt_age_s),
                            gauge_change=self._gauge_changes.pop(frame.camera, None))
                self._expired.discard(frame.camera)
        except InputError as err:
            rejection = str(err)
        return self._report(frame, filter_, rejection, tilt)

    def _note_gauge_change(self, frame: ScaleFrame) -> None:
        """Keep how the gauge changed until the next fit, which may be that of a later frame."""
        change, earlier = frame.gauge_change, self._gauge_changes.get(frame.camera)
        if change is not None:
            self._gauge_changes[frame.camera] = change if earlier is None else change.after(
                earlier)

    def _measure(self, frame: ScaleFrame, tilt: CameraTilt | None,
                 previous: tuple[float, float] | None) -> tuple[ScaleFit, float] | None:
        """Return the fit of a frame and its weight in (0, 1]; None if it has no measurement."""
        if self._floor is None:
            return fit_reference(frame, previous, self._config.filter.hold_s)
        return None if tilt is None else (self._floor.fit(frame, tilt), 1.0)

    def _report(self, frame: ScaleFrame, filter_: ScaleFilter, rejection: str,
                tilt: CameraTilt | None) -> ScaleReport:
        if filter_.scale_shift is None:
            state = ('expired' if frame.camera in self._expired
                     else 'rejected' if rejection else 'waiting')
            return ScaleReport(state, None, detail=rejection, tilt=tilt)
        scale = MetricScale(*filter_.scale_shift, filter_.confidence(frame.stamp_ns),
                            self._config.source, assumed=False)
        state = ('rejected' if rejection
                 else 'holding' if filter_.is_held(frame.stamp_ns) else 'tracking')
        return ScaleReport(state, scale, filter_.fit, filter_.age_s(frame.stamp_ns), rejection,
                           tilt)


def _unmeasured_report(config: ScaleConfig) -> ScaleReport:
    """Report no scale for `none`, and the configured range for `fixed`."""
    low_m, high_m = config.min_depth_m, config.max_depth_m
    if config.source == 'none' or low_m is None or high_m is None:
        return ScaleReport('none', None)
    return ScaleReport('assumed', MetricScale(
        scale=high_m - low_m, shift=low_m, confidence=0.0, source='fixed', assumed=True))
