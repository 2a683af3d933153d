"""
What does the node add to the engine's time, and what does it take, seen from outside?

    python -m benchmarks.node            # all but memory: about nine minutes
    python -m benchmarks.node memory     # about six
    python -m benchmarks.node outside --command '<another node>' --node /its_name \
        --output /its/depth:Image

Camera, node, listener and a service client are real processes.  Every case starts a node, lets it
warm up, and observes it for a while: times by stage are those of the node's ~/status, ages at the
listener count from the camera's stamp, processor time and memory are the kernel's, and frames are
counted at camera, node and listener.  "added" is receipt to publication without the engine.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
import os
from pathlib import Path
import shlex
import sys
import time
from typing import Any

import numpy as np

from benchmarks.node_rig import (
    last_counters,
    Line,
    NodeUnderTest,
    Observation,
    own_node,
    processed_statuses,
    Rig,
)
from benchmarks.timing import markdown_table, write_report
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.environment import environment
from marigold_ros.ros.camera_output import INFO_TOPICS, TOPICS
from marigold_ros.ros.tools.command_line import positive
from marigold_ros.stop_flag import StopFlag

SIZES = {'VGA': (640, 480), 'FHD': (1920, 1080)}
# Slow enough for every case, so that no frame waits for the one before.
UNHURRIED_HZ = 5.0
# What a robot takes: the cloud for its map, the depth image for the rest.
ROBOT = ('depth/image_rect:Image', 'depth/camera_info:CameraInfo', 'points:PointCloud2')
EVERYTHING = (*ROBOT, *sorted(
    {f'{topic}:Image' for output, topic in TOPICS.items() if output not in ('depth', 'points')}
    | {f'{topic}:CameraInfo' for topic in INFO_TOPICS.values() if topic != 'depth/camera_info'}))
ONE_STEP = ('step_policy:=fixed', 'max_inference_steps:=1')
SLOW = ('step_policy:=fixed', 'max_inference_steps:=10', 'processing_resolution:=320',
        'latency_cap_ms:=0.0')
SECTIONS = ('added', 'age', 'rates', 'processor', 'outside', 'memory')
# Stages of ~/status: the engine's own, and the node's around them in their order.
ENGINE_STAGES = ('preprocess_ms', 'encode_ms', 'denoise_ms', 'decode_depth_ms', 'postprocess_ms')
NODE_STAGES = ('read_image_ms', 'rectify_ms', 'complexity_ms', 'engine_ms', 'fit_scale_ms',
               'pack_ms', 'publish_ms')
WARM_UP_FRAMES = 20
# After so many processed frames the memory is compared.
EARLY_FRAMES, LATE_FRAMES = 500, 5000
# /diagnostics comes once a second: the last one counts all that arrived.
LAST_COUNTS_S = 1.5
MIB = 2 ** 20

Result = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """
    One run of a node.

    Attributes
    ----------
    section, name : str
    size : (int, int)
        Width and height of the images, px.
    rate_hz : float
        Of every camera.
    outputs : tuple of str
        <topic>:<type> below a camera's name, all subscribed by the listener.
    parameters : tuple of str
        Of our node, <name>:=<value>, beside the cameras.
    cameras : tuple of str
    reliability : {'reliable', 'best_effort'}
        Of the images sent and of the images and clouds listened to.
    large_images : bool
        Whether the Fast DDS profile is used.
    """

    section: str
    name: str
    size: tuple[int, int]
    rate_hz: float
    outputs: tuple[str, ...] = ROBOT
    parameters: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ('camera',)
    reliability: str = 'reliable'
    large_images: bool = True


def list_cases(sections: Sequence[str]) -> list[Case]:
    """List the runs of the sections asked for."""
    sizes = SIZES.items()
    found = [Case('added', f'{name}, {what}', size, UNHURRIED_HZ, outputs)
             for name, size in sizes
             for what, outputs in (('depth and cloud', ROBOT), ('every output', EVERYTHING))]
    found += [Case('age', f'{name} at 30 Hz, {what}', size, 30.0, ROBOT, parameters)
              for name, size in sizes
              for what, parameters in (('fast model', ONE_STEP), ('slow model', SLOW))]
    found += [Case('rates', f'{name} at 30 Hz, {reliability.replace("_", " ")}, '
                   f'{"with" if profile else "without"} profile', size, 30.0, ROBOT, ONE_STEP,
                   reliability=reliability, large_images=profile)
              for name, size in sizes for reliability in ('reliable', 'best_effort')
              for profile in (False, True)]
    found += [Case('processor', f'{count} VGA camera(s) at {UNHURRIED_HZ:g} Hz', SIZES['VGA'],
                   UNHURRIED_HZ, cameras=tuple(f'camera_{i}' for i in range(count)))
              for count in (1, 2, 3)]
    found += [Case('outside', f'{name} at 30 Hz', size, 30.0, ROBOT[:2],
                   reliability='best_effort') for name, size in sizes]
    found += [Case('memory', 'VGA at 30 Hz, depth and cloud', SIZES['VGA'], 30.0)]
    return [case for case in found if case.section in sections]


def run(case: Case, node: NodeUnderTest, folder: Path, seconds: float, stop: StopFlag) -> Result:
    """
    Run one case; returns what goes into the JSON.

    Raises
    ------
    MarigoldError
        If a process ends early, badly or not at all.
    """
    rig = Rig(node, folder, stop, large_images=case.large_images,
              reliability=case.reliability)
    try:
        rig.wait_until_active()
        for camera in case.cameras:
            rig.start_camera(camera, '--size', '{}x{}'.format(*case.size), '--rate',
                             case.rate_hz, '--reliability', case.reliability)
        rig.warm_up(WARM_UP_FRAMES)
        seen = (rig.observe(float('inf'), LATE_FRAMES) if case.section == 'memory'
                else rig.observe(seconds))
        sent = {camera: rig.stop_camera(camera)['frames'] for camera in case.cameras}
        stop.sleep_until(time.monotonic() + LAST_COUNTS_S)
    finally:
        rig.close()
    return {**asdict(case), 'node': shlex.join(node.command),
            **summarize(node.outputs[0].rpartition(':')[0], seen, rig.lines(), sent)}


def summarize(topic: str, seen: Observation, lines: Sequence[Line],
              sent: Mapping[str, int]) -> Result:
    """
    Sum up one case.

    Parameters
    ----------
    topic : str
        The first output, which counts frames.
    seen : Observation
    lines : sequence of Line
        All that the bystander wrote.
    sent : mapping
        Number of images by camera.

    Returns
    -------
    dict
        Every figure that the case allows; times of the observation only, counts of the whole run.
    """
    inside = [line for line in lines if seen.start_ns <= line['received_ns'] < seen.end_ns]
    frames = processed_frames(inside)
    ages_ms = output_ages_ms(inside)
    wall_s = (seen.end_ns - seen.start_ns) / 1e9
    count = len(ages_ms.get(topic, ()))
    counters = last_counters(lines)
    return {
        'seconds': wall_s,
        'frames_out_per_s': count / wall_s,
        'times_ms': {key: quantiles([frame[key] for frame in frames])
                     for key in sorted({key for frame in frames for key in frame})},
        'stamp_to_receipt_ms': quantiles(ages_ms.get(topic, [])),
        'reply_ms': quantiles([1e3 * reply_s for reply_s in seen.replies_s]),
        'processor_share': seen.processor_s / wall_s,
        'processor_ms_per_frame': 1e3 * seen.processor_s / count if count else None,
        'memory_bytes': seen.ticks[-1]['memory_bytes'],
        'memory_growth': memory_growth(seen.ticks),
        'sent': sent,
        'counters': counters,
        'received_share': received_share(sent, counters),
        'outputs_received_share': outputs_received_share(topic, lines, counters),
    }


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p95, the largest and the number of values; None if there are none."""
    if not len(values):
        return None
    p50, p95 = np.quantile(values, (0.5, 0.95))
    return {'p50': float(p50), 'p95': float(p95), 'max': float(max(values)),
            'count': len(values)}


