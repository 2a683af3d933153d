"""
Which form of a layer is the fastest, at the sizes of a checkpoint's networks?

    python -m benchmarks.engine_layers
    python -m benchmarks.engine_layers --architecture sd2 --vae kl --compile

- Nearest upsampling and a 3x3 convolution, or one transposed convolution, for each layer of the
  U-Net and of the decoder; the stages with the folds of `depth.convolution_folding`.
- The decoder's last convolution: to three channels, or to their mean, also in float32.
- The attention in the middle of the KL decoder, with each of torch's implementations.
- Contiguous or channels_last networks; cuDNN's search for the fastest kernels (GPU).

Batch 1; medians of rounds in which the forms of a thing alternate; the first form is the baseline.
Layers take tensors of the networks' dtype where torch runs them; with OpenVINO a call also copies
its input and output.  Stages run as in the engine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import partial
from pathlib import Path
import sys
from typing import Any

from diffusers.models.attention_processor import Attention
import torch
from torch import nn
from torch.nn.attention import sdpa_kernel, SDPBackend

from benchmarks.engine_candidates import (
    add_checkpoint_arguments,
    EAGER,
    list_executors,
    make_executor,
    open_checkpoint,
)
from benchmarks.synthetic_images import VGA
from benchmarks.timing import (
    format_markdown_table,
    quartiles_ms,
    speedup,
    time_interleaved,
    write_benchmark_report,
)
from marigold_ros.depth.checkpoint import load_components
from marigold_ros.depth.convolution_folding import (
    find_upsampling,
    fold_head,
    fold_tail,
    fold_upsampling,
    transpose_convolution,
)
from marigold_ros.depth.device import reserve_one_core, resolve_device
from marigold_ros.depth.folding import fold, FoldedNetworks
from marigold_ros.depth.preprocess import padded_size, processing_size
from marigold_ros.depth.stages import (
    DecodeStage,
    make_stages,
    NetworkStage,
    Stages,
    StepStage,
    TensorLayout,
    vae_memory_format,
)
from marigold_ros.evaluation.environment import describe_environment

ATTENTION_BACKENDS = {'cpu': (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION),
                      'cuda': (SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION,
                               SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION)}

# Stage -> name of a form -> its folds.
CONVOLUTION_FOLDS: dict[str, dict[str, list[Callable[[FoldedNetworks], FoldedNetworks]]]] = {
    'encode': {'pair folded': [fold_head]},
    'decode': {'upsampling folded': [fold_upsampling], 'pair folded': [fold_tail],
               'both folded': [fold_tail, fold_upsampling]}}

Calls = dict[str, Callable[[], Any]]


class Check:
    """
    The networks of a checkpoint as one executor runs them, and random inputs.

    Parameters
    ----------
    checkpoint : str
    size : (int, int)
        Padded processing size (PPH, PPW), px.
    device : torch.device
    executor, dtype : str
        See `list_executors`.
    rounds : int
    """

    def __init__(self, checkpoint: str, size: tuple[int, int], device: torch.device,
                 executor: str, dtype: str, rounds: int) -> None:
        self.checkpoint = checkpoint
        self.device, self.executor, self.dtype = device, executor, dtype
        self._rounds = rounds
        self.weights_dtype = make_executor(executor, device, dtype).weights_dtype
        self.networks = fold(load_components(checkpoint, dtype=self.weights_dtype))
        self.stages = make_stages(self.networks, device, self.weights_dtype)
        torch.manual_seed(0)
        image = torch.rand(1, 3, *size, device=device)
        latent = torch.randn_like(self.stages.encode(image))
        bias = self.networks.time_table.biases([999]).to(device)
        self.inputs: dict[str, tuple[torch.Tensor, ...]] = {
            'encode': (image,), 'decode': (latent,),
            'step': (latent, latent, torch.tensor([[0.0, -1.0, 0.5, 0.5]], device=device), bias)}

    def compare(self, what: str, forms: Calls) -> list[dict[str, Any]]:
        """Time several forms of one thing in interleaved rounds; return a row for each."""
        runs = time_interleaved(forms, rounds=self._rounds, device=self.device)
        baseline = next(iter(runs.values())).seconds
        rows = [{'executor': self.executor, 'dtype': self.dtype, 'what': what, 'form': form,
                 **quartiles_ms(run.seconds), 'speedup': speedup(baseline, run.seconds)}
                for form, run in runs.items()]
        print(f'{self.executor}, {self.dtype}, {what}: ' + ', '.join(
            f'{row["form"]} {row["median_ms"]:.3f} ms' for row in rows),
            file=sys.stderr, flush=True)
        return rows

    def layer_call(self, stage: str, layer: nn.Module, shape: Sequence[int]
                   ) -> Callable[[], Any]:
        """Return the call of a layer on random input, in the memory format of its stage."""
        executor = make_executor(self.executor, self.device, self.dtype)
        layout = TensorLayout(self.weights_dtype, torch.channels_last if stage == 'step' else
                              vae_memory_format(self.networks.decoder, self.device,
                                                compiled=False))
        layer = layout.move(deepcopy(layer), self.device)
        executor.load(Stages(layer, layer, layer))
        return partial(executor.encode, layout.cast(torch.randn(*shape, device=self.device)))

    def stage_call(self, stages: Stages, stage: str) -> Callable[[], Any]:
        """Return the call of a stage."""
        executor = make_executor(self.executor, self.device, self.dtype)
        executor.load(stages)
        return partial(getattr(executor, stage), *self.inputs[stage])

    def input_shapes(self, stage: str, kind: type[nn.Module]) -> dict[str, tuple[Any, list[int]]]:
        """Run a stage; return its modules of a kind by name, with the shape of their input."""
        network = getattr(self.stages, stage)
        shapes: dict[str, tuple[Any, list[int]]] = {}
        hooks = [module.register_forward_pre_hook(
            lambda _, given, name=name, module=module:
            shapes.setdefault(name, (module, list(given[0].shape))) and None)
            for name, module in network.named_modules() if isinstance(module, kind)]
        network(*self.inputs[stage])
        for hook in hooks:
            hook.remove()
        return shapes


def check_upsampling_layers(check: Check) -> list[dict[str, Any]]:
    """Compare each upsampling and its convolution with the transposed convolution."""
    rows = []
    for stage in ('step', 'decode'):
        shapes = check.input_shapes(stage, nn.Conv2d)
        for name in find_upsampling(getattr(check.stages, stage)):
            layer, (n, channels, height, width) = shapes[name]
            if height % 2 or width % 2:
                print(f'{name} in {stage} upsamples to {height}x{width}, which cannot be folded',
                      file=sys.stderr)
                continue
            shape = (n, channels, height // 2, width // 2)
            rows += check.compare(
                f'{stage}: {channels} to {layer.out_channels} channels, {width}x{height} px', {
                    'upsampling, convolution': check.layer_call(
                        stage, nn.Sequential(nn.Upsample(scale_factor=2.0), layer), shape),
                    'transposed convolution': check.layer_call(
                        stage, transpose_convolution(layer), shape)})
    return rows


def check_stages(check: Check) -> list[dict[str, Any]]:
    """Compare the stages with and without the folds of their convolutions."""
    rows = []
    for stage, folds in CONVOLUTION_FOLDS.items():
        forms = {'as it is': check.stage_call(check.stages, stage)}
        for form, functions in folds.items():
            folded = fold(load_components(check.checkpoint, dtype=check.weights_dtype))
            before = str(folded)
            for function in functions:
                folded = function(folded)
            if str(folded) != before:
                forms[form] = check.stage_call(
                    make_stages(folded, check.device, check.weights_dtype), stage)
        if len(forms) > 1:
            rows += check.compare(f'stage {stage}', forms)
    return rows


def check_last_convolution(check: Check) -> list[dict[str, Any]]:
    """Compare the decoder's last convolution to three channels with that to their mean."""
    features: Any = check.stages.decode.features
    shape = list(features(*check.inputs['decode']).shape)
    one, three = (nn.Conv2d(shape[1], count, 3, padding=1, dtype=check.weights_dtype,
                            device=check.device) for count in (1, 3))
    layers = {form: _InOwnDtype(layer) for form, layer in (
        ('3 channels, mean', nn.Sequential(three, _Mean())), ('1 channel', one),
        ('1 channel in float32', deepcopy(one).to(torch.float32)))}
    rows = check.compare(f'last convolution: {shape[1]} channels, {shape[3]}x{shape[2]} px', {
        form: check.layer_call('decode', layer, shape) for form, layer in layers.items()})
    stages = {}
    for form, layer in layers.items():
        decode = DecodeStage(features, layer)
        stages[form] = check.stage_call(Stages(decode, decode, decode), 'decode')
    return rows + check.compare('stage decode', stages)


