"""Tests of the things that fill rooms: their makers, and where they are put."""
from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from scenes import (
    bodies,
    hanging,
    heaps,
    household,
    leaning,
    meshes,
    people,
    rooms,
    seats,
    soft_things,
    stacks,
    storage,
    strewing,
    thin_things,
)
from scenes.clutter import Maker
from scenes.materials import Palette
from scenes.resting import Surroundings
from scenes.scene_builder import SceneBuilder

STANDING = {*people.PEOPLE, *soft_things.FLOOR, *soft_things.LARGE, *soft_things.SURFACE,
            *household.KITCHEN, *household.DESK, *household.LIVING, *household.WORKSHOP,
            *household.FLOOR, *thin_things.LARGE, *leaning.LEANING, *stacks.LARGE,
            *stacks.MEDIUM, *stacks.AT_WALL}
DOWN = np.array([[0, 0, -1]], np.float32)


def name_of(maker: Maker) -> str:
    return maker.__name__


def make(maker: Maker, seed: int) -> meshes.Mesh:
    """Make a thing and check that it is a finite mesh with outward normals."""
    rng = np.random.default_rng(seed)
    mesh = maker(Palette(rng, 8), rng)
    for array in (mesh.triangles, mesh.normals, mesh.uv):
        assert np.isfinite(array).all()
    assert len({len(a) for a in (mesh.triangles, mesh.normals, mesh.uv, mesh.material)}) == 1
    a, b, c = (mesh.triangles[:, i].astype(float) for i in range(3))
    face = np.cross(b - a, c - a)
    large = np.linalg.norm(face, axis=-1) > 1e-6
    agreement = np.einsum('ij,ikj->i', face, mesh.normals.astype(float))
    assert (agreement[large] > 0).mean() > 0.98
    return mesh


@pytest.mark.parametrize('maker', sorted(STANDING, key=name_of), ids=name_of)
def test_a_thing_stands_on_its_ground(maker: Maker) -> None:
    for seed in range(3):
        mesh = make(maker, seed)
        low, high = mesh.bounds
        assert -0.012 < low[2] < 0.02
        assert (high - low).max() < 2.6 and (high - low).max() > 0.02


@pytest.mark.parametrize('maker', sorted({*leaning.LEANING, *hanging.ON_WALL}, key=name_of),
                         ids=name_of)
def test_a_thing_at_a_wall_is_in_front_of_it(maker: Maker) -> None:
    for seed in range(3):
        assert make(maker, seed).bounds[0, 1] > -0.012


@pytest.mark.parametrize('maker', sorted({*hanging.ON_WALL, *hanging.ON_CEILING}, key=name_of),
                         ids=name_of)
def test_a_hung_thing_is_below_its_hook(maker: Maker) -> None:
    for seed in range(3):
        low, high = make(maker, seed).bounds
        assert high[2] < 0.12 and low[2] < -0.05


def test_a_sitting_person_reaches_below_the_seat() -> None:
    low, high = make(people.sitting, 1).bounds
    assert -0.6 < low[2] < -0.35 and 0.7 < high[2] < 1.1


@pytest.mark.parametrize(('mesh', 'volume'), [
    (bodies.tube([(0, 0, 0), (0, 0.5, 0), (0, 1, 0)], 0.1, 0, 200), np.pi * 0.01),
    (bodies.tube([(0, 0, 0), (3, 0, 4)], [0.2, 0.1], 0, 200), np.pi * 5 * 0.07 / 3),
    (bodies.loft([(0, 0, 0, 1, 0.5), (1, 0, 2, 1, 0.5)], 0, sides=200), np.pi)])
def test_tubes_and_lofts_are_closed_and_face_outwards(mesh: meshes.Mesh, volume: float) -> None:
    a, b, c = (mesh.triangles[:, i].astype(np.float64) for i in range(3))
    assert np.einsum('ij,ij->', a, np.cross(b, c)) / 6 == pytest.approx(volume, rel=0.01)


def test_a_cloth_has_two_sides() -> None:
    x, y = np.meshgrid([0.0, 1.0], [0.0, 1.0])
    cloth = bodies.cloth(np.stack([x, y, 0 * x], -1), 0)
    assert sorted(cloth.normals[:, 0, 2]) == [-1, -1, 1, 1]
    np.testing.assert_allclose(cloth.bounds[:, 2], [-0.002, 0.002])


def rest_on(ground: meshes.Mesh, x: float, start: float = 2.0, *, loose: bool = False) -> float:
    """Let a cube of 20 cm down at x; return the height on which it stands."""
    top = Surroundings(ground).rest(np.array([[0.2, 0.2, 0.2]]), np.array([[x, 0, 0.3, start]]),
                                    loose=loose)
    return float(top[0])


def test_things_rest_on_tops_and_floors_but_not_on_edges_or_in_bodies() -> None:
    floor, table = [(4, 4, 0.1), (0, 0, -0.05)], [(1, 1, 0.7), (0, 0, 0.35)]
    ground = meshes.join([meshes.box(*floor, 0), meshes.box(*table, 0)])
    assert rest_on(ground, 0.0) == pytest.approx(0.7, abs=1e-5)
    assert rest_on(ground, 1.0) == pytest.approx(0.0, abs=1e-5)
    assert np.isnan(rest_on(ground, 0.55))  # most of it has no support
    assert np.isnan(rest_on(ground, 0.0, start=0.5))  # starts in the table
    assert np.isnan(rest_on(ground, 0.0, start=0.85))  # too little space above
    assert np.isnan(rest_on(ground, 3.0))  # beyond the floor


