"""
How accurate is a checkpoint on held-out rendered frames, by the number of steps?

    python -m scenes.bulk --out out/frames/heldout --count 512 --seed 900
    python -m benchmarks.heldout_frames --frames out/frames/heldout
    python -m benchmarks.heldout_frames --frames out/frames/heldout --hard

Protocol A, means over frames, compared with a fitted vertical ramp, the autoencoder alone on true
depth, and true depth clipped as in training.  `--hard` uses a fixed list, by which a checkpoint
should be judged: the first 200 of these frames on which the ramp has an AbsRel of 0.30 or more.
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
import torch

from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.data.frames import DepthFrame, evenly_spaced_indices
from marigold_ros.data.shards import ShardFrames
from marigold_ros.depth.checkpoint import find_checkpoint
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import InputError, MarigoldError
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.evaluation.metrics.baselines import predict_ramp
from marigold_ros.evaluation.metrics.protocols import mean_scores, score, Scores
from marigold_ros.progress import progress_bar
from marigold_ros.training.checkpoints import load_vae
from marigold_ros.training.latents import reconstruct_depth
from marigold_ros.training.targets import depth_range

STEPS = (1, 2, 4, 10)
BATCH = 16
RAMP, CLIPPING = 'fitted vertical ramp', 'truth, clipped to the 2 % and 98 % quantiles'
SHOWN = ('abs_rel', 'delta1', 'rmse_log', 'boundary_f1')
HARD_RAMP_ABS_REL = 0.30
HARD_FRAMES = (
    1, 2, 3, 4, 5, 8, 9, 10, 11, 13, 15, 16, 17, 18, 19, 20, 22, 23, 25, 26, 27, 28, 29, 30, 31,
    32, 35, 38, 39, 42, 43, 44, 45, 48, 49, 50, 51, 53, 54, 57, 58, 59, 61, 64, 65, 66, 67, 69, 72,
    73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 90, 92, 95, 96, 97, 98, 99,
    100, 101, 102, 103, 104, 105, 106, 108, 109, 110, 111, 112, 114, 115, 116, 117, 118, 119, 120,
    121, 122, 123, 124, 125, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 146, 147, 148, 149,
    150, 151, 153, 154, 155, 157, 161, 162, 163, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176,
    178, 182, 183, 184, 185, 188, 189, 190, 191, 193, 194, 195, 197, 199, 200, 201, 202, 203, 204,
    208, 209, 210, 211, 212, 213, 214, 215, 217, 218, 220, 223, 224, 225, 228, 229, 230, 231, 232,
    239, 240, 241, 243, 244, 245, 246, 247, 248, 249, 250, 251, 253, 254, 257, 258, 259, 260, 264,
    265, 267, 268, 271, 273, 274, 275, 280, 281, 282, 284, 286, 287, 288,
)

Frames = Sequence[DepthFrame]


def load_heldout_frames(folder: Path, limit: int) -> list[DepthFrame]:
    """Read at most `limit` frames, evenly spaced, of a folder of shards."""
    frames = ShardFrames(folder)
    return [frames[index] for index in evenly_spaced_indices(len(frames), limit)]


def load_hard_frames(folder: Path) -> list[DepthFrame]:
    """
    Load the frames of the fixed list of hard ones.

    Parameters
    ----------
    folder : Path
        The 512 frames of seed 900 from which the list was made.

    Returns
    -------
    list of DepthFrame

    Raises
    ------
    InputError
        If a listed frame is missing or not hard, because the folder holds other frames.
    """
    frames = ShardFrames(folder)
    if len(frames) <= max(HARD_FRAMES):
        raise InputError(f'`frames` must hold every frame of the list of hard ones, up to number '
                         f'{max(HARD_FRAMES)}; {folder} has {len(frames)}')
    listed = [frames[index] for index in HARD_FRAMES]
    for frame, ramp in zip(listed, score_ramp(listed)):
        if ramp['abs_rel'] < HARD_RAMP_ABS_REL:
            raise InputError('`frames` must be those that the list of hard ones was made from: '
                             f'AbsRel of the ramp on {frame.name} must be at least '
                             f'{HARD_RAMP_ABS_REL}; got {ramp["abs_rel"]:.3f}')
    return listed


def score_ramp(frames: Frames) -> list[Scores]:
    """Score the fitted vertical ramp on each frame."""
    return [score(predict_ramp(frame.rgb), frame) for frame in frames]


def clip_depth(frame: DepthFrame) -> DepthFrame:
    """Clip true depth to the quantiles of the normalization, as the training targets are."""
    depth_m, valid = torch.from_numpy(frame.depth_m)[None], torch.from_numpy(frame.valid)[None]
    low_m, spread_m = depth_range(depth_m, valid)
    kept = torch.where(torch.isfinite(depth_m), depth_m.clamp(low_m, low_m + spread_m), depth_m)
    return replace(frame, depth_m=kept[0].numpy())


def score_clipped_depth(frames: Frames) -> list[Scores]:
    """Score clipped true depth on each frame: the score of a perfectly learned target."""
    return [score(clip_depth(frame).depth_m, frame) for frame in frames]


def reconstruct_depths(checkpoint: str, frames: Frames) -> list[NDArray[np.float32]]:
    """Encode and decode the true depth of each frame with a checkpoint's autoencoder."""
    vae = load_vae(str(find_checkpoint(checkpoint) / 'vae'))
    return [reconstruct_depth(vae, torch.from_numpy(frame.depth_m)[None],
                              torch.from_numpy(frame.valid)[None])[0].numpy() for frame in frames]


