"""The command line of `finetune` and `train_vae`."""

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

from marigold_ros.depth.checkpoint import quiet
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.training.config import TrainingConfig
from marigold_ros.training.config_files import load_config

Config = TypeVar('Config', bound=TrainingConfig)


def run_command(kind: type[Config], train: Callable[[Config], Path], description: str | None,
                arguments: Sequence[str] | None = None) -> int:
    """
    Read a training configuration and run the training.

    Parameters
    ----------
    kind : type
        Configuration class.
    train : callable
        Runs the training; returns the folder of the result.
    description : str
        For --help.
    arguments : sequence of str or None
        None reads `sys.argv`.

    Returns
    -------
    int
        Exit code: 0, or 1 after an error, which is printed to stderr.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', type=Path, required=True, help='YAML file, see config/')
    parser.add_argument(
        'overrides', nargs='*', metavar='key=value',
        help='replace a value of the file, for instance schedule.max_iterations=100')
    options = parser.parse_args(arguments)
    logging.basicConfig(format='%(message)s')
    logging.getLogger('marigold_ros').setLevel(logging.INFO)
    try:
        config = load_config(kind, options.config, options.overrides)
        with quiet(diffusers_logging), quiet(transformers_logging):
            folder = train(config)
    except MarigoldError as err:
        print(f'{type(err).__name__}: {err}', file=sys.stderr)
        return 1
    if PartialState().is_main_process:
        print(folder)
    return 0
