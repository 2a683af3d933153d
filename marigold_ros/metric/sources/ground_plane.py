"""
Metres from the floor: a camera whose height is known needs no other sensor.

The floor lies at the depth h / (n . r) of a pixel's ray r = K^-1 (u, v, 1), h the camera's height
and n the unit vector down to the floor in the optical frame.  So floor pixels of relative depth a
obey scale * a + shift = h / (n . r), which is linear in scale and shift once n is given.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.fit import PROPORTION_LIMITS, ScaleFit
from marigold_ros.metric.types import ScaleFrame

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

Vector = NDArray[np.float64]

# Pixels are looked at on a grid of about so many.
GRID_PIXELS = 1200
# Rays must fall by so much per metre forward: nearer to the horizon a degree is metres.
MIN_FALL = 0.06
# Pixels whose fitted depth differs by more are not floor; first a coarse look, then a fine one.
COARSE_TOLERANCE, TOLERANCE = 0.15, 0.08
HYPOTHESES = 96
REFINEMENTS = 8
# Part of the pixels below the horizon that must be floor.
MIN_FLOOR = 0.25
# Searched mounts, rad: the nose from a little up to well down, little roll.
PITCHES = np.radians(np.arange(-10.0, 46.0, 4.0))
ROLLS = np.radians(np.arange(-8.0, 9.0, 4.0))
PITCH_LIMITS, ROLL_LIMITS = np.radians((-15.0, 60.0)), np.radians((-15.0, 15.0))
# A mount is searched in so many frames, then now and then; their median is taken.
MOUNT_SEARCHES, SEARCH_EVERY, LEAST_SEARCHES = 15, 10, 5


@dataclass(frozen=True)
class FloorFit:
    """
    What the floor says.

    Attributes
    ----------
    fit : ScaleFit
        Its `inliers` are the share of the pixels below the horizon that are floor.
    pitch, roll : float
        Of the camera, rad: nose down and right side down are positive, as REP-103 turns a body
        about y and x.
    """

    fit: ScaleFit
    pitch: float
    roll: float


def down_vector(pitch: float, roll: float) -> Vector:
    """
    Give the direction to the floor in the optical frame.

    Parameters
    ----------
    pitch, roll : float
        As in `FloorFit`, rad.

    Returns
    -------
    float64 [3]
        Unit vector; x right, y down, z forward.
    """
    return np.array([np.sin(roll) * np.cos(pitch), np.cos(roll) * np.cos(pitch), np.sin(pitch)])


def tilt_of(down: Vector) -> tuple[float, float]:
    """Give pitch and roll of a direction to the floor: the inverse of `down_vector`."""
    x, y, z = down / np.linalg.norm(down)
    return float(np.arcsin(z)), float(np.arctan2(x, y))


def fit_floor(relative: FloatImage, K: NDArray[np.float64], height_m: float, *,
              pitch: float | None = None, roll: float | None = None) -> FloorFit:
    """
    Fit scale and shift, and the mount where it is unknown, to the floor in one frame.

    Parameters
    ----------
    relative : float32 [H, W]
        Affine-invariant depth, NaN unknown.
    K : float64 [3, 3]
        Intrinsics of the image, px.
    height_m : float
        Of the camera above the floor, m.
    pitch, roll : float, optional
        Mount as in `FloorFit`, rad; searched if None.

    Returns
    -------
    FloorFit

    Raises
    ------
    InputError
        If too few pixels below the horizon are floor.
    """
    a, rays = _grid(relative, K)
    if len(a) < 50:
        raise InputError(f'the floor needs at least 50 pixels of known depth; got {len(a)}')
    start = _best_hypothesis(a, rays, height_m, *_mounts(pitch, roll))
    free = np.array([True, True, pitch is None, roll is None])
    x = start
    for tolerance in (COARSE_TOLERANCE, TOLERANCE):
        x = _refined(a, rays, height_m, x, free, tolerance)
    scale, shift, found_pitch, found_roll = (float(value) for value in x)
    fall = rays @ down_vector(found_pitch, found_roll)
    below = fall > MIN_FALL
    error = np.abs((scale * a + shift) * fall / height_m - 1.0)[below]
    floor = error < TOLERANCE
    share = float(np.mean(floor)) if len(floor) else 0.0
    low, high = PROPORTION_LIMITS
    if share < MIN_FLOOR or not (scale > 0 and low / 2 <= shift / scale <= high * 2):
        raise InputError(f'no floor: {100 * share:.0f} % of the pixels below the horizon lie on '
                         f'one plane {height_m:g} m below the camera, {100 * MIN_FLOOR:.0f} % '
                         'are needed')
    fit = ScaleFit(scale, shift, float(np.mean(error[floor])), share, int(below.sum()), False)
    return FloorFit(fit, found_pitch, found_roll)


def _grid(relative: FloatImage, K: NDArray[np.float64]) -> tuple[Vector, Vector]:
    """Take pixels on a grid: relative depth [n] and rays [n,3] of length 1 along Z."""
    stride = max(1, int(np.sqrt(relative.size / GRID_PIXELS)))
    rows, columns = np.mgrid[stride // 2:relative.shape[0]:stride,
                             stride // 2:relative.shape[1]:stride]
    a = relative[rows, columns].astype(np.float64).ravel()
    rays = np.stack([(columns.ravel() - K[0, 2]) / K[0, 0],
                     (rows.ravel() - K[1, 2]) / K[1, 1], np.ones(rows.size)], axis=-1)
    known = np.isfinite(a)
    return a[known], rays[known]


def _mounts(pitch: float | None, roll: float | None) -> tuple[Vector, Vector]:
    """Combine the pitches and rolls to try, [m] each."""
    grid = np.meshgrid(PITCHES if pitch is None else [pitch], ROLLS if roll is None else [roll])
    return grid[0].ravel(), grid[1].ravel()


def _best_hypothesis(a: Vector, rays: Vector, height_m: float, pitches: Vector, rolls: Vector
                     ) -> Vector:
    """Try pairs of pixels with every mount; the best [scale, shift, pitch, roll]."""
    rng = np.random.default_rng(0)
    best, lowest = None, np.inf
    for pitch, roll in zip(pitches, rolls):
        fall = rays @ down_vector(pitch, roll)
        below = np.flatnonzero(fall > MIN_FALL)
        if len(below) < 50:
            continue
        i, j = rng.choice(below, (2, HYPOTHESES))
        with np.errstate(divide='ignore', invalid='ignore'):
            scales = height_m * (1 / fall[i] - 1 / fall[j]) / (a[i] - a[j])
            shifts = height_m / fall[i] - scales * a[i]
        low, high = PROPORTION_LIMITS
        sound = (scales > 0) & (shifts >= low * scales) & (shifts <= high * scales)
        if not sound.any():
            continue
        scales, shifts = scales[sound], shifts[sound]
        few = below[::max(1, len(below) // 300)]
        error = np.abs((scales[:, None] * a[few] + shifts[:, None]) * fall[few] / height_m - 1.0)
        cost = np.minimum(error, COARSE_TOLERANCE).mean(axis=1)
        winner = int(np.argmin(cost))
        if cost[winner] < lowest:
            lowest = float(cost[winner])
            best = np.array([scales[winner], shifts[winner], pitch, roll])
    if best is None:
        raise InputError('no floor: no scale above 0 puts two pixels below the horizon onto it')
    return best


def _refined(a: Vector, rays: Vector, height_m: float, x: Vector, free: NDArray[np.bool_],
             tolerance: float) -> Vector:
    """Gauss-Newton on the mean |relative error| of the floor pixels; x as `_best_hypothesis`."""
    x = x.copy()
    for _ in range(REFINEMENTS):
        scale, shift, pitch, roll = x
        fall = rays @ down_vector(pitch, roll)
        z = scale * a + shift
        error = z * fall / height_m - 1.0
        floor = (fall > MIN_FALL) & (np.abs(error) < tolerance)
        if floor.sum() < 20:
            return x
        turn_pitch = rays @ np.array([-np.sin(roll) * np.sin(pitch), -np.cos(roll) * np.sin(pitch),
                                      np.cos(pitch)])
        turn_roll = rays @ np.array([np.cos(roll) * np.cos(pitch), -np.sin(roll) * np.cos(pitch),
                                     0.0])
        jacobian = np.stack([a * fall, fall, z * turn_pitch, z * turn_roll], axis=-1) / height_m
        w = 1.0 / np.maximum(np.abs(error[floor]), 1e-3)
        J = jacobian[floor][:, free]
        step = np.linalg.lstsq((J * w[:, None]).T @ J, -(J * w[:, None]).T @ error[floor],
                               rcond=1e-9)[0]
        x[free] += step
        x[2] = np.clip(x[2], *PITCH_LIMITS) if free[2] else x[2]
        x[3] = np.clip(x[3], *ROLL_LIMITS) if free[3] else x[3]
    return x


class GroundPlane:
    """
    Source `ground_plane`: the floor seen from a known height, and the mounts found so far.

    Parameters
    ----------
    config : ScaleConfig
    """

    def __init__(self, config: ScaleConfig) -> None:
        """Start without a mount where it is to be searched."""
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Forget the mount of every camera."""
        self._mounts: defaultdict[str, deque[tuple[float, float]]] = defaultdict(
            lambda: deque(maxlen=MOUNT_SEARCHES))
        self._frames: defaultdict[str, int] = defaultdict(int)

    def fit(self, frame: ScaleFrame) -> ScaleFit | None:
        """
        Fit the floor of one frame.

        Returns
        -------
        ScaleFit or None
            None while the mount is searched.

        Raises
        ------
        InputError
            If there is no floor to be seen.
        """
        pitch, roll = self._known_tilt(frame)
        height_m = float(self._config.camera_height_m or 0.0)
        if pitch is None or roll is None:
            mount = self._searched_tilt(frame, height_m, pitch, roll)
            if mount is None:
                return None
            pitch, roll = mount
        return fit_floor(frame.relative, frame.K, height_m, pitch=pitch, roll=roll).fit

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
