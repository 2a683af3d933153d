"""Device and dtype selection, CPU threads, and timing of queued work."""

from __future__ import annotations

from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
import os
import sys
import threading
import time
from typing import Any

import cv2
import numpy as np
from threadpoolctl import ThreadpoolController
import torch

from marigold_ros.depth.errors import ConfigError

# Of CPUs that compute in bfloat16: two of x86, one of ARM.
BF16_CAPABILITIES = ('amx_bf16', 'avx512_bf16', 'bf16')


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
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = any(capabilities.get(each, False) for each in BF16_CAPABILITIES)
    return torch.bfloat16 if has_bf16 else torch.float32


def cpu_thread_count() -> int:
    """
    Return the number of CPU threads for the networks: OMP_NUM_THREADS, or the cores minus one.

    Threads wait for each other at the end of every operator.  With one thread per core, a single
    core in use by another process makes a frame 20 times slower with torch, and half as slow again
    with OpenVINO (`benchmarks.latency_cap`).
    """
    given = os.environ.get('OMP_NUM_THREADS', '').split(',')[0]
    return max(1, int(given) if given.isdecimal() else len(os.sched_getaffinity(0)) - 1)


def reserve_one_core() -> None:
    """
    Leave a core to the frames beside the networks; called in the thread that runs these.

    torch gets `cpu_thread_count` threads.  The matrices of a frame are small: OpenBLAS, of NumPy
    and SciPy, gets one thread, as several of them spin while they wait for each other, and make
    both the frames and the networks four times slower.
    """
    torch.set_num_threads(cpu_thread_count())
    ThreadpoolController().select(internal_api='openblas').limit(limits=1)


def lower_priority(niceness: int) -> None:
    """Let other threads go before the calling one, if the system has priorities of threads."""
    if sys.platform == 'linux':
        thread = threading.get_native_id()
        # A process that is nice already may not raise it again.
        niceness = max(niceness, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, niceness)


def start_opencv_threads() -> None:
    """
    Start OpenCV's threads, which serve all threads of the process.

    They keep the priority of the thread that needs them first.
    """
    cv2.cvtColor(np.zeros((1024, 1024), np.uint8), cv2.COLOR_GRAY2RGB)


def device_context(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which events, streams and graphs of CUDA belong to this device."""
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()


def copy_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device; to a GPU through pinned memory, without waiting for it."""
    if device.type != 'cuda':
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def copy_to_host(tensor: torch.Tensor) -> torch.Tensor:
    """
    Copy a tensor to the CPU; from a GPU into pinned memory.

    The values are valid once the device has been waited for (`Stopwatch.seconds`).
    """
    if tensor.device.type != 'cuda':
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


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

    def last_lap_s(self) -> float:
        """Wait for the device and return the duration of the last stage, s."""
        synchronized_time_s(self._device)
        return self._seconds_between(self._marks[-2][1], self._marks[-1][1])

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
