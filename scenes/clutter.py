"""Make small objects: cups, bottles, books, boxes, lamps, plants, toys, tools."""
from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from scenes.bodies import cylinder, ellipsoid, grid, lathe, rod, rounded_box
from scenes.draws import pick, Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, join, Mesh, panel

Maker = Callable[[Palette, Rng], Mesh]
# Share of the scattered objects that are public meshes, if there are any.
PUBLIC_SHARE = 0.4


def cup(p: Palette, rng: Rng) -> Mesh:
    """Build a mug with its handle."""
    r, h = rng.uniform(0.033, 0.048), rng.uniform(0.075, 0.11)
    m = p.one_of('ceramic', 'plastic')
    body = lathe([[0, 0], [r * 0.9, 0], [r, h], [r * 0.9, h], [r * 0.85, 0.01], [0, 0.01]],
                 (0, 0, 0), m, sides=16)
    angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 6)
    points = np.stack([r + 0.6 * r * np.cos(angle), 0 * angle,
                       h / 2 + 0.3 * h * np.sin(angle)], -1)
    handle = [rod(a, b, 0.005, m, sides=5) for a, b in pairwise(points)]
    return join([body, *handle]).moved(yaw=rng.uniform(0, 2 * np.pi))


def bottle(p: Palette, rng: Rng) -> Mesh:
    """Build a bottle with a label."""
    r, h = rng.uniform(0.03, 0.05), rng.uniform(0.2, 0.34)
    body = lathe([[0, 0], [r, 0], [r, 0.6 * h], [0.8 * r, 0.68 * h], [0.35 * r, 0.8 * h],
                  [0.35 * r, h], [0, h]], (0, 0, 0), p.one_of('plastic', 'ceramic', 'black'),
                 sides=16)
    label = lathe([[r * 1.01, 0.15 * h], [r * 1.01, 0.48 * h]], (0, 0, 0), p.get('packaging'),
                  sides=16)
    return join([body, label])


def bowl(p: Palette, rng: Rng) -> Mesh:
    """Build a bowl, sometimes with fruit."""
    r, h = rng.uniform(0.07, 0.16), rng.uniform(0.05, 0.09)
    t = np.linspace(0, 1, 6)
    outside = np.stack([r * (0.4 + 0.6 * np.sin(t * np.pi / 2)), h * t ** 1.5], -1)
    profile = np.concatenate([[[0, 0]], outside, outside[::-1] * [0.95, 1] + [0, 0.004],
                              [[0, 0.008]]])
    parts = [lathe(profile, (0, 0, 0), p.one_of('ceramic', 'wood', 'metal'), smooth=False)]
    if rng.random() < 0.5:
        skin = p.get('plastic')
        for _ in range(int(rng.integers(2, 7))):
            d = rng.uniform(0.06, 0.085)
            x, y = rng.uniform(-0.45, 0.45, 2) * r
            parts.append(ellipsoid((d, d, d * 0.95), (x, y, h * 0.5 + d / 2), skin))
    return join(parts)


def plate(p: Palette, rng: Rng) -> Mesh:
    """Build a plate, sometimes with food."""
    r = rng.uniform(0.09, 0.14)
    parts = [lathe([[0, 0], [0.6 * r, 0], [r, 0.018], [r, 0.022], [0.62 * r, 0.006], [0, 0.006]],
                   (0, 0, 0), p.get('ceramic'))]
    if rng.random() < 0.4:
        parts.append(ellipsoid((r, 0.8 * r, 0.05), (0, 0, 0.02), p.get('plastic')))
    return join(parts)


def tin(p: Palette, rng: Rng) -> Mesh:
    """Build a printed tin or jar."""
    r, h = rng.uniform(0.03, 0.06), rng.uniform(0.06, 0.16)
    return join([cylinder(r, h, (0, 0, 0), p.get('metal'), sides=18),
                 lathe([[r * 1.01, 0.05 * h], [r * 1.01, 0.93 * h]], (0, 0, 0),
                       p.get('packaging'), sides=18)]).moved(yaw=rng.uniform(0, 6))


def carton(p: Palette, rng: Rng) -> Mesh:
    """Build a printed package."""
    size = rng.uniform([0.05, 0.03, 0.06], [0.25, 0.16, 0.28])
    return box(size, (0, 0, size[2] / 2), p.get('packaging'), fit=True)


