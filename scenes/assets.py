"""
Public textures, meshes and worlds for the synthetic scenes, read from a folder.

The collections, their sources, commits and licences are listed in `assets.yaml`.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
import yaml

from marigold_ros.depth.errors import MarigoldError
from scenes import photos, textures
from scenes.clutter import Maker
from scenes.draws import pick, Rng
from scenes.materials import Palette
from scenes.meshes import join, Mesh
from scenes.models import load_model

LIST = 'assets.yaml'
# Share of the textures of a kind that are photographs, if there are any of this kind.
PHOTO_SHARE = 0.6
# Images of meshes in one scene; further ones are replaced by their mean colour.
MAX_PHOTOS = 8
# Where meshes of a role may be placed: on tables and shelves, or on the floor.
ROLES = ('small', 'floor')
KEYS = {'folder', 'source', 'commit', 'licence', 'textures', 'meshes', 'worlds'}


@dataclass(frozen=True)
class Model:
    """A mesh file, its upward axis, and the range of its longest side, m."""

    file: Path
    up: str
    size_m: tuple[float, float]


@dataclass(frozen=True)
class Collection:
    """
    A checkout of a public collection.

    Attributes
    ----------
    folder : Path
    commit : str
    files : sequence of Path
        The textures, meshes and worlds that the list names.
    """

    folder: Path
    commit: str
    files: Sequence[Path]

    def fingerprint(self) -> str:
        """
        Return the commit and a hash of the names and contents of the files.

        The images and meshes that these refer to are covered by the commit only.

        Returns
        -------
        str
        """
        digest = hashlib.sha256()
        for file in sorted(set(self.files)):
            digest.update(file.relative_to(self.folder).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return f'{self.commit} {digest.hexdigest()[:16]}'


@dataclass(frozen=True)
class AssetLibrary:
    """
    Files of public collections by their role.

    Attributes
    ----------
    textures : mapping of str to sequence of Path
        Photographs by the kind of texture they replace, see `textures.KINDS`.
    models : mapping of str to sequence of Model
        Meshes by role, see `ROLES`.
    worlds : sequence of Path
        Gazebo worlds.
    collections : mapping of str to Collection
        Where the files are from, by the names of their folders.
    """

    textures: Mapping[str, Sequence[Path]]
    models: Mapping[str, Sequence[Model]]
    worlds: Sequence[Path]
    collections: Mapping[str, Collection]

    def fingerprint(self) -> dict[str, str]:
        """
        Read all files, to tell this library from others.

        Returns
        -------
        dict of str to str
            Folder and fingerprint of each collection.
        """
        return {name: each.fingerprint() for name, each in self.collections.items()}

    def texture(self, kind: str, rng: Rng, size: int) -> NDArray[np.uint8] | None:
        """
        Draw a photographic texture.

        Parameters
        ----------
        kind : str
            A key of `textures.KINDS`.
        rng : numpy.random.Generator
        size : int
            Side of the texture, px.

        Returns
        -------
        [size,size,3] uint8 or None
            None in a share of the cases, and if the library has none of this kind.
        """
        files = self.textures.get(kind, ())
        if not files or rng.random() >= PHOTO_SHARE:
            return None
        return photos.make_texture(pick(rng, files), kind, rng, size)

    def makers(self, role: str) -> tuple[Maker, ...]:
        """
        Return a function that makes a random object of a role of `ROLES`; none without meshes.

        Returns
        -------
        tuple of functions
        """
        return (partial(self.make_thing, role),) if self.models.get(role) else ()

    def make_thing(self, role: str, p: Palette, rng: Rng) -> Mesh:
        """
        Make a random object of a role, which must have meshes.

        Returns
        -------
        Mesh
            Centred on the z axis, standing on z = 0.
        """
        models = self.models[role]
        model = pick(rng, models)
        parts = load_model(model.file, model.up, model.size_m, p.size)
        scale = rng.uniform(0.9, 1.1)
        return join([part.to_mesh(
            p.solid(part.colour, gloss=0.1) if part.image is None
            else p.shared_photo(part.image, MAX_PHOTOS)) for part in parts]).scaled(scale)


@lru_cache(maxsize=1)
def read_library(root: Path) -> AssetLibrary:
    """
    Read the library of a folder.

    Parameters
    ----------
    root : Path
        Folder of the collections. If it has an `assets.yaml`, this lists them, else the one next
        to this module.

    Returns
    -------
    AssetLibrary

    Raises
    ------
    MarigoldError
        If the list is malformed, or a collection or its files are missing.
    """
    listing = root / LIST if (root / LIST).exists() else Path(__file__).with_name(LIST)
    content = yaml.safe_load(listing.read_text())
    if not isinstance(content, list) or not content:
        raise MarigoldError(f'`collections` must be a list of at least one collection; '
                            f'{listing} has {content!r}')
    found: dict[str, list[Path]] = {}
    models: dict[str, list[Model]] = {}
    worlds: list[Path] = []
    collections: dict[str, Collection] = {}
    for entry in content:
        folder = _check_collection(entry, root)
        files: list[Path] = []
        for kind, globs in entry.get('textures', {}).items():
            _check_choice('textures', kind, tuple(textures.KINDS))
            photographs = _match(folder, globs)
            found.setdefault(kind, []).extend(photographs)
            files += photographs
        for role, groups in entry.get('meshes', {}).items():
            _check_choice('meshes', role, ROLES)
            read = [model for group in groups for model in _read_models(folder, group)]
            models.setdefault(role, []).extend(read)
            files += [model.file for model in read]
        own_worlds = _match(folder, entry.get('worlds', []))
        worlds += own_worlds
        collections[str(entry['folder'])] = Collection(folder, str(entry['commit']),
                                                       (*files, *own_worlds))
    return AssetLibrary(found, models, tuple(worlds), collections)


def _check_collection(entry: Any, root: Path) -> Path:
    """Check the keys of a collection; return its folder."""
    if not isinstance(entry, dict) or not {'folder', 'source', 'commit', 'licence'} <= set(
            entry) <= KEYS:
        raise MarigoldError(f'`collections` must have folder, source, commit and licence, and no '
                            f'keys but {", ".join(sorted(KEYS))}; got {entry!r}')
    folder = root / str(entry['folder'])
    if not folder.is_dir():
        raise MarigoldError(f'`assets` must hold a folder for every collection of {LIST}; '
                            f'{str(folder)!r} is missing, get it from {entry["source"]}')
    return folder


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise MarigoldError(f'`{name}` must name one of {", ".join(choices)}; got {value!r}')


def _match(folder: Path, globs: Sequence[str]) -> list[Path]:
    """List the files that match globs, in order; each glob must match some."""
    files: list[Path] = []
    for glob in globs:
        matched = sorted(f for f in folder.glob(glob) if f.is_file())
        if not matched:
            raise MarigoldError(f'`files` must match at least one file; {glob!r} matches none in '
                                f'{str(folder)!r}')
        files += [f for f in matched if f not in files]
    return files


def _read_models(folder: Path, group: dict[str, Any]) -> list[Model]:
    """Read a group of meshes: files, size_m and up."""
    up = str(group.get('up', 'z'))
    _check_choice('up', up, ('y', 'z'))
    size = group.get('size_m')
    if not (isinstance(size, list) and len(size) == 2 and 0 < size[0] <= size[1]):
        raise MarigoldError(f'`size_m` must be two positive lengths in ascending order, m; '
                            f'got {size!r}')
    return [Model(file, up, (float(size[0]), float(size[1])))
            for file in _match(folder, group.get('files', []))]
