"""Keep what is done below the output folder, so that a fleet continues where it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
import json
from pathlib import Path
from typing import Any

from marigold_ros.depth.checkpoint import find_checkpoint
from marigold_ros.evaluation.fleet.fleet_list import ListedRecording
from marigold_ros.evaluation.report.second_pictures import FILE
from marigold_ros.files import write_atomically

DONE = 'done.json'


class RecordingStore:
    """
    The parts of a recording that are evaluated, and its report.

    Files belong to a fingerprint of everything that decides about the numbers; those of another
    one are ignored, and removed with the next report.

    Parameters
    ----------
    recording : ListedRecording
    table : str
        Identifies the latency table.
    """

    def __init__(self, recording: ListedRecording, table: str) -> None:
        self.folder = recording.folder
        self._parts = self.folder / 'parts'
        self._fingerprint = fingerprint(recording, table)

    def part_path(self, number: int) -> Path:
        """Return the file of a part; it is complete if it exists."""
        return self._parts / f'{number}-{self._fingerprint}.pickle'

    def problem_of_report(self) -> str | None:
        """Return why the finished report is partial, '' if it is not; None without a report."""
        try:
            done = json.loads((self._parts / DONE).read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return None
        return str(done['problem']) if done['fingerprint'] == self._fingerprint else None

    def save_part(self, number: int, content: bytes) -> None:
        """Keep the result of a part."""
        self._parts.mkdir(parents=True, exist_ok=True)
        write_atomically(self.part_path(number), content)

    def save_report(self, files: Mapping[str, bytes], problem: str, *, is_final: bool) -> None:
        """
        Write the report.

        Parameters
        ----------
        files : mapping of str to bytes
            By path below the folder.
        problem : str
            Why it is partial; empty if it is not.
        is_final : bool
            Whether all parts are there; then they are removed, and the report is not made again.
        """
        self._parts.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, content)
        for picture in self.folder.glob(FILE.format('*')):
            if picture.name not in files:  # an earlier report had more
                picture.unlink()
        if not is_final:
            return
        done = json.dumps({'fingerprint': self._fingerprint, 'problem': problem})
        write_atomically(self._parts / DONE, done.encode())
        for path in self._parts.glob('*.pickle'):
            path.unlink()


def fingerprint(recording: ListedRecording, table: str) -> str:
    """Identify options, files and code that decide about the numbers of a recording."""
    options = {name: value for name, value in vars(recording.options).items()
               if name not in ('out', 'latency_table')}
    # A default that is not absolute is not used, see `fleet_list`.
    files = [path for path in options.values() if isinstance(path, Path) and path.is_absolute()]
    facts = {'options': {name: str(value) for name, value in options.items()},
             'parts': recording.parts, 'lead_in_s': recording.lead_in_s, 'table': table,
             'files': list(_file_facts(*files, find_checkpoint(recording.options.checkpoint))),
             'code': _hash_code()}
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _file_facts(*paths: Path) -> Iterator[tuple[Any, ...]]:
    """Yield path, size and time of change of files and of the files below folders."""
    for path in paths:
        for file in [path, *sorted(path.rglob('*'))]:
            if file.is_file():
                status = file.stat()
                yield str(file), status.st_size, status.st_mtime_ns


@cache
def _hash_code() -> str:
    """Return a hash of the modules of this package."""
    root, code = Path(__file__).parents[2], sha256()
    for path in sorted(root.rglob('*.py')):
        code.update(path.read_bytes())
    return code.hexdigest()
