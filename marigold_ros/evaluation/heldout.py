"""
Measure a checkpoint on rendered frames that training never saw, beside the fitted ramp.

    python -m marigold_ros.evaluation.heldout --frames frames/heldout --grid heldout.png
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from marigold_ros.data.scenes.shards import read_shards
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.evaluation.metrics import depth_metrics, vertical_ramp

STEPS = (1, 2, 4)
BATCH = 16
MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 1e3
SHOWN = ('abs_rel', 'delta1', 'rmse_log')
GRID_COLUMNS = 4

Frame = tuple[NDArray[np.uint8], NDArray[np.float32]]
Scores = list[dict[str, float]]


def heldout_frames(folder: Path, limit: int) -> Iterator[Frame]:
    """Yield rgb uint8 [H, W, 3] and depth float32 [H, W] in metres, spread over the folder."""
    shards = read_shards(folder)
    frames = [(shard, number) for shard in shards for number in range(len(shard.rgb))]
    stride = max(1, len(frames) // limit)
    for shard, number in frames[::stride][:limit]:
        yield np.asarray(shard.rgb[number]), np.asarray(shard.depth_m[number])


def score(prediction: NDArray[Any], depth_m: NDArray[np.float32]) -> dict[str, float]:
    """Return the metrics after least squares over every pixel that is not sky."""
    return depth_metrics(
        prediction, depth_m, np.isfinite(depth_m), alignment='least_square',
        min_depth_m=MIN_DEPTH_M, max_depth_m=MAX_DEPTH_M)


def ramp_scores(frames: list[Frame]) -> Scores:
    """Score the vertical ramp on each frame."""
    return [score(vertical_ramp(*depth_m.shape), depth_m) for _, depth_m in frames]


def predict(
    engine: DepthEngine, frames: list[Frame], num_inference_steps: int,
) -> list[NDArray[np.float32]]:
    """Run the engine over frames of one size in batches; float32 [H, W] each."""
    maps: list[NDArray[np.float32]] = []
    for start in tqdm(range(0, len(frames), BATCH), desc=f'{num_inference_steps} step(s)'):
        images = [rgb for rgb, _ in frames[start:start + BATCH]]
        predictions = engine.infer_batch(images, [num_inference_steps] * len(images))
        maps += [prediction.affine_invariant_depth for prediction in predictions]
    return maps


def mean_scores(scores: Scores) -> dict[str, float]:
    """Average each metric over the frames."""
    return {name: float(np.mean([frame[name] for frame in scores])) for name in scores[0]}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Lay mean metrics out as Markdown, with AbsRel relative to the first row's."""
    lines = [f'| | {" | ".join(SHOWN)} | abs_rel / ramp |', '|---' * (len(SHOWN) + 2) + '|']
    reference = next(iter(rows.values()))['abs_rel']
    for name, metrics in rows.items():
        cells = [f'{metrics[metric]:.3f}' for metric in SHOWN]
        cells.append(f'{metrics["abs_rel"] / reference:.2f}')
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def grid(
    frames: list[Frame], predictions: list[NDArray[np.float32]],
) -> NDArray[np.uint8]:
    """Return uint8 [?, ?, 3]: image, prediction and truth side by side, near dark."""
    tiles = [
        np.concatenate([rgb, _grey(prediction), _grey(_unit(depth_m))], axis=1)
        for (rgb, depth_m), prediction in zip(frames, predictions)]
    whole = len(tiles) - len(tiles) % GRID_COLUMNS
    rows = [np.concatenate(tiles[start:start + GRID_COLUMNS], axis=1)
            for start in range(0, whole, GRID_COLUMNS)]
    return np.concatenate(rows, axis=0)


def _unit(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map the 2 % and 98 % quantiles of depth to 0 and 1; sky is 1."""
    low, high = np.quantile(depth_m[np.isfinite(depth_m)], [0.02, 0.98])
    unit: NDArray[np.float32] = np.clip((depth_m - low) / max(high - low, 1e-6), 0, 1)
    return unit


def _grey(unit: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn [0, 1] into a grey image."""
    return np.repeat((255 * unit).astype(np.uint8)[..., None], 3, axis=-1)


def main(arguments: list[str] | None = None) -> None:
    """Print the table and, if asked, write the picture grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=Path, required=True, help='folder of rendered shards')
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--limit', type=int, default=512, help='frames to use')
    parser.add_argument('--grid', type=Path, help='PNG of image, prediction and truth')
    options = parser.parse_args(arguments)
    frames = list(heldout_frames(options.frames, options.limit))
    engine = DepthEngine.load(options.checkpoint)
    rows = {'fitted vertical ramp': mean_scores(ramp_scores(frames))}
    for steps in STEPS:
        predictions = predict(engine, frames, steps)
        scores = [score(map_, depth_m) for map_, (_, depth_m) in zip(predictions, frames)]
        rows[f'{options.checkpoint}, {steps} step(s)'] = mean_scores(scores)
        if options.grid is not None and steps == STEPS[0]:
            few = slice(0, len(frames), max(1, len(frames) // 24))
            Image.fromarray(grid(frames[few], predictions[few])).save(options.grid)
    print(f'{len(frames)} frames of {options.frames}')
    print(table(rows))


if __name__ == '__main__':
    main()
