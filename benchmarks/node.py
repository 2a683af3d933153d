"""
Measure the node from outside, in real processes: camera, node, listener and a service client.

    ros2 run marigold_ros bench_node            # all but memory: about nine minutes
    ros2 run marigold_ros bench_node memory     # about six
    ros2 run marigold_ros bench_node outside --command '<another node>' --node /its_name \
        --output /its/depth:Image
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
import os
from pathlib import Path
import shlex
import sys
import time

from benchmarks.node_report import EARLY_FRAMES, LATE_FRAMES, markdown, summarize, targets
from benchmarks.rig import NodeUnderTest, own_node, Rig
from benchmarks.timing import write_report
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
METRES = ('scale.source:=fixed', 'scale.min_depth_m:=0.5', 'scale.max_depth_m:=10.0')
ONE_STEP = ('step_policy:=fixed', 'max_inference_steps:=1')
SLOW = ('step_policy:=fixed', 'max_inference_steps:=10', 'processing_resolution:=320',
        'latency_cap_ms:=0.0')
SECTIONS = ('added', 'age', 'rates', 'processor', 'outside', 'memory')
WARM_UP_FRAMES = 20
# /diagnostics comes once a second: the last one counts all that arrived.
LAST_COUNTS_S = 1.5


@dataclass(frozen=True)
class Case:
    """
    One run of a node.

    Attributes
    ----------
    section, name : str
    width, height : int
        Of the images, px.
    rate_hz : float
        Of every camera.
    outputs : tuple of str
        <topic>:<type> below a camera's name, all subscribed by the listener.
    parameters : tuple of str
        Of our node, <name>:=<value>, beside the cameras.
    cameras : int
    reliability : {'reliable', 'best_effort'}
        Of the images sent and of the images and clouds listened to.
    large_images : bool
        Whether the Fast DDS profile is used.
    early_frames, late_frames : int
        After so many processed frames the memory is compared; 0: not at all.
    """

    section: str
    name: str
    width: int
    height: int
    rate_hz: float
    outputs: tuple[str, ...] = ROBOT
    parameters: tuple[str, ...] = ()
    cameras: int = 1
    reliability: str = 'reliable'
    large_images: bool = True
    early_frames: int = 0
    late_frames: int = 0


def cases(sections: list[str], frames: tuple[int, int]) -> list[Case]:
    """List the runs of the sections asked for; `frames` are the memory's early and late ones."""
    sizes = [(name, width, height) for name, (width, height) in SIZES.items()]
    found = [Case('added', f'{name}, {what}', width, height, UNHURRIED_HZ, outputs)
             for name, width, height in sizes
             for what, outputs in (('depth and cloud', ROBOT), ('every output', EVERYTHING))]
    found += [Case('age', f'{name} at 30 Hz, {what}', width, height, 30.0, ROBOT, parameters)
              for name, width, height in sizes
              for what, parameters in (('fast model', ONE_STEP), ('slow model', SLOW))]
    found += [Case('rates', f'{name} at 30 Hz, {reliability.replace("_", " ")}, '
                   f'{"with" if profile else "without"} profile', width, height, 30.0, ROBOT,
                   ONE_STEP, reliability=reliability, large_images=profile)
              for name, width, height in sizes for reliability in ('reliable', 'best_effort')
              for profile in (False, True)]
    found += [Case('processor', f'{count} VGA camera(s) at {UNHURRIED_HZ:g} Hz', *SIZES['VGA'],
                   UNHURRIED_HZ, cameras=count) for count in (1, 2, 3)]
    found += [Case('outside', f'{name} at 30 Hz', width, height, 30.0, ROBOT[:2],
                   reliability='best_effort')
              for name, width, height in sizes]
    early, late = frames
    found += [Case('memory', 'VGA at 30 Hz, depth and cloud', *SIZES['VGA'], 30.0,
                   early_frames=early, late_frames=late)]
    return [case for case in found if case.section in sections]


