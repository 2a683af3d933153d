"""
Exact simplifications of a loaded checkpoint, the same on every device.

Marigold calls Stable Diffusion's networks with one prompt, the empty one, and uses the mean of the
decoded channels.  What is constant or linear under these conditions is computed once, and weights
are combined in float64:

- Cross-attention to the two tokens of the empty prompt: a softmax over two logits is the sigmoid
  of their difference, so that a layer is sigmoid(x A + a) B + c.
- The time embedding, of which every residual block adds its own projection: a table of biases.
- `quant_conv`, of which only the mean of the latent distribution is used, and the scaling factor:
  part of the encoder's last convolution.
- The mean over the decoded channels: part of the decoder's last convolution, which is kept apart
  as the head, because depth needs more digits than half precision has.

`convolution_folding` goes on with the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
import torch
from torch import nn

from marigold_ros.depth.checkpoint import Components


@dataclass(frozen=True)
class FoldedNetworks:
    """
    The networks of a checkpoint, simplified.

    Attributes
    ----------
    encoder : torch.nn.Module
        Images in [-1, 1] [N, 3, PPH, PPW] -> scaled mean latents [N, C, h, w].
    unet : torch.nn.Module
        Image and depth latents [n, 2C, h, w], biases [n, S] -> network output [n, C, h, w].
    decoder : torch.nn.Module
        Scaled depth latents [n, C, h, w] -> the features before the last convolution.
    head : torch.nn.Module
        Features in float32 -> depth [n, 1, PPH, PPW], about in [-1, 1].
    time_table : TimeTable
        The biases at a timestep.
    """

    encoder: nn.Module
    unet: nn.Module
    decoder: nn.Module
    head: nn.Module
    time_table: TimeTable


def fold(components: Components) -> FoldedNetworks:
    """
    Simplify the networks of a checkpoint; the given ones are changed.

    Parameters
    ----------
    components : Components
        On the CPU.
    """
    time_table = TimeTable(components.unet)
    return FoldedNetworks(
        _fold_encoder(components.vae),
        _fold_unet(components.unet, components.empty_text_embedding),
        *_fold_decoder(components.vae), time_table)


class ConstantTokenAttention(nn.Module):
    """
    Cross-attention of n pixels to two constant tokens: sigmoid(x A + a) B + c.

    With queries q_h = Wq_h x, keys k_h0, k_h1 and values v_h0, v_h1 of head h, the weight of token
    1 is sigmoid(s q_h . (k_h1 - k_h0)), and the output is v_h0 + weight (v_h1 - v_h0), projected.

    Parameters
    ----------
    attention : diffusers.models.attention_processor.Attention
    tokens : tensor [1, 2, D]
        The two tokens.
    """

    def __init__(self, attention: Any, tokens: torch.Tensor) -> None:
        """Compute the constants of a layer."""
        super().__init__()
        heads, dtype = attention.heads, attention.to_q.weight.dtype
        (Wq, bq), (Wk, bk), (Wv, bv), (Wo, bo) = (
            weight_and_bias(layer) for layer in
            (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]))
        token = tokens[0].to(Wk)  # [2,D]
        keys, values = token @ Wk.T + bk, token @ Wv.T + bv  # [2,heads*d]
        contrast = attention.scale * (keys[1] - keys[0])  # [heads*d]
        A, a = contrast[:, None] * Wq, contrast * bq  # [heads*d,C], [heads*d]
        B = Wo * (values[1] - values[0])  # [C,heads*d]
        # Only sums over the d numbers of a head are needed.
        self.to_logits = _make_linear(A.reshape(heads, -1, A.shape[1]).sum(1),
                                      a.reshape(heads, -1).sum(1), dtype)
        self.to_output = _make_linear(B.reshape(len(B), heads, -1).sum(2),
                                      Wo @ values[0] + bo, dtype)

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
        """Attend, [n, pixels, C] -> [n, pixels, C]; the caller's tokens are not read."""
        output: torch.Tensor = self.to_output(torch.sigmoid(self.to_logits(hidden_states)))
        return output


class TimeTable:
    """
    The biases that the residual blocks of a U-Net add at a timestep.

    Parameters
    ----------
    unet : diffusers.UNet2DConditionModel
        Before it is folded.
    """

    def __init__(self, unet: Any) -> None:
        """Keep the layers that compute the biases."""
        blocks = _residual_blocks(unet)
        self._time_proj, self._time_embedding = unet.time_proj, unet.time_embedding
        self._activations = [unet.time_embed_act or nn.Identity(), blocks[0].nonlinearity]
        self._projections = [block.time_emb_proj for block in blocks]

    @torch.inference_mode()
    def biases(self, timesteps: Sequence[int]) -> torch.Tensor:
        """
        Compute the biases at T timesteps.

        Returns
        -------
        tensor [T, S]
            On the CPU, in the dtype of the networks; S is the sum of the blocks' channels.
        """
        embedding = self._time_proj(torch.tensor(timesteps))
        embedding = self._time_embedding(embedding.to(self._projections[0].weight.dtype))
        for activation in self._activations:
            embedding = activation(embedding)
        return torch.cat([projection(embedding) for projection in self._projections], dim=1)


