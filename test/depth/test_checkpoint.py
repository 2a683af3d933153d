"""Checkpoints: properties, errors with path and remedy, and no execution of code."""

from __future__ import annotations

import json
from pathlib import Path
import pickle
import shutil
from types import SimpleNamespace

from checkpoints import make_checkpoint
from diffusers import AutoencoderTiny
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.errors import DryRunError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
import pytest
from safetensors.torch import load_file, save_file
import torch
from transformers.utils import logging as transformers_logging

from marigold_ros.depth import checkpoint
from marigold_ros.depth.checkpoint import find_checkpoint, load_components
from marigold_ros.depth.errors import CheckpointError
from marigold_ros.training.checkpoints import load_initial_pipeline
from marigold_ros.training.config import FinetuneConfig, FrameSetConfig

SETS = (FrameSetConfig(reader='shards', path='', size=(8, 8)),)


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


def test_loading_prints_nothing_and_leaves_the_settings_of_the_libraries(intact, capfd):
    """Else transformers draws a bar, also to a pipe."""
    libraries = diffusers_logging, transformers_logging
    for library in libraries:
        library.enable_progress_bar()
    before = [library.get_verbosity() for library in libraries]
    load_components(str(intact))
    assert capfd.readouterr() == ('', '')
    assert all(library.is_progress_bar_enabled() for library in libraries)
    assert [library.get_verbosity() for library in libraries] == before


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
@pytest.mark.parametrize('index', ['.index.json', '.index.fp16.json', '.fp16.index.json'])
def test_a_shard_index_with_a_pickle_is_rejected(no_pickle, copy, weights, index):
    """Transformers and diffusers would unpickle it in spite of use_safetensors."""
    path = copy / weights
    torch.save({}, path.with_name('shard.bin'))
    path.unlink()
    path.with_name(f'{path.name}{index}').write_text(json.dumps(
        {'metadata': {'total_size': 1}, 'weight_map': {'conv_in.weight': 'shard.bin'}}))
    with pytest.raises(CheckpointError, match=r'index.*json must list .safetensors files only; '
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


# --- checkpoints of another task -----------------------------------------------------------

def edit_index(folder, **changes):
    """Change entries of model_index.json; None removes one."""
    index = folder / 'model_index.json'
    fields = json.loads(index.read_text()) | changes
    index.write_text(json.dumps({key: value for key, value in fields.items()
                                 if value is not None}))


@pytest.mark.parametrize(('changes', 'got'), [
    ({'_class_name': 'MarigoldNormalsPipeline', 'prediction_type': 'normals'},
     "`_class_name` .* must be MarigoldDepthPipeline or MarigoldPipeline; got 'MarigoldNormals"),
    ({'_class_name': 'MarigoldIntrinsicsPipeline', 'prediction_type': 'intrinsics'},
     "`_class_name` .*; got 'MarigoldIntrinsicsPipeline'"),
    ({'_class_name': 'StableDiffusionInstructPix2PixPipeline'},
     "`_class_name` .*; got 'StableDiffusionInstructPix2PixPipeline'"),
    ({'_class_name': None}, '`_class_name` .*; got None'),
    ({'prediction_type': 'disparity'},
     "`prediction_type` in its model_index.json must be depth; got 'disparity'")])
def test_a_checkpoint_of_another_task_is_rejected(copy, changes, got):
    edit_index(copy, **changes)
    with pytest.raises(CheckpointError, match=f'copy is a checkpoint of another task: {got}'):
        load_components(str(copy))
    with pytest.raises(CheckpointError, match='`initial_checkpoint` .*: .* of another task'):
        load_initial_pipeline(SimpleNamespace(initial_checkpoint=str(copy), architecture=None,
                                              vae=None))


def test_the_name_of_the_authors_first_pipeline_is_accepted(copy):
    edit_index(copy, _class_name='MarigoldPipeline', prediction_type=None)
    assert load_components(str(copy)).info.scheduler == 'DDIMScheduler'


def test_a_vae_of_other_than_three_channels_is_rejected(intact, tmp_path):
    vae = AutoencoderTiny(
        in_channels=4, out_channels=4, encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8), num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1), latent_channels=4)
    vae.save_pretrained(tmp_path / 'rgba')
    with pytest.raises(CheckpointError, match='the VAE maps 4 to 4 channels; Marigold needs 3'):
        load_components(str(intact), vae=str(tmp_path / 'rgba'))


# --- variants of the weights ---------------------------------------------------------------

PARTS = ('unet/diffusion_pytorch_model', 'vae/diffusion_pytorch_model', 'text_encoder/model')


