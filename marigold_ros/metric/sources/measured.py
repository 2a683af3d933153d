"""What all measuring sources share: a filter for each camera, and its state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.checks import check_residual
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.filter import ScaleFilter
from marigold_ros.metric.fit import ScaleFit
from marigold_ros.metric.types import MetricScale, ScaleFrame, ScaleReport


class MeasuredScale(ABC):
    """
    What all measuring sources share: a filter for each camera, and its state.

    Parameters
    ----------
    config : ScaleConfig
    """

    def __init__(self, config: ScaleConfig) -> None:
        """Start waiting."""
        self._config = config
        self._filters: defaultdict[str, ScaleFilter] = defaultdict(
            lambda: ScaleFilter(config.filter))
        self._expired: set[str] = set()

    def reset(self) -> None:
        """Forget the scale of every camera."""
        self._filters.clear()
        self._expired.clear()

    def update(self, frame: ScaleFrame) -> ScaleReport:
        """Fit one frame if it can be, and report."""
        filter_ = self._filters[frame.camera]
        if filter_.expire(frame.stamp_ns):
            self._expired.add(frame.camera)
        refusal = ''
        try:
            measured = self._measure(frame, filter_)
            if measured is not None:
                fit, trust = measured
                check_residual(fit)
                filter_.add(fit, frame.stamp_ns, trust)
                self._expired.discard(frame.camera)
        except InputError as err:
            refusal = str(err)
        return self._report(frame, filter_, refusal)

    @abstractmethod
    def _measure(self, frame: ScaleFrame, filter_: ScaleFilter
                 ) -> tuple[ScaleFit, float] | None:
        """Fit a frame: the fit and what it is worth; None if there is nothing to fit."""

    def _report(self, frame: ScaleFrame, filter_: ScaleFilter, refusal: str) -> ScaleReport:
        """Name the state: what is published comes before what is refused."""
        if not filter_.known:
            state = ('expired' if frame.camera in self._expired
                     else 'refused' if refusal else 'waiting')
            return ScaleReport(state, None, detail=refusal)
        scale, shift = filter_.scale_shift
        metric = MetricScale(scale, shift, filter_.confidence(frame.stamp_ns),
                             self._config.source, assumed=False)
        state = ('refused' if refusal
                 else 'holding' if filter_.held(frame.stamp_ns) else 'tracking')
        return ScaleReport(state, metric, filter_.fit, filter_.age_s(frame.stamp_ns), refusal)
