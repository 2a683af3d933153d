"""The evaluated recordings of a fleet, as its report reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
import json
from pathlib import Path

FLEET_FILE, SCHEMA_VERSION = 'fleet.json', 1


@dataclass(frozen=True)
class FleetRecording:
    """
    An evaluated recording.

    Parameters
    ----------
    name : str
        Unique within the fleet.
    folder : Path
        What `evaluate` writes: summary.json, per_frame.csv and so on.  Empty if it failed.
    tags : mapping of str to str
        Such as site, robot, weather.
    state : str
        `complete`, `partial` (the results of a part) or `failed` (none).
    detail : str
        Why it is not complete.
    """

    name: str
    folder: Path
    tags: Mapping[str, str]
    state: str
    detail: str = ''


def write_recordings(out: Path, fleet_list: Path, recordings: Sequence[FleetRecording]) -> None:
    """Write `fleet.json`: the list, and its recordings with folders relative to `out`."""
    content = {'schema_version': SCHEMA_VERSION, 'list': str(fleet_list), 'recordings': [
        {**asdict(each), 'folder': str(each.folder.relative_to(out))} for each in recordings]}
    (out / FLEET_FILE).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
