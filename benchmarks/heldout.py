"""
Measure checkpoints on rendered frames that training never saw, by the number of denoising steps.

    python -m benchmarks.heldout --frames frames/heldout --plot steps.png
    python -m benchmarks.heldout --frames frames/heldout --hard
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
import sys

from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray
from PIL import Image
import torch
from tqdm import tqdm

from benchmarks.hard_frames import HARD_FRAMES, HARD_RAMP_ABS_REL
from marigold_ros.data.frames import DepthFrame, spread
from marigold_ros.data.shards import ShardFrames
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import InputError, MarigoldError
from marigold_ros.evaluation.metrics.baselines import predict_ramp
from marigold_ros.evaluation.metrics.protocols import mean_scores, score, Scores
from marigold_ros.training.checkpoints import load_vae
from marigold_ros.training.networks import round_trip
from marigold_ros.training.targets import depth_range
from marigold_ros.training.validation import grid_row

NAME = 'heldout'
STEPS = (1, 2, 4, 10)
BATCH = 16
CLIPPING = 'truth, clipped to the 2 % and 98 % quantiles'
SHOWN = ('abs_rel', 'delta1', 'rmse_log', 'boundary_f1')
GRID_FRAMES = 24
GRID_COLUMNS = 3

Frames = Sequence[DepthFrame]


def heldout_frames(folder: Path, limit: int) -> list[DepthFrame]:
    """Read at most `limit` frames that are spread over a folder of shards."""
    frames = ShardFrames(folder)
    return [frames[index] for index in spread(len(frames), limit)]


def hard_frames(folder: Path) -> list[DepthFrame]:
    """
    Read the fixed list of hard frames.

    Parameters
    ----------
    folder : Path
        The 512 frames of seed 900 that the list was made from, see `hard_frames`.

    Returns
    -------
    list of DepthFrame

    Raises
    ------
    InputError
        If a listed frame is not there, or is not hard: the folder holds other frames.
    """
    frames = ShardFrames(folder)
    if len(frames) <= max(HARD_FRAMES):
        raise InputError(f'`frames` must hold every frame of the list of hard ones, up to number '
                         f'{max(HARD_FRAMES)}; {folder} has {len(frames)}')
    listed = [frames[index] for index in HARD_FRAMES]
    for frame, ramp in zip(listed, ramp_scores(listed)):
        if ramp['abs_rel'] < HARD_RAMP_ABS_REL:
            raise InputError('`frames` must be those that the list of hard ones was made from: '
                             f'on {frame.name} the ramp must have at least {HARD_RAMP_ABS_REL}; '
                             f'got {ramp["abs_rel"]:.3f}')
    return listed


def ramp_scores(frames: Frames) -> list[Scores]:
    """Score the fitted vertical ramp on each frame."""
    return [score(predict_ramp(frame.rgb), frame) for frame in frames]


def clipped(frame: DepthFrame) -> DepthFrame:
    """Clip true depth to the quantiles that normalisation keeps: what training asks for."""
    depth_m, valid = torch.from_numpy(frame.depth_m)[None], torch.from_numpy(frame.valid)[None]
    low_m, spread_m = depth_range(depth_m, valid)
    kept = torch.where(torch.isfinite(depth_m), depth_m.clamp(low_m, low_m + spread_m), depth_m)
    return replace(frame, depth_m=kept[0].numpy())


def clipping_scores(frames: Frames) -> list[Scores]:
    """Score the clipped truth on each frame: what a perfectly learned target would have."""
    return [score(clipped(frame).depth_m, frame) for frame in frames]


def round_trips(checkpoint: str, frames: Frames) -> list[NDArray[np.float32]]:
    """Encode and decode the true depth of each frame with a checkpoint's autoencoder."""
    vae = load_vae(checkpoint, subfolder='vae')
    return [round_trip(vae, torch.from_numpy(frame.depth_m)[None],
                       torch.from_numpy(frame.valid)[None])[0].numpy() for frame in frames]


def autoencoder_rows(checkpoint: str, frames: Frames) -> dict[str, Scores]:
    """Score an autoencoder against the truth, and against what it is given, which is clipped."""
    maps, given = round_trips(checkpoint, frames), [clipped(frame) for frame in frames]
    return {f'{checkpoint}, its autoencoder {against}': mean_scores(list(map(score, maps, truths)))
            for against, truths in (('alone', frames), ('against its input', given))}


def engine_scores(engine: DepthEngine, frames: Frames, num_inference_steps: int) -> list[Scores]:
    """Score an engine on each frame."""
    return [score(depth, frame)
            for depth, frame in zip(predict(engine, frames, num_inference_steps), frames)]


