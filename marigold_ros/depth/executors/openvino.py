"""Run stages with OpenVINO on Intel's devices and on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
import inspect
import io
import logging
from pathlib import Path
import struct
import sys
from tempfile import TemporaryDirectory
from typing import Any
import warnings

import numpy as np
import torch
from torch.jit._trace import TracerWarning

from marigold_ros.depth import convolution_folding, folding, stages
from marigold_ros.depth.device import cpu_thread_count
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.executors.base import PreparedStage, PreparingExecutor
from marigold_ros.depth.executors.blob_cache import BlobCache
from marigold_ros.depth.executors.fingerprints import hash_facts, hash_stage

logger = logging.getLogger(__name__)

PRECISIONS = {torch.float32: 'f32', torch.bfloat16: 'bf16', torch.float16: 'f16'}
# Where the weights begin in a model's bytes.
PREFIX = struct.Struct('<Q')
CAPABILITIES = {torch.float32: 'FP32', torch.bfloat16: 'BF16', torch.float16: 'FP16'}


class OpenVinoExecutor(PreparingExecutor):
    """
    Run stages compiled by OpenVINO.

    Rows run one after another: on a CPU a batch is not faster than its rows, and every row count
    would be compiled.  What an earlier process compiled is read from the user's cache.

    Parameters
    ----------
    openvino_device : str
        OpenVINO's name, such as CPU, GPU or NPU.
    dtype : str
        See `EngineConfig`; 'auto' is bfloat16, on a GPU or NPU float16, if the device has it in
        hardware.
    fall_back
        See `PreparingExecutor`.

    Raises
    ------
    ConfigError
        If OpenVINO or its device is missing, or the device has not the dtype.
    """

    def __init__(self, openvino_device: str, dtype: str, *, fall_back: bool) -> None:
        """Find the device."""
        self.name = f'openvino:{openvino_device}'
        try:
            self._core = _make_core()
        except (ImportError, OSError, RuntimeError) as err:
            raise ConfigError(f'`device` {self.name!r} needs OpenVINO: pip install openvino '
                              f'({err})') from err
        self._openvino_device = openvino_device
        self._native = self._native_dtypes()
        super().__init__(torch.device('cpu'), self._resolve_dtype(dtype), fall_back=fall_back)
        self._cache = BlobCache()

    @property
    def weights_dtype(self) -> torch.dtype:
        """Return float32, from which OpenVINO converts."""
        return torch.float32

    def _native_dtypes(self) -> list[torch.dtype]:
        """Return the dtypes that the device has in hardware."""
        try:
            capabilities = self._core.get_property(self._openvino_device,
                                                   'OPTIMIZATION_CAPABILITIES')
        except RuntimeError as err:
            raise ConfigError(
                f'`device` {self.name!r} does not exist: OpenVINO has '
                f'{", ".join(self._core.available_devices) or "no device"}; {err}') from err
        return [each for each, name in CAPABILITIES.items() if name in capabilities]

    def _resolve_dtype(self, dtype: str) -> torch.dtype:
        if dtype == 'auto':
            preferred = (torch.bfloat16 if self._openvino_device.startswith('CPU')
                         else torch.float16)
            return preferred if preferred in self._native else torch.float32
        chosen: torch.dtype = getattr(torch, dtype)
        if chosen not in self._native:
            raise ConfigError(
                f'`dtype` must be one that {self.name} has in hardware, '
                f'{", ".join(str(each).removeprefix("torch.") for each in self._native)}; '
                f'got {dtype!r}. torch emulates others: set `device` to cpu')
        return chosen

    def _rows_per_call(self, n: int) -> int:
        return 1

    def _prepare(self, name: str, inputs: Sequence[torch.Tensor]) -> PreparedStage:
        stage = getattr(self._stages, name)
        if not isinstance(stage, stages.DecodeStage):
            compute = self._prepare_part(stage, inputs, self.dtype)
            return lambda *given: [each.clone() for each in compute(*given)]
        compute_features = self._prepare_part(stage.features, inputs, self.dtype)
        compute_depth = self._prepare_part(  # an NPU has no float32
            stage.head, compute_features(*inputs),
            torch.float32 if torch.float32 in self._native else self.dtype)
        return lambda *given: [each.clone() for each in compute_depth(*compute_features(*given))]

    def _prepare_part(self, stage: torch.nn.Module, inputs: Sequence[torch.Tensor],
                      dtype: torch.dtype) -> PreparedStage:
        """
        Compile a module that computes in one dtype, or load it from the cache.

        Its outputs lie in OpenVINO's memory, which the next run overwrites.
        """
        settings = {'INFERENCE_PRECISION_HINT': PRECISIONS[dtype],
                    'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': 1}
        if self._openvino_device.startswith('CPU'):
            # A thread that is bound to a core waits for whatever else runs there.
            settings |= {'INFERENCE_NUM_THREADS': cpu_thread_count(), 'ENABLE_CPU_PINNING': False}
        shapes = [list(each.shape) for each in inputs]
        device_name = self._core.get_property(self._openvino_device, 'FULL_DEVICE_NAME')
        key = hash_facts(self._hash_model(stage), shapes, settings, device_name)
        compiled = self._import(key, settings)
        if compiled is None:
            model = self._find_model(stage, inputs)
            model.reshape(dict(zip(model.inputs, shapes)))
            compiled = self._core.compile_model(model, self._openvino_device, settings)
            if self.wait:  # else it would keep Python's lock while frames need it
                self._export(key, compiled)
        request, count = compiled.create_infer_request(), len(compiled.outputs)

        def run(*given: torch.Tensor) -> Sequence[torch.Tensor]:
            outputs = request.infer([each.contiguous().numpy() for each in given],
                                    share_inputs=True, share_outputs=True)
            return [torch.from_numpy(outputs[i]) for i in range(count)]
        return run

    def _find_model(self, stage: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> Any:
        """
        Return a stage as OpenVINO's model of any size, read from the cache or converted.

        Converting keeps Python's lock, and thereby all frames, for .3 s; it is therefore done
        for the first size only, before frames arrive.
        """
        key = self._hash_model(stage)
        found = self._cache.read(key)
        if found is not None:
            try:
                return _deserialize(self._core, found)
            except RuntimeError as err:
                self._cache.reject(key, err)
        model = _convert(stage, [_make_odd(each) for each in inputs])
        try:
            self._cache.write(key, _serialize(model))
        except (OSError, RuntimeError) as err:
            logger.warning('%s cannot keep a converted stage, so another image size converts it '
                           'again and delays a frame: %s', self.name, err)
        return model

    @staticmethod
    def _hash_model(stage: torch.nn.Module) -> str:
        """Hash everything on which a converted stage depends."""
        return hash_facts(hash_stage(stage), version('openvino'), *map(inspect.getsource, (
            folding, convolution_folding, stages, sys.modules[__name__])))

    def _import(self, key: str, settings: dict[str, Any]) -> Any:
        """Load what an earlier process compiled; None if there is nothing."""
        blob = self._cache.read(key)
        if blob is None:
            return None
        try:
            return self._core.import_model(_as_tensor(blob), self._openvino_device, settings)
        except RuntimeError as err:
            self._cache.reject(key, err)
            return None

    def _export(self, key: str, compiled: Any) -> None:
        """Keep what was compiled for the next start, if the device can."""
        blob = io.BytesIO()
        try:
            compiled.export_model(blob)
        except RuntimeError as err:
            logger.warning('%s cannot keep what it compiled, so every start compiles it: %s',
                           self.name, err)
            return
        self._cache.write(key, blob.getbuffer())


def _convert(stage: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> Any:
    """
    Trace a stage into a model.

    `openvino.convert_model` does the same, but takes three times as long, for transformations
    that `compile_model` makes again, and reports to Intel that it was called.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # OpenVINO needs TorchScript
        warnings.simplefilter('ignore', TracerWarning)
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            stage, tuple(inputs), check_trace=False)
        decoder = TorchScriptPythonDecoder(traced, example_input=tuple(inputs))
    frontend = FrontEndManager().load_by_framework('pytorch')
    return frontend.convert(frontend.load(decoder))


