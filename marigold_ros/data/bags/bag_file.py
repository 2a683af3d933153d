"""What every format of bag file offers: channels and their messages, as recorded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from operator import itemgetter
from typing import Protocol, TypeVar

from rosbags.convert.converter import STATIC_MSGTYPE_RENAMES
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import parse_qos

Item = TypeVar('Item')


@dataclass(frozen=True)
class Definition:
    """
    Definition of a message type in a file.

    Attributes
    ----------
    encoding : str
        Language, for instance 'ros2msg', 'ros2idl' or 'ros1msg'; '' if the file has none.
    data : bytes
        Text; a schema of another world than ROS may be binary.
    """

    encoding: str = ''
    data: bytes = b''


@dataclass(frozen=True)
class Channel:
    """
    One recorded stream of a file.

    Attributes
    ----------
    number : int
        Identifies the channel in its file.
    topic, msgtype : str
        For instance '/camera/image_raw' and 'sensor_msgs/msg/Image'.
    encoding : str
        Of the messages, for instance 'cdr' (ROS 2) or 'ros1'.
    definition : Definition
    message_count : int
    qos : tuple of Qos
        QoS that the recorded publishers offered; empty if the file does not hold it.
    """

    number: int
    topic: str
    msgtype: str
    encoding: str
    definition: Definition
    message_count: int
    qos: tuple[Qos, ...] = ()


class BagFile(Protocol):
    """
    One open file of a bag.

    Attributes
    ----------
    channels : tuple of Channel
    start_ns, end_ns : int
        Log time of the first message, and 1 ns after the last.
    data_loss : str or None
        Description of the bytes that are missing.
    """

    channels: tuple[Channel, ...]
    start_ns: int
    end_ns: int
    data_loss: str | None

    def messages(self, channels: Collection[Channel], start_ns: int | None,
                 stop_ns: int | None) -> Iterator[tuple[Channel, int, bytes]]:
        """
        Read messages one at a time.

        Parameters
        ----------
        channels : collection of Channel
            Channels to read.
        start_ns, stop_ns : int or None
            Range of log times, ns: from `start_ns` up to but without `stop_ns`.

        Yields
        ------
        channel : Channel
        log_time_ns : int
        data : bytes
            As recorded.
        """


def merge_by_time(parts: Iterable[tuple[int, Iterable[tuple[int, Item]]]]) -> Iterator[Item]:
    """
    Merge parts of a recording by time; one is not read before its start is due.

    Parameters
    ----------
    parts : iterable of (int, iterable of (int, item))
        Start of each part, and its items with their times in order, ns.

    Examples
    --------
    >>> list(merge_by_time([(1, [(1, 'a'), (4, 'd')]), (2, [(2, 'b'), (3, 'c')])]))
    ['a', 'b', 'c', 'd']
    """
    def read(start_ns: int, items: Iterable[tuple[int, Item]]
             ) -> Iterator[tuple[int, tuple[Item] | None]]:
        yield start_ns, None
        for time_ns, item in items:
            yield time_ns, (item,)

    for _, item in merge(*(read(*part) for part in parts), key=itemgetter(0)):
        if item is not None:
            yield item[0]


def full_type_name(name: str) -> str:
    """
    Return the ROS 2 name of a message type; some types of ROS 1 have only the name changed.

    Examples
    --------
    >>> full_type_name('sensor_msgs/Image'), full_type_name('sensor_msgs::msg::Image')
    ('sensor_msgs/msg/Image', 'sensor_msgs/msg/Image')
    >>> full_type_name('tf/tfMessage')
    'tf2_msgs/msg/TFMessage'
    """
    parts = name.replace('::', '/').split('/')
    full = '/'.join([parts[0], 'msg', parts[1]] if len(parts) == 2 else parts)
    return STATIC_MSGTYPE_RENAMES.get(full, full)


def parse_offered_qos(text: str) -> tuple[Qos, ...]:
    """Parse the QoS in YAML that rosbag2 writes; return () if it is not of that form."""
    try:
        return tuple(parse_qos(text))
    except Exception:  # an edited text makes the parser fail in many ways
        return ()
