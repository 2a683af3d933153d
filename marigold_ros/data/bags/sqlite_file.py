"""Read the sqlite3 files of rosbag2, of every version of its tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
import sqlite3

from marigold_ros.data.bags.bag_file import (
    Channel,
    Definition,
    full_type_name,
    parse_offered_qos,
)


class SqliteFile:
    """
    Reads a sqlite3 file of rosbag2.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    channels, start_ns, end_ns, data_loss
        See `BagFile`.

    Raises
    ------
    sqlite3.Error
        If the file is damaged or has no messages table.
    """

    data_loss: str | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as database:
            definitions = _read_definitions(database)
            counts = dict(database.execute(
                'SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id'))
            first, last = database.execute(
                'SELECT MIN(timestamp), MAX(timestamp) FROM messages').fetchone()
            rows = database.execute('SELECT * FROM topics ORDER BY id').fetchall()
        self.start_ns: int = 0 if first is None else first
        self.end_ns: int = 0 if last is None else last + 1
        self.channels = tuple(
            Channel(row['id'], row['name'], full_type_name(row['type']),
                    row['serialization_format'], definitions.get(row['type'], Definition()),
                    counts.get(row['id'], 0),
                    # Bags of Dashing and Eloquent have no such column.
                    parse_offered_qos(dict(row).get('offered_qos_profiles', '')))
            for row in rows)

    def messages(self, channels: Collection[Channel], start_ns: int | None,
                 stop_ns: int | None) -> Iterator[tuple[Channel, int, bytes]]:
        """See `BagFile.messages`; sorted by log time."""
        wanted = {channel.number: channel for channel in channels}
        query = ('SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN '
                 f'({", ".join("?" * len(wanted))}) AND timestamp >= ? AND timestamp < ? '
                 'ORDER BY timestamp, id')
        limits = (-2 ** 63 if start_ns is None else start_ns,
                  2 ** 63 - 1 if stop_ns is None else stop_ns)
        with closing(self._connect()) as database:
            for number, timestamp, data in database.execute(query, (*wanted, *limits)):
                yield wanted[number], timestamp, data

    def _connect(self) -> sqlite3.Connection:
        # A file that is declared immutable is read from read-only media, too; but then sqlite
        # ignores the log in which the recorder left its last messages.
        log = self._path.with_name(f'{self._path.name}-wal')
        mode = 'mode=ro' if log.exists() and log.stat().st_size else 'immutable=1'
        database = sqlite3.connect(f'{self._path.absolute().as_uri()}?{mode}', uri=True,
                                   check_same_thread=False)
        database.row_factory = sqlite3.Row
        return database


def _read_definitions(database: sqlite3.Connection) -> dict[str, Definition]:
    """Read the definitions by type; bags older than Iron have none."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'message_definitions'"
                            ).fetchone():
        return {}
    return {row['topic_type']: Definition(row['encoding'],
                                          row['encoded_message_definition'].encode())
            for row in database.execute('SELECT * FROM message_definitions')}
