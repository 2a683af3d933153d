"""
How close does the robust fit to few anchors come to the best fits to all pixels?

    python -m benchmarks.anchor_fit --folder frames/rgbd

Anchors are drawn from each frame's ground truth; some are outliers.  AbsRel is computed on the
frame's other pixels: metric, from 0.001 m to 80 m or the frame's farthest measurement.  The best
fits ("to all pixels") use the ground truth of these pixels.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from marigold_ros.data.datasets.rgbd_folder import folder_data_set
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.depth.types import FloatImage
from marigold_ros.evaluation.metrics.protocol_a import align, fit_least_squares
from marigold_ros.evaluation.metrics.protocols import abs_rel_label
from marigold_ros.metric.fit import fit_scale

NAME = 'anchor_fit'
ANCHORS, OUTLIERS = 200, 0.2
# Factors by which the depth of an outlier is too small or too large.
OUTLIER_FACTORS = (2.0, 10.0)
DRAWS = 10
MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 80.0
ABS_REL = abs_rel_label('metric', f'{MIN_DEPTH_M:g} to {MAX_DEPTH_M:g}+ m')
# Upper limit of the pixels that the best fits use.
BEST_FIT_PIXELS = 20000
LEAST_ABS_REL, LEAST_SQUARES = 'all pixels, least AbsRel', 'all pixels, least squares'

Vector = NDArray[np.float64]


def fit_least_abs_rel(relative: Vector, depth_m: Vector) -> tuple[float, float]:
    """
    Find the scale and shift of the least AbsRel, by reweighted least squares on all pixels.

    Parameters
    ----------
    relative, depth_m : float64 [n]

    Returns
    -------
    scale, shift : float
        Either sign; m.
    """
    step = max(1, len(relative) // BEST_FIT_PIXELS)
    columns = np.stack([relative, np.ones_like(relative)], axis=1)[::step] / depth_m[::step, None]
    weight = np.ones(len(columns))
    best: NDArray[np.float64] = np.zeros(2)
    lowest = np.inf
    for _ in range(60):
        root = np.sqrt(weight)
        found = np.asarray(np.linalg.lstsq(columns * root[:, None], root, rcond=None)[0])
        error = np.abs(columns @ found - 1.0)
        if error.mean() < lowest:
            best, lowest = found, float(error.mean())
        weight = 1.0 / np.maximum(error, 1e-4)
    return float(best[0]), float(best[1])


def abs_rel(relative: Vector, depth_m: Vector, scale: float, shift: float) -> float:
    """Return the AbsRel of a prediction with a given scale and shift."""
    found_m, _, _ = align(relative, depth_m, np.ones(depth_m.shape, bool),
                          alignment='least_square', fit=(scale, shift), min_depth_m=MIN_DEPTH_M,
                          max_depth_m=max(MAX_DEPTH_M, float(depth_m.max())))
    return float(np.mean(np.abs(found_m - depth_m) / depth_m))


def corrupt(depth_m: NDArray[Any], share: float, rng: np.random.Generator) -> NDArray[Any]:
    """Return depths [n] of which a share is too near or too far by `OUTLIER_FACTORS`."""
    wrong = rng.choice(len(depth_m), round(share * len(depth_m)), replace=False)
    corrupted: NDArray[Any] = depth_m.copy()
    low, high = np.log(OUTLIER_FACTORS)
    corrupted[wrong] *= np.exp(rng.uniform(low, high, len(wrong))
                               * rng.choice([-1.0, 1.0], len(wrong)))
    return corrupted


def resize_to_truth(relative: FloatImage, depth_m: FloatImage) -> FloatImage:
    """Return relative depth at the size of the true depth [H, W]."""
    return relative if relative.shape == depth_m.shape else np.asarray(
        cv2.resize(relative, depth_m.shape[::-1], interpolation=cv2.INTER_AREA), np.float32)


def score_anchors(relative: Vector, depth_m: Vector, rng: np.random.Generator
                  ) -> dict[str, float]:
    """
    Draw anchors from a frame's ground truth, fit scale and shift, and score the other pixels.

    Parameters
    ----------
    relative, depth_m : float64 [n]
        Measured pixels.
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to float
        AbsRel of the robust and of the least-squares fit, each to clean anchors and to anchors
        with outliers, and of the two best fits to all pixels.
    """
    order = rng.permutation(len(depth_m))
    chosen, others = order[:ANCHORS], order[ANCHORS:]
    a, d = relative[others], depth_m[others]
    anchors = depth_m[chosen].copy()
    corrupted = corrupt(anchors, OUTLIERS, rng)

    def fitted(values: Vector) -> float:
        fit = fit_scale(relative[chosen].astype(np.float32), values.astype(np.float32))
        return abs_rel(a, d, fit.scale, fit.shift)

    return {'clean': fitted(anchors), 'outliers': fitted(corrupted),
            'clean by least squares': abs_rel(
                a, d, *fit_least_squares(relative[chosen], anchors)),
            'outliers by least squares': abs_rel(
                a, d, *fit_least_squares(relative[chosen], corrupted)),
            LEAST_ABS_REL: abs_rel(a, d, *fit_least_abs_rel(a, d)),
            LEAST_SQUARES: abs_rel(a, d, *fit_least_squares(a, d))}


def format_folder_table(frames: Iterator[tuple[str, FloatImage, FloatImage]], draws: int) -> str:
    """
    Average AbsRel over draws, over the frames of a set and over the sets; as Markdown.

    Parameters
    ----------
    frames : iterator of (set, relative depth [H, W], true depth [H', W'])
        True depth is NaN where unknown.
    draws : int
    """
    scores: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for number, (name, relative, depth_m) in enumerate(frames):
        relative = resize_to_truth(relative, depth_m)
        measured = np.isfinite(depth_m)
        pixels = relative[measured].astype(np.float64), depth_m[measured].astype(np.float64)
        rng = np.random.default_rng([number, 1])
        scores[name].append(_mean([score_anchors(*pixels, rng) for _ in range(draws)]))
    rows = {name: _mean(of_set) for name, of_set in scores.items()}
    rows['mean of sets'] = _mean(list(rows.values()))
    columns = list(rows['mean of sets'])
    cells = [[name, *(f'{row[key]:.3f}' for key in columns),
              *(' / '.join(f'{100 * (row[robust] / row[best] - 1):+.1f} %'
                           for robust in ('clean', 'outliers'))
                for best in (LEAST_ABS_REL, LEAST_SQUARES))] for name, row in rows.items()]
    return tabulate(cells, (ABS_REL, *columns, 'clean / outliers against least AbsRel',
                            'against least squares'), 'github', disable_numparse=True)


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def print_tables(name: str, description: str, draws: int, arguments: Sequence[str] | None,
                 format_tables: Callable[[Iterator[tuple[DepthFrame, FloatImage]], int], str]
                 ) -> int:
    """
    Predict the frames of an RGB-D folder, and print what a benchmark makes of them.

    Parameters
    ----------
    name, description : str
        Of the benchmark.
    draws : int
        Default number of draws of anchors per frame.
    arguments : sequence of str or None
        Of the command line.
    format_tables : callable
        Gets the frames with their relative depth, and the number of draws; returns Markdown.

    Returns
    -------
    int
        Exit code, 0 or 2.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--folder', type=Path, required=True,
                        help='RGB-D folder with a frames.json')
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--draws', type=int, default=draws, help='draws of anchors per frame')
    options = parser.parse_args(arguments)
    try:
        data_set = folder_data_set(options.folder)
        engine = DepthEngine.load(options.checkpoint)
        print(format_tables(((frame, engine.infer(
            frame.rgb, num_inference_steps=1).affine_invariant_depth)
            for frame in data_set.frames()), options.draws))
    except MarigoldError as err:
        print(f'{name}: {err}', file=sys.stderr)
        return 2
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 0 or 2."""
    return print_tables(NAME, __doc__.splitlines()[1], DRAWS, arguments,
                        lambda frames, draws: format_folder_table(
                            ((frame.set_name, relative, frame.depth_m)
                             for frame, relative in frames), draws))


if __name__ == '__main__':
    sys.exit(main())
