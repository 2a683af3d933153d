"""
Exact folds of convolutions, whose gain `benchmarks.engine_layers` measures.

- Nearest upsampling by two and a 3x3 convolution are one transposed convolution.
- Two convolutions without a nonlinearity between them are one, except in the frame of pixels at
  the border, where the second sees zeros instead of what the first would give there.  Such pairs
  begin the encoder and end the decoder of an `AutoencoderTiny` whose outermost block is empty,
  as that of the embedded checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

from diffusers.models.upsampling import Upsample2D
import torch
from torch import nn
from torch.nn import functional

# Taps of a 3-tap kernel after nearest upsampling by two -> taps of the transposed kernel: an even
# output sees the cell to its left once and its own twice, an odd one its own twice.
TRANSPOSED_TAPS = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)


def fold_upsampling(convolution: nn.Conv2d) -> nn.ConvTranspose2d:
    """
    Fold nearest upsampling by two into the 3x3 convolution after it.

    The result is the same at every pixel, those at the border included: both see zeros outside.
    Per input pixel and pair of channels it takes 16 instead of 36 multiply-adds.

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
                                padding=1, bias=convolution.bias is not None)
    _set_weights(folded, _transposed_kernel(convolution), convolution.bias,
                 convolution.weight.dtype)
    return folded


class FoldedUpsample2D(nn.Module):
    """
    Diffusers' upsampling layer, folded for inputs that become twice as large.

    A latent with an odd edge is upsampled to 2n - 1 pixels.  The convolution then sees zeros where
    the transposed one sees a pixel, so that the last row or column would differ.
    """

    def __init__(self, layer: Any) -> None:
        """Fold the layer."""
        super().__init__()
        self._layer, self._folded = layer, fold_upsampling(layer.conv)

    def forward(self, hidden_states: torch.Tensor,
                output_size: Sequence[int] | None = None) -> torch.Tensor:
        """Upsample, [n,C,h,w] -> [n,D,2h,2w] or the given size."""
        doubled = [2 * edge for edge in hidden_states.shape[2:]]
        is_doubled = output_size is None or list(output_size) == doubled
        output: torch.Tensor = (self._folded(hidden_states) if is_doubled
                                else self._layer(hidden_states, output_size))
        return output


class FoldedTail(nn.Module):
    """
    Nearest upsampling by two, a 3x3 convolution, and another to one channel, in its dtype.

    Inside, each output pixel depends on 3x3 input pixels, so that this is a convolution to the
    four pixels of a cell.

    Parameters
    ----------
    first, last : torch.nn.Conv2d
        3x3 kernels with zero padding of 1; `last` has one output channel.
    """

    def __init__(self, first: nn.Conv2d, last: nn.Conv2d) -> None:
        """Compute the kernel."""
        super().__init__()
        self._first, self._last = first, last
        weight = last.weight.detach().to(torch.float64)
        kernel = functional.conv_transpose2d(  # [C,1,6,6], of a transposed one
            _transposed_kernel(first), weight.flip(2, 3).transpose(0, 1)).flip(2, 3)
        # Along an axis, pixel p of a cell takes every second tap.
        phases = torch.stack([kernel[:, 0, 1 - p::2, 1 - q::2] for p in (0, 1) for q in (0, 1)])
        self._inside = nn.Conv2d(first.in_channels, 4, 3, padding=1)
        _set_weights(self._inside, phases, _composed_bias(first, last).repeat(4),
                     last.weight.dtype)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Convolve, [n,C,H,W] -> [n,1,2H,2W]."""
        n = len(tensor)
        inside = functional.pixel_shuffle(
            self._inside(tensor.to(self._inside.weight.dtype)), 2)
        rows = self._exact(torch.cat([tensor[:, :, :2], tensor[:, :, -2:]]))
        inside = torch.cat([rows[:n, :, :1], inside[:, :, 1:-1], rows[n:, :, -1:]], dim=2)
        columns = self._exact(torch.cat([tensor[..., :2], tensor[..., -2:]]))
        return torch.cat([columns[:n, ..., :1], inside[..., 1:-1], columns[n:, ..., -1:]], dim=3)

    def _exact(self, tensor: torch.Tensor) -> torch.Tensor:
        upsampled = functional.interpolate(tensor, scale_factor=2.0, mode='nearest')
        output: torch.Tensor = self._last(self._first(upsampled).to(self._last.weight.dtype))
        return output


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
        kernel = functional.conv_transpose2d(second.weight.detach().to(torch.float64),
                                             first.weight.detach().to(torch.float64))
        self._inside = nn.Conv2d(first.in_channels, second.out_channels, 5, stride=2, padding=2)
        _set_weights(self._inside, kernel, _composed_bias(first, second), second.weight.dtype)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Convolve, [n,C,H,W] with even H and W -> [n,D,H/2,W/2]."""
        inside = self._inside(tensor)
        # The last outputs of an even edge see no zeros.
        inside = torch.cat([self._exact(tensor[:, :, :4])[:, :, :1], inside[:, :, 1:]], dim=2)
        return torch.cat([self._exact(tensor[..., :4])[..., :1], inside[..., 1:]], dim=3)


