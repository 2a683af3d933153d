"""Random camera poses that are neither inside an object nor too close to a surface."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenes import rays, render, sensor
from scenes.scene_types import RenderCamera, Scene


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
    view = scene.views[int(rng.integers(len(scene.views)))]
    eye = rng.uniform(view.eye[0], view.eye[1]).astype(np.float64)
    target = rng.uniform(view.target[0], view.target[1])
    offset = target - eye
    yaw = float(np.arctan2(offset[1], offset[0]))
    pitch = float(np.arctan2(offset[2], np.hypot(offset[0], offset[1])))
    # Cameras in rooms look almost horizontally.
    steep = abs(pitch) > 0.6 and view.eye[0, 2] < 0.5
    pitch = float(rng.normal(-0.12, 0.15)) if steep else pitch
    roll = float(rng.normal(0, 0.03))
    return RenderCamera(size[0], size[1], pinhole(*size, np.radians(rng.uniform(45, 90))),
                        optical_axes(yaw, pitch, roll), eye, sensor.sample_sensor(rng))


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
    return float(near), bool(near > 0.15 and middle > 0.45 and far > 1.15 * near and far > 0.6)