def node_of(case: Case) -> NodeUnderTest:
    """Make our node for a case."""
    names = camera_names(case)
    outputs = [f'/{camera}/{each}' for camera in names for each in case.outputs]
    return own_node([*outputs, '/depth_node/status:DiagnosticArray',
                     '/diagnostics:DiagnosticArray'],
                    [f'cameras:=[{",".join(names)}]', *METRES, *case.parameters])


def camera_names(case: Case) -> list[str]:
    """Name the cameras of a case."""
    return ['camera'] if case.cameras == 1 else [f'camera_{i}' for i in range(case.cameras)]


def run(case: Case, node: NodeUnderTest, folder: Path, seconds: float, stop: StopFlag) -> dict:
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
        for camera in camera_names(case):
            rig.start_camera(camera, '--size', f'{case.width}x{case.height}', '--rate',
                             case.rate_hz, '--reliability', case.reliability)
        rig.warm_up(WARM_UP_FRAMES)
        seen = rig.observe(seconds if not case.late_frames else float('inf'), case.late_frames)
        sent = {camera: rig.stop_camera(camera) for camera in list(rig.cameras)}
        stop.sleep_until(time.monotonic() + LAST_COUNTS_S)
    finally:
        rig.close()
    return summarize({**asdict(case), 'outputs': node.outputs, 'node': shlex.join(node.command)},
                     asdict(seen), list(rig.lines()), sent)


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog='bench_node', description=__doc__.splitlines()[1])
    parser.add_argument('sections', nargs='*', metavar='SECTION', default=list(SECTIONS[:-1]),
                        help=f'some of {", ".join(SECTIONS)} (default: all but memory)')
    parser.add_argument('--seconds', type=positive, default=15.0, help='observed of each run')
    parser.add_argument('--memory-frames', type=int, nargs=2, metavar=('EARLY', 'LATE'),
                        default=(EARLY_FRAMES, LATE_FRAMES),
                        help='processed frames after which memory is compared')
    parser.add_argument('--only', default='', help='only runs whose name contains this')
    parser.add_argument('--rate', type=positive, help='frames/s instead of the usual ones')
    parser.add_argument('--command', help='start another lifecycle node instead of depth_node; '
                        'it must listen to /camera/image_raw and /camera/camera_info')
    parser.add_argument('--node', default='/depth_node', help="that node's full name")
    parser.add_argument('--output', nargs='+', metavar='TOPIC:TYPE',
                        help='where its results come out, the one that counts frames first')
    parser.add_argument('--out', type=Path, default=Path('out/benchmark'))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, write JSON and Markdown; 0 unless a run failed."""
    stop = StopFlag()
    parser = make_parser()
    options = parser.parse_args(arguments)
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f'unknown section {", ".join(unknown)}; there are {", ".join(SECTIONS)}')
    if options.command and not (options.output and options.sections == ['outside']):
        parser.error('--command needs --output and the section outside')
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    facts = {**environment(), 'rclpy': version('rclpy')}
    results = []
    try:
        for case in cases(options.sections, tuple(options.memory_frames)):
            if options.only not in case.name:
                continue
            if options.rate:
                case = replace(case, rate_hz=options.rate)
            node = (NodeUnderTest(options.node, tuple(shlex.split(options.command)),
                                  tuple(options.output)) if options.command else node_of(case))
            print(f'{case.section}: {case.name}', flush=True)
            results.append(run(case, node, options.out / 'bench_node_logs' / str(len(results)),
                               options.seconds, stop))
    except MarigoldError as err:
        print(f'bench_node: {err}', file=sys.stderr)
        return 1
    report = {'environment': facts, 'results': results, 'targets': targets(results),
              'command': shlex.join(['bench_node', *(arguments or sys.argv[1:])])}
    text = markdown(report)
    print(text)
    write_report(options.out, 'bench_node_' + '_'.join(options.sections), report, text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
