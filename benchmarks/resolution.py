"""
How do time and accuracy depend on the processing resolution, and time on the size of the latents?

    python -m benchmarks.resolution

The embedded checkpoint at one step on the frames of the sample drive, one torch thread.  Accuracy:
protocol A, mean over the frames.  Time: `DepthEngine.infer` on one 640x480 frame, all in random
order in each round; medians, and the ratio to the checkpoint's own resolution.  Beside it an
untrained network whose latents have a cell for 4x4 instead of 8x8 pixels, with one more level in
the U-Net: what finer latents would cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
import sys
from tempfile import TemporaryDirectory

from diffusers import AutoencoderTiny
import torch

from benchmarks.timing import (
    format_markdown_table,
    quartiles_ms,
    speedup,
    time_interleaved,
    write_benchmark_report,
)
from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.evaluation.metrics.protocols import mean_scores, score
from marigold_ros.training.checkpoints import load_initial_pipeline, save_pipeline
from marigold_ros.training.config import FinetuneConfig

SAMPLE = Path(__file__).parents[1] / 'sample' / 'living_room'
RESOLUTIONS_PX = (96, 128, 160, 192, 256, 320)
FINER_RESOLUTIONS_PX = (192, 256)
FINER = ', untrained, 4x4 px in a latent cell'
ROUNDS = 40
# The embedded checkpoint's networks, with a level less in the autoencoder and one more, half as
# wide, in the U-Net.
FINER_VAE = {'encoder_block_out_channels': (48,) * 3, 'decoder_block_out_channels': (48,) * 3,
             'num_encoder_blocks': (0, 1, 6), 'num_decoder_blocks': (4, 1, 0),
             'latent_channels': 16}
FINER_UNET = {'channels': (48, 96, 128, 160), 'layers_per_block': 2, 'text_channels': 32,
              'norm_groups': 16, 'attention_head_channels': 32}


def save_finer_checkpoint(folder: Path) -> Path:
    """
    Write an untrained checkpoint whose latents have a cell for 4x4 pixels.

    Returns
    -------
    Path
        Of the checkpoint in `folder`.
    """
    AutoencoderTiny(**FINER_VAE).save_pretrained(folder / 'vae')
    config = FinetuneConfig.model_validate({
        'run_folder': str(folder), 'seed': 0, 'architecture': FINER_UNET,
        'vae': str(folder / 'vae'), **{name: [{'reader': 'shards', 'path': '', 'size': (8, 8)}]
                                       for name in ('train', 'validation')}})
    save_pipeline(load_initial_pipeline(config), folder / 'checkpoint')
    return folder / 'checkpoint'


def load_engines(folder: Path) -> dict[str, DepthEngine]:
    """Load every candidate; `folder` is for the untrained checkpoint."""
    # Guided upsampling would take its edges from the image.
    load = partial(DepthEngine.load, device='cpu', upsampling='bilinear')
    finer = str(save_finer_checkpoint(folder))
    return {f'{size_px}': load(processing_resolution=size_px)
            for size_px in RESOLUTIONS_PX} | {
        f'{size_px}{FINER}': load(finer, processing_resolution=size_px)
        for size_px in FINER_RESOLUTIONS_PX}


def measure_accuracy(engine: DepthEngine, frames: Sequence[DepthFrame]) -> dict[str, str]:
    """Score an engine at one step on frames; format the scores by column."""
    scores = mean_scores([
        score(engine.infer(frame.rgb, num_inference_steps=1).affine_invariant_depth, frame)
        for frame in frames])
    return {f'AbsRel by {scores.label}': f'{scores["abs_rel"]:.3f}',
            'delta1': f'{scores["delta1"]:.3f}', 'boundary F1': f'{scores["boundary_f1"]:.4f}'}


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--rounds', type=int, default=ROUNDS, help='timed rounds')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = make_parser().parse_args(arguments)
    facts = describe_environment()
    torch.set_num_threads(1)
    frames = list(bag_data_set(SAMPLE).frames())
    own = str(DepthEngine.load(device='cpu').checkpoint_info.processing_resolution)
    with TemporaryDirectory() as folder:
        engines = load_engines(Path(folder))
        runs = time_interleaved(
            {name: partial(engine.infer, frames[0].rgb, num_inference_steps=1)
             for name, engine in engines.items()}, rounds=options.rounds)
    rows = []
    for name, engine in engines.items():
        seconds = runs[name].seconds
        slower = speedup(seconds, runs[own].seconds)
        rows.append({
            'processing resolution, px': name,
            'infer, ms': f'{quartiles_ms(seconds)["median_ms"]:.0f}',
            f'time, in that of {own} px': f'{slower["ratio"]:.2f} '
                                          f'[{slower["low"]:.2f}, {slower["high"]:.2f}]',
            **(measure_accuracy(engine, frames) if not name.endswith(FINER) else {})})
    write_benchmark_report(options.out, 'resolution', facts, {'rows': rows},
                           format_markdown_table(rows))
    return 0


if __name__ == '__main__':
    sys.exit(main())
