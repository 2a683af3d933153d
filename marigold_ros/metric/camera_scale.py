"""The scale of one camera over time, from all scale sources together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.agreement import Agreement
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.checks import check_residual, check_unit_jump, WrongContentError
from marigold_ros.metric.field import ANCHOR_SIGMA, DepthField, fit_field
from marigold_ros.metric.filter import ScaleFilter
from marigold_ros.metric.fit import EFFECTIVE_ANCHORS, fit_scale, TYPICAL_PROPORTION
from marigold_ros.metric.known_points import SIGMA_LOG_PER_S
from marigold_ros.metric.sources.ground_plane import GroundPlane, NoFloorError
from marigold_ros.metric.sources.motion import MotionSource
from marigold_ros.metric.sources.reference import ReferenceSource
from marigold_ros.metric.types import (
    Measurement,
    MetricScale,
    ScaleFrame,
    ScaleReport,
    SourceReport,
)

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, GaugeChange
    from marigold_ros.metric.config import ScaleConfig

# Smallest weight of an anchor, at a pixel of confidence 0.
MIN_WEIGHT = 0.05
# Standard deviation of log depth at which an anchor counts half in the fit.
HALF_WEIGHT_SIGMA = 0.1
# A source is weighed down if the corrected depth contradicts this share of its anchors, by so much
# in log depth.
CONTRADICTED_SHARE, CONTRADICTED_LOG = 0.2, 0.2


class CameraScale:
    """
    The scale of one camera, see `ScaleTracker`.

    Parameters
    ----------
    config : ScaleConfig
        With sources that measure.
    """

    def __init__(self, config: ScaleConfig) -> None:
        """Start without a scale."""
        self._config, hold_s = config, config.filter.hold_s
        self._ground = GroundPlane(config) if config.uses_floor else None
        self._sources: dict[str, ReferenceSource | GroundPlane | MotionSource] = {}
        for name in config.sources:
            if name == 'ground_plane' and self._ground is not None:
                self._sources[name] = self._ground
            elif name == 'motion':
                self._sources[name] = MotionSource(self._ground, config.refine_rotation, hold_s)
            else:
                self._sources[name] = ReferenceSource(name, hold_s)
        self._agreement = Agreement(config.sources)
        self._filter = ScaleFilter(config.filter)
        self._used: tuple[str, ...] = ()  # by the last fit
        self._field: DepthField | None = None
        self._has_expired = False
        self._gauge_change: GaugeChange | None = None  # since the last fit

    def update(self, frame: ScaleFrame) -> ScaleReport:
        """Update the scale with one frame, see `ScaleTracker.update`."""
        self._note_gauge_change(frame.gauge_change)
        self._has_expired |= self._filter.expire(frame.stamp_ns)

        # 1. Ask every source for its anchors; refuse what cannot be true.
        measured, problems = self._measure(frame)
        self._refuse_contradictions(frame, measured, problems)

        # 2. Fit one scale and one shift to all anchors, and smooth them over time.
        fitted: dict[str, Measurement] = {}
        try:
            if measured:
                self._add_fit(frame, measured)
                fitted = measured
        except InputError as err:
            # That too little is still held is not wrong.
            new = [name for name, each in measured.items() if not each.held]
            problems = {**dict.fromkeys(new, err), **problems}

        # 3. Correct the depth that they give locally.
        scale = self._metric_scale(frame, fitted)
        return self._report(frame, scale, fitted, problems)

    def _note_gauge_change(self, change: GaugeChange | None) -> None:
        """Keep how the gauge changed until the next fit, which may be that of a later frame."""
        if change is not None:
            earlier = self._gauge_change
            self._gauge_change = change if earlier is None else change.after(earlier)

    def _measure(self, frame: ScaleFrame
                 ) -> tuple[dict[str, Measurement], dict[str, InputError]]:
        """Return what the sources have measured, and what is wrong with the others."""
        measured: dict[str, Measurement] = {}
        problems: dict[str, InputError] = {}
        oldest_ns = frame.stamp_ns - 1e9 * self._config.filter.expire_s
        for name, source in self._sources.items():
            try:
                found = source.measure(frame)
                if found is None or found.measured_ns < oldest_ns:
                    continue
                self._check_unit_jump(frame, found.anchors)
                measured[name] = found
                if found.problem is not None:
                    problems[name] = found.problem
            except InputError as err:
                problems[name] = err
                if isinstance(err, WrongContentError):
                    self._forget(name)
        return measured, problems

    def _forget(self, name: str) -> None:
        """Hold nothing any more of what a reference has measured."""
        source = self._sources[name]
        if isinstance(source, ReferenceSource):
            source.forget()

    def _check_unit_jump(self, frame: ScaleFrame, anchors: Anchors) -> None:
        if self._filter.scale_shift is not None:
            scale, shift = self._filter.scale_shift
            check_unit_jump(anchors.depth_m, scale * frame.affine_invariant_depth[
                anchors.rows, anchors.columns] + shift)

    def _refuse_contradictions(self, frame: ScaleFrame, measured: dict[str, Measurement],
                               problems: dict[str, InputError]) -> None:
        """Move the sources that contradict others from `measured` to `problems`."""
        refused = self._agreement.find_refused(
            {name: each.anchors for name, each in measured.items()},
            frame.affine_invariant_depth, self._proportion or TYPICAL_PROPORTION, frame.stamp_ns)
        for name, text in refused.items():
            problems[name] = InputError(text)
            del measured[name]
            self._forget(name)

    @property
    def _proportion(self) -> float | None:
        """Return shift / scale of the last frame."""
        if self._filter.scale_shift is None:
            return None
        scale, shift = self._filter.scale_shift
        return shift / scale

    def _add_fit(self, frame: ScaleFrame, measured: Mapping[str, Measurement]) -> None:
        """Fit the anchors of all sources, and add the fit to the filter."""
        anchors = _join([each.anchors for each in measured.values()])
        fit = fit_scale(
            frame.affine_invariant_depth[anchors.rows, anchors.columns], anchors.depth_m,
            np.concatenate([self._weights(name, each, frame) for name, each in measured.items()]),
            proportion=self._proportion,
            effective_anchors=EFFECTIVE_ANCHORS * anchors.coverage(
                frame.affine_invariant_depth.shape))
        check_residual(fit)
        self._filter.add(fit, frame.stamp_ns, max(each.weight for each in measured.values()),
                         valid_ns=max(each.measured_ns for each in measured.values()),
                         gauge_change=self._gauge_change)
        self._gauge_change, self._has_expired = None, False
        self._used = tuple(measured)

    def _weights(self, name: str, measurement: Measurement, frame: ScaleFrame
                 ) -> NDArray[np.float32]:
        """
        Return the weight of each anchor of a source in the fit.

        A source counts by the part of the image that it covers, not by the number of its anchors,
        as the errors of the prediction are the same over whole surfaces.
        """
        anchors = measurement.anchors
        weight = np.ones(len(anchors), np.float32)
        if frame.confidence is not None:
            weight = np.maximum(frame.confidence[anchors.rows, anchors.columns],
                                np.float32(MIN_WEIGHT))
        if anchors.sigma_log is not None:
            weight = weight / (1.0 + (anchors.sigma_log / HALF_WEIGHT_SIGMA) ** 2)
        known = np.isfinite(weight) & np.isfinite(
            frame.affine_invariant_depth[anchors.rows, anchors.columns])
        total = (self._config.weight(name) * measurement.weight
                 * anchors.coverage(frame.affine_invariant_depth.shape))
        return np.asarray(weight * (total / max(weight[known].sum(), MIN_WEIGHT)), np.float32)

    def _metric_scale(self, frame: ScaleFrame, fitted: Mapping[str, Measurement]
                      ) -> MetricScale | None:
        """Return scale, shift and field of a frame; None while the scale is unknown."""
        if self._filter.scale_shift is None:
            self._field = None
            return None
        scale = MetricScale(*self._filter.scale_shift, self._filter.confidence(frame.stamp_ns),
                            self._used)
        self._field = self._fit_field(scale.to_metric_depth(frame.affine_invariant_depth),
                                      frame, fitted)
        # What has not been measured for a while becomes less certain, and so does all depth.
        return replace(scale, field=self._field.with_sigma(
            SIGMA_LOG_PER_S * self._filter.age_s(frame.stamp_ns)))

    def _fit_field(self, depth_m: FloatImage, frame: ScaleFrame,
                   fitted: Mapping[str, Measurement]) -> DepthField:
        heaviest = max(map(self._config.weight, fitted), default=1.0)
        anchors = [_weigh(each.anchors, self._config.weight(name) / heaviest)
                   for name, each in fitted.items()]
        if not anchors:
            return DepthField.without_anchors()
        try:
            return fit_field(depth_m, frame.K, _join(anchors), self._field)
        except InputError:  # no anchor lies on a pixel of known depth
            return DepthField.without_anchors()

    def _report(self, frame: ScaleFrame, scale: MetricScale | None,
                fitted: Mapping[str, Measurement], problems: Mapping[str, InputError]
                ) -> ScaleReport:
        tilt = None if self._ground is None else self._ground.tilt
        sources = {name: self._report_source(frame, scale, fitted.get(name), problems.get(name))
                   for name in self._config.sources}
        # The floor may be out of view while another source measures.
        detail = '; '.join(str(problem) if len(sources) == 1 else f'{name}: {problem}'
                           for name, problem in problems.items()
                           if not (isinstance(problem, NoFloorError) and fitted))
        if scale is None:
            state = 'expired' if self._has_expired else 'rejected' if problems else 'waiting'
            return ScaleReport(state, None, detail=detail, tilt=tilt, sources=sources)
        state = ('rejected' if problems and not fitted
                 else 'holding' if self._filter.is_held(frame.stamp_ns) else 'tracking')
        return ScaleReport(state, scale, self._filter.fit, self._filter.age_s(frame.stamp_ns),
                           detail, tilt, sources)

    def _report_source(self, frame: ScaleFrame, scale: MetricScale | None,
                       measurement: Measurement | None, problem: InputError | None
                       ) -> SourceReport:
        """Report one source: `measurement` is None if it was not used."""
        if measurement is None:
            return (SourceReport('waiting') if problem is None
                    else SourceReport('rejected', str(problem)))
        anchors = measurement.anchors
        taken_ns = min(measurement.measured_ns, anchors.stamp_ns)
        age_s = max(0, frame.stamp_ns - taken_ns) * 1e-9
        if problem is not None:  # what it has measured before counts
            return SourceReport('rejected', str(problem), len(anchors), age_s)
        state, detail = 'holding' if measurement.held else 'used', ''
        wrong = 0.0 if scale is None else _contradicted_share(anchors, scale, frame)
        if wrong > CONTRADICTED_SHARE:
            state, detail = 'weighed down', (
                f'{100 * wrong:.0f} % of its anchors are contradicted by their neighbours')
        return SourceReport(state, detail, len(anchors), age_s)


def _join(anchors: Iterable[Anchors]) -> Anchors:
    return reduce(Anchors.joined, anchors)


def _weigh(anchors: Anchors, weight: float) -> Anchors:
    """Return anchors that are as uncertain as the weight of their source, up to 1, says."""
    if weight == 1.0:
        return anchors
    variance = np.float32(ANCHOR_SIGMA ** 2)
    if anchors.sigma_log is not None:
        variance = variance + anchors.sigma_log ** 2
    sigma_log = np.sqrt(np.maximum(variance / np.float32(weight) - ANCHOR_SIGMA ** 2, 0.0))
    return replace(anchors, sigma_log=np.broadcast_to(sigma_log, len(anchors)))


def _contradicted_share(anchors: Anchors, scale: MetricScale, frame: ScaleFrame) -> float:
    """Return the share of anchors from which corrected depth differs by `CONTRADICTED_LOG`."""
    rows, columns = anchors.rows, anchors.columns
    depth_m = scale.to_metric_depth(frame.affine_invariant_depth[rows, columns])
    if scale.field is not None:
        depth_m *= scale.field.factor_at(rows, columns, frame.affine_invariant_depth.shape)
    known = np.isfinite(depth_m) & (depth_m > 0.0)
    if anchors.sigma_log is not None:  # less certain ones may be so far off
        known &= anchors.sigma_log < CONTRADICTED_LOG / 2
    error = np.abs(np.log(depth_m[known] / anchors.depth_m[known]))
    return float(np.mean(error > CONTRADICTED_LOG)) if len(error) else 0.0
