"""The kinds of materials, and the palette that collects those of one scene."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
import hashlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from scenes import noise, textures
from scenes.draws import pick
from scenes.material_table import Materials, mip_levels
from scenes.meshes import Floats

if TYPE_CHECKING:
    from scenes.assets import AssetLibrary

# Textures of each kind that the scenes of a process share: at 256 px, 0.26 MB each.
_POOL_SIZE = 40


@lru_cache(maxsize=_POOL_SIZE * len(textures.KINDS))
def _pooled_levels(kind: str, number: int, size: int) -> NDArray[np.uint8]:
    """Bake a texture of the pool, which depends on its kind, number and size only."""
    rng = np.random.default_rng([number, *kind.encode()])
    return mip_levels(textures.bake(kind, rng, size))


@dataclass(frozen=True)
class _MaterialSpec:
    """Parameters of a kind of material: texture, tile size range (m), shine, variants, tint."""

    texture: str
    tile_m: tuple[float, float]
    mirror: float = 0.0
    gloss: float = 0.0
    variants: int = 1
    tint: Callable[[np.random.Generator], Floats] | None = None


def _steel_tint(rng: np.random.Generator) -> Floats:
    shine = rng.uniform(0.25, 0.9)
    return np.asarray(shine * noise.hsv(0.1, rng.uniform(0, 0.12), 1), np.float32)


def _pale_tint(rng: np.random.Generator) -> Floats:
    return np.asarray(noise.warm_white(rng) ** 2, np.float32)


def _vivid_tint(rng: np.random.Generator) -> Floats:
    return np.asarray(noise.random_colour(rng, 0.95) ** 2, np.float32)


def _cover_tint(rng: np.random.Generator) -> Floats:
    # Book covers are mostly red, brown, cream and blue.
    hue = float(rng.choice([0.0, 0.02, 0.07, 0.1, 0.13, 0.35, 0.56, 0.6, 0.63, 0.95]))
    colour = noise.hsv((hue + rng.normal(0, 0.015)) % 1, 0.75 * rng.random(),
                       rng.uniform(0.15, 0.95))
    return np.asarray(colour ** 2, np.float32)


def _white_tint(rng: np.random.Generator) -> Floats:
    return np.full(3, rng.uniform(0.7, 0.9), np.float32)


def _dark_tint(rng: np.random.Generator) -> Floats:
    return np.full(3, rng.uniform(0.01, 0.06), np.float32)


def _skin_tint(rng: np.random.Generator) -> Floats:
    # From dark brown to pale: darker skin is redder.
    light = rng.random()
    return np.asarray((0.06 + 0.62 * light, 0.03 + 0.44 * light, 0.018 + 0.34 * light),
                      np.float32)


def _cloth_tint(rng: np.random.Generator) -> Floats:
    # Clothes are dark, white, blue or muted more often than vivid.
    colour = noise.hsv(rng.random(), rng.random() ** 2 * 0.9, rng.uniform(0.1, 0.95))
    return np.asarray(colour ** 2, np.float32)


_MATERIAL_SPECS: dict[str, _MaterialSpec] = {
    'wood': _MaterialSpec('wood', (0.6, 1.2), 0.01, 0.1, 3),
    'planks': _MaterialSpec('planks', (1.0, 2.2), 0.03, 0.2),
    'tiles': _MaterialSpec('tiles', (0.8, 2.4), 0.04, 0.3, 2),
    'brick': _MaterialSpec('brick', (0.9, 1.3)),
    'plaster': _MaterialSpec('plaster', (1.5, 3.0), variants=2),
    'whitewash': _MaterialSpec('whitewash', (1.8, 3.5), 0.0, 0.03, 2),
    'wallpaper': _MaterialSpec('wallpaper', (0.6, 1.6)),
    'carpet': _MaterialSpec('carpet', (0.6, 1.5)),
    'rug': _MaterialSpec('rug', (1, 1), variants=2),
    'fabric': _MaterialSpec('fabric', (0.35, 0.9), variants=4),
    'leather': _MaterialSpec('leather', (0.4, 0.8), 0.01, 0.25, 2),
    'marble': _MaterialSpec('marble', (0.8, 1.6), 0.05, 0.4, 1),
    'granite': _MaterialSpec('granite', (0.4, 0.9), 0.04, 0.3),
    'concrete': _MaterialSpec('concrete', (2.0, 4.0), 0.0, 0.05, 2),
    'asphalt': _MaterialSpec('asphalt', (2.0, 4.0)),
    'paving': _MaterialSpec('paving', (1.2, 2.5), variants=2),
    'grass': _MaterialSpec('grass', (1.5, 3.0)),
    'leaf': _MaterialSpec('leaf', (0.1, 0.2), 0.0, 0.1, 2),
    'bark': _MaterialSpec('wood', (0.4, 0.6)),
    'cardboard': _MaterialSpec('cardboard', (1, 1), variants=3),
    'packaging': _MaterialSpec('packaging', (1, 1), 0.01, 0.15, 6),
    'picture': _MaterialSpec('picture', (1, 1), 0.01, 0.0, 4),
    'screen': _MaterialSpec('screen', (1, 1), 0.02, 0.0, 1),
    'facade': _MaterialSpec('facade', (1, 1), 0.0, 0.0, 6),
    'fridge': _MaterialSpec('fridge', (1, 1), 0.02, 0.2),
    'rust': _MaterialSpec('rust', (0.8, 1.6), 0.01, 0.2, 3),
    'metal': _MaterialSpec('brushed', (0.3, 0.6), 0.25, 0.5, 3, _steel_tint),
    'paint': _MaterialSpec('plain', (0.5, 1.0), 0.01, 0.1, 8, _pale_tint),
    'plastic': _MaterialSpec('plain', (0.3, 0.6), 0.03, 0.3, 12, _vivid_tint),
    'ceramic': _MaterialSpec('plain', (0.3, 0.6), 0.05, 0.5, 4, _pale_tint),
    'black': _MaterialSpec('plain', (0.3, 0.6), 0.04, 0.4, 2, _dark_tint),
    'book': _MaterialSpec('book', (1, 1), 0.0, 0.05, 24, _cover_tint),
    'paper': _MaterialSpec('plain', (0.5, 0.6), 0.0, 0.0, 2, _white_tint),
    'skin': _MaterialSpec('plain', (0.5, 0.6), 0.0, 0.1, 6, _skin_tint),
    'cloth': _MaterialSpec('plain', (0.15, 0.3), 0.0, 0.0, 16, _cloth_tint),
}
# Tinted materials share a few textures to save memory.
_SHARED_TEXTURES = {'plain': 2, 'brushed': 1, 'book': 3}


class Palette:
    """
    Collect the materials of one scene while its objects are built.

    Parameters
    ----------
    rng : numpy.random.Generator
    texture_size : int
        Side of each texture, px, a power of two.
    assets : AssetLibrary or None
        Photographs that replace a share of the procedural textures, and meshes.
    pooled : bool
        Whether to draw textures from a pool, which takes much less time than to bake new ones,
        and to vary their colours.
    """

    def __init__(self, rng: np.random.Generator, texture_size: int,
                 assets: AssetLibrary | None = None, *, pooled: bool = False) -> None:
        self.assets = assets
        self._rng = rng
        self._pooled = pooled
        self._size = texture_size
        self.panes: list[int] = []
        self._pool: dict[str, list[int]] = {}
        self._shared: dict[str, list[int]] = {}
        self._levels: list[NDArray[np.uint8]] = []
        self._photos: dict[bytes, int] = {}
        self._rows: list[tuple[int, Floats, float, float, float, Floats]] = []

    def get(self, kind: str) -> int:
        """
        Return a material of a kind; add new ones until the kind has all its variants.

        Parameters
        ----------
        kind : str
            A key of `_MATERIAL_SPECS`, such as 'wood' or 'plastic'.

        Returns
        -------
        int
            Material index.
        """
        pool = self._pool.setdefault(kind, [])
        if len(pool) < _MATERIAL_SPECS[kind].variants:
            pool.append(self._make(kind))
            return pool[-1]
        return pick(self._rng, pool)

    def one_of(self, *kinds: str) -> int:
        """
        Return a material of a randomly chosen kind.

        Returns
        -------
        int
            Material index.
        """
        return self.get(str(self._rng.choice(kinds)))

    def solid(self, rgb: ArrayLike, *, mirror: float = 0.0, gloss: float = 0.0) -> int:
        """
        Add a plain material of a given linear colour [3].

        Returns
        -------
        int
            Material index.
        """
        return self._add(self._texture('plain'), np.asarray(rgb, np.float32) / 0.85, 0.7, mirror,
                         gloss, np.zeros(3, np.float32))

    def pane(self, rgb: ArrayLike, reflectance: float) -> int:
        """
        Add a material of panes, which transmit and mirror light but are no surfaces themselves.

        Parameters
        ----------
        rgb : [3] float
            Share of the light from behind that passes; 0 for a mirror.
        reflectance : float
            Share of the light from the front that is mirrored at normal incidence.

        Returns
        -------
        int
            Material index.
        """
        self.panes.append(self.solid(rgb, mirror=reflectance))
        return self.panes[-1]

    def photo(self, image: NDArray[np.uint8]) -> int:
        """
        Add a material with an image as texture, over texture coordinates 0..1.

        Parameters
        ----------
        image : [h,w,3] uint8
            sRGB, the first row at v = 1.

        Returns
        -------
        int
            Material index.
        """
        self._levels.append(mip_levels(np.asarray(cv2.resize(
            image, (self._size, self._size), interpolation=cv2.INTER_AREA), np.uint8)))
        return self._add(len(self._levels) - 1, np.ones(3, np.float32), 1.0, 0.0, 0.1,
                         np.zeros(3, np.float32))

    def shared_photo(self, image: NDArray[np.uint8], most: int) -> int:
        """
        Return the material of an image; make it on first use, see `photo`.

        Parameters
        ----------
        image : [h,w,3] uint8
        most : int
            Number of images; any further one is replaced by its mean colour.

        Returns
        -------
        int
            Material index.
        """
        key = hashlib.sha256(image.tobytes()).digest()
        if key not in self._photos:
            mean = (image.reshape(-1, 3).mean(0) / 255) ** 2.2
            self._photos[key] = (self.photo(image) if len(self._photos) < most
                                 else self.solid(mean, gloss=0.1))
        return self._photos[key]

    @property
    def size(self) -> int:
        """
        Return the side of each texture, px.

        Returns
        -------
        int
        """
        return self._size

    def emissive(self, radiance: ArrayLike, texture: str = 'plain') -> int:
        """
        Add a material that emits the given linear radiance [3].

        Returns
        -------
        int
            Material index.
        """
        return self._add(self._texture(texture), np.full(3, 0.8, np.float32), 1.0, 0.0, 0.0,
                         np.asarray(radiance, np.float32))

    def build(self) -> Materials:
        """
        Build the table of all materials added so far.

        Returns
        -------
        Materials
        """
        columns = list(zip(*self._rows))
        return Materials(
            texels=np.concatenate(self._levels), size=self._size,
            texture=np.array(columns[0], np.int32), tint=np.array(columns[1], np.float32),
            tile_m=np.array(columns[2], np.float32), mirror=np.array(columns[3], np.float32),
            gloss=np.array(columns[4], np.float32), emission=np.array(columns[5], np.float32))

    def _make(self, kind: str) -> int:
        spec = _MATERIAL_SPECS[kind]
        tint = np.ones(3, np.float32) if spec.tint is None else spec.tint(self._rng)
        if self._pooled and spec.tint is None:
            shade = self._rng.uniform(0.85, 1.03)
            tint = np.asarray(shade * self._rng.uniform(0.88, 1.03, 3), np.float32)
        tile = float(self._rng.uniform(*spec.tile_m))
        shine = float(self._rng.uniform(0.3, 1.4))
        return self._add(self._texture(spec.texture), tint, tile, spec.mirror * shine,
                         spec.gloss * shine, np.zeros(3, np.float32))

    def _add(self, texture: int, tint: Floats, tile_m: float, mirror: float, gloss: float,
             emission: Floats) -> int:
        self._rows.append((texture, tint, tile_m, mirror, gloss, emission))
        return len(self._rows) - 1

    def _texture(self, kind: str) -> int:
        shared = self._shared.setdefault(kind, [])
        if kind in _SHARED_TEXTURES and len(shared) >= _SHARED_TEXTURES[kind]:
            return pick(self._rng, shared)
        # A separate generator, so that later draws do not depend on the texture size.
        seed = int(self._rng.integers(1 << 63))
        self._levels.append(self._levels_of(kind, seed))
        shared.append(len(self._levels) - 1)
        return shared[-1]

    def _levels_of(self, kind: str, seed: int) -> NDArray[np.uint8]:
        """Return a texture with its mip levels: a photograph, one of the pool, or a new one."""
        own = np.random.default_rng(seed)
        photo = None if self.assets is None else self.assets.texture(kind, own, self._size)
        if photo is not None:
            return mip_levels(photo)
        if self._pooled:
            return _pooled_levels(kind, seed % _POOL_SIZE, self._size)
        return mip_levels(textures.bake(kind, own, self._size))