def _fold_unet(unet: Any, tokens: torch.Tensor) -> nn.Module:
    """Replace the cross-attention to two tokens, and take biases instead of timesteps."""
    if tokens.shape[1] == 2:
        for module in unet.modules():
            if isinstance(module, BasicTransformerBlock) and module.attn2 is not None:
                module.attn2 = ConstantTokenAttention(module.attn2, tokens)
    start = 0
    for block in _residual_blocks(unet):
        width = block.time_emb_proj.out_features
        block.time_emb_proj, block.skip_time_act = _Slice(start, start + width), True
        start += width
    return _UNetWithBiases(unet, tokens)


def _get_time_biases(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Return the biases, which a U-Net is called with instead of a time."""
    return timestep


class _UNetWithBiases(nn.Module):
    """Call a U-Net whose residual blocks select their part of given biases."""

    def __init__(self, unet: Any, tokens: torch.Tensor) -> None:
        super().__init__()
        self._unet = unet
        unet.get_time_embed = _get_time_biases
        unet.time_embedding, unet.time_embed_act = _First(), None
        self._tokens: torch.Tensor
        self.register_buffer('_tokens', tokens.to(unet.dtype))

    def forward(self, inputs: torch.Tensor, time_bias: torch.Tensor) -> torch.Tensor:
        """Predict, [n,2C,h,w] and [n,S] -> [n,C,h,w]."""
        output: torch.Tensor = self._unet(
            inputs, time_bias, return_dict=False,
            encoder_hidden_states=self._tokens.expand(len(inputs), -1, -1))[0]
        return output


class _First(nn.Module):
    """Return the first argument."""

    def forward(self, first: torch.Tensor, *_: Any) -> torch.Tensor:
        return first


class _Slice(nn.Module):
    """Select a block's part of all biases, [n,S] -> [n,stop-start]."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self._start, self._stop = start, stop

    def forward(self, biases: torch.Tensor) -> torch.Tensor:
        return biases[:, self._start:self._stop]


def _fold_encoder(vae: Any) -> nn.Module:
    """Return an encoder to scaled mean latents."""
    encoder: nn.Module = vae.encoder
    last = _last_convolution(encoder)
    weight, bias = weight_and_bias(last)
    if hasattr(encoder, 'conv_out'):  # of AutoencoderKL, to mean and log variance
        channels = vae.config.latent_channels
        Wq, bq = torch.eye(len(weight), dtype=weight.dtype), torch.zeros_like(bias)
        if vae.quant_conv is not None:
            Wq, bq = weight_and_bias(vae.quant_conv)
        Wq = Wq.reshape(len(Wq), -1)[:channels]
        weight, bias = torch.einsum('oc,cikl->oikl', Wq, weight), Wq @ bias + bq[:channels]
    set_weights(last, vae.config.scaling_factor * weight, vae.config.scaling_factor * bias)
    return encoder


def _fold_decoder(vae: Any) -> tuple[nn.Module, nn.Module]:
    """Return a decoder of scaled latents to features, and the head to the mean over channels."""
    head = _last_convolution(vae.decoder)
    weight, bias = (each.mean(dim=0, keepdim=True) for each in weight_and_bias(head))
    scale = 1.0 / vae.config.scaling_factor
    if hasattr(vae.decoder, 'conv_out'):  # of AutoencoderKL
        vae.decoder.conv_out, decoder = nn.Identity(), vae.decoder
    else:  # whose images are in [0, 1]
        weight, bias = 2.0 * weight, 2.0 * bias - 1.0
        decoder = nn.Sequential(_SoftClamp(), *vae.decoder.layers[:-1])
    first = getattr(vae, 'post_quant_conv', None)
    if first is None:
        first = _Scale(scale)
    else:
        set_weights(first, scale * weight_and_bias(first)[0], weight_and_bias(first)[1])
    head = head.to(torch.promote_types(head.weight.dtype, torch.float32))
    set_weights(head, weight, bias)
    return nn.Sequential(first, decoder), head


def _last_convolution(network: Any) -> Any:
    """Return the last convolution of an encoder or decoder, of AutoencoderKL or -Tiny."""
    return network.conv_out if hasattr(network, 'conv_out') else network.layers[-1]


class _Scale(nn.Module):
    """Multiply by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._factor * tensor

    def extra_repr(self) -> str:
        return repr(self._factor)


class _SoftClamp(nn.Module):
    """What `AutoencoderTiny` does first with the latents that it decodes."""

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return 3.0 * torch.tanh(latent / 3.0)


def _residual_blocks(unet: Any) -> list[Any]:
    return [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]


def weight_and_bias(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight and the bias (0 if there is none) of a layer in float64."""
    weight: torch.Tensor = layer.weight.detach().to(torch.float64)
    if layer.bias is None:
        return weight, weight.new_zeros(len(weight))
    return weight, layer.bias.detach().to(torch.float64)


def _make_linear(weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
    set_weights(linear, weight, bias)
    return linear


def set_weights(layer: Any, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Replace the weights of a layer, which may get another number of output channels."""
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    if isinstance(layer, nn.Conv2d):
        layer.out_channels = len(weight)
