"""The sources that measure: anchors from another sensor, or the floor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict, deque
from dataclasses import dataclass, field
import math

import numpy as np

from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.geometry.poses import parse_extrinsics
from marigold_ros.metric.anchors import Anchors, check_unit
from marigold_ros.metric.filter import FilterConfig, ScaleFilter
from marigold_ros.metric.fit import fit_scale, INDEPENDENT_ANCHORS, ScaleFit, USELESS_RESIDUAL
from marigold_ros.metric.scale import (
    FixedScale,
    MetricScale,
    NoScale,
    ScaleFrame,
    ScaleReport,
    ScaleSource,
)
from marigold_ros.metric.sources.ground_plane import fit_floor

REFERENCES = ('depth', 'cloud', 'scan')
SOURCES = ('none', 'fixed', *REFERENCES, 'ground_plane')
# No scene grows by this factor between two looks; mistaken units differ by 1000.
UNIT_JUMP = 30.0
# What a pixel that the model does not trust still counts.
LEAST_WEIGHT = 0.05
# A mount is searched in so many frames, then now and then; their median is taken.
MOUNT_SEARCHES, SEARCH_EVERY, LEAST_SEARCHES = 15, 10, 5


@dataclass(frozen=True)
class ScaleConfig:
    """
    Parameters `scale.*`, named as there.

    Raises
    ------
    ConfigError
        For an unknown source, a value that the source needs and that is unset, or one that breaks
        its rule.
    """

    source: str = 'none'
    min_depth_m: float | None = None
    max_depth_m: float | None = None
    extrinsics: str | None = None
    camera_height_m: float | None = None
    camera_pitch_deg: float | None = None
    camera_roll_deg: float | None = None
    filter: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ConfigError(f'`scale.source` must be one of {", ".join(SOURCES)}; '
                              f'got {self.source!r}')
        if self.source == 'fixed' and (self.min_depth_m is None or self.max_depth_m is None):
            raise ConfigError('`scale.min_depth_m` and `scale.max_depth_m` must be set in metres '
                              f'for scale.source fixed; got {self.min_depth_m} and '
                              f'{self.max_depth_m}')
        if self.source == 'ground_plane' and self.camera_height_m is None:
            raise ConfigError('`scale.camera_height_m` must be set in metres for scale.source '
                              'ground_plane; got None')
        if self.extrinsics is not None:
            parse_extrinsics(self.extrinsics)


def make_scale_source(config: ScaleConfig) -> ScaleSource:
    """
    Build the scale source that the parameters ask for.

    Raises
    ------
    ConfigError
        For a range of `fixed` that is empty.
    """
    if config.source == 'none':
        return NoScale()
    low_m, high_m = config.min_depth_m, config.max_depth_m
    if config.source == 'fixed' and low_m is not None and high_m is not None:
        return FixedScale(low_m, high_m)
    return FloorScale(config) if config.source == 'ground_plane' else AnchorScale(config)


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
                if fit.residual >= USELESS_RESIDUAL:
                    raise InputError('the relative depth does not fit the reference: the mean '
                                     f'error is {100 * fit.residual:.0f} %')
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


class AnchorScale(MeasuredScale):
    """Sources `depth`, `cloud` and `scan`: anchors that another sensor measured."""

    def _measure(self, frame: ScaleFrame, filter_: ScaleFilter
                 ) -> tuple[ScaleFit, float] | None:
        if frame.problem:
            raise InputError(frame.problem)
        if frame.anchors is None:
            return None
        apart_s = abs(frame.stamp_ns - frame.anchors.stamp_ns) * 1e-9
        if apart_s > self._config.filter.hold_s:
            return None
        check_unit(frame.anchors.depth_m)
        fit = _fit_anchors(frame, frame.anchors, filter_)
        if filter_.known:
            scale, shift = filter_.scale_shift
            ratio = (fit.scale / 2 + fit.shift) / (scale / 2 + shift)
            if not 1 / UNIT_JUMP < ratio < UNIT_JUMP:
                raise InputError(f'the reference says {ratio:.3g} times the depth that it said '
                                 'before: did its unit change?')
        return fit, math.exp(-apart_s / self._config.filter.hold_s)


def _fit_anchors(frame: ScaleFrame, anchors: Anchors, filter_: ScaleFilter) -> ScaleFit:
    """Fit with the pixels' confidence as weights; unspread anchors keep the known proportion."""
    relative = frame.relative[anchors.rows, anchors.columns]
    weight = None
    if frame.confidence is not None:
        weight = np.maximum(frame.confidence[anchors.rows, anchors.columns],
                            np.float32(LEAST_WEIGHT))
    proportion = None
    if filter_.known:
        scale, shift = filter_.scale_shift
        proportion = shift / scale
    independent = INDEPENDENT_ANCHORS * anchors.coverage(frame.relative.shape)
    return fit_scale(relative, anchors.depth_m, weight, proportion=proportion,
                     independent=independent)


class FloorScale(MeasuredScale):
    """Source `ground_plane`: the floor seen from a known height."""

    def __init__(self, config: ScaleConfig) -> None:
        """Start without a mount where it is to be searched."""
        super().__init__(config)
        self._mounts: defaultdict[str, deque[tuple[float, float]]] = defaultdict(
            lambda: deque(maxlen=MOUNT_SEARCHES))
        self._frames: defaultdict[str, int] = defaultdict(int)

    def reset(self) -> None:
        """Forget the scale and the mount of every camera."""
        super().reset()
        self._mounts.clear()
        self._frames.clear()

    def _measure(self, frame: ScaleFrame, filter_: ScaleFilter
                 ) -> tuple[ScaleFit, float] | None:
        pitch, roll = self._known_tilt(frame)
        height_m = float(self._config.camera_height_m or 0.0)
        if pitch is None or roll is None:
            mount = self._searched_tilt(frame, height_m, pitch, roll)
            if mount is None:
                return None
            pitch, roll = mount
        found = fit_floor(frame.relative, frame.K, height_m, pitch=pitch, roll=roll)
        return found.fit, 1.0

    def _known_tilt(self, frame: ScaleFrame) -> tuple[float | None, float | None]:
        """Take what the parameters say, else what TF says."""
        config = self._config
        pitch, roll = (None, None) if frame.tilt is None else frame.tilt
        if config.camera_pitch_deg is not None:
            pitch = math.radians(config.camera_pitch_deg)
        if config.camera_roll_deg is not None:
            roll = math.radians(config.camera_roll_deg)
        return pitch, roll

    def _searched_tilt(self, frame: ScaleFrame, height_m: float, pitch: float | None,
                       roll: float | None) -> tuple[float, float] | None:
        """
        Give the median of what was found so far: a camera does not move on its robot.

        None before it was found `LEAST_SEARCHES` times.
        """
        mounts = self._mounts[frame.camera]
        number = self._frames[frame.camera]
        self._frames[frame.camera] = number + 1
        if len(mounts) < MOUNT_SEARCHES or number % SEARCH_EVERY == 0:
            try:
                found = fit_floor(frame.relative, frame.K, height_m, pitch=pitch, roll=roll)
                mounts.append((found.pitch, found.roll))
            except InputError:
                if not mounts:
                    raise
        if len(mounts) < LEAST_SEARCHES:
            return None
        middle = np.median(np.array(mounts), axis=0)
        return float(middle[0]), float(middle[1])
