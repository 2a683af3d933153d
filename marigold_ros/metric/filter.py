"""The scale of one camera over time: smooth, bounded in its change, held, and forgotten."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

from marigold_ros.depth.errors import ConfigError

if TYPE_CHECKING:
    from marigold_ros.metric.fit import ScaleFit

# Time in which a fit of confidence 1 is followed by 63 %.
FOLLOW_S = 0.5
# The near end may move as if it lay at this part of the middle depth: its own share of nothing is
# nothing.
NEAR_PART = 0.25


@dataclass(frozen=True)
class FilterConfig:
    """
    How a scale may change.

    Attributes
    ----------
    max_change_per_s : float
        Largest relative change of the depth of a given affine-invariant value, 1/s.
    hold_s, expire_s : float
        Age of the last measurement from which the scale counts as held, and as unknown, s.

    Raises
    ------
    ConfigError
        Unless 0 < max_change_per_s and 0 < hold_s < expire_s.
    """

    max_change_per_s: float = 0.1
    hold_s: float = 1.0
    expire_s: float = 10.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_change_per_s) and self.max_change_per_s > 0):
            raise ConfigError('`scale.max_change_per_s` must be finite and above 0; '
                              f'got {self.max_change_per_s}')
        if not 0 < self.hold_s < self.expire_s < math.inf:
            raise ConfigError('`scale.hold_s` must be above 0 and below scale.expire_s '
                              f'({self.expire_s:g} s); got {self.hold_s:g}')


class ScaleFilter:
    """
    Smooth the fits of one camera.

    The two ends of the range, the depth of affine-invariant 0 and 1, move along one straight line
    towards those of each new fit, so that scale and shift stay above 0; how far depends on time
    and confidence, and neither end goes faster than allowed.  The first fit, also after an expiry,
    is taken as it is.

    Parameters
    ----------
    config : FilterConfig
    """

    def __init__(self, config: FilterConfig) -> None:
        """Start without a scale."""
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Forget the scale."""
        self._ends: tuple[float, float] | None = None
        self._updated_ns = self._measured_ns = 0
        self.fit: ScaleFit | None = None

    def add(self, fit: ScaleFit, stamp_ns: int, trust: float = 1.0) -> None:
        """
        Move towards a fit.

        Parameters
        ----------
        fit : ScaleFit
        stamp_ns : int
            Of the image that was fitted, ns.
        trust : float
            In (0, 1]: what the fit is worth beside its own confidence, for instance by the age of
            its anchors.
        """
        self.expire(stamp_ns)
        target = (fit.shift, fit.scale + fit.shift)
        if self._ends is None:
            self._ends = target
        else:
            dt_s = max(0.0, (stamp_ns - self._updated_ns) * 1e-9)
            step = 1.0 - math.exp(-dt_s * trust * fit.confidence / FOLLOW_S)
            middle_m = sum(self._ends) / 2.0
            for end, goal in zip(self._ends, target):
                allowed = self._config.max_change_per_s * dt_s * max(end, NEAR_PART * middle_m)
                if abs(goal - end) * step > allowed:
                    step = allowed / abs(goal - end)
            near, far = (end + step * (goal - end) for end, goal in zip(self._ends, target))
            self._ends = (near, far)
        self._updated_ns = self._measured_ns = stamp_ns
        self.fit = fit

    def expire(self, stamp_ns: int) -> bool:
        """Forget a scale that is too old at a time; whether there was one to forget."""
        if self._ends is None or self.age_s(stamp_ns) <= self._config.expire_s:
            return False
        self.reset()
        return True

    def age_s(self, stamp_ns: int) -> float:
        """Seconds since the last measurement; 0 for an image before it."""
        return max(0.0, (stamp_ns - self._measured_ns) * 1e-9)

    def held(self, stamp_ns: int) -> bool:
        """Whether the last measurement is so old that the scale is only held."""
        return self.age_s(stamp_ns) > self._config.hold_s

    @property
    def scale_shift(self) -> tuple[float, float] | None:
        """Scale and shift, m; None while unknown."""
        if self._ends is None:
            return None
        near, far = self._ends
        return far - near, near

    def confidence(self, stamp_ns: int) -> float:
        """Confidence of the last fit, fading from hold_s to nothing at expire_s."""
        if self.fit is None:
            return 0.0
        config = self._config
        left = (config.expire_s - self.age_s(stamp_ns)) / (config.expire_s - config.hold_s)
        return self.fit.confidence * min(1.0, max(0.0, left))
