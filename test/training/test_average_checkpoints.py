"""The mean of the weights of checkpoints."""

from __future__ import annotations

from checkpoints import make_checkpoint
import numpy as np
import pytest
from safetensors.torch import load_file
import torch

from marigold_ros.depth.engine import DepthEngine
from marigold_ros.training.average_checkpoints import main

UNET = 'unet/diffusion_pytorch_model.safetensors'
VAE = 'vae/diffusion_pytorch_model.safetensors'


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp('average')
    return [make_checkpoint(folder / str(seed), seed=seed) for seed in (0, 1)]


@pytest.mark.parametrize('network', [UNET, VAE])
def test_every_weight_is_the_mean(pair, tmp_path, network):
    assert main([*map(str, pair), '--out', str(tmp_path)]) == 0
    first, second = (load_file(checkpoint / network) for checkpoint in pair)
    averaged = load_file(tmp_path / network)
    assert averaged.keys() == first.keys()
    assert any(not torch.equal(first[key], second[key]) for key in first)
    for key, weight in averaged.items():
        # Written in float16.
        torch.testing.assert_close(weight, ((first[key] + second[key]) / 2).half())


def test_the_engine_opens_it(pair, tmp_path):
    assert main([*map(str, pair), '--out', str(tmp_path)]) == 0
    prediction = DepthEngine.load(str(tmp_path), device='cpu').infer(
        np.full((48, 64, 3), 128, np.uint8), num_inference_steps=1)
    assert np.isfinite(prediction.affine_invariant_depth).all()


def test_checkpoints_that_do_not_fit_are_named(pair, tmp_path, capsys):
    def error_of(*checkpoints):
        assert main([*map(str, checkpoints), '--out', str(tmp_path / 'out')]) == 1
        return capsys.readouterr().err

    wider = make_checkpoint(tmp_path / 'wider', in_channels=9)
    other = make_checkpoint(tmp_path / 'sample', prediction_type='sample')
    error = error_of(pair[0], wider)
    assert 'conv_in.weight of the unet is [16, 8, 3, 3] in' in error
    assert f'[16, 9, 3, 3] in {wider}' in error
    assert 'one prediction type; got v_prediction, sample' in error_of(pair[0], other)
    assert 'at least two' in error_of(pair[0])
    error = error_of(pair[0], tmp_path / 'none')
    assert '`checkpoints` must be an embedded name, a folder' in error
    assert f"cannot open '{tmp_path / 'none'}'" in error
    assert not (tmp_path / 'out').exists()
