"""Build untrained networks of diffusers' classes, and widen Stable Diffusion's U-Net."""

from __future__ import annotations

from diffusers import AutoencoderTiny, UNet2DConditionModel
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from marigold_ros.training.config import UNetArchitecture, VAE_LEVELS, VaeArchitecture

# The only tokens of the empty prompt.
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
    """Build an untrained U-Net; its input is an image latent and a depth latent."""
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
    Build the smallest tokenizer and text encoder that can embed the empty prompt.

    Parameters
    ----------
    text_channels : int
        Width of the embedding.

    Returns
    -------
    CLIPTokenizer, CLIPTextModel
        The tokenizer encodes '' as start and end token; the encoder's weights are random and
        are not trained.
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
    Double the input channels of a U-Net in place, as prs-eth/Marigold does.

    The weights of `conv_in` are repeated along the input channels and halved, and its bias is
    kept: if both latents are the same, the output does not change.

    Parameters
    ----------
    unet : UNet2DConditionModel
        Stable Diffusion's, which reads one latent.
    """
    old = unet.conv_in
    unet.conv_in = torch.nn.Conv2d(2 * old.in_channels, old.out_channels, old.kernel_size,
                                   old.stride, old.padding)
    with torch.no_grad():
        unet.conv_in.weight.copy_(old.weight.repeat(1, 2, 1, 1) * 0.5)
        unet.conv_in.bias.copy_(old.bias)
    unet.register_to_config(in_channels=2 * old.in_channels)
