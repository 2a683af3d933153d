"""
Source `ground_plane`: the scale from the floor, for a camera at a known height.

A pixel (u, v) with the ray r = K^-1 (u, v, 1) sees the floor at the depth h / (n . r) along Z,
where h is the camera's height and n the unit vector down to the floor in the optical frame.  So a
floor pixel of relative depth a satisfies scale * a + shift = h / (n . r), which is linear in scale
and shift for a given n.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import Matrix
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.config import ScaleConfig, SEARCH
from marigold_ros.metric.fit import PROPORTION_LIMITS, ScaleFit
from marigold_ros.metric.types import CameraTilt, ScaleFrame, TransformTilt

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
HYPOTHESES = 96
ITERATIONS = 8
MAX_FLOOR_ANCHORS = 100
# Error of the tilt, and of the floor, by which the depth of a floor pixel is uncertain.
TILT_SIGMA_RAD = math.radians(0.5)
# Smallest fraction of the pixels below the horizon that must be floor.
MIN_FLOOR_FRACTION = 0.25
# Grid of the tilt search, rad.
PITCHES = np.radians(np.arange(-10.0, 46.0, 4.0))
ROLLS = np.radians(np.arange(-8.0, 9.0, 4.0))
PITCH_LIMITS, ROLL_LIMITS = np.radians((-15.0, 60.0)), np.radians((-15.0, 15.0))
# The tilt is the median of the last TILT_ESTIMATES estimates.  Once there are so many, only every
# TILT_PERIOD-th frame is searched; fewer than MIN_TILT_ESTIMATES are not used.
TILT_ESTIMATES, TILT_PERIOD, MIN_TILT_ESTIMATES = 15, 10, 5


@dataclass(frozen=True)
class FloorFit:
    """
    Scale and camera tilt fitted to the floor.

    Attributes
    ----------
    fit : ScaleFit
        Its `inlier_fraction` is the fraction of floor among the pixels below the horizon.
    pitch, roll : float
        Tilt of the camera, rad; nose down and right side down are positive, as REP-103 rotates a
        body about y and x.
    """

    fit: ScaleFit
    pitch: float
    roll: float


def down_vector(pitch: float, roll: float) -> Vector:
    """
    Compute the direction to the floor in the optical frame.

    Parameters
    ----------
    pitch, roll : float
        As in `FloorFit`, rad.

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


def fit_floor(affine_invariant_depth: FloatImage, K: NDArray[np.float64], height_m: float, *,
              pitch: float | None = None, roll: float | None = None) -> FloorFit:
    """
    Fit scale and shift, and the tilt where it is unknown, to the floor in one frame.

    Parameters
    ----------
    affine_invariant_depth : float32 [H, W]
        Relative depth in [0, 1], 0 near; NaN unknown.
    K : float64 [3, 3]
        Intrinsics of the image, px.
    height_m : float
        Height of the camera above the floor, m.
    pitch, roll : float, optional
        Tilt as in `FloorFit`, rad; estimated if None.

    Returns
    -------
    FloorFit

    Raises
    ------
    InputError
        If too few pixels below the horizon are floor.

    Examples
    --------
    A level camera 0.5 m above a floor, with a wall 5 m ahead:

    >>> K = np.array([[100.0, 0.0, 79.5], [0.0, 100.0, 59.5], [0.0, 0.0, 1.0]])
    >>> descent = (np.arange(120) - 59.5) / 100.0
    >>> depth_m = np.where(descent > 0.1, 0.5 / descent, 5.0)
    >>> near_m, far_m = depth_m.min(), depth_m.max()
    >>> rows = (depth_m - near_m) / (far_m - near_m)
    >>> relative = np.repeat(rows[:, None], 160, axis=1).astype(np.float32)
    >>> fit = fit_floor(relative, K, 0.5, pitch=0.0, roll=0.0).fit
    >>> bool(np.allclose([fit.scale, fit.shift], [far_m - near_m, near_m], rtol=1e-3))
    True
    """
    _, _, a, rays = _sample_grid(affine_invariant_depth, K)
    if len(a) < MIN_PIXELS:
        raise InputError(f'the floor fit needs at least {MIN_PIXELS} pixels with relative depth; '
                         f'got {len(a)}')
    x = _best_hypothesis(a, rays, height_m, *_candidate_tilts(pitch, roll))
    free = np.array([True, True, pitch is None, roll is None])
    for tolerance in (COARSE_TOLERANCE, TOLERANCE):
        x = _refine(a, rays, height_m, x, free, tolerance)
    scale, shift, fitted_pitch, fitted_roll = (float(value) for value in x)
    descent = rays @ down_vector(fitted_pitch, fitted_roll)
    below = descent > MIN_DESCENT
    error = np.abs((scale * a + shift) * descent / height_m - 1.0)[below]
    floor = error < TOLERANCE
    fraction = float(np.mean(floor)) if len(floor) else 0.0
    low, high = PROPORTION_LIMITS
    if fraction < MIN_FLOOR_FRACTION or not (
            scale > 0 and low / 2 <= shift / scale <= high * 2):
        raise InputError(f'no floor found: at least {100 * MIN_FLOOR_FRACTION:.0f} % of the '
                         f'pixels below the horizon must lie on a plane {height_m:g} m below the '
                         f'camera; got {100 * fraction:.0f} %')
    fit = ScaleFit(scale, shift, float(np.mean(error[floor])), fraction, int(below.sum()), False)
    return FloorFit(fit, fitted_pitch, fitted_roll)


