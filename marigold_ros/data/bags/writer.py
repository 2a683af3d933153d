"""Write MCAP bags that rosbag2 and Foxglove open; ROS is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
import shutil
from types import TracebackType

from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from marigold_ros.data.bags.truncated_mcap import finalize_truncated
from marigold_ros.depth.errors import BagError

# Kept free for the last chunk, the index and metadata.yaml of a recording.
RESERVED_DISK_BYTES = 32 * 2 ** 20


class BagWriter:
    """
    Write an MCAP bag in the layout of rosbag2, with the type definitions that Foxglove needs.

    Use it as a context manager: the file gets its index, and is valid, even after an error.

    Parameters
    ----------
    path : str or Path
        Bag folder to create.
    overwrite : bool
        Replace an existing bag.  A folder that is not a bag is never replaced.

    Raises
    ------
    BagError
        If `path` exists or cannot be created.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.message_counts: dict[str, int] = {}
        self._connections: dict[str, Connection] = {}
        if self.path.exists():
            self._remove_old(overwrite)
        try:
            self._writer = Writer(self.path, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except OSError as err:
            raise BagError(f'cannot create bag folder {self.path}: {err.strerror}') from err

    def _remove_old(self, overwrite: bool) -> None:
        if not overwrite:
            raise BagError(f'{self.path} already exists; choose another name, remove it, or '
                           'allow overwriting')
        if not (self.path / 'metadata.yaml').is_file() and not list(self.path.glob('*.mcap')):
            raise BagError(f'{self.path} exists and is not a bag, so it is not overwritten')
        shutil.rmtree(self.path)

    def add_topic(self, name: str, msgtype: str, *, typestore: Typestore,
                  qos: Sequence[Qos] = ()) -> None:
        """
        Add a topic; required before its first message.

        Parameters
        ----------
        name, msgtype : str
            For instance '/camera/image_raw' and 'sensor_msgs/msg/Image'.
        typestore : Typestore
            Holds the definition of `msgtype`, which is stored in the file.
        qos : sequence of Qos
            QoS that the publishers offer; a player of the bag offers the same.
        """
        self._connections[name] = self._writer.add_connection(
            name, msgtype, typestore=typestore, offered_qos_profiles=qos)
        self.message_counts[name] = 0

    def write(self, topic: str, log_time_ns: int, data: bytes | memoryview) -> None:
        """
        Append one message.

        Parameters
        ----------
        topic : str
        log_time_ns : int
        data : bytes or memoryview
            ROS 2 CDR.

        Raises
        ------
        BagError
            If the disk is full; messages written before stay valid.
        """
        free = shutil.disk_usage(self.path).free
        if free < RESERVED_DISK_BYTES + len(data):
            raise BagError(f'disk full: cannot write to {self.path} ({free / 2 ** 20:.0f} MiB '
                           f'free, {RESERVED_DISK_BYTES / 2 ** 20:.0f} MiB kept for the index)')
        try:
            self._writer.write(self._connections[topic], log_time_ns, data)
        except OSError as err:
            raise BagError(f'cannot write to {self.path}: {err.strerror}; earlier messages, '
                           'except the latest few, can be read') from err
        self.message_counts[topic] += 1

    def close(self) -> None:
        """
        Write the index and close the file.

        Raises
        ------
        BagError
            If writing fails; the file then ends before its last chunk, without an index.
        """
        try:
            self._writer.close()
        except OSError as err:
            with suppress(OSError):
                self._writer.abort()
            file = self.path / f'{self.path.name}.mcap'
            with suppress(OSError):
                finalize_truncated(file)
            raise BagError(f'cannot write the index of {self.path}: {err.strerror}; earlier '
                           f'messages, except the latest few, can be read from {file}') from err

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        # The error that ended the recording is more useful than one of writing the index.
        with nullcontext() if exc is None else suppress(BagError):
            self.close()
