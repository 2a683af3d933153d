"""
Entry point of the synthetic scenes: sample a place of any kind, then render it.

::

    import numpy as np
    from scenes.cameras import sample_camera
    from scenes.places import sample_scene
    from scenes.render import render

    rng = np.random.default_rng(0)
    scene = sample_scene(rng, texture_size=32)
    frame = render(scene, sample_camera(scene, rng, (64, 48)))
    print(scene.place, frame.rgb.shape, frame.depth_m.dtype)

prints ``warehouse (48, 64, 3) float32``.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scenes import halls, interiors, roads, tabletops
from scenes.assets import AssetLibrary
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import BULK, Scene

# Function that makes each kind of place, and its share of the sampled scenes.
PLACES: dict[str, tuple[Callable[[SceneBuilder], Scene], float]] = {
    'room': (interiors.sample_room, 0.60),
    'corridor': (halls.sample_corridor, 0.10),
    'warehouse': (halls.sample_warehouse, 0.06),
    'table_top': (tabletops.sample_tabletop, 0.10),
    'bin': (tabletops.sample_bin, 0.04),
    'street': (roads.sample_street, 0.10)}


def sample_scene(rng: np.random.Generator, texture_size: int = BULK.texture_size,
                 assets: AssetLibrary | None = None) -> Scene:
    """
    Sample a scene: a room, corridor, warehouse, table top, bin or street.

    Parameters
    ----------
    rng : numpy.random.Generator
        The same state gives the same scene.
    texture_size : int
        Side of each texture, px, a power of two.
    assets : AssetLibrary or None
        Public textures and meshes to use besides the procedural ones.

    Returns
    -------
    Scene
    """
    names = list(PLACES)
    name = str(rng.choice(names, p=[PLACES[n][1] for n in names]))
    return PLACES[name][0](SceneBuilder(rng, texture_size, assets, pooled=True))
