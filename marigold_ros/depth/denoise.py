"""
Adaptive denoising of a ragged batch, in which every frame has its own number of steps.

The update and the DDIM step
----------------------------
Let abar_t be the cumulative alpha of the noise schedule and s the timestep that follows t.  The
deterministic DDIM step (Song et al. 2021, eq. 12 with sigma = 0) is::

    x0  = (z_t - sqrt(1 - abar_t) eps) / sqrt(abar_t)
    z_s = sqrt(abar_s) x0 + sqrt(1 - abar_s) eps

Eliminating x0 and dividing by sqrt(abar_s) gives, with zbar_t = z_t / sqrt(abar_t)::

    zbar_s = zbar_t - a_t eps,   a_t = sqrt(1/abar_t - 1) - sqrt(1/abar_s - 1)

This is the update z_{t-1} = z_t - alpha_t eps_theta(z_t, x, t) of adaptive denoising, up to the
rescaling of z.  With zero terminal SNR abar_999 = 0 and the division is undefined.  The loop
therefore uses the x0 form, which is always defined.  For every prediction type x0, eps and z_s are
linear in z_t and the network's output o, so that a step is::

    x0 = r z_t + q o,   z_s = u z_t + w o
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math
import time
from typing import Any, Literal

import torch

from marigold_ros.depth.device import Stopwatch
from marigold_ros.depth.errors import CheckpointError, InputError

# See `stages.StepStage`.
Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
                tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class StepCoefficients:
    """One denoising step: x0 = r z + q o and next z = u z + w o at one timestep."""

    timestep: int
    r: float
    q: float
    u: float
    w: float


StopReason = Literal['schedule', 'deadline']


@dataclass(frozen=True)
class Schedule:
    """
    The T steps of a frame, on the device.

    Attributes
    ----------
    coefficients : float32 tensor [T, 4]
        r, q, u, w of `StepCoefficients`.
    time_bias : tensor [T, S]
        Biases of the U-Net at the timesteps, see `folding.TimeTable`.
    """

    coefficients: torch.Tensor
    time_bias: torch.Tensor

    def __len__(self) -> int:
        """Return T."""
        return len(self.coefficients)


@dataclass(frozen=True)
class Denoised:
    """
    Result for one frame.

    Attributes
    ----------
    latent : tensor [C, h, w]
        The final depth latent; the last x0 where the frame stopped early.
    num_inference_steps : int
        Steps actually run.
    stopped_by : {'schedule', 'deadline'}
        Whether denoising ended with the schedule or at the deadline.
    """

    latent: torch.Tensor
    num_inference_steps: int
    stopped_by: StopReason


def make_schedule(scheduler: Any, num_inference_steps: int) -> list[StepCoefficients]:
    """
    Convert a diffusers schedule to linear steps.

    Parameters
    ----------
    scheduler : diffusers.DDIMScheduler or diffusers.LCMScheduler
        Provides the timesteps, in its configured spacing, and the cumulative alphas.
    num_inference_steps : int
        Number of steps T.  LCM adds new noise between steps and is supported for T = 1 only.

    Raises
    ------
    InputError
        If T is not in 1 .. the number of training timesteps, or above 1 for LCM.
    CheckpointError
        If the step is undefined: epsilon prediction at zero SNR, clipping or thresholding.
    """
    is_lcm = type(scheduler).__name__ == 'LCMScheduler'
    limit = 1 if is_lcm else scheduler.config.num_train_timesteps
    if not 1 <= num_inference_steps <= limit:
        raise InputError(f'`num_inference_steps` must be between 1 and {limit} for this '
                         f'checkpoint; got {num_inference_steps}')
    if scheduler.config.clip_sample or scheduler.config.thresholding:
        raise CheckpointError('`clip_sample` and `thresholding` of the scheduler must be false')
    scheduler.set_timesteps(num_inference_steps)
    # As in diffusers, the timestep after t is t - 1000 // T, not the next one in the list.
    stride = scheduler.config.num_train_timesteps // num_inference_steps
    return [_step_coefficients(scheduler, int(t), int(t) - stride, is_lcm)
            for t in scheduler.timesteps]


def _step_coefficients(scheduler: Any, timestep: int, previous: int,
                       is_lcm: bool) -> StepCoefficients:
    """Compute one step to the timestep `previous`, which is negative for the last step."""
    abar = float(scheduler.alphas_cumprod[timestep])
    abar_s = float(scheduler.alphas_cumprod[previous] if previous >= 0
                   else scheduler.final_alpha_cumprod)
    kind = scheduler.config.prediction_type
    signal, noise = math.sqrt(abar), math.sqrt(1.0 - abar)
    if kind == 'v_prediction':  # x0 = signal z - noise o, eps = noise z + signal o
        x0, eps = (signal, -noise), (noise, signal)
    elif kind == 'epsilon' and signal > 0.0:  # x0 = (z - noise o) / signal, eps = o
        x0, eps = (1.0 / signal, -noise / signal), (0.0, 1.0)
    elif kind == 'sample' and noise > 0.0:  # x0 = o, eps = (z - signal o) / noise
        x0, eps = (0.0, 1.0), (1.0 / noise, -signal / noise)
    else:
        raise CheckpointError(f'prediction type {kind!r} is not defined at timestep {timestep} '
                              f'with cumulative alpha {abar:g}')
    if is_lcm:  # boundary condition of consistency models; a single step adds no noise
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
        x0 = (float(skip) + float(out) * x0[0], float(out) * x0[1])
        return StepCoefficients(timestep, *x0, *x0)
    keep, add = math.sqrt(abar_s), math.sqrt(1.0 - abar_s)
    return StepCoefficients(timestep, *x0, keep * x0[0] + add * eps[0],
                            keep * x0[1] + add * eps[1])


def denoise(step: Step, image_latent: torch.Tensor, latent: torch.Tensor,
            schedules: Sequence[Schedule], *, deadline: float | None = None) -> list[Denoised]:
    """
    Denoise a ragged batch with max(T) steps, each of the unfinished frames.

    Nothing is read back from the device, so that it never waits for the host.

    Parameters
    ----------
    step : callable
        See `stages.StepStage`.
    image_latent, latent : float32 tensor [N, C, h, w]
        Latents of the images, and the initial depth latents.
    schedules : sequence of N Schedules
        One per frame, each with at least one step.
    deadline : float, optional
        Time on `time.perf_counter`.  A step is not started if it would end later, assuming that
        it takes as long as the step before; the first step always runs.  Unfinished frames then
        return their current x0.

    Returns
    -------
    list of Denoised
        In the order of the batch.
    """
    # Longest schedule first: the unfinished frames are then the first n, which views select.
    order = sorted(range(len(schedules)), key=lambda i: -len(schedules[i]))
    schedules = [schedules[i] for i in order]
    image_latent, latent = (_reorder(each, order) for each in (image_latent, latent))
    deadline_check = None if deadline is None else _DeadlineCheck(deadline, latent.device)
    results: dict[int, Denoised] = {}
    for k in range(len(schedules[0])):
        # 1. Compute x0 and the next latents of all unfinished frames.
        unfinished = [schedule for schedule in schedules if len(schedule) > k]
        n = len(unfinished)
        latent, x0 = step(image_latent[:n], latent[:n],
                          torch.stack([schedule.coefficients[k] for schedule in unfinished]),
                          torch.stack([schedule.time_bias[k] for schedule in unfinished]))

        # 2. Finish frames at the end of their schedule, and all frames at the deadline.
        late = (deadline_check is not None and len(schedules[0]) > k + 1
                and deadline_check.next_step_is_too_late())
        for j, schedule in enumerate(unfinished):
            if k + 1 == len(schedule):
                results[order[j]] = Denoised(latent[j], k + 1, 'schedule')
            elif late:
                results[order[j]] = Denoised(x0[j], k + 1, 'deadline')
        if late:
            break
    return [results[i] for i in range(len(results))]


def _reorder(rows: torch.Tensor, order: list[int]) -> torch.Tensor:
    """Reorder rows without an index tensor, which would be copied to the device."""
    if order == sorted(order):
        return rows
    return torch.stack([rows[i] for i in order])


class _DeadlineCheck:
    """Predict whether the next step would end too late; waits for the device once per step."""

    def __init__(self, deadline: float, device: torch.device) -> None:
        """Start timing the first step."""
        self._deadline, self._stopwatch = deadline, Stopwatch(device)

    def next_step_is_too_late(self) -> bool:
        """Wait for the queued step and predict the end of the next from its duration."""
        self._stopwatch.lap('step')
        step_s = self._stopwatch.last_lap_s()
        return time.perf_counter() + step_s > self._deadline
