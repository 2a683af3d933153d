"""The folder that a training leaves behind: recipe, versions, scalars, grids, state, result."""

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
from marigold_ros.training.recipe import differences, load_recipe, recipe_as_yaml

PACKAGES = ('torch', 'diffusers', 'transformers', 'accelerate', 'safetensors', 'numpy')
# What a run that goes on may do otherwise than before.
FREE_KEYS = ('run_folder', 'schedule.max_iterations', 'schedule.checkpoint_every', 'validation',
             'hardware.device', 'hardware.precision', 'hardware.workers', 'hardware.compile',
             'hardware.gradient_checkpointing')

Recipe = TypeVar('Recipe', bound=TrainingConfig)


class RunFolder:
    """
    Lays out one training's folder.

    Parameters
    ----------
    config : FinetuneConfig or VaeConfig
        The recipe; a run found in its `run_folder` is continued.

    Attributes
    ----------
    path, state, checkpoint, frames : Path
        The folder, and those in it that a training goes on from, that can be loaded, and that
        hold the frames of bags.

    Raises
    ------
    ConfigError
        If the folder holds a run with another recipe.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.path = Path(config.run_folder)
        self.state = self.path / 'state'
        self.checkpoint = self.path / 'checkpoint'
        self.frames = self.path / 'frames'
        for folder in (self.state, self.checkpoint):
            _finish_replacement(folder)
        self._check_recipe(config)

    def start(self, config: TrainingConfig, iteration: int) -> None:
        """Write recipe and versions, and open TensorBoard's file; only one process may."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / 'config.yaml').write_text(recipe_as_yaml(config))
        facts = {name: version(name) for name in PACKAGES}
        facts |= {'python': platform.python_version(), 'machine': platform.machine(),
                  'seed': str(config.seed)}
        if torch.cuda.is_available():
            facts['gpu'] = torch.cuda.get_device_name()
        (self.path / 'versions.json').write_text(json.dumps(facts, indent=2) + '\n')
        # What a run that did not get to its next checkpoint wrote from here on is dropped.
        self._board = SummaryWriter(str(self.path / 'tensorboard'), purge_step=iteration + 1)

    def record(self, scalars: dict[str, float], iteration: int) -> None:
        """Write scalars to TensorBoard and to `scalars.jsonl`."""
        for name, value in scalars.items():
            self._board.add_scalar(name, value, iteration)
        self._board.flush()
        with (self.path / 'scalars.jsonl').open('a') as file:
            file.write(json.dumps({'iteration': iteration, **scalars}) + '\n')

    def record_grid(self, name: str, rgb: NDArray[np.uint8], iteration: int) -> None:
        """Write a picture [H, W, 3] to TensorBoard and to `grids/`."""
        self._board.add_image(name, rgb, iteration, dataformats='HWC')
        path = self.path / 'grids' / f'{name}_{iteration:06d}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Close TensorBoard's file."""
        self._board.close()

    def _check_recipe(self, config: TrainingConfig) -> None:
        """Refuse to go on with another recipe than the folder's."""
        if not self.state.exists():
            return
        before = load_recipe(type(config), self.path / 'config.yaml')
        changed = differences(config, before, FREE_KEYS)
        if changed:
            raise ConfigError(f'`run_folder` {self.path} holds a run with another recipe '
                              f'({"; ".join(changed)}); choose another folder or remove it')


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """
    Fill a new folder that takes the place of `folder` once it is complete.

    Parameters
    ----------
    folder : Path
        Kept as it is if the block raises, or the machine stops.

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


def _finish_replacement(folder: Path) -> None:
    """Take back the old folder if the machine stopped between the two renames."""
    if _backup_of(folder).exists() and not folder.exists():
        _backup_of(folder).rename(folder)
    shutil.rmtree(_backup_of(folder), ignore_errors=True)


def _backup_of(folder: Path) -> Path:
    return folder.with_name(folder.name + '.old')
