"""Play the sample drive to depth_node, record its outputs and print a summary."""

from __future__ import annotations

import argparse
from collections.abc import Callable
import os
from pathlib import Path
import sys
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from marigold_ros.data.bags.reader import open_bag
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.metrics.costmap import read_layer_config
from marigold_ros.evaluation.metrics.obstacles import read_scene
from marigold_ros.evaluation.recording import (
    CAMERA,
    empty_topics,
    format_summary,
    NODE,
    save_contact_sheet,
    summarize_recording,
)
from marigold_ros.evaluation.recording_look import map_obstacles, write_recording_page
from marigold_ros.evaluation.report.costmap_picture import open_poses
from marigold_ros.progress import progress_bar, ProgressBar
from marigold_ros.ros.camera_output import INFO_TOPICS, TOPICS
from marigold_ros.ros.startup import init_rclpy
from marigold_ros.ros.tools.processes import (
    find_free_domain,
    find_package_command,
    LoggedProcess,
    make_domain_environment,
    ProcessError,
)
from marigold_ros.ros.tools.share_files import require_share_file, select_large_image_profile
from marigold_ros.stop_flag import ignore_signals, StopFlag

TOOLS = 'marigold_ros.ros.tools'
SHEET, PAGE = 'contact_sheet.png', 'report.html'
LIDAR = '/lidar/points'
OUTPUTS = [f'/{CAMERA}/{topic}' for topic in sorted({*TOPICS.values(), *INFO_TOPICS.values()})] + [
    f'/{NODE}/status', '/diagnostics']
# A cold start loads torch, diffusers and the checkpoint from disk.
ACTIVE_TIMEOUT_S = 120.0
DISCOVERY_TIMEOUT_S = 30.0
# After the player has ended, the node needs a moment to count the last received messages.
COUNT_DELAY_S = 0.5
LAST_FRAME_TIMEOUT_S = 60.0


class NodeMonitor:
    """
    Watch the state and progress of depth_node from a node of its own.

    Parameters
    ----------
    stop : StopFlag
        Interrupts every wait.

    Attributes
    ----------
    required_processes : list of LoggedProcess
        A wait fails when one of them ends.
    progress : ProgressBar or None
        Advances with every frame whose outcome is known.
    last_idle_s : float
        Monotonic time of the last report of the node without pending frames.
    """

    def __init__(self, stop: StopFlag) -> None:
        self.stop = stop
        self.required_processes: list[LoggedProcess] = []
        self.progress: ProgressBar | None = None
        self.last_idle_s = 0.0
        self.node = rclpy.create_node('demo', enable_rosout=False, start_parameter_services=False)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._state_client = self.node.create_client(GetState, f'/{NODE}/get_state')
        self._state: Future | None = None
        self.node.create_subscription(DiagnosticArray, f'/{NODE}/status', self._on_status, 100)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._processed = 0
        self._failure = ''

    def close(self) -> None:
        """Destroy the node."""
        self._executor.shutdown()
        self.node.destroy_node()

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """
        Wait until a condition holds.

        Raises
        ------
        ProcessError
            On timeout, if a required process ends, the node fails, or Ctrl-C is pressed.
        """
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                tails = '\n'.join(process.log_tail() for process in self.required_processes)
                raise ProcessError(f'timeout after {timeout_s:.0f} s: {what}; {tails}')
            self.check()

    def check(self) -> None:
        """
        Process received messages and check for failures.

        Raises
        ------
        ProcessError
            If a required process has ended, the node has failed, or Ctrl-C was pressed.
        """
        self._executor.spin_once(timeout_sec=0.05)
        if self.stop.requested:
            raise ProcessError('interrupted')
        if self._failure:
            raise ProcessError(f'{NODE}: {self._failure}')
        for process in self.required_processes:
            process.require_running()

    def node_is_active(self) -> bool:
        """Check whether the node is active; a call may return the state of the call before."""
        if self._state is None:
            if self._state_client.service_is_ready():
                self._state = self._state_client.call_async(GetState.Request())
            return False
        if not self._state.done():
            return False
        label: str = self._state.result().current_state.label
        self._state = None
        return label == 'active'

    def outputs_are_recorded(self) -> bool:
        """Check whether every output has a subscriber besides this monitor."""
        return all(
            any(info.node_name != self.node.get_name()
                for info in self.node.get_subscriptions_info_by_topic(topic))
            for topic in OUTPUTS)

    def _on_status(self, array: DiagnosticArray) -> None:
        values = {item.key: item.value for item in array.status[0].values}
        if values['outcome'] == 'processed' and self.progress is not None:
            self._processed += 1
            self.progress.set_postfix_str(
                f'{self._processed} processed, last: T={values["num_inference_steps"]} in '
                f'{float(values["latency_ms"]):.0f} ms', refresh=False)
        if self.progress is not None:
            self.progress.update()

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        node, *cameras = array.status
        if node.level == DiagnosticStatus.ERROR and 'failed' in node.message:
            self._failure = node.message
        if not any(_count_pending_frames(camera) for camera in cameras):
            self.last_idle_s = time.monotonic()


