"""From a scene and a camera to an image and its exact depth."""
from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from scenes import rays, sensor, shading
from scenes.meshes import Floats
from scenes.types import BULK, Camera, Quality, RenderedFrame, Scene

# Order of the samples within a 4x4 tile: neighbours get samples that lie far apart.
_TILE_ORDER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
# Every 5 neighbouring pixels hold each of the 4 tile columns once with these weights.
_TILE_WEIGHTS = ((-2, 0.5), (-1, 1.0), (0, 1.0), (1, 1.0), (2, 0.5))


# Rows and columns of an array whose last two axes are the image's.
_Region = tuple[EllipsisType, slice, slice]


@dataclass(frozen=True)
class _Geometry:
    """What each pixel's centre sees: [H,W], points and normals [3,H,W]; the sky is not seen."""

    seen: NDArray[np.bool_]
    z: Floats
    point: Floats
    normal: Floats
    material: NDArray[np.int32]


def pixel_rays(camera: Camera, x: NDArray[np.floating], y: NDArray[np.floating]) -> Floats:
    """
    Make rays through image points, of length 1 along the optical axis.

    Parameters
    ----------
    camera : Camera
    x, y : [n] float
        Pixels; whole numbers are pixel centres.

    Returns
    -------
    [n,3] float32
        Directions in the map frame: their hit distance is the depth along Z.
    """
    K = camera.K
    directions = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)
    return np.asarray(directions @ camera.rotation.T, np.float32)


def render(scene: Scene, camera: Camera, quality: Quality = BULK) -> RenderedFrame:
    """
    Render one frame.

    Parameters
    ----------
    scene : Scene
    camera : Camera
    quality : Quality

    Returns
    -------
    RenderedFrame
    """
    radiance, depth_m = render_radiance(scene, camera, quality)
    return RenderedFrame(sensor.develop(radiance, camera.sensor), depth_m, camera.K)


def render_radiance(scene: Scene, camera: Camera, quality: Quality) -> tuple[Floats, Floats]:
    """
    Work out the light that reaches each pixel, before the sensor.

    Parameters
    ----------
    scene : Scene
    camera : Camera
    quality : Quality

    Returns
    -------
    radiance : [H,W,3] float32
        Linear.
    depth_m : [H,W] float32
        Along Z, +inf on the sky.
    """
    rng = np.random.default_rng([camera.sensor.seed, 1])
    # 1. What each pixel's centre sees gives the depth.
    y, x = (a.ravel().astype(np.float32) for a in np.indices((camera.height, camera.width)))
    directions = pixel_rays(camera, x, y)
    hits = _trace_from(scene, camera, directions)
    geometry = _geometry(camera, hits)
    # 2. Light on those points, sampled sparsely and shared within tiles of 4x4 pixels.
    light = _gathered_light(scene, camera, hits, geometry, quality, rng)
    # 3. Colour of the pixel centres.
    pixel_angle = 1 / float(camera.K[0, 0])
    radiance = rays.sky_radiance(scene, directions)
    radiance[hits.ray] = _leaving(scene, hits, light.reshape(-1, 6)[hits.ray], pixel_angle)
    # 4. Pixels on an edge see several surfaces: average more rays through them.
    edge = np.flatnonzero(_edges(geometry).ravel())
    if quality.edge_samples and len(edge):
        extra = _edge_colours(scene, camera, geometry, light, edge, quality.edge_samples)
        radiance[edge] = (radiance[edge] + quality.edge_samples * extra) / (
            quality.edge_samples + 1)
    return radiance.reshape(camera.height, camera.width, 3), geometry.z


def depth_along_z(scene: Scene, camera: Camera) -> Floats:
    """
    Trace the depth alone.

    Returns
    -------
    [H,W] float32
        Metres along the optical axis, +inf on the sky.
    """
    y, x = (a.ravel().astype(np.float32) for a in np.indices((camera.height, camera.width)))
    return _geometry(camera, _trace_from(scene, camera, pixel_rays(camera, x, y))).z


def _trace_from(scene: Scene, camera: Camera, directions: Floats) -> rays.Hits:
    origins = np.broadcast_to(camera.position.astype(np.float32), directions.shape)
    return rays.trace(scene, np.ascontiguousarray(origins), directions)


def _geometry(camera: Camera, hits: rays.Hits) -> _Geometry:
    count = camera.width * camera.height
    z = np.full(count, np.inf, np.float32)
    z[hits.ray] = hits.t
    vectors = np.zeros((2, 3, count), np.float32)
    vectors[0][:, hits.ray], vectors[1][:, hits.ray] = hits.point.T, hits.normal.T
    material = np.full(count, -1, np.int32)
    material[hits.ray] = hits.material
    shape = (camera.height, camera.width)
    return _Geometry(np.isfinite(z).reshape(shape), z.reshape(shape),
                     vectors[0].reshape(3, *shape), vectors[1].reshape(3, *shape),
                     material.reshape(shape))


