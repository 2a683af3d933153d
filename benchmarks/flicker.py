"""
Measure how much the depth of a standing scene jumps from frame to frame of a moving camera.

    python -m benchmarks.flicker --bag sample/living_room

Every pixel of a frame is found in the frame before through its true depth and the true motion.
The depth predicted there is moved into the current frame, and what the current prediction differs
by is flicker.  Hidden surfaces do not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
import torch

from marigold_ros.data.bags.stream import read_bag_frames
from marigold_ros.data.datasets.data_set import SAMPLE_TOPICS
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import InputError, MarigoldError
from marigold_ros.depth.types import FloatImage
from marigold_ros.evaluation.metrics.covisibility import Covisible, covisible, flicker
from marigold_ros.evaluation.metrics.protocol_a import align
from marigold_ros.evaluation.metrics.temporal import STRIDE, strided_K

NAME = 'flicker'
STEPS = (1, 2, 4)
MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 80.0
# Published for video: the next frame starts from 0.9 fixed noise + 0.1 last latent (diffusers'
# documentation of Marigold).
KEPT_NOISE, KEPT_LATENT = 0.9, 0.1


@dataclass(frozen=True)
class SequenceScore:
    """
    One way to run a sequence.

    Attributes
    ----------
    flicker : float
        Mean over the pairs of frames, with one scale and shift for the whole sequence: jumps of
        the scale count.
    flicker_aligned : float
        With scale and shift of each frame fitted to its own truth: only changes of shape count.
    abs_rel : float
        With scale and shift of each frame.
    abs_rel_one_fit : float
        With one scale and shift for the whole sequence.
    """

    flicker: float
    flicker_aligned: float
    abs_rel: float
    abs_rel_one_fit: float


def score_sequence(maps: Sequence[FloatImage], frames: Sequence[DepthFrame]) -> SequenceScore:
    """
    Judge the predictions of a sequence.

    Parameters
    ----------
    maps : sequence of float32 [H, W]
        Affine-invariant depth, on every fourth pixel.
    frames : sequence of DepthFrame
        In the order of time, all of one camera, with poses and depth of the image's size.

    Raises
    ------
    InputError
        If a frame has no pose or no K.
    """
    truths = [at_stride(frame.depth_m) for frame in frames]
    tall = _aligned(np.concatenate(list(maps)), np.concatenate(truths))
    together = np.split(tall, len(maps))
    alone = [_aligned(map_, truth_m) for map_, truth_m in zip(maps, truths)]
    pairs = [_pixels(current, previous) for previous, current in zip(frames, frames[1:])]
    return SequenceScore(*(
        float(np.nanmean([flicker(map_m, previous_m, truth_m, pixels) for map_m, previous_m,
                          truth_m, pixels in zip(maps_m[1:], maps_m, truths[1:], pairs)]))
        for maps_m in (together, alone)),
        *(float(np.mean([np.nanmean(np.abs(map_m - truth_m) / truth_m)
                         for map_m, truth_m in zip(maps_m, truths)]))
          for maps_m in (alone, together)))


def _pixels(current: DepthFrame, previous: DepthFrame) -> Covisible:
    """Find the pixels of a frame in the one before."""
    K = strided_K(current, current.depth_m.shape)
    if K is None or current.world_from_camera is None or previous.world_from_camera is None:
        raise InputError(f'{current.name} and the frame before it must have K and a pose')
    return covisible(at_stride(current.depth_m), at_stride(previous.depth_m), K,
                     np.linalg.inv(previous.world_from_camera) @ current.world_from_camera)


def _aligned(prediction: NDArray[Any], depth_m: FloatImage) -> NDArray[np.float64]:
    return align(prediction, depth_m, np.isfinite(depth_m), alignment='least_square',
                 min_depth_m=MIN_DEPTH_M, max_depth_m=MAX_DEPTH_M)


def at_stride(image: FloatImage) -> FloatImage:
    """Take the pixels of a map at which depth is compared."""
    return image[::STRIDE, ::STRIDE]


def read_drive(path: Path) -> Iterator[DepthFrame]:
    """Read a bag with images, their depth, calibration and poses, as sample/living_room."""
    return read_bag_frames(path, SAMPLE_TOPICS)


# (number of the frame, one fixed noise, last latent) -> arguments of `DepthEngine.infer`
Start = Callable[[int, torch.Tensor, torch.Tensor], dict[str, Any]]
STARTS: dict[str, Start] = {
    'fresh noise': lambda number, noise, last: {'latents': _noise(noise.shape, number)},
    'one fixed noise': lambda number, noise, last: {'latents': noise},
    f'{KEPT_NOISE} fixed noise + {KEPT_LATENT} last latent':
        lambda number, noise, last: {'latents': KEPT_NOISE * noise + KEPT_LATENT * last},
    'warm start': lambda number, noise, last: {'latents': noise, 'warm_start': last},
}


def _noise(shape: Sequence[int], seed: int) -> torch.Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def run(engine: DepthEngine, frames: Sequence[DepthFrame], num_inference_steps: int,
        start: Start, seed: int = 0) -> list[FloatImage]:
    """Predict a sequence, each frame from what `start` makes of the noise of a seed."""
    first = engine.infer(frames[0].rgb, num_inference_steps=num_inference_steps, seed=seed)
    noise, last = _noise(first.latent.shape, seed), first.latent.cpu()
    maps = []
    for number, frame in enumerate(frames):
        prediction = engine.infer(frame.rgb, num_inference_steps=num_inference_steps,
                                  **start(seed * len(frames) + number, noise, last))
        last = prediction.latent.cpu()
        maps.append(at_stride(prediction.affine_invariant_depth))
    return maps


def mean_score(scores: Sequence[SequenceScore]) -> SequenceScore:
    """Average over noises."""
    return SequenceScore(**{field.name: float(np.mean([getattr(score, field.name)
                                                       for score in scores]))
                            for field in fields(SequenceScore)})


def table(rows: dict[str, SequenceScore]) -> str:
    """Lay the scores out as Markdown."""
    lines = ['| | flicker | flicker, each frame aligned | AbsRel | AbsRel, one fit |',
             '|---|---|---|---|---|']
    lines += [f'| {name} | {s.flicker:.4f} | {s.flicker_aligned:.4f} | {s.abs_rel:.4f} | '
              f'{s.abs_rel_one_fit:.4f} |' for name, s in rows.items()]
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bag', type=Path, required=True, help='drive, as sample/living_room')
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--noises', type=int, default=3, help='average over so many noises')
    parser.add_argument('--every', type=int, default=1, help='use every Nth frame only')
    options = parser.parse_args(arguments)
    try:
        frames = list(islice(read_drive(options.bag), 0, None, options.every))
        engine = DepthEngine.load(options.checkpoint)
        truths = [at_stride(frame.depth_m) for frame in frames]
        rows = {'true depth': score_sequence(truths, frames)}
        for steps in STEPS:
            if steps <= engine.checkpoint_info.max_useful_steps:
                rows |= {f'{steps} step(s), {name}': mean_score([
                    score_sequence(run(engine, frames, steps, start, seed), frames)
                    for seed in range(options.noises)]) for name, start in STARTS.items()}
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return 2
    print(f'{len(frames)} frames of {options.bag}, {options.checkpoint}\n\n{table(rows)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