class _InOwnDtype(nn.Module):
    """A layer whose input is cast to the dtype of its weights."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer, self._dtype = layer, next(layer.parameters()).dtype

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self._layer(tensor.to(self._dtype))
        return output.to(torch.float32)


class _Mean(nn.Module):
    """The mean over the channels."""

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.mean(dim=1, keepdim=True)


def check_attention(check: Check) -> list[dict[str, Any]]:
    """Compare torch's implementations of the attention in the middle of the decoder."""
    rows = []
    for layer, (n, channels, height, width) in check.input_shapes('decode', Attention).values():
        tokens = torch.randn(n, channels, height, width, device=check.device,
                             dtype=check.weights_dtype)
        forms: Calls = {"torch's choice": partial(layer, tokens)}
        for backend in ATTENTION_BACKENDS[check.device.type]:
            call = partial(_call_within, partial(sdpa_kernel, backend), layer, tokens)
            try:
                call()
            except RuntimeError as err:
                print(f'{backend.name} cannot run: {str(err).splitlines()[0]}', file=sys.stderr)
                continue
            forms[backend.name.lower()] = call
        rows += check.compare(f'attention of {height * width} tokens, {channels} channels, '
                              f'{layer.heads} head(s)', forms)
    return rows


def check_memory_format(check: Check) -> list[dict[str, Any]]:
    """Compare contiguous with channels_last networks, stage by stage."""
    names = {torch.contiguous_format: 'contiguous', torch.channels_last: 'channels_last'}
    kinds = {'encode': NetworkStage, 'step': StepStage, 'decode': NetworkStage}
    networks = dict(zip(Stages._fields, (check.networks.encoder, check.networks.unet,
                                         check.networks.decoder)))
    rows = []
    for stage, kind in kinds.items():
        forms: Calls = {}
        for memory_format, name in names.items():
            layout = TensorLayout(check.weights_dtype, memory_format)
            built = kind(layout.move(deepcopy(networks[stage]), check.device), layout)
            forms[name] = check.stage_call(Stages(built, built, built), stage)
        rows += check.compare(f'stage {stage}', forms)
    return rows


