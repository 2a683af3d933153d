"""Scenes that change: things that move, and a lamp that goes on."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scenes import rays, render
from scenes.meshes import Floats, join, Mesh, normalize
from scenes.scene_types import RenderCamera, Scene


@dataclass(frozen=True)
class Placement:
    """A pose of a thing in the map frame: `Mesh.moved` takes its fields; m and radians."""

    xyz: tuple[float, float, float]
    yaw: float = 0.0
    tilt: float = 0.0


@dataclass(frozen=True)
class MovingThing:
    """
    A thing that moves at constant speed from one placement to another.

    Attributes
    ----------
    name : str
    mesh : Mesh
        About its own origin.
    start_s, end_s : float
        When it moves, s.
    start, end : Placement
    stays : bool
        Whether it is there before and after it moves, too.
    stride : Mesh or None
        The same triangles as in `mesh` after one step, between which a walking figure swings.
    steps : float
        Number of steps on the way.
    """

    name: str
    mesh: Mesh
    start_s: float
    end_s: float
    start: Placement
    end: Placement
    stays: bool = False
    stride: Mesh | None = None
    steps: float = 0.0

    def mesh_at(self, t_s: float) -> Mesh | None:
        """
        Return the thing at a time, in the map frame; None while it is not there.

        Returns
        -------
        Mesh or None
        """
        share = (t_s - self.start_s) / (self.end_s - self.start_s)
        if not self.stays and not 0.0 <= share <= 1.0:
            return None
        share = min(max(share, 0.0), 1.0)
        mesh = self.mesh
        if self.stride is not None:
            swing = 0.5 - 0.5 * np.cos(np.pi * self.steps * share)
            mesh = _blend(mesh, self.stride, float(swing))
        a, b = ((*each.xyz, each.yaw, each.tilt) for each in (self.start, self.end))
        x, y, z, yaw, tilt = (float(p + share * (q - p)) for p, q in zip(a, b))
        return mesh.moved((x, y, z), yaw, tilt)


@dataclass(frozen=True)
class MovingScene:
    """
    A place with moving things and a lamp.

    Attributes
    ----------
    dark, lit : Scene
        All that stands still, before and after the lamp goes on.
    lamp_s : float
        When the lamp goes on, s.
    things : tuple of MovingThing
    """

    dark: Scene
    lit: Scene
    lamp_s: float
    things: tuple[MovingThing, ...]

    def at(self, t_s: float) -> Scene:
        """
        Return the scene at a time.

        Returns
        -------
        Scene
        """
        standing = self.lit if t_s >= self.lamp_s else self.dark
        there = [mesh for thing in self.things if (mesh := thing.mesh_at(t_s)) is not None]
        return replace(standing, mesh=join([standing.mesh, *there]))

    def bounds(self, name: str, t_s: float) -> Floats | None:
        """
        Return the corners of the axis-aligned box of a thing; None while it is not there.

        Returns
        -------
        [2,3] float32 or None
        """
        mesh = self._thing(name).mesh_at(t_s)
        return None if mesh is None else mesh.bounds

    def visible_pixels(self, name: str, t_s: float, camera: RenderCamera) -> NDArray[np.bool_]:
        """
        Find the pixels at whose centres a thing is seen.

        Returns
        -------
        [H,W] bool
        """
        seen = np.zeros(camera.height * camera.width, bool)
        if self._thing(name).mesh_at(t_s) is not None:
            y, x = (a.ravel().astype(np.float32)
                    for a in np.indices((camera.height, camera.width)))
            directions = render.pixel_rays(camera, x, y)
            origins = np.repeat(camera.position[None].astype(np.float32), len(directions), 0)
            hits = rays.trace(self.at(t_s), origins, directions)
            mine = self._triangles(name, t_s)
            seen[hits.ray[(hits.triangle >= mine.start) & (hits.triangle < mine.stop)]] = True
        return seen.reshape(camera.height, camera.width)

    def _thing(self, name: str) -> MovingThing:
        return next(thing for thing in self.things if thing.name == name)

    def _triangles(self, name: str, t_s: float) -> range:
        """Return the rows of a thing's triangles in the mesh of the scene."""
        first = len(self.dark.mesh.triangles)
        for thing in self.things:
            mesh = thing.mesh_at(t_s)
            count = 0 if mesh is None else len(mesh.triangles)
            if thing.name == name:
                break
            first += count
        return range(first, first + count)


def _blend(a: Mesh, b: Mesh, share: float) -> Mesh:
    """Return the mesh between two poses of the same triangles; `share` 0 gives `a`."""
    weight = np.float32(share)
    return Mesh(a.triangles + weight * (b.triangles - a.triangles),
                normalize(a.normals + weight * (b.normals - a.normals)), a.uv, a.material)
