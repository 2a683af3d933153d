"""Replay stages on a GPU as CUDA graphs: one launch instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from marigold_ros.depth.executors.base import PreparedStage, PreparingExecutor
from marigold_ros.depth.executors.inductor import compile_stage

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
        Whether the stages are compiled before they are captured.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *,
                 compile: bool) -> None:  # noqa: A002, torch's own word for it
        """Start without graphs."""
        super().__init__(device, dtype)
        self.name = 'cuda_graph, inductor' if compile else 'cuda_graph'
        self._compile = compile
        self._pool = torch.cuda.graph_pool_handle()  # graphs replay one after another: one pool

    def _rows_per_call(self, n: int) -> int:
        return 1 << (n - 1).bit_length()

    def _prepare(self, name: str, inputs: Sequence[torch.Tensor]) -> PreparedStage:
        stage = getattr(self._stages, name)
        if self._compile:
            stage = compile_stage(stage, inputs, self.device)
        return CapturedStage(stage, inputs, self._pool)


class CapturedStage:
    """
    A stage that is captured at its first call, in the thread that runs the networks.

    Parameters
    ----------
    stage : callable
    inputs : sequence of tensor
        Become the static inputs; their row count is the largest of any call.
    pool
        Memory pool of the graphs.
    """

    def __init__(self, stage: Callable[..., Any], inputs: Sequence[torch.Tensor],
                 pool: Any) -> None:
        """Capture nothing yet."""
        self._stage, self._inputs, self._pool = stage, inputs, pool
        self._graph: Any = None
        self._outputs: Sequence[torch.Tensor] = ()

    def __call__(self, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        """Copy the inputs into the static ones, replay, and copy the outputs."""
        if self._graph is None:
            self._capture()
        for static, given in zip(self._inputs, inputs):
            static[:len(given)].copy_(given, non_blocking=True)
        self._graph.replay()
        return [static[:len(inputs[0])].clone() for static in self._outputs]

    def _capture(self) -> None:
        """Warm up on a stream of its own, as captures require, and capture."""
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                self._stage(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode='thread_local'):
            outputs = self._stage(*self._inputs)
        self._outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        self._graph = graph
