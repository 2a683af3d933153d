"""The command line that both trainings have."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import logging
from pathlib import Path
import sys
from typing import TypeVar

from accelerate import PartialState
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from marigold_ros.depth.errors import MarigoldError
from marigold_ros.training.config import TrainingConfig
from marigold_ros.training.recipe import load_recipe

Recipe = TypeVar('Recipe', bound=TrainingConfig)


def run_command(kind: type[Recipe], train: Callable[[Recipe], Path], description: str | None,
                arguments: Sequence[str] | None = None) -> int:
    """
    Read a recipe and train by it.

    Parameters
    ----------
    kind : type
        Of the recipe.
    train : callable
        Returns the folder of the result.
    description : str
        For --help.
    arguments : sequence of str or None
        None takes those of the process.

    Returns
    -------
    int
        0, or 1 after an error, whose text goes to stderr.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', type=Path, required=True, help='recipe, see config/')
    parser.add_argument(
        'overrides', nargs='*', metavar='key=value',
        help='replace what the recipe says, for instance schedule.max_iterations=100')
    options = parser.parse_args(arguments)
    _quiet_libraries()
    try:
        folder = train(load_recipe(kind, options.config, options.overrides))
    except MarigoldError as err:
        print(f'{type(err).__name__}: {err}', file=sys.stderr)
        return 1
    if PartialState().is_main_process:
        print(folder)
    return 0


def _quiet_libraries() -> None:
    """Let only this package speak, and show the progress of the training alone."""
    logging.basicConfig(format='%(message)s')
    logging.getLogger('marigold_ros').setLevel(logging.INFO)
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
