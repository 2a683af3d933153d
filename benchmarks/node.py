"""
Does depth come at the camera's rate, how old is it, and how much CPU and memory does that need?

    python -m benchmarks.node            # all sections but memory: about twelve minutes
    python -m benchmarks.node memory     # about four
    python -m benchmarks.node other_node --command '<another node>' --node /its_name \
        --output /its/depth:Image

Camera, node and listener are separate processes.  Every case starts a node, warms it up and
measures it: times by stage come from the node's ~/status, ages at the listener are relative to the
camera's stamp, CPU time and memory come from the kernel, and frames are counted at camera, node
and listener.  The camera pans over one scene, or shows another in each image ("cuts"), into which
nothing can be carried.  A slowed engine sleeps, as if a GPU were busy; "10 steps" keep a core
busy.  "overhead" is the time from receipt to publication, minus the engine's where the frame has
waited for its run.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
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

from benchmarks.latency_cap_load import busy_cores
from benchmarks.node_rig import (
    depth_node_under_test,
    last_counters,
    Line,
    NodeUnderTest,
    Observation,
    processed_statuses,
    Rig,
)
from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.ros.camera_output import INFO_TOPICS, TOPICS
from marigold_ros.ros.tools.command_line import parse_positive
from marigold_ros.stop_flag import StopFlag

SIZES = {'VGA': (640, 480), 'FHD': (1920, 1080)}
# So slow that no frame waits for the one before, in any case.
UNLOADED_HZ = 5.0
# Typical subscriptions of a robot: depth image and cloud.
ROBOT_OUTPUTS = ('depth/image_rect:Image', 'depth/camera_info:CameraInfo', 'points:PointCloud2')
ALL_OUTPUTS = (*ROBOT_OUTPUTS, *sorted(
    {f'{topic}:Image' for output, topic in TOPICS.items() if output not in ('depth', 'points')}
    | {f'{topic}:CameraInfo' for topic in INFO_TOPICS.values() if topic != 'depth/camera_info'}))
EVERY_FRAME = ('step_policy:=fixed', 'max_inference_steps:=1')
TEN_STEPS = ('step_policy:=fixed', 'max_inference_steps:=10', 'processing_resolution:=320')
LATE_MS = 100.0
THREE_CAMERAS = ('camera_0', 'camera_1', 'camera_2')
SECTIONS = ('frames', 'overhead', 'rates', 'cpu', 'other_node', 'memory')
# Stages in ~/status: those of the engine, and those of the node in their order.
ENGINE_STAGES = ('preprocess_ms', 'encode_ms', 'denoise_ms', 'decode_depth_ms', 'postprocess_ms')
NODE_STAGES = ('read_image_ms', 'rectify_ms', 'complexity_ms', 'engine_ms', 'fit_scale_ms',
               'pack_ms', 'publish_ms')
WARM_UP_FRAMES = 20
# Numbers of processed frames at which the memory is compared.
EARLY_FRAMES, LATE_FRAMES = 500, 5000
# /diagnostics is published once a second; the last message has the final counts.
LAST_COUNTS_S = 1.5
MIB = 2 ** 20

Result = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """
    Settings of one run of a node.

    Attributes
    ----------
    section, name : str
    size : (int, int)
        Width and height of the images, px.
    rate_hz : float
        Frame rate of every camera.
    outputs : tuple of str
        <topic>:<type> below a camera's name, subscribed by the listener.
    parameters : tuple of str
        Parameters of depth_node, <name>:=<value>, in addition to the cameras.
    cameras : tuple of str
    reliability : {'reliable', 'best_effort'}
        QoS of the images sent and of the listener's images and clouds.
    large_images : bool
        Whether the Fast DDS profile is used.
    content : {'moving', 'cuts'}
        What the cameras show, see `synthetic_camera`.
    slowed_run_s : float
        Least time of a run of the networks; 0: as long as they take.
    busy_cores : int
        Cores that another process keeps busy each.
    transforms : bool
        Whether TF tells how the camera moves along a wall.
    references : tuple of str
        What else is published for the first camera, see `benchmarks.synthetic_reference`.
    """

    section: str
    name: str
    size: tuple[int, int]
    rate_hz: float
    outputs: tuple[str, ...] = ROBOT_OUTPUTS
    parameters: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ('camera',)
    reliability: str = 'reliable'
    large_images: bool = True
    content: str = 'moving'
    slowed_run_s: float = 0.0
    busy_cores: int = 0
    transforms: bool = False
    references: tuple[str, ...] = ()


def list_cases(sections: Sequence[str]) -> list[Case]:
    """Return the runs of the given sections."""
    sizes = SIZES.items()
    vga, fhd = SIZES['VGA'], SIZES['FHD']
    found = [Case('frames', f'VGA at 30 Hz{what}', vga, 30.0, **settings) for what, settings in (
        ('', {}), (', every output', {'outputs': ALL_OUTPUTS}),
        (', beside a busy core', {'busy_cores': 1}),
        (', a run takes 300 ms', {'slowed_run_s': 0.3}),
        (', a run takes 1000 ms', {'slowed_run_s': 1.0}),
        (', one step at any time', {'parameters': EVERY_FRAME}),
        (', 10 steps at any time', {'parameters': TEN_STEPS}),
        (', metres from motion', {
            'transforms': True, 'parameters': ('scale.sources:=[motion]',)}),
        (', metres from a cloud', {
            'references': ('cloud', 'tf'), 'parameters': ('scale.sources:=[cloud]',)}),
        (', cuts', {'content': 'cuts'}),
        (', cuts, a cap of 100 ms, beside a busy core', {
            'content': 'cuts', 'busy_cores': 1, 'parameters': ('latency_cap_ms:=100.0',)}))]
    found += [Case('frames', f'FHD at 30 Hz{what}', fhd, 30.0, outputs) for what, outputs in (
        ('', ROBOT_OUTPUTS), (', every output', ALL_OUTPUTS))]
    found += [Case('frames', 'FHD at 30 Hz, a run takes 1000 ms', fhd, 30.0, slowed_run_s=1.0)]
    found += [Case('frames', f'3 times VGA at 10 Hz{what}', vga, 10.0, cameras=THREE_CAMERAS,
                   **settings) for what, settings in (
        ('', {}), (', a run takes 300 ms', {'slowed_run_s': 0.3}),
        (', 10 steps at any time', {'parameters': TEN_STEPS}))]
    found += [Case('overhead', f'{name}, {what}{", cuts" if content == "cuts" else ""}', size,
                   UNLOADED_HZ, outputs, content=content)
              for name, size in sizes
              for what, outputs in (('depth and cloud', ROBOT_OUTPUTS),
                                    ('every output', ALL_OUTPUTS))
              for content in ('moving', 'cuts')]
    found += [Case('rates', f'{name} at 30 Hz, {reliability.replace("_", " ")}, '
                   f'{"with" if profile else "without"} profile', size, 30.0,
                   reliability=reliability, large_images=profile)
              for name, size in sizes for reliability in ('reliable', 'best_effort')
              for profile in (False, True)]
    found += [Case('cpu', f'{count} VGA camera(s) at {UNLOADED_HZ:g} Hz', SIZES['VGA'],
                   UNLOADED_HZ, cameras=THREE_CAMERAS[:count]) for count in (1, 2, 3)]
    found += [Case('other_node', f'{name} at 30 Hz', size, 30.0, ROBOT_OUTPUTS[:2],
                   reliability='best_effort') for name, size in sizes]
    found += [Case('memory', 'VGA at 30 Hz, depth and cloud', SIZES['VGA'], 30.0)]
    return [case for case in found if case.section in sections]


def run(case: Case, node: NodeUnderTest, folder: Path, seconds: float, stop: StopFlag) -> Result:
    """
    Run one case and return the values for JSON.

    Raises
    ------
    MarigoldError
        If a process ends early or with an error, or does not stop.
    """
    rig = Rig(node, folder, stop, large_images=case.large_images,
              reliability=case.reliability)
    try:
        rig.wait_until_active()
        for camera in case.cameras:
            rig.start_camera(camera, '--size', '{}x{}'.format(*case.size), '--rate',
                             case.rate_hz, '--reliability', case.reliability,
                             '--content', case.content,
                             *(['--transforms'] if case.transforms else []))
        for what in case.references:
            rig.toggle_reference(case.cameras[0], what)
        rig.warm_up(WARM_UP_FRAMES)
        with busy_cores(case.busy_cores):
            observation = (rig.observe(float('inf'), LATE_FRAMES) if case.section == 'memory'
                           else rig.observe(seconds))
        stamps_ns = {camera: rig.stop_camera(camera)['stamps_ns'] for camera in case.cameras}
        stop.sleep_until(time.monotonic() + LAST_COUNTS_S)
    finally:
        rig.close()
    return {**asdict(case), 'node': shlex.join(node.command),
            **summarize(frame_topics(case, node), observation, rig.lines(), stamps_ns)}


def frame_topics(case: Case, node: NodeUnderTest) -> list[str]:
    """Return the first output of each camera, whose messages are counted as frames."""
    topic, _, _ = node.outputs[0].rpartition(':')
    return [topic.replace(f'/{case.cameras[0]}/', f'/{camera}/', 1) for camera in case.cameras]


def summarize(topics: Sequence[str], observation: Observation, lines: Sequence[Line],
              stamps_ns: Mapping[str, Sequence[int]]) -> Result:
    """
    Summarize one case.

    Parameters
    ----------
    topics : sequence of str
        Of `frame_topics`.
    observation : Observation
    lines : sequence of Line
        All lines of the listener.
    stamps_ns : mapping
        Of the images sent, ns, by camera in the order of `topics`.

    Returns
    -------
    dict
        Times are of the observation only, counts are of the whole run.
    """
    inside = [line for line in lines
              if observation.start_ns <= line['received_ns'] < observation.end_ns]
    frames = processed_frames(inside)
    ages_ms = output_ages_ms(inside)
    wall_s = (observation.end_ns - observation.start_ns) / 1e9
    received_ms = [age_ms for topic in topics for age_ms in ages_ms.get(topic, ())]
    count = len(received_ms)
    counters = last_counters(lines)
    sent = {camera: len(stamps) for camera, stamps in stamps_ns.items()}
    return {
        'seconds': wall_s,
        'frames_out_per_s': count / wall_s / len(topics),
        'worst_second': min(find_worst_second(observation, topic, lines, stamps)
                            for topic, stamps in zip(topics, stamps_ns.values())),
        'runs_per_s': sum(frame['num_inference_steps'] > 0 for frame in frames) / wall_s,
        'late_share': share_above(LATE_MS, [frame['latency_ms'] for frame in frames]),
        'times_ms': {key: quantiles([frame[key] for frame in frames])
                     for key in sorted({key for frame in frames for key in frame})},
        'stamp_to_receipt_ms': quantiles(received_ms),
        'reply_ms': quantiles([1e3 * reply_s for reply_s in observation.replies_s]),
        'cpu_share': observation.cpu_s / wall_s,
        'cpu_ms_per_frame': 1e3 * observation.cpu_s / count if count else None,
        'memory_bytes': observation.ticks[-1]['memory_bytes'],
        'memory_growth': memory_growth(observation.ticks),
        'sent': sent,
        'counters': counters,
        'received_share': received_share(sent, counters),
        'outputs_received_share': outputs_received_share(topics[0], lines, counters),
    }


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p95, p99, maximum and number of values; None if there are none."""
    if not len(values):
        return None
    p50, p95, p99 = np.quantile(values, (0.5, 0.95, 0.99))
    return {'p50': float(p50), 'p95': float(p95), 'p99': float(p99), 'max': float(max(values)),
            'count': len(values)}


