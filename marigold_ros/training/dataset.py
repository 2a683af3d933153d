"""Mixes data sets: endless batches of views, each batch from one set, that can start anywhere."""

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
from marigold_ros.training.config import TrainingConfig
from marigold_ros.training.data_config import FrameSetConfig
from marigold_ros.training.views import random_view, ViewBatch

# Frames of each set that are read before the first step; the others are checked as they come.
CHECKED_FRAMES = 256
# Streams of random numbers that all belong to one seed.
CHOICE_STREAM, ORDER_STREAM, VIEW_STREAM = range(3)


def open_frame_set(config: FrameSetConfig, cache: Path) -> FrameSet:
    """
    Open a data set.

    Parameters
    ----------
    config : FrameSetConfig
    cache : Path
        Folder for the frames of a bag.

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
                           config.camera_info_topic)
        return open_bag_as_shards(path, topics, cache)
    return RgbdFolder(path) if config.reader == 'rgbd_folder' else ShardFrames(path)


def open_frame_sets(configs: Sequence[FrameSetConfig], cache: Path) -> list[FrameSet]:
    """
    Open data sets and check frames of each.

    Raises
    ------
    MarigoldError
        If one cannot be opened, is empty, or a frame breaks a rule; names file and rule.
    """
    opened = []
    for number, config in enumerate(configs):
        frames = open_frame_set(config, cache / str(number))
        check_frame_set(f'{config.reader} set {config.path}', frames, CHECKED_FRAMES)
        opened.append(frames)
    return opened


class ViewKey(NamedTuple):
    """One view to take: of which set and frame, and its number, which seeds it."""

    frame_set: int
    frame: int
    number: int


class MixedBatches(Sampler[list[ViewKey]]):
    """
    Endless batches, each from one set; a pure function of the seed, so that any may come first.

    Parameters
    ----------
    lengths : sequence of int
        Frames of each set; every set is gone through in ever new random orders.
    weights : sequence of float
        Share of the batches of each set.
    batch_size : int
        Views of a batch.
    seed : int
    first, stride : int
        Only the batches number first, first + stride, ...: where a resumed training goes on, and
        what one of several processes gets.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float], batch_size: int,
                 seed: int, *, first: int = 0, stride: int = 1) -> None:
        self._lengths = lengths
        self._shares = np.array(weights) / np.sum(weights)
        self._batch_size = batch_size
        self._seed = seed
        self._places = slice(first, None, stride)

    def __iter__(self) -> Iterator[list[ViewKey]]:
        return islice(self._all(), self._places.start, None, self._places.step)

    def _all(self) -> Iterator[list[ViewKey]]:
        choice = np.random.default_rng([self._seed, CHOICE_STREAM])
        orders = [self._order(number) for number in range(len(self._lengths))]
        for batch in count():
            chosen = int(choice.choice(len(orders), p=self._shares))
            yield [ViewKey(chosen, next(orders[chosen]), batch * self._batch_size + place)
                   for place in range(self._batch_size)]

    def _order(self, number: int) -> Iterator[int]:
        random = np.random.default_rng([self._seed, ORDER_STREAM, number])
        while True:
            yield from random.permutation(self._lengths[number]).tolist()


def mixed_batches(frame_sets: Sequence[FrameSet], config: TrainingConfig, *,
                  first: int = 0, stride: int = 1) -> MixedBatches:
    """Say which views the batches of a training are made of; see `MixedBatches`."""
    return MixedBatches([len(frames) for frames in frame_sets],
                        [frames.weight for frames in config.train],
                        config.schedule.device_batch_size, config.seed,
                        first=first, stride=stride)


class _Views(Dataset[ViewBatch]):
    """Takes the view that a ViewKey asks for."""

    def __init__(self, frame_sets: Sequence[FrameSet], config: TrainingConfig) -> None:
        self._frame_sets = frame_sets
        self._config = config

    def __getitem__(self, key: ViewKey) -> ViewBatch:
        frame = self._frame_sets[key.frame_set][key.frame]
        check_frame(frame)
        return random_view(frame, self._config.train[key.frame_set].size,
                           self._config.augmentation,
                           np.random.default_rng([self._config.seed, VIEW_STREAM, key.number]))


def _ignore_interrupt(worker: int) -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the one that trains and saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def view_loader(frame_sets: Sequence[FrameSet], config: TrainingConfig, *,
                first: int = 0, stride: int = 1) -> DataLoader[ViewBatch]:
    """
    Load the endless batches of a training.

    Parameters
    ----------
    frame_sets : sequence of FrameSet
        One for each of `config.train`.
    config : TrainingConfig
    first, stride : int
        See `MixedBatches`.

    Returns
    -------
    DataLoader
        Of ViewBatch; the number of its worker processes changes nothing but the time.
    """
    batches = mixed_batches(frame_sets, config, first=first, stride=stride)
    to_gpu = torch.cuda.is_available() and config.hardware.device != 'cpu'
    return DataLoader(_Views(frame_sets, config), batch_sampler=batches,
                      num_workers=config.hardware.workers, collate_fn=ViewBatch.join,
                      worker_init_fn=_ignore_interrupt, pin_memory=to_gpu)
