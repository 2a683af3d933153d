"""
Score how well a costmap built from point clouds represents the obstacles of a known scene.

The clouds mark and clear cells of a `costmap.ObstacleLayer`.  The obstacles are described in a
JSON file such as sample/scene.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.metrics.costmap import (
    FREE,
    LayerConfig,
    LETHAL,
    Observation,
    ObstacleLayer,
)
from marigold_ros.evaluation.metrics.obstacle_map import ObstacleMap, SCENE
from marigold_ros.geometry.unproject import unproject

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage

Matrix = NDArray[np.float64]
# Name of each obstacle, and its lower and upper corner, m, [2, 3].
ObstacleBoxes = list[tuple[str, Matrix]]

# Thickness of a wall's box: inwards for objects on the wall, outwards for doors and windows.
WALL_INSIDE_M, WALL_OUTSIDE_M = 0.15, 0.25
WALL = 'wall'
# A true point this close to a box belongs to it: depth is rounded to mm and blurred at edges.
BOX_TOLERANCE_M = 0.02
# A cell whose centre is this close to a box belongs to it: BOX_TOLERANCE_M + half a 0.05 m cell.
CELL_TOLERANCE_M = 0.05
SCORES = ('recall', 'cell_recall', 'precision', 'floor_free', 'distance_m')
# An obstacle is visible if at least this many true points lie on it.
MIN_VISIBLE_POINTS = 20
MAP_MARGIN_M = 1.0


def read_scene(path: Path) -> ObstacleBoxes:
    """
    Read the obstacles and the walls of a room from a file such as sample/scene.json.

    Returns
    -------
    ObstacleBoxes
        Boxes in a frame whose z axis points up and whose floor is at z = 0; the last four are the
        walls.

    Raises
    ------
    InputError
        If the file is missing, is not JSON, lacks a key, or a corner is not three numbers.
    """
    try:
        scene = json.loads(path.read_text(encoding='utf-8'))
        boxes = [(str(each['name']), _parse_box(each)) for each in scene['obstacles']]
        return boxes + _wall_boxes(_parse_box(scene['walls']))
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise InputError(f'`scene` must be a file that describes a room as sample/scene.json '
                         f'does; got {path}: {type(err).__name__}: {err}') from err


def _parse_box(box: dict[str, list[float]]) -> Matrix:
    corners = np.array([box['min_m'], box['max_m']], np.float64)
    if corners.shape != (2, 3) or not (corners[0] <= corners[1]).all():
        raise ValueError(f'min_m and max_m must be three numbers, and min_m not above max_m; '
                         f'got {box["min_m"]} and {box["max_m"]}')
    return corners


def _wall_boxes(room: Matrix) -> ObstacleBoxes:
    """Return a box for each of the four walls of a room."""
    walls = []
    for axis in (0, 1):
        for position, inside in ((room[0, axis], 1), (room[1, axis], -1)):
            corners = room.copy()
            corners[:, :2] += np.array([[-WALL_OUTSIDE_M], [WALL_OUTSIDE_M]])
            faces = position - inside * WALL_OUTSIDE_M, position + inside * WALL_INSIDE_M
            corners[:, axis] = min(faces), max(faces)
            walls.append((WALL, corners))
    return walls


class ObstacleScorer:
    """
    Update a costmap with the clouds of a sequence and score it after each frame.

    Parameters
    ----------
    scene : ObstacleBoxes
    config : LayerConfig
        Of the layer with our cloud.
    sensor_config : LayerConfig or None
        Of the layer with the cloud of another sensor; None: the same.
    """

    def __init__(self, scene: ObstacleBoxes, config: LayerConfig,
                 sensor_config: LayerConfig | None = None) -> None:
        """Start with a costmap whose cells are all unknown."""
        self._sensor_config = sensor_config or config
        self._names = _number([name for name, _ in scene])
        self._is_wall = [name == WALL for name, _ in scene]
        self._boxes_m = np.array([corners for _, corners in scene])
        low = self._boxes_m[:, 0].min(axis=0) - MAP_MARGIN_M
        high = self._boxes_m[:, 1].max(axis=0) + MAP_MARGIN_M
        self._extent_m = np.stack([low[:2], high[:2]])
        self.layer = ObstacleLayer(config, (low[0], low[1]), (high[0], high[1]))
        centres = self.layer.cell_centres_m()
        # Whether a cell belongs to a box, [boxes, rows, columns].
        self._cells = np.array([_distance_to_rectangle_m(centres, box[:, :2]) <= CELL_TOLERANCE_M
                                for box in self._boxes_m])
        self.discard_scores()

    def add(self, target_m: FloatImage, K: Matrix, map_from_camera: Matrix,
            points: FloatImage | None, stride: int, *others: FloatImage) -> None:
        """
        Update the costmap with one frame and score it.

        Parameters
        ----------
        target_m : float32 [H, W]
            True depth, m; NaN is unknown.
        K : float64 [3, 3]
            Intrinsics, px.
        map_from_camera : float64 [4, 4]
            Pose of the optical frame in the frame of the boxes.
        points : float32 [h, w, 3] or None
            Point cloud in the optical frame, m, one point per `stride` pixels of each axis; None
            without metric depth.
        stride : int
        others : float32 [n, 3]
            Clouds of other sensors in view, in the optical frame, m.

        Raises
        ------
        InputError
            If the camera is outside the scene.
        """
        camera_m = map_from_camera[:2, 3]
        if not (np.abs(camera_m - self._extent_m.mean(axis=0))
                < np.ptp(self._extent_m, axis=0) / 2).all():
            raise InputError(
                '`scene` must surround the camera and use the frame of its poses; the camera is '
                f'at {camera_m.round(2).tolist()} m, the scene extends from '
                f'{self._extent_m[0].tolist()} to {self._extent_m[1].tolist()} m')
        self._path_m.append(camera_m)
        true = unproject(target_m, K, stride=stride).reshape(-1, 3)
        true = true @ map_from_camera[:3, :3].T + map_from_camera[:3, 3]
        # In float32, as tf2 transforms a PointCloud2.
        rotation, origin = (part.astype(np.float32) for part in
                            (map_from_camera[:3, :3], map_from_camera[:3, 3]))
        cloud = None if points is None else points.reshape(-1, 3) @ rotation.T + origin
        observations = [] if cloud is None else [
            Observation(cloud, map_from_camera[:3, 3], self.layer.config)]
        self.layer.update_from(observations + [
            Observation(each @ rotation.T + origin, map_from_camera[:3, 3], self._sensor_config)
            for each in others])
        in_view = [self._nearest_point_in_view(box, K, target_m.shape[1], map_from_camera)
                   for box in self._boxes_m]
        self._rows.append(self._score_frame(true, cloud, map_from_camera[:3, 3], in_view))

    def discard_scores(self) -> None:
        """Forget the scores and the way so far, but not the costmap."""
        self._rows: list[tuple[float, ...]] = []
        self._path_m: list[Matrix] = []
        self._found: Counter[str] = Counter()
        self._visible: Counter[str] = Counter()
        # In how many frames a visible point of an obstacle is in a cell, and it is marked.
        self._seen, self._marked = np.zeros((2, *self.layer.costs.shape), np.int32)

    def extend(self, later: ObstacleScorer) -> None:
        """Add the scores of the part that follows; the costmap stays as it is."""
        self._rows += later._rows
        self._found += later._found
        self._visible += later._visible

    def scores(self) -> dict[str, Any]:
        """
        Average the scores over all frames; NaN where no frame had a value.

        Returns
        -------
        dict
            `recall`, share of the visible obstacles that have a lethal cell; `cell_recall`, share
            of the cells in which visible points of obstacles lie that are lethal; `precision`,
            share of the lethal cells that lie in an obstacle or a wall; `floor_free`, share of the
            visible floor cells that are free; `distance_m`, mean error of the horizontal distance
            from the camera to an obstacle, m: its nearest point in the cloud against its box, for
            obstacles whose nearest point is in view; `found`, for each obstacle the number of
            frames in which it has a lethal cell, and in which it is visible.
        """
        table = np.array(self._rows, np.float64).reshape(-1, len(SCORES))
        known = ~np.isnan(table)
        means = np.where(known, table, 0.0).sum(axis=0) / np.where(known.any(axis=0),
                                                                   known.sum(axis=0), np.nan)
        return {**dict(zip(SCORES, means.tolist())),
                'found': {name: {'found': self._found[name], 'visible': visible}
                          for name, visible in sorted(self._visible.items())}}

    def map(self) -> ObstacleMap | None:
        """Return the costmap after the last frame, compared with the scene; None without one."""
        return None if not self._path_m else ObstacleMap(
            self.layer.low_m, self.layer.config.resolution, self.layer.costs, self._seen,
            self._marked, np.asarray(self._cells.any(axis=0), np.bool_),
            np.array(self._path_m), SCENE,
            tuple(zip(self._names, self._boxes_m)), self._found.copy(), self._visible.copy())

    def _score_frame(self, true: Matrix, cloud: NDArray[np.float32] | None, origin: Matrix,
                     in_view: list[bool]) -> tuple[float, ...]:
        """Return the `SCORES` after one frame."""
        lethal = self.layer.costs == LETHAL
        found, errors = [], []
        shown = np.zeros_like(lethal)
        for name, is_wall, box, cells, pixels, visible in zip(
                self._names, self._is_wall, self._boxes_m, self._cells,
                self._visible_pixels(true, origin), in_view):
            if pixels.sum() < MIN_VISIBLE_POINTS:
                continue
            _, of_points = self.layer.world_to_cells(true[pixels, :2])
            shown[of_points[:, 1], of_points[:, 0]] = True
            found.append((lethal & cells).any())
            self._visible[name] += 1
            self._found[name] += int(found[-1])
            if (not is_wall and cloud is not None and visible
                    and np.isfinite(cloud[pixels, 0]).any()):
                range_m = np.nanmin(np.hypot(*(cloud[pixels] - origin)[:, :2].T))
                errors.append(abs(range_m - _distance_to_rectangle_m(origin[:2], box[:, :2])))
        self._seen += shown
        self._marked += shown & lethal
        explained = lethal & self._cells.any(axis=0)
        floor = self._visible_floor_cells(true, origin)
        return (float(np.mean(found)) if found else np.nan,
                float(lethal[shown].mean()) if shown.any() else np.nan,
                float(explained.sum() / lethal.sum()) if lethal.any() else np.nan,
                float((self.layer.costs[floor] == FREE).mean()) if floor.any() else np.nan,
                float(np.mean(errors)) if errors else np.nan)

    def _visible_pixels(self, true: Matrix, origin: Matrix) -> Iterator[NDArray[np.bool_]]:
        """
        Yield the pixels that show each box within the range in which the farthest source marks.

        A pixel in two boxes counts for the first.
        """
        config = self._sensor_config
        range_m = np.hypot(*(true - origin)[:, :2].T)
        with np.errstate(invalid='ignore'):
            remaining = ((true[:, 2] >= config.min_obstacle_height)
                         & (true[:, 2] <= config.max_obstacle_height)
                         & (range_m >= config.obstacle_min_range)
                         & (range_m <= config.obstacle_max_range))
            for low, high in self._boxes_m:
                inside = (true >= low - BOX_TOLERANCE_M) & (true <= high + BOX_TOLERANCE_M)
                pixels = remaining & inside.all(axis=1)
                remaining &= ~pixels
                yield pixels

    def _visible_floor_cells(self, true: Matrix, origin: Matrix) -> NDArray[np.bool_]:
        """Find visible floor cells within clearing range and without a box, [rows, columns]."""
        range_m = np.hypot(*(true - origin)[:, :2].T)
        # One cell less than the range of the rays, which is rounded to whole cells.
        reach_m = self._sensor_config.raytrace_max_range - self.layer.config.resolution
        with np.errstate(invalid='ignore'):
            floor = true[(np.abs(true[:, 2]) <= BOX_TOLERANCE_M) & (range_m <= reach_m)]
        inside, cells = self.layer.world_to_cells(floor[:, :2])
        seen = np.zeros(self.layer.costs.shape, np.bool_)
        seen[cells[inside, 1], cells[inside, 0]] = True
        return np.asarray(seen & ~self._cells.any(axis=0), np.bool_)

    @staticmethod
    def _nearest_point_in_view(box: Matrix, K: Matrix, width: int,
                               map_from_camera: Matrix) -> bool:
        """Check whether the nearest point of a box lies within the image horizontally."""
        origin = map_from_camera[:3, 3]
        nearest = np.append(np.clip(origin[:2], box[0, :2], box[1, :2]), origin[2])
        x, _, z = (nearest - origin) @ map_from_camera[:3, :3]
        return bool(z > 0 and 0 <= K[0, 0] * x / z + K[0, 2] < width)


def _number(names: list[str]) -> list[str]:
    """Return names that differ: chair 1, chair 2."""
    counts, seen = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f'{name} {seen[name]}' if counts[name] > 1 else name)
    return numbered


def _distance_to_rectangle_m(xy: NDArray[np.floating], box: Matrix) -> Matrix:
    """Compute the distance of positions [..., 2] to a rectangle [2, 2], m; 0 inside."""
    return np.asarray(np.hypot(*np.moveaxis(
        np.maximum(np.maximum(box[0] - xy, xy - box[1]), 0.0), -1, 0)), np.float64)
