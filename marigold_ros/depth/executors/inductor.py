"""Compile stages with torch's Inductor, for each shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import inspect
import os
from pathlib import Path
import shutil
import tempfile
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
                outputs = stage(*(each.contiguous() for each in given))
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
    options: dict[str, bool] = {'loop_reindexing_after_fusion': False}
    if device.type == 'cpu':
        options['freezing'] = True
    known = torch._inductor.list_options()
    settings: dict[str, Any] = {
        'fullgraph': True, 'dynamic': False,
        'options': {name: value for name, value in options.items() if name in known}}
    if 'recompile_limit' in inspect.signature(torch.compile).parameters:  # from torch 2.13 on
        settings['recompile_limit'] = MAX_PREPARED_STAGES
    compiled: Callable[..., Any] = torch.compile(stage, **settings)
    with torch.inference_mode():
        compiled(*inputs)
    return compiled


def check_cache_folder() -> None:
    """
    Check where Inductor keeps what it compiled.

    Raises
    ------
    ConfigError
        If the user's folder cannot be written.
    """
    folder = os.environ.get('TORCHINDUCTOR_CACHE_DIR')
    try:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as err:
        raise ConfigError(f'`compile` needs a folder that it can write; TORCHINDUCTOR_CACHE_DIR '
                          f'is {folder!r}: {err}') from err
