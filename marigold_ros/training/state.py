"""What a training saves and takes up again, and the running average of its weights."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
import torch

MOMENTS = ('exp_avg', 'exp_avg_sq')


class WeightAverage:
    """
    Exponential moving average of a module's parameters.

    Parameters
    ----------
    module : torch.nn.Module
        Its current weights are the first average.
    decay : float
        Weight of the old average; it starts lower, so that the untrained weights fade fast.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self._decay = decay
        self.updates = 0
        self.weights = {
            name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """Move the average towards the module's weights."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        current = [value.detach() for value in module.parameters()]
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - decay)


def save_state(
    path: Path,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    *,
    iteration: int,
    minutes: float,
) -> None:
    """
    Write weights, optimizer moments, average and counters to one safetensors file.

    Parameters
    ----------
    path : Path
        Replaced in one move, so that a crash leaves the previous state whole.
    module, optimizer, average
        What is trained.
    iteration, minutes : int, float
        How far the training is.
    """
    tensors: dict[str, torch.Tensor] = {
        f'weight.{name}': value for name, value in module.named_parameters()}
    for name, value in module.named_parameters():
        for moment in MOMENTS:
            if moment in optimizer.state.get(value, {}):
                tensors[f'{moment}.{name}'] = optimizer.state[value][moment]
    if average is not None:
        tensors |= {f'average.{name}': value for name, value in average.weights.items()}
    metadata = {
        'iteration': str(iteration), 'minutes': str(minutes),
        'updates': str(average.updates if average is not None else 0)}
    partial = path.with_suffix('.partial')
    save_file({name: value.detach().contiguous() for name, value in tensors.items()},
              partial, metadata)
    os.replace(partial, path)


@torch.no_grad()
def load_state(
    path: Path,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
) -> tuple[int, float]:
    """
    Take up what `save_state` wrote.

    Returns
    -------
    int, float
        Iterations and minutes of training done.
    """
    with safe_open(path, 'pt') as file:
        metadata = file.metadata()
        names = set(file.keys())
        for name, value in module.named_parameters():
            value.copy_(file.get_tensor(f'weight.{name}'))
            if f'exp_avg.{name}' in names:
                moments = {moment: file.get_tensor(f'{moment}.{name}') for moment in MOMENTS}
                step = torch.tensor(float(metadata['iteration']))
                optimizer.state[value] = {'step': step, **moments}
            if average is not None:
                average.weights[name].copy_(file.get_tensor(f'average.{name}'))
        if average is not None:
            average.updates = int(metadata['updates'])
    return int(metadata['iteration']), float(metadata['minutes'])
