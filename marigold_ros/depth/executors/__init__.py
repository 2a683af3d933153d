"""How a stage is run: eagerly, as a CUDA graph, compiled by Inductor or by OpenVINO."""

from __future__ import annotations

from importlib.util import find_spec
import logging

from marigold_ros.depth.device import resolve_device, resolve_dtype
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.executors.base import Executor
from marigold_ros.depth.executors.cuda_graph import CudaGraphExecutor
from marigold_ros.depth.executors.inductor import check_cache_folder, InductorExecutor
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
    is_auto = device == 'auto'
    if is_auto and found.type == 'cpu' and not compile:
        try:
            return OpenVinoExecutor('CPU', dtype, fall_back=True)
        except ConfigError as err:
            level = logging.WARNING if find_spec('openvino') else logging.INFO
            logger.log(level, 'the networks run with torch, more slowly: %s', err)
    resolved = resolve_dtype(dtype, found)
    if compile:
        check_cache_folder()
    if found.type == 'cuda':
        return CudaGraphExecutor(found, resolved, compile=compile, fall_back=is_auto)
    return InductorExecutor(found, resolved) if compile else TorchExecutor(found, resolved)