def share_above(limit: float, values: Sequence[float]) -> float | None:
    """Return the share of values above a limit; None if there are none."""
    return sum(value > limit for value in values) / len(values) if values else None


def find_worst_second(observation: Observation, topic: str, lines: Iterable[Line],
                      sent_ns: Iterable[int]) -> tuple[int, int]:
    """Return the fewest messages of a topic in a whole second, by stamp, of how many images."""
    def count(stamps_ns: Iterable[int]) -> Counter[int]:
        return Counter((stamp_ns - observation.start_ns) // 10 ** 9 for stamp_ns in stamps_ns)

    whole = (observation.end_ns - observation.start_ns) // 10 ** 9
    received = count(line['stamp_ns'] for line in lines if line['topic'] == topic)
    sent = count(sent_ns)
    return min(((received[second], sent[second]) for second in range(whole)), default=(0, 0))


def processed_frames(lines: Iterable[Line]) -> list[dict[str, float]]:
    """
    Return the times of every processed frame in ~/status.

    Returns
    -------
    list of dict
        All values whose names end in _ms, `num_inference_steps`, `carried_s`, `engine_ms` (sum of
        the engine's stages) and `overhead_ms`: latency, minus engine time if the frame waited.
    """
    frames = []
    for _, status in processed_statuses(lines):
        frame = {key: float(value) for key, value in status.items()
                 if key.endswith('_ms') or key in ('num_inference_steps', 'carried_s')}
        frame['engine_ms'] = sum(frame[stage] for stage in ENGINE_STAGES)
        frame['overhead_ms'] = (frame['latency_ms'] if frame['carried_s']
                                else frame['latency_ms'] - frame['engine_ms'])
        frames.append(frame)
    return frames


def output_ages_ms(lines: Iterable[Line]) -> dict[str, list[float]]:
    """Return the time from the camera's stamp to the receipt of each message, ms, by topic."""
    ages: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        if 'statuses' not in line:
            ages[line['topic']].append((line['received_ns'] - line['stamp_ns']) / 1e6)
    return ages


def memory_growth(ticks: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """
    Compare a node's memory after `LATE_FRAMES` frames with that after `EARLY_FRAMES`.

    Parameters
    ----------
    ticks : sequence of mapping
        `frames` and `memory_bytes`, in order.

    Returns
    -------
    dict or None
        `early_bytes` and `late_bytes`, medians of up to ten ticks from `EARLY_FRAMES` and up to
        `LATE_FRAMES`, and `growth`, their relative difference.  None if there were fewer frames.
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
    """Return the share of images that the node received; None if it does not count them."""
    total = sum(sent.values())
    if not counters or not total:
        return None
    return sum(counts['frames_in'] for counts in counters.values()) / total


def outputs_received_share(topic: str, lines: Iterable[Line],
                           counters: Mapping[str, Mapping[str, int]]) -> float | None:
    """Return the share of processed frames whose first output the listener received."""
    camera = topic.split('/')[1]
    published = counters.get(camera, {}).get('frames_processed', 0)
    received = sum(line['topic'] == topic for line in lines)
    return received / published if published else None


def format_markdown(results: Sequence[Result]) -> str:
    """Format a table per section as Markdown; numbers are p50, p95 and p99, times in ms."""
    parts = []
    for section, row in ROWS.items():
        rows = [{'': result['name'], **row(result)} for result in results
                if result['section'] == section]
        if rows:
            parts.append(f'## {section}\n\n{format_markdown_table(rows)}')
    return '\n\n'.join(parts)


def time_row(result: Result) -> dict[str, str]:
    """Format rates and times by stage, ms."""
    times = defaultdict(lambda: None, result['times_ms'])
    steps = times['num_inference_steps']
    return {
        'frames/s': f'{result["frames_out_per_s"]:.1f}',
        'steps': '-' if steps is None else f'{steps["p50"]:.0f}, {steps["p95"]:.0f}',
        'age at start': format_percentiles(times['stamp_age_ms'] or times['age_ms']),
        **{stage.removesuffix('_ms').replace('_', ' '): format_percentiles(times[stage])
           for stage in NODE_STAGES},
        'overhead': format_percentiles(times['overhead_ms']),
        'stamp to receipt of the first output': format_percentiles(result['stamp_to_receipt_ms']),
        'service reply': format_percentiles(result['reply_ms'])}


def frames_row(result: Result) -> dict[str, str]:
    """Format how many frames come out, and how old they are."""
    times = defaultdict(lambda: None, result['times_ms'])
    cameras = len(result['cameras'])
    return {
        'published a second': f'{result["frames_out_per_s"]:.1f}'
                              + (' of each' if cameras > 1 else ''),
        'in the worst second': '{} of {}'.format(*result['worst_second']),
        'receipt to publication': format_percentiles(times['latency_ms'], 'p99'),
        f'over {LATE_MS:.0f} ms': format_share(result['late_share']),
        'stamp to receipt by the listener': format_percentiles(result['stamp_to_receipt_ms'],
                                                               'p99'),
        'runs a second': f'{result["runs_per_s"]:.1f}',
        'age of the run shown, s': '-' if times['carried_s'] is None
                                   else f'{times["carried_s"]["p95"]:.2f}',
        'service reply': format_percentiles(result['reply_ms']),
        'of one core': format_share(result['cpu_share'])}


def rate_row(result: Result) -> dict[str, str]:
    """Format the shares of frames that arrive."""
    return {
        'images sent': str(sum(result['sent'].values())),
        'reach the node': format_share(result['received_share']),
        "reach the listener of the node's first output": format_share(
            result['outputs_received_share']),
        'stamp to receipt there, ms': format_percentiles(result['stamp_to_receipt_ms'])}


def cpu_row(result: Result) -> dict[str, str]:
    """Format CPU time and memory of the node."""
    return {
        'of one core': format_share(result['cpu_share']),
        'a camera': format_share(result['cpu_share'] / len(result['cameras'])),
        'frames/s of each': f'{result["frames_out_per_s"]:.1f}',
        'resident memory, MiB': f'{result["memory_bytes"] / MIB:.0f}'}


def other_node_row(result: Result) -> dict[str, str]:
    """Format what can be measured of any node without its ~/status."""
    per_frame = result['cpu_ms_per_frame']
    return {
        'frames/s out': f'{result["frames_out_per_s"]:.2f}',
        'stamp to receipt, ms': format_percentiles(result['stamp_to_receipt_ms']),
        'service reply, ms': format_percentiles(result['reply_ms']),
        'of one core': format_share(result['cpu_share']),
        'CPU ms per frame': '-' if per_frame is None else f'{per_frame:.0f}',
        'resident memory, MiB': f'{result["memory_bytes"] / MIB:.0f}'}


def memory_row(result: Result) -> dict[str, str]:
    """Format the growth of memory."""
    growth = result['memory_growth']
    return {
        f'MiB after {EARLY_FRAMES} frames': f'{growth["early_bytes"] / MIB:.1f}',
        f'after {LATE_FRAMES}': f'{growth["late_bytes"] / MIB:.1f}',
        'growth': f'{growth["growth"]:+.2%}'}


ROWS: dict[str, Callable[[Result], dict[str, str]]] = {
    'frames': frames_row, 'overhead': time_row, 'rates': rate_row, 'cpu': cpu_row,
    'other_node': other_node_row, 'memory': memory_row}


def format_percentiles(values: Mapping[str, float] | None, *further: str) -> str:
    """Format p50, p95 and others."""
    return '-' if values is None else ', '.join(
        f'{values[name]:.1f}' for name in ('p50', 'p95', *further))


def format_share(value: float | None) -> str:
    """Format a share in percent."""
    return '-' if value is None else f'{value:.1%}'


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('sections', nargs='*', metavar='SECTION', default=list(SECTIONS[:-1]),
                        help=f'some of {", ".join(SECTIONS)} (default: all but memory)')
    parser.add_argument('--seconds', type=parse_positive, default=15.0,
                        help='measured time of each run')
    parser.add_argument('--only', default='', help='run only cases whose name contains this')
    parser.add_argument('--command', help='start another lifecycle node instead of depth_node; '
                        'it must subscribe to /camera/image_raw and /camera/camera_info')
    parser.add_argument('--node', default='/depth_node', help="that node's full name")
    parser.add_argument('--output', nargs='+', metavar='TOPIC:TYPE',
                        help='its outputs; messages of the first are counted as frames')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; exit with a message if options contradict each other."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f'unknown section {", ".join(unknown)}; there are {", ".join(SECTIONS)}')
    if options.command and not (options.output and options.sections == ['other_node']):
        parser.error('--command needs --output and the section other_node')
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the report; the exit code is 0, or 1 if a run failed."""
    options = parse_options(arguments)
    stop = StopFlag()
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    facts = {**describe_environment(), 'rclpy': version('rclpy')}
    results: list[Result] = []
    try:
        for case in list_cases(options.sections):
            if options.only not in case.name:
                continue
            node = (NodeUnderTest(options.node, tuple(shlex.split(options.command)),
                                  tuple(options.output)) if options.command
                    else depth_node_under_test(
                        case.cameras, case.outputs, case.parameters,
                        slowed=('--run-s', str(case.slowed_run_s)) if case.slowed_run_s else ()))
            print(f'{case.section}: {case.name}', file=sys.stderr, flush=True)
            results.append(run(case, node, options.out / 'node_logs' / str(len(results)),
                               options.seconds, stop))
    except MarigoldError as err:
        print(f'node: {err}', file=sys.stderr)
        return 1
    write_benchmark_report(options.out, '_'.join(['node', *options.sections]), facts,
                           {'results': results}, format_markdown(results))
    return 0


if __name__ == '__main__':
    sys.exit(main())
