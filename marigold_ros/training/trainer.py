"""The training loop: batches, optimizer steps, EMA weights, checkpoints, logging, resuming."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
import logging
import math
from pathlib import Path
from typing import Any, Generic, TypeVar

from accelerate import Accelerator
from diffusers.training_utils import EMAModel
import numpy as np
import torch
from torch import nn

from marigold_ros.data.frames import FrameSet
from marigold_ros.depth.device import resolve_dtype
from marigold_ros.depth.errors import ConfigError, MarigoldError
from marigold_ros.progress import progress_bar
from marigold_ros.stop_flag import StopFlag
from marigold_ros.training.batches import load_resident_batches, make_view_loader, open_frame_sets
from marigold_ros.training.config import HardwareConfig, TrainingConfig
from marigold_ros.training.run_folder import replace_atomically, RunFolder
from marigold_ros.training.validation import ValidationResult
from marigold_ros.training.views import ViewBatch

LOG_EVERY = 20
PRECISIONS = {torch.float32: 'no', torch.bfloat16: 'bf16', torch.float16: 'fp16'}

Config = TypeVar('Config', bound=TrainingConfig)

logger = logging.getLogger(__name__)


class Progress:
    """The number of completed iterations, which accelerate saves as part of the trainer state."""

    def __init__(self) -> None:
        self.iteration = 0

    def state_dict(self) -> dict[str, int]:
        """Return the state to save."""
        return {'iteration': self.iteration}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore a saved state."""
        self.iteration = state['iteration']


