"""Convert the messages of any ROS, as a file defines and encodes them, to ROS 2 Jazzy."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from rosbags.convert.converter import is_same_wireformat, migrate_bytes
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores
from rosbags.typesys.store import Typestore
import zstandard

from marigold_ros.data.bags.bag_file import Definition
from marigold_ros.depth.errors import BagError

# 'ros' is the name in the older specification of MCAP.
ROS1_ENCODINGS = ('ros1', 'ros')
# rosbag2 writes '' or 'unknown' if it did not find the definition.
NO_DEFINITION = ('', 'unknown')
IDL_SEPARATOR = '=' * 80 + '\n'
# The first bytes of a message that rosbag2 compressed; CDR begins with 0.
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'


def jazzy_typestore() -> Typestore:
    """
    Return a store of the message types of ROS 2 Jazzy, tf2_msgs included.

    Returns
    -------
    Typestore
        A new one, so that types registered in it do not affect other readers or writers.
    """
    return get_typestore(Stores.ROS2_JAZZY)


JAZZY = jazzy_typestore()


class MessageFormat:
    """
    Converts the messages of one type to CDR of ROS 2 Jazzy.

    Messages of ROS 1 or of older ROS 2 definitions are converted.  Messages whose wire format is
    unchanged keep their exact bytes.  Types that Jazzy does not have stay as defined.

    Parameters
    ----------
    msgtype : str
        For instance 'sensor_msgs/msg/Image'.
    encoding : str
        Of the messages, for instance 'cdr' or 'ros1'.
    definition : Definition

    Attributes
    ----------
    typestore : Typestore
        Deserializes the converted messages; it lacks a type that nobody defines.

    Raises
    ------
    BagError
        If such messages cannot be read; the text says why, without naming the topic.
    """

    def __init__(self, msgtype: str, encoding: str, definition: Definition) -> None:
        ros1 = encoding in ROS1_ENCODINGS
        if not ros1 and encoding != 'cdr':
            raise BagError(f'messages in {encoding!r}, not in an encoding of ROS')
        source = _source_typestore(msgtype, definition, ros1)
        self.typestore = _with_types(JAZZY, source, msgtype)
        try:
            self._convert = self._converter(source, msgtype, ros1)
        except KeyError as err:
            raise BagError(f'its definition lacks the type {err}') from err

    def to_cdr(self, data: bytes) -> bytes:
        """Convert one message; bytes of another type make the parsers fail in many ways."""
        return bytes(self._convert(data))

    def _converter(self, source: Typestore, msgtype: str,
                   ros1: bool) -> Callable[[bytes], bytes | memoryview]:
        if msgtype not in source.fielddefs:
            if ros1:
                raise BagError('no definition, which messages of ROS 1 need')
            return _decompress
        if is_same_wireformat(source, self.typestore, msgtype, msgtype):
            return partial(self.typestore.ros1_to_cdr, typename=msgtype) if ros1 else _decompress
        migrate = partial(migrate_bytes, source, self.typestore, msgtype, msgtype, {},
                          src_is2=not ros1, dst_is2=True)
        return migrate if ros1 else lambda data: migrate(_decompress(data))


@lru_cache(maxsize=512)
def message_format(msgtype: str, encoding: str, definition: Definition) -> MessageFormat:
    """Return a `MessageFormat`; the same one for equal arguments, because parsing is slow."""
    return MessageFormat(msgtype, encoding, definition)


def _source_typestore(msgtype: str, definition: Definition, ros1: bool) -> Typestore:
    """Return the types of a definition, or those that are usual if there is none."""
    if definition.encoding in NO_DEFINITION or not definition.data:
        return get_typestore(Stores.ROS1_NOETIC) if ros1 else JAZZY
    store = get_typestore(Stores.EMPTY)
    try:
        types = _parse(msgtype, definition)
        store.register(types)
    except BagError:
        raise
    except Exception as err:  # the parsers fail in many ways
        raise BagError(f'its definition in {definition.encoding} cannot be parsed') from err
    if msgtype not in store.fielddefs:
        raise BagError(f'its definition in {definition.encoding} does not define it')
    return store


def _parse(msgtype: str, definition: Definition) -> Typesdict:
    if definition.encoding in ('ros2msg', 'ros1msg'):
        return get_types_from_msg(definition.data.decode(), msgtype)
    if definition.encoding not in ('ros2idl', 'omgidl'):
        raise BagError(f'its definition is in {definition.encoding!r}, not in a language of ROS')
    text = definition.data.decode()
    if not text.startswith(f'{IDL_SEPARATOR}IDL: '):
        return get_types_from_idl(text)
    types: Typesdict = {}
    for part in text.split(IDL_SEPARATOR)[1:]:
        types.update(get_types_from_idl(part.partition('\n')[2]))
    return types


def _with_types(base: Typestore, source: Typestore, msgtype: str) -> Typestore:
    """Return a store with the types of `base`, and those of `source` that it lacks."""
    if msgtype in base.fielddefs or msgtype not in source.fielddefs:
        return base
    store = jazzy_typestore()
    store.register({name: fields for name, fields in source.fielddefs.items()
                    if name not in store.fielddefs})
    return store


def _decompress(data: bytes) -> bytes:
    """Undo the compression of single messages by rosbag2; truncated ones are an error."""
    return zstandard.decompress(data) if data[:4] == ZSTD_MAGIC else data
