"""
Subscribe to topics in a separate process and write a line of JSON per message.

    python -m benchmarks.topic_listener out.jsonl /camera/points:PointCloud2

A line has topic, stamp and time of receipt; for a DiagnosticArray also its values.
"""

from __future__ import annotations

import argparse
from functools import partial
import json
from pathlib import Path
import sys
import time
from typing import Any, TextIO

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from benchmarks.spinning import spin_until_stopped
from marigold_ros.messages.header import peek_header
from marigold_ros.stop_flag import StopFlag

TYPES = {each.__name__: each for each in (CameraInfo, DiagnosticArray, Image, PointCloud2)}
SMALL_QUEUE_DEPTH, LARGE_QUEUE_DEPTH = 200, 2


def topic_and_type(text: str) -> tuple[str, type]:
    """Parse <topic>:<type>."""
    topic, _, name = text.rpartition(':')
    if not topic or name not in TYPES:
        raise argparse.ArgumentTypeError(f'must be <topic>:<type> with one of {", ".join(TYPES)}; '
                                         f'got {text}')
    return topic, TYPES[name]


class TopicListener:
    """
    Subscribe to topics and write a line per message.

    Parameters
    ----------
    node : rclpy.node.Node
    topics : list of (str, type)
    reliability : {'reliable', 'best_effort'}
        Of images and clouds; small messages are always subscribed reliably.
    out : text file
    """

    def __init__(self, node: Any, topics: list[tuple[str, type]], reliability: str,
                 out: TextIO) -> None:
        self._out = out
        for topic, message_type in topics:
            large = message_type in (Image, PointCloud2)
            qos = QoSProfile(history=HistoryPolicy.KEEP_LAST,
                             depth=LARGE_QUEUE_DEPTH if large else SMALL_QUEUE_DEPTH,
                             reliability=ReliabilityPolicy[
                                 (reliability if large else 'reliable').upper()])
            node.create_subscription(message_type, topic,
                                     partial(self._write, topic, message_type), qos, raw=True)

    def _write(self, topic: str, message_type: type, message: bytes) -> None:
        received_ns = time.time_ns()
        stamp_ns, _, _ = peek_header(message)
        line: dict[str, Any] = {'topic': topic, 'stamp_ns': stamp_ns, 'received_ns': received_ns}
        if message_type is DiagnosticArray:
            line['statuses'] = [
                {'name': status.name, 'message': status.message,
                 **{item.key: item.value for item in status.values}}
                for status in deserialize_message(message, DiagnosticArray).status]
        self._out.write(json.dumps(line) + '\n')


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('out', type=Path, help='file to write')
    parser.add_argument('topics', type=topic_and_type, nargs='+', metavar='TOPIC:TYPE')
    parser.add_argument('--reliability', choices=('reliable', 'best_effort'), default='reliable')
    return parser


def main() -> int:
    """Write received messages until Ctrl-C."""
    stop = StopFlag()
    options = make_parser().parse_args()
    with options.out.open('w', buffering=1, encoding='utf-8') as out:
        spin_until_stopped(
            'topic_listener',
            lambda node: TopicListener(node, options.topics, options.reliability, out), stop)
    return 0


if __name__ == '__main__':
    sys.exit(main())
