"""Tests of the synthetic scenes: depth, meshes, light, determinism, shards, mesh worlds."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
import pytest
import trimesh

from marigold_ros.data import shards
from marigold_ros.depth.errors import MarigoldError
from scenes import (
    bodies,
    bulk,
    cameras,
    meshes,
    places,
    places_overview,
    rays,
    render,
    sensor,
    shading,
    textures,
    warehouse_things,
    worlds,
)
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light, RenderCamera, Scene, View

ORIGIN_VIEW = View(np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))


def make_scene(*parts: meshes.Mesh, lights: tuple[Light, ...] = ()) -> Scene:
    """Make a scene of meshes with material 0, grey of reflectance 0.5."""
    b = SceneBuilder(np.random.default_rng(0), 16)
    b.palette.solid((0.5, 0.5, 0.5))
    for part in parts:
        b.add(part)
    scene = b.build('test', np.ones((4, 8, 3), np.float32), [ORIGIN_VIEW], sky_irradiates=False)
    return replace(scene, lights=lights, ambient=np.zeros(3, np.float32))


def camera_along_x(height_m: float = 0.0) -> RenderCamera:
    """Make a camera of 101x101 pixels, focal length 100 px, centre at pixel (50, 50)."""
    K = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    return RenderCamera(101, 101, K, cameras.optical_axes(0.0, 0.0),
                        np.array([0.0, 0.0, height_m]))


def test_optical_axes_look_forward_with_x_right_and_y_down() -> None:
    level = cameras.optical_axes(0.0, 0.0)
    np.testing.assert_allclose(level, [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)
    up = cameras.optical_axes(np.pi / 2, np.pi / 6)
    np.testing.assert_allclose(up[:, 2], [0, np.sqrt(3) / 2, 0.5], atol=1e-12)
    rolled = cameras.optical_axes(0.0, 0.0, np.pi / 2)
    np.testing.assert_allclose(rolled[:, 0], [0, 0, -1], atol=1e-12)


def test_depth_is_measured_along_z_and_not_along_the_ray() -> None:
    scene = make_scene(meshes.box((1, 20, 20), (2.5, 0, 0), 0))
    depth_m = render.depth_along_z(scene, camera_along_x())
    # The face is at x = 2 m; along the ray its corners are 2 * sqrt(1.5) m away.
    np.testing.assert_allclose(depth_m, 2.0, rtol=1e-6)


def test_depth_of_a_box_ends_where_its_outline_projects() -> None:
    scene = make_scene(meshes.box((1, 0.5, 0.3), (2.5, 0, 0), 0))
    depth_m = render.depth_along_z(scene, camera_along_x())
    # At 2 m, half of 0.5 m covers 12.5 px and half of 0.3 m covers 7.5 px.
    rows, columns = np.nonzero(np.isfinite(depth_m))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (38, 62, 43, 57)


def test_depth_of_the_floor_follows_the_camera_height() -> None:
    floor = meshes.box((40, 40, 1), (0, 0, -0.5), 0)
    depth_m = render.depth_along_z(make_scene(floor), camera_along_x(0.35))
    # z = height * f / (row - cy)
    assert depth_m[100, 50] == pytest.approx(0.35 * 100 / 50, rel=1e-5)
    assert depth_m[60, 7] == pytest.approx(0.35 * 100 / 10, rel=1e-5)


def test_sky_has_infinite_depth() -> None:
    floor = meshes.box((40, 40, 1), (0, 0, -0.5), 0)
    depth_m = render.depth_along_z(make_scene(floor), camera_along_x(0.35))
    assert np.isposinf(depth_m[:50]).all()
    assert np.isfinite(depth_m[60:]).all()


@pytest.mark.parametrize(('mesh', 'volume'), [
    (meshes.box((1, 2, 3), (5, 6, 7), 0), 6.0),
    (bodies.cylinder(0.5, 2.0, (1, 1, 1), 0, sides=200), np.pi * 0.5),
    (bodies.ellipsoid((1, 2, 3), (0, 0, 0), 0, 4), np.pi),
    (bodies.rod((0, 0, 0), (1, 1, 1), 0.1, 0, sides=200), np.pi * 0.01 * np.sqrt(3)),
    (bodies.rounded_box((1, 1, 1), (0, 0, 0), 0, 1e-4), 1.0)])
def test_bodies_are_closed_and_face_outwards(mesh: meshes.Mesh, volume: float) -> None:
    a, b, c = (mesh.triangles[:, i].astype(np.float64) for i in range(3))
    # By the divergence theorem; a hole or a flipped face changes the volume.
    assert np.einsum('ij,ij->', a, np.cross(b, c)) / 6 == pytest.approx(volume, rel=0.01)
    agreement = np.einsum('ij,ikj->ik', np.cross(b - a, c - a), mesh.normals)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=-1)
    assert (agreement[area > 1e-6] > 0).all()


def test_a_pallet_without_cartons_can_be_built() -> None:
    """Seed 6424 drops all four cartons of a single layer, which once raised an error."""
    palette = SceneBuilder(np.random.default_rng(0), 16).palette
    bare = warehouse_things.pallet(palette, np.random.default_rng(6424))
    assert bare.bounds[1][2] == pytest.approx(0.141, abs=1e-6)  # the empty deck


def test_boxes_turn_about_their_own_axes() -> None:
    both = meshes.boxes([[2, 1, 1], [2, 1, 1]], [[0, 0, 0], [10, 0, 0]], 0, yaws=[0, np.pi / 2])
    np.testing.assert_allclose(both.triangles[12:].reshape(-1, 3).min(0), [9.5, -1, -0.5],
                               atol=1e-6)


def test_sunlight_follows_the_cosine_and_casts_shadows() -> None:
    height = np.radians(30)
    towards = np.array([np.cos(height), 0, np.sin(height)], np.float32)
    sun = Light('sun', towards, np.full(3, 8, np.float32), radius_m=0.0)
    floor, wall = meshes.box((40, 40, 1), (0, 0, -0.5), 0), meshes.box((1, 40, 1), (5, 0, 0.5), 0)
    scene = make_scene(floor, wall, lights=(sun,))
    above = np.array([[0, 0, 2], [4.4, 0, 2]], np.float32)
    hits = rays.trace(scene, above, np.array([[0, 0, -1]] * 2, np.float32))
    light, _ = shading.direct_light(scene, hits, [np.full((2, 2), 0.5, np.float32)],
                                    highlights=False)
    # 8 * sin(30 degrees) in the open; 0 in the shadow, 0.1 m behind a wall of 1 m.
    np.testing.assert_allclose(light, [[4, 4, 4], [0, 0, 0]], atol=1e-4)


def test_irradiance_of_a_panel_is_radiance_times_solid_angle() -> None:
    side = 0.1
    panel = Light('rect', np.array([0, 0, 2], np.float32), np.full(3, 100, np.float32),
                  u=np.array([0, side, 0], np.float32), v=np.array([side, 0, 0], np.float32))
    scene = make_scene(meshes.box((40, 40, 1), (0, 0, -0.5), 0), lights=(panel,))
    hits = rays.trace(scene, np.array([[0, 0, 1]], np.float32),
                      np.array([[0, 0, -1]], np.float32))
    light, _ = shading.direct_light(scene, hits, [np.full((1, 2), 0.5, np.float32)],
                                    highlights=False)
    np.testing.assert_allclose(light, 100 * 0.01 / 4, rtol=1e-3)


def test_textures_differ_by_seed_and_repeat_by_seed() -> None:
    for kind in textures.KINDS:
        first, again, other = (textures.bake(kind, np.random.default_rng(seed), 64)
                               for seed in (1, 1, 2))
        assert first.shape == (64, 64, 3) and first.dtype == np.uint8
        assert (first == again).all(), kind
        assert (first != other).any(), kind


def test_a_texture_far_away_shows_its_mean_colour() -> None:
    b = SceneBuilder(np.random.default_rng(3), 32)
    materials = (b.palette.get('brick'), b.palette.build())
    far = materials[1].albedo(np.array([materials[0]], np.int32), np.zeros((1, 2), np.float32),
                              np.array([1000.0], np.float32))
    near_uv = np.random.default_rng(0).random((20_000, 2)).astype(np.float32) * 10
    near = materials[1].albedo(np.full(20_000, materials[0], np.int32), near_uv,
                               np.full(20_000, 1e-3, np.float32))
    # Mip levels average in sRGB, this test in linear light: the results differ slightly.
    np.testing.assert_allclose(far[0], near.mean(0), rtol=0.12)


def test_without_textures_each_material_has_its_mean_colour_all_over() -> None:
    b = SceneBuilder(np.random.default_rng(3), 32)
    rows = [b.palette.get(kind) for kind in ('brick', 'wood')]
    textured = b.palette.build()
    plain = textured.without_textures()
    np.testing.assert_array_equal(plain.mean_albedo(), textured.mean_albedo())
    uv = np.random.default_rng(0).random((100, 2)).astype(np.float32)
    for row in rows:
        near = plain.albedo(np.full(100, row, np.int32), uv, np.full(100, 1e-3, np.float32))
        np.testing.assert_allclose(near, np.tile(textured.mean_albedo()[row], (100, 1)), rtol=1e-5)


def test_metering_maps_a_grey_card_to_middle_grey() -> None:
    card = np.full((8, 8, 3), 37.0, np.float32)
    assert sensor.meter_exposure(card) * 37.0 == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize('name', list(places.PLACES))
def test_cameras_see_surfaces_in_every_kind_of_place(name: str) -> None:
    rng = np.random.default_rng(11)
    scene = places.PLACES[name][0](SceneBuilder(rng, 32))
    camera = cameras.sample_camera(scene, rng, (48, 36))
    depth_m = render.depth_along_z(scene, camera)
    assert np.isfinite(depth_m).mean() > 0.2
    assert depth_m.min() > 0.1
    assert np.ptp(depth_m[np.isfinite(depth_m)]) > 0.05


def test_no_camera_is_inside_an_object() -> None:
    room = meshes.box((6, 6, 3), (0, 0, 1.5), 0)
    inside_out = meshes.Mesh(room.triangles[:, ::-1], -room.normals[:, ::-1], room.uv,
                             room.material)
    # A pillar occupies most of the room.
    b = SceneBuilder(np.random.default_rng(0), 16)
    b.palette.solid((0.5, 0.5, 0.5))
    b.add(inside_out)
    b.add(meshes.box((4.4, 4.4, 3), (0, 0, 1.5), 0))
    region = np.array([[-2.9, -2.9, 0.3], [2.9, 2.9, 1.6]], np.float32)
    scene = b.build('test', np.ones((4, 8, 3), np.float32), [View(region, region)],
                    sky_irradiates=False)
    rng = np.random.default_rng(4)
    for _ in range(10):
        x, y, _ = cameras.sample_camera(scene, rng, (64, 48)).position
        assert max(abs(x), abs(y)) > 2.2


def test_frames_depend_only_on_seed_and_frame_number(tmp_path: Path) -> None:
    bulk.render_frames(tmp_path / 'two', 6, width=32, height=24, seed=5, workers=2)
    shard, = shards.read_shards(tmp_path / 'two')
    assert shard.rgb.shape == (6, 24, 32, 3) and shard.rgb.dtype == np.uint8
    assert shard.depth_m.shape == (6, 24, 32) and shard.depth_m.dtype == np.float32
    assert len(shard.place) == 6 and shard.K.shape == (6, 3, 3) and shard.first == 0
    alone = bulk.render_scene(1, seed=5, width=32, height=24)
    for i in (4, 5):
        place, frame = alone[i - 4]
        assert place == shard.place[i]
        np.testing.assert_array_equal(frame.rgb, shard.rgb[i])
        np.testing.assert_array_equal(frame.depth_m, shard.depth_m[i])
        np.testing.assert_array_equal(frame.K, shard.K[i])
    other = bulk.render_scene(1, seed=6, width=32, height=24)
    assert (other[0][1].depth_m != shard.depth_m[4]).any()


def test_incomplete_shards_are_ignored(tmp_path: Path) -> None:
    rgb, depth_m = np.zeros((2, 4, 6, 3), np.uint8), np.full((2, 4, 6), np.inf, np.float32)
    shards.write_shard(tmp_path, 3, rgb, depth_m, np.zeros((2, 3, 3)), ['bin', 'bin'], 768)
    (tmp_path / 'depth_m_00004.npy').write_bytes(b'truncated')
    (tmp_path / 'rgb_00004.npy.part').write_bytes(b'truncated')
    shard, = shards.read_shards(tmp_path)
    assert shard.first == 768 and np.isposinf(shard.depth_m).all()
    assert not shards.shard_is_complete(tmp_path, 4)


def test_the_error_for_a_folder_without_shards_names_it(tmp_path: Path) -> None:
    with pytest.raises(MarigoldError, match=str(tmp_path)):
        shards.read_shards(tmp_path)


def test_the_overview_shows_every_frame_above_its_depth(tmp_path: Path) -> None:
    rgb = np.repeat(np.arange(32, dtype=np.uint8), 4 * 6 * 3).reshape(32, 4, 6, 3)
    depth_m = np.tile(np.linspace(1, 2, 24, dtype=np.float32).reshape(4, 6), (32, 1, 1))
    about = np.tile(np.eye(3), (32, 1, 1)), ['room'] * 32
    shards.write_shard(tmp_path, 0, rgb, depth_m, *about, first=0)
    sheet = places_overview.draw_overview(tmp_path)
    assert sheet.shape == (4 * 8, 8 * 6, 3)
    assert (sheet[8:12, 6:12] == 9).all()  # the second frame of the second row
    red, _, blue = sheet[4, 0].astype(int)  # near
    assert red > blue
    shards.write_shard(tmp_path, 0, rgb[:31], depth_m[:31], about[0][:31], about[1][:31], 0)
    with pytest.raises(MarigoldError, match='at least 32 frames; .* has 31'):
        places_overview.draw_overview(tmp_path)


def test_bulk_rendering_rejects_a_start_within_a_shard(tmp_path: Path) -> None:
    with pytest.raises(MarigoldError, match='multiple of 256; got 100'):
        bulk.render_frames(tmp_path, 10, width=32, height=24, seed=0, first=100)


def write_world(folder: Path) -> Path:
    """Write a Gazebo world that includes the model of a box twice, once rotated."""
    body = trimesh.creation.box((2.0, 1.0, 1.0))
    model = folder / 'models' / 'crate'
    model.mkdir(parents=True)
    body.export(model / 'crate.stl')
    (model / 'model.sdf').write_text(
        '<sdf><model name="crate"><link name="link"><pose>0 0 0.5 0 0 0</pose>'
        '<collision name="c"><geometry><box><size>9 9 9</size></box></geometry></collision>'
        '<visual name="v"><geometry><mesh><uri>model://crate/crate.stl</uri>'
        '<scale>1 1 1</scale></mesh></geometry></visual></link></model></sdf>')
    world = folder / 'worlds' / 'yard.world'
    world.parent.mkdir()
    world.write_text(
        '<sdf><world name="default"><light name="l" type="point"><pose>0 0 3 0 0 0</pose></light>'
        '<include><uri>model://crate</uri><pose>4 0 0 0 0 1.5707963</pose></include>'
        '<model name="m"><include><uri>model://crate</uri></include><pose>0 6 0 0 0 0</pose>'
        '</model></world></sdf>')
    return folder


def test_models_of_a_world_file_are_placed_at_their_poses(tmp_path: Path) -> None:
    scene = worlds.sample_world(write_world(tmp_path), np.random.default_rng(0), 16)
    assert scene.place == 'yard' and scene.lights[0].kind == 'bulb'
    np.testing.assert_allclose(scene.lights[0].center, [0, 0, 3])
    corners = scene.mesh.triangles.reshape(2, -1, 3)
    # Boxes of 2 x 1 x 1 m on the floor; the first is rotated by 90 degrees at x = 4.
    np.testing.assert_allclose(corners[0].min(0), [3.5, -1, 0], atol=1e-5)
    np.testing.assert_allclose(corners[0].max(0), [4.5, 1, 1], atol=1e-5)
    np.testing.assert_allclose(corners[1].min(0), [-1, 5.5, 0], atol=1e-5)
    np.testing.assert_allclose(corners[1].max(0), [1, 6.5, 1], atol=1e-5)


def test_a_textured_mesh_has_the_colours_of_its_image(tmp_path: Path) -> None:
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    image = Image.fromarray(np.full((8, 8, 3), (255, 0, 0), np.uint8))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
    wall = trimesh.Trimesh([[2, 3, -3], [2, -3, -3], [2, -3, 3], [2, 3, 3]],
                           [[0, 2, 1], [0, 3, 2]],
                           visual=trimesh.visual.TextureVisuals(uv, material=material))
    wall.export(tmp_path / 'wall.glb')
    scene = worlds.sample_world(tmp_path / 'wall.glb', np.random.default_rng(0), 16)
    hits = rays.trace(scene, np.zeros((1, 3), np.float32), np.array([[1, 0, 0]], np.float32))
    assert hits.t[0] == pytest.approx(2.0)
    np.testing.assert_allclose(shading.albedo(scene, hits, 0.01), [[1, 0, 0]], atol=0.02)


def test_errors_name_the_missing_files_of_a_world(tmp_path: Path) -> None:
    with pytest.raises(MarigoldError, match=str(tmp_path)):
        worlds.sample_world(tmp_path, np.random.default_rng(0), 16)
    world = tmp_path / 'a.world'
    world.write_text('<sdf><world><include><uri>model://gone</uri></include></world></sdf>')
    with pytest.raises(MarigoldError, match='model://gone'):
        worlds.sample_world(world, np.random.default_rng(0), 16)
