"""The run folder: configuration, versions, scalars, image grids, trainer state, checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
import json
from pathlib import Path
import platform
import shutil
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
import torch
from torch.utils.tensorboard import SummaryWriter

from marigold_ros.depth.errors import ConfigError
from marigold_ros.training.config import TrainingConfig
from marigold_ros.training.config_files import config_differences, config_to_yaml, load_config

PACKAGES = ('torch', 'diffusers', 'transformers', 'accelerate', 'safetensors', 'numpy')
# Keys that a resumed run may change.
CHANGEABLE_KEYS = (
    'run_folder', 'schedule.max_iterations', 'schedule.checkpoint_every', 'validation',
    'hardware.device', 'hardware.precision', 'hardware.workers', 'hardware.compile',
    'hardware.gradient_checkpointing')

Config = TypeVar('Config', bound=TrainingConfig)


class RunFolder:
    """
    Files and folders of one training run.

    Parameters
    ----------
    config : FinetuneConfig or VaeConfig
        A run found in its `run_folder` is resumed.

    Attributes
    ----------
    path, state, checkpoint, frames : Path
        The run folder, and in it the trainer state to resume from, the checkpoint that can be
        loaded, and the frames converted from bags.

    Raises
    ------
    ConfigError
        If the folder holds a run with another configuration.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.path = Path(config.run_folder)
        self.state = self.path / 'state'
        self.checkpoint = self.path / 'checkpoint'
        self.frames = self.path / 'frames'
        for folder in (self.state, self.checkpoint):
            _restore_backup(folder)
        self._check_same_config(config)

    def start(self, config: TrainingConfig, iteration: int) -> None:
        """Write configuration and versions, and open TensorBoard's file; for one process only."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / 'config.yaml').write_text(config_to_yaml(config))
        facts = {name: version(name) for name in PACKAGES}
        facts |= {'python': platform.python_version(), 'machine': platform.machine(),
                  'seed': str(config.seed)}
        if torch.cuda.is_available():
            facts['gpu'] = torch.cuda.get_device_name()
        (self.path / 'versions.json').write_text(json.dumps(facts, indent=2) + '\n')
        # Discard what an interrupted run logged after its last checkpoint.
        self._board = SummaryWriter(str(self.path / 'tensorboard'), purge_step=iteration + 1)

    def log_scalars(self, scalars: dict[str, float], iteration: int) -> None:
        """Write scalars to TensorBoard and to `scalars.jsonl`."""
        for name, value in scalars.items():
            self._board.add_scalar(name, value, iteration)
        self._board.flush()
        with (self.path / 'scalars.jsonl').open('a') as file:
            file.write(json.dumps({'iteration': iteration, **scalars}) + '\n')

    def log_image_grid(self, name: str, rgb: NDArray[np.uint8], iteration: int) -> None:
        """Write an image grid [H, W, 3] to TensorBoard and to `grids/`."""
        self._board.add_image(name, rgb, iteration, dataformats='HWC')
        path = self.path / 'grids' / f'{name}_{iteration:06d}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Close TensorBoard's file."""
        self._board.close()

    def _check_same_config(self, config: TrainingConfig) -> None:
        """Raise ConfigError if the folder's run has another configuration."""
        if not self.state.exists():
            return
        stored = load_config(type(config), self.path / 'config.yaml')
        changed = config_differences(config, stored, CHANGEABLE_KEYS)
        if changed:
            raise ConfigError(f'`run_folder` {self.path} holds a run with another '
                              f'configuration ({"; ".join(changed)}); choose another folder or '
                              'remove it')


@contextmanager
def replace_atomically(folder: Path) -> Iterator[Path]:
    """
    Replace a folder by a new one once the new one is complete.

    Parameters
    ----------
    folder : Path
        Stays unchanged if the block raises or the machine stops.

    Yields
    ------
    Path
        An empty folder beside it.
    """
    partial = folder.with_name(folder.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if folder.exists():
        folder.rename(_backup_of(folder))
    partial.rename(folder)
    shutil.rmtree(_backup_of(folder), ignore_errors=True)


def _restore_backup(folder: Path) -> None:
    """Restore the old folder if the machine stopped between the two renames."""
    if _backup_of(folder).exists() and not folder.exists():
        _backup_of(folder).rename(folder)
    shutil.rmtree(_backup_of(folder), ignore_errors=True)


def _backup_of(folder: Path) -> Path:
    return folder.with_name(folder.name + '.old')
