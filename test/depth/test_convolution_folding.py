"""Folded convolutions equal the originals at every pixel, in float64."""

from __future__ import annotations

from copy import deepcopy

from diffusers import AutoencoderKL
from diffusers.models.upsampling import Upsample2D
import pytest
import torch
from torch import nn

from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.convolution_folding import (
    fold_convolutions,
    fold_upsampling,
    FoldedHead,
    FoldedTail,
    transpose_convolution,
)
from marigold_ros.depth.folding import fold, InFloat32


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
    first, last = conv(4, 6, bias=bias), InFloat32(conv(6, 1))
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


def test_the_embedded_networks_are_folded_and_equal():
    networks = fold(load_components('tiny', dtype=torch.float64))
    folded = fold_convolutions(deepcopy(networks))
    images = torch.rand(2, 3, 48, 64)
    assert [type(each) for each in folded.encoder.layers[:2]] == [FoldedHead, nn.Identity]
    assert largest_difference(folded.encoder, networks.encoder, images) < 1e-12
    kinds = [type(each) for each in folded.decoder[1].layers]
    assert (kinds.count(nn.ConvTranspose2d), kinds.count(FoldedTail)) == (2, 1)
    assert nn.Upsample not in kinds
    latents = networks.encoder(images)
    assert largest_difference(folded.decoder, networks.decoder, latents) < 1e-12


def test_a_kl_decoder_is_folded_and_equal():
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2, norm_num_groups=4).eval()
    folded = deepcopy(vae.decoder)
    fold_upsampling(folded)
    kinds = [type(each) for each in folded.modules()]
    assert nn.ConvTranspose2d in kinds and Upsample2D not in kinds
    assert largest_difference(folded, vae.decoder, torch.randn(2, 4, 5, 6)) < 1e-12


def test_a_nonlinearity_between_convolutions_prevents_the_fold():
    head = nn.Sequential(conv(3, 3), nn.ReLU(), conv(3, 3, stride=2))
    tail = nn.Sequential(conv(3, 3), nn.ReLU(), InFloat32(conv(3, 1)))
    decoder = nn.Sequential(upsampling(), nn.ReLU(), conv(3, 3))
    before = str((head, tail, decoder))
    for network in (head, tail, decoder):
        fold_upsampling(network)
    assert str((head, tail, decoder)) == before
