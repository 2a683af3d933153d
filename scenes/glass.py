"""
Clear panes and mirrors: what they add to an image.

The depth behind a clear pane is that of the surface behind it, as cameras that measure depth see
it. A mirror has a backing, and thus its own depth. Frosted glass is an opaque surface.
"""
from __future__ import annotations

import numpy as np

from scenes import rays, shading
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, Floats, join, Mesh, panel
from scenes.scene_types import Scene


def lay_panes(scene: Scene, glazing: Scene, eye: Floats, directions: Floats, depth_m: Floats,
              radiance: Floats, rng: np.random.Generator) -> Floats:
    """
    Attenuate the light that comes through the nearest pane of each ray and add what it mirrors.

    Parameters
    ----------
    scene : Scene
    glazing : Scene
        The panes alone.
    eye : [3] float32
    directions : [n,3] float32
        Of length 1 along the optical axis.
    depth_m : [n] float32
        Of the surfaces.
    radiance : [n,3] float32
        Without panes.
    rng : numpy.random.Generator

    Returns
    -------
    [n,3] float32
    """
    hits = rays.trace(glazing, np.repeat(eye[None], len(directions), 0), directions)
    near = np.flatnonzero(hits.t < depth_m[hits.ray])
    if not len(near):
        return radiance
    seen, material = hits.ray[near], hits.material[near]
    facing, cosine = scene.materials.mirror[material], hits.cosine[near]
    share = (facing + (1 - facing) * (1 - cosine) ** 5)[:, None]
    towards = np.asarray(2 * cosine[:, None] * hits.normal[near] - hits.to_viewer[near],
                         np.float32)
    start = hits.offset_point[near]
    mirrored = shading.incoming_radiance(scene, start, towards, rng, mirrored=True)
    # Nothing hides the noise of a single sample of each light in a mirror.
    strong = np.flatnonzero(share > 0.3)
    if len(strong):
        more = [shading.incoming_radiance(scene, start[strong], towards[strong], rng,
                                          mirrored=True) for _ in range(3)]
        mirrored[strong] = np.mean([mirrored[strong], *more], axis=0)
    passed = scene.mean_albedo[material] * (1 - share)
    result = np.array(radiance, np.float32)
    result[seen] = radiance[seen] * passed + share * np.minimum(mirrored, 20)
    return result


def clear(p: Palette, rng: Rng) -> int:
    """Return a new material of clear, slightly tinted panes."""
    return p.pane(np.array([0.93, 0.97, 0.95]) * rng.uniform(0.8, 1.0), 0.07)


def frosted(p: Palette, rng: Rng) -> int:
    """Return a new material of frosted glass: an opaque, pale surface with a sheen."""
    return p.solid(np.array([0.6, 0.68, 0.66]) * rng.uniform(0.8, 1.1), mirror=0.04, gloss=0.4)


def mirror(p: Palette, rng: Rng, width: float, height: float) -> Mesh:
    """
    Build a mirror in front of the plane y = 0, centred at x = 0, z = 0, with or without a frame.

    Returns
    -------
    Mesh
    """
    silver = p.pane(np.zeros(3), float(rng.uniform(0.75, 0.92)))
    parts = [box((width, 0.012, height), (0, 0.006, 0), p.get('black')),
             panel((width / 2, 0.014, -height / 2), (-width, 0, 0), (0, 0, height), silver)]
    if rng.random() < 0.6:
        f = rng.uniform(0.015, 0.06)
        parts.append(boxes(
            [[width + 2 * f, 0.03, f]] * 2 + [[f, 0.03, height]] * 2,
            [(0, 0.015, s * (height + f) / 2) for s in (-1, 1)]
            + [(s * (width + f) / 2, 0.015, 0) for s in (-1, 1)],
            p.one_of('wood', 'black', 'metal')))
    return join(parts)
