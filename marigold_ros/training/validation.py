"""Measure a saved checkpoint on held-out frames: metrics and image grids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
import torch

from marigold_ros.data.frames import DepthFrame, evenly_spaced_indices, FrameSet
from marigold_ros.evaluation.metrics.protocols import score
from marigold_ros.messages.depth import colorize
from marigold_ros.training.targets import depth_range, normalize_depth

METRICS = ('abs_rel', 'delta1', 'boundary_f1')
GRID_ROWS = 6
TILE_WIDTH = 320

# frame -> [H,W] relative depth in [0, 1]
Predictor = Callable[[DepthFrame], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class ValidationResult:
    """
    Metrics and image grids of one checkpoint.

    Attributes
    ----------
    scalars : dict of str to float
        Means over frames by '<set>/<metric>_<predictor>' for each of `METRICS`, by protocol A
        (least squares in depth), 0.001 to 80 m or the farthest measurement.  boundary_f1 is
        missing if no frame has a depth edge.
    grids : dict of str to uint8 [H, W, 3]
        For each set, image, predictions and ground truth of some frames.
    """

    scalars: dict[str, float]
    grids: dict[str, NDArray[np.uint8]]


def compare_with_truth(
    predictors: dict[str, Predictor], frame_sets: dict[str, FrameSet], limit: int,
) -> ValidationResult:
    """
    Compare predictions with the ground truth of held-out frames.

    Parameters
    ----------
    predictors : dict of str to callable
        Prediction functions by name.
    frame_sets : dict of str to FrameSet
    limit : int
        Number of frames of each set, evenly spaced.
    """
    scalars: dict[str, float] = {}
    grids = {}
    for set_name, frames in frame_sets.items():
        scores: dict[str, list[float]] = {}
        rows: list[NDArray[np.uint8]] = []
        for index in evenly_spaced_indices(len(frames), limit):
            frame = frames[index]
            depths = {name: predict(frame) for name, predict in predictors.items()}
            for name, depth in depths.items():
                found = score(depth, frame)
                for metric in METRICS:
                    if np.isfinite(found[metric]):
                        scores.setdefault(f'{set_name}/{metric}_{name}', []).append(found[metric])
            if len(rows) < GRID_ROWS:
                rows.append(grid_row(frame, list(depths.values())))
        scalars |= {name: float(np.mean(values)) for name, values in scores.items()}
        grids[set_name] = np.vstack(rows)
    return ValidationResult(scalars, grids)


def grid_row(frame: DepthFrame, depths: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """
    Concatenate image, predictions and normalized ground truth horizontally.

    Parameters
    ----------
    frame : DepthFrame
    depths : sequence of float32 [H, W]
        In [0, 1].

    Returns
    -------
    uint8 [h, w, 3]
        Tiles of one width; near is red, invalid depth is black.
    """
    depth_m, valid = torch.from_numpy(frame.depth_m)[None], torch.from_numpy(frame.valid)[None]
    normalized = normalize_depth(depth_m, *depth_range(depth_m, valid))[0, 0].numpy()
    truth = np.where(frame.valid, (normalized + 1) / 2, np.float32(np.nan))
    tiles = [frame.rgb, *(colorize(depth) for depth in (*depths, truth))]
    height = round(TILE_WIDTH * frame.rgb.shape[0] / frame.rgb.shape[1])
    return np.hstack([np.asarray(cv2.resize(
        tile, (TILE_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8) for tile in tiles])