def _gathered_light(scene: Scene, camera: Camera, hits: rays.Hits, geometry: _Geometry,
                    quality: Quality, rng: np.random.Generator) -> Floats:
    """Irradiance, then highlights and reflections, [H,W,6]."""
    row, column = np.divmod(hits.ray, camera.width)
    tile = _TILE_ORDER[row % 4, column % 4]
    total = np.zeros((len(hits.ray), 9), np.float32)
    rotations = rng.random((len(scene.lights) + 1, 2), dtype=np.float32)
    for step in range(quality.passes):
        index = tile * quality.passes + step
        samples = [shading.spread(index, rotation) for rotation in rotations]
        irradiance, highlight = shading.direct(scene, hits, samples[1:], shine=True)
        total[:, :3] += irradiance
        total[:, 3:6] += highlight + shading.mirrored(scene, hits, rng)
        total[:, 6:] += shading.bounced(scene, hits, samples[0], rng)
    image = np.zeros((9, camera.height * camera.width), np.float32)
    image[:, hits.ray] = total.T / quality.passes
    image = _share_in_tiles(image.reshape(9, camera.height, camera.width), geometry)
    # Light from the surroundings varies slowly: share it among tiles too.
    image[:3] += _share_in_tiles(image[6:], geometry, stride=4)
    return np.ascontiguousarray(np.moveaxis(image[:6], 0, -1))


def _share_in_tiles(image: Floats, geometry: _Geometry, stride: int = 1) -> Floats:
    """
    Average over every `stride`-th of 5x5 neighbours, along rows then columns, within edges.

    Parameters
    ----------
    image : [k,H,W] float32
    geometry : _Geometry
    stride : int

    Returns
    -------
    [k,H,W] float32
    """
    normal, point = geometry.normal, geometry.point
    tolerance = np.float32(0.004) + np.float32(0.01) * geometry.z
    for axis in (1, 0):
        total = np.zeros_like(image)
        weights = np.zeros(image.shape[1:], np.float32)
        for shift, weight in _TILE_WEIGHTS:
            here, there = _shifted(shift * stride, axis)
            n = normal[here]
            offset = np.einsum('kij,kij->ij', n, point[there] - point[here])
            close = np.abs(offset) < tolerance[here]
            close &= np.einsum('kij,kij->ij', n, normal[there]) > 0.9
            share = close.astype(np.float32) * np.float32(weight)
            total[here] += image[there] * share
            weights[here] += share
        image = total / np.maximum(weights, np.float32(1e-6))
    return image


def _shifted(shift: int, axis: int) -> tuple[_Region, _Region]:
    """Region of the pixels that have a neighbour `shift` along an axis, and that neighbour's."""
    here = slice(max(-shift, 0), -shift if shift > 0 else None)
    there = slice(max(shift, 0), shift if shift < 0 else None)
    every = slice(None)
    return ((..., here, every), (..., there, every)) if axis == 0 else (
        (..., every, here), (..., every, there))


def _leaving(scene: Scene, hits: rays.Hits, light: Floats, pixel_angle: float) -> Floats:
    """Light that surfaces send to the camera, [k,3]."""
    colour = shading.albedo(scene, hits, pixel_angle)
    emission = scene.materials.emission[hits.material]
    glowing = emission.any(-1)
    radiance = colour * light[:, :3] / np.pi + light[:, 3:]
    # A lampshade or screen shows its texture in its own light.
    radiance[glowing] += emission[glowing] * colour[glowing]
    return radiance


def _edges(geometry: _Geometry) -> NDArray[np.bool_]:
    """Mark the pixels next to another surface."""
    edge = np.zeros(geometry.seen.shape, bool)
    for axis in (0, 1):
        here, there = _shifted(1, axis)
        n = geometry.normal[here]
        with np.errstate(invalid='ignore'):
            offset = geometry.point[there] - geometry.point[here]
            jump = np.abs(np.einsum('kij,kij->ij', n, offset))
            differs = jump > 0.01 * np.minimum(geometry.z[here], geometry.z[there])
        differs |= geometry.material[here] != geometry.material[there]
        differs |= np.einsum('kij,kij->ij', n, geometry.normal[there]) < 0.95
        differs &= geometry.seen[here] | geometry.seen[there]
        edge[here] |= differs
        edge[there] |= differs
    return edge


def _edge_colours(scene: Scene, camera: Camera, geometry: _Geometry, light: Floats,
                  edge: NDArray[np.int64], samples: int) -> Floats:
    """Mean colour of extra rays through edge pixels, lit like the best matching neighbour."""
    total = np.zeros((len(edge), 3), np.float32)
    y, x = np.divmod(edge, camera.width)
    shifts = shading.spread(np.arange(samples), np.full(2, 0.5, np.float32)) - 0.5
    for dx, dy in shifts:
        directions = pixel_rays(camera, x + dx, y + dy)
        colour = rays.sky_radiance(scene, directions)
        hits = _trace_from(scene, camera, directions)
        lit = _match_light(geometry, light, hits, y[hits.ray], x[hits.ray])
        colour[hits.ray] = _leaving(scene, hits, lit, 1 / float(camera.K[0, 0]))
        total += np.minimum(colour, 8)
    return np.asarray(total / samples, np.float32)


def _match_light(geometry: _Geometry, light: Floats, hits: rays.Hits, y: NDArray[np.int64],
                 x: NDArray[np.int64]) -> Floats:
    """Take the light of the neighbouring pixel that sees the same surface, [k,6]."""
    height, width = geometry.seen.shape
    best = np.full(len(y), np.inf, np.float32)
    chosen = np.zeros((2, len(y)), np.int64)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
        ny, nx = np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)
        n = geometry.normal[:, ny, nx].T
        offset = hits.point - geometry.point[:, ny, nx].T
        apart = np.abs(np.einsum('ij,ij->i', n, offset)) / hits.t
        cost = apart + 0.1 * (1 - np.einsum('ij,ij->i', n, hits.normal))
        cost += 1.0 * ~geometry.seen[ny, nx] + 0.05 * (geometry.material[ny, nx] != hits.material)
        better = cost < best
        best[better] = cost[better]
        chosen[:, better] = ny[better], nx[better]
    return np.asarray(light[chosen[0], chosen[1]])
