"""Batches of views from frames that stay in the device's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from marigold_ros.data.frames import check_frame, FrameSet
from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.training.config import TrainingConfig
from marigold_ros.training.dataset import mixed_batches, VIEW_STREAM
from marigold_ros.training.views import FrameStack, random_views, ViewBatch

# Views whose crops have one size and are resized together: enough to occupy a GPU, few enough for
# several sizes in a batch.
GROUP = 128
# Frames that go to the device at once: copied one by one they took four times as long.
CHUNK = 256


def resident_batches(
    frame_sets: Sequence[FrameSet], config: TrainingConfig, device: torch.device, *,
    first: int = 0, stride: int = 1,
) -> Iterator[ViewBatch]:
    """
    Load every frame into a device's memory, and take endless batches of views there.

    Parameters
    ----------
    frame_sets : sequence of FrameSet
        One for each of `config.train`; the frames of each have one size.
    config : TrainingConfig
    device : torch.device
    first, stride : int
        See `MixedBatches`.

    Returns
    -------
    iterator of ViewBatch
        As `view_loader` gives them, but that `GROUP` views at a time share the size of their
        crops, not their places.

    Raises
    ------
    MarigoldError
        If a frame breaks a rule or has another size than the set's first, or a set does not fit.
    """
    stacks = [load_stack(frames, device) for frames in frame_sets]
    return _views(stacks, frame_sets, config, first, stride)


def _views(stacks: Sequence[FrameStack], frame_sets: Sequence[FrameSet], config: TrainingConfig,
           first: int, stride: int) -> Iterator[ViewBatch]:
    """Take views of frames that are loaded."""
    for keys in mixed_batches(frame_sets, config, first=first, stride=stride):
        number = keys[0].frame_set
        random = np.random.default_rng([config.seed, VIEW_STREAM, keys[0].number])
        yield ViewBatch.join([
            random_views(stacks[number], [key.frame for key in keys[start:start + GROUP]],
                         config.train[number].size, config.augmentation, random)
            for start in range(0, len(keys), GROUP)])


def load_stack(frames: FrameSet, device: torch.device) -> FrameStack:
    """Load all frames of a set; raise a MarigoldError if one breaks a rule, or they do not fit."""
    one = FrameStack.of(frames[0])
    whole = _empty_stack(one, len(frames), device)
    for start in range(0, len(frames), CHUNK):
        chunk = [frames[index] for index in range(start, min(start + CHUNK, len(frames)))]
        for frame in chunk:
            check_frame(frame)
            if frame.rgb.shape != one.rgb.shape[1:]:
                raise InputError(f'{frame.name}: with `frames_on_device` the frames of a set must '
                                 f'have one size; got {list(frame.rgb.shape[:2])} after '
                                 f'{list(one.rgb.shape[1:3])}')
        for field, name in zip(whole, FrameStack._fields):
            field[start:start + len(chunk)] = torch.from_numpy(
                np.stack([getattr(frame, name) for frame in chunk]))
    return whole


def _empty_stack(one: FrameStack, count: int, device: torch.device) -> FrameStack:
    """Make room for so many frames like one."""
    try:
        return FrameStack(*(torch.empty((count, *field.shape[1:]), dtype=field.dtype,
                                        device=device) for field in one))
    except RuntimeError as err:  # on the CPU it is no torch.OutOfMemoryError
        gib = count * sum(field.nbytes for field in one) / 2**30
        raise ConfigError(f'`frames_on_device` needs sets that fit into the memory of {device}; '
                          f'got one of {count} frames, {gib:.1f} GiB') from err
