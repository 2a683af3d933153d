"""One batch through the networks: encode, denoise, decode, as many at once as memory allows."""

from __future__ import annotations

from dataclasses import dataclass
import logging
from typing import Any, Callable, Sequence

import torch

from marigold_ros.depth.denoise import denoise, Denoised, noised, Schedule, schedule
from marigold_ros.depth.device import Stopwatch
from marigold_ros.depth.errors import InputError, OutOfMemoryError
from marigold_ros.depth.first_look import signal
from marigold_ros.depth.networks import Networks

# (index of a frame, its signal after the first step) -> steps T that it shall have
FirstLook = Callable[[int, float], int]
logger = logging.getLogger(__name__)

# A warm start begins here instead of at 999: late enough to remember the last frame, early enough
# to correct it.  From 749 flicker is less, but what has changed between two frames lags.
WARM_START_TIMESTEP = 849


@dataclass(frozen=True)
class Stopping:
    """
    What may end a batch's denoising before its schedules do.

    Attributes
    ----------
    deadline : float or None
        Time on `time.perf_counter`.
    x0_tolerance : float or None
    first_look : callable or None
    """

    deadline: float | None
    x0_tolerance: float | None
    first_look: FirstLook | None


class BatchRunner:
    """
    Run batches, and remember which were too large.

    Parameters
    ----------
    networks : Networks
    scheduler : diffusers.DDIMScheduler or diffusers.LCMScheduler

    Attributes
    ----------
    batch_limits : dict of (int, int) to int
        Padded size -> most rows at once, where more did not fit into the device's memory.
    """

    def __init__(self, networks: Networks, scheduler: Any) -> None:
        """Start without limits."""
        self.batch_limits: dict[tuple[int, int], int] = {}
        self._networks, self._scheduler = networks, scheduler
        self._schedules: dict[tuple[int, bool], Schedule] = {}

    def warmed(self, noise: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        """Latents [E,C,h,w] to warm-start from, between a previous frame's and noise."""
        return noised(self._scheduler, previous, noise, WARM_START_TIMESTEP)

    def run(self, images: torch.Tensor, latent: torch.Tensor, num_inference_steps: Sequence[int],
            warm: Sequence[bool], stopping: Stopping, watch: Stopwatch
            ) -> tuple[list[Denoised], torch.Tensor]:
        """
        Encode N images, denoise and decode N*E rows; what did not fit is run in halves.

        Parameters
        ----------
        images : float32 tensor [N, 3, PPH, PPW]
        latent : float32 tensor [N*E, C, h, w]
            What each row starts from; the members of a frame follow each other.
        num_inference_steps : sequence of N int
        warm : sequence of N bool
            Whether a frame's rows start at WARM_START_TIMESTEP.
        stopping : Stopping
        watch : Stopwatch
            Its stages encode, denoise and decode are advanced.

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
                return self._run_limited(images, latent, num_inference_steps, warm, stopping,
                                         watch, limit)
            except torch.OutOfMemoryError as err:
                if limit == 1:
                    raise OutOfMemoryError(
                        f'one image of {size[1]}x{size[0]} px does not fit into the memory of '
                        f'{device}: lower `processing_resolution`, or `dtype` to bfloat16; '
                        f'{err}') from err
            # Outside the handler, which would keep the failed batch's tensors alive.
            self.batch_limits[size] = limit // 2
            logger.warning('%d images of %dx%d px do not fit into the memory of %s: from now on '
                           'at most %d at once', limit, size[1], size[0], device, limit // 2)
            if device.type == 'cuda':
                torch.cuda.empty_cache()

    def _run_limited(self, images: torch.Tensor, latent: torch.Tensor,
                     num_inference_steps: Sequence[int], warm: Sequence[bool],
                     stopping: Stopping, watch: Stopwatch, limit: int
                     ) -> tuple[list[Denoised], torch.Tensor]:
        """Run all rows, at most `limit` at once."""
        # Each image is encoded once, whatever its steps and members.
        encoded = torch.cat([self._networks.encode(part) for part in torch.split(images, limit)])
        watch.lap('encode')

        members = len(latent) // len(images)
        frame_of_row = [i for i in range(len(images)) for _ in range(members)]
        granted = list(num_inference_steps)
        looked: set[int] = set()
        denoised: list[Denoised] = []
        decoded: list[torch.Tensor] = []
        for start in range(0, len(latent), limit):
            rows = frame_of_row[start:start + limit]
            inputs = self._networks.input_buffer((len(rows), *latent.shape[1:]))
            inputs[:, :latent.shape[1]] = encoded[rows]
            look = self._look(rows, granted, warm, looked, stopping.first_look)
            part = denoise(self._networks.predict, inputs, latent[start:start + limit],
                           [self._schedule(granted[i], warm[i]) for i in rows],
                           deadline=stopping.deadline, x0_tolerance=stopping.x0_tolerance,
                           first_look=look)
            watch.lap('denoise')
            denoised += part
            decoded.append(self._networks.decode(
                torch.stack([result.latent for result in part])))  # [rows,3,PPH,PPW]
            watch.lap('decode')
        return denoised, torch.cat(decoded)

    def _look(self, rows: Sequence[int], granted: list[int], warm: Sequence[bool],
              looked: set[int], first_look: FirstLook | None
              ) -> Callable[[torch.Tensor], list[Schedule]] | None:
        """Make the callback of `denoise` that asks once per frame and updates `granted`."""
        if first_look is None:
            return None

        def look(x0: torch.Tensor) -> list[Schedule]:
            for i, value in zip(rows, signal(x0).tolist()):
                if i not in looked:  # the first member speaks for its frame
                    looked.add(i)
                    granted[i] = self._chosen(first_look(i, value), granted[i], warm[i])
            return [self._schedule(granted[i], warm[i]) for i in rows]

        return look

    def _chosen(self, steps: int, granted: int, warm: bool) -> int:
        """Check what a first look has chosen."""
        if not 1 <= steps <= granted:
            raise InputError(f'`first_look` must return between 1 and {granted} steps; '
                             f'got {steps}')
        start, granted_start = (self._schedule(n, warm)[0].timestep
                                for n in (steps, granted))
        if start != granted_start:
            raise InputError(
                '`first_look` needs schedules that begin at the same timestep, as those with '
                f'`timestep_spacing` trailing do; {steps} steps begin at {start}, {granted} at '
                f'{granted_start}')
        return steps

    def _schedule(self, num_inference_steps: int, warm: bool) -> Schedule:
        key = num_inference_steps, warm
        if key not in self._schedules:
            self._schedules[key] = schedule(self._scheduler, num_inference_steps,
                                            WARM_START_TIMESTEP if warm else None)
        return self._schedules[key]
