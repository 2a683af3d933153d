"""What Nav2's obstacle layer makes of clouds: nav2_costmap_2d's ObstacleLayer on a fixed grid."""

from __future__ import annotations

from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
import yaml

from marigold_ros.depth.errors import ConfigError, InputError

FREE, LETHAL, UNKNOWN = 0, 254, 255
# raytraceFreespace() ends rays that leave the map so far inside it.
INSIDE_M = 0.001

Cells = NDArray[np.int64]


@dataclass(frozen=True)
class LayerConfig:
    """
    Parameters of an obstacle layer with one source, in m, named as Nav2 names them.

    Attributes
    ----------
    resolution : float
        Of the costmap.
    min_obstacle_height, max_obstacle_height : float
        Of the layer: what marks.
    source_min_height, source_max_height : float
        min_obstacle_height and max_obstacle_height of the source: what is looked at at all.
    obstacle_min_range, obstacle_max_range, raytrace_max_range : float
        Of the source.
    """

    resolution: float
    min_obstacle_height: float
    max_obstacle_height: float
    source_min_height: float
    source_max_height: float
    obstacle_min_range: float
    obstacle_max_range: float
    raytrace_max_range: float


def read_layer(path: Path, costmap: str = 'global_costmap',
               layer: str = 'obstacle_layer') -> LayerConfig:
    """
    Read the parameters of a layer from Nav2's own file.

    Raises
    ------
    ConfigError
        If the file has no such layer with one source, a key is missing, or rays do not begin at
        the sensor.
    """
    try:
        parameters = yaml.safe_load(path.read_text(encoding='utf-8'))[costmap][costmap][
            'ros__parameters']
        settings: dict[str, Any] = parameters[layer]
        source: dict[str, Any] = settings[settings['observation_sources']]
        config = LayerConfig(
            parameters['resolution'], settings['min_obstacle_height'],
            settings['max_obstacle_height'], source['min_obstacle_height'],
            source['max_obstacle_height'], source['obstacle_min_range'],
            source['obstacle_max_range'], source['raytrace_max_range'])
    except (OSError, KeyError, TypeError, yaml.YAMLError) as err:
        raise ConfigError(f'{path} must hold {costmap}.{layer} with one source and all its keys; '
                          f'got {type(err).__name__}: {err}') from err
    if source.get('raytrace_min_range', 0.0) != 0.0:
        raise ConfigError(f'`raytrace_min_range` must be 0 in {path}; '
                          f'got {source["raytrace_min_range"]}')
    return config


