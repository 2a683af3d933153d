"""Mark depth that must not become an obstacle: out of range, sky, not trusted, or flying."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import ConfigError, InputError

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage


@dataclass(frozen=True)
class DepthFilter:
    """
    What is kept of metric depth; the rest is marked by REP-117.  The defaults are depth_node's.

    The defaults are the node's.

    Attributes
    ----------
    min_depth_m, max_depth_m : float
        Range that is kept, m: nearer becomes -Inf, farther +Inf.
    max_relative_depth : float
        In [0, 1]; what has a larger affine-invariant depth is sky and becomes +Inf.  1: nothing.
    confidence_min : float
        In [0, 1]; what has a lower confidence becomes NaN.  0: nothing.
    min_surface_angle_deg : float
        Flying pixels become NaN, see `find_flying_pixels`.  0: none.

    Raises
    ------
    ConfigError
        Unless 0 < min_depth_m < max_depth_m.
    """

    min_depth_m: float = 0.1
    max_depth_m: float = 20.0
    max_relative_depth: float = 1.0
    confidence_min: float = 0.0
    min_surface_angle_deg: float = 2.0

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 < self.min_depth_m < self.max_depth_m:
            raise ConfigError(f'`min_depth_m` must be above 0 and below max_depth_m '
                              f'({self.max_depth_m:g}); got {self.min_depth_m:g}')

    def apply(self, depth_m: FloatImage, K: NDArray[np.float64], *,
              affine_invariant_depth: FloatImage, confidence: FloatImage | None) -> FloatImage:
        """
        Filter the depth of one frame.

        Parameters
        ----------
        depth_m : float32 [H, W]
            Depth along Z, m; NaN is unknown and stays so.
        K : float64 [3, 3]
            Intrinsics, px.
        affine_invariant_depth : float32 [H, W]
            In [0, 1], 0 near.
        confidence : float32 [H, W] or None
            In [0, 1], 1 sure.

        Returns
        -------
        float32 [H, W]
            A new array: metres, NaN unknown, -Inf too near, +Inf too far.
        """
        kept = mark_out_of_range(depth_m, self.min_depth_m, self.max_depth_m)
        if self.max_relative_depth < 1.0:
            np.copyto(kept, np.inf, where=affine_invariant_depth > self.max_relative_depth)
        if confidence is not None and self.confidence_min > 0.0:
            np.copyto(kept, np.nan, where=~(confidence >= self.confidence_min))
        # Last, so that the edge between a near thing and the sky counts as one.
        if self.min_surface_angle_deg > 0.0:
            np.copyto(kept, np.nan, where=find_flying_pixels(kept, K, self.min_surface_angle_deg))
        return kept


def mark_out_of_range(depth_m: FloatImage, min_depth_m: float, max_depth_m: float) -> FloatImage:
    """
    Mark depth outside a range by REP-117.

    Parameters
    ----------
    depth_m : float32 [H, W]
        Depth along Z, m; NaN is unknown and stays so.
    min_depth_m, max_depth_m : float
        Range that is kept, both ends included, m.

    Returns
    -------
    float32 [H, W]
        A new array: -Inf below the range, +Inf above it.

    Raises
    ------
    InputError
        Unless 0 < min_depth_m < max_depth_m: a depth of 0 would be a point at the origin.
    """
    if not 0 < min_depth_m < max_depth_m:
        raise InputError('`min_depth_m` must be above 0 and below `max_depth_m`; '
                         f'got {min_depth_m} and {max_depth_m}')
    limited = np.array(depth_m, np.float32)
    np.copyto(limited, -np.inf, where=limited < np.float32(min_depth_m))
    np.copyto(limited, np.inf, where=limited > np.float32(max_depth_m))
    return limited


def find_flying_pixels(depth_m: FloatImage, K: NDArray[np.float64],
                       min_surface_angle_deg: float) -> NDArray[np.bool_]:
    """
    Find pixels that hang between a near and a far surface.

    At a depth edge a network, as a depth camera, puts pixels between the two surfaces: a ramp
    along the ray that no real surface makes, seen at an angle near 0.  Neighbours that are 1 / f
    apart in angle and whose depths have the ratio 1 + 1 / (f tan(angle)) lie on a surface that
    makes this angle with the farther one's ray (on the optical axis; up to a third less at the
    border of a lens of 70 degrees).  It is the criterion of laser_filters' ScanShadowsFilter, and
    unlike a jump in metres or percent it depends on neither distance nor resolution.  A pixel
    flies if, along its row or its column, the step to it and the step from it lead the same way
    and are both steeper: the pixels on either side of a clean edge stay, as do things of one
    pixel's width in front of a far wall.

    Parameters
    ----------
    depth_m : float32 [H, W]
        Depth along Z, m; -Inf near and +Inf far count as such, NaN is neither.
    K : float64 [3, 3]
        Intrinsics, px.
    min_surface_angle_deg : float
        Smallest angle between ray and surface, above 0 and below 90 degrees.  A floor that is h
        below the camera is seen at it h / tan(angle) away, and is lost beyond.

    Returns
    -------
    bool [H, W]

    Raises
    ------
    InputError
        For an angle out of range or a K without focal lengths.
    """
    if not 0 < min_surface_angle_deg < 90:
        raise InputError('`min_surface_angle_deg` must be above 0 and below 90; '
                         f'got {min_surface_angle_deg}')
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise InputError(f'`K` must have focal lengths above 0; got fx={K[0, 0]}, fy={K[1, 1]}')
    slope = math.tan(math.radians(min_surface_angle_deg))
    flying = np.zeros(depth_m.shape, np.bool_)
    for z, found, f_px in ((depth_m, flying, K[0, 0]), (depth_m.T, flying.T, K[1, 1])):
        limit = z * np.float32(1 + 1 / (f_px * slope))
        away = z[:, 1:] > limit[:, :-1]
        nearer = z[:, :-1] > limit[:, 1:]
        found[:, 1:-1] |= (away[:, :-1] & away[:, 1:]) | (nearer[:, :-1] & nearer[:, 1:])
    return flying
