"""
Does the confidence rank pixels by their error?

    python -m benchmarks.confidence_ranking --frames out/frames/policies

Sparsification curves: the least confident pixels are removed step by step, and the mean error of
the remaining pixels is computed (Ilg et al. 2018, arXiv 1802.07095, section 5.1), relative to that
of all pixels.  A random ranking has an area of 1 under the curve; the oracle ranks by the error.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
import sys

import cv2
from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.data.datasets.data_set import DataSet, MAX_DEPTH_M, MIN_DEPTH_M
from marigold_ros.data.datasets.rgbd_folder import folder_data_set
from marigold_ros.data.shards import shards_data_set
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import InputError, MarigoldError
from marigold_ros.depth.types import FloatImage
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.evaluation.metrics.protocol_a import align
from marigold_ros.progress import progress_bar

STEPS = (1, 2, 4)
REMOVED = np.arange(20) / 20
ORACLE, CONFIDENCE = 'oracle', 'confidence'
# Trivial rankings, which a confidence should beat.
DEPTH, INVERSE_DEPTH = 'low confidence near', 'low confidence far'
ROW = 'low confidence at the bottom'

Curve = NDArray[np.float64]


def sparsification_curve(error: NDArray[np.floating], confidence: NDArray[np.floating]) -> Curve:
    """
    Compute the mean error of the remaining pixels as the least confident are removed.

    Parameters
    ----------
    error : float [n]
        Not negative, not 0 everywhere.
    confidence : float [n]
        Only its order matters.  Pixels of equal confidence count with their mean error.

    Returns
    -------
    float64 [20]
        Mean error of the pixels that remain when 0, 5, ... 95 % are removed, divided by the mean
        error of all.

    Raises
    ------
    InputError
        If the shapes differ, a value is not finite or negative, or no error is above 0.
    """
    if error.ndim != 1 or error.shape != confidence.shape:
        raise InputError('`error` and `confidence` must have one shape [n]; '
                         f'got {error.shape} and {confidence.shape}')
    if not (np.isfinite(error).all() and np.isfinite(confidence).all()):
        raise InputError('`error` and `confidence` must be finite')
    if (error < 0).any() or not (error > 0).any():
        raise InputError('`error` must not be negative, and above 0 somewhere')
    _, level, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    level_error = np.bincount(level, weights=error) / count
    summed = np.cumsum(np.repeat(level_error, count))
    remaining = np.maximum(np.rint((1 - REMOVED) * len(error)).astype(int), 1)
    curve: Curve = summed[remaining - 1] / remaining / (summed[-1] / len(error))
    return curve


def area_under_curve(curve: Curve) -> float:
    """Integrate a curve over the removed share; 1 is a random ranking, less is better."""
    return float(np.sum(curve[1:] + curve[:-1]) / 2 / (len(curve) - 1))


def relative_error(affine_invariant_depth: FloatImage, depth_m: FloatImage) -> FloatImage:
    """
    Compute the relative error of a prediction after a least-squares fit in depth.

    Parameters
    ----------
    affine_invariant_depth, depth_m : float32 [H, W]
        Ground truth in m; NaN is unknown, +inf is sky; both are ignored.

    Returns
    -------
    float32 [H, W]
        Absolute error / truth; NaN where the ground truth is not finite.
    """
    measured = np.isfinite(depth_m)
    end_m = max(MAX_DEPTH_M, 1.001 * float(np.max(depth_m, where=measured, initial=0.0)))
    aligned_m, _, _ = align(affine_invariant_depth, depth_m, measured, alignment='least_square',
                            min_depth_m=MIN_DEPTH_M, max_depth_m=end_m)
    error = np.full(depth_m.shape, np.nan, np.float32)
    truth_m = depth_m[measured]
    error[measured] = np.abs(aligned_m[measured] - truth_m) / truth_m
    return error


def compute_frame_curves(affine_invariant_depth: FloatImage, confidence: FloatImage | None,
                         depth_m: FloatImage) -> dict[str, Curve]:
    """
    Compute the curves of the oracle, the confidence and the trivial rankings on one frame.

    Parameters
    ----------
    affine_invariant_depth : float32 [H, W]
        Resized by area averaging to the size of the ground truth, as is the confidence.
    confidence : float32 [H, W] or None
        None omits its curve.
    depth_m : float32 [H', W']

    Returns
    -------
    dict of str to float64 [20]

    Raises
    ------
    InputError
        If the frame has no measured depth.
    """
    depth = _resized(affine_invariant_depth, depth_m)
    error = relative_error(depth, depth_m)
    rows = np.broadcast_to(np.arange(len(depth_m), dtype=np.float32)[:, None], depth_m.shape)
    rankings = {ORACLE: -error, DEPTH: depth, INVERSE_DEPTH: -depth, ROW: -rows}
    if confidence is not None:
        rankings[CONFIDENCE] = _resized(confidence, depth_m)
    measured = ~np.isnan(error)
    return {name: sparsification_curve(error[measured], ranking[measured])
            for name, ranking in rankings.items()}


def _resized(image: FloatImage, depth_m: FloatImage) -> FloatImage:
    size = (depth_m.shape[1], depth_m.shape[0])
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def compute_curves(engine: DepthEngine, data_set: DataSet,
                   num_inference_steps: int) -> dict[str, list[Curve]]:
    """Compute the curves of every ranking on each frame of a data set."""
    curves: dict[str, list[Curve]] = {}
    for frame in progress_bar(data_set.frames(), f'{num_inference_steps} step(s)', data_set.count):
        prediction = engine.infer(frame.rgb, num_inference_steps=num_inference_steps)
        frame_curves = compute_frame_curves(prediction.affine_invariant_depth,
                                            prediction.confidence, frame.known_depth_m)
        for name, curve in frame_curves.items():
            curves.setdefault(name, []).append(curve)
    return curves


def format_markdown(results: Mapping[int, Mapping[str, Sequence[Curve]]]) -> str:
    """Format mean areas and the share of frames better than a random ranking as Markdown."""
    rows: dict[str, dict[str, str]] = {}
    for steps, curves in results.items():
        for name, each in curves.items():
            areas = np.array([area_under_curve(curve) for curve in each])
            row = rows.setdefault(
                name, {'area (share of frames better than a random ranking)': name})
            row[f'{steps} step(s)'] = f'{areas.mean():.3f} ({np.mean(areas < 1.0):.0%})'
    return format_markdown_table(list(rows.values()))


def draw(results: Mapping[int, Mapping[str, Sequence[Curve]]], path: Path) -> None:
    """Plot the mean curves, one panel per number of steps."""
    figure = Figure(figsize=(4 * len(results) + 2, 3.5), layout='constrained')
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (steps, curves) in zip(panels, results.items()):
        for name, each in curves.items():
            axes.plot(100 * REMOVED, np.mean(each, axis=0), label=name)
        axes.axhline(1.0, color='grey', linewidth=0.8, label='random ranking')
        axes.set(title=f'{steps} step(s)', xlabel='least confident pixels removed, %')
    panels[0].set_ylabel('mean relative error / that of all')
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside right upper')
    figure.savefig(path, dpi=120)


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--frames', type=Path, help='folder of rendered shards')
    source.add_argument('--folder', type=Path, help='RGB-D folder with frames.json')
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, plot and write the report; the exit code is 0 or 2."""
    options = make_parser().parse_args(arguments)
    try:
        data_set = (shards_data_set(options.frames) if options.frames is not None
                    else folder_data_set(options.folder))
        engine = DepthEngine.load(options.checkpoint)
        facts = describe_environment(engine.device)
        steps = [n for n in STEPS if n <= engine.checkpoint_info.max_useful_steps]
        results = {n: compute_curves(engine, data_set, n) for n in steps}
    except MarigoldError as err:
        print(f'confidence_ranking: {err}', file=sys.stderr)
        return 2
    areas = {n: {name: list(map(area_under_curve, each)) for name, each in curves.items()}
             for n, curves in results.items()}
    result = {'data': data_set.name, 'checkpoint': options.checkpoint, 'areas': areas}
    write_benchmark_report(options.out, 'confidence_ranking', facts, result,
                           f'{data_set.name}, {options.checkpoint}\n\n{format_markdown(results)}')
    draw(results, options.out / 'confidence_ranking.png')
    return 0


if __name__ == '__main__':
    sys.exit(main())
