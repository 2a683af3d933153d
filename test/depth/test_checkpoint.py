"""Checkpoints: properties, errors with path and remedy, and no execution of code."""

from __future__ import annotations

import json
from pathlib import Path
import pickle
import shutil
from types import SimpleNamespace

from checkpoints import make_checkpoint
from huggingface_hub.utils import filter_repo_objects
import pytest
from safetensors.torch import load_file, save_file
import torch

from marigold_ros.depth import checkpoint
from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.errors import CheckpointError
from marigold_ros.training.checkpoints import load_initial_pipeline


@pytest.fixture(scope='module')
def intact(tmp_path_factory):
    """Return the folder of an intact checkpoint."""
    return make_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'intact')


@pytest.fixture
def copy(intact, tmp_path):
    """Return a copy to damage."""
    return Path(shutil.copytree(intact, tmp_path / 'copy'))


def test_properties_are_read(intact):
    """Scheduler, prediction type, default steps, resolution and the VAE's factor."""
    info = load_components(str(intact)).info
    assert (info.scheduler, info.prediction_type) == ('DDIMScheduler', 'v_prediction')
    assert (info.default_steps, info.max_useful_steps) == (4, 10)
    assert (info.processing_resolution, info.vae_scale_factor) == (64, 8)
    assert info.initial_latent == 'gaussian'


def test_a_stored_embedding_replaces_the_text_encoder(copy):
    computed = load_components(str(copy)).empty_text_embedding
    assert computed.shape == (1, 2, 16)
    save_file({'empty_text_embedding': computed}, copy / 'empty_text_embedding.safetensors')
    shutil.rmtree(copy / 'tokenizer')
    shutil.rmtree(copy / 'text_encoder')
    assert torch.equal(load_components(str(copy)).empty_text_embedding, computed)


def test_another_vae_can_be_loaded(intact, tmp_path):
    kl = make_checkpoint(tmp_path / 'kl', vae='kl')
    assert type(load_components(str(intact), vae=str(kl / 'vae')).vae).__name__ == 'AutoencoderKL'


def test_a_missing_checkpoint_is_reported_with_the_choices():
    with pytest.raises(CheckpointError,
                       match='must be a local folder.*tiny.*hub id.*got ./nowhere/at/all'):
        load_components('/nowhere/at/all')