def test_a_thing_added_later_carries_others_only_if_told_so() -> None:
    floor = meshes.box((4, 4, 0.1), (0, 0, -0.05), 0)
    for carries in (True, False):
        around = Surroundings(floor)
        around.add([(meshes.box((0.5, 0.5, 0.3), (0, 0, 0.15), 0), carries)])
        top = around.rest(np.array([[0.2, 0.2, 0.2]]), np.array([[0, 0, 0, 2.0]]))[0]
        assert bool(abs(top - 0.3) < 1e-5) is carries
        assert carries or np.isnan(top)


def furnished(seed: int) -> tuple[SceneBuilder, rooms.Room]:
    """Make a room of 4 x 5 m with a sofa, a cabinet and chairs."""
    b = SceneBuilder(np.random.default_rng(seed), 8)
    room = rooms.build_room(b, 4.0, 5.0, 2.5, [[], [], [], []])
    p, rng = b.palette, b.rng
    rooms.place_against_wall(b, room, 'sofa', seats.sofa(p, rng), tries=40)
    rooms.place_against_wall(b, room, 'cabinet', storage.cabinet(p, rng), tries=40)
    for _ in range(3):
        rooms.place_on_floor(b, room, 'chair', seats.chair(p, rng))
    return b, room


def strewn(seed: int, amount: float, monkeypatch: pytest.MonkeyPatch) -> tuple[
        SceneBuilder, list[meshes.Mesh], meshes.Mesh]:
    """Strew a room; return it, the things that were added, and what was there before."""
    b, room = furnished(seed)
    before, added = b.mesh_so_far(), []
    add = b.add

    def note(mesh: meshes.Mesh, name: str | None = None) -> None:
        added.append(mesh)
        add(mesh, name)

    monkeypatch.setattr(b, 'add', note)
    strewing.strew(b, room, amount)
    return b, added, before


def test_the_amount_sets_the_number_of_things(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        few, some, many = (len(strewn(seed, amount, monkeypatch)[1])
                           for amount in (0.0, 0.3, 1.0))
        assert few == 0 and 10 < some < 150 < many


def test_the_same_seed_strews_the_same_things(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = (strewn(seed, 0.4, monkeypatch)[0].mesh_so_far() for seed in (5, 5, 6))
    for one, two in zip(astuple(first), astuple(again)):
        np.testing.assert_array_equal(one, two)
    assert first.triangles.shape != other.triangles.shape


def test_a_full_room_has_few_enough_triangles(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        assert len(strewn(seed, 1.0, monkeypatch)[0].mesh_so_far().triangles) < 400_000


def test_things_let_down_touch_what_carries_them(monkeypatch: pytest.MonkeyPatch) -> None:
    b, room = furnished(3)
    around = Surroundings(b.mesh_so_far())
    added: list[meshes.Mesh] = []
    add = b.add
    monkeypatch.setattr(b, 'add', lambda mesh: (added.append(mesh), add(mesh)))
    stock = heaps.make_stock(b, (stacks.box_stack, household.microwave, household.toaster), 6)
    heap = heaps.Heap(b, around)

    def poses(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.uniform([0.3, 0.3, 0, 2.3], [room.width - 0.3, room.depth - 0.3, 6, 2.4],
                           (n, 4))

    heap.drop(stock, 60, poses, (0, 2.0), 1.1)
    assert len(added) > 25
    assert any(thing.bounds[0, 2] > 0.2 for thing in added)  # on furniture or on each other
    for i, thing in enumerate(added):
        others = meshes.join([furnished(3)[0].mesh_so_far(), *added[:i], *added[i + 1:]])
        low, high = thing.bounds
        x, y = np.meshgrid(*np.linspace(low[:2], high[:2], 14).T)
        xy = np.stack([x.ravel(), y.ravel()], -1)
        gap = low[2] + 0.03 - Surroundings(others).heights(xy, float(low[2]) + 0.03)
        assert -0.001 < np.nanmin(np.abs(gap - 0.03)) < 0.02


def test_a_bin_and_a_table_are_filled_within_their_bounds(
        monkeypatch: pytest.MonkeyPatch) -> None:
    for tumbled in (False, True):
        b = SceneBuilder(np.random.default_rng(1), 8)
        b.palette.get('wood')
        b.add(meshes.box((1.0, 0.8, 0.1), (0, 0, 0.65), 0))
        added: list[meshes.Mesh] = []
        add = b.add
        monkeypatch.setattr(b, 'add', lambda mesh: (added.append(mesh), add(mesh)))
        heaps.heap_on(b, (-0.5, -0.4, 0.68), (0.5, 0.4, 1.0), household.KITCHEN, 40,
                      tumbled=tumbled)
        assert 12 < len(added) <= 40
        for thing in added:
            assert thing.bounds[0, 2] > 0.69
            assert (np.abs(thing.bounds.mean(0)[:2]) < [0.51, 0.41]).all()
