"""What all executors have in common: a stage prepared once per shape, also in the background."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
import logging

import torch

from marigold_ros.depth.device import device_context, lower_priority
from marigold_ros.depth.errors import ConfigError
from marigold_ros.depth.stages import Stages

logger = logging.getLogger(__name__)

# A stage that accepts inputs of one shape.
PreparedStage = Callable[..., Sequence[torch.Tensor]]
# Prepared stages that an executor keeps: all cameras' sizes, stages and row counts.
MAX_PREPARED_STAGES = 64
# Stages that wait to be prepared in the background: those of two sizes.
MAX_UNFINISHED = 6
BACKGROUND_NICENESS = 15
# Ends the name of an executor that could not prepare some stage.
PARTLY_EAGER = ', in part eager'


class Executor(ABC):
    """
    Run the stages of a checkpoint on a device.

    Parameters
    ----------
    device : torch.device
        Where the inputs and outputs of the stages lie.
    dtype : torch.dtype
        In which the networks compute.

    Attributes
    ----------
    name : str
        Of the way in which stages are run, for users.
    wait : bool
        Whether a stage that is not prepared for a shape is prepared at once; else it runs eagerly
        while it is prepared in the background.
    """

    name: str

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """Start without stages; `load` sets them."""
        self.device, self.dtype, self.wait = device, dtype, True

    @property
    def weights_dtype(self) -> torch.dtype:
        """Return the dtype in which the networks must be loaded."""
        return self.dtype

    def load(self, stages: Stages) -> None:
        """Use these stages."""
        self._stages = stages

    def close(self) -> None:  # noqa: B027, most run nothing in the background
        """End what runs in the background."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Encode images, see `NetworkStage`."""
        return self._run('encode', images)[0]

    def step(self, image_latent: torch.Tensor, latent: torch.Tensor, coefficients: torch.Tensor,
             time_bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Denoise by one step, see `StepStage`."""
        latent, x0 = self._run('step', image_latent, latent, coefficients, time_bias)
        return latent, x0

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode depth latents, see `DecodeStage`."""
        return self._run('decode', latent)[0]

    @abstractmethod
    def _run(self, name: str, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        """Run a stage on n rows."""

    def _run_eagerly(self, name: str, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        outputs = getattr(self._stages, name)(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)


class PreparingExecutor(Executor):
    """
    Run stages that are prepared (compiled, captured) once for each shape.

    Parameters
    ----------
    device, dtype
        See `Executor`.
    fall_back : bool
        Whether a stage that cannot be prepared runs eagerly; else it is an error.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, fall_back: bool) -> None:
        """Start without prepared stages."""
        super().__init__(device, dtype)
        self._fall_back = fall_back
        self._prepared: OrderedDict[tuple[object, ...], Future[PreparedStage]] = OrderedDict()
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix='prepare_stage')

    def load(self, stages: Stages) -> None:
        """Use these stages."""
        super().load(stages)
        self._prepared.clear()

    def close(self) -> None:
        """Wait for the stage that is being prepared, and prepare no other."""
        self._preparer.shutdown(cancel_futures=True)

    @abstractmethod
    def _prepare(self, name: str, inputs: Sequence[torch.Tensor]) -> PreparedStage:
        """Prepare a stage for inputs of these shapes; called in a thread of its own."""

    def _rows_per_call(self, n: int) -> int:
        """Return for how many rows a stage is prepared that is to run on n."""
        return n

    def _run(self, name: str, *inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        rows = self._rows_per_call(len(inputs[0]))
        parts = [self._find_prepared(name, rows, part)(*part)
                 for part in zip(*(torch.split(each, rows) for each in inputs))]
        return parts[0] if len(parts) == 1 else [torch.cat(each) for each in zip(*parts)]

    def _find_prepared(self, name: str, rows: int,
                       inputs: Sequence[torch.Tensor]) -> PreparedStage:
        """Return a stage for `rows` rows or less, prepared or, without waiting, eager."""
        eager = partial(self._run_eagerly, name)
        key = name, rows, *(each.shape[1:] for each in inputs)
        future = self._prepared.get(key)
        if future is None:
            unfinished = sum(not each.done() for each in self._prepared.values())
            if not self.wait and unfinished >= MAX_UNFINISHED:
                return eager
            future = self._prepared[key] = self._preparer.submit(
                self._prepare_or_run_eagerly, name,
                [each.new_zeros((rows, *each.shape[1:])) for each in inputs])
            if len(self._prepared) > MAX_PREPARED_STAGES:
                self._prepared.popitem(last=False)[1].cancel()
        self._prepared.move_to_end(key)
        if not self.wait and not future.done():
            return eager
        try:
            return future.result()
        except Exception:
            del self._prepared[key]  # with the tensors that its traceback keeps alive
            raise

    def _prepare_or_run_eagerly(self, name: str,
                                inputs: Sequence[torch.Tensor]) -> PreparedStage:
        if not self.wait:
            lower_priority(BACKGROUND_NICENESS)
        try:
            with device_context(self.device):
                return self._prepare(name, inputs)
        except Exception as err:  # whatever a compiler raises
            shapes = ', '.join(str(list(each.shape)) for each in inputs)
            failure = f'{self.name} cannot prepare the stage {name} for inputs of {shapes}'
            if self.wait and not self._fall_back:
                if isinstance(err, torch.OutOfMemoryError):
                    raise  # the batch is split
                raise ConfigError(f'{failure}: {err}. `device` auto runs such a stage eagerly'
                                  ) from err
            logger.warning('%s, which therefore runs eagerly, at less speed: %s', failure, err)
        if PARTLY_EAGER not in self.name:
            self.name += PARTLY_EAGER
        return partial(self._run_eagerly, name)
