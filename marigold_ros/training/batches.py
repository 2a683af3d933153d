"""Infinite, resumable batches of augmented views from several data sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
import signal
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from marigold_ros.data.bags.bag_frames import BagTopics
from marigold_ros.data.datasets.bag import open_bag_as_shards
from marigold_ros.data.datasets.hypersim import open_hypersim
from marigold_ros.data.datasets.rgbd_folder import RgbdFolder
from marigold_ros.data.datasets.virtual_kitti import open_virtual_kitti
from marigold_ros.data.frames import check_frame, check_frame_set, FrameSet
from marigold_ros.data.shards import ShardFrames
from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.training.config import FrameSetConfig, TrainingConfig
from marigold_ros.training.views import FrameStack, random_view, random_views, ViewBatch

# Frames of each set that are checked before training; the others are checked when they are read.
CHECKED_FRAMES = 256
# Views with one crop size, which are resized together: enough to occupy a GPU, few enough for
# several crop sizes in a batch.
CROP_GROUP = 128
# Frames copied to the device at once: one by one took four times as long.
COPY_CHUNK = 256
# Independent random streams of one seed.
CHOICE_STREAM, ORDER_STREAM, VIEW_STREAM = range(3)


def open_frame_set(config: FrameSetConfig, cache: Path) -> FrameSet:
    """
    Open a data set.

    Parameters
    ----------
    config : FrameSetConfig
    cache : Path
        Folder for the frames converted from a bag.

    Raises
    ------
    MarigoldError
        If it cannot be opened.
    """
    path = Path(config.path)
    if config.reader == 'hypersim':
        return open_hypersim(path, Path(str(config.file_list)))
    if config.reader == 'virtual_kitti':
        return open_virtual_kitti(path, Path(str(config.file_list)))
    if config.reader == 'bag':
        topics = BagTopics(str(config.image_topic), str(config.depth_topic),
                           config.camera_info_topic, config.tolerance_ms,
                           input_rectified=config.input_rectified)
        return open_bag_as_shards(path, topics, cache)
    return RgbdFolder(path) if config.reader == 'rgbd_folder' else ShardFrames(path)


def open_frame_sets(configs: Sequence[FrameSetConfig], cache: Path) -> list[FrameSet]:
    """
    Open data sets and check the first frames of each.

    Raises
    ------
    MarigoldError
        If a set cannot be opened or is empty, or a frame is invalid; names file and rule.
    """
    opened = []
    for number, config in enumerate(configs):
        frames = open_frame_set(config, cache / str(number))
        check_frame_set(f'{config.reader} set {config.path}', frames, CHECKED_FRAMES)
        opened.append(frames)
    return opened


class ViewKey(NamedTuple):
    """Data set and frame of a view, and the number that seeds its augmentation."""

    frame_set: int
    frame: int
    number: int


class MixedBatchSampler(Sampler[list[ViewKey]]):
    """
    Sample infinite batches, each from one data set, in an order that depends only on the seed.

    Parameters
    ----------
    lengths : sequence of int
        Frames of each set; each pass over a set has a new random order.
    weights : sequence of float
        Relative share of each set in the batches.
    batch_size : int
        Views per batch.
    seed : int
    first, stride : int
        Yield only batches first, first + stride, ...: for resuming, and for one of several
        processes.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float], batch_size: int,
                 seed: int, *, first: int = 0, stride: int = 1) -> None:
        self._lengths = lengths
        self._shares = np.array(weights) / np.sum(weights)
        self._batch_size = batch_size
        self._seed = seed
        self._yielded = slice(first, None, stride)

    def __iter__(self) -> Iterator[list[ViewKey]]:
        return islice(self._infinite_batches(), self._yielded.start, None, self._yielded.step)

    def _infinite_batches(self) -> Iterator[list[ViewKey]]:
        choice = np.random.default_rng([self._seed, CHOICE_STREAM])
        orders = [self._shuffled_frames(number) for number in range(len(self._lengths))]
        for batch in count():
            chosen = int(choice.choice(len(orders), p=self._shares))
            yield [ViewKey(chosen, next(orders[chosen]), batch * self._batch_size + position)
                   for position in range(self._batch_size)]

    def _shuffled_frames(self, number: int) -> Iterator[int]:
        random = np.random.default_rng([self._seed, ORDER_STREAM, number])
        while True:
            yield from random.permutation(self._lengths[number]).tolist()


def make_batch_sampler(frame_sets: Sequence[FrameSet], config: TrainingConfig, *,
                       first: int = 0, stride: int = 1) -> MixedBatchSampler:
    """Return the sampler of a training; see `MixedBatchSampler`."""
    return MixedBatchSampler([len(frames) for frames in frame_sets],
                             [frames.weight for frames in config.train],
                             config.schedule.device_batch_size, config.seed,
                             first=first, stride=stride)


