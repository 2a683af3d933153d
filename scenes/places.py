"""
Sample a random place of any kind: where the synthetic frames begin.

A frame goes through these modules, in this order:

1. `places` draws a kind of place; `scene_builder` collects its meshes, lights and materials.
2. `interiors` makes rooms, `halls` corridors and warehouses, `tabletops` tables and bins seen
   from above, `streets` the outdoors. `shells` makes the surfaces of a room, with `ceilings` and
   `openings`, behind whose doors other rooms are.
3. `lighting` chooses daylight or lamps; `skies` paints what is outside.
4. Furniture comes from `furniture`, `seats`, `storage`, `kitchens_bathrooms` and `workplaces`;
   `rooms` finds places for it.
5. `strewing` lets hundreds of things rest (`heaps`, by the rays of `resting`), lean, hang and
   drape. They come from `clutter`, `household`, `stacks`, `people` and the `*_things`, and from
   the meshes of `assets`.
6. All are built of `meshes` and `bodies` with `materials`, whose `textures` are drawn by
   `surfaces` and `prints` or are `photos`.
7. `cameras` draws a pose and a `sensor`; `render` traces `rays` and their `shading`, also through
   `glass`, and develops the image in `sensor`. `bulk` writes the frames into shards.

::

    import numpy as np
    from scenes.cameras import sample_camera
    from scenes.places import sample_scene
    from scenes.render import render

    rng = np.random.default_rng(0)
    scene = sample_scene(rng, texture_size=32)
    frame = render(scene, sample_camera(scene, rng, (64, 48)))
    print(scene.place, frame.rgb.shape, frame.depth_m.dtype)

prints ``corridor (48, 64, 3) float32``.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scenes import halls, interiors, streets, tabletops
from scenes.assets import AssetLibrary
from scenes.draws import pick_by_share
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import BULK, Scene

# Function that makes each kind of place, and its share of the sampled scenes.
PLACES: dict[str, tuple[Callable[[SceneBuilder], Scene], float]] = {
    'room': (interiors.sample_room, 0.60),
    'corridor': (halls.sample_corridor, 0.10),
    'warehouse': (halls.sample_warehouse, 0.06),
    'table_top': (tabletops.sample_tabletop, 0.10),
    'bin': (tabletops.sample_bin, 0.04),
    'street': (streets.sample_street, 0.10)}


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
    make = pick_by_share(rng, dict(PLACES.values()))
    return make(SceneBuilder(rng, texture_size, assets, pooled=True))
