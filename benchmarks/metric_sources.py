"""
How good is metric depth from each scale source, and from several at once?

    python -m benchmarks.metric_sources --bag sample/living_room --scene sample/scene.json

Each row is a run of `evaluate` with `--scale-sources`, by the policy that runs the networks on
every frame.  The bag is copied with one more topic, the depth of a small stereo camera, simulated
from the truth: a quarter of the resolution, noise that grows with depth, holes, a short range.
The first table tells how good depth is, the second what a costmap shows, by what becomes points,
and by what a sensor marks itself; the third in how many of the frames in which an obstacle is
visible it is marked.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
import json
import math
from pathlib import Path
import sys
from typing import Any

import numpy as np

from benchmarks.timing import format_markdown_table
from marigold_ros.data.bags.messages import serialize_image, STORE
from marigold_ros.data.bags.reader import open_bag
from marigold_ros.data.bags.writer import BagWriter
from marigold_ros.data.datasets.bag import bag_data_set, SAMPLE_TOPICS
from marigold_ros.data.frames import DepthFrame
from marigold_ros.depth.errors import BagError, MarigoldError
from marigold_ros.depth.types import FloatImage
from marigold_ros.evaluation.evaluate import main as evaluate
from marigold_ros.evaluation.metrics.metric_depth import COMPARED_RANGE
from marigold_ros.evaluation.metrics.protocols import abs_rel_label
from marigold_ros.messages.depth import pack_depth

NAME = 'metric_sources'
STEREO_TOPIC = '/stereo/depth/image_rect'
REFERENCES = {'depth': STEREO_TOPIC, 'cloud': '/lidar/points', 'scan': '/scan'}
STEREO_STRIDE, STEREO_NOISE_PER_M, STEREO_HOLES, STEREO_RANGE_M = 4, 0.01, 0.3, 4.0
SOURCES = ('depth', 'cloud', 'scan', 'ground_plane', 'motion', 'depth,ground_plane',
           'cloud,ground_plane', 'scan,ground_plane', 'motion,ground_plane',
           'cloud,motion,ground_plane')
ASSUMED_M = (0.5, 4.5)
# Beside all points: those that are right within a factor of 1.25 with this probability.
POINTS_CONFIDENCES = (0.9, 0.95)
CONFIDENT_SOURCES = ('depth', 'cloud', 'scan,ground_plane', 'motion,ground_plane', 'ground_plane')
# Beside the sensor itself.
BESIDE_SENSOR = {'cloud,ground_plane': 'cloud', 'scan,ground_plane': 'scan'}
SENSOR_COSTMAP, BESIDE_CONFIDENCE = Path('config/nav2_costmap_lidar.yaml'), 0.95
METRICS = {'AbsRel': abs_rel_label('metric', COMPARED_RANGE), 'rmse': 'RMSE, m',
           'delta1': 'delta1', 'tae': 'temporal error', 'jitter': 'jitter',
           'largest_step': 'largest step', 'floor_error': 'floor height error'}
OBSTACLES = {'recall': 'recall', 'cell_recall': 'recall of cells', 'precision': 'precision',
             'floor_free': 'floor free'}


def simulate_stereo_depth(depth_m: FloatImage, rng: np.random.Generator) -> FloatImage:
    """
    Degrade true depth to that of a small stereo camera at the same pose.

    Parameters
    ----------
    depth_m : float32 [H, W]
        NaN unknown.
    rng : Generator

    Returns
    -------
    float32 [H, W]
        In blocks of `STEREO_STRIDE` by `STEREO_STRIDE` pixels, m; NaN unknown.
    """
    height, width = depth_m.shape
    coarse_m = depth_m[::STEREO_STRIDE, ::STEREO_STRIDE].copy()
    noise = rng.standard_normal(coarse_m.shape).astype(np.float32)
    coarse_m += STEREO_NOISE_PER_M * coarse_m ** 2 * noise
    coarse_m[(coarse_m > STEREO_RANGE_M) | (rng.random(coarse_m.shape) < STEREO_HOLES)] = np.nan
    blocks_m = coarse_m.repeat(STEREO_STRIDE, 0).repeat(STEREO_STRIDE, 1)
    return np.asarray(blocks_m[:height, :width], np.float32)


def add_stereo(bag_path: Path, out: Path, max_frames: int | None = None) -> None:
    """
    Copy a bag with the topic of a simulated stereo camera.

    Raises
    ------
    BagError
        If the bag cannot be read or written.
    """
    with open_bag(bag_path) as bag, BagWriter(out, overwrite=True) as writer:
        for topic in bag.topics:
            writer.add_topic(topic.name, topic.msgtype,
                             typestore=bag.typestore(topic.name, topic.msgtype))
        writer.add_topic(STEREO_TOPIC, 'sensor_msgs/msg/Image', typestore=STORE)
        for message in bag.messages():
            writer.write(message.topic, message.log_time_ns, message.data)
        for stamp_ns, data in _stereo_messages(bag_path, max_frames):
            writer.write(STEREO_TOPIC, stamp_ns, data)


def _stereo_messages(bag_path: Path, max_frames: int | None) -> Iterator[tuple[int, bytes]]:
    rng = np.random.default_rng(0)
    for number, frame in enumerate(bag_data_set(bag_path).frames()):
        if number == max_frames:
            return
        yield _stamp_ns(frame), serialize_image(
            _stamp_ns(frame), 'camera_optical_frame',
            pack_depth(simulate_stereo_depth(frame.known_depth_m, rng), '16UC1'))


def _stamp_ns(frame: DepthFrame) -> int:
    if frame.stamp_ns is None:
        raise BagError('the images must have stamps')
    return frame.stamp_ns


def run_evaluate(sources: str, options: argparse.Namespace, *more: str) -> dict[str, Any]:
    """
    Run `evaluate` with some scale sources.

    Returns
    -------
    dict
        `metric.policies.<policy>` of summary.json.

    Raises
    ------
    MarigoldError
        If it fails.
    """
    out = options.out / '-'.join([*sources.split(','), *(each.strip('-/') for each in more)]
                                 ).replace('/', '_')
    arguments = ['bag', str(options.out / 'bag'), '--image', SAMPLE_TOPICS.image, '--depth',
                 SAMPLE_TOPICS.depth, '--policies', 'fixed-1', '--scale-sources', sources,
                 '--scene', str(options.scene), '--out', str(out), *more]
    for source, topic in REFERENCES.items():
        if source in sources.split(','):
            arguments += ['--reference', f'{source}={topic}']
    if 'depth' in sources.split(','):
        arguments += ['--reference-info', '/camera/camera_info']
    if {'ground_plane', 'motion'} & set(sources.split(',')):
        arguments += ['--camera-height-m', f'{options.camera_height_m:g}']
    if options.max_frames:
        arguments += ['--max-frames', str(options.max_frames)]
    with redirect_stdout(sys.stderr):  # the verdict
        failed = evaluate(arguments)
    if failed:
        raise MarigoldError(f'evaluate {" ".join(arguments)} has failed')
    summary = json.loads((out / 'summary.json').read_text())
    result: dict[str, Any] = summary['metric']['policies']['fixed-1']
    return result


def depth_row(sources: str, row: Mapping[str, Any]) -> dict[str, str]:
    """Return how good the metric depth of some sources is."""
    shares = ('jitter', 'largest_step', 'floor_error')
    return {'sources': _join(sources),
            'metric frames': f'{row["frames_with_metric_depth"]} of {row["frames"]}',
            **{label: _format(row['abs_rel' if key == 'AbsRel' else key],
                              '{:.1%}' if key in shares else '{:.3f}')
               for key, label in METRICS.items()}}


def obstacle_row(name: str, scores: Mapping[str, Any]) -> dict[str, str]:
    """Return how well a costmap shows the obstacles."""
    return {'marked by points from': name,
            **{label: _format(scores[key], '{:.1%}') for key, label in OBSTACLES.items()},
            'distance error': _format(scores['distance_m'], '{:.2f} m')}


def found_rows(costmaps: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return in how many frames each obstacle is marked, for each costmap by its name."""
    names = sorted({name for scores in costmaps.values() for name in scores['found']})
    return [{'obstacle': name, **{
        costmap: '{found} of {visible}'.format(**scores['found'][name])
        if name in scores['found'] else '-'  # never visible within the range of this costmap
        for costmap, scores in costmaps.items()}} for name in names]


