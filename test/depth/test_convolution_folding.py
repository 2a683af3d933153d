"""Folded convolutions equal the originals at every pixel, in float64."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.upsampling import Upsample2D
import pytest
import torch
from torch import nn

from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.convolution_folding import (
    fold_convolutions,
    FoldedHead,
    FoldedTail,
    transpose_convolution,
)
from marigold_ros.depth.folding import fold, FoldedNetworks


@pytest.fixture(autouse=True)
def float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    with torch.inference_mode():
        yield
    torch.set_default_dtype(torch.float32)


def conv(*channels, bias=True, stride=1):
    return nn.Conv2d(*channels, 3, stride=stride, padding=1, bias=bias)


def upsampling():
    return nn.Upsample(scale_factor=2.0, mode='nearest')


def largest_difference(folded, original, tensor):
    expected = original(tensor)
    result = folded(tensor)
    assert result.shape == expected.shape
    return (result - expected).abs().max().item()


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('size', [(1, 1), (5, 6), (4, 3)])
def test_a_transposed_convolution_equals_upsampling_and_convolution(size, bias):
    layer = conv(4, 3, bias=bias)
    original = nn.Sequential(upsampling(), layer)
    assert largest_difference(
        transpose_convolution(layer), original, torch.randn(2, 4, *size)) < 1e-14


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('size', [(2, 2), (5, 6)])
def test_the_last_two_convolutions_equal_one(size, bias):
    first, last = conv(4, 6, bias=bias), conv(6, 1)
    original = nn.Sequential(upsampling(), first, last)
    assert largest_difference(
        FoldedTail(first, last), original, torch.randn(2, 4, *size)) < 1e-14


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('size', [(2, 4), (8, 6)])
def test_the_first_two_convolutions_equal_one(size, bias):
    first, second = conv(3, 6), conv(6, 5, bias=bias, stride=2)
    original = nn.Sequential(first, second)
    assert largest_difference(
        FoldedHead(first, second), original, torch.randn(2, 3, *size)) < 1e-14


@pytest.mark.parametrize('vae', ['embedded', 'kl', 'one block'])
def test_a_folded_vae_is_equal(vae):
    """The embedded one has both pairs; of the others only the upsampling is folded."""
    networks = NETWORKS[vae]()
    folded = fold_convolutions(deepcopy(networks))
    kinds = [type(each) for network in (folded.encoder, folded.decoder, folded.head)
             for each in network.modules()]
    pairs = 1 if vae == 'embedded' else 0
    assert (kinds.count(FoldedHead), kinds.count(FoldedTail)) == (pairs, pairs)
    assert nn.ConvTranspose2d in kinds
    assert not {nn.Upsample, Upsample2D}.intersection(kinds)
    images = torch.rand(2, 3, 48, 64)
    assert largest_difference(folded.encoder, networks.encoder, images) < 1e-12
    latents = networks.encoder(images)
    assert largest_difference(nn.Sequential(folded.decoder, folded.head),
                              nn.Sequential(networks.decoder, networks.head), latents) < 1e-12


def fold_embedded():
    return fold(load_components('tiny', dtype=torch.float64))


def fold_vae(vae):
    components = load_components('tiny', dtype=torch.float64)
    return fold(replace(components, vae=vae.eval()))


def tiny_vae(**settings):
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), latent_channels=4,
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), **settings)


NETWORKS = {
    'embedded': fold_embedded,
    'one block': lambda: fold_vae(tiny_vae()),
    'kl': lambda: fold_vae(AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2, norm_num_groups=4))}


@pytest.mark.parametrize('layer', [
    nn.Upsample(scale_factor=2.0, mode='bilinear'), nn.Upsample(scale_factor=3.0), nn.ReLU()])
def test_only_nearest_upsampling_by_two_is_folded(layer):
    decoder = nn.Sequential(conv(4, 4), nn.Sequential(layer, conv(4, 4)))
    networks = FoldedNetworks(nn.Identity(), nn.Identity(), decoder, conv(4, 1), None)
    before = str(networks)
    assert str(fold_convolutions(networks)) == before


@pytest.mark.parametrize('changes', [{'stride': 2}, {'kernel_size': 1, 'padding': 0},
                                     {'dilation': 2}, {'groups': 2}, {'padding': 0},
                                     {'padding_mode': 'reflect'}])
def test_other_convolutions_are_not_folded(changes):
    other = nn.Conv2d(4, 4, **{'kernel_size': 3, 'padding': 1, **changes})
    encoder = nn.Module()
    encoder.layers = nn.Sequential(other, conv(4, 4, stride=2), nn.ReLU())
    decoder = nn.Sequential(conv(4, 4), upsampling(), other)
    networks = FoldedNetworks(encoder, nn.Identity(), decoder, conv(4, 1), None)
    before = str(networks)
    assert str(fold_convolutions(networks)) == before
