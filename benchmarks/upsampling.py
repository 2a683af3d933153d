"""
What does guided upsampling gain over bilinear resizing, what does it harm, and what does it cost?

    python -m benchmarks.upsampling
    python -m benchmarks.upsampling --folder <real RGB-D frames>

Depth of the embedded checkpoint at one step is brought from the processing size to that of the
image by each method.  The plain guided filter (He et al. 2013, doi:10.1109/TPAMI.2012.213; radius
32 px, eps 1e-4) runs at full size.  Accuracy: protocol A, mean over the frames.

Without `--folder` the frames are those of the sample drive, and three more columns show what a
method harms: the true depth of the drive, reduced to half the size of the image, stands for a
network with sharp edges; the true depth of a floor and of a wall with strong textures, reduced to
the processing size, must stay as flat as it is (worst of the textures); so must that which the
checkpoint predicts for them (mean).  Times are on one thread, the methods in random order in each
round.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
import sys

import cv2
import numpy as np
from numpy.typing import NDArray
import torch

from benchmarks.timing import (
    format_markdown_table,
    quartiles_ms,
    speedup,
    time_interleaved,
    write_benchmark_report,
)
from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.data.datasets.data_set import Rules
from marigold_ros.data.datasets.rgbd_folder import folder_data_set
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.types import FloatImage, RgbImage
from marigold_ros.depth.upsampling import resize_to_image, upsample_depth
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.evaluation.metrics.protocols import mean_scores, score, Scores

SAMPLE = Path(__file__).parents[1] / 'sample' / 'living_room'
ROUNDS = 40
TIMED_SIZES = ((480, 640), (1080, 1920))
PLAIN_RADIUS_PX, PLAIN_EPS = 32, 1e-4
# Depth of the sky beyond the windows.
SKY_M = 12.0
# Normal n and distance d of the planes n X = d before a camera of 640x480 px, m.
FOCAL_PX = 520.0
PLANES = {'floor': ((0.0, 0.75, 0.43), 1.0), 'wall': ((0.45, 0.05, 0.8), 2.4)}

Upsample = Callable[[FloatImage, RgbImage], FloatImage]


def filter_at_full_size(depth: FloatImage, rgb: RgbImage) -> FloatImage:
    """Apply the plain guided filter to bilinearly resized depth."""
    average = partial(cv2.blur, ksize=(2 * PLAIN_RADIUS_PX + 1, 2 * PLAIN_RADIUS_PX + 1))

    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32) / np.float32(255.0)
    large = resize_to_image(depth, rgb.shape[:2])
    mean_grey, mean_depth = average(grey), average(large)
    slope = ((average(grey * large) - mean_grey * mean_depth)
             / (average(grey * grey) - mean_grey * mean_grey + PLAIN_EPS))
    offset = mean_depth - slope * mean_grey
    return np.asarray(average(slope) * grey + average(offset), np.float32)


METHODS: dict[str, Upsample] = {
    'bilinear': partial(upsample_depth, method='bilinear'),
    'guided': partial(upsample_depth, method='guided'),
    'plain guided filter': filter_at_full_size}


def predict_small(engine: DepthEngine, frames: Sequence[DepthFrame]) -> list[FloatImage]:
    """Predict the depth of each frame at the processing size."""
    return [engine.infer_batch([frame.rgb], [1], upsample=False)[0].affine_invariant_depth
            for frame in frames]


def reduce_truth(frame: DepthFrame, size: tuple[int, int]) -> FloatImage:
    """Reduce the true depth of a frame to (h, w) by averaging, as relative depth in [0, 1]."""
    depth_m = np.where(np.isfinite(frame.known_depth_m), frame.known_depth_m, np.float32(SKY_M))
    relative = (depth_m - depth_m.min()) / (depth_m.max() - depth_m.min())
    return np.asarray(cv2.resize(relative, size[::-1], interpolation=cv2.INTER_AREA), np.float32)


def score_method(upsample: Upsample, depths: Sequence[FloatImage], frames: Sequence[DepthFrame],
                 rules: Rules = Rules()) -> list[Scores]:
    """Score the depths of frames after upsampling."""
    return [score(upsample(depth, frame.rgb), frame, rules)
            for depth, frame in zip(depths, frames)]


def textured_planes() -> list[DepthFrame]:
    """Render a floor and a wall, each with several strong textures and a little noise."""
    rows, columns = (np.indices((480, 640)) + 0.5) - np.array([240.0, 320.0])[:, None, None]
    rays = np.stack([columns / FOCAL_PX, rows / FOCAL_PX, np.ones((480, 640))], axis=-1)
    frames = []
    for plane, (normal, distance) in PLANES.items():
        depth_m = distance / (rays @ normal)
        points = rays * depth_m[..., None]
        across = np.cross(normal, (0.0, 0.0, 1.0) if plane == 'floor' else (0.0, 1.0, 0.0))
        across /= np.linalg.norm(across)
        along = np.cross(normal, across) / np.linalg.norm(normal)
        for texture, grey in draw_textures(points @ across, points @ along).items():
            noise = np.random.default_rng(0).normal(0.0, 2.0, grey.shape)
            levels = np.clip(20.0 + 215.0 * grey + noise, 0, 255).astype(np.uint8)
            frames.append(DepthFrame(f'{plane}, {texture}', np.dstack([levels] * 3),
                                     depth_m.astype(np.float32), np.ones(grey.shape, bool)))
    return frames


def draw_textures(u: NDArray[np.float64], v: NDArray[np.float64]
                  ) -> dict[str, NDArray[np.float64]]:
    """Draw patterns in [0, 1] at the coordinates of a plane, m."""
    cells = np.random.default_rng(0).random((256, 256))
    return {
        'checkerboard': (u // 0.3 + v // 0.3) % 2,
        'stripes along': u // 0.15 % 2,
        'stripes across': v // 0.15 % 2,
        'tiles': 1.0 - ((u % 0.4 < 0.02) | (v % 0.4 < 0.02)),
        'noise': cells[(v // 0.05).astype(int) % 256, (u // 0.05).astype(int) % 256]}


def time_methods(rounds: int) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Time each method at each size, s; the depth has the embedded checkpoint's size."""
    seconds = {}
    for height, width in TIMED_SIZES:
        rng = np.random.default_rng(0)
        rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
        depth = rng.random((192 * height // width, 192), np.float32)
        runs = time_interleaved({name: partial(upsample, depth, rgb)
                                 for name, upsample in METHODS.items()}, rounds=rounds)
        seconds[f'{width}x{height}'] = {name: each.seconds for name, each in runs.items()}
    return seconds


def compare_accuracy(engine: DepthEngine, frames: Sequence[DepthFrame], rules: Rules
                     ) -> dict[str, dict[str, str]]:
    """Score each method on the depth of the checkpoint."""
    depths = predict_small(engine, frames)
    rows = {}
    for name, upsample in METHODS.items():
        scores = mean_scores(score_method(upsample, depths, frames, rules))
        rows[name] = {'boundary F1': f'{scores["boundary_f1"]:.4f}',
                      f'AbsRel by {scores.label}': f'{scores["abs_rel"]:.4f}'}
    return rows


def compare_harm(engine: DepthEngine, frames: Sequence[DepthFrame]) -> dict[str, dict[str, str]]:
    """Score each method on sharp depth, and on textured planes."""
    planes = textured_planes()
    sharp = [reduce_truth(frame, (frame.rgb.shape[0] // 2, frame.rgb.shape[1] // 2))
             for frame in frames]
    predicted = predict_small(engine, planes)
    exact = [reduce_truth(plane, depth.shape) for plane, depth in zip(planes, predicted)]
    rows = {}
    for name, upsample in METHODS.items():
        of_sharp = mean_scores(score_method(upsample, sharp, frames))
        of_exact = [each['abs_rel'] for each in score_method(upsample, exact, planes)]
        of_predicted = mean_scores(score_method(upsample, predicted, planes))
        rows[name] = {
            'sharp depth: boundary F1': f'{of_sharp["boundary_f1"]:.3f}',
            'sharp depth: AbsRel': f'{of_sharp["abs_rel"]:.4f}',
            'exact planes: AbsRel': f'{max(of_exact):.4f}',
            'predicted planes: AbsRel': f'{of_predicted["abs_rel"]:.4f}'}
    return rows


def describe_times(rounds: int) -> dict[str, dict[str, str]]:
    """Format the times of each method."""
    rows: dict[str, dict[str, str]] = {name: {} for name in METHODS}
    for size, seconds in time_methods(rounds).items():
        for name, each in seconds.items():
            slower = speedup(each, seconds['bilinear'])
            rows[name][f'{size}, ms (times bilinear)'] = (
                f'{quartiles_ms(each)["median_ms"]:.1f} ({slower["ratio"]:.0f})')
    return rows


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--folder', type=Path, help='RGB-D folder with frames.json')
    parser.add_argument('--rounds', type=int, default=ROUNDS, help='timed rounds')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = make_parser().parse_args(arguments)
    facts = describe_environment()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    engine = DepthEngine.load(device='cpu')
    data_set = bag_data_set(SAMPLE) if options.folder is None else folder_data_set(options.folder)
    frames = list(data_set.frames())
    tables = [compare_accuracy(engine, frames, data_set.rules)]
    if options.folder is None:
        tables += [compare_harm(engine, frames), describe_times(options.rounds)]
    rows = [{'': name, **{column: value for table in tables
                          for column, value in table[name].items()}} for name in METHODS]
    write_benchmark_report(options.out, 'upsampling', facts, {'rows': rows},
                           format_markdown_table(rows))
    return 0


if __name__ == '__main__':
    sys.exit(main())
