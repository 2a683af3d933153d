"""
Exact simplifications of the convolutions of a VAE.

- Nearest upsampling by two and a 3x3 convolution are one transposed convolution, with 16 instead
  of 36 multiply-adds per input pixel and pair of channels.
- Two convolutions without a nonlinearity between them are one, except in the frame of pixels at
  the border, where the second sees zeros instead of what the first would give there.  Such pairs
  begin the encoder and end the decoder of an `AutoencoderTiny` whose outermost block is empty,
  as that of the embedded checkpoint.

`benchmarks.engine_layers` measures what they gain.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

from diffusers.models.upsampling import Upsample2D
import torch
from torch import nn
from torch.nn import functional

from marigold_ros.depth.folding import FoldedNetworks, set_weights, weight_and_bias

# Taps of a 3-tap kernel after nearest upsampling by two -> taps of the transposed kernel: an even
# output sees the cell to its left once and its own twice, an odd one its own twice.
TRANSPOSED_TAPS = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)


def fold_convolutions(networks: FoldedNetworks) -> FoldedNetworks:
    """
    Simplify the convolutions of the encoder and the decoder.

    Those of the U-Net are kept: it upsamples small maps, sometimes to odd sizes.

    Parameters
    ----------
    networks : FoldedNetworks
        On the CPU; its modules are changed.
    """
    return fold_upsampling(fold_tail(fold_head(networks)))


def fold_head(networks: FoldedNetworks) -> FoldedNetworks:
    """Fold the first two convolutions of the encoder if there is nothing between them."""
    layers: Any = getattr(networks.encoder, 'layers', [])
    if len(layers) > 2 and _is_plain(layers[0]) and _is_plain(layers[1], stride=2):
        layers[0], layers[1] = FoldedHead(layers[0], layers[1]), nn.Identity()
    return networks


def fold_tail(networks: FoldedNetworks) -> FoldedNetworks:
    """Fold the decoder's last convolution and the head if there is nothing between them."""
    layers: Any = list(networks.decoder.children())[-1]
    if not (isinstance(layers, nn.Sequential) and len(layers) > 1 and _is_nearest(layers[-2])
            and _is_plain(layers[-1]) and _is_plain(networks.head)):
        return networks
    head = FoldedTail(cast(nn.Conv2d, layers[-1]), cast(nn.Conv2d, networks.head))
    layers[-2], layers[-1] = nn.Identity(), nn.Identity()
    return replace(networks, head=head)


def fold_upsampling(networks: FoldedNetworks) -> FoldedNetworks:
    """Fold every nearest upsampling by two in the decoder with the convolution after it."""
    decoder = networks.decoder
    for name, convolution in find_upsampling(decoder).items():
        folded = transpose_convolution(convolution)
        parent_name, _, child = name.rpartition('.')
        parent = decoder.get_submodule(parent_name)
        if isinstance(parent, nn.Sequential):
            parent[int(child) - 1], parent[int(child)] = nn.Identity(), folded
        else:
            decoder.set_submodule(parent_name, folded)
    return networks


