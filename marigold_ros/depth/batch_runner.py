"""Run a batch through the networks: encode, denoise, decode, split to fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
import logging
from typing import Any

import torch

from marigold_ros.depth.denoise import denoise, Denoised, make_schedule, Schedule
from marigold_ros.depth.device import Stopwatch
from marigold_ros.depth.errors import OutOfMemoryError
from marigold_ros.depth.executors.base import Executor
from marigold_ros.depth.folding import TimeTable

logger = logging.getLogger(__name__)


class BatchRunner:
    """
    Run batches; split those that do not fit into the device's memory.

    Parameters
    ----------
    executor : Executor
        Runs the stages.
    scheduler : diffusers.DDIMScheduler or diffusers.LCMScheduler
    time_table : TimeTable
        Of the U-Net.

    Attributes
    ----------
    batch_limits : dict of (int, int) to int
        Padded size -> largest number of rows at once, for sizes that once exceeded the memory.
    """

    def __init__(self, executor: Executor, scheduler: Any, time_table: TimeTable) -> None:
        """Start without batch limits."""
        self.batch_limits: dict[tuple[int, int], int] = {}
        self._executor, self._scheduler, self._time_table = executor, scheduler, time_table
        self._schedules: dict[int, Schedule] = {}

    def run(self, images: torch.Tensor, latent: torch.Tensor, num_inference_steps: Sequence[int],
            deadline: float | None, stopwatch: Stopwatch) -> tuple[list[Denoised], torch.Tensor]:
        """
        Encode N images, denoise and decode N*E rows; halve the batch if it does not fit.

        Parameters
        ----------
        images : float32 tensor [N, 3, PPH, PPW]
        latent : float32 tensor [N*E, C, h, w]
            Initial latents; the members of a frame are consecutive.
        num_inference_steps : sequence of N int
        deadline : float or None
            Time on `time.perf_counter`; a denoising step expected to end later is not started.
        stopwatch : Stopwatch
            Records the stages encode, denoise and decode.

        Returns
        -------
        denoised : list of N*E Denoised
        decoded : float32 tensor [N*E, 1, PPH, PPW]

        Raises
        ------
        OutOfMemoryError
            If a single row does not fit.
        """
        size = (images.shape[2], images.shape[3])
        device = self._executor.device
        while True:
            limit = min(len(latent), self.batch_limits.get(size, len(latent)))
            try:
                return self._run_limited(images, latent, num_inference_steps, deadline,
                                         stopwatch, limit)
            except torch.OutOfMemoryError as err:
                if limit == 1:
                    raise OutOfMemoryError(
                        f'one image of {size[1]}x{size[0]} px does not fit into the memory of '
                        f'{device}: lower `processing_resolution` or set `dtype` to bfloat16; '
                        f'{err}') from err
            # Outside the except block, which keeps the tensors of the failed batch alive.
            self.batch_limits[size] = limit // 2
            logger.warning('%d images of %dx%d px do not fit into the memory of %s; limiting '
                           'batches to %d', limit, size[1], size[0], device, limit // 2)
            if device.type == 'cuda':
                torch.cuda.empty_cache()

    def _run_limited(self, images: torch.Tensor, latent: torch.Tensor,
                     num_inference_steps: Sequence[int], deadline: float | None,
                     stopwatch: Stopwatch, limit: int) -> tuple[list[Denoised], torch.Tensor]:
        """Run all rows, at most `limit` at once."""
        # Each image is encoded once for all its members.
        encoded = torch.cat([self._executor.encode(part) for part in torch.split(images, limit)])
        stopwatch.lap('encode')

        members = len(latent) // len(images)
        image_latent = encoded.repeat_interleave(members, dim=0)  # [N*E,C,h,w]
        schedules = [self._schedule(steps) for steps in num_inference_steps
                     for _ in range(members)]
        denoised: list[Denoised] = []
        decoded: list[torch.Tensor] = []
        for start in range(0, len(latent), limit):
            rows = slice(start, start + limit)
            part = denoise(self._executor.step, image_latent[rows], latent[rows], schedules[rows],
                           deadline=deadline)
            stopwatch.lap('denoise')
            denoised += part
            decoded.append(self._executor.decode(
                torch.stack([result.latent for result in part])))  # [rows,1,PPH,PPW]
            stopwatch.lap('decode')
        return denoised, torch.cat(decoded)

    def _schedule(self, num_inference_steps: int) -> Schedule:
        """Return the steps of a frame, which are the same for every frame with this number."""
        if num_inference_steps not in self._schedules:
            steps = make_schedule(self._scheduler, num_inference_steps)
            device = self._executor.device
            self._schedules[num_inference_steps] = Schedule(
                torch.tensor([[step.r, step.q, step.u, step.w] for step in steps], device=device),
                self._time_table.biases([step.timestep for step in steps]).to(device))
        return self._schedules[num_inference_steps]