def case(p: Palette, rng: Rng) -> Mesh:
    """Build a cardboard box, open or closed."""
    size = rng.uniform([0.22, 0.2, 0.14], [0.6, 0.5, 0.5])
    m = p.get('cardboard')
    if rng.random() < 0.7:
        return box(size, (0, 0, size[2] / 2), m, fit=True)
    return join([tray(size, m, 0.006), *(
        panel((s * size[0] / 2, -size[1] / 2, size[2]), (s * size[0] * 0.3, 0, 0.08),
              (0, size[1], 0), m) for s in (-1, 1))])


def tray(size: np.ndarray, material: int, wall: float) -> Mesh:
    """
    Build an open box of outer size [3] and thickness `wall`, m.

    Returns
    -------
    Mesh
    """
    x, y, z = size
    return boxes([[x, y, wall], [x, wall, z], [x, wall, z], [wall, y, z], [wall, y, z]],
                 [[0, 0, wall / 2], [0, -y / 2 + wall / 2, z / 2], [0, y / 2 - wall / 2, z / 2],
                  [-x / 2 + wall / 2, 0, z / 2], [x / 2 - wall / 2, 0, z / 2]], material)


def tote(p: Palette, rng: Rng) -> Mesh:
    """Build an open plastic crate."""
    size = rng.uniform([0.3, 0.25, 0.12], [0.6, 0.4, 0.35])
    return tray(size, p.get('plastic'), 0.012)


def book_stack(p: Palette, rng: Rng) -> Mesh:
    """Build a stack of books."""
    n = int(rng.integers(1, 6))
    sizes = rng.uniform([0.13, 0.18, 0.012], [0.22, 0.3, 0.045], (n, 3))
    z = np.cumsum(sizes[:, 2]) - sizes[:, 2] / 2
    centers = np.stack([rng.normal(0, 0.008, n), rng.normal(0, 0.008, n), z], -1)
    yaw = rng.normal(0, 0.15, n)
    covers = [p.get('book') for _ in range(n)]
    return boxes(sizes * [1, 1, 0.98], centers, covers, yaws=yaw)


