"""Compute the light on surfaces: direct light with shadows, highlights, one bounce, mirrors."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenes.meshes import Floats, normalize
from scenes.rays import Hits, occluded, sky_radiance, trace
from scenes.scene_types import Light, Scene

# Steps of the two-dimensional golden-ratio sequence (Roberts 2018), which has low discrepancy.
_R2 = np.array([0.7548776662466927, 0.5698402909980532], np.float32)


def spread_samples(index: NDArray[np.int64], rotation: Floats) -> Floats:
    """
    Compute samples that are evenly spread over the unit square.

    Parameters
    ----------
    index : [n] int
        Index of each sample in the sequence.
    rotation : [2] float32
        Random shift of the whole sequence.

    Returns
    -------
    [n,2] float32
    """
    return np.asarray((index[:, None] * _R2 + rotation) % 1, np.float32)


def light_segments(light: Light, points: Floats, samples: Floats) -> tuple[Floats, Floats]:
    """
    Compute segments from points to sampled points on a light, and the irradiance from there.

    Parameters
    ----------
    light : Light
    points : [n,3] float32
    samples : [n,2] float32
        In the unit square.

    Returns
    -------
    segments : [n,3] float32
        To the sampled point on the light, m; a sun is 1 km away.
    strength : [n] float32
        Irradiance divided by `light.rgb` on a surface that faces the light.
    """
    if light.kind == 'rect':
        ends = (light.center + (samples[:, :1] - 0.5) * light.u + (samples[:, 1:] - 0.5) * light.v)
        segments = ends - points
        cross = np.cross(light.u, light.v)
        square = np.einsum('ij,ij->i', segments, segments)
        facing = np.maximum(-(segments @ cross), 0)  # cos * area * distance
        return segments, np.asarray(facing / np.maximum(square, 0.01) ** 1.5, np.float32)
    z = 1 - 2 * samples[:, :1]
    ring = np.sqrt(np.maximum(1 - z * z, 0))
    angle = 2 * np.pi * samples[:, 1:]
    ball = np.concatenate([ring * np.cos(angle), ring * np.sin(angle), z], 1) * light.radius_m
    if light.kind == 'sun':
        return (np.asarray(1000 * (light.center + ball), np.float32),
                np.ones(len(points), np.float32))
    segments = np.asarray(light.center + ball - points, np.float32)
    square = np.einsum('ij,ij->i', segments, segments)
    return segments, 1 / np.maximum(square, 0.01)


def direct_light(scene: Scene, hits: Hits, samples: list[Floats],
                 highlights: bool) -> tuple[Floats, Floats]:
    """
    Compute the direct light at hits, with one shadow ray per light.

    Parameters
    ----------
    scene : Scene
    hits : Hits
    samples : list of [k,2] float32
        In the unit square, one array per light.
    highlights : bool
        Whether to compute the highlights too.

    Returns
    -------
    irradiance : [k,3] float32
    highlight : [k,3] float32
        Zero unless `highlights` is true.
    """
    irradiance = np.zeros((len(hits.ray), 3), np.float32)
    highlight = np.zeros_like(irradiance)
    gloss = scene.materials.gloss[hits.material]
    for light, sample in zip(scene.lights, samples):
        segments, strength = light_segments(light, hits.point, sample)
        towards = normalize(segments)
        cosine = np.einsum('ij,ij->i', towards, hits.normal)
        cosine[np.einsum('ij,ij->i', towards, hits.face_normal) <= 0] = 0
        lit = np.flatnonzero(cosine * strength > 1e-5)
        lit = lit[~occluded(scene, hits.offset_point[lit], segments[lit])]
        amount = (cosine[lit] * strength[lit])[:, None] * light.rgb
        irradiance[lit] += amount
        if highlights:
            shiny = lit[gloss[lit] > 0]
            back = hits.to_viewer[shiny]
            half = normalize(towards[shiny] + back)
            power = np.einsum('ij,ij->i', half, hits.normal[shiny]).clip(0) ** 60
            # The sun's reflection is far smaller than this broad lobe.
            share = gloss[shiny] * (0.1 if light.kind == 'sun' else 1.0)
            highlight[shiny] += (share * power * strength[shiny])[:, None] * light.rgb
    return irradiance, highlight


def albedo(scene: Scene, hits: Hits, spread_per_m: float) -> Floats:
    """
    Look up the reflectance at hits.

    Parameters
    ----------
    scene : Scene
    hits : Hits
        Of rays whose directions have length 1 along the optical axis.
    spread_per_m : float
        Width of one ray per metre of distance.

    Returns
    -------
    [k,3] float32
    """
    width = hits.t * np.float32(spread_per_m) / np.sqrt(hits.cosine)
    return scene.materials.albedo(hits.material, hits.uv, width * scene.uv_per_m[hits.triangle])


def incoming_radiance(scene: Scene, origins: Floats, directions: Floats,
                      rng: np.random.Generator, *, mirrored: bool) -> Floats:
    """
    Compute the radiance that arrives along rays, without further bounces.

    Parameters
    ----------
    scene : Scene
    origins, directions : [n,3] float32
    rng : numpy.random.Generator
    mirrored : bool
        True: include emission, sky and textures, and sample every light. False: include only
        light that surfaces reflect (and the sky if it irradiates), sampling one light per hit.

    Returns
    -------
    [n,3] float32
        Radiance.
    """
    hits = trace(scene, origins, directions)
    count = len(hits.ray)
    irradiance = np.zeros((count, 3), np.float32) + scene.ambient
    choice = rng.integers(0, max(len(scene.lights), 1), count)
    share = 1 if mirrored else len(scene.lights)
    normal = hits.normal if mirrored else hits.face_normal
    for i, light in enumerate(scene.lights):
        mine = np.arange(count) if mirrored else np.flatnonzero(choice == i)
        samples = rng.random((len(mine), 2), dtype=np.float32)
        segments, strength = light_segments(light, hits.point[mine], samples)
        strength = strength * np.einsum('ij,ij->i', normalize(segments), normal[mine])
        lit = np.flatnonzero(strength > 1e-5)
        lit = lit[~occluded(scene, hits.offset_point[mine[lit]], segments[lit])]
        irradiance[mine[lit]] += (strength[lit] * share)[:, None] * light.rgb
    reflectance = albedo(scene, hits, 0.01) if mirrored else scene.mean_albedo[hits.material]
    radiance = np.zeros((len(origins), 3), np.float32)
    if mirrored or scene.sky_irradiates:
        missed = np.ones(len(origins), bool)
        missed[hits.ray] = False
        radiance[missed] = sky_radiance(scene, directions[missed])
    radiance[hits.ray] = reflectance * irradiance / np.pi
    if mirrored:
        radiance[hits.ray] += scene.materials.emission[hits.material]
    return radiance


def bounced_light(scene: Scene, hits: Hits, samples: Floats, rng: np.random.Generator) -> Floats:
    """
    Compute the indirect irradiance from one cosine-weighted ray per hit.

    Parameters
    ----------
    scene : Scene
    hits : Hits
    samples : [k,2] float32
        In the unit square.
    rng : numpy.random.Generator

    Returns
    -------
    [k,3] float32
        Irradiance.
    """
    radius, angle = np.sqrt(samples[:, :1]), 2 * np.pi * samples[:, 1:]
    # Build an orthonormal basis around each normal (Duff et al. 2017).
    n = hits.normal
    sign = np.where(n[:, 2] < 0, -1, 1).astype(np.float32)
    a = -1 / (sign + n[:, 2])
    b = n[:, 0] * n[:, 1] * a
    x = np.stack([1 + sign * n[:, 0] ** 2 * a, sign * b, -sign * n[:, 0]], 1)
    y = np.stack([b, sign + n[:, 1] ** 2 * a, -n[:, 1]], 1)
    directions = (radius * np.cos(angle) * x + radius * np.sin(angle) * y
                  + np.sqrt(1 - samples[:, :1]) * n)
    radiance = incoming_radiance(scene, hits.offset_point, np.asarray(directions, np.float32), rng,
                                 mirrored=False)
    # Clip rare, very bright rays, which would be visible as specks.
    return np.asarray(np.pi * np.minimum(radiance, 6 * radiance.mean(0) + 1e-6), np.float32)


def mirrored_light(scene: Scene, hits: Hits, rng: np.random.Generator) -> Floats:
    """
    Compute the mirror reflections of polished surfaces with Schlick's approximation.

    Returns
    -------
    [k,3] float32
        Radiance.
    """
    radiance = np.zeros((len(hits.ray), 3), np.float32)
    polished = np.flatnonzero(scene.materials.mirror[hits.material] > 0.005)
    if len(polished):
        facing = scene.materials.mirror[hits.material[polished]]
        cosine = hits.cosine[polished][:, None]
        share = facing + np.minimum(1 - facing, 10 * facing) * (1 - cosine[:, 0]) ** 5
        towards = 2 * cosine * hits.normal[polished] - hits.to_viewer[polished]
        towards += rng.normal(0, 0.012, towards.shape)
        light = incoming_radiance(scene, hits.offset_point[polished],
                                  np.asarray(towards, np.float32), rng, mirrored=True)
        radiance[polished] = share[:, None] * np.minimum(light, 20)
    return radiance
