"""Read any bag that rosbags reads, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mcap.writer import MCAP0_MAGIC
from rosbags.convert.converter import is_same_wireformat, LATCH, migrate_bytes
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, ConnectionExtRosbag2, Qos
from rosbags.typesys import get_typestore, Stores
from rosbags.typesys.store import Typestore

from marigold_ros.data.bags.truncated_mcap import mcap_files, TruncatedMcapReader
from marigold_ros.depth.errors import BagError

Reader = AnyReader | TruncatedMcapReader


def jazzy_typestore() -> Typestore:
    """
    Make a store of the message types of ROS 2 Jazzy, tf2_msgs included.

    Returns
    -------
    Typestore
        A new one, so that registering types in it touches no other reader or writer.
    """
    return get_typestore(Stores.ROS2_JAZZY)


@dataclass(frozen=True)
class BagTopic:
    """
    One topic of a bag.

    Attributes
    ----------
    name, msgtype : str
        For instance '/camera/image_raw' and 'sensor_msgs/msg/Image'.
    message_count : int
        Messages in the whole bag.
    qos : tuple of Qos
        What the recorded publishers offered; empty where the bag does not say.
    """

    name: str
    msgtype: str
    message_count: int
    qos: tuple[Qos, ...]


@dataclass(frozen=True)
class BagMessage:
    """One message: its topic and type, when it was logged, and its bytes in ROS 2 CDR."""

    topic: str
    msgtype: str
    log_time_ns: int
    data: bytes


class Bag:
    """
    A bag open for reading; whatever its age, its messages come out as ROS 2 Jazzy's.

    ROS 1 messages and those of older ROS 2 definitions are migrated one by one; a message whose
    wire format has not changed keeps its very bytes.  Types unknown to Jazzy stay as recorded.
    Made by `open_bag`.

    Attributes
    ----------
    path : Path
    topics : tuple of BagTopic
        In alphabetical order, one per name and type.
    start_ns, end_ns : int
        Log time of the first message, and 1 ns after the last; both 0 in an empty bag.
    loss : str or None
        What is missing of a bag that was cut off, in words.
    """

    def __init__(self, path: Path, reader: Reader, loss: str | None = None) -> None:
        self.path = path
        self.loss = loss
        self.topics = _merge_topics(reader)
        empty = reader.message_count == 0
        self.start_ns = 0 if empty else reader.start_time
        self.end_ns = 0 if empty else reader.end_time
        self.typestore = jazzy_typestore()
        self.typestore.register({name: definition
                                 for name, definition in reader.typestore.fielddefs.items()
                                 if name not in self.typestore.fielddefs})
        self._reader = reader
        self._to_cdr: dict[str, Callable[[bytes], bytes | memoryview]] = {}
        self._migration_cache: dict[str, object] = {}

    @property
    def duration_s(self) -> float:
        """Seconds from the first message to the last."""
        return (self.end_ns - self.start_ns) * 1e-9

    def topic(self, name: str, *msgtypes: str) -> BagTopic:
        """
        Find a topic by its name.

        Parameters
        ----------
        name : str
            As recorded, for instance '/camera/image_raw'.
        *msgtypes : str
            The types that will do; any, if none is given.

        Raises
        ------
        BagError
            If there is none; its text lists the topics that exist, with their types.
        """
        for topic in self.topics:
            if topic.name == name and (not msgtypes or topic.msgtype in msgtypes):
                return topic
        wanted = f'{name} ({" or ".join(msgtypes)})' if msgtypes else name
        existing = ', '.join(f'{topic.name} ({topic.msgtype})' for topic in self.topics)
        raise BagError(f'no topic {wanted} in {self.path}; it has {existing or "no topics"}')

    def messages(
        self,
        topics: Collection[str] = (),
        *,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[BagMessage]:
        """
        Read messages one after the other, in the order of their log times.

        Parameters
        ----------
        topics : collection of str
            Names of the topics to read; all, if empty.
        start_ns, stop_ns : int or None
            Only messages logged at or after, and before, these times.

        Raises
        ------
        BagError
            If a topic does not exist, or the file turns out to be damaged on the way.
        """
        names = {self.topic(name).name for name in topics}
        connections = [c for c in self._reader.connections if not names or c.topic in names]
        if not connections:
            return
        log_time_ns = self.start_ns
        try:
            for connection, log_time_ns, data in self._reader.messages(
                    connections, start_ns, stop_ns):
                yield BagMessage(connection.topic, connection.msgtype, log_time_ns,
                                 self._as_ros2_cdr(connection.msgtype, data))
        except Exception as err:  # damaged bytes make the parsers fail in many ways
            after_s = (log_time_ns - self.start_ns) * 1e-9
            raise BagError(f'{self.path} is damaged {after_s:.3f} s after its start: '
                           f'{_reason(err)}') from err

    def decode(self, message: BagMessage) -> Any:
        """
        Deserialize a message.

        Returns
        -------
        object
            With the fields of the ROS 2 message; arrays of numbers are NumPy arrays.

        Raises
        ------
        BagError
            If the bytes are not a message of that type.
        """
        try:
            return self.typestore.deserialize_cdr(message.data, message.msgtype)
        except Exception as err:  # damaged bytes make the parser fail in many ways
            raise BagError(f'{message.topic} in {self.path} holds bytes that are no '
                           f'{message.msgtype}: {_reason(err)}') from err

    def _as_ros2_cdr(self, msgtype: str, data: bytes) -> bytes:
        if msgtype not in self._to_cdr:
            self._to_cdr[msgtype] = self._converter(msgtype)
        return bytes(self._to_cdr[msgtype](data))

    def _converter(self, msgtype: str) -> Callable[[bytes], bytes | memoryview]:
        source = self._reader.typestore
        unchanged = (msgtype not in source.fielddefs
                     or is_same_wireformat(source, self.typestore, msgtype, msgtype))
        if self._reader.is2 and unchanged:
            return bytes
        if unchanged:
            return partial(self.typestore.ros1_to_cdr, typename=msgtype)
        return partial(migrate_bytes, source, self.typestore, msgtype, msgtype,
                       self._migration_cache, src_is2=self._reader.is2, dst_is2=True)


@contextmanager
def open_bag(path: str | Path, *, recover: bool = False) -> Iterator[Bag]:
    """
    Open a bag for reading.

    Parameters
    ----------
    path : str or Path
        A ROS 2 bag folder (MCAP or sqlite3), a lone .mcap or .db3 file, or a ROS 1 .bag file.
    recover : bool
        Open an MCAP file that was cut off as well, and read what is whole; `Bag.loss` tells.

    Raises
    ------
    BagError
        If it does not exist, is no bag, or was cut off before its index was written.
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f'`path` must be a ROS 2 bag folder, a .mcap or .db3 file or a ROS 1 .bag '
                       f'file; {path} does not exist')
    try:
        reader = AnyReader([path], default_typestore=jazzy_typestore())
        reader.open()
    except Exception as err:  # damaged bytes make the parsers fail in many ways
        if not (recover and _is_mcap(path)):
            raise BagError(f'{path} is no bag that can be read, or one that was cut off: '
                           f'{_reason(err)}') from err
        unfinished = TruncatedMcapReader(path)
        yield Bag(path, unfinished, unfinished.loss)
        return
    try:
        yield Bag(path, reader)
    finally:
        reader.close()


def _is_mcap(path: Path) -> bool:
    """Tell whether a file, or the first file of a bag folder, begins as MCAP does."""
    for first in mcap_files(path)[:1]:
        with first.open('rb') as file:
            return file.read(len(MCAP0_MAGIC)) == MCAP0_MAGIC
    return False


def _merge_topics(reader: Reader) -> tuple[BagTopic, ...]:
    merged: dict[tuple[str, str], BagTopic] = {}
    for connection in reader.connections:
        key = (connection.topic, connection.msgtype)
        before = merged.get(key)
        merged[key] = BagTopic(
            *key, connection.msgcount + (before.message_count if before else 0),
            (before.qos if before else ()) + _offered_qos(connection))
    return tuple(merged[key] for key in sorted(merged))


def _offered_qos(connection: Connection) -> tuple[Qos, ...]:
    if isinstance(connection.ext, ConnectionExtRosbag2):
        return tuple(connection.ext.offered_qos_profiles)
    return tuple(LATCH) if connection.ext.latching else ()


def _reason(err: Exception) -> str:
    return str(err) or type(err).__name__
