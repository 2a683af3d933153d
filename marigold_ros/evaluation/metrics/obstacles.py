"""
How well a robot's costmap, fed with the clouds of a drive, shows the obstacles that are there.

Clouds mark and clear `costmap.ObstacleLayer`; what stands in the room is known from a file as
sample/scene.json.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.costmap import FREE, LayerConfig, LETHAL, ObstacleLayer
from marigold_ros.geometry.unproject import unproject

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

Matrix = NDArray[np.float64]
# Name of each obstacle, and its lower and upper corner, m, [2, 3].
Scene = list[tuple[str, Matrix]]

# What hangs on a wall or lies before it, and how deep doors and windows are set into it.
WALL_INSIDE_M, WALL_OUTSIDE_M = 0.15, 0.25
WALL = 'wall'
# A true point belongs to a box that is this near, m: depth is stored in mm, edges lie between.
BOX_M = 0.02
# A cell belongs to a box if its centre is this near, m: BOX_M and half a cell of 0.05 m.
CELL_M = 0.05
# So many of the cloud's points must hit an obstacle for it to count as seen.
SEEN_POINTS = 20
MAP_MARGIN_M = 1.0


def read_scene(path: Path) -> Scene:
    """
    Read what stands in a room: keys `obstacles` and `walls` of a file as sample/scene.json.

    Returns
    -------
    Scene
        In a frame with z up whose floor is at 0; the last four are the walls.

    Raises
    ------
    InputError
        If the file is missing, is no JSON, lacks a key, or a corner is not three numbers.
    """
    try:
        scene = json.loads(path.read_text(encoding='utf-8'))
        boxes = [(str(each['name']), _corners(each)) for each in scene['obstacles']]
        return boxes + _walls(_corners(scene['walls']))
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise InputError(f'`scene` must be a file that describes a room as sample/scene.json '
                         f'does; got {path}: {type(err).__name__}: {err}') from err


def _corners(box: dict[str, list[float]]) -> Matrix:
    corners = np.array([box['min_m'], box['max_m']], np.float64)
    if corners.shape != (2, 3) or not (corners[0] <= corners[1]).all():
        raise ValueError(f'min_m and max_m must be three numbers, and min_m not above max_m; '
                         f'got {box["min_m"]} and {box["max_m"]}')
    return corners


def _walls(room: Matrix) -> Scene:
    """Make a box of each of a room's four walls."""
    walls = []
    for axis in (0, 1):
        for at, inside in ((room[0, axis], 1), (room[1, axis], -1)):
            corners = room.copy()
            corners[:, :2] += np.array([[-WALL_OUTSIDE_M], [WALL_OUTSIDE_M]])
            faces = at - inside * WALL_OUTSIDE_M, at + inside * WALL_INSIDE_M
            corners[:, axis] = min(faces), max(faces)
            walls.append((WALL, corners))
    return walls


