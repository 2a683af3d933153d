"""Tiny data sets, checkpoints and configurations to train with."""

from __future__ import annotations

import json
from pathlib import Path

from checkpoints import make_checkpoint
import numpy as np
from safetensors.torch import load_file
import torch

from marigold_ros.data.frames import DepthFrame
from marigold_ros.data.shards import write_shard
from marigold_ros.training.config import FrameSetConfig

HEIGHT, WIDTH = 32, 48


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def frame(height=16, width=24, depth=2.0):
    """Make a flat wall in random colours."""
    random = np.random.default_rng(0)
    depth_m = np.full((height, width), depth, np.float32)
    return DepthFrame('a.png', random.integers(0, 256, (height, width, 3), dtype=np.uint8),
                      depth_m, depth_m > 0)


def write_frames(folder, count=4, scale=1.0):
    """Write images in which brighter is farther, below a sky of one row."""
    folder.mkdir(exist_ok=True)
    rgb = np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    depth_m = scale * (1 + rgb.mean(axis=-1, dtype=np.float32) / 64)
    depth_m[:, 0] = np.inf
    write_shard(folder, 0, rgb, depth_m, np.zeros((count, 3, 3)), ['room'] * count, first=0)
    return FrameSetConfig(reader='shards', path=str(folder), size=(HEIGHT, WIDTH))


def write_stable_diffusion(folder):
    """Write a tiny checkpoint whose U-Net reads one latent, in Stable Diffusion 2's layout."""
    make_checkpoint(folder, in_channels=4, vae='kl')
    index = json.loads((folder / 'model_index.json').read_text())
    kept = {name: index[name] for name in ('text_encoder', 'tokenizer', 'unet', 'vae')}
    (folder / 'model_index.json').write_text(json.dumps(kept | {
        '_class_name': 'StableDiffusionPipeline', 'scheduler': ['diffusers', 'PNDMScheduler'],
        'feature_extractor': [None, None], 'safety_checker': [None, None],
        'requires_safety_checker': False}))
    scheduler = folder / 'scheduler' / 'scheduler_config.json'
    fields = json.loads(scheduler.read_text())
    scheduler.write_text(json.dumps(fields | {
        '_class_name': 'PNDMScheduler', 'timestep_spacing': 'leading', 'skip_prk_steps': True,
        'rescale_betas_zero_snr': False}))
    return folder


def changed(part, **changes):
    return part.model_copy(update=changes)


def with_schedule(config, **changes):
    return changed(config, schedule=changed(config.schedule, **changes))


def weights(run_folder, part='state/model.safetensors'):
    return load_file(Path(run_folder) / part)


class Autoencoder:
    """Encodes 8x8 pixels as their mean in 4 channels, and decodes by repetition."""

    class config:
        scaling_factor = 0.5

    def encode(self, images):
        means = torch.nn.functional.avg_pool2d(images, 8).mean(dim=1, keepdim=True)
        return type('Encoded', (), {'latents': means.expand(-1, 4, -1, -1)})

    def decode(self, latents, return_dict):
        grown = torch.nn.functional.interpolate(latents[:, :1], scale_factor=8.0, mode='nearest')
        return (grown.expand(-1, 3, -1, -1),)
