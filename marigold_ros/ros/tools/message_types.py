"""Find the Python classes and definitions of installed message types."""

from __future__ import annotations

from importlib import import_module

from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import FieldDesc, Typesdict
from rosbags.typesys import get_types_from_msg, get_typestore, Stores, TypesysError
from rosbags.typesys.store import Typestore

from marigold_ros.depth.errors import BagError
from marigold_ros.ros.tools.share_files import find_share_file


def find_message_class(msgtype: str) -> type | None:
    """
    Import the Python class of a message type.

    Parameters
    ----------
    msgtype : str
        For instance 'sensor_msgs/msg/Image'.

    Returns
    -------
    type or None
        None if the package or the message is not installed.
    """
    package, _, rest = msgtype.partition('/')
    folder, _, name = rest.partition('/')
    if folder != 'msg':
        return None
    try:
        return getattr(import_module(f'{package}.msg'), name, None)
    except ImportError:
        return None


def read_installed_typestore(msgtype: str) -> Typestore:
    """
    Read the installed definitions of a message type and its nested types.

    The .msg files of the installed packages are read, so a definition that differs from Jazzy's
    is recorded as it is.

    Raises
    ------
    BagError
        If a definition is not installed or cannot be parsed.
    """
    store = get_typestore(Stores.EMPTY)
    definitions: Typesdict = {}
    pending = [msgtype]
    while pending:
        name = pending.pop()
        if name in definitions or name in store.fielddefs:
            continue
        try:
            definitions.update(get_types_from_msg(_definition_text(name), name))
        except TypesysError as err:
            raise BagError(f'the installed definition of {name} cannot be parsed: {err}') from err
        pending += [subtype for _, field in definitions[name][1]
                    if (subtype := _nested_type(field))]
    store.register(definitions)
    return store


def _definition_text(msgtype: str) -> str:
    package, _, name = msgtype.split('/')
    path = find_share_file(package, f'msg/{name}.msg')
    if path is None:
        raise BagError(f'package {package} is not installed or has no definition {name}.msg')
    return path.read_text()


def _nested_type(field: FieldDesc) -> str | None:
    if field[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return _nested_type(field[1][0])
    return field[1] if field[0] == Nodetype.NAME else None
