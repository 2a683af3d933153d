"""Run stages with OpenVINO on Intel's devices and on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import inspect
import io
import sys
from typing import Any
import warnings

import torch
from torch.jit._trace import TracerWarning

from marigold_ros.depth import folding, stages
from marigold_ros.depth.device import cpu_thread_count
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.executors.base import PreparedStage, PreparingExecutor
from marigold_ros.depth.executors.blob_cache import BlobCache

PRECISIONS = {torch.float32: 'f32', torch.bfloat16: 'bf16', torch.float16: 'f16'}
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

    Raises
    ------
    ConfigError
        If OpenVINO or its device is missing, or the device has not the dtype.
    """

    def __init__(self, openvino_device: str, dtype: str) -> None:
        """Find the device."""
        self.name = f'openvino:{openvino_device}'
        self._ov = _import_openvino(self.name)
        self._core = self._ov.Core()
        self._device = openvino_device
        super().__init__(torch.device('cpu'), self._resolve_dtype(dtype))
        self._cache = BlobCache()

    @property
    def weights_dtype(self) -> torch.dtype:
        """Return float32, from which OpenVINO converts."""
        return torch.float32

    def _resolve_dtype(self, dtype: str) -> torch.dtype:
        try:
            capabilities = self._core.get_property(self._device, 'OPTIMIZATION_CAPABILITIES')
        except RuntimeError as err:
            raise ConfigError(
                f'`device` {self.name!r} does not exist: OpenVINO has '
                f'{", ".join(self._core.available_devices) or "no device"}; {err}') from err
        native = [each for each, name in CAPABILITIES.items() if name in capabilities]
        if dtype == 'auto':
            preferred = torch.bfloat16 if self._device.startswith('CPU') else torch.float16
            return preferred if preferred in native else torch.float32
        chosen: torch.dtype = getattr(torch, dtype)
        if chosen not in native:
            raise ConfigError(
                f'`dtype` must be one that {self.name} has in hardware, '
                f'{", ".join(str(each).removeprefix("torch.") for each in native)}; '
                f'got {dtype!r}. torch emulates others: set `device` to cpu')
        return chosen

    def _rows_per_call(self, n: int) -> int:
        return 1

    def _prepare(self, name: str, inputs: Sequence[torch.Tensor]) -> PreparedStage:
        stage = getattr(self._stages, name)
        settings = {'INFERENCE_PRECISION_HINT': PRECISIONS[self.dtype],
                    'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': 1}
        if self._device.startswith('CPU'):
            # A thread that is bound to a core waits for whatever else runs there.
            settings |= {'INFERENCE_NUM_THREADS': cpu_thread_count(), 'ENABLE_CPU_PINNING': False}
        key = self._fingerprint(name, stage, inputs, settings)
        compiled = self._import(key, settings)
        if compiled is None:
            compiled = self._core.compile_model(self._convert(stage, inputs), self._device,
                                                settings)
            blob = io.BytesIO()
            compiled.export_model(blob)
            self._cache.write(key, blob.getvalue())
        request, count = compiled.create_infer_request(), len(compiled.outputs)

        def run(*given: torch.Tensor) -> Sequence[torch.Tensor]:
            # OpenVINO reads the tensors' memory, and overwrites its own in the next run.
            outputs = request.infer([each.contiguous().numpy() for each in given],
                                    share_inputs=True, share_outputs=True)
            return [torch.from_numpy(outputs[i]).clone() for i in range(count)]
        return run

    def _convert(self, stage: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> Any:
        """Trace a stage into a model of fixed shape."""
        with torch.inference_mode(), warnings.catch_warnings():
            # Sizes become constants, as they should.
            warnings.simplefilter('ignore', TracerWarning)
            model = self._ov.convert_model(stage, example_input=tuple(inputs))
        model.reshape({port: list(each.shape) for port, each in zip(model.inputs, inputs)})
        return model

    def _import(self, key: str, settings: dict[str, Any]) -> Any:
        """Load what an earlier process compiled; None if there is nothing."""
        blob = self._cache.read(key)
        if blob is None:
            return None
        try:
            return self._core.import_model(io.BytesIO(blob), self._device, settings)
        except RuntimeError as err:
            self._cache.reject(key, err)
            return None

    def _fingerprint(self, name: str, stage: torch.nn.Module, inputs: Sequence[torch.Tensor],
                     settings: dict[str, Any]) -> str:
        """Hash everything on which a compiled stage depends."""
        facts = (name, [list(each.shape) for each in inputs], settings, repr(stage),
                 self._ov.__version__, torch.__version__,
                 self._core.get_property(self._device, 'FULL_DEVICE_NAME'),
                 inspect.getsource(folding), inspect.getsource(stages))
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
        for tensor in stage.state_dict().values():
            digest.update(tensor.contiguous(memory_format=torch.contiguous_format)
                          .flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


def _import_openvino(device: str) -> Any:
    """Import OpenVINO without its telemetry: a robot reports to nobody."""
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    try:
        import openvino  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as err:
        raise ConfigError(f'`device` {device!r} needs OpenVINO: pip install openvino ({err})'
                          ) from err
    return openvino
