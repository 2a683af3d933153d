"""Render an image of a scene and its exact metric depth."""
from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from scenes import glass, rays, sensor, shading
from scenes.meshes import Floats
from scenes.scene_types import BULK, Quality, RenderCamera, RenderedFrame, Scene

# Order of the samples within a 4x4 tile: neighbouring pixels get dissimilar samples.
_TILE_ORDER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
# Over 5 neighbouring pixels these weights count each of the 4 tile columns equally.
_TILE_WEIGHTS = ((-2, 0.5), (-1, 1.0), (0, 1.0), (1, 1.0), (2, 0.5))


# Index of a region of an array whose last two axes are image rows and columns.
_Region = tuple[EllipsisType, slice, slice]


@dataclass(frozen=True)
class _Geometry:
    """Surface at each pixel's centre: [H,W], points and normals [3,H,W]; `hit` is false on sky."""

    hit: NDArray[np.bool_]
    z: Floats
    point: Floats
    normal: Floats
    material: NDArray[np.int32]


def pixel_rays(camera: RenderCamera, x: NDArray[np.floating], y: NDArray[np.floating]) -> Floats:
    """
    Compute ray directions through image points, of length 1 along the optical axis.

    Parameters
    ----------
    camera : RenderCamera
    x, y : [n] float
        Pixel coordinates; integers are pixel centres.

    Returns
    -------
    [n,3] float32
        Directions in the map frame; the distance of a hit in their length is its depth.
    """
    K = camera.K
    directions = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)
    return np.asarray(directions @ camera.rotation.T, np.float32)


def render(scene: Scene, camera: RenderCamera, quality: Quality = BULK) -> RenderedFrame:
    """
    Render one image and its depth.

    Parameters
    ----------
    scene : Scene
    camera : RenderCamera
    quality : Quality

    Returns
    -------
    RenderedFrame
    """
    radiance, depth_m = render_radiance(scene, camera, quality)
    rgb = sensor.develop(radiance, camera.sensor)
    sensor.add_border(rgb, depth_m, camera.sensor)
    return RenderedFrame(rgb, depth_m, camera.K)


def render_radiance(scene: Scene, camera: RenderCamera, quality: Quality) -> tuple[Floats, Floats]:
    """
    Render the radiance that reaches each pixel, without the sensor model.

    Parameters
    ----------
    scene : Scene
    camera : RenderCamera
    quality : Quality

    Returns
    -------
    radiance : [H,W,3] float32
        Linear.
    depth_m : [H,W] float32
        Depth along the optical axis, m; +inf on the sky.
    """
    rng = np.random.default_rng([camera.sensor.seed, 1])
    # 1. Trace the pixel centres: their hits give the depth.
    y, x = (a.ravel().astype(np.float32) for a in np.indices((camera.height, camera.width)))
    directions = pixel_rays(camera, x, y)
    hits = _trace_from(scene, camera, directions)
    geometry = _geometry(camera, hits)
    # 2. Sample the light at the hits sparsely and average it within 4x4 tiles.
    light = _sample_light(scene, camera, hits, geometry, quality, rng)
    # 3. Compute the colour at the pixel centres.
    pixel_angle = 1 / float(camera.K[0, 0])
    sky = ~geometry.hit.ravel()
    radiance = np.zeros((len(directions), 3), np.float32)
    radiance[sky] = rays.sky_radiance(scene, directions[sky])
    radiance[hits.ray] = _outgoing_radiance(scene, hits, light.reshape(-1, 6)[hits.ray],
                                            pixel_angle)
    # 4. Antialias edges: average extra rays through their pixels.
    edge = np.flatnonzero(_find_edges(geometry).ravel())
    if quality.edge_samples and len(edge):
        extra = _sample_edges(scene, camera, geometry, light, edge, quality.edge_samples)
        radiance[edge] = (radiance[edge] + quality.edge_samples * extra) / (
            quality.edge_samples + 1)
    # 5. Lay panes over what is behind them.
    if scene.glazing is not None:
        radiance = glass.lay_panes(scene, scene.glazing, camera.position.astype(np.float32),
                                   directions, geometry.z.ravel(), radiance,
                                   np.random.default_rng([camera.sensor.seed, 3]))
    return radiance.reshape(camera.height, camera.width, 3), geometry.z


def depth_along_z(scene: Scene, camera: RenderCamera) -> Floats:
    """
    Render the depth without the image.

    Returns
    -------
    [H,W] float32
        Depth along the optical axis, m; +inf on the sky.
    """
    y, x = (a.ravel().astype(np.float32) for a in np.indices((camera.height, camera.width)))
    return _geometry(camera, _trace_from(scene, camera, pixel_rays(camera, x, y))).z


def _trace_from(scene: Scene, camera: RenderCamera, directions: Floats) -> rays.Hits:
    origins = np.broadcast_to(camera.position.astype(np.float32), directions.shape)
    return rays.trace(scene, np.ascontiguousarray(origins), directions)


def _geometry(camera: RenderCamera, hits: rays.Hits) -> _Geometry:
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


def _sample_light(scene: Scene, camera: RenderCamera, hits: rays.Hits, geometry: _Geometry,
                  quality: Quality, rng: np.random.Generator) -> Floats:
    """Sample irradiance (3 channels), then highlights and reflections (3 channels), [H,W,6]."""
    row, column = np.divmod(hits.ray, camera.width)
    tile = _TILE_ORDER[row % 4, column % 4]
    total = np.zeros((len(hits.ray), 9), np.float32)
    rotations = rng.random((len(scene.lights) + 1, 2), dtype=np.float32)
    for step in range(quality.passes):
        index = tile * quality.passes + step
        samples = [shading.spread_samples(index, rotation) for rotation in rotations]
        irradiance, highlight = shading.direct_light(scene, hits, samples[1:], highlights=True)
        total[:, :3] += irradiance
        total[:, 3:6] += highlight + shading.mirrored_light(scene, hits, rng)
        total[:, 6:] += shading.bounced_light(scene, hits, samples[0], rng)
    image = np.zeros((9, camera.height * camera.width), np.float32)
    image[:, hits.ray] = total.T / quality.passes
    image = _filter_tiles(image.reshape(9, camera.height, camera.width), geometry)
    # Indirect light varies slowly: average it between tiles too.
    image[:3] += _filter_tiles(image[6:], geometry, stride=4)
    return np.ascontiguousarray(np.moveaxis(image[:6], 0, -1))