class ObstacleLayer:
    """
    A costmap that clouds mark and clear, after obstacle_layer.cpp and observation_buffer.cpp.

    Parameters
    ----------
    config : LayerConfig
    min_m, max_m : (float, float)
        Corners of the map, m.

    Attributes
    ----------
    costs : uint8 [rows, columns]
        UNKNOWN at first; rows along y, columns along x.
    """

    def __init__(self, config: LayerConfig, min_m: tuple[float, float],
                 max_m: tuple[float, float]) -> None:
        """Start with a map of which nothing is known."""
        self.config = config
        self._low, self._high = np.array(min_m), np.array(max_m)
        columns, rows = np.ceil((self._high - self._low) / config.resolution).astype(int)
        self.costs: NDArray[np.uint8] = np.full((rows, columns), UNKNOWN, np.uint8)

    def centres_m(self) -> NDArray[np.float64]:
        """Return x and y of every cell's centre, m, [rows, columns, 2]."""
        rows, columns = np.indices(self.costs.shape)
        cells = np.stack([columns, rows], axis=-1)
        return np.asarray((cells + 0.5) * self.config.resolution + self._low, np.float64)

    def update(self, points: NDArray[np.float32], origin: NDArray[np.float64]) -> None:
        """
        Take one cloud.

        Parameters
        ----------
        points : float32 [n, 3]
            In the map, m; NaN is dropped by the height filter, as no comparison holds for it.
        origin : float64 [3]
            Of the sensor in the map, m.

        Raises
        ------
        InputError
            If the sensor is outside the map.
        """
        config = self.config
        z = points[:, 2]
        seen = points[(z >= config.source_min_height) & (z <= config.source_max_height)]
        inside, start = self.cells(origin[None, :2])
        if not inside[0]:
            raise InputError(f'the sensor must be inside the map; got {origin[:2].tolist()}')
        self._clear(seen[:, :2].astype(np.float64), origin[:2], start[0])
        self._mark(seen, origin[:2], start[0])

    def cells(self, xy: NDArray[np.float64]) -> tuple[NDArray[np.bool_], Cells]:
        """
        Find the cells of positions (worldToMap).

        Returns
        -------
        inside : bool [n]
        cells : int64 [n, 2]
            Column and row; meaningless outside.
        """
        cells = np.floor((xy - self._low) / self.config.resolution).astype(np.int64)
        shape = np.array(self.costs.shape[::-1])
        return np.asarray(((cells >= 0) & (cells < shape)).all(axis=1)), cells

    def _clear(self, xy: NDArray[np.float64], origin: NDArray[np.float64], start: Cells) -> None:
        """Free every cell from the sensor to each point (raytraceFreespace)."""
        way = xy - origin
        # Shorten what leaves the map, so that it ends at the border.
        with np.errstate(divide='ignore', invalid='ignore'):
            to_low, to_high = (self._low - origin) / way, (self._high - INSIDE_M - origin) / way
        share = np.where(xy < self._low, to_low, np.where(xy > self._high, to_high, 1.0))
        inside, ends = self.cells(origin + way * share.min(axis=1, initial=1.0)[:, None])
        rays = np.unique(ends[inside], axis=0)
        if len(rays):
            reach = self._in_cells(self.config.raytrace_max_range)
            columns, rows = _line_cells(start, rays, reach)
            self.costs[rows, columns] = FREE

    def _mark(self, points: NDArray[np.float32], origin: NDArray[np.float64],
              start: Cells) -> None:
        """Make the cell of every point in height and range lethal (updateBounds)."""
        config = self.config
        z = points[:, 2]
        high = points[(z >= config.min_obstacle_height) & (z <= config.max_obstacle_height)]
        xy = high[:, :2].astype(np.float64)
        inside, cells = self.cells(xy)
        range_m = np.hypot(*(xy - origin).T)
        in_cells = np.hypot(*(cells - start).T).astype(np.int64)
        low_m, high_m = config.obstacle_min_range, config.obstacle_max_range
        marks = cells[inside & (range_m >= low_m) & (range_m <= high_m)
                      & (in_cells >= self._in_cells(low_m))
                      & (in_cells <= self._in_cells(high_m))]
        self.costs[marks[:, 1], marks[:, 0]] = LETHAL

    def _in_cells(self, distance_m: float) -> int:
        """Turn a range into cells (cellDistance)."""
        return max(0, math.ceil(distance_m / self.config.resolution))


def _line_cells(start: Cells, ends: Cells, max_length: int) -> tuple[Cells, Cells]:
    """Walk from one cell to many, at most max_length far (nav2_util's raytraceLine)."""
    delta = ends - start
    far, near = np.abs(delta).max(axis=1), np.abs(delta).min(axis=1)
    length = np.maximum(np.hypot(*delta.T), 1e-9)
    steps = (np.minimum(1.0, max_length / length) * far).astype(np.int64)
    i = np.arange(steps.max() + 1)
    # Bresenham's error, which starts at half, after i steps along the longer axis.
    aside = (far[:, None] // 2 + i * near[:, None]) // np.maximum(far, 1)[:, None]
    along_x = (np.abs(delta[:, 0]) >= np.abs(delta[:, 1]))[:, None]
    sign = np.where(delta > 0, 1, -1)
    columns = start[0] + sign[:, :1] * np.where(along_x, i, aside)
    rows = start[1] + sign[:, 1:] * np.where(along_x, aside, i)
    walked = i <= steps[:, None]
    return columns[walked], rows[walked]