def _make_odd(example: torch.Tensor) -> torch.Tensor:
    """
    Cut images and latents to an odd height and width.

    At such sizes, and only there, diffusers' U-Net upsamples to the size of the other input
    instead of by two; what is traced thereby holds at every size.
    """
    if example.ndim != 4:
        return example
    height, width = (size - 1 + size % 2 for size in example.shape[2:])
    return example[:, :, :height, :width].contiguous()


def _serialize(model: Any) -> bytes:
    """Return the length of the description with its prefix, the description and the weights."""
    import openvino

    with TemporaryDirectory() as folder:
        paths = Path(folder) / 'model.xml', Path(folder) / 'model.bin'
        openvino.serialize(model, *paths)
        description, weights = (path.read_bytes() for path in paths)
    return PREFIX.pack(PREFIX.size + len(description)) + description + weights


def _deserialize(core: Any, serialized: memoryview) -> Any:
    """Read what `_serialize` returned; RuntimeError if it is damaged."""
    split = PREFIX.unpack_from(serialized)[0]
    return core.read_model(bytes(serialized[PREFIX.size:split]), _as_tensor(serialized[split:]))


def _as_tensor(blob: memoryview) -> Any:
    """Copy bytes to OpenVINO; unlike its own copy, NumPy's lets other threads run meanwhile."""
    import openvino

    tensor = openvino.Tensor(openvino.Type.u8, [len(blob)])
    np.copyto(tensor.data, np.frombuffer(blob, np.uint8))
    return tensor


@lru_cache(maxsize=1)
def _make_core() -> Any:
    """
    Return the only Core of the process, which is never deleted.

    Each Core sets the signal stack of a thread, and at its end the one that was set before.  Of
    two that end in the order of their creation, the second sets that of the first, which is
    freed: the next Ctrl-C would end the process with a segmentation fault.
    """
    import openvino

    return openvino.Core()
