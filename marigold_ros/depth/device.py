"""Device and dtype selection, CPU threads, and timing of queued work."""

from __future__ import annotations

from collections import defaultdict
import os
import time
from typing import Any

import torch

from marigold_ros.depth.errors import ConfigError


def resolve_device(device: str) -> torch.device:
    """
    Return the device of `EngineConfig.device`; 'auto' is the first CUDA device, else the CPU.

    Raises
    ------
    ConfigError
        If the requested CUDA device does not exist.
    """
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    name, _, index = device.partition(':')
    count = torch.cuda.device_count()
    if name == 'cuda' and int(index or 0) >= count:
        raise ConfigError(f'`device` must be cpu, auto or one of the {count} CUDA devices '
                          f'available to torch; got {device!r}')
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """
    Return the dtype of `EngineConfig.dtype`.

    'auto' is bfloat16 if the device supports it natively, else float16 on a GPU and float32 on
    the CPU.
    """
    if dtype != 'auto':
        named: torch.dtype = getattr(torch, dtype)
        return named
    if device.type == 'cuda':
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    has_bf16_units = torch.cpu.get_capabilities().get('amx_bf16', False)
    return torch.bfloat16 if has_bf16_units else torch.float32


def reserve_one_core() -> None:
    """
    Set torch's CPU threads to the number of cores minus one, unless OMP_NUM_THREADS is set.

    Threads busy-wait for each other at the end of every operator.  With one thread per core, a
    single core in use by another process makes a frame 20 times slower (`benchmarks.latency_cap`).
    Call this function in the thread that runs the networks.
    """
    if 'OMP_NUM_THREADS' not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 1))


def synchronized_time_s(device: torch.device) -> float:
    """Wait for all work queued on the device and return `time.perf_counter`, s."""
    if device.type == 'cuda':
        _recorded_event(timing=False).synchronize()
    return time.perf_counter()


class Stopwatch:
    """
    Measure the stages of queued work without synchronizing between them.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        """Start the first stage."""
        self._device = device
        self._marks: list[tuple[str, Any]] = [('', self._timestamp())]

    def lap(self, stage: str) -> None:
        """End a stage; durations of a stage that ends repeatedly are summed."""
        self._marks.append((stage, self._timestamp()))

    def seconds(self) -> defaultdict[str, float]:
        """Wait for the device and return the duration of every stage, s; 0 by default."""
        synchronized_time_s(self._device)
        total: defaultdict[str, float] = defaultdict(float)
        for (_, start), (stage, end) in zip(self._marks, self._marks[1:]):
            total[stage] += self._seconds_between(start, end)
        return total

    def _timestamp(self) -> Any:
        """Record a CUDA event, or the current time on the CPU."""
        if self._device.type != 'cuda':
            return time.perf_counter()
        return _recorded_event(timing=True)

    def _seconds_between(self, start: Any, end: Any) -> float:
        if self._device.type != 'cuda':
            return float(end - start)
        return float(start.elapsed_time(end)) / 1e3  # CUDA events count milliseconds


def _recorded_event(*, timing: bool) -> Any:
    """Record an event on the current stream."""
    event = torch.cuda.Event(enable_timing=timing)  # type: ignore[no-untyped-call]
    event.record()
    return event
