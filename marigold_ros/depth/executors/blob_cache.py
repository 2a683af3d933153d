"""Compiled models in the user's cache folder, checked when they are read."""

from __future__ import annotations

from contextlib import suppress
import hashlib
import logging
import os
from pathlib import Path
import shutil
import tempfile

logger = logging.getLogger(__name__)

# Of what is free on the disk without them.
MAX_SHARE = 0.25
DIGEST_BYTES = 32


class BlobCache:
    """
    Files of a digest and the blob, in $XDG_CACHE_HOME/marigold_ros or ~/.cache/marigold_ros.

    OpenVINO computes NaN from a damaged blob, without an error; hence the digest.  A cache that
    cannot be read or written is reported once; models are then compiled at every start.
    """

    def __init__(self) -> None:
        """Find the folder; it is made by the first `write`."""
        self._reported = False
        self._folder: Path | None = None
        try:
            root = os.environ.get('XDG_CACHE_HOME')
            self._folder = (Path(root) if root else Path.home() / '.cache') / 'marigold_ros'
        except RuntimeError as err:  # neither HOME nor an entry for the user
            self._report(err)

    def read(self, key: str) -> memoryview | None:
        """
        Return a blob; None if there is none or if it is damaged.

        A view, because a copy of a large blob would delay the frames of other threads.
        """
        if self._folder is None:
            return None
        path = self._folder / key
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as err:
            self._report(err)
            return None
        blob = memoryview(content)[DIGEST_BYTES:]
        if _digest(blob) != content[:DIGEST_BYTES]:
            self.reject(key, 'its digest is wrong')
            return None
        with suppress(OSError):  # a folder that was filled for all users may be read-only
            os.utime(path)  # used now
        return blob

    def write(self, key: str, blob: bytes | memoryview) -> None:
        """Store a blob; another process never sees half of it."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _make_room(self._folder, len(blob))
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                try:
                    file.write(_digest(blob))
                    file.write(blob)
                except OSError:
                    Path(file.name).unlink()
                    raise
            Path(file.name).replace(self._folder / key)
        except OSError as err:
            self._report(err)

    def reject(self, key: str, reason: object) -> None:
        """Say that a blob is unusable; the next `write` replaces it."""
        logger.warning('%s is damaged and is made again: %s', self._folder and self._folder / key,
                       reason)

    def _report(self, err: Exception) -> None:
        if not self._reported:
            logger.warning('compiled models cannot be kept in %s, so every start compiles them: '
                           '%s; set XDG_CACHE_HOME to a writable folder',
                           self._folder or 'the cache folder', err)
        self._reported = True


def _make_room(folder: Path, size: int) -> None:
    """Delete the files that were not used for the longest time, to keep part of the disk free."""
    files = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process deleted it
            stat = path.stat()
            files.append((stat.st_mtime, stat.st_size, path))
    room = MAX_SHARE * (shutil.disk_usage(folder).free + sum(each[1] for each in files))
    for _, used, path in sorted(files, reverse=True):
        size += used
        if size > room:
            path.unlink(missing_ok=True)


def _digest(blob: bytes | memoryview) -> bytes:
    return hashlib.blake2b(blob, digest_size=DIGEST_BYTES).digest()
