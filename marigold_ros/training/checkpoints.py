"""Load the initial checkpoint of a training, and save the trained one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    MarigoldDepthPipeline,
)
from safetensors.torch import save_file
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from marigold_ros.depth.checkpoint import (
    check_task,
    DEPTH_PIPELINES,
    EMPTY_TEXT,
    find_checkpoint,
    INDEX,
    reject_pickled_weights,
    weights_variant,
)
from marigold_ros.depth.errors import CheckpointError, ConfigError
from marigold_ros.training.architectures import build_text_encoder, build_unet, double_conv_in
from marigold_ros.training.config import FinetuneConfig, UNetArchitecture

NUM_TRAIN_TIMESTEPS = 1000
# Of Stable Diffusion 2; Marigold uses the same.
SD2_SCHEDULE = {
    'num_train_timesteps': NUM_TRAIN_TIMESTEPS, 'beta_start': 0.00085, 'beta_end': 0.012,
    'beta_schedule': 'scaled_linear', 'set_alpha_to_one': False, 'steps_offset': 1,
    'prediction_type': 'v_prediction'}
LOADING_ERRORS = (CheckpointError, OSError, ValueError, KeyError, TypeError, RuntimeError,
                  AttributeError)


def load_initial_pipeline(config: FinetuneConfig) -> MarigoldDepthPipeline:
    """
    Load the initial checkpoint, or build an untrained one.

    Parameters
    ----------
    config : FinetuneConfig

    Returns
    -------
    MarigoldDepthPipeline
        In float32 on the CPU; its U-Net reads two latents, its timesteps are trailing.

    Raises
    ------
    CheckpointError
        If it cannot be loaded, is of another task than depth, or its U-Net is neither Stable
        Diffusion's nor Marigold's.
    ConfigError
        If the objective does not support the prediction type.
    """
    given_vae = {} if config.vae is None else {'vae': load_vae(config.vae)}
    parts = (dict(open_pipeline(str(config.initial_checkpoint), 'initial_checkpoint').components)
             if config.architecture is None
             else _build_parts(config.architecture, given_vae['vae'].config.latent_channels))
    parts |= given_vae
    unet, channels = parts['unet'], parts['vae'].config.latent_channels
    if unet.config.in_channels == channels:
        double_conv_in(unet)
    if (unet.config.in_channels, unet.config.out_channels) != (2 * channels, channels):
        raise CheckpointError(
            f'{config.initial_checkpoint} must have a U-Net from {channels} (Stable Diffusion) or '
            f'{2 * channels} (Marigold) to {channels} channels; got {unet.config.in_channels} to '
            f'{unet.config.out_channels}')
    parts['scheduler'] = _make_scheduler(parts['scheduler'], config)
    pipeline = MarigoldDepthPipeline(
        **parts, prediction_type='depth', scale_invariant=True, shift_invariant=True,
        default_denoising_steps=config.denoising_steps,
        default_processing_resolution=config.default_processing_resolution)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _build_parts(architecture: UNetArchitecture, latent_channels: int) -> dict[str, Any]:
    """Build all parts but the autoencoder."""
    tokenizer, text_encoder = build_text_encoder(architecture.text_channels)
    return {'unet': build_unet(architecture, latent_channels), 'tokenizer': tokenizer,
            'text_encoder': text_encoder, 'scheduler': DDIMScheduler(**SD2_SCHEDULE)}


def open_pipeline(checkpoint: str, parameter: str) -> MarigoldDepthPipeline:
    """
    Load a checkpoint in float32, as a pipeline without Stable Diffusion's safety checker.

    Parameters
    ----------
    checkpoint : str
        Embedded name, folder or hub id, of Marigold or of Stable Diffusion.
    parameter : str
        What to call it in an error.

    Raises
    ------
    CheckpointError
        If it cannot be loaded or is of another task than depth.
    """
    try:
        folder = find_checkpoint(checkpoint)
        check_task(folder, json.loads((folder / INDEX).read_text()),
                   (*DEPTH_PIPELINES, 'StableDiffusionPipeline'))
        reject_pickled_weights(folder)
        variants = [weights_variant(folder / part, torch.float32)
                    for part in ('unet', 'vae', 'text_encoder')]
        pipeline = MarigoldDepthPipeline.from_pretrained(
            folder, prediction_type='depth', use_safetensors=True,
            variant=next(filter(None, variants), None))
    except LOADING_ERRORS as err:
        raise CheckpointError(
            f'`{parameter}` must be an embedded name, a folder in the layout of Stable '
            f'Diffusion or Marigold, or a hub id; cannot open {checkpoint!r}: {err}') from err
    for network in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        network.float()
    return pipeline


def load_vae(name: str) -> AutoencoderKL | AutoencoderTiny:
    """
    Load an autoencoder in float32.

    Parameters
    ----------
    name : str
        Folder or hub id of an AutoencoderKL or AutoencoderTiny.

    Raises
    ------
    CheckpointError
        If it cannot be loaded.
    """
    try:
        folder = find_checkpoint(name)
        config = json.loads((folder / 'config.json').read_text())
        kind = AutoencoderTiny if config['_class_name'] == 'AutoencoderTiny' else AutoencoderKL
        reject_pickled_weights(folder)
        variant = weights_variant(folder, torch.float32)
        return kind.from_pretrained(folder, use_safetensors=True, variant=variant).float()
    except LOADING_ERRORS as err:
        raise CheckpointError(f'`vae` must be the folder or hub id of an autoencoder; cannot open '
                              f'{name!r}: {err}') from err


def _make_scheduler(base: Any, config: FinetuneConfig) -> DDIMScheduler:
    """Return a scheduler of the same betas, with trailing timesteps and zero terminal SNR."""
    predicted = config.prediction_type or base.config.prediction_type
    # With zero terminal SNR, x0 cannot be computed from predicted noise at t = 999.
    epsilon = predicted == 'epsilon'
    if epsilon and config.objective.variant == 'end_to_end':
        raise ConfigError('`prediction_type` must be v_prediction or sample for the variant '
                          "end_to_end; got 'epsilon'")
    return DDIMScheduler.from_config(
        base.config, prediction_type=predicted, timestep_spacing='trailing', clip_sample=False,
        rescale_betas_zero_snr=not epsilon)


@torch.no_grad()
def empty_text_embedding(tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> torch.Tensor:
    """
    Embed the empty prompt as diffusers' pipeline does.

    Returns
    -------
    float32 [1, 2, D]
        Of the start and the end token, without padding.
    """
    tokens = tokenizer('', padding='do_not_pad', truncation=True, return_tensors='pt')
    embedding: torch.Tensor = encoder(tokens.input_ids)[0]
    return embedding.float()


def save_pipeline(pipeline: MarigoldDepthPipeline, folder: Path) -> None:
    """
    Write a checkpoint in float16 that both DepthEngine and diffusers can load.

    Parameters
    ----------
    pipeline : MarigoldDepthPipeline
        In float32; is not changed.
    folder : Path
        diffusers' layout, and the embedding of the empty prompt.
    """
    # The text encoder stays float32: transformers loads it in its stored precision.
    halves = {name: copy.deepcopy(getattr(pipeline, name)).to(
        'cpu', memory_format=torch.contiguous_format).half() for name in ('unet', 'vae')}
    parts = pipeline.components | halves
    settings = {name: value for name, value in pipeline.config.items()
                if name not in parts and not name.startswith('_')}
    MarigoldDepthPipeline(**parts, **settings).save_pretrained(folder, safe_serialization=True)
    embedding = empty_text_embedding(pipeline.tokenizer, pipeline.text_encoder)
    save_file({EMPTY_TEXT: embedding.contiguous()}, folder / f'{EMPTY_TEXT}.safetensors')
    # Contains paths of the training machine.
    for config in [folder / 'model_index.json', *folder.glob('*/config.json')]:
        _drop_key(config, '_name_or_path')
    _drop_redundant_vae_key(folder / 'vae')
    _write_transformers4_tokenizer(folder / 'tokenizer')


def save_vae(vae: AutoencoderTiny, folder: Path) -> None:
    """Write an autoencoder in its present precision."""
    copy.deepcopy(vae).to('cpu', memory_format=torch.contiguous_format).save_pretrained(folder)
    _drop_redundant_vae_key(folder)


def _drop_redundant_vae_key(folder: Path) -> None:
    """Remove the key that AutoencoderTiny writes to its config and warns of when it reads it."""
    config = folder / 'config.json'
    if json.loads(config.read_text())['_class_name'] == 'AutoencoderTiny':
        _drop_key(config, 'block_out_channels')


def _write_transformers4_tokenizer(folder: Path) -> None:
    """Write the vocabulary also as the two files that transformers 4 reads."""
    model = json.loads((folder / 'tokenizer.json').read_text())['model']
    merges = [pair if isinstance(pair, str) else ' '.join(pair) for pair in model['merges']]
    (folder / 'vocab.json').write_text(json.dumps(model['vocab']))
    (folder / 'merges.txt').write_text('\n'.join(['#version: 0.2', *merges]) + '\n')


def _drop_key(path: Path, key: str) -> None:
    """Remove a key from a JSON file."""
    fields = json.loads(path.read_text())
    fields.pop(key, None)
    path.write_text(json.dumps(fields, indent=2) + '\n')
