"""A map from above: where the costmap of our cloud is right, and what it misses or invents."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.evaluation.metrics.costmap import (
    FREE,
    LayerConfig,
    LETHAL,
    ObstacleLayer,
    UNKNOWN,
)

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage
    from marigold_ros.geometry.poses import Matrix
    from marigold_ros.metric.anchors import Anchors

# Values of a cell of the map.
CELL_UNKNOWN, CELL_FREE, CELL_FOUND, CELL_MISSED, CELL_INVENTED = range(5)
SCENE = 'scene'
# A map without a scene grows by blocks of so many cells, up to so many along an axis.
BLOCK_CELLS, MAX_MAP_CELLS = 100, 4000

CellMask = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ObstacleMap:
    """
    The costmap of our cloud over a recording, compared with what is there.

    A cell is found if it is marked in at least half of the frames in which an obstacle is seen in
    it, or marked in the end where there is one; else it is missed.  Rays that pass over or below
    an obstacle clear its cells later, also with perfect clouds; that is no miss.  A cell is
    invented if it is marked in the end where there is no obstacle.

    Attributes
    ----------
    low_m : float64 [2]
        Lower corner (x, y), m.
    resolution : float
        Size of a cell, m.
    costs : uint8 [rows, columns]
        See `ObstacleLayer`; rows along y, columns along x.
    seen, marked : int64 [rows, columns]
        Number of frames in which an obstacle is seen in a cell, by the camera or by the reference
        sensor, and of those after which our costmap has it marked.
    explained : bool [rows, columns]
        Cells in which a mark is right: those of obstacles, seen or not, with a tolerance.
    path_m : float64 [n, 2]
        Where the camera was, m.
    reference : str
        `SCENE`, or the source with whose costmap it is compared.
    boxes : tuple of (str, float64 [2, 3])
        Name and corners of the obstacles of the scene, m.
    found, visible : Counter of str
        Number of frames in which a box is marked, and in which it is visible.
    """

    low_m: NDArray[np.float64]
    resolution: float
    costs: NDArray[np.uint8]
    seen: Counts
    marked: Counts
    explained: CellMask
    path_m: NDArray[np.float64]
    reference: str
    boxes: tuple[tuple[str, NDArray[np.float64]], ...] = ()
    found: Counter[str] = field(default_factory=Counter)
    visible: Counter[str] = field(default_factory=Counter)

    def cells(self) -> NDArray[np.uint8]:
        """Return one of the values `CELL_...` for every cell, uint8 [rows, columns]."""
        lethal = self.costs == LETHAL
        cells = np.full(self.costs.shape, CELL_UNKNOWN, np.uint8)
        cells[self.costs == FREE] = CELL_FREE
        cells[self.seen > 0] = CELL_MISSED
        cells[(self.seen > 0) & (2 * self.marked >= self.seen)
              | lethal & self.explained] = CELL_FOUND
        cells[lethal & ~self.explained] = CELL_INVENTED
        return cells

    def join(self, later: ObstacleMap) -> ObstacleMap:
        """Return the map of this part of a recording and the next one, which saw things later."""
        low_m = np.minimum(self.low_m, later.low_m)
        high = np.maximum(*(np.round((each.low_m - low_m) / self.resolution).astype(int)
                            + each.costs.shape[::-1] for each in (self, later)))

        def place(each: ObstacleMap, values: NDArray[Any], fill: int = 0) -> NDArray[Any]:
            columns, rows = np.round((each.low_m - low_m) / self.resolution).astype(int)
            placed = np.full(high[::-1], fill, values.dtype)
            placed[rows:rows + values.shape[0], columns:columns + values.shape[1]] = values
            return placed

        earlier_costs, costs = (place(each, each.costs, UNKNOWN) for each in (self, later))
        return ObstacleMap(
            low_m, self.resolution, np.where(costs == UNKNOWN, earlier_costs, costs),
            place(self, self.seen) + place(later, later.seen),
            place(self, self.marked) + place(later, later.marked),
            place(self, self.explained) | place(later, later.explained),
            np.concatenate([self.path_m, later.path_m]), self.reference, self.boxes,
            self.found + later.found, self.visible + later.visible)


class ReferenceMap:
    """
    Compare the costmap of our cloud with that of a reference sensor where no scene is known.

    The map grows with the way of the camera.

    Parameters
    ----------
    reference : str
        Name of the source.
    config : LayerConfig
        Of the layer with our cloud.
    sensor_config : LayerConfig or None
        Of the layer with that of the sensor; None: the same.

    Attributes
    ----------
    reference : str
    outside : int
        Number of frames that are left out, as the camera has left the largest map.
    """

    def __init__(self, reference: str, config: LayerConfig,
                 sensor_config: LayerConfig | None = None) -> None:
        """Start without a map; the first frame places it."""
        self.reference, self._configs = reference, (config, sensor_config or config)
        self._layers: tuple[ObstacleLayer, ObstacleLayer] | None = None
        self._path_m: list[NDArray[np.float64]] = []
        self.outside = 0

    def add(self, points: FloatImage | None, anchors: Anchors | None, K: Matrix,
            map_from_camera: Matrix) -> None:
        """
        Update both costmaps with one frame.

        Parameters
        ----------
        points : float32 [..., 3] or None
            Our cloud in the optical frame, m; None without metric depth.
        anchors : Anchors or None
            What the camera sees of the sensor's measurement; None without one.
        K : float64 [3, 3]
            Intrinsics of the camera, px.
        map_from_camera : float64 [4, 4]
            Pose of the camera in a frame whose floor is at z = 0.
        """
        origin = map_from_camera[:3, 3]
        reach_m = max(max(each.obstacle_max_range, each.raytrace_max_range)
                      for each in self._configs)
        low_m, high_m = origin[:2] - reach_m, origin[:2] + reach_m
        if self._layers is None:
            block_m = BLOCK_CELLS * self._configs[0].resolution
            low, high = np.floor(low_m / block_m) * block_m, np.ceil(high_m / block_m) * block_m
            self._layers = tuple(  # type: ignore[assignment]
                ObstacleLayer(each, tuple(low), tuple(high)) for each in self._configs)
        assert self._layers is not None
        grown = [each.grow(low_m, high_m, BLOCK_CELLS, MAX_MAP_CELLS) for each in self._layers]
        if not all(grown):
            self.outside += 1
            return
        self._path_m.append(origin[:2])
        measured = None if anchors is None else anchors.points(K)
        for layer, cloud in zip(self._layers, (points, measured)):
            if cloud is not None:
                placed = cloud.reshape(-1, 3) @ map_from_camera[:3, :3].T + origin
                layer.update(placed.astype(np.float32), origin)

    def map(self) -> ObstacleMap | None:
        """Return the map; None without a frame."""
        if self._layers is None:
            return None
        ours, reference = (layer.costs == LETHAL for layer in self._layers)
        # A mark in the next cell is as good.
        ours_wide, reference_wide = (cv2.dilate(each.astype(np.uint8), np.ones((3, 3))) > 0
                                     for each in (ours, reference))
        layer = self._layers[0]
        return ObstacleMap(layer.low_m, layer.config.resolution, layer.costs,
                           reference.astype(np.int64), (reference & ours_wide).astype(np.int64),
                           reference_wide, np.array(self._path_m), self.reference)
