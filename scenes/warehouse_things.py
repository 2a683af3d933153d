"""Make what stands in warehouses: pallets, drums, racking, shelving, traffic cones."""
from __future__ import annotations

import numpy as np

from scenes import clutter
from scenes.bodies import lathe, rod
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, Mesh


def pallet(p: Palette, rng: Rng) -> Mesh:
    """Build a pallet that carries cartons, drums or nothing."""
    m = p.get('wood')
    parts = [boxes((1.2, 0.1, 0.022), [(0, (i - 3) * 0.115, 0.13) for i in range(7)], m),
             boxes((0.1, 0.8, 0.1), [(x, 0, 0.06) for x in (-.55, 0, .55)], m)]
    load = rng.random()
    if load < 0.6:
        nx, ny, nz = (int(n) for n in rng.integers([2, 2, 1], [5, 4, 5]))
        size = np.array([1.16 / nx, 0.78 / ny, rng.uniform(0.2, 0.4)])
        cells = np.array([(i, j, k) for k in range(nz) for i in range(nx) for j in range(ny)
                          if k < nz - 1 or rng.random() < 0.8])
        if len(cells):  # a single layer may lose all its cartons
            centers = (cells - [(nx - 1) / 2, (ny - 1) / 2, -0.5]) * size + [0, 0, 0.142]
            centers[:, :2] += rng.normal(0, 0.006, (len(cells), 2))
            parts.append(boxes(np.tile(size * 0.985, (len(cells), 1)), centers,
                               p.get('cardboard'), yaws=rng.normal(0, 0.015, len(cells)),
                               fit=True))
    elif load < 0.8:
        for x in (-0.29, 0.29):
            parts.append(drum(p, rng).moved((x, rng.uniform(-0.08, 0.08), 0.142)))
    return join(parts)


def drum(p: Palette, rng: Rng) -> Mesh:
    """Build a steel drum with its hoops."""
    r, h = 0.285, 0.86
    return lathe([[0, 0], [r, 0], [r, h / 3 - .02], [r + .015, h / 3], [r, h / 3 + .02],
                  [r, 2 * h / 3 - .02], [r + .015, 2 * h / 3], [r, 2 * h / 3 + .02], [r, h],
                  [r - .02, h], [r - .02, h - .02], [0, h - .02]], (0, 0, 0),
                 p.one_of('rust', 'plastic'), sides=24)


def rack(p: Palette, rng: Rng, bays: int, height: float) -> Mesh:
    """
    Build loaded pallet racking along y, centred at x = 0.

    Returns
    -------
    Mesh
    """
    bay, depth = 2.7, 1.0
    post, beam = p.get('metal'), p.get('plastic')
    levels = np.arange(0, height - 1.0, rng.uniform(1.3, 1.9))
    ys = np.arange(bays + 1) * bay
    parts = [boxes((0.09, 0.09, height),
                   [(s * depth / 2, y, height / 2) for y in ys for s in (-1, 1)], post)]
    for y in ys:
        for z in np.arange(0.4, height - 0.5, 1.2):
            parts.append(rod((-depth / 2, y, z), (depth / 2, y, z + 0.6), 0.02, post, sides=5))
    shelf = p.one_of('wood', 'metal')
    for z in levels:
        if z > 0:
            parts.append(boxes((0.05, bays * bay, 0.12),
                               [(s * depth / 2, bays * bay / 2, z - 0.06) for s in (-1, 1)], beam))
            parts.append(box((depth, bays * bay, 0.02), (0, bays * bay / 2, z - 0.01), shelf))
        for k in range(2 * bays):
            if rng.random() < 0.8:
                parts.append(pallet(p, rng).moved((rng.normal(0, 0.03), (k + 0.5) * bay / 2, z),
                                                  np.pi / 2))
    return join(parts)


def shelving(p: Palette, rng: Rng, length: float, height: float) -> Mesh:
    """
    Build metal shelving along y with boxes, totes and tins.

    Returns
    -------
    Mesh
    """
    depth, m = 0.45, p.one_of('metal', 'rust', 'black')
    levels = np.arange(0.1, height - 0.2, rng.uniform(0.35, 0.55))
    ys = np.linspace(0, length, max(2, int(length / 1.0) + 1))
    parts = [boxes((0.04, 0.04, height),
                   [(s * depth / 2, y, height / 2) for y in ys for s in (-1, 1)], m),
             boxes((depth, length, 0.025), [(0, length / 2, z) for z in levels], m)]
    makers = (clutter.case, clutter.tote, clutter.carton, clutter.tin, clutter.case)
    for z in levels:
        items = clutter.scatter(p, rng, makers, depth * 1.1, length, int(length * 2.5))
        parts += [i.moved((0, length / 2, z + 0.0125)) for i in items]
    return join(parts)


def cone(p: Palette, rng: Rng) -> Mesh:
    """Build a traffic cone."""
    m, white = p.solid((0.9, 0.15, 0.02)), p.get('paper')
    return join([box((0.36, 0.36, 0.03), (0, 0, 0.015), m),
                 lathe([[0.14, 0.03], [0.09, 0.3]], (0, 0, 0), m),
                 lathe([[0.09, 0.3], [0.06, 0.45]], (0, 0, 0), white),
                 lathe([[0.06, 0.45], [0.025, 0.65], [0, 0.65]], (0, 0, 0), m)])
