"""The evaluated recordings of a fleet, as its report reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FleetRecording:
    """
    An evaluated recording.

    Parameters
    ----------
    name : str
        Unique within the fleet.
    folder : Path
        What `evaluate` writes: summary.json, per_frame.csv and so on; not if it failed.
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
