"""Select the worst seconds of a recording with a picture of each, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marigold_ros.evaluation.report.example_frames import FramePicture

# Seconds kept of a recording.
KEPT = 6


@dataclass(frozen=True, eq=False)
class Second:
    """
    A second of a recording, or a single frame.

    Attributes
    ----------
    name : str
        Its block; of a single frame, the name of the frame.
    errors : tuple of float
        AbsRel of each frame.
    picture : FramePicture or None
        The worst frame; None if the second cannot be among the worst.
    """

    name: str
    errors: tuple[float, ...]
    picture: FramePicture | None

    @property
    def abs_rel(self) -> float:
        """Return the mean AbsRel; exact, so that it does not depend on the parts."""
        return math.fsum(self.errors) / len(self.errors)

    def joined(self, later: Second) -> Second:
        """Return the second that consists of this part and a later one."""
        pictures = [each.picture for each in (self, later) if each.picture is not None]
        return Second(self.name, self.errors + later.errors,
                      max(pictures, key=lambda each: each.abs_rel, default=None))


class WorstSeconds:
    """
    Collect the seconds with the largest mean AbsRel.

    It keeps `KEPT` seconds, and the first and the last, which another part of the recording may
    complete.
    """

    def __init__(self) -> None:
        """Start without a second."""
        self._seconds: dict[str, Second] = {}    # in order of time

    def wants_picture(self, second: str, abs_rel: float) -> bool:
        """
        Check whether the next frame may become the picture of one of the worst seconds.

        The mean of a second cannot exceed its worst frame, so that this one must exceed the means
        of the worst whole seconds.
        """
        own = self._seconds.get(second)
        if own is not None and max(own.errors) >= abs_rel:
            return False
        whole = [each.abs_rel for each in [*self._seconds.values()][1:] if each is not own]
        return len(whole) < KEPT or abs_rel > sorted(whole)[-KEPT]

    def add(self, second: str, abs_rel: float, picture: FramePicture | None) -> None:
        """Add the next frame, of which the picture is given if it is wanted."""
        self._append(Second(second, (abs_rel,), picture))

    def extend(self, later: WorstSeconds, offset: int) -> None:
        """Add the part of the recording that follows; `offset` is added to its frame numbers."""
        for each in later._seconds.values():
            shown = each.picture
            self._append(each if shown is None else replace(
                each, picture=replace(shown, number=shown.number + offset)))

    def select(self) -> list[Second]:
        """Return at most `KEPT` seconds, the worst first."""
        return sorted(self._seconds.values(), key=lambda each: -each.abs_rel)[:KEPT]

    def _append(self, part: Second) -> None:
        known = self._seconds.get(part.name)
        self._seconds[part.name] = part if known is None else known.joined(part)
        inner = [*self._seconds.values()][1:-1]
        if len(inner) > KEPT:
            # Of equals, the latest, which `wants_picture` refuses too.
            del self._seconds[min(reversed(inner), key=lambda each: each.abs_rel).name]
