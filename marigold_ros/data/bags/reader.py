"""Read any bag that rosbags supports; ROS is not needed."""

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
    Return a store of the message types of ROS 2 Jazzy, tf2_msgs included.

    Returns
    -------
    Typestore
        A new one, so that types registered in it do not affect other readers or writers.
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
        Number of messages in the bag.
    qos : tuple of Qos
        QoS that the recorded publishers offered; empty if the bag does not hold it.
    """

    name: str
    msgtype: str
    message_count: int
    qos: tuple[Qos, ...]


@dataclass(frozen=True)
class BagMessage:
    """One message: topic, type, log time and ROS 2 CDR bytes."""

    topic: str
    msgtype: str
    log_time_ns: int
    data: bytes


class Bag:
    """
    A bag that `open_bag` has opened; it returns every message in the format of ROS 2 Jazzy.

    Messages of ROS 1 or of older ROS 2 definitions are converted.  Messages whose wire format is
    unchanged keep their exact bytes.  Types that Jazzy does not have stay as recorded.

    Attributes
    ----------
    path : Path
    topics : tuple of BagTopic
        In alphabetical order, one per name and type.
    start_ns, end_ns : int
        Log time of the first message, and 1 ns after the last; both 0 in an empty bag.
    data_loss : str or None
        Description of what a truncated bag lacks.
    """

    def __init__(self, path: Path, reader: Reader, data_loss: str | None = None) -> None:
        self.path = path
        self.data_loss = data_loss
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
        """Return the time from the first message to the last, s."""
        return (self.end_ns - self.start_ns) * 1e-9

    def topic(self, name: str, *msgtypes: str) -> BagTopic:
        """
        Return a topic by its name.

        Parameters
        ----------
        name : str
            As recorded, for instance '/camera/image_raw'.
        *msgtypes : str
            Accepted types; any type if none is given.

        Raises
        ------
        BagError
            If there is none; the text lists the existing topics and their types.
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
        Read messages one at a time, in the order of their log times.

        Parameters
        ----------
        topics : collection of str
            Topics to read; all if empty.
        start_ns, stop_ns : int or None
            Range of log times, ns: from `start_ns` up to but without `stop_ns`.

        Raises
        ------
        BagError
            If a topic does not exist or the file is damaged.
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
            Has the fields of the ROS 2 message; numeric arrays are NumPy arrays.

        Raises
        ------
        BagError
            If the bytes are not a message of that type.
        """
        try:
            return self.typestore.deserialize_cdr(message.data, message.msgtype)
        except Exception as err:  # damaged bytes make the parser fail in many ways
            raise BagError(f'cannot decode a message on {message.topic} in {self.path} as '
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
        A ROS 2 bag folder (MCAP or sqlite3), a single .mcap or .db3 file, or a ROS 1 .bag file.
    recover : bool
        Also open a truncated MCAP file and read its complete messages; `Bag.data_loss` then
        describes what is missing.

    Raises
    ------
    BagError
        If the bag does not exist, is unreadable or truncated.

    Examples
    --------
    >>> with open_bag('sample/living_room') as bag:
    ...     print(f'{bag.duration_s:.1f} s, {len(bag.topics)} topics')
    ...     message = next(bag.messages(['/camera/camera_info']))
    ...     info = bag.decode(message)
    8.0 s, 9 topics
    >>> message.msgtype, info.width, info.height
    ('sensor_msgs/msg/CameraInfo', 640, 480)
    """
    path = Path(path)
    if not path.exists():
        raise BagError(f'cannot open bag {path}: it does not exist; expected a ROS 2 bag folder, '
                       'a .mcap or .db3 file or a ROS 1 .bag file')
    try:
        reader = AnyReader([path], default_typestore=jazzy_typestore())
        reader.open()
    except Exception as err:  # damaged bytes make the parsers fail in many ways
        if not (recover and _is_mcap(path)):
            raise BagError(f'cannot open bag {path}: unreadable or truncated '
                           f'({_reason(err)})') from err
        truncated = TruncatedMcapReader(path)
        yield Bag(path, truncated, truncated.data_loss)
        return
    try:
        yield Bag(path, reader)
    finally:
        reader.close()


def _is_mcap(path: Path) -> bool:
    """Check whether a file, or the first file of a bag folder, begins with the MCAP magic."""
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
