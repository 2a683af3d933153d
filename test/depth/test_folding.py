"""Every simplification is exact: to rounding in float64 and in float32."""

from __future__ import annotations

from copy import deepcopy

from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
import pytest
import torch

from marigold_ros.depth.checkpoint import Components, load_components
from marigold_ros.depth.folding import ConstantTokenAttention, fold
from marigold_ros.depth.stages import make_stages

EXACT = 1e-6  # of the largest value, in float64


def make_unet(kind):
    """Return a small U-Net of Stable Diffusion 2's or the embedded checkpoint's structure."""
    torch.manual_seed(0)
    sd2 = {'attention_head_dim': (1, 2), 'use_linear_projection': True,
           'down_block_types': ('CrossAttnDownBlock2D', 'DownBlock2D'),
           'up_block_types': ('UpBlock2D', 'CrossAttnUpBlock2D')}
    embedded = {'attention_head_dim': 8, 'down_block_types': ('DownBlock2D',) * 2,
                'up_block_types': ('UpBlock2D',) * 2}
    return UNet2DConditionModel(
        in_channels=8, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        norm_num_groups=8, cross_attention_dim=16, **(sd2 if kind == 'sd2' else embedded))


def make_vae(kind):
    torch.manual_seed(1)
    if kind == 'tiny':
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), scaling_factor=1.5)
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2, latent_channels=4, norm_num_groups=4,
        use_quant_conv=kind == 'kl', use_post_quant_conv=kind == 'kl')


def make_components(unet='sd2', vae='kl', tokens=2, dtype=torch.float64):
    text = torch.randn(1, tokens, 16, generator=torch.Generator().manual_seed(2))
    parts = (each.eval().to(dtype) for each in (make_unet(unet), make_vae(vae)))
    return Components(*parts, None, text, None)


def difference(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_attention_to_two_constant_tokens_is_a_sigmoid():
    """Against diffusers' own layer, with and without a bias of the queries."""
    torch.manual_seed(3)
    tokens, pixels = torch.randn(1, 2, 16).double(), torch.randn(3, 50, 24).double()
    for bias in (False, True):
        layer = Attention(24, cross_attention_dim=16, heads=3, dim_head=8, bias=bias).double()
        folded = ConstantTokenAttention(layer, tokens)
        with torch.no_grad():
            expected = layer(pixels, encoder_hidden_states=tokens.expand(3, -1, -1))
            found = folded(pixels, encoder_hidden_states=None, attention_mask=None)
        assert difference(found, expected) < EXACT


@torch.inference_mode()
@pytest.mark.parametrize('tokens', [2, 5])
@pytest.mark.parametrize('kind', ['sd2', 'embedded'])
def test_a_unet_takes_biases_instead_of_timesteps(kind, tokens):
    """Each row has its own timestep; with more than two tokens the attention stays as it is."""
    components = make_components(unet=kind, tokens=tokens)
    inputs, timesteps = torch.randn(3, 8, 8, 6).double(), [999, 500, 1]
    text = components.empty_text_embedding.double().expand(3, -1, -1)
    expected = components.unet(inputs, torch.tensor(timesteps), encoder_hidden_states=text).sample
    folded = fold(deepcopy(components))
    found = folded.unet(inputs, folded.time_table.biases(timesteps))
    assert difference(found, expected) < EXACT
    kinds = {type(module) for module in folded.unet.modules()}
    assert (ConstantTokenAttention in kinds) == (tokens == 2)


@torch.inference_mode()
@pytest.mark.parametrize('kind', ['tiny', 'kl', 'kl without quant_conv'])
def test_an_encoder_returns_scaled_mean_latents(kind):
    components = make_components(vae=kind)
    vae, images = components.vae, torch.rand(2, 3, 16, 12).double() * 2.0 - 1.0
    encoded = vae.encode(images)
    latents = encoded.latents if kind == 'tiny' else encoded.latent_dist.mode()
    found = fold(deepcopy(components)).encoder(images)
    assert found.shape[1] == vae.config.latent_channels
    assert difference(found, latents * vae.config.scaling_factor) < EXACT


@torch.inference_mode()
@pytest.mark.parametrize('kind', ['tiny', 'kl', 'kl without quant_conv'])
def test_a_decoder_returns_the_mean_over_channels(kind):
    components = make_components(vae=kind)
    vae, latents = components.vae, torch.randn(2, 4, 8, 6).double()
    expected = vae.decode(latents / vae.config.scaling_factor).sample.mean(1, keepdim=True)
    folded = fold(deepcopy(components))
    assert difference(folded.head(folded.decoder(latents)), expected) < EXACT


@torch.inference_mode()
def test_a_half_precision_decoder_returns_more_digits_than_its_dtype():
    """Bfloat16 has 8 bits: neighbouring depths near 1 would be 1/256 apart."""
    folded = fold(make_components(vae='tiny', dtype=torch.bfloat16))
    decode = make_stages(folded, torch.device('cpu'), torch.bfloat16).decode
    depth = decode(torch.randn(1, 4, 16, 16))
    assert depth.dtype == torch.float32
    assert (depth.bfloat16().float() != depth).any()


@torch.inference_mode()
def test_the_embedded_checkpoint_is_unchanged_by_folding():
    """All three networks of the shipped weights, in float32."""
    components = load_components('tiny')
    unet, vae = components.unet, components.vae
    images, latents = torch.rand(1, 3, 48, 64) * 2.0 - 1.0, torch.randn(2, 1, 16, 6, 8)
    inputs = torch.cat(list(latents), dim=1)
    expected = (vae.encode(images).latents * vae.config.scaling_factor,
                unet(inputs, 999, encoder_hidden_states=components.empty_text_embedding).sample,
                vae.decode(latents[0] / vae.config.scaling_factor).sample.mean(1, keepdim=True))
    folded = fold(components)
    found = (folded.encoder(images), folded.unet(inputs, folded.time_table.biases([999])),
             folded.head(folded.decoder(latents[0])))
    for one, other in zip(found, expected):
        assert difference(one, other) < 1e-5
