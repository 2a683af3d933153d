"""The initial checkpoint of a training."""

from __future__ import annotations

from checkpoints import make_checkpoint
from diffusers import AutoencoderTiny
import pytest
from safetensors.torch import load_file
import torch
from training_fixtures import changed

from marigold_ros.depth.errors import CheckpointError, ConfigError
from marigold_ros.training import config
from marigold_ros.training.checkpoints import load_initial_pipeline


def test_stable_diffusion_becomes_marigold_by_doubling_conv_in(tiny_config, folder):
    pipeline = load_initial_pipeline(tiny_config)
    stored = load_file(folder / 'sd2/unet/diffusion_pytorch_model.safetensors')
    weight = pipeline.unet.conv_in.weight
    assert pipeline.unet.config.in_channels == 8
    assert torch.equal(weight, torch.cat([stored['conv_in.weight'] / 2] * 2, dim=1))
    assert torch.equal(pipeline.unet.conv_in.bias, stored['conv_in.bias'])
    assert pipeline.scheduler.alphas_cumprod[-1].item() == 0.0
    pipeline.scheduler.set_timesteps(4)
    assert pipeline.scheduler.timesteps.tolist() == [999, 749, 499, 249]
    assert pipeline.scheduler.config.prediction_type == 'v_prediction'


def test_a_marigold_checkpoint_is_not_changed(tiny_config, tmp_path):
    marigold = make_checkpoint(tmp_path / 'marigold', prediction_type='sample')
    pipeline = load_initial_pipeline(changed(tiny_config, initial_checkpoint=str(marigold)))
    stored = load_file(marigold / 'unet/diffusion_pytorch_model.safetensors')
    assert torch.equal(pipeline.unet.conv_in.weight, stored['conv_in.weight'])
    assert pipeline.scheduler.config.prediction_type == 'sample'
    assert isinstance(pipeline.vae, AutoencoderTiny)


def test_epsilon_prediction_has_nonzero_terminal_snr(tiny_config):
    pipeline = load_initial_pipeline(changed(tiny_config, prediction_type='epsilon'))
    assert pipeline.scheduler.alphas_cumprod[-1].item() == pytest.approx(0.0047, abs=1e-4)
    end_to_end = changed(tiny_config, prediction_type='epsilon',
                         objective=config.ObjectiveConfig(variant='end_to_end'))
    with pytest.raises(ConfigError, match='`prediction_type` must be v_prediction or sample'):
        load_initial_pipeline(end_to_end)


def test_an_invalid_checkpoint_is_named(tiny_config, tmp_path):
    wrong = make_checkpoint(tmp_path / 'wrong', in_channels=5)
    with pytest.raises(CheckpointError, match='must have a U-Net from 4 .* got 5 to 4'):
        load_initial_pipeline(changed(tiny_config, initial_checkpoint=str(wrong)))
    with pytest.raises(CheckpointError, match="cannot open '.*/nothing'"):
        load_initial_pipeline(changed(tiny_config, initial_checkpoint=str(tmp_path / 'nothing')))
    with pytest.raises(CheckpointError, match='`vae` must be the folder or hub id'):
        load_initial_pipeline(changed(tiny_config, vae=str(tmp_path)))
