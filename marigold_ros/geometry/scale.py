"""Where metres come from: the scale and shift that a camera's relative depth has now."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Protocol, TYPE_CHECKING

import numpy as np

from marigold_ros.depth.errors import ConfigError

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

SOURCES = ('none', 'fixed')


@dataclass(frozen=True)
class MetricScale:
    """
    Map from affine-invariant depth to metres: depth_m = scale * affine_invariant_depth + shift.

    Attributes
    ----------
    scale, shift : float
        Metres.
    confidence : float
        In [0, 1], 1 sure; 0 for an assumption, which no measurement supports.
    source : str
        Value of `scale.source` that it comes from.
    assumed : bool
        Whether it is an assumption and not a measurement.
    """

    scale: float
    shift: float
    confidence: float
    source: str
    assumed: bool

    def to_metres(self, affine_invariant_depth: FloatImage) -> FloatImage:
        """
        Turn relative depth into metres along Z.

        Parameters
        ----------
        affine_invariant_depth : float32 [H, W]
            In [0, 1], 0 near.

        Returns
        -------
        float32 [H, W]
            Depth along Z, m; NaN stays NaN.
        """
        depth_m: FloatImage = np.multiply(affine_invariant_depth, np.float32(self.scale),
                                          dtype=np.float32)
        depth_m += np.float32(self.shift)
        return depth_m


class ScaleSource(Protocol):
    """What the node asks for metres, whatever they come from."""

    def current(self, camera: str, stamp_ns: int) -> MetricScale | None:
        """
        Give the scale of one camera at one time.

        Parameters
        ----------
        camera : str
            Name of the camera.
        stamp_ns : int
            Stamp of the image that is to become metric, ns.

        Returns
        -------
        MetricScale or None
            None while no metres are known: then nothing metric may be published.
        """

    def reset(self) -> None:
        """Forget everything learned from earlier frames."""


class NoScale:
    """Source `none`: relative depth only, no metres ever."""

    def current(self, camera: str, stamp_ns: int) -> MetricScale | None:
        """Return None: no metres are known."""
        return None

    def reset(self) -> None:
        """Forget nothing: this source learns nothing."""


class FixedScale:
    """
    Source `fixed`: the relative depth spread over a range that the user assumes.

    Parameters
    ----------
    min_depth_m, max_depth_m : float
        Depth of affine-invariant 0 and 1, m.

    Raises
    ------
    ConfigError
        Unless 0 < min_depth_m < max_depth_m, both finite.
    """

    def __init__(self, min_depth_m: float, max_depth_m: float) -> None:
        if not (math.isfinite(min_depth_m) and min_depth_m > 0):
            raise ConfigError(
                f'`scale.min_depth_m` must be finite and above 0 m; got {min_depth_m}')
        if not (math.isfinite(max_depth_m) and max_depth_m > min_depth_m):
            raise ConfigError('`scale.max_depth_m` must be finite and above scale.min_depth_m '
                              f'({min_depth_m} m); got {max_depth_m}')
        self._scale = MetricScale(scale=max_depth_m - min_depth_m, shift=min_depth_m,
                                  confidence=0.0, source='fixed', assumed=True)

    def current(self, camera: str, stamp_ns: int) -> MetricScale | None:
        """Return the assumed scale, the same for every camera and time."""
        return self._scale

    def reset(self) -> None:
        """Forget nothing: this source learns nothing."""


def make_scale_source(source: str, min_depth_m: float | None,
                      max_depth_m: float | None) -> ScaleSource:
    """
    Build the scale source that the parameters ask for.

    Parameters
    ----------
    source : {'none', 'fixed'}
        Parameter `scale.source`.
    min_depth_m, max_depth_m : float or None
        Parameters `scale.min_depth_m` and `scale.max_depth_m`, m; None if unset.

    Returns
    -------
    ScaleSource

    Raises
    ------
    ConfigError
        For an unknown source, or a range that `fixed` needs and that is unset or empty.
    """
    if source == 'none':
        return NoScale()
    if source != 'fixed':
        raise ConfigError(f'`scale.source` must be one of {", ".join(SOURCES)}; got {source!r}')
    if min_depth_m is None or max_depth_m is None:
        raise ConfigError('`scale.min_depth_m` and `scale.max_depth_m` must be set in metres for '
                          f'scale.source fixed; got {min_depth_m} and {max_depth_m}')
    return FixedScale(min_depth_m, max_depth_m)