def find_upsampling(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the 3x3 convolutions after a nearest upsampling by two, by name."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, Upsample2D):
            if module.interpolate and module.norm is None and _is_plain(module.conv):
                found[f'{name}.conv'] = module.conv
        elif isinstance(module, nn.Sequential):
            for i, (first, second) in enumerate(pairwise(module), start=1):
                if _is_nearest(first) and _is_plain(second):
                    found[f'{name}.{i}' if name else str(i)] = second
    return found


def transpose_convolution(convolution: nn.Conv2d) -> nn.ConvTranspose2d:
    """
    Return the equal of nearest upsampling by two and a 3x3 convolution.

    It is equal at every pixel, those at the border included: both see zeros outside.

    Parameters
    ----------
    convolution : torch.nn.Conv2d
        With a 3x3 kernel, stride 1 and zero padding of 1.

    Returns
    -------
    torch.nn.ConvTranspose2d
        [n, C, H, W] -> [n, D, 2H, 2W], in the dtype of the convolution.
    """
    folded = nn.ConvTranspose2d(convolution.in_channels, convolution.out_channels, 4, stride=2,
                                padding=1, dtype=convolution.weight.dtype)
    set_weights(folded, _transposed_kernel(convolution), weight_and_bias(convolution)[1])
    return folded


class FoldedHead(nn.Module):
    """
    A 3x3 convolution, and another with stride 2, as one 5x5 convolution with stride 2.

    Parameters
    ----------
    first, second : torch.nn.Conv2d
        3x3 kernels with zero padding of 1.
    """

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
        """Compute the kernel."""
        super().__init__()
        self._exact = nn.Sequential(first, second)
        kernel = functional.conv_transpose2d(weight_and_bias(second)[0], weight_and_bias(first)[0])
        self._inside = nn.Conv2d(first.in_channels, second.out_channels, 5, stride=2, padding=2,
                                 dtype=second.weight.dtype)
        set_weights(self._inside, kernel, _composed_bias(first, second))

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Convolve, [n,C,H,W] with even H and W -> [n,D,H/2,W/2]."""
        inside = self._inside(tensor)
        # At the other ends the outputs of an even edge see no zeros.
        inside = torch.cat([self._exact(tensor[:, :, :4])[:, :, :1], inside[:, :, 1:]], dim=2)
        return torch.cat([self._exact(tensor[..., :4])[..., :1], inside[..., 1:]], dim=3)


class FoldedTail(nn.Module):
    """
    Nearest upsampling by two, a 3x3 convolution, and another to one channel.

    Inside, each output pixel depends on 3x3 input pixels, so that this is a convolution to the
    four pixels of a cell.

    Parameters
    ----------
    first, last : torch.nn.Conv2d
        3x3 kernels with zero padding of 1; `last` has one output channel, and its dtype is used.
    """

    def __init__(self, first: nn.Conv2d, last: nn.Conv2d) -> None:
        """Compute the kernel."""
        super().__init__()
        dtype = last.weight.dtype
        self._first, self._last = first.to(dtype), last
        kernel = functional.conv_transpose2d(  # [C,1,6,6], of a transposed one
            _transposed_kernel(first),
            weight_and_bias(last)[0].flip(2, 3).transpose(0, 1)).flip(2, 3)
        # Along an axis, pixel p of a cell takes every second tap.
        phases = torch.stack([kernel[:, 0, 1 - p::2, 1 - q::2] for p in (0, 1) for q in (0, 1)])
        self._inside = nn.Conv2d(first.in_channels, 4, 3, padding=1, dtype=dtype)
        set_weights(self._inside, phases, _composed_bias(first, last).repeat(4))

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Convolve, [n,C,H,W] -> [n,1,2H,2W]."""
        n = len(tensor)
        inside = functional.pixel_shuffle(self._inside(tensor), 2)
        rows = self._exact(torch.cat([tensor[:, :, :2], tensor[:, :, -2:]]))
        inside = torch.cat([rows[:n, :, :1], inside[:, :, 1:-1], rows[n:, :, -1:]], dim=2)
        columns = self._exact(torch.cat([tensor[..., :2], tensor[..., -2:]]))
        return torch.cat([columns[:n, ..., :1], inside[..., 1:-1], columns[n:, ..., -1:]], dim=3)

    def _exact(self, tensor: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self._last(self._first(
            functional.interpolate(tensor, scale_factor=2.0, mode='nearest')))
        return output


def _is_plain(module: Any, stride: int = 1) -> bool:
    """Return whether a module is a 3x3 convolution with zero padding of 1."""
    return (isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
            and module.padding in ((1, 1), 'same') and module.padding_mode == 'zeros'
            and module.stride == (stride, stride) and module.dilation == (1, 1)
            and module.groups == 1)


def _is_nearest(module: Any) -> bool:
    """Return whether a module is nearest upsampling by two."""
    return (isinstance(module, nn.Upsample) and module.mode == 'nearest'
            and module.size is None and module.scale_factor in (2, (2.0, 2.0)))


def _transposed_kernel(convolution: nn.Conv2d) -> torch.Tensor:
    """Return the kernel of `transpose_convolution` in float64, [C,D,4,4]."""
    weight, _ = weight_and_bias(convolution)
    return torch.einsum('ai,bj,dcij->cdab', TRANSPOSED_TAPS, TRANSPOSED_TAPS, weight)


def _composed_bias(first: nn.Conv2d, second: nn.Conv2d) -> torch.Tensor:
    """Return the bias of two convolutions in float64, [D]."""
    (_, first_bias), (weight, bias) = weight_and_bias(first), weight_and_bias(second)
    return bias + weight.sum(dim=(2, 3)) @ first_bias
