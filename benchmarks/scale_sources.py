"""
How good is each scale source on the sample drive: depth, scale over time, and obstacles?

    python -m benchmarks.scale_sources --bag sample/living_room --scene sample/scene.json

Each source converts the same predictions to metric depth, and also the true relative depth, with
`evaluation.metrics.metric_depth` like `evaluate --scale-source`.  The reference of `depth` is
simulated stereo depth.  Recovery is the time after an outage of 2 s until the scale is within 2 %
of that without an outage ('not recovered': not within the remaining 3 s).  'true metric depth'
replaces the prediction: the best that geometry, messages and configuration allow.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
import math
from pathlib import Path
import sys
import time

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.datasets.bag import bag_data_set, SAMPLE_TOPICS
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.adaptive import AdaptiveConfig, AdaptiveDepth, Frame
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import BagError, MarigoldError
from marigold_ros.depth.networks import ImmediateExecutor
from marigold_ros.depth.types import DepthPrediction, FloatImage, GaugeChange
from marigold_ros.evaluation.metrics.costmap import LayerConfig, read_layer_config
from marigold_ros.evaluation.metrics.metric_depth import (
    COMPARED_RANGE,
    MetricDepthEvaluator,
    recovery_time_s,
)
from marigold_ros.evaluation.metrics.obstacles import ObstacleBoxes, ObstacleScorer, read_scene
from marigold_ros.evaluation.metrics.protocols import abs_rel_label
from marigold_ros.evaluation.references import BagReferences, FrameReference
from marigold_ros.metric.anchors import Anchors, anchors_from_depth
from marigold_ros.metric.config import ScaleConfig, SEARCH

NAME = 'scale_sources'
REFERENCES = {'cloud': '/lidar/points', 'scan': '/scan'}
# Assumed range of config/demo.yaml.
ASSUMED_M = (0.5, 4.5)
# A small stereo camera: a quarter of the resolution, noise growing with depth, holes, short range.
STEREO_STRIDE, STEREO_NOISE_PER_M, STEREO_HOLES, STEREO_RANGE_M = 4, 0.01, 0.3, 4.0
OUTAGE_S = (3.0, 5.0)
# Range that relative depth represents in the row of true metric depth.
TRUE_RANGE_M = (0.01, 100.0)
TRUTH = 'true metric depth'
# As the node runs it; it also tells how the gauge changes from frame to frame.
EVERY_FRAME = StepPolicyConfig('fixed', max_inference_steps=1, latency_cap_s=None)
COLUMNS = ('metric frames', abs_rel_label('metric', COMPARED_RANGE), 'RMSE, m',
           'delta1', 'scale jitter', 'largest step', 'floor height error', 'recovery', 'recall',
           'precision', 'floor free', 'distance error')


class ScaleCandidate:
    """
    Evaluate one source along the drive, without and with an outage in the middle.

    Parameters
    ----------
    config : ScaleConfig
    obstacles : ObstacleScorer
    """

    def __init__(self, config: ScaleConfig, obstacles: ObstacleScorer) -> None:
        self._source = config.source
        self._uninterrupted = MetricDepthEvaluator(config, obstacles)
        self._interrupted = MetricDepthEvaluator(config)

    def add(self, frame: DepthFrame, prediction: DepthPrediction, reference: FrameReference,
            gauge_change: GaugeChange | None) -> None:
        """Evaluate the next frame."""
        self._uninterrupted.add(frame, prediction, reference, gauge_change)
        first_ns = self._uninterrupted.frames[0].stamp_ns
        if OUTAGE_S[0] <= (reference.stamp_ns - first_ns) * 1e-9 < OUTAGE_S[1]:
            reference = replace(reference, anchors=None)
            if self._source == 'ground_plane':  # no floor in view
                prediction = replace(prediction, affine_invariant_depth=np.full_like(
                    prediction.affine_invariant_depth, 0.5))
        self._interrupted.add(frame, prediction, reference, gauge_change)

    def row(self) -> list[str]:
        """Return the cells of `COLUMNS`."""
        found = self._uninterrupted.summary()
        found |= found['obstacles']
        return [f'{found["frames_with_metric_depth"]} of {found["frames"]}',
                *(_format_cell(found[name], '{:.3f}') for name in ('abs_rel', 'rmse', 'delta1')),
                *(_format_cell(found[name], '{:.2%}') for name in ('jitter', 'largest_step')),
                _format_cell(found['floor_error'], '{:.1%}'), self._recovery(),
                *(_format_cell(found[name], '{:.0%}')
                  for name in ('recall', 'precision', 'floor_free')),
                _format_cell(found['distance_m'], '{:.2f} m')]

    def _recovery(self) -> str:
        """Format the recovery time of the scale after the outage."""
        frames = self._interrupted.frames
        resumed = next((number for number, each in enumerate(frames)
                        if (each.stamp_ns - frames[0].stamp_ns) * 1e-9 >= OUTAGE_S[1]),
                       len(frames))
        if resumed == len(frames) or self._source == 'fixed':
            return '-'
        found = recovery_time_s(frames, resumed,
                                [each.mid_depth_m for each in self._uninterrupted.frames])
        return 'not recovered' if math.isnan(found) else f'{found:.1f} s'


def _format_cell(value: float, form: str) -> str:
    return '-' if math.isnan(value) else form.format(value).replace('%', ' %')


def read_drive(path: Path, max_frames: int | None = None
               ) -> Iterator[tuple[DepthFrame, dict[str, FrameReference]]]:
    """
    Read a drive with the reference of each source at each frame.

    Yields
    ------
    frame : DepthFrame
    references : dict of str to FrameReference
        By source; that of `ground_plane` has the camera's tilt only.
    """
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        bag = stack.enter_context(open_bag(path))
        # References do not depend on the height.
        mount = BagReferences(bag, SAMPLE_TOPICS, ScaleConfig('ground_plane', camera_height_m=1.0))
        known = {source: BagReferences(bag, replace(SAMPLE_TOPICS, reference=topic),
                                       ScaleConfig(source))
                 for source, topic in REFERENCES.items()}
        for number, frame in enumerate(bag_data_set(path).frames()):
            if number == max_frames:
                return
            without = mount.lookup(frame)
            yield frame, {
                'ground_plane': without,
                'depth': replace(without, anchors=simulate_stereo_depth(frame, without, rng)),
                **{source: each.lookup(frame) for source, each in known.items()}}


def simulate_stereo_depth(frame: DepthFrame, reference: FrameReference,
                          rng: np.random.Generator) -> Anchors:
    """Degrade true depth to that of a small stereo camera at the same pose; return anchors."""
    depth_m = frame.known_depth_m[::STEREO_STRIDE, ::STEREO_STRIDE].copy()
    noise = rng.standard_normal(depth_m.shape).astype(np.float32)
    depth_m += STEREO_NOISE_PER_M * depth_m ** 2 * noise
    depth_m[(depth_m > STEREO_RANGE_M) | (rng.random(depth_m.shape) < STEREO_HOLES)] = np.nan
    stereo_K = reference.K / np.array([[STEREO_STRIDE], [STEREO_STRIDE], [1.0]])
    return anchors_from_depth(depth_m, stereo_K, np.eye(4), reference.K, frame.depth_m.shape,
                              reference.stamp_ns)


def true_relative_depth(frame: DepthFrame,
                        range_m: tuple[float, float] | None = None) -> FloatImage:
    """
    Convert true metric depth to relative depth.

    Parameters
    ----------
    frame : DepthFrame
    range_m : (float, float) or None
        Depth that becomes 0 and 1, m; None uses the frame's 2 % and 98 % quantiles.

    Returns
    -------
    float32 [H, W]
        In [0, 1]; NaN is unknown.
    """
    low, high = range_m or np.nanquantile(frame.known_depth_m, (0.02, 0.98))
    return np.clip((frame.known_depth_m - low) / (high - low), 0, 1).astype(np.float32)


def make_candidates(camera_height_m: float, scene: ObstacleBoxes, layer: LayerConfig
                    ) -> dict[str, ScaleCandidate]:
    """Return a candidate for every depth and source, by 'depth, source'."""
    floor = ScaleConfig('ground_plane', camera_height_m=camera_height_m)
    measured = {**{source: ScaleConfig(source) for source in ('depth', 'cloud', 'scan')},
                'ground_plane, tilt known': floor,
                'ground_plane, tilt estimated': replace(floor, camera_pitch_deg=SEARCH,
                                                        camera_roll_deg=SEARCH)}
    configs = {f'{depth}, {name}': config for depth in ('predicted', 'true')
               for name, config in measured.items()}
    configs['predicted, fixed'] = ScaleConfig('fixed', *ASSUMED_M)
    configs[TRUTH] = ScaleConfig('fixed', *TRUE_RANGE_M)
    return {name: ScaleCandidate(config, ObstacleScorer(scene, layer))
            for name, config in configs.items()}


def evaluate_candidates(path: Path, engine: DepthEngine, scene: ObstacleBoxes, layer: LayerConfig,
                        max_frames: int | None = None) -> dict[str, ScaleCandidate]:
    """
    Evaluate all candidates along a drive.

    Raises
    ------
    BagError
        If the bag lacks what a source needs.
    """
    adaptive = AdaptiveDepth(engine, AdaptiveConfig(EVERY_FRAME), networks=ImmediateExecutor())
    candidates: dict[str, ScaleCandidate] = {}
    for frame, references in tqdm(read_drive(path, max_frames), unit='frame', desc=NAME):
        prediction, = adaptive.process([
            Frame('camera', frame.rgb, frame.stamp_ns or 0, time.monotonic())])
        mount = references['ground_plane'].base_from_camera
        if mount is None:
            raise BagError(f'{path} must have the transform from the camera to the base frame')
        candidates = candidates or make_candidates(float(mount[2, 3]), scene, layer)
        for name, candidate in candidates.items():
            depth, _, rest = name.partition(', ')
            reference = references.get(rest.partition(',')[0], references['ground_plane'])
            if depth == 'predicted':
                candidate.add(frame, prediction, reference, prediction.gauge_change)
            else:
                candidate.add(frame, replace(
                    prediction, affine_invariant_depth=true_relative_depth(
                        frame, TRUE_RANGE_M if name == TRUTH else None), confidence=None),
                    reference, None)
    return candidates


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bag', type=Path, default=Path('sample/living_room'))
    parser.add_argument('--scene', type=Path, default=Path('sample/scene.json'))
    parser.add_argument('--costmap', type=Path, default=Path('config/nav2_costmap.yaml'))
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--max-frames', type=int, metavar='N', help='use only the first N frames')
    options = parser.parse_args(arguments)
    try:
        scene, layer = read_scene(options.scene), read_layer_config(options.costmap)
        candidates = evaluate_candidates(options.bag, DepthEngine.load(options.checkpoint), scene,
                                         layer, options.max_frames)
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return 2
    print(tabulate([[name, *candidate.row()] for name, candidate in candidates.items()],
                   ('depth, source', *COLUMNS), 'github', disable_numparse=True))
    return 0


if __name__ == '__main__':
    sys.exit(main())