def run(arguments: argparse.Namespace, stop: StopFlag) -> Path:
    """
    Run recorder, node and player until the end of the bag.

    Returns
    -------
    Path
        Bag folder of the recording.

    Raises
    ------
    MarigoldError
        If a process fails, ends early or does not end.
    """
    out: Path = arguments.out
    recording = out / 'recording'
    with open_bag(arguments.bag) as bag:
        duration_s = bag.duration_s
        image_count = sum(topic.message_count for topic in bag.topics
                          if topic.name.removesuffix('/compressed') == f'/{CAMERA}/image_raw')
    monitor = NodeMonitor(stop)
    processes: list[LoggedProcess] = []

    def start(name: str, module: str, *parameters: object) -> LoggedProcess:
        process = LoggedProcess(
            name, [*find_package_command(name, module), *map(str, parameters)], out, os.environ)
        print(f'$ {process.command_line}', flush=True)
        processes.append(process)
        return process

    try:
        recorder = start('record_bag', f'{TOOLS}.record_bag', recording, '--all', '--overwrite')
        node = start('depth_node', 'marigold_ros.ros.main', '--ros-args', '--params-file',
                     arguments.params_file, '-r', f'{CAMERA}/scale/cloud:={LIDAR}')
        monitor.required_processes = [recorder, node]
        monitor.wait(monitor.node_is_active, f'{NODE} becoming active', ACTIVE_TIMEOUT_S)
        monitor.wait(monitor.outputs_are_recorded, 'recording of every output',
                     DISCOVERY_TIMEOUT_S)
        player = start('play_bag', f'{TOOLS}.play_bag', arguments.bag, '--clock',
                       '--wait-for-subscribers', DISCOVERY_TIMEOUT_S)
        _show_progress(monitor, player, image_count, duration_s)
        for process in (recorder, node):
            process.stop()
            process.require_success()
    finally:
        for process in processes:
            process.stop()
        monitor.close()
    return recording


def _count_pending_frames(camera: DiagnosticStatus) -> int:
    """Count the received frames without a known outcome."""
    counters = {item.key: item.value for item in camera.values}
    finished = sum(int(value) for name, value in counters.items()
                   if name == 'frames_processed' or name.startswith('dropped_'))
    return int(counters.get('frames_in', 0)) - finished


def _show_progress(monitor: NodeMonitor, player: LoggedProcess, image_count: int,
                   duration_s: float) -> None:
    """Show progress until the player has ended and the node has processed its last frame."""
    with progress_bar(desc='drive', total=image_count, unit=' frames',
                      mininterval=0.5) as progress:
        monitor.progress = progress
        monitor.wait(lambda: not player.running, 'the end of the bag',
                     2 * (DISCOVERY_TIMEOUT_S + duration_s))
        player.require_success()
        idle_after_s = time.monotonic() + COUNT_DELAY_S
        monitor.wait(lambda: monitor.last_idle_s > idle_after_s, f"the end of {NODE}'s last frame",
                     LAST_FRAME_TIMEOUT_S)


def report(recording: Path, drive: Path, out: Path, scene: Path | None = None) -> bool:
    """
    Print the summary of the recording, draw the contact sheet and write the page.

    Parameters
    ----------
    recording, drive : Path
        The recorded bag, and the one that was played, which has the poses.
    out : Path
        Folder of the page and the sheet.
    scene : Path or None
        Obstacles of the drive; None: the map compares the clouds with the lidar.

    Returns
    -------
    bool
        Whether every output topic has messages.
    """
    with open_bag(recording) as bag:
        summary = summarize_recording(bag)
        print(f'\n{recording}: {len(bag.topics)} topics, {bag.duration_s:.1f} s')
        print(format_summary(summary))
        empty = empty_topics(summary, OUTPUTS)
        for topic, reason in empty.items():
            print(f'{topic} is empty: {reason}', file=sys.stderr)
        if not empty:
            layer = read_layer_config(require_share_file('config/nav2_costmap.yaml'))
            sheet, page = out / SHEET, out / PAGE
            save_contact_sheet(bag, summary, sheet, drive=drive, layer=layer)
            print(f'{sheet}: image, relative and metric depth, ground truth, costmap')
            write_recording_page(page, bag, summary, map_obstacles(
                bag, CAMERA, open_poses(drive), layer, lidar=LIDAR,
                scene=None if scene is None else read_scene(scene)))
            print(f'{page}: frame by frame, clouds to turn, obstacles from above')
    return not empty


def make_parser() -> argparse.ArgumentParser:
    """Create the parser of the command line."""
    parser = argparse.ArgumentParser(prog='demo', description=__doc__)
    parser.add_argument('--bag', type=Path, help='bag to play (default: the sample drive)')
    parser.add_argument('--params-file', type=Path,
                        help="the node's parameters (default: config/demo.yaml)")
    parser.add_argument('--out', type=Path, default=Path('out/demo'),
                        help='folder of recording, report and logs (default: out/demo)')
    return parser


def main() -> int:
    """Run the demo; the exit code is 0 if every output topic has messages, else 1."""
    stop = StopFlag()
    arguments = make_parser().parse_args()
    begin_s = time.monotonic()
    try:
        os.environ.update(make_domain_environment(find_free_domain()))
        os.environ.update(select_large_image_profile(os.environ))
        init_rclpy([], signal_handler_options=SignalHandlerOptions.NO)
        scene = None if arguments.bag else require_share_file('sample/scene.json')
        arguments.bag = arguments.bag or require_share_file('sample/living_room')
        arguments.params_file = arguments.params_file or require_share_file('config/demo.yaml')
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name in (SHEET, PAGE):
            (arguments.out / name).unlink(missing_ok=True)
        complete = report(run(arguments, stop), arguments.bag, arguments.out, scene)
    except MarigoldError as err:
        print(f'demo: {err}', file=sys.stderr)
        return 1
    finally:
        ignore_signals()
        rclpy.try_shutdown()
    print(f'{time.monotonic() - begin_s:.0f} s in all; logs in {arguments.out}')
    return 0 if complete else 1


if __name__ == '__main__':
    sys.exit(main())