class RandomViewDataset(Dataset[ViewBatch]):
    """Return the random view of a ViewKey."""

    def __init__(self, frame_sets: Sequence[FrameSet], config: TrainingConfig) -> None:
        self._frame_sets = frame_sets
        self._config = config

    def __getitem__(self, key: ViewKey) -> ViewBatch:
        frame = self._frame_sets[key.frame_set][key.frame]
        check_frame(frame)
        return random_view(frame, self._config.train[key.frame_set].size,
                           self._config.augmentation,
                           np.random.default_rng([self._config.seed, VIEW_STREAM, key.number]))


def _ignore_sigint(worker: int) -> None:
    """Ignore SIGINT in a worker process; the training process handles it and saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_view_loader(frame_sets: Sequence[FrameSet], config: TrainingConfig, *,
                     first: int = 0, stride: int = 1) -> DataLoader[ViewBatch]:
    """
    Load infinite batches in worker processes.

    Parameters
    ----------
    frame_sets : sequence of FrameSet
        One for each of `config.train`.
    config : TrainingConfig
    first, stride : int
        See `MixedBatchSampler`.

    Returns
    -------
    DataLoader
        Yields ViewBatch; the batches do not depend on the number of workers.
    """
    batches = make_batch_sampler(frame_sets, config, first=first, stride=stride)
    to_gpu = torch.cuda.is_available() and config.hardware.device != 'cpu'
    return DataLoader(RandomViewDataset(frame_sets, config), batch_sampler=batches,
                      num_workers=config.hardware.workers, collate_fn=ViewBatch.concatenate,
                      worker_init_fn=_ignore_sigint, pin_memory=to_gpu)


def load_resident_batches(
    frame_sets: Sequence[FrameSet], config: TrainingConfig, device: torch.device, *,
    first: int = 0, stride: int = 1,
) -> Iterator[ViewBatch]:
    """
    Load every frame into a device's memory, and compute infinite batches of views there.

    Parameters
    ----------
    frame_sets : sequence of FrameSet
        One for each of `config.train`; the frames of a set have one size.
    config : TrainingConfig
    device : torch.device
    first, stride : int
        See `MixedBatchSampler`.

    Returns
    -------
    iterator of ViewBatch
        Like those of `make_view_loader`, but groups of `CROP_GROUP` views have one crop size, at
        different positions.

    Raises
    ------
    MarigoldError
        If a frame is invalid or differs in size from the set's first, or memory is too small.
    """
    # Sets that differ only in the size of their views share their frames.
    sources = [each.model_copy(update={'size': None, 'weight': None}) for each in config.train]
    loaded: dict[FrameSetConfig, FrameStack] = {}
    for source, frames in zip(sources, frame_sets):
        if source not in loaded:
            loaded[source] = load_stack(frames, device)
    stacks = [loaded[source] for source in sources]

    def load_views(keys: list[ViewKey]) -> ViewBatch:
        number = keys[0].frame_set
        random = np.random.default_rng([config.seed, VIEW_STREAM, keys[0].number])
        return ViewBatch.concatenate([
            random_views(stacks[number], [key.frame for key in keys[start:start + CROP_GROUP]],
                         config.train[number].size, config.augmentation, random)
            for start in range(0, len(keys), CROP_GROUP)])

    return map(load_views, make_batch_sampler(frame_sets, config, first=first, stride=stride))


def load_stack(frames: FrameSet, device: torch.device) -> FrameStack:
    """Load all frames of a set; raise MarigoldError if one is invalid or memory is too small."""
    template = FrameStack.from_frame(frames[0])
    stack = _allocate_stack(template, len(frames), device)
    for start in range(0, len(frames), COPY_CHUNK):
        chunk = [frames[index] for index in range(start, min(start + COPY_CHUNK, len(frames)))]
        for frame in chunk:
            check_frame(frame)
            if frame.rgb.shape != template.rgb.shape[1:]:
                raise InputError(f'{frame.name}: with `frames_on_device` the frames of a set must '
                                 f'have one size; got {list(frame.rgb.shape[:2])} after '
                                 f'{list(template.rgb.shape[1:3])}')
        for field, name in zip(stack, FrameStack._fields):
            field[start:start + len(chunk)] = torch.from_numpy(
                np.stack([getattr(frame, name) for frame in chunk]))
    return stack


def _allocate_stack(template: FrameStack, count: int, device: torch.device) -> FrameStack:
    """Allocate memory for `count` frames of the size of `template`."""
    try:
        return FrameStack(*(torch.empty((count, *field.shape[1:]), dtype=field.dtype,
                                        device=device) for field in template))
    except RuntimeError as err:  # torch.OutOfMemoryError on a GPU only
        gib = count * sum(field.nbytes for field in template) / 2**30
        raise ConfigError(f'`frames_on_device` needs sets that fit into the memory of {device}; '
                          f'got one of {count} frames, {gib:.1f} GiB') from err