class Trainer(ABC, Generic[Config]):
    """
    Train a model on one or several devices, or resume the run in its folder.

    Parameters
    ----------
    config : FinetuneConfig or VaeConfig
    model : nn.Module
        Model to train.

    Raises
    ------
    MarigoldError
        If the configuration does not suit the devices or the run folder, or data is invalid.
    """

    def __init__(self, config: Config, model: nn.Module) -> None:
        self.config, self.model = config, model
        schedule = config.schedule
        self._accelerator = _make_accelerator(config.hardware)
        self._accumulation_steps = _count_accumulation_steps(
            schedule.batch_size, schedule.device_batch_size, self._accelerator.num_processes)
        self._accelerator.gradient_accumulation_steps = self._accumulation_steps
        with self._accelerator.main_process_first():  # it converts bags to frames
            self._run = RunFolder(config)
            self._train = open_frame_sets(config.train, self._run.frames / 'train')
            self._validation = dict(zip(
                _validation_names(config), open_frame_sets(config.validation,
                                                           self._run.frames / 'validation')))
        self.prepare(self._accelerator.device, self._train)
        optimizer = torch.optim.AdamW(model.parameters(), schedule.learning_rate,
                                      weight_decay=schedule.weight_decay)
        self._wrapped_model, self._optimizer = self._accelerator.prepare(model, optimizer)
        self._ema = EMAModel(model.parameters(), schedule.ema_decay, foreach=True)
        self._progress = Progress()
        self._accelerator.register_for_checkpointing(self._ema, self._progress)
        if self._run.state.exists():
            self._accelerator.load_state(str(self._run.state))
            self._ema.to(self._accelerator.device)
        if self._accelerator.is_main_process:
            logger.info('%s', self._summary())
        self._forward_model = (torch.compile(self._wrapped_model, dynamic=False)
                               if config.hardware.compile else self._wrapped_model)

    @abstractmethod
    def prepare(self, device: torch.device, train: list[FrameSet]) -> None:
        """Move the frozen parts to a device, and prepare what depends on the data."""

    @abstractmethod
    def losses(self, model: Any, batch: ViewBatch,
               generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Return losses to be summed; `model` is `self.model`, possibly wrapped or compiled."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write a checkpoint with the present weights of `self.model`."""

    @abstractmethod
    def validate(self, folder: Path, frame_sets: dict[str, FrameSet],
                 device: torch.device) -> ValidationResult:
        """Measure a checkpoint that `save` wrote on held-out frames."""

    def run(self) -> Path:
        """
        Train to the end of the schedule or until interrupted; save checkpoints.

        Returns
        -------
        Path
            Folder of the checkpoint, which has the averaged (EMA) weights.

        Raises
        ------
        MarigoldError
            If a loss or gradient is not finite.  The last checkpoint is kept and named.
        """
        config, progress = self.config.schedule, self._progress
        main = self._accelerator.is_main_process
        if main:
            self._run.start(self.config, progress.iteration)
        batches = self._batches()
        if progress.iteration == 0:  # validation curves begin before the first iteration
            self._save(validate=True)
        with StopFlag(terminate_on_second_signal=True) as stop, progress_bar(
                total=config.max_iterations, initial=progress.iteration, unit='it',
                disable=not main) as bar:
            while progress.iteration < config.max_iterations:
                scalars = self._train_iteration(batches)
                bar.update()
                due = (progress.iteration % config.checkpoint_every == 0
                       or progress.iteration == config.max_iterations)
                if main and (due or progress.iteration % LOG_EVERY == 0):
                    bar.set_postfix({name: f'{value:.3g}' for name, value in scalars.items()})
                    self._run.log_scalars(scalars, progress.iteration)
                stopped = self._any_process_stops(stop.requested)
                if due or stopped:
                    self._save(validate=not stopped)
                if stopped:
                    break
        if main:
            self._run.close()
        self._accelerator.end_training()
        return self._run.checkpoint

    def _summary(self) -> str:
        """Format size of model and data, batch size and iterations for the log."""
        schedule, accelerator = self.config.schedule, self._accelerator
        parameters = sum(weight.numel() for weight in self._wrapped_model.parameters())
        return (f'{parameters / 1e6:.1f} M parameters, '
                f'{sum(map(len, self._train))} frames in {len(self._train)} sets; '
                f'batches of {schedule.batch_size} = {schedule.device_batch_size} x '
                f'{self._accumulation_steps} x {accelerator.num_processes} '
                f'{accelerator.device.type}; from iteration '
                f'{self._progress.iteration} to {schedule.max_iterations} in {self._run.path}')

    def _batches(self) -> Iterator[ViewBatch]:
        """Load the batches of this process, starting at the present iteration."""
        processes = self._accelerator.num_processes
        done = self._progress.iteration * self._accumulation_steps * processes
        first = done + self._accelerator.process_index
        if self.config.hardware.frames_on_device:
            return load_resident_batches(self._train, self.config, self._accelerator.device,
                                         first=first, stride=processes)
        return iter(make_view_loader(self._train, self.config, first=first, stride=processes))

    def _train_iteration(self, batches: Iterator[ViewBatch]) -> dict[str, float]:
        """Accumulate gradients and take one optimizer step; return mean losses."""
        iteration = self._progress.iteration
        rate = self.config.schedule.rate_at(iteration)
        for group in self._optimizer.param_groups:
            group['lr'] = rate
        sums: defaultdict[str, float] = defaultdict(float)
        for part in range(self._accumulation_steps):
            batch = next(batches).to(self._accelerator.device)
            # Numbered over all processes: their number changes only rounding.
            number = part * self._accelerator.num_processes + self._accelerator.process_index
            generator = make_seeded_generator(self.config.seed, iteration, number)
            with self._accelerator.accumulate(self._wrapped_model):
                with self._accelerator.autocast():
                    losses = self.losses(self._forward_model, batch, generator)
                values = torch.stack(list(losses.values()))
                self._accelerator.backward(values.sum())
                # Read after the backward pass: reading a value waits for the device.
                named = dict(zip(losses, values.tolist()))
                self._require_finite(named)
                for name, value in named.items():
                    sums[name] += value
                if self._accelerator.sync_gradients:
                    sums['gradient_norm'] = self._accumulation_steps * self._gradient_norm()
                self._optimizer.step()
                self._optimizer.zero_grad()
        self._ema.step(self._wrapped_model.parameters())
        self._progress.iteration += 1
        means = torch.tensor([value / self._accumulation_steps for value in sums.values()],
                             device=self._accelerator.device)
        means = self._accelerator.reduce(means, 'mean')
        return dict(zip(sums, means.tolist())) | {'rate': rate}

    def _gradient_norm(self) -> float:
        """Clip the gradient if configured; return its norm before clipping."""
        limit = self.config.schedule.max_gradient_norm
        norm = float(self._accelerator.clip_grad_norm_(
            self._wrapped_model.parameters(), math.inf if limit is None else limit))
        # In float16 the gradient scaler skips such a step and reduces its scale.
        if self._accelerator.mixed_precision != 'fp16':
            self._require_finite({'gradient_norm': norm})
        return norm

    def _require_finite(self, values: dict[str, float]) -> None:
        if not all(math.isfinite(value) for value in values.values()):
            kept = (f'the last good checkpoint is {self._run.checkpoint}'
                    if self._run.checkpoint.exists() else 'there is no checkpoint yet')
            raise MarigoldError(f'losses and gradients must stay finite; got {values} in '
                                f'iteration {self._progress.iteration}; {kept}')

    def _any_process_stops(self, stop: bool) -> bool:
        """Check whether any process is to stop; a signal reaches them in different iterations."""
        if self._accelerator.num_processes == 1:
            return stop
        if stop:
            self._accelerator.set_trigger()
        return bool(self._accelerator.check_trigger())

    def _save(self, *, validate: bool) -> None:
        """Write the trainer state and a checkpoint of the EMA weights; validate the checkpoint."""
        if self._accelerator.is_main_process:
            with replace_atomically(self._run.state) as folder:
                self._accelerator.save_state(str(folder))
            with self._ema_weights(), replace_atomically(self._run.checkpoint) as folder:
                self.save(folder)
            if validate:
                self._log_validation(self.validate(self._run.checkpoint, self._validation,
                                                   self._accelerator.device))
        self._accelerator.wait_for_everyone()

    @contextmanager
    def _ema_weights(self) -> Iterator[None]:
        """Replace the weights by their moving average within the context."""
        if self.config.schedule.ema_decay == 0:
            yield
            return
        parameters = list(self._wrapped_model.parameters())
        self._ema.store(parameters)
        self._ema.copy_to(parameters)
        try:
            yield
        finally:
            self._ema.restore(parameters)

    def _log_validation(self, validation: ValidationResult) -> None:
        iteration = self._progress.iteration
        self._run.log_scalars({f'validation/{name}': value
                               for name, value in validation.scalars.items()}, iteration)
        for name, grid in validation.grids.items():
            self._run.log_image_grid(name, grid, iteration)


def make_seeded_generator(*numbers: int) -> torch.Generator:
    """
    Return a generator seeded by several numbers: seed, iteration and batch.

    Parameters
    ----------
    *numbers : int
        Not negative.

    Returns
    -------
    torch.Generator
        On the CPU, so that a seed gives the same numbers on every device.
    """
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _make_accelerator(hardware: HardwareConfig) -> Accelerator:
    """Create the Accelerator, which selects the devices."""
    on_gpu = torch.cuda.is_available() and hardware.device != 'cpu'
    dtype = resolve_dtype(hardware.precision, torch.device('cuda' if on_gpu else 'cpu'))
    try:
        return Accelerator(mixed_precision=PRECISIONS[dtype], cpu=not on_gpu)
    except ValueError as err:
        raise ConfigError(f'`precision` must suit the device; got {hardware.precision!r}: '
                          f'{err}') from err


def _count_accumulation_steps(batch_size: int, device_batch_size: int, processes: int) -> int:
    """Return the number of batches that a device accumulates for one optimizer step."""
    parts, rest = divmod(batch_size, device_batch_size * processes)
    if rest or parts == 0:
        raise ConfigError(f'`batch_size` must be a multiple of `device_batch_size` times the '
                          f'number of devices; got {batch_size}, {device_batch_size} and '
                          f'{processes}')
    return parts


def _validation_names(config: TrainingConfig) -> list[str]:
    """Return a name for each held-out set: its folder, numbered if not unique."""
    stems = [Path(frames.path).name for frames in config.validation]
    return [stem if stems.count(stem) == 1 else f'{stem}_{number}'
            for number, stem in enumerate(stems)]
