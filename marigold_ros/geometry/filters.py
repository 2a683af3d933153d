"""Filter metric depth: mark pixels out of range, sky, low confidence and flying pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import ConfigError, InputError

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, Mask

# Large images are filtered in strips of whole rows: several float32 arrays of so many pixels stay
# in the cache of a core.
STRIP_PIXELS = 2 ** 17


@dataclass(frozen=True)
class DepthFilter:
    """
    Filter metric depth and mark removed pixels by REP-117.

    The defaults are depth_node's.

    Attributes
    ----------
    min_depth_m, max_depth_m : float
        Valid range, m: nearer becomes -Inf, farther +Inf.
    max_relative_depth : float
        In [0, 1]; a larger relative depth is sky and becomes +Inf.  1 disables this filter.
    confidence_min : float
        In [0, 1]; depth with a lower confidence becomes NaN.  0 disables this filter.
    min_surface_angle_deg : float
        Flying pixels become NaN, see `find_flying_pixels`.  0 disables this filter.

    Raises
    ------
    ConfigError
        Unless 0 < min_depth_m < max_depth_m.

    Examples
    --------
    `mark_single_pixels`, then `mark_flying_pixels`:

    >>> depth_m = np.array([[0.05, 1.0, 1.0, 2.0, 3.0, 3.0, 50.0]], np.float32)
    >>> depth_filter = DepthFilter()
    >>> depth_filter.mark_single_pixels(depth_m, np.zeros_like(depth_m), confidence=None)
    >>> depth_filter.mark_flying_pixels(depth_m, np.diag([100.0, 100.0, 1.0]))
    >>> depth_m.tolist()
    [[-inf, 1.0, 1.0, nan, 3.0, 3.0, inf]]
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

    def mark_single_pixels(self, depth_m: FloatImage, affine_invariant_depth: FloatImage,
                           confidence: FloatImage | None) -> None:
        """
        Apply in place all filters that look at each pixel alone.

        Parameters
        ----------
        depth_m : float32 [H, W]
            Depth along Z, m; NaN (unknown) is kept, too near becomes -Inf, too far +Inf.
        affine_invariant_depth : float32 [H, W]
            Relative depth in [0, 1], 0 near.
        confidence : float32 [H, W] or None
            In [0, 1], 1 most reliable.
        """
        _mark_out_of_range(depth_m, self.min_depth_m, self.max_depth_m)
        if self.max_relative_depth < 1.0:
            np.copyto(depth_m, np.inf, where=affine_invariant_depth > self.max_relative_depth)
        if confidence is not None and self.confidence_min > 0.0:
            np.copyto(depth_m, np.nan, where=~(confidence >= self.confidence_min))

    def mark_flying_pixels(self, depth_m: FloatImage, K: NDArray[np.float64]) -> None:
        """Apply the last filter in place: sky is +Inf, and its edge to near objects is found."""
        if self.min_surface_angle_deg > 0.0:
            np.copyto(depth_m, np.nan,
                      where=find_flying_pixels(depth_m, K, self.min_surface_angle_deg))


