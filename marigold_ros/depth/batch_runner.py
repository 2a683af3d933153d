"""Run a batch through the networks: encode, denoise, decode, split to fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
import logging
from typing import Any

import torch

from marigold_ros.depth.denoise import denoise, Denoised, make_schedule, Schedule
from marigold_ros.depth.device import Stopwatch
from marigold_ros.depth.errors import OutOfMemoryError
from marigold_ros.depth.networks import Networks

logger = logging.getLogger(__name__)


class BatchRunner:
    """
    Run batches; split those that do not fit into the device's memory.

    Parameters
    ----------
    networks : Networks
    scheduler : diffusers.DDIMScheduler or diffusers.LCMScheduler

    Attributes
    ----------
    batch_limits : dict of (int, int) to int
        Padded size -> largest number of rows at once, for sizes that once exceeded the memory.
    """

    def __init__(self, networks: Networks, scheduler: Any) -> None:
        """Start without batch limits."""
        self.batch_limits: dict[tuple[int, int], int] = {}
        self._networks, self._scheduler = networks, scheduler
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
        decoded : float32 tensor [N*E, 3, PPH, PPW]

        Raises
        ------
        OutOfMemoryError
            If a single row does not fit.
        """
        size = (images.shape[2], images.shape[3])
        device = self._networks.device
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
        encoded = torch.cat([self._networks.encode(part) for part in torch.split(images, limit)])
        stopwatch.lap('encode')

        members = len(latent) // len(images)
        frame_of_row = [i for i in range(len(images)) for _ in range(members)]
        denoised: list[Denoised] = []
        decoded: list[torch.Tensor] = []
        for start in range(0, len(latent), limit):
            rows = frame_of_row[start:start + limit]
            inputs = self._networks.input_buffer((len(rows), *latent.shape[1:]))
            inputs[:, :latent.shape[1]] = encoded[rows]
            part = denoise(self._networks.predict, inputs, latent[start:start + limit],
                           [self._schedule(num_inference_steps[i]) for i in rows],
                           deadline=deadline)
            stopwatch.lap('denoise')
            denoised += part
            decoded.append(self._networks.decode(
                torch.stack([result.latent for result in part])))  # [rows,3,PPH,PPW]
            stopwatch.lap('decode')
        return denoised, torch.cat(decoded)

    def _schedule(self, num_inference_steps: int) -> Schedule:
        if num_inference_steps not in self._schedules:
            self._schedules[num_inference_steps] = make_schedule(
                self._scheduler, num_inference_steps)
        return self._schedules[num_inference_steps]