def laptop(p: Palette, rng: Rng) -> Mesh:
    """Build an open laptop."""
    w, d = rng.uniform(0.3, 0.38), rng.uniform(0.21, 0.26)
    body = p.one_of('metal', 'black')
    lean = rng.uniform(0.1, 0.5)
    up = np.array([0, -np.sin(lean), np.cos(lean)]) * d
    hinge = np.array([-w / 2, -d / 2, 0.018])
    lid = panel(hinge, (w, 0, 0), up, body)
    glow = p.emissive([0.6, 0.62, 0.65], 'screen')
    face = panel(hinge + [w * 0.97, 0.004, 0.01], (-w * 0.94, 0, 0), up * 0.94, glow)
    keys = boxes((0.014, 0.012, 0.003),
                 [[(i % 12 - 5.5) * w * 0.075, (i // 12) * 0.018 - 0.04, 0.019]
                  for i in range(48)], p.get('black'))
    return join([box((w, d, 0.018), (0, 0, 0.009), body), lid, face, keys])


def monitor(p: Palette, rng: Rng) -> Mesh:
    """Build a monitor on its foot, on or off."""
    w = rng.uniform(0.45, 0.75)
    h = w * 0.58
    black = p.get('black')
    glow = p.emissive(np.full(3, rng.uniform(0.5, 1.2)), 'screen') if rng.random() < 0.6 else (
        p.get('black'))
    return join([box((w, 0.03, h), (0, 0, 0.12 + h / 2), black),
                 panel((w * 0.48, 0.017, 0.13), (-w * 0.96, 0, 0), (0, 0, h * 0.95), glow),
                 box((0.05, 0.03, 0.16), (0, -0.03, 0.1), black),
                 box((0.22, 0.16, 0.015), (0, -0.01, 0.0075), black)])


def keyboard(p: Palette, rng: Rng) -> Mesh:
    """Build a keyboard with its keys."""
    m = p.one_of('black', 'plastic', 'paint')
    at = [[(i % 15 - 7) * 0.028, (i // 15 - 2) * 0.025, 0.022] for i in range(75)]
    return join([box((0.44, 0.14, 0.018), (0, 0, 0.009), m),
                 boxes((0.024, 0.021, 0.008), at, p.one_of('black', 'paper'))])


def table_lamp(p: Palette, rng: Rng) -> Mesh:
    """Build a lamp with a foot and a shade."""
    h, r = rng.uniform(0.35, 0.55), rng.uniform(0.1, 0.18)
    foot = lathe([[0, 0], [0.07, 0], [0.06, 0.03], [0.02, 0.06], [0.035, h * 0.3],
                  [0.015, h * 0.55], [0.012, h * 0.7]], (0, 0, 0),
                 p.one_of('ceramic', 'metal', 'wood'), smooth=True)
    shade = p.emissive(np.array([1.0, 0.85, 0.6]) * rng.uniform(0.5, 3), 'plain')
    return join([foot, lathe([[r, h * 0.6], [r * 0.65, h]], (0, 0, 0), shade)])


def vase(p: Palette, rng: Rng) -> Mesh:
    """Build a vase, with or without foliage."""
    h = rng.uniform(0.15, 0.35)
    t = np.linspace(0, 1, 9)
    radius = 0.055 + 0.035 * np.sin(t * rng.uniform(2, 6) + rng.uniform(0, 6))
    profile = np.concatenate([[[0, 0]], np.stack([radius, h * t], -1)])
    parts = [lathe(profile, (0, 0, 0), p.one_of('ceramic', 'plastic', 'metal'), smooth=True)]
    if rng.random() < 0.6:
        parts.append(foliage(p, rng, 0.28, int(rng.integers(12, 40)), 0.07).moved((0, 0, h)))
    return join(parts)


def flower_pot(p: Palette, radius: float, height: float, sides: int = 20) -> Mesh:
    """
    Build a flower pot of a radius and a height, m, filled up to 0.9 times its height.

    Returns
    -------
    Mesh
    """
    r, h = radius, height
    return lathe([[0, 0], [r * 0.75, 0], [r, h], [r * 0.9, h], [r * 0.85, h * 0.9], [0, h * 0.9]],
                 (0, 0, 0), p.one_of('ceramic', 'brick', 'plastic'), sides=sides)


def foliage(p: Palette, rng: Rng, radius: float, leaves: int, length: float) -> Mesh:
    """
    Build leaves on stems that spread upwards from the origin.

    Parameters
    ----------
    p, rng
        Palette and random generator.
    radius : float
        Reach of the stems, m.
    leaves : int
        Number of leaves.
    length : float
        Length of a leaf, m.

    Returns
    -------
    Mesh
    """
    m = p.get('leaf')
    azimuth = rng.uniform(0, 2 * np.pi, leaves)
    rise = rng.uniform(0.15, 1.45, leaves)
    reach = radius * rng.uniform(0.4, 1, leaves)
    width = rng.uniform(0.3, 0.6)
    parts = []
    t = np.linspace(0, 1, 4)
    outline = np.array([-1.0, 0.0, 1.0])
    for a, e, r in zip(azimuth, rise, reach):
        out, up = r * np.cos(e), r * np.sin(e)
        bend = 0.25 * r + 0.5 * length * np.cos(e)
        blade = np.sin(np.pi * np.clip(t * 0.92 + 0.06, 0, 1)) * length * width
        along = out + length * t * np.cos(e)
        height = up + length * t * np.sin(e) - bend * t ** 2 * 0.5
        points = np.stack([np.broadcast_to(along[:, None], (4, 3)), outline * blade[:, None],
                           height[:, None] - 0.15 * np.abs(outline * blade[:, None])], -1)
        parts.append(grid(points, m).moved(yaw=a))
        parts.append(rod((0, 0, 0), (out * np.cos(a), out * np.sin(a), up), 0.003, m, sides=3))
    return join(parts)


def toy_blocks(p: Palette, rng: Rng) -> Mesh:
    """Build coloured blocks, some of them stacked."""
    n = int(rng.integers(3, 9))
    s = rng.uniform(0.03, 0.06)
    place = rng.integers(-2, 3, (n, 2)) * s * 1.15
    level = np.array([sum(bool((place[j] == place[i]).all()) for j in range(i)) for i in range(n)])
    centers = np.concatenate([place, (level[:, None] + 0.5) * s], 1)
    return boxes(np.full((n, 3), s), centers, [p.get('plastic') for _ in range(n)],
                 yaws=rng.uniform(-0.3, 0.3, n))


def ball(p: Palette, rng: Rng) -> Mesh:
    """Build a ball."""
    d = rng.uniform(0.05, 0.24)
    return ellipsoid((d, d, d), (0, 0, d / 2), p.one_of('plastic', 'packaging', 'leather'), 3)


def papers(p: Palette, rng: Rng) -> Mesh:
    """Build loose sheets of paper."""
    n = int(rng.integers(1, 6))
    centers = np.stack([*rng.normal(0, 0.08, (2, n)), 0.001 + 0.0015 * np.arange(n)], -1)
    return boxes((0.21, 0.297, 0.001), centers,
                 [p.one_of('paper', 'packaging') for _ in range(n)],
                 yaws=rng.uniform(-1, 1, n), fit=True)


def pot(p: Palette, rng: Rng) -> Mesh:
    """Build a cooking pot with lid and handles."""
    r, h = rng.uniform(0.09, 0.14), rng.uniform(0.1, 0.2)
    m = p.one_of('metal', 'black', 'plastic')
    return join([cylinder(r, h, (0, 0, 0), m),
                 lathe([[r * 1.03, h], [r * 0.6, h * 1.1], [0, h * 1.13]], (0, 0, 0), m),
                 cylinder(0.015, 0.03, (0, 0, h * 1.12), p.get('black'), sides=8),
                 box((2 * r + 0.1, 0.04, 0.015), (0, 0, h * 0.8), p.get('black'))])


def tool(p: Palette, rng: Rng) -> Mesh:
    """Build a hand tool lying down: screwdriver, hammer or spanner."""
    length = rng.uniform(0.12, 0.28)
    grip, steel = p.get('plastic'), p.get('metal')
    parts = [rod((0, 0, 0.016), (length * 0.45, 0, 0.016), 0.014, grip),
             rod((length * 0.45, 0, 0.016), (length, 0, 0.016), 0.005, steel)]
    if rng.random() < 0.5:
        parts.append(box((0.03, 0.1, 0.03), (length, 0, 0.016), steel))
    return join(parts)


def part(p: Palette, rng: Rng) -> Mesh:
    """Build a machine part: flange, pipe, block or bracket."""
    m = p.one_of('metal', 'plastic', 'black', 'rust')
    s = rng.uniform(0.03, 0.09)
    shape = int(rng.integers(5))
    if shape == 0:
        return join([cylinder(s, s * 0.3, (0, 0, 0), m), cylinder(s / 2, s, (0, 0, 0), m)])
    if shape == 1:
        return rod((-s, 0, s * 0.3), (s, 0, s * 0.3), s * 0.3, m, sides=14)
    if shape == 2:
        return rounded_box((2 * s, s, s), (0, 0, s / 2), m, s * 0.2)
    if shape == 3:
        return boxes([[2 * s, s, 0.2 * s], [0.2 * s, s, s]], [[0, 0, 0.1 * s], [s, 0, s / 2]], m)
    t = np.linspace(0, 2 * np.pi, 13)
    ring = np.stack([s * np.cos(t), s * np.sin(t), 0 * t + s * 0.2], -1)
    return join([rod(a, b, s * 0.2, m, sides=6) for a, b in pairwise(ring)])


KITCHEN: tuple[Maker, ...] = (cup, bottle, bowl, plate, tin, carton, pot, cup, bottle, tin, carton)
DESK: tuple[Maker, ...] = (cup, book_stack, papers, carton, table_lamp, bottle, tin, laptop,
                           keyboard, vase)
LIVING: tuple[Maker, ...] = (cup, book_stack, vase, bowl, papers, bottle, carton, toy_blocks, ball)
WORKSHOP: tuple[Maker, ...] = (tool, part, tin, carton, case, part, tool, part, tote, bottle)
FLOOR: tuple[Maker, ...] = (toy_blocks, ball, book_stack, case, carton, tote, bottle, papers)


def public_makers(p: Palette, role: str) -> tuple[Maker, ...]:
    """
    Return the makers of public meshes of a role, none without assets; see `assets.ROLES`.

    Returns
    -------
    tuple of functions
    """
    return () if p.assets is None else p.assets.makers(role)


def scatter(p: Palette, rng: Rng, makers: tuple[Maker, ...], width: float, depth: float,
            count: int) -> list[Mesh]:
    """
    Scatter objects over a surface with little overlap.

    Parameters
    ----------
    p, rng
        Palette and random generator.
    makers : tuple of functions
        Functions to choose from.
    width, depth : float
        Size of the free surface around the origin, m.
    count : int
        Number of attempts.

    Returns
    -------
    list of Mesh
        Objects that stand on z = 0.
    """
    public = public_makers(p, 'small')
    placed: list[Mesh] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(count):
        pool = public if public and rng.random() < PUBLIC_SHARE else makers
        thing = pick(rng, pool)(p, rng)
        thing = thing.moved(yaw=rng.uniform(0, 2 * np.pi))
        low, high = thing.bounds
        centre, radius = (low + high) / 2, float(np.hypot(*(high - low)[:2])) / 2
        reach = np.array([width, depth]) / 2 - (high - low)[:2] / 2
        if (reach < 0).any():
            continue
        x, y = rng.uniform(-reach, reach)
        if all(np.hypot(x - a, y - b) > 0.8 * (radius + r) for a, b, r in taken):
            taken.append((x, y, radius))
            placed.append(thing.moved((x - centre[0], y - centre[1], 0)))
    return placed
