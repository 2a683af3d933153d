"""Assemble a scene from meshes, lights and views; keep objects on the floor apart."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from scenes import rays, shading
from scenes.materials import Palette
from scenes.meshes import Floats, join, Mesh
from scenes.scene_types import Light, Obstacle, Scene, View

if TYPE_CHECKING:
    from scenes.assets import AssetLibrary

# Lights that a room affords: each costs shadow rays for every pixel.
LIGHTS_MAX = 4


class SceneBuilder:
    """
    Collect the parts of one scene and build it.

    Parameters
    ----------
    rng : numpy.random.Generator
    texture_size : int
        Side of each texture, px.
    assets : AssetLibrary or None
        Public textures and meshes to use besides the procedural ones.
    pooled : bool
        Whether to draw textures from a pool, see `Palette`.
    """

    def __init__(self, rng: np.random.Generator, texture_size: int,
                 assets: AssetLibrary | None = None, *, pooled: bool = False) -> None:
        self.rng = rng
        self.palette = Palette(rng, texture_size, assets, pooled=pooled)
        self.lights: list[Light] = []
        self.obstacles: list[Obstacle] = []
        self._parts: list[Mesh] = []
        self._reserved: list[Floats] = []

    def add(self, mesh: Mesh, name: str | None = None) -> None:
        """Add a mesh at its pose; list it as an obstacle if it has a name."""
        self._parts.append(mesh)
        if name is not None:
            low, high = mesh.bounds.astype(float)
            self.obstacles.append(Obstacle(name, (low[0], low[1], low[2]),
                                           (high[0], high[1], high[2])))

    @property
    def lights_left(self) -> int:
        """Return how many more lights a room affords; negative if it has too many."""
        return LIGHTS_MAX - len(self.lights)

    def mesh_so_far(self) -> Mesh:
        """
        Return everything that was added so far.

        Returns
        -------
        Mesh
        """
        return join(self._parts)

    def reserve(self, low: ArrayLike, high: ArrayLike) -> None:
        """Reserve a rectangle of the floor, lower and upper corner [2], m."""
        self._reserved.append(np.asarray([low, high], np.float32))

    def is_free(self, low: ArrayLike, high: ArrayLike) -> bool:
        """Check that a rectangle of the floor is not reserved, lower and upper corner [2], m."""
        a, b = np.asarray(low), np.asarray(high)
        return not any((a < t[1]).all() and (t[0] < b).all() for t in self._reserved)

    def add_if_free(self, name: str, mesh: Mesh, margin: float = 0.03) -> bool:
        """
        Add an object at its pose and reserve its floor area, if that area is free.

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
        Build the scene and estimate its ambient light.

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
                         tuple(views), tuple(self.obstacles), panes)

        mesh, materials = join(self._parts), self.palette.build()
        clear = np.isin(mesh.material, self.palette.panes)
        panes = mesh.selected(clear) if clear.any() else None
        mesh = mesh.selected(~clear) if clear.any() else mesh
        dark = scene(np.zeros(3, np.float32))
        # The mean light on surfaces that random rays hit approximates the further bounces.
        directions = self.rng.standard_normal((400, 3)).astype(np.float32)
        middle = views[0].eye.mean(0)
        hits = rays.trace(dark, np.repeat(middle[None], 400, 0).astype(np.float32), directions)
        samples = [self.rng.random((len(hits.ray), 2), dtype=np.float32) for _ in self.lights]
        gathered = shading.direct_light(dark, hits, samples, highlights=False)[0]
        irradiance = gathered.sum(0) / max(len(gathered), 1)
        if sky_irradiates:
            irradiance = 0.3 * irradiance + np.pi * sky[:len(sky) // 2].mean((0, 1)) * 0.5
        return scene(np.asarray(0.6 * irradiance, np.float32))
