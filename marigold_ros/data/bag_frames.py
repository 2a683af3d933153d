"""Take the frames for fine-tuning out of a bag of images, depth and camera_info."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
import json
import logging
from pathlib import Path
import shutil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from marigold_ros.data.bag_messages import COMPRESSED_IMAGE, IMAGE, image_fields, stamp_ns
from marigold_ros.data.bags import Bag, open_bag
from marigold_ros.data.frames import check_frame, DepthFrame
from marigold_ros.data.scenes.shards import write_description, write_shard
from marigold_ros.data.shard_frames import ShardFrames
from marigold_ros.depth.errors import BagError, InputError
from marigold_ros.geometry.camera import Camera, Rectifier
from marigold_ros.messages.camera_info import camera_from_fields, CameraInfoFields
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb

CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
# Less than half a period at 30 Hz: depth that is farther away belongs to another image.
MAX_STAMP_DIFFERENCE_NS = 15_000_000
FRAMES_PER_SHARD = 32
DESCRIPTION = 'shards.json'

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BagTopics:
    """
    Which topics of a bag to learn from.

    Attributes
    ----------
    image : str
        sensor_msgs Image or CompressedImage, of any colour encoding.
    depth : str
        The same with 16UC1 (mm) or 32FC1 (m), registered to the image and of its size.
    camera_info : str or None
        None is the image's sibling, as image_transport names it.
    """

    image: str
    depth: str
    camera_info: str | None = None

    @property
    def calibration(self) -> str:
        """Name of the topic of the image's calibration."""
        if self.camera_info is not None:
            return self.camera_info
        return _raw_name(self.image).rpartition('/')[0] + '/camera_info'


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
        count = _write_frames(_bag_frames(bag, topics), folder)
        if count == 0:
            raise BagError(f'{bag} has no image of {topics.image} with a depth of {topics.depth} '
                           f'within {MAX_STAMP_DIFFERENCE_NS / 1e6:.0f} ms')
        write_description(folder, {'source': source, 'frames': count})
    return ShardFrames(folder)


def _write_frames(frames: Iterator[DepthFrame], folder: Path) -> int:
    """Write frames as shards and return their number; those without any depth are left out."""
    pending: list[DepthFrame] = []
    written = dropped = 0

    def flush() -> None:
        write_shard(
            folder, written // FRAMES_PER_SHARD, np.stack([frame.rgb for frame in pending]),
            np.stack([np.where(frame.valid, frame.depth_m, np.float32(np.nan))
                      for frame in pending]),
            np.zeros((len(pending), 3, 3)), ['bag'] * len(pending), written)

    for frame in tqdm(frames, 'frames of the bag', unit='frame'):
        if not frame.valid.any():
            dropped += 1
            continue
        check_frame(frame)
        pending.append(frame)
        if len(pending) == FRAMES_PER_SHARD:
            flush()
            written += len(pending)
            pending.clear()
    if pending:
        flush()
    if dropped:
        logger.warning('%d frames have no depth at all and are left out', dropped)
    return written + len(pending)


def _bag_frames(path: Path, topics: BagTopics) -> Iterator[DepthFrame]:
    """Read the frames one by one, in the rectified image wherever the calibration asks for it."""
    with open_bag(path) as bag:
        alignment = _Alignment(_camera(bag, topics.calibration), topics)
        shape = None
        for stamp, image, depth in _pairs(bag, topics):
            name = f'{path}, {topics.image} at {stamp} ns'
            try:
                rgb = alignment.image(decode_rgb(image_fields(image)))
                depth_m = alignment.depth(unpack_depth(image_fields(depth)))
            except InputError as err:
                raise InputError(f'{name}: {err}') from err
            shape = rgb.shape if shape is None else shape
            if rgb.shape != shape:
                raise InputError(f'{name}: all images must have one size; got {list(rgb.shape)} '
                                 f'after {list(shape)}')
            yield DepthFrame(name, rgb, depth_m, valid=np.isfinite(depth_m))


