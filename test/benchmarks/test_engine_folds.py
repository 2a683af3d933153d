"""Folded convolutions equal the originals at every pixel, in float64."""

from __future__ import annotations

from diffusers.models.upsampling import Upsample2D
import pytest
import torch
from torch import nn

from benchmarks.engine_folds import (
    fold_all_upsampling,
    fold_pairs,
    fold_upsampling,
    FoldedHead,
    FoldedTail,
    FoldedUpsample2D,
)
from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.folding import fold


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


def largest_difference(folded, original, *arguments):
    expected = original(*arguments)
    result = folded(*arguments)
    assert result.shape == expected.shape
    return (result - expected).abs().max().item()


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('size', [(1, 1), (5, 6), (4, 3)])
def test_a_transposed_convolution_equals_upsampling_and_convolution(size, bias):
    layer = conv(4, 3, bias=bias)
    original = nn.Sequential(upsampling(), layer)
    tensor = torch.randn(2, 4, *size)
    assert largest_difference(fold_upsampling(layer), original, tensor) < 1e-14


@pytest.mark.parametrize('output_size', [None, (10, 12), (9, 12), (9, 11)])
def test_an_odd_output_size_of_the_unet_is_not_folded(output_size):
    """The transposed convolution would differ there, in the last row or column."""
    layer = Upsample2D(4, use_conv=True)
    tensor = torch.randn(2, 4, 5, 6)
    assert largest_difference(FoldedUpsample2D(layer), layer, tensor, output_size) < 1e-14
    if output_size not in (None, (10, 12)):
        height, width = output_size
        cropped = fold_upsampling(layer.conv)(tensor)[:, :, :height, :width]
        difference = (cropped - layer(tensor, output_size)).abs()
        assert difference[:, :, :-1, :-1].max() < 1e-14 < difference.max()


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('size', [(2, 2), (5, 6)])
def test_the_last_two_convolutions_equal_one(size, bias):
    first, last = conv(4, 6, bias=bias), conv(6, 1)
    tensor = torch.randn(2, 4, *size)
    original = nn.Sequential(upsampling(), first, last)
    assert largest_difference(FoldedTail(first, last), original, tensor) < 1e-14


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('size', [(2, 4), (8, 6)])
def test_the_first_two_convolutions_equal_one(size, bias):
    first, second = conv(3, 6), conv(6, 5, bias=bias, stride=2)
    tensor = torch.randn(2, 3, *size)
    original = nn.Sequential(first, second)
    assert largest_difference(FoldedHead(first, second), original, tensor) < 1e-14


def test_the_embedded_networks_stay_equal_with_all_folds():
    """In float64, but for the decoder's last convolution, which is in float32."""
    networks = fold(load_components('tiny', dtype=torch.float64))
    images = torch.rand(2, 3, 48, 64)
    folded = fold_pairs(networks.encoder)
    assert [type(each) for each in folded.layers[:2]] == [FoldedHead, nn.Identity]
    assert largest_difference(folded, networks.encoder, images) < 1e-12
    latents = networks.encoder(images)
    folded = fold_all_upsampling(fold_pairs(networks.decoder))
    kinds = [type(each) for each in folded[1].layers]
    assert (kinds.count(nn.ConvTranspose2d), kinds.count(FoldedTail)) == (2, 1)
    assert nn.Upsample not in kinds
    assert largest_difference(folded, networks.decoder, latents) < 1e-5
    inputs = torch.cat([latents, latents], dim=1)
    bias = networks.time_table.biases([999]).expand(2, -1)
    folded = fold_all_upsampling(networks.unet)
    assert sum(isinstance(each, FoldedUpsample2D) for each in folded.modules()) == 2
    assert largest_difference(folded, networks.unet, inputs, bias) < 1e-12


def test_a_network_without_such_layers_is_returned_as_it_is():
    network = nn.Sequential(conv(3, 3), nn.ReLU(), conv(3, 3))
    assert fold_all_upsampling(network) is fold_pairs(network) is network
