"""The widened U-Net of Stable Diffusion, and decoding."""

from __future__ import annotations

import pytest
import torch
from training_fixtures import Autoencoder, generator

from marigold_ros.training.architectures import double_conv_in
from marigold_ros.training.latents import decode_depth


class OneLayer(torch.nn.Module):
    """The part of a U-Net that `double_conv_in` changes."""

    def __init__(self):
        super().__init__()
        self.conv_in = torch.nn.Conv2d(4, 6, 3, padding=1)
        self.settings = {}

    def register_to_config(self, **settings):
        self.settings |= settings


def test_doubled_conv_in_keeps_the_output_for_a_doubled_latent():
    torch.manual_seed(0)
    unet = OneLayer()
    latent = torch.randn(2, 4, 5, 7, generator=generator())
    weight, bias, before = (unet.conv_in.weight.clone(), unet.conv_in.bias.clone(),
                            unet.conv_in(latent))
    double_conv_in(unet)
    assert torch.allclose(unet.conv_in(latent.repeat(1, 2, 1, 1)), before, atol=1e-6)
    assert torch.equal(unet.conv_in.weight[:, :4], weight / 2)
    assert torch.equal(unet.conv_in.weight[:, 4:], weight / 2)
    assert torch.equal(unet.conv_in.bias, bias)
    assert unet.settings == {'in_channels': 8}


def test_decoded_depth_is_unscaled_clipped_and_of_one_channel():
    decoded = decode_depth(Autoencoder(), torch.tensor([0.2, 3.0]).reshape(1, 1, 1, 2))
    assert decoded.shape == (1, 1, 8, 16)
    assert decoded[0, 0, 0, [0, 15]].tolist() == pytest.approx([0.4, 1.0])
