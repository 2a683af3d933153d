"""The scale of every camera over time, whatever it is measured from."""

from __future__ import annotations

from collections import defaultdict

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.checks import check_residual
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.filter import ScaleFilter
from marigold_ros.metric.fit import ScaleFit
from marigold_ros.metric.sources.ground_plane import GroundPlane
from marigold_ros.metric.sources.reference import fit_reference
from marigold_ros.metric.types import MetricScale, ScaleFrame, ScaleReport


class ScaleTracker:
    """
    Measure the scale of each frame, smooth it, hold it, and forget it when it is too old.

    The sources `none` and `fixed` measure nothing: they say the same of every frame.

    Parameters
    ----------
    config : ScaleConfig

    Examples
    --------
    >>> report = ScaleTracker(ScaleConfig('fixed', 0.5, 8.0)).update(frame)
    >>> depth_m = report.metric.to_metres(frame.relative)
    """

    def __init__(self, config: ScaleConfig) -> None:
        """Start without a scale."""
        self._config = config
        self._floor = GroundPlane(config) if config.source == 'ground_plane' else None
        self.reset()

    def reset(self) -> None:
        """Forget what was measured of every camera."""
        self._filters: defaultdict[str, ScaleFilter] = defaultdict(
            lambda: ScaleFilter(self._config.filter))
        self._expired: set[str] = set()
        if self._floor is not None:
            self._floor.reset()

    def update(self, frame: ScaleFrame) -> ScaleReport:
        """
        Learn from one frame, and say what its scale is.

        Parameters
        ----------
        frame : ScaleFrame
            Those of a camera in the order of time.

        Returns
        -------
        ScaleReport
            Never raises: what is wrong with a reference is its `detail`.
        """
        if not self._config.is_measured:
            return _unmeasured(self._config)
        filter_ = self._filters[frame.camera]
        if filter_.expire(frame.stamp_ns):
            self._expired.add(frame.camera)
        refusal = ''
        try:
            measured = self._measure(frame, filter_.scale_shift)
            if measured is not None:
                fit, trust = measured
                check_residual(fit)
                filter_.add(fit, frame.stamp_ns, trust)
                self._expired.discard(frame.camera)
        except InputError as err:
            refusal = str(err)
        return self._report(frame, filter_, refusal)

    def _measure(self, frame: ScaleFrame, known: tuple[float, float] | None
                 ) -> tuple[ScaleFit, float] | None:
        """Fit a frame: the fit and what it is worth; None if there is nothing to fit."""
        if self._floor is None:
            return fit_reference(frame, known, self._config.filter.hold_s)
        fit = self._floor.fit(frame)
        return None if fit is None else (fit, 1.0)

    def _report(self, frame: ScaleFrame, filter_: ScaleFilter, refusal: str) -> ScaleReport:
        """Name the state: what is published comes before what is refused."""
        if filter_.scale_shift is None:
            state = ('expired' if frame.camera in self._expired
                     else 'refused' if refusal else 'waiting')
            return ScaleReport(state, None, detail=refusal)
        metric = MetricScale(*filter_.scale_shift, filter_.confidence(frame.stamp_ns),
                             self._config.source, assumed=False)
        state = ('refused' if refusal
                 else 'holding' if filter_.held(frame.stamp_ns) else 'tracking')
        return ScaleReport(state, metric, filter_.fit, filter_.age_s(frame.stamp_ns), refusal)


def _unmeasured(config: ScaleConfig) -> ScaleReport:
    """Report no scale for `none`; for `fixed` the range that the user assumes for 0 and 1."""
    low_m, high_m = config.min_depth_m, config.max_depth_m
    if config.source == 'none' or low_m is None or high_m is None:
        return ScaleReport('none', None)
    return ScaleReport('assumed', MetricScale(
        scale=high_m - low_m, shift=low_m, confidence=0.0, source='fixed', assumed=True))
