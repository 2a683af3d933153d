"""
Drive a robot's costmap with the node's clouds and compare it with the obstacles that are there.

    python -m marigold_ros.evaluation.metrics.obstacles --bag sample/living_room \
        --scene sample/scene.json

Every scale source makes its own clouds from the same predictions, through the functions that the
node uses; `truth` has the true depth in the prediction's place.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.drive import DriveFrame, read_drive
from benchmarks.drive_clouds import make_clouds, SOURCES
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.depth.types import FloatImage
from marigold_ros.evaluation.metrics.costmap import (
    FREE,
    LayerConfig,
    LETHAL,
    ObstacleLayer,
    read_layer,
)
from marigold_ros.evaluation.metrics.known_scene import KnownScene, Matrix, read_known_scene, WALL
from marigold_ros.geometry.unproject import unproject

NAME = 'obstacles'
# A true point belongs to a box that is this near, m: depth is stored in mm, edges lie between.
BOX_M = 0.02
# A cell belongs to a box if its centre is this near, m: BOX_M and half a cell of 0.05 m.
CELL_M = 0.05
# So many of the cloud's points must hit an obstacle for it to count as seen.
SEEN_POINTS = 20
MAP_MARGIN_M = 1.0


@dataclass(frozen=True)
class ObstacleScore:
    """
    How well a costmap shows what is there, each a mean over the frames of a drive.

    Attributes
    ----------
    clouds : int
        Frames for which metres were known.
    frames : int
    recall : float
        Share of the obstacles in view, and in range, of which the costmap has a lethal cell.
    precision : float
        Share of the lethal cells that lie in an obstacle or a wall.
    floor_free : float
        Share of the floor's cells in view that are free.
    distance_m : float
        Error of the distance, in plan, from the camera to the nearest point of an obstacle: in
        the cloud's pixels that see it, and to its box; for obstacles whose nearest point is in
        view.
    """

    clouds: int
    frames: int
    recall: float
    precision: float
    floor_free: float
    distance_m: float


class ObstacleScorer:
    """
    Feeds a costmap with the clouds of a drive and keeps the score.

    Parameters
    ----------
    scene : KnownScene
    config : LayerConfig
    """

    def __init__(self, scene: KnownScene, config: LayerConfig) -> None:
        """Start with a costmap of which nothing is known."""
        self._scene = scene
        low, high = scene.extent_m[0] - MAP_MARGIN_M, scene.extent_m[1] + MAP_MARGIN_M
        self.layer = ObstacleLayer(config, (low[0], low[1]), (high[0], high[1]))
        centres = self.layer.centres_m()
        # Which cells belong to which box, [boxes, rows, columns].
        self._cells = np.array([_outside(centres, box[:, :2]) <= CELL_M for box in scene.boxes_m])
        self._rows: list[tuple[float, float, float, float]] = []
        self._clouds = 0

    def add(self, frame: DriveFrame, points: FloatImage | None, stride: int) -> None:
        """
        Take one frame.

        Parameters
        ----------
        frame : DriveFrame
        points : float32 [h, w, 3] or None
            The cloud's, in the optical frame, m, at every `stride`th pixel; None without metres.
        stride : int
        """
        pose = self._scene.map_from_camera(frame.stamp_ns)
        true = unproject(frame.depth_m, frame.K, stride=stride).reshape(-1, 3)
        true = true @ pose[:3, :3].T + pose[:3, 3]
        cloud = None
        if points is not None:
            # In float32, as tf2 transforms a PointCloud2.
            rotation, origin = pose[:3, :3].astype(np.float32), pose[:3, 3].astype(np.float32)
            cloud = points.reshape(-1, 3) @ rotation.T + origin
            self.layer.update(cloud, pose[:3, 3])
            self._clouds += 1
        self._rows.append(self._judge(true, cloud, frame, pose))

    def score(self) -> ObstacleScore:
        """Return the means; what never could be judged is NaN."""
        table = np.array(self._rows)
        known = ~np.isnan(table)
        counts = known.sum(axis=0)
        sums = np.sum(table, axis=0, where=known)
        means = [float(s / n) if n else float('nan') for s, n in zip(sums, counts)]
        return ObstacleScore(self._clouds, len(self._rows), *means)

    def _judge(self, true: Matrix, cloud: NDArray[np.float32] | None, frame: DriveFrame,
               pose: Matrix) -> tuple[float, float, float, float]:
        """Recall, precision, free floor and distance after one frame."""
        lethal, origin = self.layer.costs == LETHAL, pose[:3, 3]
        found, errors = [], []
        for name, box, cells, pixels in zip(self._scene.names, self._scene.boxes_m, self._cells,
                                            self._seen(true, origin)):
            if pixels.sum() < SEEN_POINTS:
                continue
            found.append((lethal & cells).any())
            nearest = np.append(np.clip(origin[:2], box[0, :2], box[1, :2]), origin[2])
            if (name != WALL and cloud is not None and np.isfinite(cloud[pixels, 0]).any()
                    and _in_view(nearest, frame, pose)):
                range_m = np.nanmin(np.hypot(*(cloud[pixels] - origin)[:, :2].T))
                errors.append(abs(range_m - np.linalg.norm(nearest - origin)))
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
            for low, high in self._scene.boxes_m:
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


def _in_view(point: Matrix, frame: DriveFrame, pose: Matrix) -> bool:
    """Tell whether a point of the map lies between the left and right border of the image."""
    x, _, z = (point - pose[:3, 3]) @ pose[:3, :3]
    return bool(z > 0 and 0 <= frame.K[0, 0] * x / z + frame.K[0, 2] < frame.depth_m.shape[1])


def _outside(xy: NDArray[np.floating], box: Matrix) -> Matrix:
    """Measure how far positions [..., 2] are outside a rectangle [2, 2], m."""
    return np.asarray(np.hypot(*np.moveaxis(
        np.maximum(np.maximum(box[0] - xy, xy - box[1]), 0.0), -1, 0)), np.float64)


def markdown(scores: dict[str, ObstacleScore]) -> str:
    """Write the table."""
    lines = ['| scale source | clouds | recall | precision | floor free | distance error |',
             '|---|---|---|---|---|---|']
    for name, score in scores.items():
        values = [f'{100 * share:.0f} %' if np.isfinite(share) else '-'
                  for share in (score.recall, score.precision, score.floor_free)]
        distance = f'{score.distance_m:.2f} m' if np.isfinite(score.distance_m) else '-'
        lines.append(f'| {name} | {score.clouds} of {score.frames} | {" | ".join(values)} | '
                     f'{distance} |')
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 0 or 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bag', type=Path, required=True, help='a drive as sample/living_room')
    parser.add_argument('--scene', type=Path, required=True, help='what stands there: scene.json')
    parser.add_argument('--costmap', type=Path, default=Path('config/nav2_costmap.yaml'),
                        help="Nav2's parameters, of which global_costmap.obstacle_layer is taken")
    parser.add_argument('--source', choices=SOURCES, nargs='+', default=SOURCES)
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--steps', type=int, default=1, help='denoising steps of every frame')
    parser.add_argument('--point-stride', type=int, default=4, metavar='PX')
    options = parser.parse_args(arguments)
    try:
        scene, config = read_known_scene(options.scene), read_layer(options.costmap)
        engine = DepthEngine.load(options.checkpoint)
        frames = read_drive(options.bag, partial(
            engine.infer, num_inference_steps=options.steps, seed=0))
        scorers = {source: ObstacleScorer(scene, config) for source in options.source}
        for frame, clouds in zip(frames, make_clouds(frames, options.source,
                                                     stride=options.point_stride)):
            for source, points in clouds.items():
                scorers[source].add(frame, points, options.point_stride)
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return 1
    print(markdown({source: scorer.score() for source, scorer in scorers.items()}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
