"""Frames with true depth, from a bag, from rendered shards or from an RGB-D folder, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bag_messages import image_fields, matched_by_stamp
from marigold_ros.data.bags import Bag, open_bag
from marigold_ros.data.rgbd_folder import read_rgbd_folder
from marigold_ros.data.scenes.shards import read_shards
from marigold_ros.depth.errors import BagError
from marigold_ros.evaluation.boundaries import boundary_f1
from marigold_ros.evaluation.metrics import align, depth_metrics
from marigold_ros.geometry.camera import Rectifier
from marigold_ros.messages.camera_info import camera_from_fields, CameraInfoFields
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, RgbImage

BAG_TOPICS = ('/camera/image_raw', '/camera/depth_gt/image_rect', '/camera/camera_info')
BLOCK_NS = 10 ** 9
# Predictions are clipped to this range, the far end raised to the frame's largest measurement.
MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 80.0


@dataclass(frozen=True, eq=False)
class TruthFrame:
    """
    An image and its true depth.

    Attributes
    ----------
    camera : str
        Whose stream the frame belongs to.
    block : str
        Frames of one block resemble each other: a bootstrap draws whole blocks.
    rgb : uint8 [H, W, 3]
        Rectified.
    depth_m : float32 [H', W']
        Along Z, m; NaN unknown, +inf sky.  It covers what the image covers, at its own size.
    """

    camera: str
    block: str
    rgb: RgbImage
    depth_m: FloatImage


@dataclass(frozen=True)
class DataSet:
    """
    Frames that are averaged together.

    Attributes
    ----------
    name : str
    block : str
        What one of its blocks is, in words.
    mean_of_blocks : bool
        Whether every block counts the same in a mean, or every frame.
    frames : callable
        Reads the frames anew, in the order of time where there is one.
    """

    name: str
    block: str
    mean_of_blocks: bool
    frames: Callable[[], Iterator[TruthFrame]]


def bag_data_set(path: Path) -> DataSet:
    """Describe a bag with raw images, their calibration and rectified depth (`BAG_TOPICS`)."""
    return DataSet(f'bag {path.name}', 'second of the bag', False, lambda: _bag_frames(path))


def shards_data_set(folder: Path) -> DataSet:
    """Describe a folder of rendered shards."""
    return DataSet(f'rendered frames {folder.name}', 'scene', False, lambda: _shard_frames(folder))


def folder_data_set(folder: Path) -> DataSet:
    """Describe an RGB-D folder: the mean over its sets of the mean over each set's frames."""
    return DataSet(f'RGB-D folder {folder.name}', 'set', True, lambda: _folder_frames(folder))


def score(affine_invariant_depth: NDArray[Any], depth_m: FloatImage) -> dict[str, float]:
    """
    Compare one prediction with the truth, at the truth's size.

    Scale and shift are fitted by least squares in depth on the measured pixels, the result is
    clipped to `MIN_DEPTH_M` and `MAX_DEPTH_M` or the largest measurement, whichever is more.

    Parameters
    ----------
    affine_invariant_depth : float [H, W]
        Averaged by area where the truth is smaller.
    depth_m : float32 [H', W']
        NaN unknown, +inf sky; sky counts in boundary_f1 only.

    Returns
    -------
    dict of str to float
        All of `depth_metrics`, and boundary_f1, which may be NaN.

    Raises
    ------
    InputError
        If nothing was measured.
    """
    height, width = depth_m.shape
    if affine_invariant_depth.shape != depth_m.shape:
        affine_invariant_depth = np.asarray(cv2.resize(
            affine_invariant_depth, (width, height), interpolation=cv2.INTER_AREA))
    measured = np.isfinite(depth_m)
    farthest_m = np.float32(np.max(depth_m, where=measured, initial=MAX_DEPTH_M))
    # The range is open, so its end must lie above the largest measurement, in float32 as well.
    end_m = float(np.nextafter(farthest_m, np.float32(np.inf)))
    aligned_m = align(affine_invariant_depth, depth_m, measured, alignment='least_square',
                      min_depth_m=MIN_DEPTH_M, max_depth_m=end_m)
    metrics = depth_metrics(aligned_m, depth_m, measured, alignment=None,
                            min_depth_m=MIN_DEPTH_M, max_depth_m=end_m)
    return {**metrics, 'boundary_f1': boundary_f1(aligned_m, depth_m)}


def _bag_frames(path: Path) -> Iterator[TruthFrame]:
    rectifier = None
    with open_bag(path) as bag:
        topics = [_recorded(bag, name) for name in BAG_TOPICS]
        first_ns = None
        for stamp_ns, (image, depth, info) in matched_by_stamp(bag, topics):
            first_ns = stamp_ns if first_ns is None else first_ns
            camera = camera_from_fields(CameraInfoFields(
                info.height, info.width, info.distortion_model, info.d, info.k, info.r, info.p))
            if rectifier is None or rectifier.camera != camera:
                rectifier = Rectifier(camera)
            depth_m = unpack_depth(image_fields(depth))
            depth_m[~rectifier.valid] = np.nan
            yield TruthFrame('camera', f'second {(stamp_ns - first_ns) // BLOCK_NS}',
                             rectifier.rectify(decode_rgb(image_fields(image))), depth_m)
    if first_ns is None:
        raise BagError(f'{path} has no {", ".join(topics)} of one stamp')


def _recorded(bag: Bag, name: str) -> str:
    """Find the topic, else the compressed one below it."""
    compressed = f'{name}/compressed'
    return bag.topic(compressed if compressed in {t.name for t in bag.topics} else name).name


def _shard_frames(folder: Path) -> Iterator[TruthFrame]:
    shards = read_shards(folder)
    views = json.loads((folder / 'shards.json').read_text(encoding='utf-8'))['views_per_scene']
    for shard in shards:
        for i in range(len(shard.rgb)):
            yield TruthFrame('camera', f'scene {(shard.first + i) // views}',
                             np.array(shard.rgb[i]), np.array(shard.depth_m[i]))


def _folder_frames(folder: Path) -> Iterator[TruthFrame]:
    for frame in read_rgbd_folder(folder):
        yield TruthFrame(frame.set_name, frame.set_name, frame.read_rgb(), frame.read_depth_m())
