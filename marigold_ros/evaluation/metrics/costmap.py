"""Reimplementation of Nav2's obstacle layer (nav2_costmap_2d::ObstacleLayer) on a fixed grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
import yaml

from marigold_ros.depth.errors import ConfigError, InputError

FREE, LETHAL, UNKNOWN = 0, 254, 255
# raytraceFreespace() shortens a ray that leaves the map to end this far inside the border.
BORDER_MARGIN_M = 0.001

Cells = NDArray[np.int64]


@dataclass(frozen=True)
class LayerConfig:
    """
    Parameters of an obstacle layer and one of its observation sources, with Nav2's names, in m.

    Attributes
    ----------
    resolution : float
        Cell size of the costmap.
    min_obstacle_height, max_obstacle_height : float
        Of the layer: only points between these heights mark cells.
    source_min_height, source_max_height : float
        min_obstacle_height and max_obstacle_height of the source: other points are discarded.
    obstacle_min_range, obstacle_max_range : float
        Of the source: only points between these ranges mark cells.
    raytrace_max_range : float
        Of the source: rays clear cells up to this range; 0 if it does not clear.
    """

    resolution: float
    min_obstacle_height: float
    max_obstacle_height: float
    source_min_height: float
    source_max_height: float
    obstacle_min_range: float
    obstacle_max_range: float
    raytrace_max_range: float


COSTMAP, LAYER, CAMERA_SOURCE = 'global_costmap', 'obstacle_layer', 'depth_cloud'


def read_layer_config(path: Path, source: str = CAMERA_SOURCE) -> LayerConfig:
    """
    Read the parameters of an obstacle layer and a source of it from a Nav2 parameter file.

    Raises
    ------
    ConfigError
        If the layer or the source is missing, a key is missing, or raytrace_min_range is not 0.
    """
    try:
        parameters = yaml.safe_load(path.read_text(encoding='utf-8'))[COSTMAP][COSTMAP][
            'ros__parameters']
        settings: dict[str, Any] = parameters[LAYER]
        if source not in settings['observation_sources'].split():
            raise KeyError(f'{source} in observation_sources')
        own: dict[str, Any] = settings[source]
        config = LayerConfig(
            parameters['resolution'], settings['min_obstacle_height'],
            settings['max_obstacle_height'], own['min_obstacle_height'],
            own['max_obstacle_height'], own['obstacle_min_range'],
            own['obstacle_max_range'], own['raytrace_max_range'] if own['clearing'] else 0.0)
    except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError) as err:
        raise ConfigError(f'{path} must contain {COSTMAP}.{LAYER} with the source {source} and '
                          f'all its keys; got {type(err).__name__}: {err}') from err
    if own.get('raytrace_min_range', 0.0) != 0.0:
        raise ConfigError(f'`raytrace_min_range` must be 0 in {path}; '
                          f'got {own["raytrace_min_range"]}')
    return config


@dataclass(frozen=True, eq=False)
class Observation:
    """
    A point cloud of one source.

    Attributes
    ----------
    points : float32 [n, 3]
        In the map frame, m; the height filter discards NaN, as every comparison with it fails.
    origin : float64 [3]
        Position of the sensor in the map frame, m.
    config : LayerConfig
    """

    points: NDArray[np.float32]
    origin: NDArray[np.float64]
    config: LayerConfig

    def seen_points(self) -> NDArray[np.float32]:
        """Return the points between the heights of the source, float32 [m, 3]."""
        z = self.points[:, 2]
        return self.points[(z >= self.config.source_min_height)
                           & (z <= self.config.source_max_height)]


class ObstacleLayer:
    """
    A costmap in which point clouds mark and clear cells.

    It follows obstacle_layer.cpp and observation_buffer.cpp of Nav2.

    Parameters
    ----------
    config : LayerConfig
        Of the layer, and of the source of `update`.
    min_m, max_m : (float, float)
        Lower and upper corner of the map (x, y), m.

    Attributes
    ----------
    costs : uint8 [rows, columns]
        FREE, LETHAL or UNKNOWN; rows along y, columns along x.

    Examples
    --------
    A point 0.25 m ahead of the sensor marks its cell and clears the cells before it:

    >>> import numpy as np
    >>> config = LayerConfig(resolution=0.1, min_obstacle_height=0.1, max_obstacle_height=1.5,
    ...                      source_min_height=-0.2, source_max_height=2.0,
    ...                      obstacle_min_range=0.1, obstacle_max_range=1.0,
    ...                      raytrace_max_range=1.0)
    >>> layer = ObstacleLayer(config, (0.0, 0.0), (0.4, 0.1))
    >>> layer.update(np.array([[0.3, 0.05, 0.5]], np.float32), np.array([0.05, 0.05, 0.4]))
    >>> layer.costs.tolist() == [[FREE, FREE, FREE, LETHAL]]
    True
    """

    def __init__(self, config: LayerConfig, min_m: tuple[float, float],
                 max_m: tuple[float, float]) -> None:
        """Start with every cell UNKNOWN."""
        self.config = config
        self._low, self._high = np.array(min_m), np.array(max_m)
        columns, rows = np.ceil((self._high - self._low) / config.resolution).astype(int)
        self.costs: NDArray[np.uint8] = np.full((rows, columns), UNKNOWN, np.uint8)

    @property
    def low_m(self) -> NDArray[np.float64]:
        """Return the lower corner of the map (x, y), m, [2]."""
        return self._low

    def grow(self, min_m: NDArray[np.float64], max_m: NDArray[np.float64], block: int,
             limit: int) -> bool:
        """
        Extend the map, by whole blocks of cells, until it contains a rectangle.

        Returns
        -------
        bool
            Whether it contains it: it does not become larger than `limit` cells along an axis.
        """
        block_m = block * self.config.resolution
        before, after = (block * np.ceil(np.maximum(missing_m, 0) / block_m).astype(int)
                         for missing_m in (self._low - min_m, max_m - self._high))
        if (before + self.costs.shape[::-1] + after > limit).any():
            return False
        if before.any() or after.any():
            self._low = self._low - before * self.config.resolution
            self._high = self._high + after * self.config.resolution
            self.costs = np.pad(self.costs, list(zip(before, after))[::-1],
                                constant_values=UNKNOWN)
        return True

    def cell_centres_m(self) -> NDArray[np.float64]:
        """Return x and y of the centre of every cell, m, [rows, columns, 2]."""
        rows, columns = np.indices(self.costs.shape)
        cells = np.stack([columns, rows], axis=-1)
        return np.asarray((cells + 0.5) * self.config.resolution + self._low, np.float64)

    def update(self, points: NDArray[np.float32], origin: NDArray[np.float64]) -> None:
        """
        Clear and mark cells with the point cloud of one source, see `update_from`.

        Parameters
        ----------
        points : float32 [n, 3]
        origin : float64 [3]
        """
        self.update_from([Observation(points, origin, self.config)])

    def update_from(self, observations: Sequence[Observation]) -> None:
        """
        Clear and then mark cells with the point clouds of several sources, as Nav2 does.

        Raises
        ------
        InputError
            If a sensor is outside the map.
        """
        starts = []
        for each in observations:
            inside, start = self.world_to_cells(each.origin[None, :2])
            if not inside[0]:
                raise InputError('the sensor must be inside the map; got '
                                 f'{each.origin[:2].tolist()}')
            starts.append(start[0])
        for each, start in zip(observations, starts):
            if each.config.raytrace_max_range > 0.0:
                self._clear(each.seen_points(), each.origin[:2], start, each.config)
        for each, start in zip(observations, starts):
            self._mark(each.seen_points(), each.origin[:2], start, each.config)

    def world_to_cells(self, xy: NDArray[np.float64]) -> tuple[NDArray[np.bool_], Cells]:
        """
        Convert positions (x, y), m, to cells (worldToMap).

        Returns
        -------
        inside : bool [n]
            Whether the position lies inside the map.
        cells : int64 [n, 2]
            Column and row; valid only inside the map.
        """
        cells = np.floor((xy - self._low) / self.config.resolution).astype(np.int64)
        shape = np.array(self.costs.shape[::-1])
        return np.asarray(((cells >= 0) & (cells < shape)).all(axis=1)), cells

    def _clear(self, points: NDArray[np.float32], origin: NDArray[np.float64], start: Cells,
               config: LayerConfig) -> None:
        """Set the cells between the sensor and each point to FREE (raytraceFreespace)."""
        xy = points[:, :2].astype(np.float64)
        ray = xy - origin
        # Shorten rays that leave the map to end at its border.
        with np.errstate(divide='ignore', invalid='ignore'):
            to_low = (self._low - origin) / ray
            to_high = (self._high - BORDER_MARGIN_M - origin) / ray
        share = np.where(xy < self._low, to_low, np.where(xy > self._high, to_high, 1.0))
        inside, ends = self.world_to_cells(origin + ray * share.min(axis=1, initial=1.0)[:, None])
        rays = np.unique(ends[inside], axis=0)
        if len(rays):
            reach = self._to_cells(config.raytrace_max_range)
            columns, rows = _raytrace_cells(start, rays, reach)
            self.costs[rows, columns] = FREE

    def _mark(self, points: NDArray[np.float32], origin: NDArray[np.float64], start: Cells,
              config: LayerConfig) -> None:
        """Set the cell of every point within the height and range limits to LETHAL."""
        z = points[:, 2]
        high = points[(z >= config.min_obstacle_height) & (z <= config.max_obstacle_height)]
        xy = high[:, :2].astype(np.float64)
        inside, cells = self.world_to_cells(xy)
        range_m = np.hypot(*(xy - origin).T)
        in_cells = np.hypot(*(cells - start).T).astype(np.int64)
        low_m, high_m = config.obstacle_min_range, config.obstacle_max_range
        marks = cells[inside & (range_m >= low_m) & (range_m <= high_m)
                      & (in_cells >= self._to_cells(low_m))
                      & (in_cells <= self._to_cells(high_m))]
        self.costs[marks[:, 1], marks[:, 0]] = LETHAL

    def _to_cells(self, distance_m: float) -> int:
        """Convert a range in m to a number of cells (cellDistance)."""
        return max(0, math.ceil(distance_m / self.config.resolution))


def _raytrace_cells(start: Cells, ends: Cells, max_length: int) -> tuple[Cells, Cells]:
    """Return the cells on the lines from one cell to many, up to max_length cells away."""
    delta = ends - start
    far, near = np.abs(delta).max(axis=1), np.abs(delta).min(axis=1)
    length = np.maximum(np.hypot(*delta.T), 1e-9)
    steps = (np.minimum(1.0, max_length / length) * far).astype(np.int64)
    i = np.arange(steps.max() + 1)
    # As nav2_util's raytraceLine: Bresenham's algorithm, whose error starts at half a cell.
    aside = (far[:, None] // 2 + i * near[:, None]) // np.maximum(far, 1)[:, None]
    along_x = (np.abs(delta[:, 0]) >= np.abs(delta[:, 1]))[:, None]
    sign = np.where(delta > 0, 1, -1)
    columns = start[0] + sign[:, :1] * np.where(along_x, i, aside)
    rows = start[1] + sign[:, 1:] * np.where(along_x, aside, i)
    on_line = i <= steps[:, None]
    return columns[on_line], rows[on_line]
