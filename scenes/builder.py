"""Collects a scene: pieces on the floor that do not overlap, lights, obstacles, views."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from scenes import rays, shading
from scenes.materials import Palette
from scenes.meshes import Floats, join, Mesh
from scenes.types import Light, Obstacle, Scene, View


class SceneBuilder:
    """
    Gathers the parts of one scene.

    Parameters
    ----------
    rng : numpy.random.Generator
    texture_size : int
        Pixels a side of each texture.
    """

    def __init__(self, rng: np.random.Generator, texture_size: int) -> None:
        self.rng = rng
        self.palette = Palette(rng, texture_size)
        self.lights: list[Light] = []
        self.obstacles: list[Obstacle] = []
        self._parts: list[Mesh] = []
        self._taken: list[Floats] = []

    def add(self, mesh: Mesh, name: str | None = None) -> None:
        """Add a mesh as it stands; with a name it is an obstacle too."""
        self._parts.append(mesh)
        if name is not None:
            low, high = mesh.bounds.astype(float)
            self.obstacles.append(Obstacle(name, (low[0], low[1], low[2]),
                                           (high[0], high[1], high[2])))

    def reserve(self, low: ArrayLike, high: ArrayLike) -> None:
        """Keep a rectangle of the floor, corners [2] in metres, free of further pieces."""
        self._taken.append(np.asarray([low, high], np.float32))

    def is_free(self, low: ArrayLike, high: ArrayLike) -> bool:
        """Tell whether nothing stands in a rectangle of the floor, corners [2] in metres."""
        a, b = np.asarray(low), np.asarray(high)
        return not any((a < t[1]).all() and (t[0] < b).all() for t in self._taken)

    def place(self, name: str, mesh: Mesh, margin: float = 0.03) -> bool:
        """
        Add a piece where it stands unless something is there already.

        Returns
        -------
        bool
            Whether it was added.
        """
        low, high = mesh.bounds[:, :2]
        if not self.is_free(low - margin, high + margin):
            return False
        self.reserve(low - margin, high + margin)
        self.add(mesh, name)
        return True

    def build(self, place: str, sky: Floats, views: Sequence[View], *,
              sky_irradiates: bool) -> Scene:
        """
        Close the scene and work out its ambient light.

        Parameters
        ----------
        place : str
            Kind of place.
        sky : [h,w,3] float32
        views : sequence of View
        sky_irradiates : bool

        Returns
        -------
        Scene
        """
        def scene(ambient: Floats) -> Scene:
            return Scene(place, mesh, materials, tuple(self.lights), sky, sky_irradiates, ambient,
                         tuple(views), tuple(self.obstacles))

        mesh, materials = join(self._parts), self.palette.build()
        dark = scene(np.zeros(3, np.float32))
        # Light on what random rays from the middle of the place meet, for the later bounces.
        directions = self.rng.standard_normal((400, 3)).astype(np.float32)
        middle = views[0].eye.mean(0)
        hits = rays.trace(dark, np.repeat(middle[None], 400, 0).astype(np.float32), directions)
        samples = [self.rng.random((len(hits.ray), 2), dtype=np.float32) for _ in self.lights]
        gathered = shading.direct(dark, hits, samples, shine=False)[0]
        irradiance = gathered.sum(0) / max(len(gathered), 1)
        if sky_irradiates:
            irradiance = 0.3 * irradiance + np.pi * sky[:len(sky) // 2].mean((0, 1)) * 0.5
        return scene(np.asarray(0.6 * irradiance, np.float32))
