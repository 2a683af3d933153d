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

from itertools import pairwise

from diffusers.models.upsampling import Upsample2D
import torch
from torch import nn
from torch.nn import functional

from marigold_ros.depth.folding import FoldedNetworks, InFloat32, set_weights, weight_and_bias

# Taps of a 3-tap kernel after nearest upsampling by two -> taps of the transposed kernel: an even
# output sees the cell to its left once and its own twice, an odd one its own twice.
TRANSPOSED_TAPS = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)


def fold_convolutions(networks: FoldedNetworks) -> FoldedNetworks:
    """
    Simplify the convolutions of the encoder and the decoder, which are changed.

    Those of the U-Net are kept: it upsamples small maps, sometimes to odd sizes.

    Parameters
    ----------
    networks : FoldedNetworks
        On the CPU.
    """
    fold_head(networks.encoder)
    fold_tail(networks.decoder)
    fold_upsampling(networks.decoder)
    return networks


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
    Nearest upsampling by two, a 3x3 convolution, and another to one channel in float32.

    Inside, each output pixel depends on 3x3 input pixels, so that this is a convolution to the
    four pixels of a cell.

    Parameters
    ----------
    first : torch.nn.Conv2d
        With a 3x3 kernel and zero padding of 1.
    last : InFloat32
        The same, with one output channel.
    """

    def __init__(self, first: nn.Conv2d, last: InFloat32) -> None:
        """Compute the kernel."""
        super().__init__()
        self._first, self._last = first, last
        weight, _ = weight_and_bias(last.layer)
        kernel = functional.conv_transpose2d(  # [C,1,6,6], of a transposed one
            _transposed_kernel(first), weight.flip(2, 3).transpose(0, 1)).flip(2, 3)
        # Along an axis, pixel p of a cell takes every second tap.
        phases = torch.stack([kernel[:, 0, 1 - p::2, 1 - q::2] for p in (0, 1) for q in (0, 1)])
        inside = nn.Conv2d(first.in_channels, 4, 3, padding=1, dtype=first.weight.dtype)
        set_weights(inside, phases, _composed_bias(first, last.layer).repeat(4))
        self._inside = InFloat32(inside)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Convolve, [n,C,H,W] -> float32 [n,1,2H,2W]."""
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


def fold_head(encoder: nn.Module) -> None:
    """Fold the first two convolutions of an encoder if there is nothing between them."""
    for layers in _sequences(encoder):
        first, second, *_ = layers
        if (isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
                and second.stride == (2, 2)):
            layers[0], layers[1] = FoldedHead(first, second), nn.Identity()


def fold_tail(decoder: nn.Module) -> None:
    """Fold the last two convolutions of a decoder if there is nothing between them."""
    for layers in _sequences(decoder):
        *_, upsampling, first, last = layers
        if (isinstance(upsampling, nn.Upsample) and isinstance(first, nn.Conv2d)
                and isinstance(last, InFloat32)):
            layers[-3] = FoldedTail(first, last)
            layers[-2], layers[-1] = nn.Identity(), nn.Identity()


def fold_upsampling(decoder: nn.Module) -> None:
    """Fold every nearest upsampling by two with the convolution after it."""
    for name, convolution in find_upsampling(decoder).items():
        folded = transpose_convolution(convolution)
        parent_name, _, child = name.rpartition('.')
        parent = decoder.get_submodule(parent_name)
        if isinstance(parent, nn.Sequential):
            parent[int(child) - 1], parent[int(child)] = nn.Identity(), folded
        else:
            decoder.set_submodule(parent_name, folded)


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


def _sequences(network: nn.Module) -> list[nn.Sequential]:
    return [each for each in network.modules() if isinstance(each, nn.Sequential)
            and len(each) >= 3]


def _transposed_kernel(convolution: nn.Conv2d) -> torch.Tensor:
    """Return the kernel of `transpose_convolution` in float64, [C,D,4,4]."""
    weight, _ = weight_and_bias(convolution)
    return torch.einsum('ai,bj,dcij->cdab', TRANSPOSED_TAPS, TRANSPOSED_TAPS, weight)


def _composed_bias(first: nn.Conv2d, second: nn.Conv2d) -> torch.Tensor:
    """Return the bias of two convolutions in float64, [D]."""
    (_, first_bias), (weight, bias) = weight_and_bias(first), weight_and_bias(second)
    return bias + weight.sum(dim=(2, 3)) @ first_bias
