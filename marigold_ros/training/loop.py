"""What every training does alike: the loop around its iterations, and one optimizer step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tqdm import tqdm

from marigold_ros.depth.errors import MarigoldError
from marigold_ros.training.config import ScheduleConfig
from marigold_ros.training.run_folder import RunFolder, stop_on_signal
from marigold_ros.training.schedule import learning_rate, Progress

RECORD_EVERY = 50
MAX_GRADIENT_NORM = 1.0

Scalars = dict[str, float]


def train(
    progress: Progress, run: RunFolder, save_minutes: float, *,
    iterate: Callable[[Progress], Scalars], count_frames: Callable[[], int],
    save: Callable[[Progress], None],
) -> None:
    """
    Iterate to the end of the schedule or until interrupted, saving on the way and at the end.

    Parameters
    ----------
    progress : Progress
        Where to go on.
    run : RunFolder
        Gets the scalars of every `RECORD_EVERY`th iteration.
    save_minutes : float
        Time between saves.
    iterate : callable
        Takes one optimizer step and returns its scalars.
    count_frames : callable
        Looks for new frames and returns how many there are.
    save : callable
        Writes the resumable state and the result so far.
    """
    saved_at = progress.minutes
    with stop_on_signal() as stop, tqdm(initial=progress.iteration, unit='it') as bar:
        while not (progress.finished or stop.is_set()):
            scalars = iterate(progress)
            bar.update()
            if progress.iteration % RECORD_EVERY == 0:
                scalars = scalars | {'frames': float(count_frames())}
                bar.set_postfix(scalars)
                run.record(scalars, progress.iteration)
            if progress.minutes - saved_at > save_minutes:
                saved_at = progress.minutes
                save(progress)
    save(progress)


def take_step(
    optimizer: torch.optim.Optimizer, losses: dict[str, torch.Tensor], schedule: ScheduleConfig,
    progress: Progress, run: RunFolder,
) -> Scalars:
    """
    Step down the gradient of the summed losses at the schedule's rate.

    Returns
    -------
    dict
        The losses and the learning rate.

    Raises
    ------
    MarigoldError
        If a loss is not finite; names the last good state.
    """
    rate = learning_rate(schedule, progress.iteration, progress.fraction)
    for group in optimizer.param_groups:
        group['lr'] = rate
    scalars = {name: value.item() for name, value in losses.items()}
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        raise MarigoldError(f'the loss must stay finite; got {scalars} at iteration '
                            f'{progress.iteration}; the last good state is {run.state}')
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(total)
    torch.nn.utils.clip_grad_norm_(
        [weight for group in optimizer.param_groups for weight in group['params']],
        MAX_GRADIENT_NORM)
    optimizer.step()
    progress.iteration += 1
    return scalars | {'rate': rate}