def iterate_strips(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of each strip of an image, see `STRIP_PIXELS`."""
    count = max(1, STRIP_PIXELS // max(1, width))
    for start in range(0, height, count):
        yield slice(start, min(start + count, height))


def mark_out_of_range(depth_m: FloatImage, min_depth_m: float, max_depth_m: float) -> FloatImage:
    """
    Mark depth outside a range by REP-117.

    Parameters
    ----------
    depth_m : float32 [H, W]
        Depth along Z, m; NaN (unknown) is kept.
    min_depth_m, max_depth_m : float
        Valid range, both ends included, m.

    Returns
    -------
    float32 [H, W]
        A new array: -Inf below the range, +Inf above it.

    Raises
    ------
    InputError
        Unless 0 < min_depth_m < max_depth_m; a depth of 0 would be a point at the origin.
    """
    if not 0 < min_depth_m < max_depth_m:
        raise InputError('`min_depth_m` must be above 0 and below `max_depth_m`; '
                         f'got {min_depth_m} and {max_depth_m}')
    limited = np.array(depth_m, np.float32)
    _mark_out_of_range(limited, min_depth_m, max_depth_m)
    return limited


def _mark_out_of_range(depth_m: FloatImage, min_depth_m: float, max_depth_m: float) -> None:
    np.copyto(depth_m, -np.inf, where=depth_m < np.float32(min_depth_m))
    np.copyto(depth_m, np.inf, where=depth_m > np.float32(max_depth_m))


def find_flying_pixels(depth_m: FloatImage, K: NDArray[np.float64],
                       min_surface_angle_deg: float) -> NDArray[np.bool_]:
    """
    Find flying pixels: pixels between a near and a far surface at a depth edge.

    At depth edges, networks and depth cameras produce pixels between the two surfaces.  They form
    a ramp almost parallel to the ray.  Two neighbours, 1 / f apart in angle, whose depths have
    the ratio 1 + 1 / (f tan(angle)) lie on a surface at this angle to the ray of the farther one
    (on the optical axis; up to a third less at the border of a 70 degree lens).  This is the
    criterion of laser_filters' ScanShadowsFilter.  Unlike a threshold in metres or percent, it
    depends on neither distance nor resolution.  A pixel is flying if, along its row or its
    column, the depth steps before and after it have the same sign and both are steeper than
    the angle.  The pixels on both sides of a sharp edge are therefore kept, and so are objects
    one pixel wide in front of a far wall.

    Parameters
    ----------
    depth_m : float32 [H, W]
        Depth along Z, m; -Inf is near, +Inf is far, and steps to NaN are ignored.
    K : float64 [3, 3]
        Intrinsics, px.
    min_surface_angle_deg : float
        Smallest angle between ray and surface, above 0 and below 90 degrees.  A floor h below
        the camera is removed beyond a distance of h / tan(angle).

    Returns
    -------
    bool [H, W]

    Raises
    ------
    InputError
        For an angle out of range or a K without focal lengths.

    Examples
    --------
    >>> depth_m = np.array([[1.0, 1.0, 2.0, 3.0, 3.0]], np.float32)
    >>> find_flying_pixels(depth_m, np.diag([100.0, 100.0, 1.0]), 2.0).tolist()
    [[False, False, True, False, False]]
    """
    if not 0 < min_surface_angle_deg < 90:
        raise InputError('`min_surface_angle_deg` must be above 0 and below 90; '
                         f'got {min_surface_angle_deg}')
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise InputError(f'`K` must have focal lengths above 0; got fx={K[0, 0]}, fy={K[1, 1]}')
    slope = math.tan(math.radians(min_surface_angle_deg))
    width = depth_m.shape[1]
    flying = np.zeros(depth_m.shape, np.bool_)
    for rows in iterate_strips(*depth_m.shape):
        rows = slice(max(0, rows.start - 1), rows.stop + 1)  # with the neighbours of its rows
        z, found = depth_m[rows].reshape(-1), flying[rows].reshape(-1)
        along_row = _find_ramps(z, np.float32(1 + 1 / (K[0, 0] * slope)), 1)
        along_row[width - 1::width] = along_row[width - 2::width] = False  # without a neighbour
        found[1:-1] |= along_row
        found[width:-width] |= _find_ramps(z, np.float32(1 + 1 / (K[1, 1] * slope)), width)
    return flying


def _find_ramps(depth_m: FloatImage, max_ratio: np.float32, distance: int) -> Mask:
    """
    Find values that differ from both neighbours with one sign and by more than a ratio.

    Parameters
    ----------
    depth_m : float32 [n]
        Rows one after the other, which is twice as fast as two dimensions.
    max_ratio : float32
    distance : int
        Of neighbours.

    Returns
    -------
    bool [n - 2 distance]
        Of the values that have two neighbours.
    """
    limit = depth_m * max_ratio
    farther = depth_m[distance:] > limit[:-distance]
    nearer = depth_m[:-distance] > limit[distance:]
    ramps: Mask = farther[:-distance] & farther[distance:]
    ramps |= nearer[:-distance] & nearer[distance:]
    return ramps
