"""Tests of the kinds of rooms, their doors, panes, mirrors and light."""
from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from scenes import (
    cameras,
    drive_room,
    glass,
    interiors,
    lighting,
    meshes,
    openings,
    places,
    rays,
    render,
    second_room,
    sensor,
    shells,
    walls,
)
from scenes.rooms import Room
from scenes.scene_builder import LIGHTS_MAX, SceneBuilder
from scenes.scene_types import BULK, RenderCamera, Scene, Sensor, View

ORIGIN_VIEW = View(np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))


def fingerprint(scene: Scene) -> str:
    """Hash the geometry and the lights of a scene."""
    digest = hashlib.sha256()
    for array in (scene.mesh.triangles, scene.mesh.uv, scene.mesh.material):
        digest.update(np.ascontiguousarray(array).tobytes())
    for light in scene.lights:
        digest.update(light.kind.encode())
        for vector in (light.center, light.rgb, light.u, light.v):
            digest.update(np.asarray(vector, np.float32).tobytes())
        digest.update(np.float32(light.radius_m).tobytes())
    return digest.hexdigest()[:16]


def make_builder(seed: int = 0) -> SceneBuilder:
    """Make a builder with small textures, whose material 0 is grey."""
    b = SceneBuilder(np.random.default_rng(seed), 16)
    b.palette.solid((0.5, 0.5, 0.5))
    return b


def build(b: SceneBuilder, sky: np.ndarray | None = None, view: View = ORIGIN_VIEW) -> Scene:
    """Build a scene below a sky of radiance 1, unless another is given."""
    return b.build('test', np.ones((4, 8, 3), np.float32) if sky is None else sky, [view],
                   sky_irradiates=False)


def look(yaw: float, position: tuple[float, float, float] = (0.0, 0.0, 0.0),
         size: int = 41) -> RenderCamera:
    """Make a camera with 90 degrees of field of view."""
    K = cameras.pinhole(size, size, np.pi / 2)
    return RenderCamera(size, size, K, cameras.optical_axes(yaw, 0.0), np.array(position),
                        Sensor())


def test_the_rooms_of_the_drives_are_what_they_were() -> None:
    assert fingerprint(drive_room.make_drive_room(26, 32)) == '53c907fbcba30e31'
    moving = second_room.make_second_room(26, 32)
    assert fingerprint(moving.dark) == '3d6b5a32200b6e90'
    assert fingerprint(moving.lit) == '6c9ba03a3cfc68e5'


def test_shares_of_places_and_of_rooms_add_up() -> None:
    assert sum(share for _, share in places.PLACES.values()) == pytest.approx(1)
    assert sum(kind.share for kind in interiors.KINDS.values()) == pytest.approx(1)


@pytest.fixture(scope='module', params=list(interiors.KINDS))
def rooms_of_kind(request: pytest.FixtureRequest) -> tuple[str, list[Scene]]:
    """Make three rooms of each kind."""
    return request.param, [interiors.make_room_of_kind(make_builder(seed), request.param)
                           for seed in range(3)]


def test_rooms_of_every_kind_enclose_the_camera(rooms_of_kind: tuple[str, list[Scene]]) -> None:
    name, scenes = rooms_of_kind
    for seed, scene in enumerate(scenes):
        assert scene.place == name
        assert 1 <= len(scene.lights) <= LIGHTS_MAX
        camera = cameras.sample_camera(scene, np.random.default_rng(seed), (48, 36))
        frame = render.render(scene, camera, BULK)
        # Only windows, over which houses may stand, show the sky.
        assert np.isfinite(frame.depth_m).mean() > 0.4
        assert frame.depth_m.min() > 0.05
        assert frame.rgb.mean() > 8  # not black


def test_a_room_is_a_function_of_its_seed(rooms_of_kind: tuple[str, list[Scene]]) -> None:
    name, scenes = rooms_of_kind
    first, other, _ = (fingerprint(scene) for scene in scenes)
    assert fingerprint(interiors.make_room_of_kind(make_builder(0), name)) == first != other


def doorway(b: SceneBuilder) -> walls.Wall:
    """Add a wall 4 m long on y = 0, which faces +y, with a door in its middle."""
    o = walls.Opening('door', 1.5, 2.4, 0.0, 2.03)
    wall = walls.Wall(np.zeros(3, np.float32), 0.0, 4.0, 2.5, (o,))
    b.add(walls.wall_mesh(wall, 0, 0))
    return wall


def test_through_a_door_the_next_room_is_seen() -> None:
    opened = 0
    for seed in range(12):
        b = make_builder(seed)
        wall = doorway(b)
        openings.add_door(b, wall, wall.openings[0])
        scene = build(b)
        x = np.linspace(1.55, 2.35, 9)
        origins = np.stack([x, np.full(9, 1.5), np.full(9, 1.9)], 1).astype(np.float32)
        hits = rays.trace(scene, origins, np.tile(np.array([[0, -1, 0]], np.float32), (9, 1)))
        assert len(hits.ray) == 9  # neither room lets the sky in
        beyond = hits.point[:, 1] < -walls.THICKNESS_M - 0.3
        opened += bool(beyond.any())
        beside = rays.trace(scene, np.array([[0.7, 1.5, 1.9]], np.float32),
                            np.array([[0, -1, 0]], np.float32))
        assert beside.point[0, 1] == pytest.approx(0, abs=0.2)
    assert 4 <= opened <= 11