def _filter_tiles(image: Floats, geometry: _Geometry, stride: int = 1) -> Floats:
    """
    Average over 5x5 neighbours `stride` apart that lie on the same surface, rows then columns.

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
            here, there = _neighbour_regions(shift * stride, axis)
            n = normal[here]
            offset = np.einsum('kij,kij->ij', n, point[there] - point[here])
            close = np.abs(offset) < tolerance[here]
            close &= np.einsum('kij,kij->ij', n, normal[there]) > 0.9
            share = close.astype(np.float32) * np.float32(weight)
            total[here] += image[there] * share
            weights[here] += share
        image = total / np.maximum(weights, np.float32(1e-6))
    return image


def _neighbour_regions(shift: int, axis: int) -> tuple[_Region, _Region]:
    """Return the region of pixels with a neighbour `shift` away, and that of the neighbours."""
    here = slice(max(-shift, 0), -shift if shift > 0 else None)
    there = slice(max(shift, 0), shift if shift < 0 else None)
    every = slice(None)
    return ((..., here, every), (..., there, every)) if axis == 0 else (
        (..., every, here), (..., every, there))


def _outgoing_radiance(scene: Scene, hits: rays.Hits, light: Floats, pixel_angle: float) -> Floats:
    """Compute the radiance that surfaces send to the camera, [k,3]."""
    colour = shading.albedo(scene, hits, pixel_angle)
    emission = scene.materials.emission[hits.material]
    glowing = emission.any(-1)
    radiance = colour * light[:, :3] / np.pi + light[:, 3:]
    # A lampshade or screen emits light with the colours of its texture.
    radiance[glowing] += emission[glowing] * colour[glowing]
    return radiance


def _find_edges(geometry: _Geometry) -> NDArray[np.bool_]:
    """Mark the pixels whose neighbours show another surface."""
    edge = np.zeros(geometry.hit.shape, bool)
    for axis in (0, 1):
        here, there = _neighbour_regions(1, axis)
        n = geometry.normal[here]
        with np.errstate(invalid='ignore'):
            offset = geometry.point[there] - geometry.point[here]
            jump = np.abs(np.einsum('kij,kij->ij', n, offset))
            differs = jump > 0.01 * np.minimum(geometry.z[here], geometry.z[there])
        differs |= geometry.material[here] != geometry.material[there]
        differs |= np.einsum('kij,kij->ij', n, geometry.normal[there]) < 0.95
        differs &= geometry.hit[here] | geometry.hit[there]
        edge[here] |= differs
        edge[there] |= differs
    return edge


def _sample_edges(scene: Scene, camera: RenderCamera, geometry: _Geometry, light: Floats,
                  edge: NDArray[np.int64], samples: int) -> Floats:
    """Average extra rays through edge pixels, lit as the neighbour on the same surface, [k,3]."""
    total = np.zeros((len(edge), 3), np.float32)
    y, x = np.divmod(edge, camera.width)
    shifts = shading.spread_samples(np.arange(samples), np.full(2, 0.5, np.float32)) - 0.5
    for dx, dy in shifts:
        directions = pixel_rays(camera, x + dx, y + dy)
        hits = _trace_from(scene, camera, directions)
        missed = np.ones(len(edge), bool)
        missed[hits.ray] = False
        colour = np.zeros_like(total)
        colour[missed] = rays.sky_radiance(scene, directions[missed])
        lit = _neighbour_light(geometry, light, hits, y[hits.ray], x[hits.ray])
        colour[hits.ray] = _outgoing_radiance(scene, hits, lit, 1 / float(camera.K[0, 0]))
        total += np.minimum(colour, 8)
    return np.asarray(total / samples, np.float32)


def _neighbour_light(geometry: _Geometry, light: Floats, hits: rays.Hits, y: NDArray[np.int64],
                     x: NDArray[np.int64]) -> Floats:
    """Return the light at the neighbouring pixel that best matches each hit, [k,6]."""
    height, width = geometry.hit.shape
    best = np.full(len(y), np.inf, np.float32)
    chosen = np.zeros(len(y), np.int64)
    normal, point = geometry.normal.reshape(3, -1), geometry.point.reshape(3, -1)
    hit, material = geometry.hit.ravel(), geometry.material.ravel()
    x0, y0, z0 = np.ascontiguousarray(hits.point.T)
    nx, ny, nz = np.ascontiguousarray(hits.normal.T)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
        at = np.clip(y + dy, 0, height - 1) * width + np.clip(x + dx, 0, width - 1)
        n, p = normal.take(at, 1), point.take(at, 1)
        apart = np.abs(n[0] * (x0 - p[0]) + n[1] * (y0 - p[1]) + n[2] * (z0 - p[2])) / hits.t
        cost = apart + 0.1 * (1 - (n[0] * nx + n[1] * ny + n[2] * nz))
        cost += 1.0 * ~hit[at] + 0.05 * (material[at] != hits.material)
        better = cost < best
        best[better] = cost[better]
        chosen[better] = at[better]
    return np.asarray(light.reshape(-1, 6)[chosen])