def store_half(folder, *, keep, add=0.0):
    """Store the weights plus `add` also in half precision, or only so unless `keep`."""
    for part in PARTS:
        whole = folder / f'{part}.safetensors'
        save_file({name: (weight + add).half() for name, weight in load_file(whole).items()},
                  folder / f'{part}.fp16.safetensors', {'format': 'pt'})
        if not keep:
            whole.unlink()


def first_weight(folder, dtype):
    """Return a weight of the U-Net that `load_components` loads."""
    return load_components(str(folder), dtype=dtype).unet.conv_in.bias[0].item()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_weights_that_exist_in_half_precision_only_are_read(copy, dtype):
    expected = first_weight(copy, torch.float32)
    store_half(copy, keep=False)
    assert first_weight(copy, dtype) == pytest.approx(expected, rel=1e-2)
    pipeline = load_initial_pipeline(FinetuneConfig(
        run_folder='', seed=0, initial_checkpoint=str(copy), vae=str(copy / 'vae'), train=SETS,
        validation=SETS))
    assert pipeline.unet.conv_in.bias.dtype == pipeline.vae.dtype == torch.float32
    assert pipeline.unet.conv_in.bias[0].item() == pytest.approx(expected, rel=1e-3)


def test_half_weights_are_read_where_the_networks_are_half_anyway(copy):
    expected = first_weight(copy, torch.float32)
    store_half(copy, keep=True, add=1.0)
    assert first_weight(copy, torch.float32) == expected
    assert first_weight(copy, torch.float16) == pytest.approx(expected + 1, abs=1e-3)
    assert first_weight(copy, torch.bfloat16) == pytest.approx(expected + 1, abs=1e-2)


# --- the hub -------------------------------------------------------------------------------

HUB_FILES = [
    'model_index.json', 'tokenizer/merges.txt', 'empty_text_embedding.safetensors',
    *(f'{part}{variant}.safetensors' for part in PARTS for variant in ('', '.fp16')),
    'v2-1_768-ema-pruned.safetensors', 'safety_checker/model.safetensors', 'unet/model.bin',
    'x.ckpt', 'x.pt', 'x.pth', 'x.pkl', 'pipeline.py', 'x.so', 'x.npy']


@pytest.fixture
def hub(monkeypatch, intact):
    """Replace the hub by a list of files; return it, and the files that were downloaded."""
    files, downloaded = list(HUB_FILES), []

    def snapshot_download(name, *, allow_patterns, dry_run=False):
        assert name == 'owner/name'
        chosen = list(filter_repo_objects(files, allow_patterns=allow_patterns))
        if dry_run:
            return [SimpleNamespace(filename=each) for each in chosen]
        downloaded.extend(chosen)
        return str(intact)

    monkeypatch.setattr(checkpoint, 'snapshot_download', snapshot_download)
    return SimpleNamespace(files=files, downloaded=downloaded)


@pytest.mark.parametrize(('dtype', 'variant'), [
    (torch.float32, ''), (torch.bfloat16, '.fp16'), (torch.float16, '.fp16')])
def test_data_files_and_one_variant_of_the_weights_are_downloaded(hub, dtype, variant):
    load_components('owner/name', dtype=dtype)
    assert hub.downloaded == HUB_FILES[:3] + [f'{part}{variant}.safetensors' for part in PARTS]


def test_the_only_variant_of_a_part_is_downloaded(hub):
    """The U-Net exists in half precision only, the text encoder in full precision only."""
    hub.files.remove('unet/diffusion_pytorch_model.safetensors')
    hub.files.remove('text_encoder/model.fp16.safetensors')
    find_checkpoint('owner/name')
    find_checkpoint('owner/name', torch.float16)
    assert [name for name in hub.downloaded if name.split('.')[0] in PARTS] == [
        'unet/diffusion_pytorch_model.fp16.safetensors',
        'vae/diffusion_pytorch_model.safetensors', 'text_encoder/model.safetensors',
        'unet/diffusion_pytorch_model.fp16.safetensors',
        'vae/diffusion_pytorch_model.fp16.safetensors', 'text_encoder/model.safetensors']


def test_without_a_connection_an_earlier_download_is_used(monkeypatch, intact):
    def snapshot_download(name, *, allow_patterns, dry_run=False, local_files_only=False):
        if not local_files_only:
            raise DryRunError('cannot be accessed') from ConnectionError('no route to the hub')
        if name != 'owner/name':
            raise LocalEntryNotFoundError('not cached')
        return str(intact)

    monkeypatch.setattr(checkpoint, 'snapshot_download', snapshot_download)
    assert find_checkpoint('owner/name') == intact
    with pytest.raises(CheckpointError, match="'owner/other' is not a local folder and cannot be "
                       'downloaded from the hub: no route to the hub'):
        find_checkpoint('owner/other')
