"""A checkpoint that cannot be used is refused with its path and the way out."""

from __future__ import annotations

import json
from pathlib import Path
import shutil

from checkpoints import make_checkpoint
import pytest
import torch

from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.errors import CheckpointError


@pytest.fixture(scope='module')
def intact(tmp_path_factory):
    """Return the folder of an intact checkpoint."""
    return make_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'intact')


@pytest.fixture
def copy(intact, tmp_path):
    """Return a copy to damage."""
    return Path(shutil.copytree(intact, tmp_path / 'copy'))


def test_facts_are_read(intact):
    """Scheduler, prediction type, default steps, resolution and the VAE's factor."""
    info = load_components(str(intact)).info
    assert (info.scheduler, info.prediction_type) == ('DDIMScheduler', 'v_prediction')
    assert (info.default_steps, info.max_useful_steps) == (4, 10)
    assert (info.processing_resolution, info.vae_scale_factor) == (64, 8)
    assert info.initial_latent == 'gaussian'


def test_stored_embedding_replaces_the_text_encoder(copy):
    """With the stored embedding neither tokenizer nor text encoder is needed."""
    from safetensors.torch import save_file
    computed = load_components(str(copy)).empty_text_embedding
    assert computed.shape == (1, 2, 16)
    save_file({'empty_text_embedding': computed}, copy / 'empty_text_embedding.safetensors')
    shutil.rmtree(copy / 'tokenizer')
    shutil.rmtree(copy / 'text_encoder')
    assert torch.equal(load_components(str(copy)).empty_text_embedding, computed)


def test_other_vae_can_be_swapped_in(intact, tmp_path):
    """A VAE folder given by the caller takes the place of the checkpoint's own."""
    kl = make_checkpoint(tmp_path / 'kl', vae='kl')
    assert type(load_components(str(intact), vae=str(kl / 'vae')).vae).__name__ == 'AutoencoderKL'


def test_missing_checkpoint_names_the_choices():
    """Neither folder nor embedded nor hub id."""
    with pytest.raises(CheckpointError, match='/nowhere/at/all.*no folder here.*tiny.*hub id'):
        load_components('/nowhere/at/all')


def damage_truncate(folder):
    """Cut the U-Net's weights in half."""
    weights = folder / 'unet' / 'diffusion_pytorch_model.safetensors'
    weights.write_bytes(weights.read_bytes()[:weights.stat().st_size // 2])


def damage_index(folder):
    """Remove the index."""
    (folder / 'model_index.json').unlink()


def damage_config(folder):
    """Promise more channels than the weights have."""
    config = folder / 'unet' / 'config.json'
    config.write_text(json.dumps({**json.loads(config.read_text()), 'layers_per_block': 2}))


def damage_scheduler(folder):
    """Ask for a scheduler that Marigold never used."""
    index = folder / 'model_index.json'
    index.write_text(index.read_text().replace('DDIMScheduler', 'PNDMScheduler'))


def damage_pickle(folder):
    """Offer pickled weights only."""
    weights = folder / 'unet' / 'diffusion_pytorch_model.safetensors'
    torch.save({}, weights.with_suffix('.bin'))
    weights.unlink()


@pytest.mark.parametrize('damage', [damage_truncate, damage_index, damage_config,
                                    damage_scheduler, damage_pickle])
def test_damaged_checkpoint_names_path_and_way_out(copy, damage):
    """The message names the folder and what it must hold."""
    damage(copy)
    with pytest.raises(CheckpointError) as caught:
        load_components(str(copy))
    assert str(copy) in str(caught.value)
    assert 'MarigoldDepthPipeline.save_pretrained' in str(caught.value)


def test_plain_stable_diffusion_is_not_marigold(tmp_path):
    """Four input channels mean that nobody has fine-tuned it."""
    folder = make_checkpoint(tmp_path / 'sd', in_channels=4)
    with pytest.raises(CheckpointError, match='not a Marigold checkpoint: .* maps 4 to 4'):
        load_components(str(folder))
