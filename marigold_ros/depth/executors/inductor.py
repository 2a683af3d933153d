"""Compile stages with torch's Inductor, for each shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import os
import shutil
from typing import Any

import torch

from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.executors.base import MAX_PREPARED_STAGES, PreparedStage, PreparingExecutor


class InductorExecutor(PreparingExecutor):
    """Run compiled stages on the CPU; on a GPU, `cuda_graph` captures them."""

    name = 'inductor'

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """Check that there is a compiler."""
        super().__init__(device, dtype, fall_back=False)  # the user asked for it
        compiler = os.environ.get('CXX', 'g++')
        if shutil.which(compiler) is None:
            raise ConfigError(f'`compile` needs a C++ compiler on the CPU; {compiler!r} not found')

    def _prepare(self, name: str, inputs: Sequence[torch.Tensor]) -> PreparedStage:
        stage = compile_stage(getattr(self._stages, name), inputs, self.device)

        def run(*given: torch.Tensor) -> Sequence[torch.Tensor]:
            with torch.inference_mode():
                outputs = stage(*given)
            return outputs if isinstance(outputs, tuple) else (outputs,)
        return run


def compile_stage(stage: torch.nn.Module, inputs: Sequence[torch.Tensor],
                  device: torch.device) -> Callable[..., Any]:
    """
    Compile a stage as one graph for inputs of these shapes.

    On the CPU the weights are frozen, so that they are packed once.  The option
    `loop_reindexing_after_fusion` is off because it makes upsample, convolution and GroupNorm six
    times slower (pytorch issue 189488).
    """
    options: dict[str, Any] = {'loop_reindexing_after_fusion': False}
    if device.type == 'cpu':
        options['freezing'] = True
    known = torch._inductor.list_options()
    compiled: Callable[..., Any] = torch.compile(
        stage, fullgraph=True, dynamic=False,
        options={name: value for name, value in options.items() if name in known})
    with torch.inference_mode(), torch._dynamo.config.patch(recompile_limit=MAX_PREPARED_STAGES):
        compiled(*inputs)
    return compiled
