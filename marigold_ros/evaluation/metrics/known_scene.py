"""A scene whose obstacles and robot are known: what scene.json beside the sample drive says."""

from __future__ import annotations

from dataclasses import dataclass
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import pose

Matrix = NDArray[np.float64]

# What hangs on a wall or lies before it, and how deep doors and windows are set into it.
WALL_INSIDE_M, WALL_OUTSIDE_M = 0.15, 0.25
WALL = 'wall'


@dataclass(frozen=True, eq=False)
class KnownScene:
    """
    Obstacles of a room and the camera that drove through it, in m, frame map with z up.

    Attributes
    ----------
    names : tuple of str
        Of the obstacles; the last four are the walls.
    boxes_m : float64 [n, 2, 3]
        Lower and upper corner of each.
    base_from_camera : float64 [4, 4]
        Mounting of the camera's optical frame.
    map_from_base : dict of int to float64 [4, 4]
        Pose of the robot by stamp, ns.
    """

    names: tuple[str, ...]
    boxes_m: Matrix
    base_from_camera: Matrix
    map_from_base: dict[int, Matrix]

    def map_from_camera(self, stamp_ns: int) -> Matrix:
        """
        Give the pose of the camera's optical frame.

        Raises
        ------
        InputError
            If the trajectory has no such stamp.
        """
        base = self.map_from_base.get(stamp_ns)
        if base is None:
            raise InputError(f'the trajectory of the scene has no stamp {stamp_ns}')
        return np.asarray(base @ self.base_from_camera, np.float64)

    @property
    def extent_m(self) -> Matrix:
        """Lower and upper corner of all that is known, [2, 3]."""
        return np.stack([self.boxes_m[:, 0].min(axis=0), self.boxes_m[:, 1].max(axis=0)])


def read_known_scene(path: Path) -> KnownScene:
    """
    Read scene.json.

    Raises
    ------
    InputError
        If the file is missing, is no JSON or lacks a key.
    """
    try:
        scene = json.loads(path.read_text(encoding='utf-8'))
        camera = scene['camera']
        boxes = [(each['name'], each['min_m'], each['max_m']) for each in scene['obstacles']]
        boxes += _walls(*(np.array(scene['walls'][key]) for key in ('min_m', 'max_m')))
        return KnownScene(
            tuple(name for name, _, _ in boxes),
            np.array([corners for _, *corners in boxes], np.float64),
            pose(camera['xyz_m'], camera['quaternion_xyzw']),
            {each['stamp_ns']: pose(
                (each['x_m'], each['y_m'], 0.0),
                (0.0, 0.0, np.sin(each['yaw_rad'] / 2), np.cos(each['yaw_rad'] / 2)))
             for each in scene['trajectory']})
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise InputError(f'{path} must describe a scene as sample/scene.json does; got '
                         f'{type(err).__name__}: {err}') from err


def _walls(low: Matrix, high: Matrix) -> list[tuple[str, Matrix, Matrix]]:
    """Make a box of each of a room's four walls."""
    walls = []
    for axis in (0, 1):
        for at, inside in ((low[axis], 1), (high[axis], -1)):
            corners = np.stack([low, high])
            corners[:, :2] += np.array([[-WALL_OUTSIDE_M], [WALL_OUTSIDE_M]])
            faces = at - inside * WALL_OUTSIDE_M, at + inside * WALL_INSIDE_M
            corners[:, axis] = min(faces), max(faces)
            walls.append((WALL, corners[0], corners[1]))
    return walls
