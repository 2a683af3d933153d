"""
Render many frames of random places into shards.

    python -m scenes.bulk --out frames/train --count 18176 --seed 21
"""
from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
import json
import multiprocessing
from pathlib import Path

import numpy as np

from marigold_ros.data import shards
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.progress import progress_bar, ProgressBar
from scenes.assets import AssetLibrary, read_library
from scenes.cameras import sample_camera
from scenes.draws import pick
from scenes.places import sample_scene
from scenes.render import render
from scenes.scene_types import BULK, RenderedFrame, Scene
from scenes.worlds import sample_world

VIEWS_PER_SCENE = 4
# Share of the scenes that are worlds of the asset library, if it has any.
WORLD_SHARE = 0.08

Frames = list[tuple[str, RenderedFrame]]


def render_scene(index: int, *, seed: int, width: int, height: int,
                 world: Path | None = None, assets: Path | None = None) -> Frames:
    """
    Render all views of one scene.

    Parameters
    ----------
    index : int
        Number of the scene; its first frame has the number `index * VIEWS_PER_SCENE`.
    seed : int
    width, height : int
        Pixels.
    world : Path or None
        Mesh worlds to render instead of generated places, see `worlds.sample_world`.
    assets : Path or None
        Folder of public textures, meshes and worlds to mix in, see `assets.read_library`.

    Returns
    -------
    list of (str, RenderedFrame)
        Kind of place and frame; the same arguments give the same frames.
    """
    rng = np.random.default_rng([seed, index])
    scene = (_sample_scene(rng, None if assets is None else read_library(assets))
             if world is None else sample_world(world, rng, BULK.texture_size))
    frames: Frames = []
    for view in range(VIEWS_PER_SCENE):
        rng = np.random.default_rng([seed, index, view + 1])
        camera = sample_camera(scene, rng, (width, height))
        frames.append((scene.place, render(scene, camera, BULK)))
    return frames


def _sample_scene(rng: np.random.Generator, library: AssetLibrary | None) -> Scene:
    """Sample a place, or in a share of the cases a world of the library if it has any."""
    if library is not None and library.worlds and rng.random() < WORLD_SHARE:
        file = pick(rng, library.worlds)
        return sample_world(file, rng, BULK.texture_size)
    return sample_scene(rng, assets=library)


def render_frames(out: Path, count: int, *, width: int, height: int, seed: int, first: int = 0,
                  workers: int = 1, world: Path | None = None,
                  assets: Path | None = None) -> None:
    """
    Render frames into shards; skip shards that are already complete.

    Parameters
    ----------
    out : Path
        Folder of the shards; created if it does not exist.
    count : int
        Number of frames.
    width, height : int
        Pixels.
    seed : int
        Seed of the scenes.
    first : int
        Number of the first frame, a multiple of 256.
    workers : int
        Number of processes; the frames do not depend on it.
    world : Path or None
        Mesh worlds to render instead of generated places, see `worlds.sample_world`.
    assets : Path or None
        Folder of public textures, meshes and worlds to mix in, see `assets.read_library`.

    Raises
    ------
    MarigoldError
        If `first` is not a multiple of 256, `world` and `assets` are both given, the assets
        cannot be read, or `out` has shards that were rendered with other assets.
    """
    if first % shards.FRAMES_PER_SHARD:
        raise MarigoldError(f'`first` must be a multiple of {shards.FRAMES_PER_SHARD}; '
                            f'got {first}')
    if world is not None and assets is not None:
        raise MarigoldError(f'`assets` must not be given together with `world`, which replaces '
                            f'all places; got {str(assets)!r} and {str(world)!r}')
    fingerprint = None if assets is None else read_library(assets).fingerprint()
    out.mkdir(parents=True, exist_ok=True)
    _check_assets(out, fingerprint)
    shards.write_description(out, {
        'seed': seed, 'width': width, 'height': height, 'views_per_scene': VIEWS_PER_SCENE,
        'frames_per_shard': shards.FRAMES_PER_SHARD,
        'world': None if world is None else world.name,
        **({} if fingerprint is None else {'assets': fingerprint}),
        'versions': {name: version(name) for name in ('numpy', 'embreex', 'trimesh')}})
    starts = range(first, first + count, shards.FRAMES_PER_SHARD)
    todo = [(s, min(s + shards.FRAMES_PER_SHARD, first + count)) for s in starts
            if not shards.shard_is_complete(out, s // shards.FRAMES_PER_SHARD)]
    numbers = [i for start, end in todo
               for i in range(start // VIEWS_PER_SCENE, -(-end // VIEWS_PER_SCENE))]
    work = partial(render_scene, seed=seed, width=width, height=height, world=world,
                   assets=assets)
    total = sum(end - start for start, end in todo)
    with multiprocessing.get_context('spawn').Pool(workers) as pool, progress_bar(
            total=total, unit='frame', smoothing=0.05) as progress:
        finished = pool.imap(work, numbers)
        for start, end in todo:
            _write_shard(out, start, _collect_frames(finished, end - start, progress))


def _check_assets(out: Path, fingerprint: dict[str, str] | None) -> None:
    """Raise an error if the folder has shards of other assets."""
    description = out / shards.DESCRIPTION
    if description.exists() and any(out.glob('rgb_*.npy')):
        before = json.loads(description.read_text()).get('assets')
        if before != fingerprint:
            raise MarigoldError(f'`assets` must be those of the shards in {str(out)!r}, '
                                f'{before}; got {fingerprint}')


def _collect_frames(scenes: Iterator[Frames], count: int, progress: ProgressBar) -> Frames:
    """Collect the next `count` frames; drop the last scene's surplus frames."""
    collected: Frames = []
    while len(collected) < count:
        frames = next(scenes)[:count - len(collected)]
        collected += frames
        progress.update(len(frames))
    return collected


def _write_shard(out: Path, start: int, frames: Frames) -> None:
    shards.write_shard(out, start // shards.FRAMES_PER_SHARD,
                       np.stack([f.rgb for _, f in frames]),
                       np.stack([f.depth_m for _, f in frames]),
                       np.stack([f.K for _, f in frames]), [place for place, _ in frames], start)


def main() -> None:
    """Parse the command line and render the frames."""
    parser = argparse.ArgumentParser(description='Render synthetic frames with exact depth.')
    parser.add_argument('--out', type=Path, required=True, help='folder for the shards')
    parser.add_argument('--count', type=int, required=True, help='number of frames to render')
    parser.add_argument('--width', type=int, default=256)
    parser.add_argument('--height', type=int, default=192)
    parser.add_argument('--seed', type=int, default=0, help='seed of the scenes')
    parser.add_argument('--first', type=int, default=0, help='number of the first frame')
    parser.add_argument('--workers', type=int, default=2, help='number of processes')
    parser.add_argument('--world', type=Path,
                        help='mesh worlds (Gazebo .world, meshes) instead of generated places')
    parser.add_argument('--assets', type=Path,
                        help='folder of the public collections listed in scenes/assets.yaml')
    a = parser.parse_args()
    render_frames(a.out, a.count, width=a.width, height=a.height, seed=a.seed, first=a.first,
                  workers=a.workers, world=a.world, assets=a.assets)


if __name__ == '__main__':
    main()
