"""Run the networks of a checkpoint on one device: encode, predict, decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import os
import shutil
from typing import Any

import torch

from marigold_ros.depth.checkpoint import Components
from marigold_ros.depth.errors import ConfigError

# Number of input shapes for which one network may be compiled.
MAX_COMPILED_SIZES = 64


class Networks:
    """
    Run a checkpoint's VAE and U-Net; inputs and outputs are float32 whatever their dtype.

    Parameters
    ----------
    components : Components
    device : torch.device
    dtype : torch.dtype
        Of activations and of the loaded components.
    compile : bool
        Compile every network for each input shape: with CUDA graphs on a GPU, with prepacked
        weights on the CPU.

    Attributes
    ----------
    device : torch.device
    latent_channels : int
        Number of latent channels C.
    """

    def __init__(self, components: Components, device: torch.device, dtype: torch.dtype,
                 compile: bool) -> None:  # noqa: A002, torch's own word for it
        """Move the networks to the device."""
        self.device, self._dtype, self._compiled = device, dtype, compile
        unet = components.unet.to(device, memory_format=torch.channels_last)
        self._vae_format = vae_memory_format(components.vae, device)
        vae = components.vae.to(device, memory_format=self._vae_format)
        text = components.empty_text_embedding.to(device, dtype)  # [1,2,D]
        self.latent_channels: int = vae.config.latent_channels
        self._scaling_factor: float = vae.config.scaling_factor
        self._input: torch.Tensor = torch.empty(0, device=device)

        def encode(images: torch.Tensor) -> torch.Tensor:
            encoded = vae.encode(images)
            latent: torch.Tensor = (encoded.latent_dist.mode() if hasattr(encoded, 'latent_dist')
                                    else encoded.latents)
            return latent

        def predict(inputs: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = unet(inputs, timesteps, return_dict=False,
                                        encoder_hidden_states=text.expand(len(inputs), -1, -1))[0]
            return output

        def decode(latent: torch.Tensor) -> torch.Tensor:
            decoded: torch.Tensor = vae.decode(latent, return_dict=False)[0]
            return decoded

        self._encode, self._predict, self._decode = (
            _compile_network(network, device) if compile else network
            for network in (encode, predict, decode))

    def input_buffer(self, latent_shape: Sequence[int]) -> torch.Tensor:
        """
        Return an uninitialized U-Net input [n, 2C, h, w] for latents [n, C, h, w].

        The buffer is reused by the next call with the same shape.
        """
        n, channels, h, w = latent_shape
        shape = (n, 2 * channels, h, w)
        if self._input.shape != shape:
            self._input = torch.empty(shape, dtype=self._dtype, device=self.device,
                                      memory_format=torch.channels_last)
        return self._input

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Encode images to scaled mean latents, [N,3,PPH,PPW] -> [N,C,h,w]."""
        return self._run(self._encode, self._cast(images)) * self._scaling_factor

    def predict(self, inputs: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Call the U-Net, [n,2C,h,w] of an input buffer and [n] -> [n,C,h,w]."""
        return self._run(self._predict, inputs, timesteps)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode latents to depth in three channels, [n,C,h,w] -> [n,3,PPH,PPW]."""
        return self._run(self._decode, self._cast(latent / self._scaling_factor))

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._dtype, memory_format=self._vae_format)

    def _run(self, network: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """Return a network's output as float32, copied if the next run would overwrite it."""
        if self._compiled:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        output = network(*inputs)
        return output.to(torch.float32, copy=self._compiled)


def vae_memory_format(vae: torch.nn.Module, device: torch.device) -> torch.memory_format:
    """
    Return a VAE's memory format: channels last, or contiguous with GroupNorm on a GPU.

    On a GPU, PyTorch's GroupNorm copies its input to contiguous memory
    (aten/src/ATen/native/group_norm.cpp), which is slow for the VAE's image-sized maps.
    """
    has_group_norm = any(isinstance(each, torch.nn.GroupNorm) for each in vae.modules())
    return (torch.contiguous_format if device.type != 'cpu' and has_group_norm
            else torch.channels_last)


def _compile_network(network: Callable[..., torch.Tensor],
                     device: torch.device) -> Callable[..., torch.Tensor]:
    compiler = os.environ.get('CXX', 'g++')
    if device.type == 'cpu' and shutil.which(compiler) is None:
        raise ConfigError(f'`compile` needs a C++ compiler on the CPU; {compiler!r} not found')
    settings: dict[str, Any] = {'dynamic': False, 'recompile_limit': MAX_COMPILED_SIZES}
    settings.update({'mode': 'reduce-overhead'} if device.type == 'cuda'
                    else {'options': {'freezing': True}})
    compiled: Callable[..., torch.Tensor] = torch.compile(network, **settings)
    return compiled
