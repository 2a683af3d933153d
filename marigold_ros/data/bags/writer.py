"""Write MCAP bags that rosbag2 and Foxglove open, without ROS."""

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

# Kept free so that the last chunk, the index and metadata.yaml of a recording still fit.
RESERVED_DISK_BYTES = 32 * 2 ** 20


class BagWriter:
    """
    Write an MCAP bag in rosbag2's layout, with the type definitions that Foxglove needs.

    Use it as a context manager: however the block ends, the file gets its index and is valid.

    Parameters
    ----------
    path : str or Path
        The folder to make.
    overwrite : bool
        Replace a bag of that name.  A folder that is no bag is never replaced.

    Raises
    ------
    BagError
        If `path` exists or its parent cannot be written.
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
            raise BagError(f'cannot make the bag folder {self.path}: {err.strerror}') from err

    def _remove_old(self, overwrite: bool) -> None:
        if not overwrite:
            raise BagError(f'{self.path} exists already; choose another name, remove it, or ask '
                           'to overwrite it')
        if not (self.path / 'metadata.yaml').is_file() and not list(self.path.glob('*.mcap')):
            raise BagError(f'{self.path} exists and is no bag, so it is not overwritten')
        shutil.rmtree(self.path)

    def add_topic(self, name: str, msgtype: str, *, typestore: Typestore,
                  qos: Sequence[Qos] = ()) -> None:
        """
        Announce a topic before its first message.

        Parameters
        ----------
        name, msgtype : str
            For instance '/camera/image_raw' and 'sensor_msgs/msg/Image'.
        typestore : Typestore
            Holds the definition of `msgtype`, which is stored in the file.
        qos : sequence of Qos
            What the publishers offer, for who plays the bag later.
        """
        self._connections[name] = self._writer.add_connection(
            name, msgtype, typestore=typestore, offered_qos_profiles=qos)
        self.message_counts[name] = 0

    def write(self, topic: str, log_time_ns: int, data: bytes | memoryview) -> None:
        """
        Append one message in ROS 2 CDR.

        Raises
        ------
        BagError
            If the disk is full; what was written before stays valid.
        """
        free = shutil.disk_usage(self.path).free
        if free < RESERVED_DISK_BYTES + len(data):
            raise BagError(f'the disk that holds {self.path} is full ({free / 2 ** 20:.0f} MiB '
                           f'free, {RESERVED_DISK_BYTES / 2 ** 20:.0f} MiB kept for the index)')
        try:
            self._writer.write(self._connections[topic], log_time_ns, data)
        except OSError as err:
            raise BagError(f'cannot write to {self.path}: {err.strerror}; what was written until '
                           'shortly before can be read') from err
        self.message_counts[topic] += 1

    def close(self) -> None:
        """
        Write the index and close the file.

        Raises
        ------
        BagError
            If the disk refuses it; the file then ends before its last chunk, without an index.
        """
        try:
            self._writer.close()
        except OSError as err:
            with suppress(OSError):
                self._writer.abort()
            file = self.path / f'{self.path.name}.mcap'
            with suppress(OSError):
                finalize_truncated(file)
            raise BagError(f'cannot finish {self.path}: {err.strerror}; what was written until '
                           f'shortly before can be read from {file}') from err

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        # What stopped the recording says more than what that does to the index.
        with nullcontext() if exc is None else suppress(BagError):
            self.close()