class ObstacleScorer:
    """
    Feeds a costmap with the clouds of a drive and keeps the score.

    Parameters
    ----------
    scene : Scene
    config : LayerConfig
    """

    def __init__(self, scene: Scene, config: LayerConfig) -> None:
        """Start with a costmap of which nothing is known."""
        self._names = [name for name, _ in scene]
        self._boxes_m = np.array([corners for _, corners in scene])
        low = self._boxes_m[:, 0].min(axis=0) - MAP_MARGIN_M
        high = self._boxes_m[:, 1].max(axis=0) + MAP_MARGIN_M
        self._extent_m = np.stack([low[:2], high[:2]])
        self.layer = ObstacleLayer(config, (low[0], low[1]), (high[0], high[1]))
        centres = self.layer.centres_m()
        # Which cells belong to which box, [boxes, rows, columns].
        self._cells = np.array([_outside(centres, box[:, :2]) <= CELL_M for box in self._boxes_m])
        self._rows: list[tuple[float, float, float, float]] = []

    def add(self, target_m: FloatImage, K: Matrix, map_from_camera: Matrix,
            points: FloatImage | None, stride: int) -> None:
        """
        Take one frame.

        Parameters
        ----------
        target_m : float32 [H, W]
            True depth, m; NaN is unknown.
        K : float64 [3, 3]
            Intrinsics, px.
        map_from_camera : float64 [4, 4]
            Pose of the optical frame in that of the boxes.
        points : float32 [h, w, 3] or None
            The cloud's, in the optical frame, m, at every `stride`th pixel; None without metres.
        stride : int

        Raises
        ------
        InputError
            If the camera is outside the scene.
        """
        at_m = map_from_camera[:2, 3]
        if not (np.abs(at_m - self._extent_m.mean(axis=0)) < np.ptp(self._extent_m, axis=0) / 2
                ).all():
            raise InputError(
                '`scene` must surround the camera, in the frame of its poses; the camera is at '
                f'{at_m.round(2).tolist()} m, the scene reaches from '
                f'{self._extent_m[0].tolist()} to {self._extent_m[1].tolist()} m')
        true = unproject(target_m, K, stride=stride).reshape(-1, 3)
        true = true @ map_from_camera[:3, :3].T + map_from_camera[:3, 3]
        cloud = None
        if points is not None:
            # In float32, as tf2 transforms a PointCloud2.
            rotation, origin = (part.astype(np.float32) for part in
                                (map_from_camera[:3, :3], map_from_camera[:3, 3]))
            cloud = points.reshape(-1, 3) @ rotation.T + origin
            self.layer.update(cloud, map_from_camera[:3, 3])
        in_view = [self._in_view(box, K, target_m.shape[1], map_from_camera)
                   for box in self._boxes_m]
        self._rows.append(self._judge(true, cloud, map_from_camera[:3, 3], in_view))

    def scores(self) -> dict[str, float]:
        """
        Average over the frames of the drive; NaN is what never could be judged.

        Returns
        -------
        dict of str to float
            `recall`, share of the obstacles in view and in range of which the costmap has a
            lethal cell; `precision`, share of the lethal cells that lie in an obstacle or a wall;
            `floor_free`, share of the floor's cells in view that are free; `distance_m`, error of
            the distance in plan from the camera to the nearest point of an obstacle: in the
            cloud's pixels that see it, and to its box, where that point is in view.
        """
        table = np.array(self._rows, np.float64).reshape(-1, 4)
        known = ~np.isnan(table)
        means = np.where(known, table, 0.0).sum(axis=0) / np.where(known.any(axis=0),
                                                                   known.sum(axis=0), np.nan)
        return dict(zip(('recall', 'precision', 'floor_free', 'distance_m'), means.tolist()))

    def _judge(self, true: Matrix, cloud: NDArray[np.float32] | None, origin: Matrix,
               in_view: list[bool]) -> tuple[float, float, float, float]:
        """Recall, precision, free floor and distance after one frame."""
        lethal = self.layer.costs == LETHAL
        found, errors = [], []
        for name, box, cells, pixels, visible in zip(
                self._names, self._boxes_m, self._cells, self._seen(true, origin), in_view):
            if pixels.sum() < SEEN_POINTS:
                continue
            found.append((lethal & cells).any())
            if (name != WALL and cloud is not None and visible
                    and np.isfinite(cloud[pixels, 0]).any()):
                range_m = np.nanmin(np.hypot(*(cloud[pixels] - origin)[:, :2].T))
                errors.append(abs(range_m - _outside(origin[:2], box[:, :2])))
        explained = lethal & self._cells.any(axis=0)
        floor = self._floor(true, origin)
        return (float(np.mean(found)) if found else np.nan,
                float(explained.sum() / lethal.sum()) if lethal.any() else np.nan,
                float((self.layer.costs[floor] == FREE).mean()) if floor.any() else np.nan,
                float(np.mean(errors)) if errors else np.nan)

    def _seen(self, true: Matrix, origin: Matrix) -> Iterator[NDArray[np.bool_]]:
        """Tell, for each box, which pixels see it where it marks; a pixel sees the first alone."""
        config = self.layer.config
        range_m = np.hypot(*(true - origin)[:, :2].T)
        with np.errstate(invalid='ignore'):
            left = ((true[:, 2] >= config.min_obstacle_height)
                    & (true[:, 2] <= config.max_obstacle_height)
                    & (range_m >= config.obstacle_min_range)
                    & (range_m <= config.obstacle_max_range))
            for low, high in self._boxes_m:
                inside = (true >= low - BOX_M) & (true <= high + BOX_M)
                pixels = left & inside.all(axis=1)
                left &= ~pixels
                yield pixels

    def _floor(self, true: Matrix, origin: Matrix) -> NDArray[np.bool_]:
        """Find the cells where floor is seen, nothing stands and rays reach, [rows, columns]."""
        range_m = np.hypot(*(true - origin)[:, :2].T)
        # A cell less than the reach of the rays, which counts whole cells.
        reach_m = self.layer.config.raytrace_max_range - self.layer.config.resolution
        with np.errstate(invalid='ignore'):
            floor = true[(np.abs(true[:, 2]) <= BOX_M) & (range_m <= reach_m)]
        inside, cells = self.layer.cells(floor[:, :2])
        seen = np.zeros(self.layer.costs.shape, np.bool_)
        seen[cells[inside, 1], cells[inside, 0]] = True
        return np.asarray(seen & ~self._cells.any(axis=0), np.bool_)

    @staticmethod
    def _in_view(box: Matrix, K: Matrix, width: int, map_from_camera: Matrix) -> bool:
        """Tell whether the nearest point of a box lies between the image's left and right."""
        origin = map_from_camera[:3, 3]
        nearest = np.append(np.clip(origin[:2], box[0, :2], box[1, :2]), origin[2])
        x, _, z = (nearest - origin) @ map_from_camera[:3, :3]
        return bool(z > 0 and 0 <= K[0, 0] * x / z + K[0, 2] < width)


def _outside(xy: NDArray[np.floating], box: Matrix) -> Matrix:
    """Measure how far positions [..., 2] are outside a rectangle [2, 2], m."""
    return np.asarray(np.hypot(*np.moveaxis(
        np.maximum(np.maximum(box[0] - xy, xy - box[1]), 0.0), -1, 0)), np.float64)