class _Alignment:
    """Brings image and depth into the rectified image, where the topics are named as raw."""

    def __init__(self, camera: Camera, topics: BagTopics) -> None:
        raw = {topic: not _raw_name(topic).rpartition('/')[2].startswith('image_rect')
               for topic in (topics.image, topics.depth)}
        distorted = camera.needs_rectification
        if distorted and raw[topics.depth] and not raw[topics.image]:
            raise BagError(f'{topics.depth} is raw while {topics.image} is rectified, so that '
                           'their pixels do not match; choose two of a kind')
        self._rectifier = Rectifier(camera) if distorted and raw[topics.image] else None
        self._depth_is_raw = raw[topics.depth]

    def image(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return rgb if self._rectifier is None else self._rectifier.rectify(rgb)

    def depth(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._rectifier is None:
            return depth_m
        if self._depth_is_raw:
            return self._rectifier.rectify_depth(depth_m)
        if depth_m.shape == self._rectifier.valid.shape:
            depth_m[~self._rectifier.valid] = np.nan
        return depth_m


def _raw_name(topic: str) -> str:
    """Drop what image_transport appends."""
    return topic.removesuffix('/compressed').removesuffix('/compressedDepth')


def _camera(bag: Bag, topic: str) -> Camera:
    """Read the first calibration."""
    for message in bag.messages([bag.topic(topic, CAMERA_INFO).name]):
        info = bag.decode(message)
        return camera_from_fields(CameraInfoFields(
            info.height, info.width, info.distortion_model, info.d, info.k, info.r, info.p,
            info.binning_x, info.binning_y,
            (info.roi.x_offset, info.roi.y_offset, info.roi.height, info.roi.width)))
    raise BagError(f'{bag.path} has no message of {topic}')


def _pairs(bag: Bag, topics: BagTopics) -> Iterator[tuple[int, Any, Any]]:
    """Yield stamp, image and the depth of the nearest stamp; first the stamps are read alone."""
    names = [bag.topic(name, IMAGE, COMPRESSED_IMAGE).name
             for name in (topics.image, topics.depth)]
    stamps: dict[str, list[int]] = {name: [] for name in names}
    for message in bag.messages(names):
        stamps[message.topic].append(stamp_ns(bag.decode(message)))
    image_of = nearest_stamps(stamps[topics.image], stamps[topics.depth])
    waiting: dict[int, dict[str, Any]] = {}
    matched = set(image_of.values())
    for message in bag.messages(names):
        decoded = bag.decode(message)
        stamp: int | None = stamp_ns(decoded)
        if message.topic == topics.depth:
            stamp = image_of.get(stamp_ns(decoded))
        if stamp is None or stamp not in matched:
            continue
        pair = waiting.setdefault(stamp, {})
        pair[message.topic] = decoded
        if len(pair) == len(names):
            del waiting[stamp]
            yield stamp, pair[topics.image], pair[topics.depth]


def nearest_stamps(images_ns: list[int], depths_ns: list[int]) -> dict[int, int]:
    """
    Match every image with the depth nearest in time, one to one.

    Parameters
    ----------
    images_ns, depths_ns : list of int
        Stamps, ns, in any order.

    Returns
    -------
    dict of int to int
        Stamp of the image by the stamp of its depth; pairs that are farther apart than
        `MAX_STAMP_DIFFERENCE_NS` are left out, and of two images with one depth the farther.
    """
    found: dict[int, int] = {}
    depths = np.unique(np.array(depths_ns, np.int64))
    for image in sorted(set(images_ns)) if len(depths) else ():
        place = int(np.searchsorted(depths, image))
        near = min((int(stamp) for stamp in depths[max(place - 1, 0):place + 1]),
                   key=lambda stamp: abs(stamp - image))
        difference = abs(near - image)
        if difference <= MAX_STAMP_DIFFERENCE_NS and (
                near not in found or difference < abs(near - found[near])):
            found[near] = image
    return found
