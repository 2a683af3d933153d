"""Let copies of things down, one after the other, on what is there: heaps on floors and tables."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from scenes.clutter import Maker, public_makers
from scenes.draws import Rng
from scenes.meshes import boxes, Mesh
from scenes.resting import Surroundings
from scenes.scene_builder import SceneBuilder

_ROUNDS = 7
_PER_ROUND = 340

Poses = Callable[[Rng, int], np.ndarray]


class Thing:
    """
    A thing to copy, on the middle of the origin.

    Parameters
    ----------
    mesh : Mesh
        At any place.
    """

    def __init__(self, mesh: Mesh) -> None:
        low, high = mesh.bounds
        self.mesh = mesh.moved((*(-(low + high)[:2] / 2), -low[2]))
        self.size = high - low
        self.block = boxes([np.maximum(self.size, 1e-3)], [(0, 0, self.size[2] / 2)], 0)
        self.is_flat = _has_flat_top(self.mesh)


class Heap:
    """
    Let things down one after the other.

    Parameters
    ----------
    b : SceneBuilder
    around : Surroundings
        What the things may rest on; they are added to it.
    tumbled : bool
        Whether things rest on any part of others, not on flat tops only.
    """

    def __init__(self, b: SceneBuilder, around: Surroundings, *,
                 tumbled: bool = False) -> None:
        self._b, self._around, self._tumbled = b, around, tumbled

    def drop(self, stock: Sequence[Thing], count: int, poses: Poses, levels: tuple[float, float],
             spread: float = 1.0) -> None:
        """
        Add copies of things where they rest.

        Parameters
        ----------
        stock : sequence of Thing
            Things to copy.
        count : int
            How many to add, as far as there is space.
        poses : function
            Draws poses to try.
        levels : (float, float)
            Lowest and highest surface that may carry them, m.
        spread : float
            Largest factor of their size, and 1 over the smallest.
        """
        rng = self._b.rng
        sizes = np.array([thing.size for thing in stock])
        for _ in range(_ROUNDS if count else 0):
            tries = min(5 * count + 8, _PER_ROUND)
            drawn = poses(rng, tries)
            middle = self._around.heights(drawn[:, :2], drawn[:, 3])
            drawn = drawn[(middle > levels[0] - 0.1) & (middle < levels[1])]
            which = rng.integers(len(stock), size=len(drawn))
            scales = spread ** rng.uniform(-1, 1, len(drawn))
            tops = self._around.rest(sizes[which] * scales[:, None], drawn,
                                     loose=self._tumbled)
            usable = np.flatnonzero((tops > levels[0] - 0.01) & (tops < levels[1]))
            chosen = usable[_apart(drawn[usable, :2], 0.01 + scales[usable] * np.hypot(
                *sizes[which[usable], :2].T) / 2)][:count]
            blocks = []
            for i in chosen:
                thing, at = stock[which[i]], (*drawn[i, :2], tops[i])
                copy = thing.mesh.scaled(scales[i]).moved(at, drawn[i, 2])
                self._b.add(copy)
                blocks.append((copy, True) if self._tumbled else (
                    thing.block.scaled(scales[i]).moved(at, drawn[i, 2]), thing.is_flat))
            self._around.add(blocks)
            count -= len(chosen)
            if count <= 0:
                break


def heap_on(b: SceneBuilder, low: ArrayLike, high: ArrayLike, makers: Sequence[Maker],
            count: int, *, tumbled: bool = False) -> None:
    """
    Heap things on a table or in a bin.

    Parameters
    ----------
    b : SceneBuilder
        With what carries the things.
    low, high : [3] float
        Corners of the space in which their undersides are, m.
    makers : sequence of functions
    count : int
        Number of things, as far as there is space.
    tumbled : bool
        Whether things lie in any pose, and on each other.
    """
    first, last = np.asarray(low, float), np.asarray(high, float)
    stock = make_stock(b, mix_in_public(b, makers, 'small'), min(count, 24))
    if tumbled:
        stock = [Thing(one.mesh.moved(tilt=angle)) for one in stock
                 for angle in b.rng.choice([0.0, 0.4, np.pi / 2, 2.0], 2)]

    def poses(rng: Rng, n: int) -> np.ndarray:
        drawn = rng.uniform([*first[:2], 0], [*last[:2], 2 * np.pi], (n, 3))
        return np.column_stack([drawn, np.full(n, last[2] + 0.5)])

    heap = Heap(b, Surroundings(b.mesh_so_far()), tumbled=tumbled)
    heap.drop(stock, count, poses, (first[2], last[2]), 1.1)


def make_stock(b: SceneBuilder, makers: Sequence[Maker], count: int) -> list[Thing]:
    """
    Make things to copy, of as many kinds as possible.

    Returns
    -------
    list of Thing
    """
    kinds = [i for _ in range(-(-count // len(makers))) for i in b.rng.permutation(len(makers))]
    return [Thing(makers[int(i)](b.palette, b.rng)) for i in kinds[:count]]


def mix_in_public(b: SceneBuilder, makers: Sequence[Maker], role: str) -> tuple[Maker, ...]:
    """
    Add public meshes to makers, as many again, if the scene has any of a role.

    Returns
    -------
    tuple of functions
    """
    return (*makers, *(public_makers(b.palette, role) * len(makers)))


def _apart(xy: np.ndarray, radii: np.ndarray) -> list[int]:
    """Return the numbers of circles that do not touch a chosen one before them."""
    chosen: list[int] = []
    for i in range(len(xy)):
        if (np.hypot(*(xy[chosen] - xy[i]).T) > radii[chosen] + radii[i]).all():
            chosen.append(i)
    return chosen


def _has_flat_top(mesh: Mesh) -> bool:
    """Check whether other things can stand on a thing."""
    low, high = mesh.bounds
    top = mesh.triangles[(mesh.triangles[:, :, 2] > high[2] - 0.015).all(1)]
    edges = np.diff(top[:, :, :2], axis=1)
    area = (edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]) / 2
    return bool(area.clip(0).sum() > 0.6 * np.prod((high - low)[:2]))
