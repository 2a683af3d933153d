"""
Measure how much the depth of a standing scene jumps from frame to frame of a moving camera.

    python -m marigold_ros.evaluation.flicker --bag sample/living_room

Every pixel of a frame is found in the frame before through its true depth and the true motion.
The depth predicted there is moved into the current frame, and what the current prediction differs
by is flicker.  Hidden surfaces do not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
import torch

from marigold_ros.data.bag_messages import image_fields, matched_by_stamp
from marigold_ros.data.bags import Bag, open_bag
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import BagError, MarigoldError
from marigold_ros.depth.types import FloatImage, RgbImage
from marigold_ros.evaluation.metrics import align
from marigold_ros.geometry.camera import Rectifier
from marigold_ros.geometry.rigid import pose as pose_matrix
from marigold_ros.geometry.unproject import project, unproject
from marigold_ros.messages.camera_info import camera_from_fields, CameraInfoFields
from marigold_ros.messages.depth import unpack_depth
from marigold_ros.messages.image import decode_rgb

NAME = 'flicker'
STEPS = (1, 2, 4)
BAG_TOPICS = ('/camera/image_raw', '/camera/depth_gt/image_rect', '/camera/camera_info', '/odom')
# Depth is compared on every fourth pixel of each axis: predictions are smoother than that.
STRIDE = 4
# A point nearer or farther than what the frame before saw there, by more than this part, was
# hidden.
OCCLUSION = 0.05
# So that a pixel of the border which has not moved is not lost.
ROUNDING_PX = 1e-3
MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 80.0
# Published for video: the next frame starts from 0.9 fixed noise + 0.1 last latent (diffusers'
# documentation of Marigold).
KEPT_NOISE, KEPT_LATENT = 0.9, 0.1

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PosedFrame:
    """
    A frame with its true depth and place.

    Attributes
    ----------
    rgb : uint8 [H, W, 3]
        Rectified.
    depth_m : float32 [ceil(H / 4), ceil(W / 4)]
        True depth of the pixels 0, 4, 8, ... of both axes, m; NaN unknown.
    K : float64 [3, 3]
        Intrinsics of `depth_m`, px.
    odom_from_camera : float64 [4, 4]
        Pose of the optical frame.
    """

    rgb: RgbImage
    depth_m: FloatImage
    K: Matrix
    odom_from_camera: Matrix


@dataclass(frozen=True, eq=False)
class Covisible:
    """
    Where the pixels of a frame lie in the frame before.

    Attributes
    ----------
    seen : bool [H, W]
        Pixels of the current frame that the frame before saw.
    u, v : float32 [H, W]
        Their columns and rows there, px; NaN where the depth is unknown.
    gain : float64 [H, W]
    offset_m : float
        A depth d there is the depth gain * d + offset_m here: the point moves along its old ray.
    """

    seen: NDArray[np.bool_]
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    gain: NDArray[np.float64]
    offset_m: float


def covisible(depth_m: FloatImage, previous_depth_m: FloatImage, K: Matrix,
              previous_from_current: Matrix) -> Covisible:
    """
    Find the pixels of a frame in the frame before.

    Parameters
    ----------
    depth_m, previous_depth_m : float32 [H, W]
        True depth of both, m; NaN unknown.
    K : float64 [3, 3]
        Intrinsics of both.
    previous_from_current : float64 [4, 4]
        Motion of the optical frame.
    """
    points = unproject(depth_m, K).astype(np.float64)
    moved = points @ previous_from_current[:3, :3].T + previous_from_current[:3, 3]
    pixels = project(moved, K)
    height, width = depth_m.shape
    border = (width - 1 + ROUNDING_PX, height - 1 + ROUNDING_PX)
    inside = ((pixels >= -ROUNDING_PX) & (pixels <= border)).all(axis=-1)
    there = _sample(previous_depth_m, pixels[..., 0], pixels[..., 1])
    with np.errstate(invalid='ignore'):
        seen = inside & (np.abs(there - moved[..., 2]) <= OCCLUSION * moved[..., 2])
    current_from_previous = np.linalg.inv(previous_from_current)
    u, v = np.moveaxis(pixels.astype(np.float32), -1, 0)
    with np.errstate(divide='ignore', invalid='ignore'):
        gain = moved / moved[..., 2:] @ current_from_previous[2, :3]
    return Covisible(seen, u, v, gain, float(current_from_previous[2, 3]))


def flicker(map_m: NDArray[Any], previous_m: NDArray[Any], depth_m: FloatImage,
            pixels: Covisible) -> float:
    """
    Compare a prediction with the one before it.

    Parameters
    ----------
    map_m, previous_m : float [H, W]
        Predictions in m.
    depth_m : float32 [H, W]
        True depth of the current frame, m.
    pixels : Covisible

    Returns
    -------
    float
        Mean of |prediction - moved previous prediction| / truth; NaN if nothing was seen twice.
    """
    if not pixels.seen.any():
        return float('nan')
    moved = pixels.gain * _sample(previous_m, pixels.u, pixels.v) + pixels.offset_m
    return float(np.mean((np.abs(map_m - moved) / depth_m)[pixels.seen]))


def _sample(image: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float32]:
    """Read an image between its pixels, bilinearly; beyond the border it goes on."""
    return np.asarray(cv2.remap(
        image.astype(np.float32), np.nan_to_num(u).astype(np.float32),
        np.nan_to_num(v).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


@dataclass(frozen=True)
class SequenceScore:
    """
    One way to run a sequence.

    Attributes
    ----------
    flicker : float
        Mean over the pairs of frames, with one scale and shift for the whole sequence: jumps of
        the scale count.
    flicker_aligned : float
        With scale and shift of each frame fitted to its own truth: only changes of shape count.
    abs_rel : float
        With scale and shift of each frame.
    abs_rel_one_fit : float
        With one scale and shift for the whole sequence.
    """

    flicker: float
    flicker_aligned: float
    abs_rel: float
    abs_rel_one_fit: float


def score_sequence(maps: Sequence[FloatImage], frames: Sequence[PosedFrame]) -> SequenceScore:
    """
    Judge the predictions of a sequence.

    Parameters
    ----------
    maps : sequence of float32 [H, W]
        Affine-invariant depth, at the size of the truth.
    frames : sequence of PosedFrame
        In the order of time, all of one camera.
    """
    truths = [frame.depth_m for frame in frames]
    tall = _aligned(np.concatenate(list(maps)), np.concatenate(truths))
    together = np.split(tall, len(maps))
    alone = [_aligned(map_, truth_m) for map_, truth_m in zip(maps, truths)]
    pairs = [covisible(current.depth_m, previous.depth_m, current.K,
                       np.linalg.inv(previous.odom_from_camera) @ current.odom_from_camera)
             for previous, current in zip(frames, frames[1:])]
    return SequenceScore(*(
        float(np.nanmean([flicker(map_m, previous_m, truth_m, pixels) for map_m, previous_m,
                          truth_m, pixels in zip(maps_m[1:], maps_m, truths[1:], pairs)]))
        for maps_m in (together, alone)),
        *(float(np.mean([np.nanmean(np.abs(map_m - truth_m) / truth_m)
                         for map_m, truth_m in zip(maps_m, truths)]))
          for maps_m in (alone, together)))


def _aligned(prediction: NDArray[Any], depth_m: FloatImage) -> Matrix:
    return align(prediction, depth_m, np.isfinite(depth_m), alignment='least_square',
                 min_depth_m=MIN_DEPTH_M, max_depth_m=MAX_DEPTH_M)


def at_truth(affine_invariant_depth: FloatImage) -> FloatImage:
    """Take the pixels of a prediction at which the truth of a PosedFrame lies."""
    return affine_invariant_depth[::STRIDE, ::STRIDE]


def read_drive(path: Path) -> Iterator[PosedFrame]:
    """
    Read a bag with raw images, their calibration, rectified true depth, /odom and /tf_static.

    Raises
    ------
    BagError
        If a topic is missing, or no transform leads from the odometry's frame to the camera's.
    """
    with open_bag(path) as bag:
        names = {topic.name for topic in bag.topics}
        topics = [f'{name}/compressed' if f'{name}/compressed' in names else name
                  for name in BAG_TOPICS]
        rectifier = mount = None
        for _, (image, depth, info, odometry) in matched_by_stamp(bag, topics):
            if rectifier is None or mount is None:
                rectifier = Rectifier(camera_from_fields(CameraInfoFields(
                    info.height, info.width, info.distortion_model, info.d, info.k, info.r,
                    info.p)))
                mount = static_mount(bag, odometry.child_frame_id, info.header.frame_id)
            depth_m = unpack_depth(image_fields(depth))
            depth_m[~rectifier.valid] = np.nan
            scaling = np.diag([1 / STRIDE, 1 / STRIDE, 1.0])
            pose = odometry.pose.pose
            yield PosedFrame(
                rectifier.rectify(decode_rgb(image_fields(image))),
                depth_m[::STRIDE, ::STRIDE].copy(),
                scaling @ rectifier.camera.rectified().K,
                _pose(pose.position, pose.orientation) @ mount)


def static_mount(bag: Bag, parent: str, child: str) -> Matrix:
    """
    Chain the static transforms of a bag.

    Returns
    -------
    float64 [4, 4]
        Pose of `child` in `parent`.

    Raises
    ------
    BagError
        If /tf_static does not lead there.
    """
    links = {transform.child_frame_id: transform
             for message in bag.messages(['/tf_static'])
             for transform in bag.decode(message).transforms}
    chain = np.eye(4)
    while child != parent:
        if child not in links:
            raise BagError(f'/tf_static of {bag.path} does not lead to {parent}: {child} has no '
                           'parent')
        link = links.pop(child)
        chain = _pose(link.transform.translation, link.transform.rotation) @ chain
        child = link.header.frame_id
    return chain


def _pose(translation: Any, rotation: Any) -> Matrix:
    return pose_matrix((translation.x, translation.y, translation.z),
                       (rotation.x, rotation.y, rotation.z, rotation.w))


# (number of the frame, one fixed noise, last latent) -> arguments of `DepthEngine.infer`
Start = Callable[[int, torch.Tensor, torch.Tensor], dict[str, Any]]
STARTS: dict[str, Start] = {
    'fresh noise': lambda number, noise, last: {'latents': _noise(noise.shape, number)},
    'one fixed noise': lambda number, noise, last: {'latents': noise},
    f'{KEPT_NOISE} fixed noise + {KEPT_LATENT} last latent':
        lambda number, noise, last: {'latents': KEPT_NOISE * noise + KEPT_LATENT * last},
    'warm start': lambda number, noise, last: {'latents': noise, 'warm_start': last},
}


def _noise(shape: Sequence[int], seed: int) -> torch.Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def run(engine: DepthEngine, frames: Sequence[PosedFrame], num_inference_steps: int,
        start: Start, seed: int = 0) -> list[FloatImage]:
    """Predict a sequence, each frame from what `start` makes of the noise of a seed."""
    first = engine.infer(frames[0].rgb, num_inference_steps=num_inference_steps, seed=seed)
    noise, last = _noise(first.latent.shape, seed), first.latent.cpu()
    maps = []
    for number, frame in enumerate(frames):
        prediction = engine.infer(frame.rgb, num_inference_steps=num_inference_steps,
                                  **start(seed * len(frames) + number, noise, last))
        last = prediction.latent.cpu()
        maps.append(at_truth(prediction.affine_invariant_depth))
    return maps


def mean_score(scores: Sequence[SequenceScore]) -> SequenceScore:
    """Average over noises."""
    return SequenceScore(**{field.name: float(np.mean([getattr(score, field.name)
                                                       for score in scores]))
                            for field in fields(SequenceScore)})


def table(rows: dict[str, SequenceScore]) -> str:
    """Lay the scores out as Markdown."""
    lines = ['| | flicker | flicker, each frame aligned | AbsRel | AbsRel, one fit |',
             '|---|---|---|---|---|']
    lines += [f'| {name} | {s.flicker:.4f} | {s.flicker_aligned:.4f} | {s.abs_rel:.4f} | '
              f'{s.abs_rel_one_fit:.4f} |' for name, s in rows.items()]
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bag', type=Path, required=True, help='drive, as sample/living_room')
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--noises', type=int, default=3, help='average over so many noises')
    parser.add_argument('--every', type=int, default=1, help='use every Nth frame only')
    options = parser.parse_args(arguments)
    try:
        frames = list(islice(read_drive(options.bag), 0, None, options.every))
        engine = DepthEngine.load(options.checkpoint)
        rows = {'true depth': score_sequence([frame.depth_m for frame in frames], frames)}
        for steps in STEPS:
            if steps <= engine.checkpoint_info.max_useful_steps:
                rows |= {f'{steps} step(s), {name}': mean_score([
                    score_sequence(run(engine, frames, steps, start, seed), frames)
                    for seed in range(options.noises)]) for name, start in STARTS.items()}
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return 2
    print(f'{len(frames)} frames of {options.bag}, {options.checkpoint}\n\n{table(rows)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
