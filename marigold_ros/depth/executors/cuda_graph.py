"""Replay stages on a GPU as CUDA graphs: one launch instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
import inspect
import logging
from typing import Any

import torch

from marigold_ros.depth.executors.base import MAX_PREPARED_STAGES, PreparedStage, PreparingExecutor

logger = logging.getLogger(__name__)

# Runs before a capture, in which cuDNN and cuBLAS choose their kernels and allocate.
WARM_UP_RUNS = 3


class CudaGraphExecutor(PreparingExecutor):
    """
    Capture each stage once per shape, eager or compiled, and replay it.

    Row counts are rounded up to powers of two, so that a ragged batch needs few graphs.

    Parameters
    ----------
    device, dtype
        See `Executor`.
    compile : bool
        Whether the stages are compiled before they are captured, but for those that are prepared
        in the background.
    fall_back
        See `PreparingExecutor`.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *,
                 compile: bool, fall_back: bool) -> None:  # noqa: A002, torch's own word for it
        """Start without graphs."""
        super().__init__(device, dtype, fall_back=fall_back)
        self.name = 'cuda_graph, inductor' if compile else 'cuda_graph'
        self._compile = compile
        self._pool = torch.cuda.graph_pool_handle()  # graphs replay one after another: one pool

    def _rows_per_call(self, n: int) -> int:
        return 1 << (n - 1).bit_length()

    def _prepare(self, name: str, inputs: Sequence[torch.Tensor]) -> PreparedStage:
        stage = getattr(self._stages, name)
        # Torch traces modules for all threads, so nothing may be compiled beside frames.
        if self._compile and self.wait:
            stage = self._compile_or_keep(stage, inputs)
        try:
            return CapturedStage(stage, inputs, self._pool)
        except Exception:
            self._pool = torch.cuda.graph_pool_handle()  # the old one may be left in a capture
            raise

    def _compile_or_keep(self, stage: torch.nn.Module,
                         inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
        """Compile a stage; where the user left the choice, capture it as it is if that fails."""
        try:
            return compile_stage(stage, inputs)
        except Exception as err:  # whatever a compiler raises
            if not self._fall_back:
                raise
            logger.warning('the networks run as CUDA graphs without `compile`: %s', err)
        self.name, self._compile = 'cuda_graph', False
        return stage


class CapturedStage:
    """
    A stage that is captured once and replayed on its own memory.

    Parameters
    ----------
    stage : callable
    inputs : sequence of tensor
        Become the static inputs; their row count is the largest of any call.
    pool
        Memory pool of the graphs.

    Raises
    ------
    torch.OutOfMemoryError
        If there is no memory for the graph.
    """

    def __init__(self, stage: Callable[..., Any], inputs: Sequence[torch.Tensor],
                 pool: Any) -> None:
        """Warm up and capture on a stream of its own, as captures require."""
        self._stage, self._inputs = stage, inputs
        self._outputs: Sequence[torch.Tensor] = ()
        self._graph: Any = torch.cuda.CUDAGraph()
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(WARM_UP_RUNS):
                self._run()
            stream.synchronize()
            self._capture(pool)
        torch.cuda.current_stream().wait_stream(stream)

    def __call__(self, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        """Copy the inputs into the static ones, replay, and copy the outputs."""
        for static, given in zip(self._inputs, inputs):
            static[:len(given)].copy_(given, non_blocking=True)
        self._graph.replay()
        return [static[:len(inputs[0])].clone() for static in self._outputs]

    def _capture(self, pool: Any) -> None:
        """Capture on the current stream; other threads may use the device meanwhile."""
        self._graph.capture_begin(pool=pool, capture_error_mode='thread_local')
        try:
            self._run()
        except Exception as err:
            with suppress(RuntimeError):  # ending a capture that failed fails, too
                self._graph.capture_end()
            if not isinstance(err, torch.OutOfMemoryError):
                raise
            raise torch.OutOfMemoryError(f'{err}; this was for a CUDA graph, without which '
                                         '`device` auto runs in this case') from err
        self._graph.capture_end()

    def _run(self) -> None:
        """Run on the static inputs."""
        outputs = self._stage(*self._inputs)
        self._outputs = outputs if isinstance(outputs, tuple) else (outputs,)


def compile_stage(stage: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """
    Compile a stage as one graph for inputs of these shapes.

    The option `loop_reindexing_after_fusion` is off because it makes upsample, convolution and
    GroupNorm six times slower (pytorch issue 189488).
    """
    settings: dict[str, Any] = {'fullgraph': True, 'dynamic': False}
    if 'loop_reindexing_after_fusion' in torch._inductor.list_options():
        settings['options'] = {'loop_reindexing_after_fusion': False}
    if 'recompile_limit' in inspect.signature(torch.compile).parameters:  # from torch 2.13 on
        settings['recompile_limit'] = MAX_PREPARED_STAGES
    compiled: Callable[..., Any] = torch.compile(stage, **settings)
    with torch.inference_mode():
        compiled(*inputs)
    return compiled
