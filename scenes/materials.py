"""A scene's materials: textures with mip levels in one atlas, and the palette behind them."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from scenes import noise, textures
from scenes.meshes import Floats, Ints

_SRGB = np.arange(256) / 255.0
_LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92,
                   ((_SRGB + 0.055) / 1.055) ** 2.4).astype(np.float32)


@dataclass(frozen=True)
class Materials:
    """
    Table of materials and the textures they use.

    Attributes
    ----------
    texels : [p,3] uint8
        All mip levels of all textures, sRGB, row after row, the finest first.
    size : int
        Pixels a side of the finest level, a power of two.
    texture : [m] int32
        Texture of each material.
    tint : [m,3] float32
        Linear factor on the texture.
    tile_m : [m] float32
        Side of one tile, m.
    mirror : [m] float32
        Share of light reflected as by a mirror, seen face on (0.04: polished, dielectric).
    gloss : [m] float32
        Strength of the broad highlight of lights.
    emission : [m,3] float32
        Radiance given off, linear.
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
        Look the textures up, filtered to the size of what a ray covers.

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
        Average each material over its texture.

        Returns
        -------
        [m,3] float32
            Linear reflectance.
        """
        per_texture, starts = _layout(self.size)
        return np.asarray(_LINEAR[self.texels[self.texture * per_texture + starts[-1]]]
                          * self.tint, np.float32)


def _layout(size: int) -> tuple[int, Ints]:
    """Texels of one texture with all its levels, and where each level starts."""
    sides = [size >> i for i in range(int(np.log2(size)) + 1)]
    starts = np.concatenate([[0], np.cumsum([s * s for s in sides])])
    return int(starts[-1]), starts[:-1].astype(np.int32)


def _mips(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    levels = [image]
    while len(levels[-1]) > 1:
        half = len(levels[-1]) // 2
        levels.append(np.asarray(cv2.resize(levels[-1], (half, half),
                                            interpolation=cv2.INTER_AREA), np.uint8))
    return np.concatenate([level.reshape(-1, 3) for level in levels])


@dataclass(frozen=True)
class _Recipe:
    """How a kind of material is made: texture, tile size range (m), shine, how many variants."""

    texture: str
    tile_m: tuple[float, float]
    mirror: float = 0.0
    gloss: float = 0.0
    variants: int = 1
    tint: Callable[[np.random.Generator], Floats] | None = None


def _steel(rng: np.random.Generator) -> Floats:
    shine = rng.uniform(0.25, 0.9)
    return np.asarray(shine * noise.hsv(0.1, rng.uniform(0, 0.12), 1), np.float32)


def _pale(rng: np.random.Generator) -> Floats:
    return np.asarray(noise.warm_white(rng) ** 2, np.float32)


def _vivid(rng: np.random.Generator) -> Floats:
    return np.asarray(noise.any_colour(rng, 0.95) ** 2, np.float32)


def _cover(rng: np.random.Generator) -> Floats:
    # Book cloth: mostly reds, browns, creams and blues.
    hue = float(rng.choice([0.0, 0.02, 0.07, 0.1, 0.13, 0.35, 0.56, 0.6, 0.63, 0.95]))
    colour = noise.hsv((hue + rng.normal(0, 0.015)) % 1, 0.75 * rng.random(),
                       rng.uniform(0.15, 0.95))
    return np.asarray(colour ** 2, np.float32)


def _white(rng: np.random.Generator) -> Floats:
    return np.full(3, rng.uniform(0.7, 0.9), np.float32)


def _dark(rng: np.random.Generator) -> Floats:
    return np.full(3, rng.uniform(0.01, 0.06), np.float32)


_RECIPES: dict[str, _Recipe] = {
    'wood': _Recipe('wood', (0.6, 1.2), 0.01, 0.1, 3),
    'planks': _Recipe('planks', (1.0, 2.2), 0.03, 0.2),
    'tiles': _Recipe('tiles', (0.8, 2.4), 0.04, 0.3, 2),
    'brick': _Recipe('brick', (0.9, 1.3)),
    'plaster': _Recipe('plaster', (1.5, 3.0), variants=2),
    'wallpaper': _Recipe('wallpaper', (0.6, 1.6)),
    'carpet': _Recipe('carpet', (0.6, 1.5)),
    'rug': _Recipe('rug', (1, 1), variants=2),
    'fabric': _Recipe('fabric', (0.35, 0.9), variants=4),
    'leather': _Recipe('leather', (0.4, 0.8), 0.01, 0.25, 2),
    'marble': _Recipe('marble', (0.8, 1.6), 0.05, 0.4, 1),
    'granite': _Recipe('granite', (0.4, 0.9), 0.04, 0.3),
    'concrete': _Recipe('concrete', (2.0, 4.0), 0.0, 0.05, 2),
    'asphalt': _Recipe('asphalt', (2.0, 4.0)),
    'paving': _Recipe('paving', (1.2, 2.5), variants=2),
    'grass': _Recipe('grass', (1.5, 3.0)),
    'leaf': _Recipe('leaf', (0.1, 0.2), 0.0, 0.1, 2),
    'bark': _Recipe('wood', (0.4, 0.6)),
    'cardboard': _Recipe('cardboard', (1, 1), variants=3),
    'packaging': _Recipe('packaging', (1, 1), 0.01, 0.15, 6),
    'picture': _Recipe('picture', (1, 1), 0.01, 0.0, 4),
    'screen': _Recipe('screen', (1, 1), 0.02, 0.0, 1),
    'facade': _Recipe('facade', (1, 1), 0.0, 0.0, 6),
    'fridge': _Recipe('fridge', (1, 1), 0.02, 0.2),
    'rust': _Recipe('rust', (0.8, 1.6), 0.01, 0.2, 3),
    'metal': _Recipe('brushed', (0.3, 0.6), 0.25, 0.5, 3, _steel),
    'paint': _Recipe('plain', (0.5, 1.0), 0.01, 0.1, 8, _pale),
    'plastic': _Recipe('plain', (0.3, 0.6), 0.03, 0.3, 12, _vivid),
    'ceramic': _Recipe('plain', (0.3, 0.6), 0.05, 0.5, 4, _pale),
    'black': _Recipe('plain', (0.3, 0.6), 0.04, 0.4, 2, _dark),
    'book': _Recipe('book', (1, 1), 0.0, 0.05, 24, _cover),
    'paper': _Recipe('plain', (0.5, 0.6), 0.0, 0.0, 2, _white),
}
# Tinted materials share this many baked textures, so a hundred colours stay cheap.
_SHARED_TEXTURES = {'plain': 2, 'brushed': 1, 'book': 3}


class Palette:
    """
    Collects the materials of one scene while its objects are made.

    Parameters
    ----------
    rng : numpy.random.Generator
    texture_size : int
        Pixels a side of each texture, a power of two.
    """

    def __init__(self, rng: np.random.Generator, texture_size: int) -> None:
        self._rng = rng
        self._size = texture_size
        self._pool: dict[str, list[int]] = {}
        self._shared: dict[str, list[int]] = {}
        self._images: list[NDArray[np.uint8]] = []
        self._rows: list[tuple[int, Floats, float, float, float, Floats]] = []

    def get(self, kind: str) -> int:
        """
        Pick one of the scene's materials of a kind, making new ones until it has its variety.

        Parameters
        ----------
        kind : str
            Such as 'wood', 'fabric', 'plastic'.

        Returns
        -------
        int
            Material index.
        """
        pool = self._pool.setdefault(kind, [])
        if len(pool) < _RECIPES[kind].variants:
            pool.append(self._make(kind))
            return pool[-1]
        return pool[int(self._rng.integers(len(pool)))]

    def one_of(self, *kinds: str) -> int:
        """
        Pick a material of one of several kinds.

        Returns
        -------
        int
            Material index.
        """
        return self.get(str(self._rng.choice(kinds)))

    def solid(self, rgb: ArrayLike, *, mirror: float = 0.0, gloss: float = 0.0) -> int:
        """
        Add a plain material of a given linear colour.

        Returns
        -------
        int
            Material index.
        """
        return self._add(self._texture('plain'), np.asarray(rgb, np.float32) / 0.85, 0.7, mirror,
                         gloss, np.zeros(3, np.float32))

    def photo(self, image: NDArray[np.uint8]) -> int:
        """
        Add a material that a picture of any size covers once, over texture coordinates 0..1.

        Parameters
        ----------
        image : [h,w,3] uint8
            sRGB, the first row at v = 1.

        Returns
        -------
        int
            Material index.
        """
        self._images.append(np.asarray(cv2.resize(
            image, (self._size, self._size), interpolation=cv2.INTER_AREA), np.uint8))
        return self._add(len(self._images) - 1, np.ones(3, np.float32), 1.0, 0.0, 0.1,
                         np.zeros(3, np.float32))

    def light(self, radiance: ArrayLike, texture: str = 'plain') -> int:
        """
        Add a material that gives off light of the given linear radiance.

        Returns
        -------
        int
            Material index.
        """
        return self._add(self._texture(texture), np.full(3, 0.8, np.float32), 1.0, 0.0, 0.0,
                         np.asarray(radiance, np.float32))

    def build(self) -> Materials:
        """
        Close the palette.

        Returns
        -------
        Materials
        """
        columns = list(zip(*self._rows))
        return Materials(
            texels=np.concatenate([_mips(image) for image in self._images]), size=self._size,
            texture=np.array(columns[0], np.int32), tint=np.array(columns[1], np.float32),
            tile_m=np.array(columns[2], np.float32), mirror=np.array(columns[3], np.float32),
            gloss=np.array(columns[4], np.float32), emission=np.array(columns[5], np.float32))

    def _make(self, kind: str) -> int:
        recipe = _RECIPES[kind]
        tint = np.ones(3, np.float32) if recipe.tint is None else recipe.tint(self._rng)
        tile = float(self._rng.uniform(*recipe.tile_m))
        shine = float(self._rng.uniform(0.3, 1.4))
        return self._add(self._texture(recipe.texture), tint, tile, recipe.mirror * shine,
                         recipe.gloss * shine, np.zeros(3, np.float32))

    def _add(self, texture: int, tint: Floats, tile_m: float, mirror: float, gloss: float,
             emission: Floats) -> int:
        self._rows.append((texture, tint, tile_m, mirror, gloss, emission))
        return len(self._rows) - 1

    def _texture(self, kind: str) -> int:
        shared = self._shared.setdefault(kind, [])
        if kind in _SHARED_TEXTURES and len(shared) >= _SHARED_TEXTURES[kind]:
            return shared[int(self._rng.integers(len(shared)))]
        # Its own generator, so that the texture size never changes what is drawn afterwards.
        own = np.random.default_rng(self._rng.integers(1 << 63))
        self._images.append(textures.bake(kind, own, self._size))
        shared.append(len(self._images) - 1)
        return shared[-1]