def predict(
    engine: DepthEngine, frames: Frames, num_inference_steps: int,
) -> list[NDArray[np.float32]]:
    """Run the engine over frames of one size in batches; float32 [H, W] each."""
    maps: list[NDArray[np.float32]] = []
    for start in tqdm(range(0, len(frames), BATCH), desc=f'{num_inference_steps} step(s)'):
        images = [frame.rgb for frame in frames[start:start + BATCH]]
        predictions = engine.infer_batch(images, [num_inference_steps] * len(images))
        maps += [prediction.affine_invariant_depth for prediction in predictions]
    return maps


def table(rows: Mapping[str, Scores]) -> str:
    """Lay mean scores out as Markdown, with AbsRel relative to the first row's."""
    lines = [f'| | {" | ".join(SHOWN)} | abs_rel / ramp |', '|---' * (len(SHOWN) + 2) + '|']
    reference = next(iter(rows.values()))['abs_rel']
    for name, scores in rows.items():
        cells = [f'{scores[metric]:.3f}' for metric in SHOWN]
        cells.append(f'{scores["abs_rel"] / reference:.2f}')
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def plot(by_steps: Mapping[str, Mapping[int, Scores]], ramp: Scores, path: Path) -> None:
    """Draw AbsRel and boundary F1 against the steps, one curve a checkpoint, as a PNG."""
    figure = Figure(figsize=(8, 3.5), layout='constrained')
    for axes, metric in zip(figure.subplots(1, 2), ('abs_rel', 'boundary_f1')):
        for name, scores in by_steps.items():
            axes.plot(list(scores), [each[metric] for each in scores.values()], 'o-', label=name)
        axes.axhline(ramp[metric], color='grey', linewidth=0.8, label='fitted vertical ramp')
        axes.set(xscale='log', xlabel='denoising steps', ylabel=metric)
        axes.set_xticks(STEPS, labels=[str(steps) for steps in STEPS], minor=False)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
    axes.legend(fontsize='small')
    figure.savefig(path, dpi=120)


def grid(frames: Frames, predictions: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Lay image, prediction and truth of frames out, several frames a row; uint8 [?, ?, 3]."""
    tiles = [grid_row(frame, [depth]) for frame, depth in zip(frames, predictions)]
    whole = len(tiles) - len(tiles) % GRID_COLUMNS
    return np.vstack([np.hstack(tiles[start:start + GRID_COLUMNS])
                      for start in range(0, whole, GRID_COLUMNS)])


def measure(checkpoints: Sequence[str], frames: Frames) -> dict[str, dict[int, Scores]]:
    """Score every checkpoint at every number of steps that it is made for."""
    means: dict[str, dict[int, Scores]] = {}
    for name in checkpoints:
        engine = DepthEngine.load(name)
        means[name] = {steps: mean_scores(engine_scores(engine, frames, steps))
                       for steps in STEPS if steps <= engine.checkpoint_info.max_useful_steps}
    return means


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and, if asked, draw plot and pictures; the exit code is 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=Path, required=True, help='folder of rendered shards')
    parser.add_argument('--checkpoint', nargs='+', default=['tiny'],
                        help='embedded names, folders or hub ids, to be compared')
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument('--limit', type=int, default=512, help='frames to use, spread over them')
    chosen.add_argument('--hard', action='store_true', help='the fixed list of hard frames')
    parser.add_argument('--plot', type=Path, help='PNG of AbsRel and boundary F1 against steps')
    parser.add_argument('--grid', type=Path,
                        help='PNG of image, first checkpoint in one step, and truth')
    options = parser.parse_args(arguments)
    try:
        frames = (hard_frames(options.frames) if options.hard
                  else heldout_frames(options.frames, options.limit))
        ramp = mean_scores(ramp_scores(frames))
        by_steps = measure(options.checkpoint, frames)
        rows = {'fitted vertical ramp': ramp}
        for name, each in by_steps.items():
            rows |= {f'{name}, {steps} step(s)': scores for steps, scores in each.items()}
        for name in options.checkpoint:
            rows |= autoencoder_rows(name, frames)
        rows[CLIPPING] = mean_scores(clipping_scores(frames))
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return 2
    print(f'{len(frames)} frames of {options.frames}, {ramp.label}\n\n{table(rows)}')
    if options.plot is not None:
        plot(by_steps, ramp, options.plot)
    if options.grid is not None:
        few = [frames[index] for index in spread(len(frames), GRID_FRAMES)]
        maps = predict(DepthEngine.load(options.checkpoint[0]), few, 1)
        Image.fromarray(grid(few, maps)).save(options.grid)
    return 0


if __name__ == '__main__':
    sys.exit(main())
