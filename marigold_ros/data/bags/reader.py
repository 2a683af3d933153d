"""Read any bag of ROS 2 or ROS 1; ROS is not needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, ExitStack
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from rosbags.convert.converter import LATCH
from rosbags.interfaces import Qos
from rosbags.typesys.store import Typestore

from marigold_ros.data.bags.bag_file import BagFile, Channel, merge_by_time
from marigold_ros.data.bags.bag_folder import open_files
from marigold_ros.data.bags.message_format import JAZZY, message_format, MessageFormat
from marigold_ros.depth.errors import BagError

# By the convention of tf2, whatever the bag says.
LATCHED_TOPIC = '/tf_static'


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
    unreadable : str or None
        Why its messages cannot be read; None if they can.
    """

    name: str
    msgtype: str
    message_count: int
    qos: tuple[Qos, ...]
    unreadable: str | None = None

    def describe(self, reason: str | None = None) -> str:
        """Describe the topic, and why its messages are skipped."""
        reason = self.unreadable if reason is None else reason
        return f'{self.name} ({self.msgtype}, {self.message_count} messages: {reason})'


@dataclass(frozen=True)
class BagMessage:
    """One message: topic, type, log time and ROS 2 CDR bytes."""

    topic: str
    msgtype: str
    log_time_ns: int
    data: bytes


@dataclass(frozen=True, eq=False)
class _Stream:
    """A channel of one file, and how its messages become those of Jazzy."""

    file: BagFile
    channel: Channel
    format: MessageFormat | None
    unreadable: str | None

    def to_cdr(self, data: bytes) -> bytes:
        """Convert one message."""
        if self.format is None:
            raise BagError(str(self.unreadable))
        return self.format.to_cdr(data)


class Bag:
    """
    A bag that `open_bag` has opened; it returns every message in the format of ROS 2 Jazzy.

    Messages of ROS 1 or of older ROS 2 definitions are converted.  Messages whose wire format is
    unchanged keep their exact bytes.  Types that Jazzy does not have stay as recorded.

    Attributes
    ----------
    path : Path
    topics : tuple of BagTopic
        In alphabetical order, one per name and type.  One that cannot be read says why, and of
        several types on one topic only that with most messages can.
    start_ns, end_ns : int
        Log time of the first message, and 1 ns after the last; both 0 in an empty bag.
    data_loss : str or None
        Description of what a truncated bag lacks.
    """

    def __init__(self, path: Path, files: Sequence[BagFile],
                 data_loss: str | None = None) -> None:
        self.path = path
        self.data_loss = data_loss
        filled = [file for file in files
                  if any(channel.message_count for channel in file.channels)]
        self.start_ns = min((file.start_ns for file in filled), default=0)
        self.end_ns = max((file.end_ns for file in filled), default=0)
        self._streams = _keep_one_type([_make_stream(file, channel)
                                        for file in files for channel in file.channels])
        self._formats = {(each.channel.topic, each.channel.msgtype): each.format
                         for each in self._streams if each.format is not None}
        self.topics = _merge_topics(self._streams)

    @property
    def duration_s(self) -> float:
        """Seconds from the first message to the last."""
        return (self.end_ns - self.start_ns) * 1e-9

    @property
    def notes(self) -> list[str]:
        """Return a text for the user if there are topics that cannot be read."""
        unreadable = [topic.describe() for topic in self.topics if topic.unreadable is not None]
        return ([f'{len(unreadable)} topics cannot be read: {", ".join(unreadable)}']
                if unreadable else [])

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
            If there is none, or it cannot be read; the text lists the existing topics and their
            types, or says why.
        """
        found = [topic for topic in self.topics
                 if topic.name == name and (not msgtypes or topic.msgtype in msgtypes)]
        for topic in found:
            if topic.unreadable is None:
                return topic
        if found:
            raise BagError(f'cannot read {found[0].describe()} in {self.path}')
        wanted = f'{name} ({" or ".join(msgtypes)})' if msgtypes else name
        existing = ', '.join(f'{topic.name} ({topic.msgtype})' for topic in self.topics)
        raise BagError(f'no topic {wanted} in {self.path}; it has {existing or "no topics"}')

    def messages(
        self,
        topics: Collection[str] = (),
        *,
        start_ns: int | None = None,
        stop_ns: int | None = None,
        on_error: Callable[[BagError, str], None] | None = None,
    ) -> Iterator[BagMessage]:
        """
        Read messages one at a time, in the order of their log times.

        Without an index, an MCAP file is read in the order in which it was written.

        Parameters
        ----------
        topics : collection of str
            Topics to read; all that can be read if empty.
        start_ns, stop_ns : int or None
            Range of log times, ns: from `start_ns` up to but without `stop_ns`.
        on_error : callable or None
            Called with the error and the topic of each message that cannot be read, which is
            skipped; None raises the error.

        Raises
        ------
        BagError
            If a topic does not exist or cannot be read, the file is damaged, a message cannot be
            converted, or the file holds fewer messages than it counts.
        """
        names = {self.topic(name).name for name in topics}
        streams = [each for each in self._streams if each.format is not None
                   and (not names or each.channel.topic in names)]
        unread = Counter({each.channel.topic: 0 for each in streams})
        for each in streams:
            unread[each.channel.topic] += each.channel.message_count
        for log_time_ns, stream, data in self._recorded(streams, start_ns, stop_ns):
            channel = stream.channel
            unread[channel.topic] -= 1
            try:
                cdr = stream.to_cdr(data)
            except Exception as err:  # bytes of another type make the parsers fail in many ways
                error = BagError(f'cannot convert a message on {channel.topic} in {self.path} '
                                 f'from {channel.msgtype}: {_reason(err)}')
                if on_error is None:
                    raise error from err
                on_error(error, channel.topic)
                continue
            yield BagMessage(channel.topic, channel.msgtype, log_time_ns, cdr)
        whole = (start_ns or 0) <= self.start_ns and (stop_ns is None or stop_ns >= self.end_ns)
        missing = +unread
        if whole and missing:
            raise BagError(f'{self.path} counts more messages than it holds: ' + ', '.join(
                f'{count} of {topic} are missing' for topic, count in missing.items()))

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
            return self.typestore(message.topic, message.msgtype).deserialize_cdr(
                message.data, message.msgtype)
        except Exception as err:  # damaged bytes make the parser fail in many ways
            raise BagError(f'cannot decode a message on {message.topic} in {self.path} as '
                           f'{message.msgtype}: {_reason(err)}') from err

    def decoded_messages(
        self,
        topics: Collection[str] = (),
        *,
        start_ns: int | None = None,
        stop_ns: int | None = None,
        on_error: Callable[[BagError, str], None] | None = None,
    ) -> Iterator[tuple[BagMessage, Any]]:
        """
        Read and deserialize messages one at a time; for the parameters see `messages`.

        Yields
        ------
        message : BagMessage
        decoded : object
            See `decode`.
        """
        for message in self.messages(topics, start_ns=start_ns, stop_ns=stop_ns,
                                     on_error=on_error):
            try:
                decoded = self.decode(message)
            except BagError as err:
                if on_error is None:
                    raise
                on_error(err, message.topic)
                continue
            yield message, decoded

    def typestore(self, topic: str, msgtype: str) -> Typestore:
        """Return the definitions of the messages that are read from a topic."""
        known = self._formats.get((topic, msgtype))
        return JAZZY if known is None else known.typestore

    def _recorded(self, streams: Sequence[_Stream], start_ns: int | None,
                  stop_ns: int | None) -> Iterator[tuple[int, _Stream, bytes]]:
        """Read the messages of several files as recorded, merged by their log times."""
        if start_ns is not None and stop_ns is not None and start_ns >= stop_ns:
            return
        by_file: dict[int, list[_Stream]] = {}
        for stream in streams:
            by_file.setdefault(id(stream.file), []).append(stream)
        log_time_ns = self.start_ns
        try:
            for log_time_ns, stream, data in merge_by_time(
                    (group[0].file.start_ns, _read_file(group, start_ns, stop_ns))
                    for group in by_file.values()):
                yield log_time_ns, stream, data
        except Exception as err:  # damaged bytes make the parsers fail in many ways
            after_s = (log_time_ns - self.start_ns) * 1e-9
            raise BagError(f'{self.path} is damaged {after_s:.3f} s after its start: '
                           f'{_reason(err)}') from err


@contextmanager
def open_bag(path: str | Path, *, recover: bool = False) -> Iterator[Bag]:
    """
    Open a bag for reading.

    The files say what a bag holds; of metadata.yaml only the names of its files are used.

    Parameters
    ----------
    path : str or Path
        A ROS 2 bag folder (MCAP or sqlite3), a single MCAP or sqlite3 file, or a ROS 1 bag file.
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
    with ExitStack() as stack:
        files, data_loss = open_files(path, stack, recover=recover)
        yield Bag(path, files, data_loss)


