"""Make walls with windows, doors, skirting boards, curtains and pictures."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenes.bodies import grid
from scenes.draws import Rng
from scenes.materials import Palette
from scenes.meshes import box, boxes, Floats, join, Mesh, panel, rotation_z
from scenes.scene_types import Light

THICKNESS_M = 0.16


@dataclass(frozen=True)
class Opening:
    """A window, door or passage: along a wall from `left` to `right`, m, from `low` to `high`."""

    kind: str
    left: float
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class Wall:
    """
    A wall; its frame has x along the wall, y into the room and the wall's face at y = 0.

    Attributes
    ----------
    origin : [3] float32
        Origin of the wall's frame in the map frame, m.
    yaw : float
        Direction of its x axis in the map frame, radians.
    length, height : float
        Metres.
    openings : tuple of Opening
    """

    origin: Floats
    yaw: float
    length: float
    height: float
    openings: tuple[Opening, ...] = ()

    def to_map(self, mesh: Mesh) -> Mesh:
        """
        Transform a mesh from the wall's frame to the map frame.

        Returns
        -------
        Mesh
        """
        return mesh.moved(self.origin, self.yaw)

    def is_clear(self, left: float, right: float, low: float, high: float) -> bool:
        """Check that a rectangle of the wall covers no opening; metres."""
        return not any(left < o.right and o.left < right and low < o.high and o.low < high
                       for o in self.openings)


def wall_mesh(wall: Wall, surface: int, skirting: int) -> Mesh:
    """
    Build the wall around its openings, with skirting boards.

    Returns
    -------
    Mesh
        In the map frame.
    """
    sizes, centers, boards, board_centers = [], [], [], []

    def piece(left: float, right: float, low: float, high: float) -> None:
        if right - left > 1e-3 and high - low > 1e-3:
            sizes.append((right - left, THICKNESS_M, high - low))
            centers.append(((left + right) / 2, -THICKNESS_M / 2, (low + high) / 2))

    def board(left: float, right: float) -> None:
        if right - left > 1e-3:
            boards.append((right - left, 0.015, 0.08))
            board_centers.append(((left + right) / 2, 0.0075, 0.04))

    at = board_at = 0.0
    for o in sorted(wall.openings, key=lambda o: o.left):
        piece(at, o.left, 0, wall.height)
        piece(o.left, o.right, 0, o.low)
        piece(o.left, o.right, o.high, wall.height)
        at = o.right
        if o.low < 0.05:
            board(board_at, o.left)
            board_at = o.right
    piece(at, wall.length, 0, wall.height)
    board(board_at, wall.length)
    return wall.to_map(join([boxes(sizes, centers, surface),
                             boxes(boards, board_centers, skirting)]))


def window_mesh(p: Palette, rng: Rng, o: Opening) -> Mesh:
    """
    Build a window with frame, bars, sill and perhaps curtains or a blind, in the wall's frame.

    Returns
    -------
    Mesh
    """
    frame = p.one_of('ceramic', 'wood', 'black')
    w, h, x, z = o.right - o.left, o.high - o.low, (o.left + o.right) / 2, (o.low + o.high) / 2
    y, t = -THICKNESS_M * 0.6, 0.06
    bars = int(rng.integers(0, 3)) if w > 0.8 else 0
    uprights = np.linspace(o.left + t / 2, o.right - t / 2, bars + 2)
    parts = [boxes((t, 0.05, h), [(u, y, z) for u in uprights], frame),
             boxes((w, 0.05, t), [(x, y, o.low + t / 2), (x, y, o.high - t / 2)], frame)]
    if o.low > 0.2:
        parts.append(box((w + 0.1, 0.2, 0.03), (x, 0.0, o.low - 0.012), frame))
    dress = rng.random()
    if dress < 0.45:
        parts += [curtain(p, rng, o, side) for side in (-1, 1)]
    elif dress < 0.6:
        n = int(h * rng.uniform(0.3, 1.0) / 0.05)
        parts.append(boxes((w, 0.035, 0.003),
                           [(x, 0.03, o.high - 0.05 * i) for i in range(max(n, 1))], frame))
    return join(parts)


def curtain(p: Palette, rng: Rng, o: Opening, side: int) -> Mesh:
    """
    Build a wavy curtain at one side of a window (-1: left, 1: right), in the wall's frame.

    Returns
    -------
    Mesh
    """
    width = (o.right - o.left) * rng.uniform(0.12, 0.35) + 0.12
    edge = o.left - 0.12 if side < 0 else o.right + 0.12 - width
    low = 0.03 if rng.random() < 0.7 else o.low - 0.1
    u, v = np.meshgrid(np.linspace(0, 1, 40), [0.0, 1.0])
    folds = max(2, int(width / 0.11))
    y = 0.09 + 0.035 * np.sin(2 * np.pi * folds * u) * (0.7 + 0.3 * (1 - v))
    # Columns run along -x, so that the front faces the room.
    points = np.stack([edge + width * (1 - u), y, low + v * (o.high + 0.1 - low)], -1)
    return grid(points, p.get('fabric'))


def window_light(wall: Wall, o: Opening, radiance: Floats) -> Light:
    """
    Make a light that emits the radiance of the sky through a window.

    Returns
    -------
    Light
    """
    turn = rotation_z(wall.yaw)
    centre = np.array([(o.left + o.right) / 2, -0.5 * THICKNESS_M, (o.low + o.high) / 2],
                      np.float32)
    return Light('rect', turn @ centre + wall.origin, radiance,
                 u=turn @ np.array([0, 0, o.high - o.low], np.float32),
                 v=turn @ np.array([o.right - o.left, 0, 0], np.float32))


def door_mesh(p: Palette, rng: Rng, o: Opening) -> Mesh:
    """
    Build a door with frame, panels and handle, closed or ajar, in the wall's frame.

    Returns
    -------
    Mesh
    """
    frame, leaf = door_parts(p, rng, o)
    swing = 0.0 if rng.random() < 0.7 else rng.uniform(0.2, 1.4)
    return join([frame, leaf.moved(hinge(o), swing)])


def hinge(o: Opening) -> tuple[float, float, float]:
    """
    Return the foot of the axis about which a door turns, in the wall's frame, m.

    Returns
    -------
    (float, float, float)
    """
    return o.left, -0.06, 0.0


def door_parts(p: Palette, rng: Rng, o: Opening) -> tuple[Mesh, Mesh]:
    """
    Build the frame of a door, in the wall's frame, and its leaf with the hinge at the origin.

    Returns
    -------
    frame, leaf : Mesh
    """
    m = p.one_of('wood', 'paint', 'paint')
    w, h, x = o.right - o.left, o.high, (o.left + o.right) / 2
    frame = boxes([[0.07, 0.2, h], [0.07, 0.2, h], [w + 0.14, 0.2, 0.07]],
                  [[o.left - 0.03, -0.07, h / 2], [o.right + 0.03, -0.07, h / 2],
                   [x, -0.07, h + 0.03]], m, upright=True)
    leaf = [box((w, 0.04, h), (w / 2, 0, h / 2), m, upright=True)]
    inset = p.one_of('paint', 'wood') if rng.random() < 0.3 else m
    for low, high in ((0.15, 0.9), (1.1, h - 0.15)):
        leaf.append(box((w * 0.66, 0.055, high - low), (w / 2, 0, (low + high) / 2), inset,
                        upright=True))
    leaf.append(boxes([[0.12, 0.09, 0.02], [0.03, 0.06, 0.16]],
                      [[w - 0.1, 0.02, 1.02], [w - 0.06, 0.02, 1.02]], p.get('metal')))
    return frame, join(leaf)


def picture_mesh(p: Palette, rng: Rng, width: float, height: float) -> Mesh:
    """
    Build a framed picture on the plane y = 0, centred at x = 0, z = 0.

    Returns
    -------
    Mesh
    """
    frame = p.one_of('wood', 'black', 'metal', 'paint')
    b = rng.uniform(0.01, 0.05)
    return join([boxes([[width, 0.03, b], [width, 0.03, b], [b, 0.03, height], [b, 0.03, height]],
                       [[0, 0.015, height / 2 - b / 2], [0, 0.015, b / 2 - height / 2],
                        [-width / 2 + b / 2, 0.015, 0], [width / 2 - b / 2, 0.015, 0]], frame),
                 panel((width / 2, 0.012, -height / 2), (-width, 0, 0), (0, 0, height),
                       p.get('picture'))])
