"""Temporal filter of one camera's scale: smoothing, rate limit, hold and expiry."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

from marigold_ros.depth.errors import ConfigError

if TYPE_CHECKING:
    from marigold_ros.depth.types import GaugeChange
    from marigold_ros.metric.fit import ScaleFit

# Time constant of the smoothing for a fit of confidence and weight 1.
TIME_CONSTANT_S = 1.0
# The rate limit is relative to the depth of each end, but at least to this fraction of the middle
# depth: otherwise a near end close to 0 could never move.
MIN_RATE_FRACTION = 0.25


@dataclass(frozen=True)
class FilterConfig:
    """
    Limits on the change and the age of a scale.

    Attributes
    ----------
    max_change_per_s : float
        Largest relative change of the metric depth at a fixed relative depth, 1/s.
    hold_s, expire_s : float
        Age of the last measurement above which the scale counts as held, and as unknown, s.

    Raises
    ------
    ConfigError
        Unless 0 < max_change_per_s and 0 < hold_s < expire_s.
    """

    max_change_per_s: float = 0.3
    hold_s: float = 1.0
    expire_s: float = 10.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_change_per_s) and self.max_change_per_s > 0):
            raise ConfigError('`scale.max_change_per_s` must be finite and above 0; '
                              f'got {self.max_change_per_s}')
        if not 0 < self.hold_s < self.expire_s < math.inf:
            raise ConfigError('`scale.hold_s` must be above 0 s and below scale.expire_s '
                              f'({self.expire_s:g} s); got {self.hold_s:g} s')


class ScaleFilter:
    """
    Smooth the scale fits of one camera.

    The state is the metric depth at relative depth 0 and 1, the two ends of the range.  Both ends
    move towards the new fit by the same fraction, so that scale and shift stay above 0.  The
    fraction grows with the elapsed time and the confidence of the fit, and is limited so that
    neither end changes faster than `max_change_per_s`.  The first fit, and the first after an
    expiry, is used unfiltered.

    Where relative depth changes its gauge, its own scale and shift, the ends follow the fit at
    once as far as that explains it: the metric depth of a point then does not change.

    Parameters
    ----------
    config : FilterConfig
    """

    def __init__(self, config: FilterConfig) -> None:
        """Start without a scale."""
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Discard the scale."""
        self._ends: tuple[float, float] | None = None
        self._measured_ns = self._valid_ns = 0
        self.fit: ScaleFit | None = None

    def add(self, fit: ScaleFit, stamp_ns: int, weight: float = 1.0, *,
            valid_ns: int | None = None, gauge_change: GaugeChange | None = None) -> None:
        """
        Update the scale with a fit.

        Parameters
        ----------
        fit : ScaleFit
        stamp_ns : int
            Stamp of the image that was fitted, ns.
        weight : float
            In (0, 1]; multiplies the fit's confidence, for example by the age of its anchors.
        valid_ns : int or None
            Stamp from which the age of the fit counts, ns, such as that of its newest anchors;
            None: the image.
        gauge_change : GaugeChange or None
            How relative depth differs from that of the last fit; None: it has the same gauge.
        """
        self.expire(stamp_ns)
        target = (fit.shift, fit.scale + fit.shift)
        if self._ends is None:
            self._ends = target
        else:
            if gauge_change is not None:
                self._ends = _follow_gauge(self._ends, target, gauge_change)
            dt_s = max(0.0, (stamp_ns - self._measured_ns) * 1e-9)
            step = 1.0 - math.exp(-dt_s * weight * fit.confidence / TIME_CONSTANT_S)
            middle_m = sum(self._ends) / 2.0
            for end, goal in zip(self._ends, target):
                max_change_m = (self._config.max_change_per_s * dt_s
                                * max(end, MIN_RATE_FRACTION * middle_m))
                if abs(goal - end) * step > max_change_m:
                    step = max_change_m / abs(goal - end)
            near, far = (end + step * (goal - end) for end, goal in zip(self._ends, target))
            self._ends = (near, far)
        self._measured_ns = stamp_ns
        self._valid_ns = stamp_ns if valid_ns is None else valid_ns
        self.fit = fit

    def expire(self, stamp_ns: int) -> bool:
        """Discard the scale if it is too old at a time; return whether it was discarded."""
        if self._ends is None or self.age_s(stamp_ns) <= self._config.expire_s:
            return False
        self.reset()
        return True

    def age_s(self, stamp_ns: int) -> float:
        """Return the time since the last measurement, s; 0 for an earlier image."""
        return max(0.0, (stamp_ns - self._valid_ns) * 1e-9)

    def is_held(self, stamp_ns: int) -> bool:
        """Check whether the last measurement is older than `hold_s`."""
        return self.age_s(stamp_ns) > self._config.hold_s

    @property
    def scale_shift(self) -> tuple[float, float] | None:
        """Return scale and shift, m; None while unknown."""
        if self._ends is None:
            return None
        near, far = self._ends
        return far - near, near

    def confidence(self, stamp_ns: int) -> float:
        """Compute the last fit's confidence, which falls from `hold_s` on to 0 at `expire_s`."""
        if self.fit is None:
            return 0.0
        config = self._config
        left = (config.expire_s - self.age_s(stamp_ns)) / (config.expire_s - config.hold_s)
        return self.fit.confidence * min(1.0, max(0.0, left))


def _follow_gauge(ends: tuple[float, float], target: tuple[float, float],
                  change: GaugeChange) -> tuple[float, float]:
    """
    Move both ends to a fit, but not farther than the change of the gauge explains.

    The ends stay above 0 and in their order, as the fit's are, even if the gauge alone would lead
    behind the camera.  The gauge is not followed without a fit: it also contains how the camera
    moved, where that is unknown, and its errors add up from run to run.
    """
    near, far = ends
    # Old relative depth is (new - offset) / factor.
    scale = (far - near) / change.factor
    moved_near = near - scale * change.offset
    near, far = (min(max(goal, min(end, moved)), max(end, moved)) for end, moved, goal in zip(
        ends, (moved_near, moved_near + scale), target))
    return near, far