def floor_anchors(affine_invariant_depth: FloatImage, K: NDArray[np.float64], height_m: float,
                  floor: FloorFit, stamp_ns: int = 0) -> Anchors:
    """
    Return anchors on the floor, which hold it where those of other sources lie on walls.

    Parameters
    ----------
    affine_invariant_depth, K, height_m
        See `fit_floor`.
    floor : FloorFit
        Its result.
    stamp_ns : int
        Stamp of the image, ns.

    Returns
    -------
    Anchors
        At most `MAX_FLOOR_ANCHORS`, at pixels whose fitted depth is that of the floor; less
        certain towards the horizon, where the tilt matters most.
    """
    rows, columns, a, rays = _sample_grid(affine_invariant_depth, K)
    descent = rays @ down_vector(floor.pitch, floor.roll)
    error = np.abs((floor.fit.scale * a + floor.fit.shift) * descent / height_m - 1.0)
    found = np.flatnonzero((descent > MIN_DESCENT) & (error < TOLERANCE))
    count = min(len(found), MAX_FLOOR_ANCHORS)
    found = found[np.linspace(0, len(found) - 1, count).astype(np.int64)]
    return Anchors(rows[found], columns[found], (height_m / descent[found]).astype(np.float32),
                   stamp_ns, (TILT_SIGMA_RAD / descent[found]).astype(np.float32))


def _sample_grid(affine_invariant_depth: FloatImage, K: NDArray[np.float64]
                 ) -> tuple[NDArray[np.int64], NDArray[np.int64], Vector, Vector]:
    """Sample known pixels on a grid: row, column, relative depth [n], rays [n, 3] with z = 1."""
    stride = max(1, int(np.sqrt(affine_invariant_depth.size / GRID_PIXELS)))
    height, width = affine_invariant_depth.shape
    rows, columns = (each.ravel() for each in np.mgrid[stride // 2:height:stride,
                                                       stride // 2:width:stride])
    a = affine_invariant_depth[rows, columns].astype(np.float64)
    rays = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1],
                     np.ones(rows.size)], axis=-1)
    known = np.isfinite(a)
    return rows[known], columns[known], a[known], rays[known]


def _candidate_tilts(pitch: float | None, roll: float | None) -> tuple[Vector, Vector]:
    """Return all combinations of the pitches [m] and rolls [m] to try, rad."""
    grid = np.meshgrid(PITCHES if pitch is None else [pitch], ROLLS if roll is None else [roll])
    return grid[0].ravel(), grid[1].ravel()


