"""Data and configurations of several tests."""

from __future__ import annotations

import pytest
from training_fixtures import changed, HEIGHT, WIDTH, write_frames, write_stable_diffusion

from marigold_ros.training import config
from marigold_ros.training.config import AugmentationConfig, FrameSetConfig
from marigold_ros.training.train_vae import train_vae


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp('training')
    write_stable_diffusion(made / 'sd2')
    write_frames(made / 'frames')
    return made


@pytest.fixture
def tiny_config(folder, tmp_path):
    """Configure 4 iterations of 2 parts from Stable Diffusion, with a checkpoint every 2."""
    frames = FrameSetConfig(reader='shards', path=str(folder / 'frames'), size=(HEIGHT, WIDTH))
    return config.FinetuneConfig(
        run_folder=str(tmp_path / 'run'), seed=1, initial_checkpoint=str(folder / 'sd2'),
        train=(frames, changed(frames, size=(24, 32))), validation=(frames,), validation_frames=2,
        augmentation=AugmentationConfig(min_crop=0.8, jitter_probability=0.5, noise=0.02),
        schedule=config.ScheduleConfig(
            batch_size=4, device_batch_size=2, max_iterations=4, learning_rate=1e-3,
            warmup_iterations=1, decay_iterations=10, checkpoint_every=2),
        hardware=config.HardwareConfig(device='cpu', workers=0),
        default_processing_resolution=48)


@pytest.fixture(scope='session')
def vae_config(folder):
    frames = FrameSetConfig(reader='shards', path=str(folder / 'frames'), size=(HEIGHT, WIDTH))
    tiny_config = config.VaeConfig(
        run_folder=str(folder / 'vae'), seed=1, train=(frames,), validation=(frames,),
        architecture=config.VaeArchitecture(
            channels=8, encoder_blocks=(0, 1, 1, 1), decoder_blocks=(1, 1, 1, 0),
            latent_channels=6),
        validation_frames=2,
        schedule=config.ScheduleConfig(batch_size=2, max_iterations=3, learning_rate=1e-3),
        hardware=config.HardwareConfig(device='cpu', workers=0), depth_weight=0.5)
    train_vae(tiny_config)
    return tiny_config
