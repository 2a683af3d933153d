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
Counts = NDArray[np.int32]


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
    seen, marked : int32 [rows, columns]
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
    outside : int
        Number of frames that are left out, as the camera has left the largest map.
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
    outside: int = 0

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
        """
        Return the map of this part of a recording and the next one, which saw things later.

        This part stays whole; of the next one, what would make the map too large is left out.
        """
        # 1. Corners of the new map, in cells (x, y) from the lower corner of this one.
        mine, theirs = (np.array(each.costs.shape[::-1]) for each in (self, later))
        limit = np.maximum(MAX_MAP_CELLS, mine)
        first = np.round((later.low_m - self.low_m) / self.resolution).astype(int)
        low = np.maximum(np.minimum(0, first), mine - limit)
        high = np.minimum(np.maximum(mine, first + theirs), low + limit)

        # 2. The cells of both.
        def place(values: NDArray[Any], at: NDArray[np.int64], fill: int = 0) -> NDArray[Any]:
            placed = np.full((high - low)[::-1], fill, values.dtype)
            begin = np.maximum(at, low)
            end = np.maximum(begin, np.minimum(at + values.shape[::-1], high))
            columns, rows = map(slice, begin - low, end - low)
            from_columns, from_rows = map(slice, begin - at, end - at)
            placed[rows, columns] = values[from_rows, from_columns]
            return placed

        here = np.zeros(2, int)
        earlier_costs, costs = (place(self.costs, here, UNKNOWN),
                                place(later.costs, first, UNKNOWN))
        low_m = self.low_m + low * self.resolution
        inside = ((later.path_m >= low_m)
                  & (later.path_m < low_m + (high - low) * self.resolution)).all(axis=1)
        return ObstacleMap(
            low_m, self.resolution, np.where(costs == UNKNOWN, earlier_costs, costs),
            place(self.seen, here) + place(later.seen, first),
            place(self.marked, here) + place(later.marked, first),
            place(self.explained, here) | place(later.explained, first),
            np.concatenate([self.path_m, later.path_m[inside]]), self.reference, self.boxes,
            self.found + later.found, self.visible + later.visible,
            self.outside + later.outside + int((~inside).sum()))


class ReferenceMap:
    """
    Compare the costmap of our cloud with that of a reference sensor where no scene is known.

    The map grows with the way of the camera.

    Parameters
    ----------
    reference : str
        Name of the source.
    config : LayerConfig
        Of both layers.

    Attributes
    ----------
    reference : str
    """

    def __init__(self, reference: str, config: LayerConfig) -> None:
        """Start without a map; the first frame places it."""
        self.reference, self._config = reference, config
        self._layers: tuple[ObstacleLayer, ...] = ()
        self._path_m: list[NDArray[np.float64]] = []
        self._outside = 0

    def add(self, points: FloatImage | None, anchors: Anchors | None, K: Matrix,
            map_from_camera: Matrix, *, is_lead_in: bool = False) -> None:
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
        is_lead_in : bool
            Whether the frame is before the part of the recording that is counted.
        """
        origin, config = map_from_camera[:3, 3], self._config
        reach_m = max(config.obstacle_max_range, config.raytrace_max_range)
        low_m, high_m = origin[:2] - reach_m, origin[:2] + reach_m
        if not self._layers:
            block_m = BLOCK_CELLS * config.resolution
            low, high = np.floor(low_m / block_m) * block_m, np.ceil(high_m / block_m) * block_m
            self._layers = tuple(ObstacleLayer(config, (low[0], low[1]), (high[0], high[1]))
                                 for _ in range(2))
        grown = [each.grow(low_m, high_m, BLOCK_CELLS, MAX_MAP_CELLS) for each in self._layers]
        if not all(grown):
            self._outside += not is_lead_in
            return
        if not is_lead_in:
            self._path_m.append(origin[:2])
        measured = None if anchors is None else anchors.points(K)
        for layer, cloud in zip(self._layers, (points, measured)):
            if cloud is not None:
                placed = cloud.reshape(-1, 3) @ map_from_camera[:3, :3].T + origin
                layer.update(placed.astype(np.float32), origin)

    def map(self) -> ObstacleMap | None:
        """Return the map; None without a frame that counts."""
        if not self._path_m:
            return None
        ours, reference = (layer.costs == LETHAL for layer in self._layers)
        # A mark in the next cell is as good.
        ours_wide, reference_wide = (cv2.dilate(each.astype(np.uint8), np.ones((3, 3))) > 0
                                     for each in (ours, reference))
        layer = self._layers[0]
        return ObstacleMap(layer.low_m, layer.config.resolution, layer.costs,
                           reference.astype(np.int32), (reference & ours_wide).astype(np.int32),
                           reference_wide, np.array(self._path_m), self.reference,
                           outside=self._outside)
