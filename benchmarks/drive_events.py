"""
Is what happens on a drive seen at once although depth is carried?

    make drive2
    python -m benchmarks.drive_events

On the second drive a ball and a person cross, a door opens, a lamp goes on, and the robot stops
and turns on the spot.  The frames are processed in order with the policy novelty and with one step
on every frame (fixed-1), in metres by the lidar, with the poses of the bag and without a latency
cap; the clouds go into the project's rebuild of Nav2's obstacle layer.  Of each event it prints

- the share of the runs that novelty saves, and the AbsRel (least squares) of both;
- of a thing that covers at least 1 % of the image: the time until the networks run, and until it
  is marked; if it leaves, the time until the next run, and until it is cleared.

A thing is marked when a cell became lethal that lies in its direction, at most a third nearer or
farther than it is.  It is cleared when at most a tenth of these cells is still lethal.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
import yaml

from benchmarks.timing import format_markdown_table
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.datasets.bag import bag_data_set, SAMPLE_TOPICS
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.adaptive import AdaptiveConfig, AdaptiveDepth, Frame
from marigold_ros.depth.config import StepPolicyConfig
from marigold_ros.depth.device import reserve_one_core
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.depth.networks import ImmediateExecutor
from marigold_ros.evaluation.metrics.costmap import LETHAL, ObstacleLayer, read_layer_config
from marigold_ros.evaluation.metrics.metric_depth import MetricDepthEvaluator
from marigold_ros.evaluation.metrics.obstacles import ObstacleScorer, read_scene
from marigold_ros.evaluation.metrics.protocols import score
from marigold_ros.evaluation.references import BagReferences, FrameReference
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.types import measured_scale
from marigold_ros.progress import progress_bar

NAME = 'drive_events'
BAG, CAMERA, LIDAR = 'parlour', 'camera', '/lidar/points'
DRIVE, COSTMAP = Path('out/drive2'), Path('config/nav2_costmap.yaml')
POLICIES = {
    'novelty': StepPolicyConfig(latency_cap_s=None),
    'fixed-1': StepPolicyConfig('fixed', max_inference_steps=1, latency_cap_s=None)}
TOLERANCE = 1 / 3
CLEARED_SHARE = 0.1
# Of the depth in the box of a thing, which also shows what is behind it.
THING_QUANTILE = 0.2


class PolicyDrive:
    """
    One policy along the drive.

    Parameters
    ----------
    adaptive : AdaptiveDepth
    obstacles : ObstacleScorer

    Attributes
    ----------
    steps, abs_rel, covered_share : list
        By frame.
    lethal : list of bool [rows, columns]
        Lethal cells after each frame.
    """

    def __init__(self, adaptive: AdaptiveDepth, obstacles: ObstacleScorer) -> None:
        self._adaptive, self.layer = adaptive, obstacles.layer
        self._metric = MetricDepthEvaluator(ScaleConfig(('cloud',)), obstacles)
        self.steps: list[int] = []
        self.abs_rel: list[float] = []
        self.covered_share: list[float] = []
        self.lethal: list[NDArray[np.bool_]] = []

    def add(self, frame: DepthFrame, reference: FrameReference) -> None:
        """Process the next frame."""
        prediction, = self._adaptive.process([Frame(
            CAMERA, frame.rgb, frame.stamp_ns or 0, time.monotonic(), frame.K,
            frame.world_from_camera)])
        scale = self._metric.add(frame, prediction, reference, prediction.gauge_change,
                                 prediction.flow)
        self._adaptive.set_scale(CAMERA, measured_scale(scale))
        self.steps.append(prediction.num_inference_steps)
        self.abs_rel.append(score(prediction.affine_invariant_depth, frame)['abs_rel'])
        self.covered_share.append(prediction.covered_share)
        self.lethal.append(self.layer.costs == LETHAL)


def find_thing(frame: DepthFrame, box_px: Sequence[int],
               layer: ObstacleLayer) -> NDArray[np.bool_]:
    """
    Find the cells where a thing may be marked, [rows, columns].

    Parameters
    ----------
    frame : DepthFrame
        With pose and intrinsics.
    box_px : sequence of int
        Left, upper, right and lower edge of the thing.
    layer : ObstacleLayer
    """
    left, top, right, bottom = box_px
    assert frame.K is not None and frame.world_from_camera is not None
    depth_m = frame.known_depth_m[top:bottom, left:right]
    thing_m = float(np.nanquantile(depth_m, THING_QUANTILE))
    # Of each cell: position beside and along the camera's axis, in the plane of the floor.
    axes = frame.world_from_camera[:2, [0, 2]]
    aside, ahead = np.moveaxis(
        (layer.cell_centres_m() - frame.world_from_camera[:2, 3]) @ axes, -1, 0)
    column = frame.K[0, 0] * aside / np.maximum(ahead, 1e-6) + frame.K[0, 2]
    return np.asarray((np.abs(ahead / thing_m - 1.0) <= TOLERANCE) & (left <= column)
                      & (column <= right), np.bool_)


def time_of_marks(drive: PolicyDrive, places: Mapping[int, NDArray[np.bool_]], first: int,
                  last: int) -> tuple[int | None, int | None]:
    """
    Find when a thing was marked, and when it was cleared again.

    Parameters
    ----------
    drive : PolicyDrive
    places : mapping of int to bool [rows, columns]
        Cells where the thing may be marked, by frame.
    first, last : int
        The frames between which the thing is visible.

    Returns
    -------
    (int or None, int or None)
        Number of the first frame with a mark; of the first after `last` when at most a tenth of
        the marks is left.
    """
    before = drive.lethal[max(0, first - 1)]
    marks = np.zeros_like(before)
    marked = None
    for number in range(first, last + 1):
        if number in places:
            new = drive.lethal[number] & places[number] & ~before
            marked = number if marked is None and new.any() else marked
            marks |= new
    cleared = next((number for number in range(last + 1, len(drive.lethal))
                    if (drive.lethal[number] & marks).sum() <= CLEARED_SHARE * marks.sum()), None)
    return marked, cleared if marked is not None else None


def evaluate(folder: Path, engine: DepthEngine) -> tuple[dict[str, PolicyDrive], list[DepthFrame]]:
    """Process the drive with every policy; return the results, and the frames without images."""
    bag_folder = folder / BAG
    scene, layer = read_scene(folder / 'scene.json'), read_layer_config(COSTMAP)
    drives = {name: PolicyDrive(AdaptiveDepth(engine, AdaptiveConfig(policy),
                                              networks=ImmediateExecutor()),
                                ObstacleScorer(scene, layer))
              for name, policy in POLICIES.items()}
    frames = []
    data_set = bag_data_set(bag_folder)
    with open_bag(bag_folder) as bag:
        references = BagReferences(bag, SAMPLE_TOPICS, ScaleConfig(('cloud',)),
                                   {'cloud': LIDAR})
        for frame in progress_bar(data_set.frames(), NAME, data_set.count, unit='frame'):
            reference = references.lookup(frame)
            for drive in drives.values():
                drive.add(frame, reference)
            frames.append(replace(frame, rgb=frame.rgb[:1, :1].copy()))
    return drives, frames


def phase_row(event: Mapping[str, Any], drives: Mapping[str, PolicyDrive],
              stamps_ns: NDArray[np.int64]) -> dict[str, str]:
    """Return how much is saved during an event, and at which error."""
    during = (stamps_ns >= event['start_ns']) & (stamps_ns <= event['end_ns'])
    novelty = drives['novelty']
    runs = np.array(novelty.steps, bool)[during]
    return {'event': event['name'].replace('_', ' '), 'runs': f'{runs.sum()} of {runs.size}',
            'covered': f'{np.array(novelty.covered_share)[during].mean():.1%}',
            **{f'AbsRel (A), {name}': f'{np.array(each.abs_rel)[during].mean():.3f}'
               for name, each in drives.items()}}


def thing_row(event: Mapping[str, Any], drives: Mapping[str, PolicyDrive],
              frames: Sequence[DepthFrame], stamps_ns: NDArray[np.int64]) -> dict[str, str]:
    """Return how long after its appearance a thing is run, marked and cleared, s."""
    first, last = (int(np.searchsorted(stamps_ns, event[f'{key}_visible_ns']))
                   for key in ('first', 'last'))
    numbers = {int(np.searchsorted(stamps_ns, each['stamp_ns'])): each['box_px']
               for each in event['frames']}

    def seconds(number: int | None, since: int) -> str:
        return '-' if number is None else f'{(stamps_ns[number] - stamps_ns[since]) * 1e-9:.1f}'

    novelty = drives['novelty']
    run = next((number for number in range(first, len(frames)) if novelty.steps[number]), None)
    leaves = event['last_visible_ns'] < event['end_ns']
    gone = next((number for number in range(last + 1, len(frames))
                 if leaves and novelty.steps[number]), None)
    times = {}
    for name, drive in drives.items():
        places = {number: find_thing(frames[number], box, drive.layer)
                  for number, box in numbers.items()}
        marked, cleared = time_of_marks(drive, places, first, last)
        times[name] = marked, cleared if leaves else None
    return {'thing': event['name'], 'run after, s': seconds(run, first),
            'run after it left, s': seconds(gone, last + 1),
            **{f'marked after, {name}, s': seconds(marked, first)
               for name, (marked, _) in times.items()},
            **{f'cleared after, {name}, s': seconds(cleared, last + 1)
               for name, (_, cleared) in times.items()}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; the exit code is 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--drive', type=Path, default=DRIVE, help='folder of `make drive2`')
    options = parser.parse_args(arguments)
    reserve_one_core()
    try:
        events = yaml.safe_load((options.drive / 'events.yaml').read_text())['events']
        drives, frames = evaluate(options.drive, DepthEngine.load(device='cpu'))
    except (MarigoldError, OSError) as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return 2
    stamps_ns = np.array([frame.stamp_ns for frame in frames])
    print(format_markdown_table([phase_row(event, drives, stamps_ns) for event in events]))
    print()
    print(format_markdown_table([thing_row(event, drives, frames, stamps_ns) for event in events
                                 if 'first_visible_ns' in event]))
    return 0


if __name__ == '__main__':
    sys.exit(main())
