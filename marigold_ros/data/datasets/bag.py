"""A bag of images with depth as a data set: to evaluate on as it is, to train on as shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
import json
from pathlib import Path
import shutil

import numpy as np
from tqdm import tqdm

from marigold_ros.data.bags.bag_frames import BagTopics, frame_count, read_bag_frames
from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import check_frame, DepthFrame
from marigold_ros.data.shards import DESCRIPTION, ShardFrames, write_description, write_shard
from marigold_ros.depth.errors import InputError

FRAMES_PER_SHARD = 32
# What the recordings of this package hold.
SAMPLE_TOPICS = BagTopics('/camera/image_raw', '/camera/depth_gt/image_rect')


def bag_data_set(path: Path, topics: BagTopics = SAMPLE_TOPICS) -> DataSet:
    """
    Describe a bag with images and their depth.

    Parameters
    ----------
    path : Path
        Whatever `open_bag` reads; an MCAP file that was cut off is read as far as it goes.
    topics : BagTopics

    Returns
    -------
    DataSet
        A block is a second of the bag.

    Raises
    ------
    BagError
        If the bag cannot be read, is empty or has not the topics; while frames are read, if no
        image has a depth within the tolerance.
    InputError
        While frames are read, if the first one breaks a rule of `check_frame`.
    """
    notes: list[str] = []
    return DataSet(f'bag {path.name}', 'second of the bag', False,
                   lambda: read_bag_frames(path, topics, notes),
                   count=frame_count(path, topics), notes=notes)


def open_bag_as_shards(bag: Path, topics: BagTopics, folder: Path) -> ShardFrames:
    """
    Open a bag to train on; bags have no random access, so its frames are written out once.

    Parameters
    ----------
    bag : Path
        Whatever `open_bag` reads.
    topics : BagTopics
    folder : Path
        For the frames; what an earlier call left there is used if bag and topics are the same.

    Raises
    ------
    BagError
        If the bag cannot be read, or has not the topics or no image with depth.
    InputError
        If a frame breaks a rule of `check_frame`.
    """
    source = {'bag': str(bag.resolve()), **asdict(topics)}
    description = folder / DESCRIPTION
    if not description.is_file() or json.loads(description.read_text())['source'] != source:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        count = _write_frames(read_bag_frames(bag, topics), folder)
        write_description(folder, {'source': source, 'frames': count})
    return ShardFrames(folder)


def _write_frames(frames: Iterator[DepthFrame], folder: Path) -> int:
    """Write frames as shards and return their number."""
    pending: list[DepthFrame] = []
    written, shape = 0, None

    def flush() -> None:
        write_shard(
            folder, written // FRAMES_PER_SHARD, np.stack([frame.rgb for frame in pending]),
            np.stack([frame.known_depth_m for frame in pending]),
            np.zeros((len(pending), 3, 3)), ['bag'] * len(pending), written)

    for frame in tqdm(frames, 'frames of the bag', unit='frame'):
        check_frame(frame)
        shape = frame.rgb.shape if shape is None else shape
        if frame.rgb.shape != shape:
            raise InputError(f'{frame.name}: all images must have one size; '
                             f'got {list(frame.rgb.shape)} after {list(shape)}')
        pending.append(frame)
        if len(pending) == FRAMES_PER_SHARD:
            flush()
            written += len(pending)
            pending.clear()
    if pending:
        flush()
    return written + len(pending)
