"""Replay stages on a GPU as CUDA graphs: one launch instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import logging
from typing import Any

import torch

from marigold_ros.depth.executors.base import PreparedStage, PreparingExecutor
from marigold_ros.depth.executors.inductor import compile_stage

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
        Whether the stages are compiled before they are captured.
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
        if self._compile:
            stage = compile_stage(stage, inputs, self.device)
        return CapturedStage(stage, inputs, self._pool, fall_back=self._fall_back)


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
    fall_back : bool
        Whether the stage runs without a graph when there is no memory for one.

    Raises
    ------
    torch.OutOfMemoryError
        At the first call, if there is no memory for the graph.
    """

    def __init__(self, stage: Callable[..., Any], inputs: Sequence[torch.Tensor], pool: Any, *,
                 fall_back: bool) -> None:
        """Capture nothing yet."""
        self._stage, self._inputs, self._pool = stage, inputs, pool
        self._fall_back = fall_back
        self._replay: Callable[[], None] | None = None
        self._outputs: Sequence[torch.Tensor] = ()

    def __call__(self, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        """Copy the inputs into the static ones, replay, and copy the outputs."""
        if self._replay is None:
            self._replay = self._capture_or_run_eagerly()
        for static, given in zip(self._inputs, inputs):
            static[:len(given)].copy_(given, non_blocking=True)
        self._replay()
        return [static[:len(inputs[0])].clone() for static in self._outputs]

    def _capture_or_run_eagerly(self) -> Callable[[], None]:
        try:
            return self._capture()
        except torch.OutOfMemoryError as err:
            if not self._fall_back:
                raise torch.OutOfMemoryError(f'{err}; this was for a CUDA graph, without which '
                                             '`device` auto runs in this case') from err
            logger.warning('there is no memory for a CUDA graph of %d rows, which therefore run '
                           'eagerly, at less speed: %s', len(self._inputs[0]), err)
        # Outside the except block, which keeps the tensors of the capture alive.
        torch.cuda.empty_cache()
        return self._run

    def _run(self) -> None:
        """Run on the static inputs."""
        outputs = self._stage(*self._inputs)
        self._outputs = outputs if isinstance(outputs, tuple) else (outputs,)

    def _capture(self) -> Callable[[], None]:
        """Warm up on a stream of its own, as captures require, and capture."""
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode='thread_local'):
                self._run()
        except RuntimeError as err:
            # To end a capture that ran out of memory fails too, and hides why.
            if isinstance(err.__context__, torch.OutOfMemoryError):
                raise err.__context__ from None
            raise
        replay: Callable[[], None] = graph.replay
        return replay