def _join(sources: str) -> str:
    return sources.replace(',', ' + ')


def _format(value: float | None, form: str) -> str:
    return '-' if value is None or math.isnan(value) else form.format(value).replace('%', ' %')


def print_tables(options: argparse.Namespace) -> None:
    """Run all evaluations and print their tables."""
    runs = {sources: run_evaluate(sources, options) for sources in options.sources}
    print(format_markdown_table([depth_row(name, row) for name, row in runs.items()]))
    costmaps = {_join(name): row['obstacles'] for name, row in runs.items()}
    rows = [obstacle_row(name, scores) for name, scores in costmaps.items()]
    for confidence in () if options.brief else POINTS_CONFIDENCES:
        for sources in filter(runs.__contains__, CONFIDENT_SOURCES):
            row = run_evaluate(sources, options, '--points-confidence-min', f'{confidence:g}')
            rows.append(obstacle_row(f'{_join(sources)}, from confidence {confidence:g} on',
                                     row['obstacles']))
    for sources in () if options.brief else filter(runs.__contains__, BESIDE_SENSOR):
        sensor = BESIDE_SENSOR[sources]
        row = run_evaluate(sources, options, '--points-confidence-min', f'{BESIDE_CONFIDENCE:g}',
                           '--costmap', str(SENSOR_COSTMAP), '--costmap-sensor', 'lidar')
        for costmap, more in (('alone', ''),
                              ('with_cloud', f', from confidence {BESIDE_CONFIDENCE:g} on')):
            name = f'the {sensor} itself' + (f' and {_join(sources)}' if more else '')
            costmaps[name] = row['sensors'][sensor][costmap]
            rows.append(obstacle_row(name + more, costmaps[name]))
    for table in (rows, found_rows(costmaps)):
        print()
        print(format_markdown_table(table))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; the exit code is 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bag', type=Path, default=Path('sample/living_room'))
    parser.add_argument('--scene', type=Path, default=Path('sample/scene.json'))
    parser.add_argument('--camera-height-m', type=float, default=0.35)
    parser.add_argument('--out', type=Path, default=Path('out/metric_sources'))
    parser.add_argument('--max-frames', type=int, metavar='N', help='use only the first N frames')
    parser.add_argument('--sources', nargs='+', default=SOURCES, metavar='A,B',
                        help='only these combinations')
    parser.add_argument('--brief', action='store_true',
                        help='without other points, and without sensors in the costmap')
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        add_stereo(options.bag, options.out / 'bag', options.max_frames)
        print_tables(options)
    except MarigoldError as err:
        print(f'{NAME}: {err}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
