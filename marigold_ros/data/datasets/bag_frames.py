"""Take the frames for fine-tuning out of a bag of images, depth and camera_info."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
import json
from pathlib import Path
import shutil

import numpy as np
from tqdm import tqdm

from marigold_ros.data.bags.stream import BagTopics, read_bag_frames
from marigold_ros.data.datasets.shard_frames import ShardFrames
from marigold_ros.data.frames import check_frame, DepthFrame
from marigold_ros.data.shards import write_description, write_shard
from marigold_ros.depth.errors import InputError

FRAMES_PER_SHARD = 32
DESCRIPTION = 'shards.json'


def open_bag_frames(bag: Path, topics: BagTopics, folder: Path) -> ShardFrames:
    """
    Open a bag as a data set; bags have no random access, so its frames are written out once.

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