def score_autoencoder(checkpoint: str, frames: Frames) -> dict[str, Scores]:
    """Score an autoencoder against true depth, and against its input, which is clipped."""
    maps, inputs = reconstruct_depths(checkpoint, frames), [clip_depth(frame) for frame in frames]
    return {f'{checkpoint}, its autoencoder {against}': mean_scores(list(map(score, maps, truths)))
            for against, truths in (('alone', frames), ('against its input', inputs))}


def score_engine(engine: DepthEngine, frames: Frames, num_inference_steps: int) -> list[Scores]:
    """Score the predictions of an engine on each frame."""
    return [score(depth, frame)
            for depth, frame in zip(predict_depths(engine, frames, num_inference_steps), frames)]


def predict_depths(
    engine: DepthEngine, frames: Frames, num_inference_steps: int,
) -> list[NDArray[np.float32]]:
    """Run the engine over frames of one size in batches; float32 [H, W] each."""
    maps: list[NDArray[np.float32]] = []
    for start in progress_bar(range(0, len(frames), BATCH), desc=f'{num_inference_steps} step(s)'):
        images = [frame.rgb for frame in frames[start:start + BATCH]]
        predictions = engine.infer_batch(images, [num_inference_steps] * len(images))
        maps += [prediction.affine_invariant_depth for prediction in predictions]
    return maps


def format_markdown(rows: Mapping[str, Scores]) -> str:
    """Format mean scores, with AbsRel relative to that of the ramp, as Markdown."""
    return format_markdown_table([
        {'': name, **{metric: f'{scores[metric]:.3f}' for metric in SHOWN},
         'abs_rel / ramp': f'{scores["abs_rel"] / rows[RAMP]["abs_rel"]:.2f}'}
        for name, scores in rows.items()])


def draw(by_steps: Mapping[str, Mapping[int, Scores]], ramp: Scores, path: Path) -> None:
    """Plot AbsRel and boundary F1 against the steps, one curve per checkpoint."""
    figure = Figure(figsize=(8, 3.5), layout='constrained')
    for axes, metric in zip(figure.subplots(1, 2), ('abs_rel', 'boundary_f1')):
        for name, scores in by_steps.items():
            axes.plot(list(scores), [each[metric] for each in scores.values()], 'o-', label=name)
        axes.axhline(ramp[metric], color='grey', linewidth=0.8, label=RAMP)
        axes.set(xscale='log', xlabel='denoising steps', ylabel=metric)
        axes.set_xticks(STEPS, labels=[str(steps) for steps in STEPS], minor=False)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
    axes.legend(fontsize='small')
    figure.suptitle(ramp.label, fontsize='medium')
    figure.savefig(path, dpi=120)


def score_checkpoints(checkpoints: Sequence[str], frames: Frames) -> dict[str, dict[int, Scores]]:
    """Score every checkpoint at every useful number of steps."""
    means: dict[str, dict[int, Scores]] = {}
    for name in checkpoints:
        engine = DepthEngine.load(name)
        means[name] = {steps: mean_scores(score_engine(engine, frames, steps))
                       for steps in STEPS if steps <= engine.checkpoint_info.max_useful_steps}
    return means


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=Path, required=True, help='folder of rendered shards')
    parser.add_argument('--checkpoint', nargs='+', default=['tiny'],
                        help='embedded names, folders or hub ids, to be compared')
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument('--limit', type=int, default=512, help='frames to use, evenly spaced')
    chosen.add_argument('--hard', action='store_true', help='the fixed list of hard frames')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, plot and write the report; the exit code is 0 or 2."""
    options = make_parser().parse_args(arguments)
    facts = describe_environment()
    try:
        frames = (load_hard_frames(options.frames) if options.hard
                  else load_heldout_frames(options.frames, options.limit))
        rows = {RAMP: mean_scores(score_ramp(frames))}
        by_steps = score_checkpoints(options.checkpoint, frames)
        for name, each in by_steps.items():
            rows |= {f'{name}, {steps} step(s)': scores for steps, scores in each.items()}
        for name in options.checkpoint:
            rows |= score_autoencoder(name, frames)
        rows[CLIPPING] = mean_scores(score_clipped_depth(frames))
    except MarigoldError as err:
        print(f'heldout_frames: {err}', file=sys.stderr)
        return 2
    report = 'heldout_frames_hard' if options.hard else 'heldout_frames'
    write_benchmark_report(options.out, report, facts,
                           {'frames': len(frames),
                            'rows': {name: {metric: scores[metric] for metric in SHOWN}
                                     for name, scores in rows.items()}},
                           f'{len(frames)} frames of {options.frames}, {rows[RAMP].label}\n\n'
                           f'{format_markdown(rows)}')
    draw(by_steps, rows[RAMP], options.out / f'{report}.png')
    return 0


if __name__ == '__main__':
    sys.exit(main())
