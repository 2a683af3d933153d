"""
Average the weights of checkpoints: what one has learned anew, and what the other still knows.

    python -m marigold_ros.training.average_checkpoints tiny runs/robot/checkpoint --out mean

Fine-tuning makes a network better on its own frames and often worse on others.  The mean of its
weights and of those it began with keeps most of the gain and loses little (Wortsman et al. 2022,
"Robust fine-tuning of zero-shot models").  The mean of two networks that were trained from
scratch, each on its own, is of no use.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from diffusers.utils import logging as diffusers_logging
import torch
from transformers.utils import logging as transformers_logging

from marigold_ros.depth.checkpoint import quiet
from marigold_ros.depth.errors import CheckpointError, MarigoldError
from marigold_ros.training.checkpoints import open_pipeline, save_pipeline

NETWORKS = ('unet', 'vae')


def average_checkpoints(checkpoints: Sequence[str], folder: Path) -> None:
    """
    Write the mean of the weights of checkpoints.

    Parameters
    ----------
    checkpoints : sequence of str
        Two or more embedded names, folders or hub ids.  Scheduler, text encoder and settings are
        those of the last one.
    folder : Path
        Where `save_pipeline` writes the result.

    Raises
    ------
    CheckpointError
        If there is only one, if one cannot be loaded, or if one differs from the first in the
        architecture of its networks or in what they predict.
    """
    if len(checkpoints) < 2:
        raise CheckpointError(f'`checkpoints` must be at least two; got {list(checkpoints)}')
    pipelines = [open_pipeline(name, 'checkpoints') for name in checkpoints]
    predicted = [pipeline.scheduler.config.prediction_type for pipeline in pipelines]
    if len(set(predicted)) > 1:
        raise CheckpointError('`checkpoints` must have one prediction type; got '
                              + ', '.join(predicted))
    for network in NETWORKS:
        states = [getattr(pipeline, network).state_dict() for pipeline in pipelines]
        for name, state in zip(checkpoints[1:], states[1:]):
            _check_same_shapes(network, states[0], state, checkpoints[0], name)
        # In place, since these are the weights of the last network: three copies of Stable
        # Diffusion's would not fit into the memory of many machines.
        for key, weight in states[-1].items():
            weight.copy_(torch.stack([state[key] for state in states]).mean(dim=0))
    save_pipeline(pipelines[-1], folder)


def _check_same_shapes(network: str, first: dict[str, torch.Tensor],
                       other: dict[str, torch.Tensor], first_name: str, other_name: str) -> None:
    """Raise CheckpointError if a weight is missing or has another shape."""
    for key in sorted(first.keys() | other.keys()):
        shapes = [list(state[key].shape) if key in state else None for state in (first, other)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f'`checkpoints` must have networks of one architecture; {key} of the {network} is '
                f'{shapes[0]} in {first_name} and {shapes[1]} in {other_name}')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 or 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoints', nargs='+', help='embedded names, folders or hub ids')
    parser.add_argument('--out', type=Path, required=True, help='folder of the result')
    options = parser.parse_args(arguments)
    try:
        with quiet(diffusers_logging), quiet(transformers_logging):
            average_checkpoints(options.checkpoints, options.out)
    except MarigoldError as err:
        print(f'{type(err).__name__}: {err}', file=sys.stderr)
        return 1
    print(options.out)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
