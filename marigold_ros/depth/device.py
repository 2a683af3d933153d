"""Choice of device and number format, and time as the device sees it."""

from __future__ import annotations

import time

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
    Turn `EngineConfig.dtype` into a dtype; 'auto' is bfloat16 where it is native, else
    float16 on a GPU and float32 on the CPU.
    """
    if dtype != 'auto':
        named: torch.dtype = getattr(torch, dtype)
        return named
    if device.type == 'cuda':
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    has_bf16_units = torch.cpu.get_capabilities().get('amx_bf16', False)
    return torch.bfloat16 if has_bf16_units else torch.float32


def time_when_done(device: torch.device) -> float:
    """Steady time at which the device has done all work queued so far, s."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Lap times of the work that a device has finished."""

    def __init__(self, device: torch.device) -> None:
        """Start the first lap."""
        self._device = device
        self._last = time_when_done(device)

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time_when_done(self._device)
        lap_s, self._last = now - self._last, now
        return lap_s
