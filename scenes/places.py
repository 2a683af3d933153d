"""The door to the synthetic scenes: pick a place of any kind."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scenes import halls, interiors, streets, tabletops
from scenes.types import BULK, Scene

PLACES: dict[str, tuple[Callable[[np.random.Generator, int], Scene], float]] = {
    'room': (interiors.sample_room, 0.52),
    'corridor': (halls.sample_corridor, 0.08),
    'warehouse': (halls.sample_warehouse, 0.10),
    'table_top': (tabletops.sample_tabletop, 0.14),
    'bin': (tabletops.sample_bin, 0.06),
    'street': (streets.sample_street, 0.10)}


def sample_scene(rng: np.random.Generator, texture_size: int = BULK.texture_size) -> Scene:
    """
    Make a place: mostly rooms, also corridors, warehouses, table tops, bins and streets.

    Parameters
    ----------
    rng : numpy.random.Generator
        The same state gives the same scene.
    texture_size : int
        Pixels a side of each texture, a power of two.

    Returns
    -------
    Scene
    """
    names = list(PLACES)
    name = str(rng.choice(names, p=[PLACES[n][1] for n in names]))
    return PLACES[name][0](rng, texture_size)
