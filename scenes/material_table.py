"""The table of a scene's materials: their shine, and their textures in one atlas."""
from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from scenes.meshes import Floats, Ints

_SRGB = np.arange(256) / 255.0
_LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92,
                   ((_SRGB + 0.055) / 1.055) ** 2.4).astype(np.float32)


@dataclass(frozen=True)
class Materials:
    """
    Table of materials and their textures.

    Attributes
    ----------
    texels : [p,3] uint8
        All mip levels of all textures, sRGB, row by row, finest level first.
    size : int
        Side of the finest level, px, a power of two.
    texture : [m] int32
        Texture of each material.
    tint : [m,3] float32
        Linear factor on the texture.
    tile_m : [m] float32
        Side of one tile, m.
    mirror : [m] float32
        Mirror reflectance at normal incidence (0.04: polished dielectric).
    gloss : [m] float32
        Strength of the broad highlight of lights.
    emission : [m,3] float32
        Emitted linear radiance.
    """

    texels: NDArray[np.uint8]
    size: int
    texture: Ints
    tint: Floats
    tile_m: Floats
    mirror: Floats
    gloss: Floats
    emission: Floats

    def albedo(self, material: Ints, uv: Floats, footprint: Floats) -> Floats:
        """
        Look up the reflectance, filtered to the footprint of a ray.

        Parameters
        ----------
        material : [n] int32
        uv : [n,2] float32
            In the mesh's texture units (metres, or 0..1).
        footprint : [n] float32
            Width that one ray covers, in the units of `uv`.

        Returns
        -------
        [n,3] float32
            Linear reflectance.
        """
        tile = self.tile_m[material]
        depth = int(np.log2(self.size))
        covered = np.maximum(footprint / tile * self.size, 1e-3)
        level = np.clip(np.floor(np.log2(covered) + 0.5), 0, depth).astype(np.int32)
        side = (self.size >> level).astype(np.int32)
        per_texture, starts = _layout(self.size)
        base = self.texture[material] * per_texture + starts[level]
        x = uv[:, 0] / tile * side - 0.5
        y = (1 - uv[:, 1] / tile) * side - 0.5
        x0, y0 = np.floor(x), np.floor(y)
        fx, fy = (x - x0)[:, None], (y - y0)[:, None]
        columns = [(x0.astype(np.int32) + i) & (side - 1) for i in (0, 1)]
        rows = [base + ((y0.astype(np.int32) + i) & (side - 1)) * side for i in (0, 1)]
        corner = [[_LINEAR[self.texels[row + column]] for column in columns] for row in rows]
        upper = corner[0][0] + (corner[0][1] - corner[0][0]) * fx
        lower = corner[1][0] + (corner[1][1] - corner[1][0]) * fx
        return np.asarray((upper + (lower - upper) * fy) * self.tint[material], np.float32)

    def mean_albedo(self) -> Floats:
        """
        Compute the mean reflectance of each material.

        Returns
        -------
        [m,3] float32
            Linear reflectance.
        """
        per_texture, starts = _layout(self.size)
        return np.asarray(_LINEAR[self.texels[self.texture * per_texture + starts[-1]]]
                          * self.tint, np.float32)

    def without_textures(self) -> Materials:
        """
        Return the same materials, each with one colour all over.

        Returns
        -------
        Materials
        """
        levels = self.texels.reshape(-1, _layout(self.size)[0], 3)
        plain = np.repeat(levels[:, -1:], levels.shape[1], axis=1)
        return replace(self, texels=plain.reshape(-1, 3))


def _layout(size: int) -> tuple[int, Ints]:
    """Return the number of texels of a texture with all levels, and the start of each level."""
    sides = [size >> i for i in range(int(np.log2(size)) + 1)]
    starts = np.concatenate([[0], np.cumsum([s * s for s in sides])])
    return int(starts[-1]), starts[:-1].astype(np.int32)


def mip_levels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """
    Return an image [size,size,3] at every resolution down to one pixel, finest first.

    Returns
    -------
    [p,3] uint8
        Row by row.
    """
    levels = [image]
    while len(levels[-1]) > 1:
        half = len(levels[-1]) // 2
        levels.append(np.asarray(cv2.resize(levels[-1], (half, half),
                                            interpolation=cv2.INTER_AREA), np.uint8))
    return np.concatenate([level.reshape(-1, 3) for level in levels])
