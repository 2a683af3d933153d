"""Use a bag as a data set: read directly for evaluation, as shards for training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
import json
from pathlib import Path
import shutil

import numpy as np

from marigold_ros.data.bags.bag_frames import BagTopics, count_frames, read_bag_frames
from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import check_frame, DepthFrame, Part, WHOLE
from marigold_ros.data.shards import DESCRIPTION, ShardFrames, write_description, write_shard
from marigold_ros.depth.errors import InputError
from marigold_ros.progress import progress_bar

FRAMES_PER_SHARD = 32
# Topics of the bags that this package records.
SAMPLE_TOPICS = BagTopics('/camera/image_raw', '/camera/depth_gt/image_rect')


def bag_data_set(path: Path, topics: BagTopics = SAMPLE_TOPICS, part: Part = WHOLE) -> DataSet:
    """
    Open a bag with images and depth as a data set for evaluation.

    Parameters
    ----------
    path : Path
        Any bag that `open_bag` reads; of a truncated MCAP file, the complete messages are read.
    topics : BagTopics
    part : Part
        See `read_bag_frames`.

    Returns
    -------
    DataSet
        A block is a second of the bag.

    Raises
    ------
    BagError
        If the bag cannot be read, is empty or lacks one of the topics; while frames are read, if
        no image has depth within the tolerance.
    InputError
        While frames are read, if `check_frame` rejects each of the first ten.
    """
    notes: list[str] = []
    return DataSet(f'bag {path.name}', 'second of the bag', False,
                   lambda: read_bag_frames(path, topics, notes, part),
                   count=len(part.split(count_frames(path, topics))), is_sequence=True,
                   notes=notes)


def open_bag_as_shards(bag: Path, topics: BagTopics, folder: Path) -> ShardFrames:
    """
    Open a bag for training; its frames are written to shards once, for random access.

    Parameters
    ----------
    bag : Path
        Any bag that `open_bag` reads.
    topics : BagTopics
    folder : Path
        Folder for the shards; those of an earlier call are reused if bag and topics are the same.

    Raises
    ------
    BagError
        If the bag cannot be read, lacks one of the topics or has no image with depth.
    InputError
        If `check_frame` rejects a frame.
    """
    # As JSON returns it.
    source = {'bag': str(bag.resolve()), **asdict(topics),
              'references': list(topics.references)}
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

    for frame in progress_bar(frames, 'frames of the bag', unit='frame'):
        check_frame(frame)
        shape = frame.rgb.shape if shape is None else shape
        if frame.rgb.shape != shape:
            raise InputError(f'{frame.name}: all images must have the same size; '
                             f'got {list(frame.rgb.shape)} after {list(shape)}')
        pending.append(frame)
        if len(pending) == FRAMES_PER_SHARD:
            flush()
            written += len(pending)
            pending.clear()
    if pending:
        flush()
    return written + len(pending)