def find_upsampling(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the 3x3 convolutions after a nearest upsampling by two, by name."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, Upsample2D) and isinstance(module.conv, nn.Conv2d):
            found[f'{name}.conv'] = module.conv
        elif isinstance(module, nn.Sequential):
            for i, (first, second) in enumerate(pairwise(module), start=1):
                if isinstance(first, nn.Upsample) and isinstance(second, nn.Conv2d):
                    found[f'{name}.{i}'] = second
    return found


def fold_all_upsampling(network: nn.Module) -> nn.Module:
    """Return a copy of a network with every upsampling folded; itself if there is none."""
    if not find_upsampling(network):
        return network
    network = deepcopy(network)
    for name, convolution in find_upsampling(network).items():
        parent_name, _, index = name.rpartition('.')
        parent = network.get_submodule(parent_name)
        if isinstance(parent, nn.Sequential):
            parent[int(index) - 1] = fold_upsampling(convolution)
            parent[int(index)] = nn.Identity()
        else:
            network.set_submodule(parent_name, FoldedUpsample2D(parent))
    return network


def fold_pairs(network: nn.Module) -> nn.Module:
    """Return a copy of an encoder or decoder with its pair folded; itself if there is none."""
    copy = deepcopy(network)
    for layers in _sequences(copy):
        first, second, *_ = layers
        *_, upsampling, third, last = layers
        last = last if isinstance(last, nn.Conv2d) else next(iter(last.children()), last)
        if (isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
                and second.stride == (2, 2)):
            layers[0], layers[1] = FoldedHead(first, second), nn.Identity()
        elif (isinstance(upsampling, nn.Upsample) and isinstance(third, nn.Conv2d)
                and isinstance(last, nn.Conv2d) and last.out_channels == 1):
            layers[-3], layers[-2] = FoldedTail(third, last), nn.Identity()
            layers[-1] = nn.Identity()
        else:
            continue
        return copy
    return network


def _sequences(network: nn.Module) -> Iterator[nn.Sequential]:
    return (each for each in network.modules() if isinstance(each, nn.Sequential)
            and len(each) >= 3)


def _transposed_kernel(convolution: nn.Conv2d) -> torch.Tensor:
    """Return the kernel of `fold_upsampling` in float64, [C,D,4,4]."""
    weight = convolution.weight.detach().to(torch.float64)
    taps = TRANSPOSED_TAPS.to(weight.device)
    return torch.einsum('ai,bj,dcij->cdab', taps, taps, weight)


def _composed_bias(first: nn.Conv2d, second: nn.Conv2d) -> torch.Tensor:
    """Return the bias of two convolutions in float64, [D]."""
    weight = second.weight.detach().to(torch.float64)
    bias = weight.new_zeros(len(weight))
    if second.bias is not None:
        bias = second.bias.detach().to(torch.float64)
    if first.bias is not None:
        bias = bias + weight.sum(dim=(2, 3)) @ first.bias.detach().to(torch.float64)
    return bias


def _set_weights(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None,
                 dtype: torch.dtype) -> None:
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
