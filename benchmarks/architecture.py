"""Networks with random weights for timing, what they compute, and how fast a device multiplies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    MarigoldDepthPipeline,
    UNet2DConditionModel,
)
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.timing import interleave
from marigold_ros.depth.checkpoint import MODELS

# Marigold v1-1's schedule.
SCHEDULE = {'beta_start': 0.00085, 'beta_end': 0.012, 'beta_schedule': 'scaled_linear',
            'clip_sample': False, 'prediction_type': 'v_prediction',
            'timestep_spacing': 'trailing', 'rescale_betas_zero_snr': True,
            'set_alpha_to_one': False, 'steps_offset': 1}
# Edge of the square matrices: large enough to be limited by arithmetic, not by memory.
MATRIX_EDGE = {'cpu': 2048, 'cuda': 8192}


@dataclass(frozen=True)
class Architecture:
    """
    Widths of a Marigold model.

    Attributes
    ----------
    unet_channels, attention_heads : tuple of int
        Per level of the U-Net.
    text_dim : int
        Width of the text embedding (cross_attention_dim).
    kl_channels, tiny_channels : tuple of int
        Per level of the AutoencoderKL and of the AutoencoderTiny.
    layers_per_block : int
        Of the U-Net and the AutoencoderKL.
    tiny_blocks : tuple of int
        Residual blocks per level of the AutoencoderTiny, encoder's order.
    processing_resolution : int
        Longest edge, px.
    """

    unet_channels: tuple[int, ...]
    attention_heads: tuple[int, ...]
    text_dim: int
    kl_channels: tuple[int, ...]
    tiny_channels: tuple[int, ...]
    layers_per_block: int
    tiny_blocks: tuple[int, ...]
    processing_resolution: int


ARCHITECTURES = {
    # Stable Diffusion 2 and TAESD, as Marigold uses them.
    'sd2': Architecture((320, 640, 1280, 1280), (5, 10, 20, 20), 1024, (128, 256, 512, 512),
                        (64, 64, 64, 64), 2, (1, 3, 3, 3), 768),
}


def make_unet(architecture: Architecture) -> Any:
    """Make the U-Net: attention on every level but the lowest, 8 channels in and 4 out."""
    levels = len(architecture.unet_channels)
    return UNet2DConditionModel(
        in_channels=8, out_channels=4, block_out_channels=architecture.unet_channels,
        down_block_types=('CrossAttnDownBlock2D',) * (levels - 1) + ('DownBlock2D',),
        up_block_types=('UpBlock2D',) + ('CrossAttnUpBlock2D',) * (levels - 1),
        layers_per_block=architecture.layers_per_block,
        cross_attention_dim=architecture.text_dim, use_linear_projection=True,
        attention_head_dim=architecture.attention_heads)  # diffusers' old name of their number


def make_vae(architecture: Architecture, kind: str) -> Any:
    """Make the VAE: 'kl' or 'tiny'."""
    if kind == 'kl':
        levels = len(architecture.kl_channels)
        return AutoencoderKL(
            block_out_channels=architecture.kl_channels, latent_channels=4,
            layers_per_block=architecture.layers_per_block,
            down_block_types=('DownEncoderBlock2D',) * levels,
            up_block_types=('UpDecoderBlock2D',) * levels)
    return AutoencoderTiny(
        encoder_block_out_channels=architecture.tiny_channels,
        decoder_block_out_channels=architecture.tiny_channels,
        num_encoder_blocks=architecture.tiny_blocks,
        num_decoder_blocks=architecture.tiny_blocks[::-1])


def save_random_checkpoint(folder: Path, architecture: Architecture, vae: str) -> Path:
    """
    Write a checkpoint with random weights that DepthEngine and diffusers' pipeline open.

    Its depth means nothing, and costs what real weights cost.  The text encoder is one narrow
    layer of the right output width: it runs once, outside of what is timed.

    Parameters
    ----------
    folder : Path
        Where to; 2 GB for Stable Diffusion 2, as bfloat16.
    architecture : Architecture
    vae : {'kl', 'tiny'}

    Returns
    -------
    Path
        `folder`.
    """
    torch.manual_seed(0)
    text = CLIPTextConfig.from_pretrained(MODELS / 'tiny' / 'text_encoder')
    text.hidden_size = architecture.text_dim
    pipeline = MarigoldDepthPipeline(
        unet=make_unet(architecture), vae=make_vae(architecture, vae),
        scheduler=DDIMScheduler(**SCHEDULE), text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(MODELS / 'tiny' / 'tokenizer'),
        prediction_type='depth', default_denoising_steps=4,
        default_processing_resolution=architecture.processing_resolution)
    for network in (pipeline.unet, pipeline.vae):
        network.to(torch.bfloat16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def counted_flops(unet: Any, vae: Any, size: tuple[int, int]) -> dict[str, int]:
    """
    Count the floating-point operations of one frame's stages.

    Parameters
    ----------
    unet, vae : modules
        Moved to the device 'meta', where tensors have shapes but no contents.
    size : (int, int)
        Padded processing size (PPH, PPW), px.

    Returns
    -------
    dict
        FLOP of `encode`, of `unet_step` and of `decode`; a multiply-add counts 2.
    """
    unet, vae = unet.to('meta'), vae.to('meta')
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    channels = vae.config.latent_channels
    with torch.device('meta'):
        image = torch.empty(1, 3, *size, dtype=vae.dtype)
        latent = torch.empty(1, channels, size[0] // factor, size[1] // factor, dtype=vae.dtype)
        text = torch.empty(1, 2, unet.config.cross_attention_dim, dtype=unet.dtype)
        pair = torch.cat([latent, latent], dim=1).to(unet.dtype)
        timestep = torch.empty((), dtype=torch.int64)
    return {
        'encode': _flops(lambda: vae.encode(image)),
        'unet_step': _flops(lambda: unet(pair, timestep, encoder_hidden_states=text)),
        'decode': _flops(lambda: vae.decode(latent)),
    }


def _flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return int(counter.get_total_flops())


def matrix_rate(device: torch.device, dtype: torch.dtype, rounds: int = 20) -> float:
    """Measure what the device reaches on large square matrices, FLOP/s (median)."""
    edge = MATRIX_EDGE[device.type]
    left, right = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    runs = interleave({'matmul': lambda: torch.mm(left, right)}, rounds=rounds, device=device)
    return float(2.0 * edge ** 3 / np.median(runs['matmul'].seconds))
