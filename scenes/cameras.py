"""Random camera poses that are neither inside an object nor too close to a surface."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scenes import rays, render, sensor
from scenes.draws import pick, pick_by_share
from scenes.scene_types import RenderCamera, Scene, View

Vector = NDArray[np.float64]


class Mount(NamedTuple):
    """What carries a camera: its height above the floor, its pitch (up is positive), its roll."""

    share: float
    height_m: tuple[float, float]
    pitch_deg: tuple[float, float]
    roll_deviation_deg: float


MOUNTS = {
    'robot': Mount(0.25, (0.2, 1.2), (-25, 10), 1.5),
    'hand': Mount(0.45, (0.6, 1.7), (-60, 30), 8.0),
    'head': Mount(0.20, (1.45, 1.9), (-50, 15), 4.0),
    'ceiling': Mount(0.10, (1.9, 2.2), (-60, -20), 2.0)}
# Horizontal field of view: most cameras have about 60 degrees.
FIELD_OF_VIEW_DEG = (40.0, 62.0, 110.0)
# Least ratio of far to near depth: a table from above is flat, but a bare wall teaches nothing.
FLAT_SPREAD, ROOM_SPREAD = 1.15, 1.8


def pinhole(width: int, height: int, horizontal_fov: float) -> NDArray[np.float64]:
    """
    Compute the intrinsics of a centred pinhole camera with square pixels.

    Parameters
    ----------
    width, height : int
        Pixels.
    horizontal_fov : float
        Horizontal field of view, radians.

    Returns
    -------
    [3,3] float64
    """
    f = width / 2 / np.tan(horizontal_fov / 2)
    return np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]])


def optical_axes(yaw: float, pitch: float, roll: float = 0.0) -> NDArray[np.float64]:
    """
    Compute the axes of the optical frame from a viewing direction.

    Parameters
    ----------
    yaw : float
        About z from the x axis, radians.
    pitch : float
        Above the horizon, radians.
    roll : float
        About the viewing direction, clockwise as the camera sees it, radians.

    Returns
    -------
    [3,3] float64
        Columns x right, y down, z forward in the map frame.
    """
    cp, sp, cy, sy = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    forward = np.array([cp * cy, cp * sy, sp])
    right = np.array([sy, -cy, 0.0])
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, forward], 1)


def sample_camera(scene: Scene, rng: np.random.Generator, size: tuple[int, int],
                  tries: int = 60) -> RenderCamera:
    """
    Sample a camera in one of the scene's views; reject poses that see little or stand too close.

    Parameters
    ----------
    scene : Scene
    rng : numpy.random.Generator
    size : (int, int)
        Width and height, pixels.
    tries : int
        Number of rejections after which the pose farthest from any surface is returned.

    Returns
    -------
    RenderCamera
    """
    best = _draw_camera(scene, rng, size)
    best_near, good = _rate_view(scene, best)
    for _ in range(tries):
        if good:
            return best
        camera = _draw_camera(scene, rng, size)
        near, good = _rate_view(scene, camera)
        if good or near > best_near:
            best, best_near = camera, near
    return best


def _draw_camera(scene: Scene, rng: np.random.Generator, size: tuple[int, int]) -> RenderCamera:
    view = pick(rng, scene.views)
    eye, (yaw, pitch, roll) = (
        _draw_aimed(view, rng) if view.floor_m is None else _draw_carried(view, view.floor_m, rng))
    fov = np.radians(rng.triangular(*FIELD_OF_VIEW_DEG))
    return RenderCamera(size[0], size[1], pinhole(*size, fov), optical_axes(yaw, pitch, roll), eye,
                        sensor.sample_sensor(rng))


def _draw_aimed(view: View, rng: np.random.Generator) -> tuple[Vector, tuple[float, ...]]:
    """Draw a position and yaw, pitch and roll towards a target."""
    eye = rng.uniform(view.eye[0], view.eye[1]).astype(np.float64)
    offset = rng.uniform(view.target[0], view.target[1]) - eye
    yaw = float(np.arctan2(offset[1], offset[0]))
    pitch = float(np.arctan2(offset[2], np.hypot(offset[0], offset[1])))
    return eye, (yaw, pitch, float(rng.normal(0, 0.06)))


def _draw_carried(view: View, floor_m: float,
                  rng: np.random.Generator) -> tuple[Vector, tuple[float, ...]]:
    """Draw what carries the camera, a position at its height, and a yaw towards a target."""
    eye, (yaw, _, _) = _draw_aimed(view, rng)
    mount = pick_by_share(rng, {mount: mount.share for mount in MOUNTS.values()})
    eye[2] = floor_m + rng.uniform(*mount.height_m)
    # Towards the middle of the range, as people and robots mostly look ahead.
    low, high = mount.pitch_deg
    pitch = low + (high - low) * rng.beta(2, 2)
    return eye, (yaw, float(np.radians(pitch)),
                 float(np.radians(rng.normal(0, mount.roll_deviation_deg))))


def _rate_view(scene: Scene, camera: RenderCamera) -> tuple[float, bool]:
    """Return the nearest distance (-1 inside an object, m) and whether the view is usable."""
    y, x = (a.ravel().astype(np.float32) for a in np.mgrid[0:camera.height - 1:18j,
                                                           0:camera.width - 1:24j])
    directions = render.pixel_rays(camera, x, y)
    origins = np.repeat(camera.position[None].astype(np.float32), len(directions), 0)
    hits = rays.trace(scene, origins, directions)
    if len(hits.ray) < 0.25 * len(directions):
        return -1.0, False
    outward = np.einsum('ij,ij->i', scene.face_normals[hits.triangle], directions[hits.ray])
    if (outward > 0).mean() > 0.05:
        return -1.0, False
    near, middle, far = np.percentile(hits.t, (1, 50, 95))
    spread = FLAT_SPREAD if scene.views[0].floor_m is None else ROOM_SPREAD
    return float(near), bool(near > 0.15 and middle > 0.45 and far > spread * near and far > 0.6)
