"""Write tiny random checkpoints in diffusers' Marigold layout, for tests."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    LCMScheduler,
    MarigoldDepthPipeline,
    UNet2DConditionModel,
)
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_DIM = 16


def make_checkpoint(folder: Path, *, vae: str = 'tiny', scheduler: str = 'DDIMScheduler',
                    prediction_type: str = 'v_prediction', timestep_spacing: str = 'trailing',
                    zero_snr: bool = True, default_steps: int = 4, in_channels: int = 8,
                    processing_resolution: int = 64, seed: int = 0) -> Path:
    """
    Write a checkpoint with random weights that DepthEngine and MarigoldDepthPipeline can load.

    The weights are initialized with a fixed seed.
    """
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=in_channels, out_channels=4, layers_per_block=1,
        block_out_channels=(16, 32), down_block_types=('CrossAttnDownBlock2D', 'DownBlock2D'),
        up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D'), norm_num_groups=8,
        attention_head_dim=8, cross_attention_dim=TEXT_DIM)
    beta = {'beta_start': 0.00085, 'beta_end': 0.012, 'beta_schedule': 'scaled_linear',
            'clip_sample': False, 'prediction_type': prediction_type,
            'timestep_spacing': timestep_spacing, 'rescale_betas_zero_snr': zero_snr,
            'set_alpha_to_one': False, 'steps_offset': 1}
    schedulers = {'DDIMScheduler': DDIMScheduler, 'LCMScheduler': LCMScheduler}
    pipe = MarigoldDepthPipeline(
        unet=unet, vae=_make_vae(vae), scheduler=schedulers[scheduler](**beta),
        text_encoder=_make_text_encoder(), tokenizer=_make_tokenizer(folder.parent),
        prediction_type='depth', default_denoising_steps=default_steps,
        default_processing_resolution=processing_resolution)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def _make_vae(kind: str) -> AutoencoderKL | AutoencoderTiny:
    if kind == 'tiny':
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
            num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1), latent_channels=4)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=('DownEncoderBlock2D',) * 4,
        up_block_types=('UpDecoderBlock2D',) * 4, latent_channels=4, norm_num_groups=4)


def _make_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=2, hidden_size=TEXT_DIM, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=8, bos_token_id=0, eos_token_id=1))


def _make_tokenizer(folder: Path) -> CLIPTokenizer:
    vocabulary = folder / 'vocab.json'
    merges = folder / 'merges.txt'
    vocabulary.write_text(json.dumps({'<|startoftext|>': 0, '<|endoftext|>': 1}))
    merges.write_text('#version: 0.2\n')
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=8)
