"""
The adaptive denoising loop: a ragged batch in which every frame has its own number of steps.

The update and the DDIM step
----------------------------
Write abar_t for the cumulative alpha of the noise schedule and s for the timestep after t.  The
deterministic DDIM step (Song et al. 2021, eq. 12 with sigma = 0) is::

    x0  = (z_t - sqrt(1 - abar_t) eps) / sqrt(abar_t)
    z_s = sqrt(abar_s) x0 + sqrt(1 - abar_s) eps

Eliminating x0 and dividing by sqrt(abar_s), with zbar_t = z_t / sqrt(abar_t), it reads ::

    zbar_s = zbar_t - a_t eps,   a_t = sqrt(1/abar_t - 1) - sqrt(1/abar_s - 1)

which is the update z_{t-1} = z_t - alpha_t eps_theta(z_t, x, t) of adaptive denoising, up to that
rescaling of z.  With zero terminal SNR abar_999 = 0 and the division is undefined, so the loop
uses the x0 form, which is defined everywhere.  x0, eps and z_s are linear in z_t and the network's
output o for every prediction type, so a step is just ::

    x0 = r z_t + q o,   z_s = u z_t + w o
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math
from typing import Any, Literal

import torch

from marigold_ros.depth.device import synchronized_time_s
from marigold_ros.depth.errors import CheckpointError, InputError

# (image and depth latents [n,2C,h,w], timesteps [n]) -> network output, float32 [n,C,h,w]
Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class StepCoefficients:
    """One denoising step: x0 = r z + q o and next z = u z + w o at one timestep."""

    timestep: int
    r: float
    q: float
    u: float
    w: float


Schedule = Sequence[StepCoefficients]
StopReason = Literal['schedule', 'deadline']


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
        What ended them.
    """

    latent: torch.Tensor
    num_inference_steps: int
    stopped_by: StopReason


