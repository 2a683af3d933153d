"""
How wrong do carried metres become while the robot drives, with and without poses?

    python -m benchmarks.carried_metres

On the sample drive (10 Hz, up to 0.5 m/s) the depth of every frame is carried into the frames
after it, along the image only or also by the pose, with the scale and shift of its own frame.
Carried are the true depth, and one step of the networks in metres by the node's fit to 2000 true
depths.
AbsRel is the mean relative error of the covered pixels without any alignment; the ratio is the
median of depth / true depth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.timing import format_markdown_table
from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.carry import DepthCarrier, Motion, View
from marigold_ros.depth.complexity import reduce_to_grey
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.types import FloatImage
from marigold_ros.metric.fit import fit_scale
from marigold_ros.progress import progress_bar

SAMPLE = Path('sample/living_room')
CARRIED = (0, 3, 5, 8)
ANCHORS = 2000

Error = tuple[float, float]


@dataclass(frozen=True, eq=False)
class KnownDepth:
    """Relative depth of a frame, and the scale and shift that make it metric, m."""

    relative: FloatImage
    scale: float
    shift: float

    def errors(self, frames: Sequence[DepthFrame], *, with_poses: bool) -> list[Error]:
        """Carry it from the first of some frames on; return its errors after `CARRIED` frames."""
        first, *others = frames
        carrier = DepthCarrier(reduce_to_grey(first.rgb))
        carrier.begin_run()
        carrier.finish_run(self.relative, None, first.rgb.shape[1::-1])
        found = [self._error(self.relative, first)]
        for number, frame in enumerate(others, 1):
            carrier.advance(reduce_to_grey(frame.rgb))
            if number in CARRIED:
                motion = Motion(find_view(first), find_view(frame), self.scale, self.shift)
                carried = carrier.carry(motion if with_poses else None)
                covered = cv2.resize(carried.covered.astype(np.uint8), carried.depth.shape[::-1])
                found.append(self._error(
                    np.where(covered > 0, carried.depth, np.float32(np.nan)), frame))
        return found

    def _error(self, relative: FloatImage, frame: DepthFrame) -> Error:
        compared = frame.measured & np.isfinite(relative)
        ratio = (self.scale * relative[compared] + self.shift) / frame.depth_m[compared]
        return float(np.abs(ratio - 1.0).mean()), float(np.median(ratio))


def find_view(frame: DepthFrame) -> View:
    """Return the camera of a frame."""
    assert frame.K is not None and frame.world_from_camera is not None
    return View(frame.K, frame.world_from_camera)


def true_depth(frame: DepthFrame) -> KnownDepth:
    """Return the true depth; pixels without it are as far as the farthest."""
    farthest_m = float(frame.depth_m[frame.measured].max())
    return KnownDepth(np.where(frame.measured, frame.depth_m, np.float32(farthest_m)), 1.0, 0.0)


def fitted_run(engine: DepthEngine, frame: DepthFrame, rng: np.random.Generator) -> KnownDepth:
    """Return one step of the networks, with the node's fit to some of the true depths."""
    relative = engine.infer(frame.rgb, num_inference_steps=1).affine_invariant_depth
    chosen = rng.choice(np.flatnonzero(frame.measured), ANCHORS, replace=False)
    fit = fit_scale(relative.ravel()[chosen], frame.depth_m.ravel()[chosen])
    return KnownDepth(relative, fit.scale, fit.shift)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bag', type=Path, default=SAMPLE)
    options = parser.parse_args(arguments)
    reserve_one_core()
    engine, rng = DepthEngine.load(device='cpu'), np.random.default_rng(0)
    frames = list(bag_data_set(options.bag).frames())
    errors: dict[tuple[str, bool], list[list[Error]]] = {}
    for first in progress_bar(range(len(frames) - CARRIED[-1]), 'carried_metres', unit='frame'):
        sequence = frames[first:first + CARRIED[-1] + 1]
        for name, known in (('true depth', true_depth(sequence[0])),
                            ('a run', fitted_run(engine, sequence[0], rng))):
            for with_poses in (False, True):
                errors.setdefault((name, with_poses), []).append(
                    known.errors(sequence, with_poses=with_poses))
    rows = []
    for (name, with_poses), values in errors.items():
        means = np.mean(values, axis=0)
        rows.append({'carried': name, 'poses': 'yes' if with_poses else 'no', **{
            f'AbsRel (ratio) after {count} frames': f'{abs_rel:.3f} ({ratio:.2f})'
            for count, (abs_rel, ratio) in zip(CARRIED, means)}})
    print(format_markdown_table(rows))


if __name__ == '__main__':
    main()