def processed_frames(lines: Iterable[Line]) -> list[dict[str, float]]:
    """
    Take the times of every processed frame from ~/status.

    Returns
    -------
    list of dict
        All values that end in _ms, `num_inference_steps`, and `engine_ms`, the engine's stages
        together, and `added_ms`, latency minus engine time.
    """
    frames = []
    for _, status in processed_statuses(lines):
        frame = {key: float(value) for key, value in status.items()
                 if key.endswith('_ms') or key == 'num_inference_steps'}
        frame['engine_ms'] = sum(frame[stage] for stage in ENGINE_STAGES)
        frame['added_ms'] = frame['latency_ms'] - frame['engine_ms']
        frames.append(frame)
    return frames


def output_ages_ms(lines: Iterable[Line]) -> dict[str, list[float]]:
    """Return, by topic, the time from each message's stamp, the camera's, to its receipt."""
    ages: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        if 'statuses' not in line:
            ages[line['topic']].append((line['received_ns'] - line['stamp_ns']) / 1e6)
    return ages


def memory_growth(ticks: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """
    Compare a node's memory after `LATE_FRAMES` with that after `EARLY_FRAMES`.

    Parameters
    ----------
    ticks : sequence of mapping
        `frames` and `memory_bytes`, in order.

    Returns
    -------
    dict or None
        `early_bytes` and `late_bytes`, medians of up to ten ticks from there on, or of the last
        ones, and `growth`, the relative difference.  None if there were not as many frames.
    """
    early = [tick['memory_bytes'] for tick in ticks
             if EARLY_FRAMES <= tick['frames'] < LATE_FRAMES][:10]
    late = [tick['memory_bytes'] for tick in ticks if tick['frames'] >= 0.98 * LATE_FRAMES][-10:]
    if not early or ticks[-1]['frames'] < LATE_FRAMES:
        return None
    first, last = float(np.median(early)), float(np.median(late))
    return {'early_bytes': first, 'late_bytes': last, 'growth': last / first - 1.0}


def received_share(sent: Mapping[str, int],
                   counters: Mapping[str, Mapping[str, int]]) -> float | None:
    """Part of the images that reached the node; None where the node does not count them."""
    total = sum(sent.values())
    if not counters or not total:
        return None
    return sum(counts['frames_in'] for counts in counters.values()) / total


def outputs_received_share(topic: str, lines: Iterable[Line],
                           counters: Mapping[str, Mapping[str, int]]) -> float | None:
    """Part of the processed frames whose first output reached the bystander."""
    camera = topic.split('/')[1]
    published = counters.get(camera, {}).get('frames_processed', 0)
    received = sum(line['topic'] == topic for line in lines)
    return received / published if published else None


def markdown(results: Sequence[Result]) -> str:
    """Lay out a table per section; pairs are p50, p95, times in ms."""
    parts = []
    for section, row in ROWS.items():
        rows = [{'': result['name'], **row(result)} for result in results
                if result['section'] == section]
        if rows:
            parts.append(f'## {section}\n\n{markdown_table(rows)}')
    return '\n\n'.join(parts)


def time_row(result: Result) -> dict[str, str]:
    """Lay out rates and times, ms, stage by stage."""
    times = defaultdict(lambda: None, result['times_ms'])
    steps = times['num_inference_steps']
    return {
        'frames/s': f'{result["frames_out_per_s"]:.1f}',
        'steps': '-' if steps is None else f'{steps["p50"]:.0f}, {steps["p95"]:.0f}',
        'age at start': pair(times['stamp_age_ms'] or times['age_ms']),
        **{stage.removesuffix('_ms').replace('_', ' '): pair(times[stage])
           for stage in NODE_STAGES},
        'added': pair(times['added_ms']),
        'stamp to receipt of the first output': pair(result['stamp_to_receipt_ms']),
        'service reply': pair(result['reply_ms'])}


def rate_row(result: Result) -> dict[str, str]:
    """Lay out what part of the frames arrives."""
    return {
        'images sent': str(sum(result['sent'].values())),
        'reach the node': share(result['received_share']),
        "reach the listener of the node's first output": share(result['outputs_received_share']),
        'stamp to receipt there, ms': pair(result['stamp_to_receipt_ms'])}


def processor_row(result: Result) -> dict[str, str]:
    """Lay out what the node takes of the machine."""
    return {
        'of one core': share(result['processor_share']),
        'a camera': share(result['processor_share'] / len(result['cameras'])),
        'frames/s of the first camera': f'{result["frames_out_per_s"]:.1f}',
        'resident memory, MiB': f'{result["memory_bytes"] / MIB:.0f}'}


def outside_row(result: Result) -> dict[str, str]:
    """Lay out what can be seen of a node that tells nothing."""
    per_frame = result['processor_ms_per_frame']
    return {
        'frames/s out': f'{result["frames_out_per_s"]:.2f}',
        'stamp to receipt, ms': pair(result['stamp_to_receipt_ms']),
        'service reply, ms': pair(result['reply_ms']),
        'of one core': share(result['processor_share']),
        'processor ms a frame': '-' if per_frame is None else f'{per_frame:.0f}',
        'resident memory, MiB': f'{result["memory_bytes"] / MIB:.0f}'}


def memory_row(result: Result) -> dict[str, str]:
    """Lay out how memory grew."""
    growth = result['memory_growth']
    return {
        f'MiB after {EARLY_FRAMES} frames': f'{growth["early_bytes"] / MIB:.1f}',
        f'after {LATE_FRAMES}': f'{growth["late_bytes"] / MIB:.1f}',
        'growth': f'{growth["growth"]:+.2%}'}


ROWS: dict[str, Callable[[Result], dict[str, str]]] = {
    'added': time_row, 'age': time_row, 'rates': rate_row, 'processor': processor_row,
    'outside': outside_row, 'memory': memory_row}


def pair(values: Mapping[str, float] | None) -> str:
    """Show p50 and p95."""
    return '-' if values is None else f'{values["p50"]:.1f}, {values["p95"]:.1f}'


def share(value: float | None) -> str:
    """Show a part in percent."""
    return '-' if value is None else f'{value:.1%}'


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('sections', nargs='*', metavar='SECTION', default=list(SECTIONS[:-1]),
                        help=f'some of {", ".join(SECTIONS)} (default: all but memory)')
    parser.add_argument('--seconds', type=positive, default=15.0, help='observed of each run')
    parser.add_argument('--only', default='', help='only runs whose name contains this')
    parser.add_argument('--command', help='start another lifecycle node instead of depth_node; '
                        'it must listen to /camera/image_raw and /camera/camera_info')
    parser.add_argument('--node', default='/depth_node', help="that node's full name")
    parser.add_argument('--output', nargs='+', metavar='TOPIC:TYPE',
                        help='where its results come out, the one that counts frames first')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; end with a message where it contradicts itself."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f'unknown section {", ".join(unknown)}; there are {", ".join(SECTIONS)}')
    if options.command and not (options.output and options.sections == ['outside']):
        parser.error('--command needs --output and the section outside')
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; 0 unless a run failed."""
    options = parse_options(arguments)
    stop = StopFlag()
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    facts = {**environment(), 'rclpy': version('rclpy')}
    results: list[Result] = []
    try:
        for case in list_cases(options.sections):
            if options.only not in case.name:
                continue
            node = (NodeUnderTest(options.node, tuple(shlex.split(options.command)),
                                  tuple(options.output)) if options.command
                    else own_node(case.cameras, case.outputs, case.parameters))
            print(f'{case.section}: {case.name}', file=sys.stderr, flush=True)
            results.append(run(case, node, options.out / 'node_logs' / str(len(results)),
                               options.seconds, stop))
    except MarigoldError as err:
        print(f'node: {err}', file=sys.stderr)
        return 1
    write_report(options.out, '_'.join(['node', *options.sections]), facts,
                 {'results': results}, markdown(results))
    return 0


if __name__ == '__main__':
    sys.exit(main())