def _make_stream(file: BagFile, channel: Channel) -> _Stream:
    try:
        known = message_format(channel.msgtype, channel.encoding, channel.definition)
    except BagError as err:
        return _Stream(file, channel, None, str(err))
    return _Stream(file, channel, known, None)


def _keep_one_type(streams: Sequence[_Stream]) -> list[_Stream]:
    """Mark streams unreadable whose topic has more messages of another type: ROS 2 permits one."""
    counts: Counter[tuple[str, str]] = Counter()
    for each in streams:
        if each.format is not None:
            counts[each.channel.topic, each.channel.msgtype] += each.channel.message_count
    # The type with most messages comes last, and stays.
    types = {topic: msgtype for (topic, msgtype), _ in reversed(counts.most_common())}
    return [each if types.get(each.channel.topic, each.channel.msgtype) == each.channel.msgtype
            else replace(each, format=None, unreadable=each.unreadable or
                         f'most messages of the topic are {types[each.channel.topic]}')
            for each in streams]


def _merge_topics(streams: Sequence[_Stream]) -> tuple[BagTopic, ...]:
    """Merge the channels of the same topic and type, as of several publishers or files."""
    groups: dict[tuple[str, str, str], list[_Stream]] = {}
    for stream in streams:
        key = (stream.channel.topic, stream.channel.msgtype, stream.unreadable or '')
        groups.setdefault(key, []).append(stream)
    topics = []
    for (name, msgtype, reason), group in sorted(groups.items(), key=itemgetter(0)):
        qos = tuple(each for stream in group for each in stream.channel.qos)
        if not qos and name == LATCHED_TOPIC:
            qos = tuple(LATCH)
        topics.append(BagTopic(name, msgtype, sum(each.channel.message_count for each in group),
                               qos, reason or None))
    return tuple(topics)


def _read_file(streams: Sequence[_Stream], start_ns: int | None, stop_ns: int | None
               ) -> Iterator[tuple[int, tuple[int, _Stream, bytes]]]:
    """Read the streams of one file; each message comes with its log time."""
    by_number = {stream.channel.number: stream for stream in streams}
    for channel, log_time_ns, data in streams[0].file.messages(
            [stream.channel for stream in streams], start_ns, stop_ns):
        yield log_time_ns, (log_time_ns, by_number[channel.number], data)


def _reason(err: Exception) -> str:
    return str(err) or type(err).__name__
