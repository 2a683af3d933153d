"""
Source `ground_plane`: anchors on the floor, for a camera at a known height.

A pixel (u, v) with the ray r = K^-1 (u, v, 1) sees the floor at the depth h / (n . r) along Z,
where h is the camera's height and n the unit vector down to the floor in the optical frame.  So a
floor pixel of relative depth a satisfies scale * a + shift = h / (n . r), which is linear in scale
and shift.  The pixels that satisfy it together are the floor, which must be flat: a step down that
fills much of the image is taken for a part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import Matrix
from marigold_ros.geometry.unproject import unproject_pixels
from marigold_ros.metric.anchors import Anchors, choose_evenly
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.fit import L1_SMOOTHING, PROPORTION_LIMITS
from marigold_ros.metric.types import CameraTilt, Measurement, ScaleFrame, TransformTilt

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

Vector = NDArray[np.float64]

# Approximate number of pixels of the sampling grid.
GRID_PIXELS = 1200
MIN_PIXELS = 50
# Smallest descent n . r of a ray per metre forward: near the horizon a small error of the tilt is
# a large error of the depth.
MIN_DESCENT = 0.06
# Relative error of the depth above which a pixel is not floor, for the coarse and the fine
# refinement.
COARSE_TOLERANCE, TOLERANCE = 0.15, 0.08
# Things stand on the floor, but nothing lies below it: a pixel that is predicted too far counts
# against the fit up to this relative error.  More would take a drop for floor.
MAX_BELOW = 0.3
# Pairs of pixels, each of which determines scale and shift, and pixels by which they are compared.
HYPOTHESES, COMPARED_PIXELS = 96, 300
ITERATIONS = 8
MIN_INLIERS = 20
MAX_ANCHORS = 100
# Error of the tilt, and of the floor, by which the depth of a floor pixel is uncertain.
TILT_SIGMA_RAD = math.radians(0.5)
# Smallest fraction of the pixels below the horizon that must be floor.
MIN_FLOOR_FRACTION = 0.25


class NoFloorError(InputError):
    """No floor is found, which may be out of view."""


@dataclass(frozen=True, eq=False)
class Floor:
    """
    The floor below a camera.

    Attributes
    ----------
    down : float64 [3]
        Unit vector to the floor in the optical frame.
    height_m : float
        Height of the camera above the floor.
    """

    down: Vector
    height_m: float


def down_vector(pitch: float, roll: float) -> Vector:
    """
    Compute the direction to the floor in the optical frame.

    Parameters
    ----------
    pitch, roll : float
        Of the camera, rad; nose down and right side down are positive, as REP-103 rotates a body
        about y and x.

    Returns
    -------
    float64 [3]
        Unit vector; x right, y down, z forward.

    Examples
    --------
    A level camera, and one that is pitched down by 30 degrees:

    >>> print(down_vector(0.0, 0.0))
    [0. 1. 0.]
    >>> print(down_vector(np.radians(30.0), 0.0).round(3))
    [0.    0.866 0.5  ]
    """
    return np.array([np.sin(roll) * np.cos(pitch), np.cos(roll) * np.cos(pitch), np.sin(pitch)])


def tilt_from_down_vector(down: Vector) -> tuple[float, float]:
    """Compute pitch and roll, rad, from the direction to the floor; inverts `down_vector`."""
    x, y, z = down / np.linalg.norm(down)
    return float(np.arcsin(z)), float(np.arctan2(x, y))


def find_floor(affine_invariant_depth: FloatImage, K: NDArray[np.float64], floor: Floor,
               stamp_ns: int = 0) -> Anchors:
    """
    Find the pixels on the floor in one frame.

    Parameters
    ----------
    affine_invariant_depth : float32 [H, W]
        Relative depth in [0, 1], 0 near; NaN unknown.
    K : float64 [3, 3]
        Intrinsics of the image, px.
    floor : Floor
    stamp_ns : int
        Stamp of the image, ns.

    Returns
    -------
    Anchors
        At most `MAX_ANCHORS`, with the depth of the floor; less certain towards the horizon,
        where the tilt matters most.

    Raises
    ------
    NoFloorError
        If too few pixels below the horizon are floor.

    Examples
    --------
    A level camera 0.5 m above a floor, with a wall 5 m ahead:

    >>> K = np.array([[100.0, 0.0, 79.5], [0.0, 100.0, 59.5], [0.0, 0.0, 1.0]])
    >>> descent = (np.arange(120) - 59.5) / 100.0
    >>> depth_m = np.where(descent > 0.1, 0.5 / descent, 5.0)
    >>> rows = (depth_m - depth_m.min()) / (depth_m.max() - depth_m.min())
    >>> relative = np.repeat(rows[:, None], 160, axis=1).astype(np.float32)
    >>> anchors = find_floor(relative, K, Floor(down_vector(0.0, 0.0), 0.5))
    >>> bool(np.allclose(anchors.depth_m, depth_m[anchors.rows]))
    True
    """
    rows, columns, a, rays = _sample_grid(affine_invariant_depth, K)
    descent = rays @ floor.down
    below = descent > MIN_DESCENT
    rows, columns, a, descent = rows[below], columns[below], a[below], descent[below]
    if len(a) < MIN_PIXELS:
        raise NoFloorError(f'the floor needs at least {MIN_PIXELS} pixels below the horizon with '
                           f'relative depth; got {len(a)}')
    z = floor.height_m / descent
    scale, shift = _fit_floor(a, z, floor.height_m)
    error = (scale * a + shift) / z - 1.0
    fraction = float(np.mean(np.abs(error) < TOLERANCE))
    low, high = PROPORTION_LIMITS
    if fraction < MIN_FLOOR_FRACTION or not (
            scale > 0 and low / 2 <= shift / scale <= high * 2):
        raise NoFloorError(f'no floor found: at least {100 * MIN_FLOOR_FRACTION:.0f} % of the '
                           f'pixels below the horizon must lie on a plane {floor.height_m:g} m '
                           f'below the camera; got {100 * fraction:.0f} %')
    found = np.flatnonzero((error > -TOLERANCE) & (error < COARSE_TOLERANCE))
    found = found[choose_evenly(len(found), MAX_ANCHORS)]
    return Anchors(rows[found], columns[found], z[found].astype(np.float32), stamp_ns,
                   (TILT_SIGMA_RAD / descent[found]).astype(np.float32))


def _sample_grid(affine_invariant_depth: FloatImage, K: NDArray[np.float64]
                 ) -> tuple[NDArray[np.int64], NDArray[np.int64], Vector, Vector]:
    """Sample known pixels on a grid: row, column, relative depth [n], rays [n, 3] with z = 1."""
    stride = max(1, int(np.sqrt(affine_invariant_depth.size / GRID_PIXELS)))
    height, width = affine_invariant_depth.shape
    rows, columns = (each.ravel() for each in np.mgrid[stride // 2:height:stride,
                                                       stride // 2:width:stride])
    a = affine_invariant_depth[rows, columns].astype(np.float64)
    rays = unproject_pixels(rows, columns, np.ones(rows.size), K)
    known = np.isfinite(a)
    return rows[known], columns[known], a[known], rays[known]


def _fit_floor(a: Vector, z: Vector, height_m: float) -> tuple[float, float]:
    """Return the scale and shift by which most pixels lie on the floor, of depth z [n]."""
    scale, shift = _best_hypothesis(a, z, height_m)
    for tolerance in (COARSE_TOLERANCE, TOLERANCE):
        scale, shift = _refine(a, z, scale, shift, tolerance)
    return scale, shift


def _best_hypothesis(a: Vector, z: Vector, height_m: float) -> tuple[float, float]:
    """Return the scale and shift, of those that random pairs of pixels have, that fit best."""
    i, j = np.random.default_rng(0).choice(len(a), (2, HYPOTHESES))
    with np.errstate(divide='ignore', invalid='ignore'):  # pixels of equal relative depth
        scales = (z[i] - z[j]) / (a[i] - a[j])
        shifts = z[i] - scales * a[i]
    low, high = PROPORTION_LIMITS
    valid = ((scales > 0) & np.isfinite(scales) & (shifts >= low * scales)
             & (shifts <= high * scales))
    if not valid.any():
        raise NoFloorError('no floor found: no pair of pixels below the horizon lies on a plane '
                           f'{height_m:g} m below the camera at a scale above 0')
    scales, shifts = scales[valid], shifts[valid]
    sample = slice(None, None, max(1, len(a) // COMPARED_PIXELS))
    error = (scales[:, None] * a[sample] + shifts[:, None]) / z[sample] - 1.0
    best = int(np.argmin(np.abs(np.clip(error, -COARSE_TOLERANCE, MAX_BELOW)).mean(axis=1)))
    return float(scales[best]), float(shifts[best])


def _refine(a: Vector, z: Vector, scale: float, shift: float, tolerance: float
            ) -> tuple[float, float]:
    """Minimize the mean absolute relative error of the floor pixels by reweighting."""
    for _ in range(ITERATIONS):
        error = (scale * a + shift) / z - 1.0
        floor = (error > -tolerance) & (error < MAX_BELOW)
        if floor.sum() < MIN_INLIERS:
            break
        # Relative errors in the L1 norm: each weighs as the inverse of its size and of z squared.
        weight = 1.0 / (np.maximum(np.abs(error[floor]), L1_SMOOTHING) * z[floor] ** 2)
        mean_a, mean_z = (np.average(each[floor], weights=weight) for each in (a, z))
        spread = weight @ (a[floor] - mean_a) ** 2
        if not spread > 0.0:
            break
        scale = float(weight @ ((a[floor] - mean_a) * (z[floor] - mean_z)) / spread)
        shift = float(mean_z - scale * mean_a)
    return scale, shift


def lookup_tilt(config: ScaleConfig, lookup_newest: Callable[[str, str, int], tuple[Matrix, int]],
                camera_frame: str, stamp_ns: int) -> tuple[TransformTilt | None, str]:
    """
    Look up the tilt of a camera in TF, where a source needs it.

    Parameters
    ----------
    config : ScaleConfig
    lookup_newest : callable
        `TransformBuffer.lookup_newest` of the transforms of the node or of a bag.
    camera_frame : str
        Optical frame of the images.
    stamp_ns : int
        Stamp of the image, ns.

    Returns
    -------
    tilt : TransformTilt or None
        None if it is not needed or unknown.
    problem : str
        Why it is unknown; empty if it is not.
    """
    if not config.needs_tilt:
        return None, ''
    try:
        base_from_camera, found_ns = lookup_newest(config.base_frame, camera_frame, stamp_ns)
    except InputError as err:
        return None, (f'TF does not tell the tilt of the camera (frame {camera_frame!r}) in '
                      f'scale.base_frame {config.base_frame!r}: {err}; publish the transform, or '
                      'measure scale.camera_pitch_deg and scale.camera_roll_deg and set them')
    return TransformTilt(*tilt_from_down_vector(-base_from_camera[2, :3]), found_ns), ''


class GroundPlane:
    """
    The floor below one camera, as its height and its tilt tell.

    Parameters
    ----------
    config : ScaleConfig
        With a height.

    Attributes
    ----------
    tilt : CameraTilt or None
        Of the last frame; None: unknown.
    """

    def __init__(self, config: ScaleConfig) -> None:
        """Start without a tilt."""
        self._config = config
        self._height_m = float(config.camera_height_m or 0.0)
        self._from_tf: TransformTilt | None = None
        self.tilt: CameraTilt | None = None

    def measure(self, frame: ScaleFrame) -> Measurement:
        """
        Return the anchors on the floor in a frame.

        Raises
        ------
        InputError
            If the tilt is unknown or no floor is found.
        """
        tilt = self.find_tilt(frame)
        anchors = find_floor(frame.affine_invariant_depth, frame.K, self.floor(tilt),
                             frame.stamp_ns)
        return Measurement(anchors, 1.0, frame.stamp_ns - round(1e9 * (tilt.age_s or 0.0)))

    def find_tilt(self, frame: ScaleFrame) -> CameraTilt:
        """
        Find pitch and roll for one frame, from the parameters or from TF.

        An answer of TF is held until it is older than `expire_s`.

        Raises
        ------
        InputError
            If TF has not answered, or its last answer is too old.
        """
        self.tilt = None
        self.tilt = self._find_tilt(frame)
        return self.tilt

    def _find_tilt(self, frame: ScaleFrame) -> CameraTilt:
        config = self._config
        if not config.needs_tilt:
            return CameraTilt(math.radians(config.camera_pitch_deg or 0.0),
                              math.radians(config.camera_roll_deg or 0.0), 'parameter', None)
        tilt, held, age_s = self._tilt_from_tf(frame)
        origin = 'TF (held)' if held else 'TF'
        (pitch, pitch_origin), (roll, roll_origin) = (
            (angle, origin) if set_deg is None else (math.radians(set_deg), 'parameter')
            for set_deg, angle in ((config.camera_pitch_deg, tilt.pitch),
                                   (config.camera_roll_deg, tilt.roll)))
        if pitch_origin != roll_origin:
            origin = f'pitch {pitch_origin}, roll {roll_origin}'
        return CameraTilt(pitch, roll, origin, age_s)

    def floor(self, tilt: CameraTilt) -> Floor:
        """Return the floor below the camera at a tilt."""
        return Floor(down_vector(tilt.pitch, tilt.roll), self._height_m)

    def _tilt_from_tf(self, frame: ScaleFrame) -> tuple[TransformTilt, bool, float]:
        """Return the last answer of TF, whether it is held, and its age, s."""
        if frame.tilt is not None:
            self._from_tf = frame.tilt
        tilt, limits = self._from_tf, self._config.filter
        problem = str(frame.problems.get('ground_plane', ''))
        if tilt is None:
            raise InputError(problem or 'TF does not tell the tilt of the camera')
        age_s = max(0.0, (frame.stamp_ns - tilt.stamp_ns) * 1e-9)
        if age_s > limits.expire_s:
            raise InputError('the newest tilt of the camera from TF must be at most '
                             f'scale.expire_s ({limits.expire_s:g} s) older than the image; got '
                             f'{age_s:.1f} s' + (f': {problem}' if problem else ''))
        return tilt, age_s > limits.hold_s, age_s
