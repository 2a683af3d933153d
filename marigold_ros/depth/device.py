"""Choice of device and number format, and time as the device sees it."""

from __future__ import annotations

from collections import defaultdict
import os
import time
from typing import Any

import torch

from marigold_ros.depth.errors import ConfigError


def resolve_device(device: str) -> torch.device:
    """
    Turn `EngineConfig.device` into a device; 'auto' is the first CUDA device, else the CPU.

    Raises
    ------
    ConfigError
        If a CUDA device is asked for and there is none.
    """
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    name, _, index = device.partition(':')
    count = torch.cuda.device_count()
    if name == 'cuda' and int(index or 0) >= count:
        raise ConfigError(f'`device` must be cpu, auto or one of the {count} CUDA devices that '
                          f'torch sees; got {device!r}')
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """
    Turn `EngineConfig.dtype` into a dtype.

    'auto' is bfloat16 where it is native, else float16 on a GPU and float32 on the CPU.
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
    Let torch use all cores but one on the CPU, unless OMP_NUM_THREADS says otherwise.

    Threads wait for each other at the end of every operator, spinning.  With as many as cores,
    one core that another process takes makes a frame 20 times slower (`benchmarks.latency_cap`).
    To be called in the thread that will run the networks.
    """
    if 'OMP_NUM_THREADS' not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 1))


def synchronized_time_s(device: torch.device) -> float:
    """Time on `time.perf_counter` at which the device has done all work queued so far, s."""
    if device.type == 'cuda':
        _recorded_event(timing=False).synchronize()
    return time.perf_counter()


class Stopwatch:
    """
    Time of the stages of queued work, without waiting for the device in between.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        """Start the first stage."""
        self._device = device
        self._marks: list[tuple[str, Any]] = [('', self._mark())]

    def lap(self, stage: str) -> None:
        """End a stage; one that ends more than once is summed up."""
        self._marks.append((stage, self._mark()))

    def seconds(self) -> defaultdict[str, float]:
        """Wait for the device and return the seconds of every stage, 0 for unknown ones."""
        synchronized_time_s(self._device)
        total: defaultdict[str, float] = defaultdict(float)
        for (_, start), (stage, end) in zip(self._marks, self._marks[1:]):
            total[stage] += self._seconds_between(start, end)
        return total

    def _mark(self) -> Any:
        """Mark the device's present as an event, or the CPU's as a time."""
        if self._device.type != 'cuda':
            return time.perf_counter()
        return _recorded_event(timing=True)

    def _seconds_between(self, start: Any, end: Any) -> float:
        if self._device.type != 'cuda':
            return float(end - start)
        return float(start.elapsed_time(end)) / 1e3  # CUDA events count milliseconds


def _recorded_event(*, timing: bool) -> Any:
    """Queue an event behind the work of the current stream."""
    event = torch.cuda.Event(enable_timing=timing)  # type: ignore[no-untyped-call]
    event.record()
    return event
