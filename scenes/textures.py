"""Table of the procedural textures."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scenes import prints, surfaces
from scenes.draws import Rng
from scenes.noise import Image

KINDS: dict[str, Callable[[Rng, int], Image]] = {
    f.__name__: f for f in (
        surfaces.wood, surfaces.planks, surfaces.tiles, surfaces.brick, surfaces.plaster,
        surfaces.wallpaper, surfaces.carpet, surfaces.rug, surfaces.fabric, surfaces.leather,
        surfaces.marble, surfaces.granite, surfaces.concrete, surfaces.asphalt, surfaces.paving,
        surfaces.grass, surfaces.leaf, surfaces.plain, surfaces.brushed, surfaces.rust,
        surfaces.whitewash, prints.cardboard, prints.book, prints.packaging, prints.picture,
        prints.screen, prints.facade, prints.fridge)}


def bake(kind: str, rng: Rng, size: int) -> NDArray[np.uint8]:
    """
    Generate a texture.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    rng : numpy.random.Generator
    size : int
        Side of the texture, px, a power of two.

    Returns
    -------
    [size,size,3] uint8
        sRGB, the first row at v = 1.
    """
    return (np.clip(KINDS[kind](rng, size), 0, 1) * 255 + 0.5).astype(np.uint8)
