"""Read bag files of ROS 1."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from rosbags.convert.converter import LATCH
from rosbags.rosbag1 import Reader

from marigold_ros.data.bags.bag_file import Channel, Definition, full_type_name


class Ros1File:
    """
    Reads a bag file of ROS 1, version 2.0.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    channels, start_ns, end_ns, data_loss
        See `BagFile`.

    Raises
    ------
    rosbags.rosbag1.ReaderError
        If the file is damaged or has no index.
    """

    data_loss: str | None = None

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        self._reader.open()
        self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time
        self._connections = {each.id: each for each in self._reader.connections}
        self.channels = tuple(
            Channel(each.id, each.topic, full_type_name(each.msgtype), 'ros1',
                    Definition('ros1msg', each.msgdef.data.encode()), each.msgcount,
                    tuple(LATCH) if getattr(each.ext, 'latching', None) else ())
            for each in self._connections.values())

    def __enter__(self) -> Ros1File:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def messages(self, channels: Collection[Channel], start_ns: int | None,
                 stop_ns: int | None) -> Iterator[tuple[Channel, int, bytes]]:
        """See `BagFile.messages`; sorted by log time."""
        wanted = {channel.number: channel for channel in channels}
        for connection, log_time_ns, data in self._reader.messages(
                [self._connections[number] for number in wanted], start_ns, stop_ns):
            yield wanted[connection.id], log_time_ns, data
