"""Tests of public assets in the scenes: use, determinism, errors, no change without them."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
import pytest
import trimesh
import yaml

from marigold_ros.data import shards
from marigold_ros.depth.errors import MarigoldError
from scenes import assets, bulk, clutter, interiors, models, photos, places
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.scene_builder import SceneBuilder

ENTRY: dict[str, Any] = {'folder': 'shop', 'source': 'https://example.org/shop', 'commit': 'abc',
                         'licence': 'CC0-1.0'}
WORLD = ('<sdf><world name="default"><model name="m"><link name="l"><visual name="v">'
         '<geometry><mesh><uri>file://crate.glb</uri></mesh></geometry></visual></link></model>'
         '</world></sdf>')


def write_assets(root: Path, **changes: Any) -> Path:
    """Write a collection of a red photograph, a textured crate of 2 m and a world of it."""
    shop = root / 'shop'
    shop.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 40, (50, 70, 1))
    Image.fromarray((noise + [200, 0, 0]).astype(np.uint8)).save(shop / 'red.png')
    crate = trimesh.creation.box((2.0, 1.0, 1.0))
    uv = np.tile([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], (2, 1))
    picture = Image.fromarray(np.full((8, 8, 3), (0, 0, 255), np.uint8))
    crate.visual = trimesh.visual.TextureVisuals(
        uv, material=trimesh.visual.material.PBRMaterial(baseColorTexture=picture))
    crate.export(shop / 'crate.glb')
    (shop / 'yard.world').write_text(WORLD)
    entry = {**ENTRY, 'textures': {'screen': ['*.png'], 'concrete': ['red.png']},
             'meshes': {'small': [{'files': ['crate.glb'], 'size_m': [0.1, 0.4]}]},
             'worlds': ['*.world'], **changes}
    (root / 'assets.yaml').write_text(yaml.safe_dump([entry]))
    return root


def read(root: Path, **changes: Any) -> assets.AssetLibrary:
    """Write and read a library, not the one cached for the same folder."""
    assets.read_library.cache_clear()
    return assets.read_library(write_assets(root, **changes))


def make_palette(library: assets.AssetLibrary | None) -> Palette:
    return SceneBuilder(np.random.default_rng(0), 16, library).palette


def test_a_share_of_the_textures_of_a_kind_are_its_photographs(tmp_path: Path) -> None:
    library, rng = read(tmp_path), np.random.default_rng(0)
    drawn = [library.texture('concrete', rng, 16) for _ in range(200)]
    used = [image for image in drawn if image is not None]
    assert 0.5 < len(used) / len(drawn) < 0.7
    assert all(image[..., 0].mean() > 4 * image[..., 1].mean() for image in used)
    assert library.texture('wood', rng, 16) is None


def test_a_palette_uses_photographs_and_bakes_the_rest(tmp_path: Path) -> None:
    palette = make_palette(read(tmp_path))
    for _ in range(2):
        palette.get('concrete')
    mean = palette.build().mean_albedo()
    red = mean[:, 0] > 4 * mean[:, 1]
    assert red.any()
    palette.get('wood')


def test_textures_of_photographs_tile() -> None:
    ramp = np.repeat(np.linspace(0, 255, 90)[None, :, None], 90, axis=0)
    image = np.broadcast_to(ramp, (90, 90, 3)).astype(np.uint8)
    tile = photos._blend_edges(image, 64).astype(float)
    steps = np.abs(np.diff(tile[:, :, 0], axis=1)).max()
    assert np.abs(tile[:, 0, 0] - tile[:, -1, 0]).max() <= steps < 60
    assert not photos._is_seamless(image) and photos._is_seamless(image[:, :1].repeat(90, 1))


def test_a_mesh_stands_upright_at_its_size(tmp_path: Path) -> None:
    library = read(tmp_path, meshes={'small': [
        {'files': ['crate.glb'], 'size_m': [0.1, 0.4], 'up': 'y'}]})
    mesh = library.make_thing('small', make_palette(library), np.random.default_rng(0))
    size = mesh.bounds[1] - mesh.bounds[0]
    # The crate of 2 m is scaled to 0.4 m, then by 0.9 to 1.1.
    assert 0.36 <= size[0] <= 0.44 and size[2] == pytest.approx(size[0] / 2, rel=1e-5)
    np.testing.assert_allclose(mesh.bounds[0][2], 0, atol=1e-6)
    np.testing.assert_allclose(mesh.bounds[:, :2].mean(0), 0, atol=1e-6)


def test_an_axis_up_of_y_is_turned_to_z(tmp_path: Path) -> None:
    trimesh.creation.box((0.1, 0.3, 0.1)).export(tmp_path / 'tower.stl')
    parts = models.load_model(tmp_path / 'tower.stl', 'y', (0.1, 0.4), 16)
    assert np.ptp(parts[0].triangles[..., 2]) == pytest.approx(0.3, rel=1e-5)


def test_detailed_meshes_are_simplified_and_keep_their_shape(tmp_path: Path) -> None:
    trimesh.creation.icosphere(subdivisions=5, radius=0.1).export(tmp_path / 'ball.stl')
    part, = models.load_model(tmp_path / 'ball.stl', 'z', (0.1, 0.4), 16)
    assert len(part.triangles) < 0.6 * 20480
    radius = np.linalg.norm(part.triangles.reshape(-1, 3) - [0, 0, 0.1], axis=-1)
    assert radius.min() > 0.096 and radius.max() < 0.101
    assert (np.einsum('ijk,ijk->ij', part.normals, part.triangles - np.float32(
        [0, 0, 0.1])) > 0).all()


def test_meshes_beyond_the_limit_of_images_have_their_mean_colour() -> None:
    palette = make_palette(None)
    images = [np.full((16, 16, 3), value, np.uint8) for value in (10, 200)]
    first = palette.shared_photo(images[0], 1)
    assert palette.shared_photo(images[0], 1) == first
    second = palette.shared_photo(images[1], 1)
    built = palette.build()
    assert len(built.texels) == 2 * 341  # one image and the texture of plain colours
    assert built.mean_albedo()[second].mean() > 10 * built.mean_albedo()[first].mean()


def test_scattered_objects_include_meshes_of_the_library(tmp_path: Path) -> None:
    palette, rng = make_palette(read(tmp_path)), np.random.default_rng(1)
    placed = clutter.scatter(palette, rng, (clutter.plate,), 3.0, 3.0, 20)
    crates = [mesh for mesh in placed if len(mesh.triangles) == 12]
    assert 0 < len(crates) < len(placed)


def test_frames_depend_on_assets_and_seed_and_not_on_workers(tmp_path: Path) -> None:
    root = write_assets(tmp_path / 'assets')
    for name, workers, folder in (('a', 1, root), ('b', 2, root), ('c', 1, None)):
        bulk.render_frames(tmp_path / name, 8, width=32, height=24, seed=1, workers=workers,
                           assets=folder)
    a, b, c = (shards.read_shards(tmp_path / name)[0] for name in 'abc')
    assert (a.rgb == b.rgb).all() and (a.depth_m == b.depth_m).all() and a.place == b.place
    assert not (a.rgb == c.rgb).all()
    described = json.loads((tmp_path / 'a' / 'shards.json').read_text())['assets']
    assert described['shop'].startswith('abc ')
    assert 'assets' not in json.loads((tmp_path / 'c' / 'shards.json').read_text())


def test_a_share_of_the_scenes_are_worlds_of_the_library(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_assets(tmp_path)
    assets.read_library.cache_clear()
    monkeypatch.setattr(bulk, 'WORLD_SHARE', 1.0)
    frames = bulk.render_scene(0, seed=0, width=16, height=12, assets=root)
    assert {place for place, _ in frames} == {'yard'}
    monkeypatch.setattr(bulk, 'WORLD_SHARE', 0.0)
    frames = bulk.render_scene(0, seed=0, width=16, height=12, assets=root)
    assert {place for place, _ in frames} <= {*places.PLACES, *interiors.KINDS}


def test_shards_are_resumed_only_with_the_same_listed_assets(tmp_path: Path) -> None:
    root, out = write_assets(tmp_path / 'assets'), tmp_path / 'out'
    assets.read_library.cache_clear()
    bulk.render_frames(out, 4, width=16, height=12, seed=1, assets=root)
    (root / 'shop' / 'notes.txt').write_text('not in the list')
    assets.read_library.cache_clear()
    bulk.render_frames(out, 4, width=16, height=12, seed=1, assets=root)
    Image.new('RGB', (50, 50)).save(root / 'shop' / 'red.png')
    assets.read_library.cache_clear()
    with pytest.raises(MarigoldError, match='`assets` must be those of the shards'):
        bulk.render_frames(out, 4, width=16, height=12, seed=1, assets=root)
    with pytest.raises(MarigoldError, match='`assets` must be those of the shards'):
        bulk.render_frames(out, 4, width=16, height=12, seed=1)


def test_assets_and_world_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(MarigoldError, match='`assets` must not be given together with `world`'):
        bulk.render_frames(tmp_path, 4, width=16, height=12, seed=1, world=tmp_path,
                           assets=tmp_path)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'folder': 'gone'}, "`assets` must hold a folder .*gone' is missing, get it from https"),
    ({'textures': {'velvet': ['*.png']}}, "`textures` must name one of .*; got 'velvet'"),
    ({'textures': {'wood': ['*.tif']}}, r"`files` must match at least one file; '\*.tif'"),
    ({'meshes': {'roof': []}}, "`meshes` must name one of small, floor; got 'roof'"),
    ({'meshes': {'small': [{'files': ['crate.glb'], 'size_m': [0.4, 0.1]}]}},
     r'`size_m` must be two positive lengths in ascending order, m; got \[0.4, 0.1\]'),
    ({'meshes': {'small': [{'files': ['crate.glb'], 'size_m': [1, 2], 'up': 'x'}]}},
     "`up` must name one of y, z; got 'x'"),
    ({'colour': 'red'}, '`collections` must have folder, source, commit and licence')])
def test_errors_name_what_is_wrong_in_the_list(
        tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MarigoldError, match=message):
        read(tmp_path, **changes)


def test_a_texture_that_is_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / 'red.png').write_text('no image')
    rng: Rng = np.random.default_rng(0)
    with pytest.raises(MarigoldError, match=r'`textures` must match image files; got .*red\.png'):
        photos.make_texture(tmp_path / 'red.png', 'wood', rng, 16)


def test_the_committed_list_names_every_licence_and_commit() -> None:
    entries = yaml.safe_load(Path(assets.__file__).with_name('assets.yaml').read_text())
    root = Path(assets.__file__).parents[1]
    card = (root / 'marigold_ros/models/tiny/README.md').read_text()
    for entry in entries:
        assert set(entry) <= assets.KEYS and entry['licence'] and len(entry['commit']) == 40
        assert entry['source'].split('github.com/')[1] in card and entry['commit'][:7] in card
