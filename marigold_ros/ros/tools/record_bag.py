"""Record live topics to an MCAP bag that Foxglove and `ros2 bag` open."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
import sys
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.topic_or_service_is_hidden import topic_or_service_is_hidden

from marigold_ros.data.bags.writer import BagWriter
from marigold_ros.depth.errors import BagError, MarigoldError
from marigold_ros.ros.startup import init_rclpy
from marigold_ros.ros.tools.bag_qos import choose_recording_qos, to_rosbags_qos
from marigold_ros.ros.tools.command_line import parse_positive, split_ros_arguments
from marigold_ros.ros.tools.message_types import find_message_class, read_installed_typestore
from marigold_ros.stop_flag import ignore_signals, POLL_PERIOD_S, StopFlag

# Time between checks for new topics and publishers.
DISCOVERY_PERIOD_S = 0.2
# At the end, messages that are already received are still written, for at most this long.
DRAIN_TIMEOUT_S = 1.0


class Recorder:
    """
    Subscribe to topics as they appear and write their serialized messages.

    Parameters
    ----------
    node : Node
        Creates the subscriptions; spun by the caller.
    writer : BagWriter
        Bag to write to.
    wanted : collection of str
        Full names of the topics to record; if empty, all that are not hidden.
    """

    def __init__(self, node: Node, writer: BagWriter, wanted: Collection[str]) -> None:
        self.node = node
        self.writer = writer
        self.wanted = frozenset(wanted)
        self.unrecordable: dict[str, str] = {}
        self._subscriptions: dict[str, tuple[Subscription, QoSProfile]] = {}

    def subscribe_to_new_topics(self) -> None:
        """Subscribe to wanted topics with publishers; resubscribe if their QoS changed."""
        for name, msgtypes in self.node.get_topic_names_and_types():
            chosen = name in self.wanted if self.wanted else not topic_or_service_is_hidden(name)
            if not chosen or name in self.unrecordable:
                continue
            offered = [info.qos_profile for info in self.node.get_publishers_info_by_topic(name)]
            if offered:
                self._subscribe(name, msgtypes[0], offered)

    def _subscribe(self, name: str, msgtype: str, offered: list[QoSProfile]) -> None:
        qos = choose_recording_qos(offered)
        if name in self._subscriptions:
            subscription, current = self._subscriptions[name]
            if qos == current:
                return
            self.node.destroy_subscription(subscription)
        elif not self._add_topic(name, msgtype, offered):
            return
        subscription = self.node.create_subscription(
            find_message_class(msgtype), name, partial(self._write, name), qos, raw=True)
        self._subscriptions[name] = subscription, qos

    def _add_topic(self, name: str, msgtype: str, offered: list[QoSProfile]) -> bool:
        """Add a topic to the bag, or report once why it cannot be recorded."""
        try:
            if find_message_class(msgtype) is None:
                raise BagError(f'message type {msgtype} is not installed')
            typestore = read_installed_typestore(msgtype)
        except BagError as err:
            self.unrecordable[name] = str(err)
            print(f'Cannot record {name}: {err}', file=sys.stderr, flush=True)
            return False
        self.writer.add_topic(name, msgtype, typestore=typestore,
                              qos=[to_rosbags_qos(profile) for profile in offered])
        print(f'Recording {name} ({msgtype})', flush=True)
        return True

    def _write(self, topic: str, data: bytes, info: Mapping[str, int]) -> None:
        # Time of reception; some middleware leaves it at 0.
        self.writer.write(topic, info['received_timestamp'] or time.time_ns(), data)

    @property
    def message_count(self) -> int:
        """Return the number of messages written so far."""
        return sum(self.writer.message_counts.values())


def record(recorder: Recorder, executor: SingleThreadedExecutor, stop: StopFlag,
           duration_s: float | None) -> None:
    """
    Record until a stop is requested or the time is over; then write the received messages.

    Raises
    ------
    BagError
        If the disk is full.
    """
    end_s = time.monotonic() + (float('inf') if duration_s is None else duration_s)
    next_discovery_s = 0.0
    while not stop.requested and time.monotonic() < end_s:
        if time.monotonic() >= next_discovery_s:
            recorder.subscribe_to_new_topics()
            next_discovery_s = time.monotonic() + DISCOVERY_PERIOD_S
        executor.spin_once(timeout_sec=POLL_PERIOD_S)
    end_s = time.monotonic() + DRAIN_TIMEOUT_S
    before = -1
    while before != recorder.message_count and time.monotonic() < end_s:
        before = recorder.message_count
        executor.spin_once(timeout_sec=0.0)


def make_parser() -> argparse.ArgumentParser:
    """Create the parser of the command line."""
    parser = argparse.ArgumentParser(prog='record_bag', description=__doc__)
    parser.add_argument('output', type=Path, help='bag folder to create')
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument('--topics', nargs='+', metavar='TOPIC',
                        help='full names; topics may appear later')
    chosen.add_argument('--all', action='store_true', help='every topic that is not hidden')
    parser.add_argument('--duration', type=parse_positive, metavar='SECONDS',
                        help='stop after this time (default: on Ctrl-C)')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing bag')
    return parser


def _print_counts(writer: BagWriter, wanted: Collection[str]) -> None:
    print(f'Recorded {sum(writer.message_counts.values())} messages to {writer.path}')
    for name in sorted({*writer.message_counts, *wanted}):
        print(f'  {writer.message_counts.get(name, 0):6d}  {name}')
    sys.stdout.flush()


def main() -> int:
    """Record topics; exit code 0 after Ctrl-C or `--duration`, 1 on an error."""
    stop = StopFlag()
    own, ros = split_ros_arguments(sys.argv[1:])
    arguments = make_parser().parse_args(own)
    wanted = ['/' + name.lstrip('/') for name in arguments.topics or ()]
    try:
        init_rclpy(ros, signal_handler_options=SignalHandlerOptions.NO)
        with BagWriter(arguments.output, overwrite=arguments.overwrite) as writer:
            executor = SingleThreadedExecutor()
            node = rclpy.create_node('bag_recorder', enable_rosout=False,
                                     start_parameter_services=False)
            executor.add_node(node)
            try:
                record(Recorder(node, writer, wanted), executor, stop, arguments.duration)
            finally:
                executor.shutdown()
                _print_counts(writer, wanted)
    except MarigoldError as err:
        print(f'record_bag: {err}', file=sys.stderr)
        return 1
    finally:
        ignore_signals()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
