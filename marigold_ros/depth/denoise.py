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

from dataclasses import dataclass
import math
import time
from typing import Any, Callable, Sequence

import torch

from marigold_ros.depth.device import time_when_done
from marigold_ros.depth.errors import CheckpointError, InputError

# (image latent and depth latent [n,2C,h,w], timesteps [n]) -> network output [n,C,h,w]
Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class StepCoefficients:
    """One denoising step: x0 = r z + q o and next z = u z + w o at one timestep."""

    timestep: int
    r: float
    q: float
    u: float
    w: float


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
    """

    latent: torch.Tensor
    num_inference_steps: int


def schedule(scheduler: Any, num_inference_steps: int) -> list[StepCoefficients]:
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
    stride = scheduler.config.num_train_timesteps // num_inference_steps
    return [_step(scheduler, int(t), int(t) - stride, is_lcm) for t in scheduler.timesteps]


def _step(scheduler: Any, timestep: int, previous: int, is_lcm: bool) -> StepCoefficients:
    """Derive one step; `previous` is t - 1000 // T, as diffusers has it, below 0 at the end."""
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


def denoise(network: Network, image_latent: torch.Tensor, latent: torch.Tensor,
            schedules: Sequence[Sequence[StepCoefficients]], *, deadline_s: float | None = None,
            x0_tolerance: float | None = None) -> list[Denoised]:
    """
    Denoise a ragged batch; costs max T network calls, each on the frames still denoising.

    Parameters
    ----------
    network : callable
        The U-Net: ([n, 2C, h, w], timesteps [n]) -> [n, C, h, w].
    image_latent, latent : float32 tensor [N, C, h, w]
        The condition, and the depth latent to start from.
    schedules : sequence of N sequences of StepCoefficients
        One schedule per frame, of any length of at least 1.
    deadline_s : float, optional
        Stop before a step that would end later than this after the call, judged by the step
        before it; the first step always runs.  Frames then end with their current x0.
    x0_tolerance : float, optional
        Stop a frame once RMS(x0 - last x0) <= x0_tolerance * RMS(x0).

    Returns
    -------
    list of Denoised
        In the order of the batch.
    """
    started = step_started = time.perf_counter()
    # Longest schedule first: the frames still denoising are then a prefix, and a view is enough.
    order = sorted(range(len(schedules)), key=lambda i: -len(schedules[i]))
    timesteps, coefficients = _tables([schedules[i] for i in order], latent.device)
    image_latent, latent = image_latent[order], latent[order]
    results: dict[int, Denoised] = {}
    last_x0 = None
    for k in range(len(timesteps)):
        output = network(torch.cat([image_latent, latent], dim=1), timesteps[k])
        r, q, u, w = coefficients[k]
        x0 = r * latent + q * output  # [n,C,h,w]
        latent = u * latent + w * output  # [n,C,h,w]

        finished = {j for j, i in enumerate(order) if k + 1 == len(schedules[i])}
        early: set[int] = set()
        if x0_tolerance is not None and last_x0 is not None:
            early = _converged(x0, last_x0, x0_tolerance)
        if deadline_s is not None:
            now = time_when_done(latent.device)
            if now + (now - step_started) > started + deadline_s:
                early = set(range(len(order)))
            step_started = now
        for j in finished | early:
            results[order[j]] = Denoised((latent if j in finished else x0)[j], k + 1)
        keep = [j for j in range(len(order)) if j not in finished | early]
        if not keep:
            break
        last_x0 = x0
        if len(keep) < len(order):
            index = slice(len(keep)) if keep[-1] + 1 == len(keep) else keep
            order = [order[j] for j in keep]
            image_latent, latent, last_x0 = image_latent[index], latent[index], x0[index]
            timesteps, coefficients = timesteps[:, index], coefficients[:, :, index]
    return [results[i] for i in range(len(schedules))]


def _tables(schedules: Sequence[Sequence[StepCoefficients]],
            device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Tabulate schedules sorted longest first; what follows a schedule's end is never read.

    Returns
    -------
    timesteps : int64 tensor [T, N]
    coefficients : float32 tensor [T, 4, N, 1, 1, 1]
        r, q, u, w.
    """
    longest = len(schedules[0])
    rows = [[steps[min(k, len(steps) - 1)] for steps in schedules] for k in range(longest)]
    timesteps = torch.tensor([[step.timestep for step in row] for row in rows], device=device)
    coefficients = torch.tensor(
        [[[step.r for step in row], [step.q for step in row],
          [step.u for step in row], [step.w for step in row]] for row in rows],
        dtype=torch.float32, device=device)
    return timesteps, coefficients[..., None, None, None]


def _converged(x0: torch.Tensor, last_x0: torch.Tensor, tolerance: float) -> set[int]:
    """Return the positions of the frames whose x0 moved by at most `tolerance`, relatively."""
    change = (x0 - last_x0).square().mean(dim=(1, 2, 3))
    size = x0.square().mean(dim=(1, 2, 3))
    moved_little: list[bool] = (change <= tolerance ** 2 * size).tolist()
    return {j for j, little in enumerate(moved_little) if little}