def make_schedule(scheduler: Any, num_inference_steps: int) -> list[StepCoefficients]:
    """
    Write a diffusers schedule as linear steps.

    Parameters
    ----------
    scheduler : diffusers.DDIMScheduler or diffusers.LCMScheduler
        Its own timesteps and cumulative alphas are used, whatever spacing it is set to.
    num_inference_steps : int
        T.  LCM adds fresh noise between steps and is only offered at T = 1.

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
        raise CheckpointError('a scheduler with `clip_sample` or `thresholding` is no Marigold '
                              'scheduler: both must be false')
    scheduler.set_timesteps(num_inference_steps)
    # The timestep after t is t - 1000 // T, as diffusers has it, not the next one listed.
    stride = scheduler.config.num_train_timesteps // num_inference_steps
    return [_step(scheduler, int(t), int(t) - stride, is_lcm) for t in scheduler.timesteps]


def _step(scheduler: Any, timestep: int, previous: int, is_lcm: bool) -> StepCoefficients:
    """Derive one step; `previous` is the timestep after it, below 0 at the end."""
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
    if is_lcm:  # boundary condition of consistency models; without noise at the only step
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
        x0 = (float(skip) + float(out) * x0[0], float(out) * x0[1])
        return StepCoefficients(timestep, *x0, *x0)
    keep, add = math.sqrt(abar_s), math.sqrt(1.0 - abar_s)
    return StepCoefficients(timestep, *x0, keep * x0[0] + add * eps[0],
                            keep * x0[1] + add * eps[1])


def denoise(network: Network, inputs: torch.Tensor, latent: torch.Tensor,
            schedules: Sequence[Schedule], *, deadline: float | None = None) -> list[Denoised]:
    """
    Denoise a ragged batch; costs max T network calls, each on the frames still denoising.

    Parameters
    ----------
    network : callable
        The U-Net: ([n, 2C, h, w], timesteps [n]) -> [n, C, h, w].
    inputs : tensor [N, 2C, h, w]
        The network's input in its own dtype and memory format.  The first C channels hold the
        image latents; the loop writes the depth latents behind them, and reorders the frames.
    latent : float32 tensor [N, C, h, w]
        The depth latents to start from.
    schedules : sequence of N Schedules
        One per frame, of any length of at least 1.
    deadline : float, optional
        Time on `time.perf_counter`.  Stop before a step that would end later, judged by the step
        before it; the first step always runs.  Frames then end with their current x0.

    Returns
    -------
    list of Denoised
        In the order of the batch.
    """
    watch = None if deadline is None else _Deadline(deadline, latent.device)
    timesteps, coefficients = _tables(schedules, latent.device)
    rows = _Rows(list(range(len(schedules))), inputs, latent, timesteps, coefficients)
    # Longest schedule first: the frames still denoising are then a prefix, and views are enough.
    rows.select(sorted(rows.frames, key=lambda i: -len(schedules[i])))
    results: dict[int, Denoised] = {}
    for k in range(len(timesteps)):
        # 1. One call of the network for all that are left, then x0 and the next latent.
        rows.inputs[:, latent.shape[1]:] = rows.latent  # behind the image latents
        output = network(rows.inputs, rows.timesteps[k])  # [n,C,h,w]
        r, q, u, w = rows.coefficients[k]
        x0 = r * rows.latent + q * output  # [n,C,h,w]
        rows.latent = u * rows.latent + w * output  # [n,C,h,w]

        # 2. Whose schedule ends here is done; where time is up, all are, with what they have.
        late = watch is not None and watch.next_step_is_too_late()
        going_on = []
        for j, i in enumerate(rows.frames):
            if k + 1 == len(schedules[i]):
                results[i] = Denoised(rows.latent[j], k + 1, 'schedule')
            elif late:
                results[i] = Denoised(x0[j], k + 1, 'deadline')
            else:
                going_on.append(j)
        if not going_on:
            break
        rows.select(going_on)
    return [results[i] for i in range(len(results))]


@dataclass
class _Rows:
    """
    The n frames of a batch that are still denoising.

    Attributes
    ----------
    frames : list of n int
        Their places in the batch.
    inputs, latent : tensor [n, 2C, h, w], float32 tensor [n, C, h, w]
    timesteps, coefficients : tensor [T, n], [T, 4, n, 1, 1, 1]
        See `_tables`.
    """

    frames: list[int]
    inputs: torch.Tensor
    latent: torch.Tensor
    timesteps: torch.Tensor
    coefficients: torch.Tensor

    def select(self, positions: list[int]) -> None:
        """Go on with these rows in this order, as views where they lead."""
        n = len(positions)
        self.frames = [self.frames[j] for j in positions]
        index = slice(n) if positions == list(range(n)) else positions
        if isinstance(index, list):
            self.inputs[:n] = self.inputs[index]
        self.inputs, self.latent = self.inputs[:n], self.latent[index]
        self.timesteps = self.timesteps[:, index]
        self.coefficients = self.coefficients[:, :, index]


class _Deadline:
    """Judge before each step whether it would end too late; waits once a step for the device."""

    def __init__(self, deadline: float, device: torch.device) -> None:
        """Start the first step's clock."""
        self._deadline, self._device = deadline, device
        self._step_started = synchronized_time_s(device)

    def next_step_is_too_late(self) -> bool:
        """Judge by the step that has just been queued; costs one device event."""
        now = synchronized_time_s(self._device)
        step_s, self._step_started = now - self._step_started, now
        return now + step_s > self._deadline


def _tables(schedules: Sequence[Schedule],
            device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Tabulate schedules; what follows a schedule's end is never read.

    Returns
    -------
    timesteps : int64 tensor [T, N]
    coefficients : float32 tensor [T, 4, N, 1, 1, 1]
        r, q, u, w.
    """
    longest = max(len(steps) for steps in schedules)
    rows = [[steps[min(k, len(steps) - 1)] for steps in schedules] for k in range(longest)]
    timesteps = torch.tensor([[step.timestep for step in row] for row in rows], device=device)
    coefficients = torch.tensor(
        [[[step.r for step in row], [step.q for step in row],
          [step.u for step in row], [step.w for step in row]] for row in rows],
        dtype=torch.float32, device=device)
    return timesteps, coefficients[..., None, None, None]
