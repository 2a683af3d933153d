"""Compile stages with torch's Inductor, for each shape."""

from __future__ import annotations

from collections.abc import Sequence
import copyreg
import inspect
import os
from pathlib import Path
import shutil
import subprocess
import sys
from tempfile import TemporaryDirectory, TemporaryFile

import torch

from marigold_ros.depth import convolution_folding, folding, stages
from marigold_ros.depth.device import cpu_thread_count
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.executors.base import PreparedStage, PreparingExecutor
from marigold_ros.depth.executors.blob_cache import BlobCache
from marigold_ros.depth.executors.fingerprints import hash_facts, hash_stage

COMPILE = """
import sys
from marigold_ros.depth.executors.inductor import compile_to_library
compile_to_library(*sys.argv[1:])
"""


def _find_memory_format(name: str) -> torch.memory_format:
    found: torch.memory_format = getattr(torch, name)
    return found


# A stage holds some, and torch.save cannot write them.
copyreg.pickle(torch.memory_format, lambda each: (
    _find_memory_format, (str(each).removeprefix('torch.'),)))


class InductorExecutor(PreparingExecutor):
    """
    Run compiled stages on the CPU; on a GPU, `cuda_graph` captures them.

    A process of its own compiles a stage to a library, which is kept in the user's cache: torch
    traces modules by replacing `torch.nn.Module.__call__`, for the stages of other threads, too.
    Its binding of such libraries keeps Python's lock while a stage runs.
    """

    name = 'inductor'

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """Check that there is a compiler."""
        super().__init__(device, dtype, fall_back=False)  # the user asked for it
        compiler = os.environ.get('CXX', 'g++')
        if shutil.which(compiler) is None:
            raise ConfigError(f'`compile` needs a C++ compiler on the CPU; {compiler!r} not found')
        self._cache = BlobCache()
        self._compiler: subprocess.Popen[str] | None = None

    def close(self) -> None:
        """End the compiler."""
        if self._compiler is not None:
            self._compiler.kill()
        super().close()

    def _prepare(self, name: str, inputs: Sequence[torch.Tensor]) -> PreparedStage:
        stage = getattr(self._stages, name)
        key = hash_facts(hash_stage(stage), [(each.shape, each.dtype) for each in inputs],
                         cpu_thread_count(), sorted(torch.cpu.get_capabilities().items()),
                         *map(inspect.getsource, (folding, convolution_folding, stages,
                                                  sys.modules[__name__])))
        with TemporaryDirectory() as folder:
            library = Path(folder) / 'stage.pt2'
            found = self._cache.read(key)
            if found is None:
                self._compile(stage, inputs, library)
                self._cache.write(key, library.read_bytes())
            else:
                library.write_bytes(found)
            compiled = torch._inductor.aoti_load_package(str(library))

        def run(*given: torch.Tensor) -> Sequence[torch.Tensor]:
            with torch.inference_mode():
                outputs = compiled(*(each.contiguous() for each in given))
            return outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return run

    def _compile(self, stage: torch.nn.Module, inputs: Sequence[torch.Tensor],
                 library: Path) -> None:
        """Compile a stage in another process."""
        given = library.with_name('inputs.pt')
        torch.save((stage, tuple(inputs)), given)
        self._compiler = subprocess.Popen(
            [sys.executable, '-c', COMPILE, str(given), str(library)], text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
                 'OMP_NUM_THREADS': str(cpu_thread_count())})  # a constant of the library
        _, errors = self._compiler.communicate()
        if self._compiler.returncode != 0:
            raise RuntimeError(f'the compiler ended with {self._compiler.returncode}: '
                               f'{errors.strip()[-1000:]}')


def compile_to_library(given: str, library: str) -> None:
    """
    Compile a stage as one graph for inputs of fixed shapes, without Python in between.

    Weights are frozen, so that they are packed once.  `loop_reindexing_after_fusion` is off,
    because it makes upsample, convolution and GroupNorm six times slower (pytorch issue 189488).

    Parameters
    ----------
    given : str
        Path of the stage and its inputs, from `torch.save`.
    library : str
        Path of the package that is written, for `aoti_load_package`.
    """
    options = {'freezing': True, 'loop_reindexing_after_fusion': False}
    known = torch._inductor.list_options()
    stage, inputs = torch.load(given, weights_only=False)
    with torch.no_grad():
        torch._inductor.aoti_compile_and_package(
            torch.export.export(stage, inputs), package_path=library, inductor_configs={
                name: value for name, value in options.items() if name in known})


def check_cache_folder() -> None:
    """
    Check where Inductor keeps what it compiled.

    Raises
    ------
    ConfigError
        If the user's folder cannot be written.
    """
    folder = os.environ.get('TORCHINDUCTOR_CACHE_DIR')
    try:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
    except OSError as err:
        raise ConfigError(f'`compile` needs a folder that it can write; TORCHINDUCTOR_CACHE_DIR '
                          f'is {folder!r}: {err}') from err
