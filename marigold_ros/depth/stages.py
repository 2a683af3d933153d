"""
The three stages of inference: pure functions of tensors, each for inputs of a fixed shape.

An executor (`depth.executors`) decides how a stage is run.  Between stages the tensors are float32
whatever the dtype of the networks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from marigold_ros.depth.folding import FoldedNetworks


class Stages(NamedTuple):
    """
    The stages of a checkpoint, on their device.

    Attributes
    ----------
    encode, step, decode : torch.nn.Module
        A `NetworkStage`, a `StepStage` and a `DecodeStage`.
    """

    encode: nn.Module
    step: nn.Module
    decode: nn.Module


def make_stages(networks: FoldedNetworks, device: torch.device, dtype: torch.dtype, *,
                compiled: bool = False) -> Stages:
    """Move the networks of a checkpoint to a device, in the memory format that suits them."""
    unet_layout = TensorLayout(dtype, torch.channels_last)
    vae_layout = TensorLayout(
        dtype, vae_memory_format(networks.decoder, device, compiled=compiled))
    return Stages(NetworkStage(vae_layout.move(networks.encoder, device), vae_layout),
                  StepStage(unet_layout.move(networks.unet, device), unet_layout),
                  DecodeStage(NetworkStage(vae_layout.move(networks.decoder, device), vae_layout),
                              networks.head.to(device)))


class TensorLayout(NamedTuple):
    """Dtype and memory format of a network's input."""

    dtype: torch.dtype
    memory_format: torch.memory_format

    def move(self, network: Any, device: torch.device) -> nn.Module:
        """Move a network to a device, in this memory format."""
        moved: nn.Module = network.to(device, memory_format=self.memory_format)
        return moved

    def cast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Convert a tensor."""
        return tensor.to(self.dtype).contiguous(memory_format=self.memory_format)


class NetworkStage(nn.Module):
    """
    Call a network, float32 -> float32: the encoder, or the decoder up to its head.

    Images [N,3,PPH,PPW] in [-1, 1] become scaled mean latents [N,C,h,w]; depth latents [n,C,h,w]
    become features.
    """

    def __init__(self, network: nn.Module, layout: TensorLayout) -> None:
        """Keep the network."""
        super().__init__()
        self._network, self._layout = network, layout

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Cast and call."""
        output: torch.Tensor = self._network(self._layout.cast(tensor))
        return output.to(torch.float32)


class StepStage(nn.Module):
    """
    One denoising step: network output o, x0 = r z + q o and next z = u z + w o.

    See `depth.denoise`, which makes the coefficients.
    """

    def __init__(self, unet: nn.Module, layout: TensorLayout) -> None:
        """Keep the U-Net."""
        super().__init__()
        self._unet, self._layout = unet, layout

    def forward(self, image_latent: torch.Tensor, latent: torch.Tensor,
                coefficients: torch.Tensor, time_bias: torch.Tensor
                ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Denoise by one step.

        Parameters
        ----------
        image_latent, latent : float32 tensor [n, C, h, w]
            Latents of the image and of the depth, z.
        coefficients : float32 tensor [n, 4]
            r, q, u, w of every row.
        time_bias : tensor [n, S]
            See `folding.TimeTable`.

        Returns
        -------
        latent, x0 : float32 tensor [n, C, h, w]
        """
        inputs = self._layout.cast(torch.cat([image_latent, latent], dim=1))  # [n,2C,h,w]
        output = self._unet(inputs, time_bias.to(self._layout.dtype)).to(torch.float32)
        r, q, u, w = coefficients[:, :, None, None, None].unbind(dim=1)  # [n,1,1,1] each
        return u * latent + w * output, r * latent + q * output


class DecodeStage(nn.Module):
    """
    Decode depth latents, float32 [n,C,h,w] -> float32 [n,1,PPH,PPW], about in [-1, 1].

    Of two parts, so that an executor that sets the precision of a whole module can spare the head.
    """

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        """Keep the decoder up to its head, and the head, which is in float32."""
        super().__init__()
        self.features, self.head = features, head

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode."""
        depth: torch.Tensor = self.head(self.features(latent))
        return depth


def vae_memory_format(vae: nn.Module, device: torch.device, *,
                      compiled: bool) -> torch.memory_format:
    """
    Return a VAE's memory format: channels last, or contiguous with eager GroupNorm on a GPU.

    On a GPU, PyTorch's GroupNorm copies its input to contiguous memory
    (aten/src/ATen/native/group_norm.cpp), which is slow for the VAE's image-sized maps; Inductor's
    does not.
    """
    has_group_norm = any(isinstance(each, nn.GroupNorm) for each in vae.modules())
    return (torch.contiguous_format if device.type == 'cuda' and has_group_norm and not compiled
            else torch.channels_last)
