"""How a stage is run: eagerly, as a CUDA graph, compiled by Inductor or by OpenVINO."""

from __future__ import annotations

import logging

from marigold_ros.depth.device import resolve_device, resolve_dtype
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.executors.base import Executor
from marigold_ros.depth.executors.cuda_graph import CudaGraphExecutor
from marigold_ros.depth.executors.inductor import InductorExecutor
from marigold_ros.depth.executors.openvino import OpenVinoExecutor
from marigold_ros.depth.executors.torch import TorchExecutor

logger = logging.getLogger(__name__)


def executor_for(device: str, dtype: str = 'auto', *,
                 compile: bool = False) -> Executor:  # noqa: A002, torch's own word for it
    """
    Return the executor for a device.

    Parameters
    ----------
    device, dtype, compile
        See `EngineConfig`.

    Raises
    ------
    ConfigError
        If the device does not exist, or what it needs is missing.
    """
    if device.startswith('openvino:'):
        if compile:
            raise ConfigError("`compile` is for torch's devices; OpenVINO always compiles, got "
                              f'`device` {device!r}')
        return OpenVinoExecutor(device.removeprefix('openvino:'), dtype, fall_back=False)
    found = resolve_device(device)
    any_device = device == 'auto'
    if any_device and found.type == 'cpu' and not compile:
        try:
            return OpenVinoExecutor('CPU', dtype, fall_back=True)
        except ConfigError as err:
            logger.info('the networks run with torch: %s', err)
    resolved = resolve_dtype(dtype, found)
    if found.type == 'cuda':
        return CudaGraphExecutor(found, resolved, compile=compile, fall_back=any_device)
    return InductorExecutor(found, resolved) if compile else TorchExecutor(found, resolved)
