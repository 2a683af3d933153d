"""The checkpoint that a training starts from."""

from __future__ import annotations

from checkpoints import make_checkpoint
from diffusers import AutoencoderTiny
import pytest
from safetensors.torch import load_file
import torch
from training_fixtures import changed

from marigold_ros.depth.errors import CheckpointError, ConfigError
from marigold_ros.training import config
from marigold_ros.training.checkpoints import initial_pipeline


def test_stable_diffusion_becomes_marigold_by_doubling_conv_in(recipe, folder):
    pipeline = initial_pipeline(recipe)
    stored = load_file(folder / 'sd2/unet/diffusion_pytorch_model.safetensors')
    weight = pipeline.unet.conv_in.weight
    assert pipeline.unet.config.in_channels == 8
    assert torch.equal(weight, torch.cat([stored['conv_in.weight'] / 2] * 2, dim=1))
    assert torch.equal(pipeline.unet.conv_in.bias, stored['conv_in.bias'])
    assert pipeline.scheduler.alphas_cumprod[-1].item() == 0.0
    pipeline.scheduler.set_timesteps(4)
    assert pipeline.scheduler.timesteps.tolist() == [999, 749, 499, 249]
    assert pipeline.scheduler.config.prediction_type == 'v_prediction'


def test_a_marigold_checkpoint_is_taken_as_it_is(recipe, tmp_path):
    marigold = make_checkpoint(tmp_path / 'marigold', prediction_type='sample')
    pipeline = initial_pipeline(changed(recipe, initial_checkpoint=str(marigold)))
    stored = load_file(marigold / 'unet/diffusion_pytorch_model.safetensors')
    assert torch.equal(pipeline.unet.conv_in.weight, stored['conv_in.weight'])
    assert pipeline.scheduler.config.prediction_type == 'sample'
    assert isinstance(pipeline.vae, AutoencoderTiny)


def test_predicted_noise_keeps_a_trace_of_the_latent_at_the_end(recipe):
    pipeline = initial_pipeline(changed(recipe, prediction_type='epsilon'))
    assert pipeline.scheduler.alphas_cumprod[-1].item() == pytest.approx(0.0047, abs=1e-4)
    end_to_end = changed(recipe, prediction_type='epsilon',
                         objective=config.ObjectiveConfig(variant='end_to_end'))
    with pytest.raises(ConfigError, match='`prediction_type` must be v_prediction or sample'):
        initial_pipeline(end_to_end)


def test_a_checkpoint_that_cannot_be_used_is_named(recipe, tmp_path):
    wrong = make_checkpoint(tmp_path / 'wrong', in_channels=5)
    with pytest.raises(CheckpointError, match='must have a U-Net from 4 .* got 5 to 4'):
        initial_pipeline(changed(recipe, initial_checkpoint=str(wrong)))
    with pytest.raises(CheckpointError, match="cannot open '.*/nothing'"):
        initial_pipeline(changed(recipe, initial_checkpoint=str(tmp_path / 'nothing')))
    with pytest.raises(CheckpointError, match='`vae` must be the folder or hub id'):
        initial_pipeline(changed(recipe, vae=str(tmp_path)))
