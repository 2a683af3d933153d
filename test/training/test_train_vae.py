"""A training of the autoencoder with a few iterations."""

from __future__ import annotations

import json

from diffusers import AutoencoderTiny
import numpy as np
import pytest
import torch
from training_fixtures import HEIGHT, WIDTH

from marigold_ros.data.shards import ShardFrames
from marigold_ros.training.config import AugmentationConfig
from marigold_ros.training.latents import encode_images
from marigold_ros.training.train_vae import stack_images_and_depths
from marigold_ros.training.views import random_view


def test_latents_of_the_trained_autoencoder_have_unit_size(vae_config, folder):
    vae = AutoencoderTiny.from_pretrained(folder / 'vae/checkpoint/vae')
    scalars = json.loads((folder / 'vae/scalars.jsonl').read_text().splitlines()[-1])
    assert scalars['validation/frames/abs_rel_reconstruction'] > 0
    frames, unchanged = ShardFrames(folder / 'frames'), AugmentationConfig(flip_probability=0.0)
    views = [random_view(frames[index], (HEIGHT, WIDTH), unchanged, np.random.default_rng(0))
             for index in range(len(frames))]
    with torch.no_grad():
        latents = torch.cat([encode_images(vae, stack_images_and_depths(view)) for view in views])
    assert latents.shape[1] == 6
    assert latents.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.02)