def test_rooms_behind_the_doors_of_a_wall_keep_apart() -> None:
    doors = tuple(walls.Opening('door', x, x + 0.9, 0.0, 2.03) for x in (1.0, 3.0, 6.0))
    window = walls.Opening('window', 8.0, 9.0, 0.9, 2.0)
    wall = walls.Wall(np.zeros(3, np.float32), 0.0, 10.0, 2.5, (*doors, window))
    limits = [openings._annex_limits(wall, o) for o in doors]
    for (_, right), (left, _) in pairwise(limits):
        assert right < left
    assert limits[-1][1] < window.left


def mirror_scene(colour: tuple[float, float, float]) -> Scene:
    """Make a mirror 2 m ahead on +x and a glowing wall 1 m behind the camera."""
    b = make_builder()
    mirror = glass.mirror(b.palette, np.random.default_rng(0), 6.0, 6.0)
    b.add(mirror.moved((2.0, 0, 0), np.pi / 2))
    b.add(meshes.box((0.1, 20, 20), (-1.05, 0, 0), b.palette.emissive(colour)))
    return build(b)


def test_a_mirror_shows_what_is_behind_the_camera_at_its_own_depth() -> None:
    camera = look(0.0)
    radiance, depth_m = render.render_radiance(mirror_scene((3.0, 0.0, 0.0)), camera, BULK)
    np.testing.assert_allclose(depth_m[18:23, 18:23], 1.99, atol=0.02)
    middle = radiance[18:23, 18:23].mean((0, 1))
    assert middle[0] > 1.5 and middle[1] < 0.1
    blue, _ = render.render_radiance(mirror_scene((0.0, 0.0, 3.0)), camera, BULK)
    assert blue[20, 20, 2] > 1.5 and blue[20, 20, 0] < 0.1


def test_clear_panes_dim_what_is_behind_them_and_have_no_depth() -> None:
    images = []
    for clear in (False, True):
        b = make_builder()
        b.add(meshes.box((0.1, 20, 20), (4.05, 0, 0), b.palette.emissive((2.0, 2.0, 2.0))))
        pane = glass.clear(b.palette, np.random.default_rng(0))
        if clear:
            b.add(meshes.panel((2, -3, -3), (0, 6, 0), (0, 0, 6), pane))
        radiance, depth_m = render.render_radiance(build(b), look(0.0), BULK)
        np.testing.assert_allclose(depth_m, 4.0, rtol=1e-4)
        images.append(radiance[20, 20])
    # The sky of radiance 1, which the pane mirrors, is behind the camera.
    assert 0.7 < images[1].mean() / images[0].mean() < 0.98


def test_panes_behind_a_surface_change_nothing() -> None:
    images = []
    for clear in (False, True):
        b = make_builder()
        b.add(meshes.box((0.1, 20, 20), (2.05, 0, 0), b.palette.emissive((2.0, 1.0, 0.5))))
        pane = glass.clear(b.palette, np.random.default_rng(0))
        if clear:
            b.add(meshes.panel((3, -3, -3), (0, 6, 0), (0, 0, 6), pane))
        images.append(render.render_radiance(build(b), look(0.0), BULK)[0])
    np.testing.assert_array_equal(*images)


def test_frosted_panes_are_surfaces() -> None:
    b = make_builder()
    b.add(meshes.box((0.1, 20, 20), (4.05, 0, 0), 0))
    b.add(meshes.panel((2, -3, -3), (0, 6, 0), (0, 0, 6),
                       glass.frosted(b.palette, np.random.default_rng(0))))
    assert render.depth_along_z(build(b), look(0.0))[20, 20] == pytest.approx(2.0)


def test_a_window_seen_from_deep_in_the_room_is_blown_out() -> None:
    b = make_builder(3)
    o = walls.Opening('window', 2.4, 3.2, 0.9, 1.9)
    height, corners = 2.5, ((0, 0), (6, 0), (6, 6), (0, 6))
    room = Room(6.0, 6.0, height, tuple(
        walls.Wall(np.array([*xy, 0], np.float32), i * np.pi / 2, 6.0, height,
                   (o,) if i == 0 else ()) for i, xy in enumerate(corners)))
    for wall in room.walls:
        b.add(walls.wall_mesh(wall, 0, 0))
    b.add(meshes.boxes([[7, 7, 0.1]] * 2, [[3, 3, -0.05], [3, 3, height + 0.05]], 0))
    sky = np.full((4, 8, 3), 3.0, np.float32)
    lighting._add_daylight(b, [(room.walls[0], o)], np.repeat(sky, 64, 0))
    scene = build(b, sky, room.view)
    camera = look(-np.pi / 2, (2.8, 5.0, 1.4), 81)
    frame = render.render(scene, camera, BULK)
    outside = ~np.isfinite(frame.depth_m)
    assert 0.005 < outside.mean() < 0.1
    assert np.median(frame.rgb[outside]) >= 250
    assert np.median(frame.rgb[~outside]) < 190
    assert sensor.meter_exposure(np.full((2, 2, 3), 0.2, np.float32)) == pytest.approx(1, rel=0.01)


def test_windows_of_bathrooms_and_cellars_are_high() -> None:
    for finish in (shells.BATH, shells.CELLAR):
        for seed in range(4):
            room = shells.make_room(make_builder(seed), 4.0, 4.0, 2.3, windows=4, finish=finish)
            for wall in room.walls:
                assert all(o.low < o.high and o.low >= 1.1 and o.high < 2.3
                           for o in wall.openings if o.kind == 'window')
