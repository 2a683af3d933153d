"""The two implementations that are compared, behind one call each, and the memory they take."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
import re
import time
from typing import Any, Callable, Iterator, Protocol, Sequence

from diffusers import MarigoldDepthPipeline
import numpy as np
import torch

from marigold_ros.depth.checkpoint import find
from marigold_ros.depth.device import resolve_device, resolve_dtype, time_when_done
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.types import FloatImage, RgbImage

STAGES = ('encode', 'denoise', 'decode')


@dataclass(frozen=True)
class Subject:
    """What both sides run: a checkpoint, on a device, at a processing resolution in px."""

    checkpoint: str
    device: str
    processing_resolution: int


@dataclass(frozen=True)
class Work:
    """
    One call's input.

    Attributes
    ----------
    frames : list of uint8 [H, W, 3]
        N of one size.
    latents : float32 tensor [N, C, h, w]
        What both sides denoise from.
    num_inference_steps : int
        T, the same for all frames.
    """

    frames: list[RgbImage]
    latents: torch.Tensor
    num_inference_steps: int


@dataclass(frozen=True)
class Answer:
    """Depth float32 [N, H, W] in [0, 1], and seconds per stage where they were asked for."""

    depth: FloatImage
    stages_s: dict[str, float]


class Runner(Protocol):
    """An implementation, loaded."""

    def prepare(self, work: Work, *, by_stage: bool = False) -> Callable[[], Answer]:
        """Return the call to time; what a caller could have done long before is done here."""


@dataclass(frozen=True)
class Contestant:
    """
    One way of running the subject.

    Attributes
    ----------
    implementation : {'engine', 'reference'}
        DepthEngine, or diffusers' MarigoldDepthPipeline.
    dtype : str
        As `EngineConfig.dtype`; 'auto' is for the engine only.
    compile : bool
        Whether the engine compiles its networks.
    """

    implementation: str
    dtype: str
    compile: bool = False

    @property
    def name(self) -> str:
        """As it stands in the tables."""
        return f'{self.implementation} {self.dtype}' + (' compiled' if self.compile else '')

    def open(self, subject: Subject) -> Runner:
        """Load it."""
        if self.implementation == 'reference':
            return ReferenceRunner(subject, self.dtype)
        return EngineRunner(subject, self.dtype, self.compile)


class EngineRunner:
    """DepthEngine."""

    def __init__(self, subject: Subject, dtype: str, compile: bool) -> None:  # noqa: A002
        """Load it."""
        self.engine = DepthEngine.load(
            subject.checkpoint, device=subject.device, dtype=dtype, compile=compile,
            processing_resolution=subject.processing_resolution)

    def prepare(self, work: Work, *, by_stage: bool = False) -> Callable[[], Answer]:
        """Return the call; it always knows its stages."""
        steps = [work.num_inference_steps] * len(work.frames)
        latents = list(work.latents[:, None])  # N of [1,C,h,w]

        def call() -> Answer:
            predictions = self.engine.infer_batch(work.frames, steps, latents=latents)
            timing = predictions[0].timing
            return Answer(np.stack([each.affine_invariant_depth for each in predictions]),
                          {stage: getattr(timing, f'{stage}_s') for stage in STAGES})
        return call


class ReferenceRunner:
    """diffusers' MarigoldDepthPipeline, as its documentation uses it."""

    def __init__(self, subject: Subject, dtype: str) -> None:
        """Load it."""
        self.device = resolve_device(subject.device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.resolution = subject.processing_resolution
        self.pipeline: Any = MarigoldDepthPipeline.from_pretrained(
            find(subject.checkpoint), local_files_only=True).to(self.device, self.dtype)
        self.pipeline.set_progress_bar_config(disable=True)

    def prepare(self, work: Work, *, by_stage: bool = False) -> Callable[[], Answer]:
        """Return the call; the images are floats on the device before it, to its advantage."""
        images = torch.from_numpy(np.stack(work.frames)).to(self.device)
        images = images.permute(0, 3, 1, 2).to(self.dtype) / 255.0  # [N,3,H,W]
        latents = work.latents.to(self.device, self.dtype)

        def call() -> Answer:
            with self._watched(by_stage) as stages_s:
                depth = self.pipeline(
                    images, num_inference_steps=work.num_inference_steps, latents=latents,
                    processing_resolution=self.resolution, batch_size=len(work.frames)
                ).prediction
            return Answer(depth[..., 0], stages_s)
        return call

    @contextmanager
    def _watched(self, by_stage: bool) -> Iterator[dict[str, float]]:
        """Time what happens inside the networks; waiting for a GPU each time costs a little."""
        stages_s = dict.fromkeys(STAGES, 0.0) if by_stage else {}
        vae, unet = self.pipeline.vae, self.pipeline.unet
        watched = ((vae, 'encode', 'encode'), (unet, 'forward', 'denoise'),
                   (vae, 'decode', 'decode'))

        def timed(call: Callable[..., Any], stage: str) -> Callable[..., Any]:
            def wrapper(*arguments: Any, **options: Any) -> Any:
                started_s = time_when_done(self.device)
                result = call(*arguments, **options)
                stages_s[stage] += time_when_done(self.device) - started_s
                return result
            return wrapper

        if not by_stage:
            yield stages_s
            return
        for module, method, stage in watched:
            setattr(module, method, timed(getattr(module, method), stage))
        try:
            yield stages_s
        finally:
            for module, method, _ in watched:
                delattr(module, method)


def peak_memory(contestant: Contestant, subject: Subject, works: Sequence[Work]) -> list[int]:
    """
    Measure the memory that a contestant takes, in a process of its own.

    Parameters
    ----------
    contestant : Contestant
    subject : Subject
    works : sequence of Work
        Done one after the other, so in increasing size.

    Returns
    -------
    list of int
        Bytes, the highest so far after each work: on a GPU what torch allocated there, else the
        resident memory beyond that of a process that has only imported the libraries.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context('spawn')) as pool:
        return pool.submit(_peak_memory_here, contestant, subject, list(works)).result()


def _peak_memory_here(contestant: Contestant, subject: Subject,
                      works: list[Work]) -> list[int]:
    device = resolve_device(subject.device)
    imported = 0 if device.type == 'cuda' else _peak_resident()
    runner = contestant.open(subject)
    peaks = []
    for work in works:
        runner.prepare(work)()
        peaks.append((torch.cuda.max_memory_allocated(device) if device.type == 'cuda'
                      else _peak_resident()) - imported)
    return peaks


def _peak_resident() -> int:
    """
    Highest resident memory of this process so far, bytes.

    Not getrusage's ru_maxrss, which a child inherits from the process that started it.
    """
    status = Path('/proc/self/status').read_text()
    match = re.search(r'^VmHWM:\s+(\d+) kB', status, re.MULTILINE)
    if match is None:
        raise OSError('/proc/self/status has no VmHWM')
    return 1024 * int(match[1])


def first_call_s(call: Callable[[], Answer]) -> float:
    """Seconds that a first call takes: whatever is compiled or allocated once is in it."""
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s
