"""Laser scans from message fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage


def points_from_scan(ranges: NDArray[np.float32], angle_min: float, angle_increment: float,
                     range_min: float, range_max: float) -> FloatImage:
    """
    Turn a sensor_msgs/LaserScan into points of its plane.

    Parameters
    ----------
    ranges : float32 [n]
        m; what lies outside range_min .. range_max is no measurement, by the message's rule.
    angle_min, angle_increment : float
        Of the first beam, and from one to the next, rad about z.
    range_min, range_max : float
        m.

    Returns
    -------
    float32 [n, 3]
        NaN where there is no measurement.

    Raises
    ------
    InputError
        For an angle or limit that makes no scan.
    """
    if not (np.isfinite((angle_min, angle_increment)).all() and 0 <= range_min < range_max):
        raise InputError(
            'a scan must have finite angles and 0 <= range_min < range_max; got angle_min '
            f'{angle_min}, angle_increment {angle_increment}, range_min {range_min}, range_max '
            f'{range_max}')
    angle = angle_min + angle_increment * np.arange(len(ranges))
    measured = (ranges >= range_min) & (ranges <= range_max)
    r = np.where(measured, ranges, np.nan)
    return np.stack([r * np.cos(angle), r * np.sin(angle), 0 * r], axis=-1).astype(np.float32)