def _best_hypothesis(a: Vector, rays: Vector, height_m: float, pitches: Vector, rolls: Vector
                     ) -> Vector:
    """Return the best [scale, shift, pitch, roll] over random pixel pairs and all tilts [m]."""
    rng = np.random.default_rng(0)
    best, lowest_cost = None, np.inf
    for pitch, roll in zip(pitches, rolls):
        descent = rays @ down_vector(pitch, roll)
        below = np.flatnonzero(descent > MIN_DESCENT)
        if len(below) < MIN_PIXELS:
            continue
        i, j = rng.choice(below, (2, HYPOTHESES))
        with np.errstate(divide='ignore', invalid='ignore'):
            scales = height_m * (1 / descent[i] - 1 / descent[j]) / (a[i] - a[j])
            shifts = height_m / descent[i] - scales * a[i]
        low, high = PROPORTION_LIMITS
        valid = (scales > 0) & (shifts >= low * scales) & (shifts <= high * scales)
        if not valid.any():
            continue
        scales, shifts = scales[valid], shifts[valid]
        sample = below[::max(1, len(below) // 300)]
        error = np.abs((scales[:, None] * a[sample] + shifts[:, None]) * descent[sample] / height_m
                       - 1.0)
        cost = np.minimum(error, COARSE_TOLERANCE).mean(axis=1)
        index = int(np.argmin(cost))
        if cost[index] < lowest_cost:
            lowest_cost = float(cost[index])
            best = np.array([scales[index], shifts[index], pitch, roll])
    if best is None:
        raise InputError('no floor found: no pair of pixels below the horizon lies on a plane '
                         f'{height_m:g} m below the camera at a scale above 0')
    return best


def _refine(a: Vector, rays: Vector, height_m: float, x: Vector, free: NDArray[np.bool_],
            tolerance: float) -> Vector:
    """
    Minimize the mean absolute relative error of the floor pixels by reweighted Gauss-Newton.

    x is [scale, shift, pitch, roll]; only its `free` elements change.
    """
    x = x.copy()
    for _ in range(ITERATIONS):
        scale, shift, pitch, roll = x
        descent = rays @ down_vector(pitch, roll)
        z = scale * a + shift
        error = z * descent / height_m - 1.0
        floor = (descent > MIN_DESCENT) & (np.abs(error) < tolerance)
        if floor.sum() < 20:
            return x
        by_pitch = rays @ np.array([-np.sin(roll) * np.sin(pitch), -np.cos(roll) * np.sin(pitch),
                                    np.cos(pitch)])
        by_roll = rays @ np.array([np.cos(roll) * np.cos(pitch), -np.sin(roll) * np.cos(pitch),
                                   0.0])
        jacobian = np.stack([a * descent, descent, z * by_pitch, z * by_roll], axis=-1) / height_m
        w = 1.0 / np.maximum(np.abs(error[floor]), 1e-3)
        J = jacobian[floor][:, free]
        step = np.linalg.lstsq((J * w[:, None]).T @ J, -(J * w[:, None]).T @ error[floor],
                               rcond=1e-9)[0]
        x[free] += step
        x[2] = np.clip(x[2], *PITCH_LIMITS) if free[2] else x[2]
        x[3] = np.clip(x[3], *ROLL_LIMITS) if free[3] else x[3]
    return x


def lookup_tilt(config: ScaleConfig, lookup_newest: Callable[[str, str, int], tuple[Matrix, int]],
                camera_frame: str, stamp_ns: int) -> tuple[TransformTilt | None, str]:
    """
    Look up the tilt of a camera in TF, where the source needs it.

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
    if config.source != 'ground_plane' or not config.needs_transforms:
        return None, ''
    try:
        base_from_camera, found_ns = lookup_newest(config.base_frame, camera_frame, stamp_ns)
    except InputError as err:
        return None, (f'TF does not tell the tilt of the camera (frame {camera_frame!r}) in '
                      f'scale.base_frame {config.base_frame!r}: {err}; publish the transform, or '
                      'set scale.camera_pitch_deg and scale.camera_roll_deg to degrees or to '
                      f'{SEARCH}')
    return TransformTilt(*tilt_from_down_vector(-base_from_camera[2, :3]), found_ns), ''


class GroundPlane:
    """
    Source `ground_plane`: find the tilt of every camera, and fit the floor.

    Parameters
    ----------
    config : ScaleConfig
    """

    def __init__(self, config: ScaleConfig) -> None:
        """Start without tilts."""
        self._config = config
        self._height_m = float(config.camera_height_m or 0.0)
        self.reset()

    def reset(self) -> None:
        """Discard the tilts of every camera."""
        self._from_tf: dict[str, TransformTilt] = {}
        self._searched: defaultdict[str, deque[tuple[float, float]]] = defaultdict(
            lambda: deque(maxlen=TILT_ESTIMATES))
        self._frame_counts: defaultdict[str, int] = defaultdict(int)

    def discard(self, camera: str) -> None:
        """Discard what has a stamp of one camera."""
        self._from_tf.pop(camera, None)

    def fit(self, frame: ScaleFrame, tilt: CameraTilt) -> ScaleFit:
        """
        Fit the floor of one frame.

        Raises
        ------
        InputError
            If no floor is found.
        """
        return fit_floor(frame.affine_invariant_depth, frame.K, self._height_m, pitch=tilt.pitch,
                         roll=tilt.roll).fit

    def find_tilt(self, frame: ScaleFrame) -> CameraTilt | None:
        """
        Find pitch and roll for one frame: from the parameters, from TF, or by a search.

        An answer of TF is held until it is older than `expire_s`.

        Returns
        -------
        CameraTilt or None
            None while too few frames have been searched.

        Raises
        ------
        InputError
            If TF has not answered, its last answer is too old, or a search finds no floor.
        """
        config = self._config
        from_tf = self._tilt_from_tf(frame) if config.needs_transforms else None
        pitch, pitch_origin = _known_angle(
            config.camera_pitch_deg, None if from_tf is None else (from_tf.pitch, from_tf.origin))
        roll, roll_origin = _known_angle(
            config.camera_roll_deg, None if from_tf is None else (from_tf.roll, from_tf.origin))
        if pitch is None or roll is None:
            searched = self._search_tilt(frame, pitch, roll)
            if searched is None:
                return None
            pitch = searched[0] if pitch is None else pitch
            roll = searched[1] if roll is None else roll
        origin = (pitch_origin if pitch_origin == roll_origin
                  else f'pitch {pitch_origin}, roll {roll_origin}')
        return CameraTilt(pitch, roll, origin, None if from_tf is None else from_tf.age_s)

    def _tilt_from_tf(self, frame: ScaleFrame) -> CameraTilt:
        """Return the last answer of TF."""
        if frame.tilt is not None:
            self._from_tf[frame.camera] = frame.tilt
        tilt, limits = self._from_tf.get(frame.camera), self._config.filter
        if tilt is None:
            raise InputError(frame.problem or 'TF does not tell the tilt of the camera')
        age_s = max(0.0, (frame.stamp_ns - tilt.stamp_ns) * 1e-9)
        if age_s > limits.expire_s:
            raise InputError('the newest tilt of the camera from TF must be at most '
                             f'scale.expire_s ({limits.expire_s:g} s) older than the image; got '
                             f'{age_s:.1f} s' + (f': {frame.problem}' if frame.problem else ''))
        return CameraTilt(tilt.pitch, tilt.roll,
                          'TF (held)' if age_s > limits.hold_s else 'TF', age_s)

    def _search_tilt(self, frame: ScaleFrame, pitch: float | None, roll: float | None
                     ) -> tuple[float, float] | None:
        """
        Return the median of the searched tilts; the camera is fixed to its robot.

        None before there are `MIN_TILT_ESTIMATES`.
        """
        tilts = self._searched[frame.camera]
        number = self._frame_counts[frame.camera]
        self._frame_counts[frame.camera] = number + 1
        if len(tilts) < TILT_ESTIMATES or number % TILT_PERIOD == 0:
            try:
                floor = fit_floor(frame.affine_invariant_depth, frame.K, self._height_m,
                                  pitch=pitch, roll=roll)
                tilts.append((floor.pitch, floor.roll))
            except InputError:
                if not tilts:
                    raise
        if len(tilts) < MIN_TILT_ESTIMATES:
            return None
        median = np.median(np.array(tilts), axis=0)
        return float(median[0]), float(median[1])


def _known_angle(parameter_deg: float | str | None, from_tf: tuple[float, str] | None
                 ) -> tuple[float | None, str]:
    """Return an angle, rad, and its origin; None if it must be searched."""
    if isinstance(parameter_deg, (int, float)):
        return math.radians(parameter_deg), 'parameter'
    return from_tf if parameter_deg is None and from_tf is not None else (None, 'searched')
