"""Marigold's networks in diffusers' classes: small ones from scratch, and calling any of them."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderTiny, UNet2DConditionModel
import torch
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from marigold_ros.training.config import (
    UNetArchitecture,
    VAE_LEVELS,
    VAE_SCALE_FACTOR,
    VaeArchitecture,
)
from marigold_ros.training.targets import depth_range, normalize_depth

# All that the empty prompt needs.
VOCABULARY = {'<|startoftext|>': 0, '<|endoftext|>': 1}
MAX_TOKENS = 77


def build_vae(architecture: VaeArchitecture) -> AutoencoderTiny:
    """Build an untrained AutoencoderTiny."""
    widths = (architecture.channels,) * VAE_LEVELS
    return AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=architecture.encoder_blocks,
        num_decoder_blocks=architecture.decoder_blocks,
        latent_channels=architecture.latent_channels,
    )


def build_unet(architecture: UNetArchitecture, latent_channels: int) -> UNet2DConditionModel:
    """Build an untrained U-Net that reads image and depth latents of so many channels each."""
    levels = len(architecture.channels)
    return UNet2DConditionModel(
        in_channels=2 * latent_channels,
        out_channels=latent_channels,
        block_out_channels=architecture.channels,
        layers_per_block=architecture.layers_per_block,
        down_block_types=('DownBlock2D',) * levels,
        mid_block_type='UNetMidBlock2DCrossAttn',
        up_block_types=('UpBlock2D',) * levels,
        cross_attention_dim=architecture.text_channels,
        attention_head_dim=architecture.attention_head_channels,
        norm_num_groups=architecture.norm_groups,
    )


def build_text_encoder(text_channels: int) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """
    Build the smallest tokenizer and text encoder that diffusers' pipeline can ask for ''.

    Parameters
    ----------
    text_channels : int
        Width of the embedding.

    Returns
    -------
    CLIPTokenizer, CLIPTextModel
        The tokenizer turns '' into begin and end; the encoder's weights are random and stay so.
    """
    tokenizer = CLIPTokenizer(vocab=dict(VOCABULARY), merges=[], model_max_length=MAX_TOKENS)
    encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(VOCABULARY), hidden_size=text_channels, intermediate_size=text_channels,
        num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=MAX_TOKENS,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    ))
    return tokenizer, encoder.eval()


def double_conv_in(unet: UNet2DConditionModel) -> None:
    """
    Let a U-Net of one latent read two, in place, as prs-eth/Marigold does.

    The weights of `conv_in` are repeated along the input channels and halved, and its bias is
    kept: given the same latent twice, the U-Net answers as before.

    Parameters
    ----------
    unet : UNet2DConditionModel
        Of Stable Diffusion.
    """
    old = unet.conv_in
    unet.conv_in = torch.nn.Conv2d(2 * old.in_channels, old.out_channels, old.kernel_size,
                                   old.stride, old.padding)
    with torch.no_grad():
        unet.conv_in.weight.copy_(old.weight.repeat(1, 2, 1, 1) * 0.5)
        unet.conv_in.bias.copy_(old.bias)
    unet.register_to_config(in_channels=2 * old.in_channels)


def encode(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """
    Encode images.

    Parameters
    ----------
    vae : AutoencoderKL or AutoencoderTiny
    images : float32 [N, 3, H, W]
        In [-1, 1].

    Returns
    -------
    float32 [N, C, h, w]
        The mean of the latent's distribution, times the scaling factor.
    """
    encoded = vae.encode(images)
    latent: torch.Tensor = (encoded.latent_dist.mode() if hasattr(encoded, 'latent_dist')
                            else encoded.latents)
    return latent.float() * float(vae.config.scaling_factor)


def decode_depth(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """
    Decode depth latents as inference does.

    Parameters
    ----------
    vae : AutoencoderKL or AutoencoderTiny
    latents : float32 [N, C, h, w]
        Scaled, as `encode` returns them.

    Returns
    -------
    float32 [N, 1, H, W]
        Mean of the three channels, clipped to [-1, 1].
    """
    decoded: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return decoded.float().mean(dim=1, keepdim=True).clamp(-1.0, 1.0)


@torch.no_grad()
def round_trip(vae: Any, depth_m: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """
    Encode and decode true depth: what no U-Net can beat.

    Parameters
    ----------
    vae : AutoencoderKL or AutoencoderTiny
    depth_m : float32 [N, H, W]
        Depth along Z, m; where it is valid, +inf is sky.
    valid : bool [N, H, W]
        Where depth is known.

    Returns
    -------
    float32 [N, H, W]
        Normalised depth in [0, 1], 0 near.
    """
    depth = normalize_depth(depth_m, *depth_range(depth_m, valid))         # [N,1,H,W]
    height, width = depth_m.shape[1:]
    padding = (0, -width % VAE_SCALE_FACTOR, 0, -height % VAE_SCALE_FACTOR)
    padded = functional.pad(depth, padding, mode='replicate').expand(-1, 3, -1, -1)
    decoded = decode_depth(vae, encode(vae, padded))
    return (decoded[:, 0, :height, :width] + 1) / 2