def check_cudnn_search(check: Check) -> list[dict[str, Any]]:
    """Compare cuDNN's choice of kernels by rule with that by trial."""
    if check.device.type != 'cuda':
        print("cuDNN's search was not measured: it needs a GPU", file=sys.stderr)
        return []
    rows = []
    for stage in Stages._fields:
        call = check.stage_call(check.stages, stage)
        rows += check.compare(f'stage {stage}', {
            f'cudnn.benchmark {benchmark}': partial(
                _call_within, partial(torch.backends.cudnn.flags, enabled=True,
                                      benchmark=benchmark), call)
            for benchmark in (False, True)})
    return rows


def _call_within(context: Callable[[], AbstractContextManager[Any]], call: Callable[..., Any],
                 *arguments: Any) -> Any:
    with context():
        return call(*arguments)


# Title -> check, and whether it is about torch's own kernels, which are checked eagerly in the
# device's own dtype.
CHECKS: dict[str, tuple[Callable[[Check], list[dict[str, Any]]], bool]] = {
    'Nearest upsampling and convolution': (check_upsampling_layers, False),
    'Stages with folded convolutions': (check_stages, False),
    "The decoder's last convolution": (check_last_convolution, False),
    'Attention of the KL decoder': (check_attention, True),
    'Memory format': (check_memory_format, True),
    "cuDNN's search for kernels": (check_cudnn_search, True)}
# Graphs copy a layer's input and output, which can take longer than the layer; compiling each
# layer takes minutes.
LAYER_EXECUTORS = (EAGER, 'OpenVINO')


def measure(checkpoint: str, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Run all checks; return rows by title, and the executors left out with the reason."""
    device = resolve_device(options.device)
    info = load_components(checkpoint).info
    size = padded_size(processing_size(*VGA, options.processing_resolution
                                       or info.processing_resolution), info.vae_scale_factor)
    executors, left_out = list_executors(device, options.compile)
    own = [dtype for executor, dtype in executors if executor == EAGER][-1]
    rows: dict[str, list[dict[str, Any]]] = {title: [] for title in CHECKS}
    for executor, dtype in executors:
        check = Check(checkpoint, size, device, executor, dtype, options.rounds)
        for title, (run, eager_only) in CHECKS.items():
            if eager_only and (executor, dtype) != (EAGER, own):
                continue
            if run is not check_stages and executor not in LAYER_EXECUTORS:
                continue
            rows[title] += run(check)
    return rows, left_out


def format_markdown(rows: Mapping[str, Sequence[Mapping[str, Any]]],
                    left_out: Mapping[str, str]) -> str:
    """Format the rows by title, and say what was not measured."""
    lines = []
    for title, of_check in rows.items():
        table = [{
            'executor': f'{row["executor"]}, {row["dtype"]}', '': row['what'], 'form': row['form'],
            'ms': f'{row["median_ms"]:.3f}',
            'quartiles': f'{row["q25_ms"]:.3f}..{row["q75_ms"]:.3f}',
            'times the first form (95 %)':
                '{ratio:.2f} ({low:.2f}..{high:.2f})'.format(**row['speedup'])}
            for row in of_check]
        lines += [f'## {title}', '', format_markdown_table(table) if table else
                  'Not measured: the checkpoint has no such layer, or it needs a GPU.', '']
    return '\n'.join(lines + [f'- left out: {executor}: {reason}'
                              for executor, reason in left_out.items()])


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add_checkpoint_arguments(parser)
    parser.add_argument('--processing-resolution', type=int,
                        help="longest edge, px; the checkpoint's by default")
    parser.add_argument('--rounds', type=int, default=50)
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    options = make_parser().parse_args(arguments)
    reserve_one_core()
    facts = describe_environment(resolve_device(options.device))
    with open_checkpoint(options) as (checkpoint, name):
        rows, left_out = measure(checkpoint, options)
    write_benchmark_report(options.out, f'engine_layers_{name}', facts, {'rows': rows},
                           format_markdown(rows, left_out))


if __name__ == '__main__':
    main()