def truncate_unet(folder):
    """Truncate the U-Net's weights to half."""
    weights = folder / 'unet' / 'diffusion_pytorch_model.safetensors'
    weights.write_bytes(weights.read_bytes()[:weights.stat().st_size // 2])


def remove_index(folder):
    """Remove the index."""
    (folder / 'model_index.json').unlink()


def change_unet_config(folder):
    """Declare more layers than the weights have."""
    config = folder / 'unet' / 'config.json'
    config.write_text(json.dumps({**json.loads(config.read_text()), 'layers_per_block': 2}))


def change_scheduler(folder):
    """Request a scheduler that Marigold does not use."""
    index = folder / 'model_index.json'
    index.write_text(index.read_text().replace('DDIMScheduler', 'PNDMScheduler'))


def pickle_unet(folder):
    """Replace the weights by pickled ones."""
    weights = folder / 'unet' / 'diffusion_pytorch_model.safetensors'
    torch.save({}, weights.with_suffix('.bin'))
    weights.unlink()


def pickle_text_encoder(folder):
    """Replace the text encoder's weights by pickled ones."""
    weights = folder / 'text_encoder' / 'model.safetensors'
    torch.save({}, folder / 'text_encoder' / 'pytorch_model.bin')
    weights.unlink()


def remove_text_encoder_weight(folder):
    """Remove a weight of the text encoder, which would be initialized at random."""
    weights = folder / 'text_encoder' / 'model.safetensors'
    kept = load_file(weights)
    kept.pop(next(name for name in kept if 'token_embedding' in name))
    save_file(kept, weights, {'format': 'pt'})


def truncate_tokenizer(folder):
    """Truncate the tokenizer."""
    (folder / 'tokenizer' / 'tokenizer.json').write_text('{')


def replace_index_by_list(folder):
    """Write an index that is not an object."""
    (folder / 'model_index.json').write_text('[]')


def request_quantization(folder):
    """Request a quantization whose library is not installed."""
    config = folder / 'unet' / 'config.json'
    config.write_text(json.dumps({**json.loads(config.read_text()), 'quantization_config': {
        'quant_method': 'bitsandbytes', 'load_in_8bit': True}}))


@pytest.mark.parametrize('damage', [
    truncate_unet, remove_index, change_unet_config, change_scheduler, pickle_unet,
    pickle_text_encoder, remove_text_encoder_weight, truncate_tokenizer, replace_index_by_list,
    request_quantization])
def test_a_damaged_checkpoint_is_reported_with_path_and_remedy(copy, damage):
    damage(copy)
    with pytest.raises(CheckpointError) as caught:
        load_components(str(copy))
    assert str(copy) in str(caught.value)
    assert 'MarigoldDepthPipeline.save_pretrained' in str(caught.value)


def test_a_stable_diffusion_checkpoint_is_rejected(tmp_path):
    """Its U-Net has four input channels."""
    folder = make_checkpoint(tmp_path / 'sd', in_channels=4)
    with pytest.raises(CheckpointError, match='not a Marigold checkpoint: .* maps 4 to 4'):
        load_components(str(folder))


class UnpicklingError(AssertionError):
    """Raised by every function that unpickles."""


@pytest.fixture
def no_pickle(monkeypatch):
    """Make every function that unpickles raise."""
    def fail(*_, **__):
        raise UnpicklingError

    for module, name in ((torch, 'load'), (pickle, 'load'), (pickle, 'loads'),
                         (pickle, 'Unpickler'), (torch.serialization, 'load')):
        monkeypatch.setattr(module, name, fail)


@pytest.mark.parametrize('kind', ['embedded', 'with a text encoder'])
def test_nothing_is_unpickled_while_a_checkpoint_loads(no_pickle, intact, kind):
    load_components('tiny' if kind == 'embedded' else str(intact))


@pytest.mark.parametrize('weights', ['unet/diffusion_pytorch_model.safetensors',
                                     'vae/diffusion_pytorch_model.safetensors',
                                     'text_encoder/model.safetensors'])
def test_a_shard_index_with_a_pickle_is_rejected(no_pickle, copy, weights):
    """Transformers and diffusers would unpickle it in spite of use_safetensors."""
    path = copy / weights
    torch.save({}, path.with_name('shard.bin'))
    path.unlink()
    path.with_name(f'{path.name}.index.json').write_text(json.dumps(
        {'metadata': {'total_size': 1}, 'weight_map': {'conv_in.weight': 'shard.bin'}}))
    with pytest.raises(CheckpointError, match=r'index.json must list .safetensors files only; '
                                              r"got \['shard.bin'\]"):
        load_components(str(copy))
    with pytest.raises(CheckpointError, match='must list .safetensors files only'):
        load_initial_pipeline(SimpleNamespace(initial_checkpoint=str(copy), architecture=None,
                                              vae=None))


@pytest.mark.parametrize('part', ['unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler', '.'])
def test_code_in_a_checkpoint_is_never_run(copy, part, capfd):
    """Whatever the configs declare; attention code is not downloaded and run either."""
    (copy / part / 'evil.py').write_text('print("executed")\nclass Evil:\n    pass\n')
    for config in [*(copy / part).glob('*config.json'), *(copy / part).glob('model_index.json')]:
        fields = json.loads(config.read_text())
        hooks = dict.fromkeys(('AutoModel', 'AutoConfig', 'AutoTokenizer', 'AutoencoderKL',
                               'UNet2DConditionModel'), 'evil.Evil')
        config.write_text(json.dumps({
            **fields, 'auto_map': hooks, 'custom_pipeline': 'evil', 'trust_remote_code': True,
            'attn_implementation': 'evil/code', '_attn_implementation': 'evil/code'}))
    load_components(str(copy))
    assert 'executed' not in capfd.readouterr().out


def test_only_data_files_are_downloaded_from_the_hub(monkeypatch, intact):
    """Check the patterns with huggingface_hub's filter."""
    fetched = {}

    def snapshot_download(name, *, allow_patterns):
        fetched.update(name=name, patterns=allow_patterns)
        return str(intact)

    monkeypatch.setattr(checkpoint, 'snapshot_download', snapshot_download)
    load_components('owner/name')
    assert fetched['name'] == 'owner/name'
    files = ['model_index.json', 'unet/model.safetensors', 'tokenizer/merges.txt',
             'unet/model.bin', 'x.ckpt', 'x.pt', 'x.pth', 'x.pkl', 'pipeline.py', 'x.so', 'x.npy']
    assert list(filter_repo_objects(files, allow_patterns=fetched['patterns'])) == files[:3]
