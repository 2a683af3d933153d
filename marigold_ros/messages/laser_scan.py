"""Convert laser scan fields to points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.messages.cloud import MIN_RANGE_M

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage


def points_from_scan(ranges: NDArray[np.float32], angle_min: float, angle_increment: float,
                     range_min: float, range_max: float) -> FloatImage:
    """
    Convert a sensor_msgs/LaserScan to points in its plane z = 0.

    Parameters
    ----------
    ranges : float32 [n]
        m.  A range is a measurement between range_min and range_max and above `MIN_RANGE_M`; the
        limits themselves are not, since drivers put beams without a return there.
    angle_min, angle_increment : float
        Angle of the first beam, and between successive beams, rad about z.
    range_min, range_max : float
        m.

    Returns
    -------
    float32 [n, 3]
        Points in the scan's coordinate frame, m; NaN where there is no measurement.

    Raises
    ------
    InputError
        For an angle that is not finite, or limits without 0 <= range_min < range_max.

    Examples
    --------
    >>> ranges = np.array([2.0, 3.0, np.inf], np.float32)
    >>> points_from_scan(ranges, 0.0, np.pi / 2, 0.1, 12.0).round(3).tolist()
    [[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [nan, nan, nan]]
    """
    if not (np.isfinite((angle_min, angle_increment)).all() and 0 <= range_min < range_max):
        raise InputError(
            'a scan must have finite angles and 0 <= range_min < range_max; got angle_min '
            f'{angle_min}, angle_increment {angle_increment}, range_min {range_min}, range_max '
            f'{range_max}')
    angle = angle_min + angle_increment * np.arange(len(ranges))
    measured = (ranges > max(range_min, MIN_RANGE_M)) & (ranges < range_max)
    r = np.where(measured, ranges, np.nan)
    return np.stack([r * np.cos(angle), r * np.sin(angle), 0 * r], axis=-1).astype(np.float32)
