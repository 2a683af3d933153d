"""Count and report data of a bag that cannot be read; too much of it is an error."""

from __future__ import annotations

from collections import Counter
import logging

from marigold_ros.data.bags.stamp_matching import StampMatcher
from marigold_ros.depth.errors import BagError, MarigoldError
from marigold_ros.geometry.poses import without_slash

# If each of the first frames is rejected, every frame of the bag is assumed to be.
MAX_SKIPPED_FIRST = 10

logger = logging.getLogger(__name__)


class DamageNote(str):
    """A note that reports lost data."""


class ReadIssues:
    """
    Collect what is skipped while a bag is read, and report it at the end.

    Parameters
    ----------
    notes : list of str or None
        Cleared, then filled with one text per kind of skipped data.  None makes unreadable data
        an error and logs the remaining notes.

    Attributes
    ----------
    frames : int
        Usable frames so far; incremented by the caller.
    """

    def __init__(self, notes: list[str] | None) -> None:
        self._lenient = notes is not None
        self._notes: list[str] = [] if notes is None else notes
        self._notes.clear()
        self._counts: Counter[str] = Counter()
        self._dispensable: Counter[str] = Counter()
        self._errors: list[MarigoldError] = []
        self.frames = 0

    def count(self, what: str) -> None:
        """Count a skipped item that is not an error."""
        self._counts[what] += 1

    def skip(self, err: MarigoldError) -> None:
        """Skip an unusable item; raise if `notes` is None or the first ten are all unusable."""
        self.count('messages or frames cannot be used')
        if not self._errors:
            self._errors.append(err)
            self._notes.append(f'first unusable message or frame: {err}')
        if not self._lenient or (self.frames == 0 and self._counts.total() >= MAX_SKIPPED_FIRST):
            raise self._errors[0]

    def skip_dispensable(self, err: MarigoldError, topic: str) -> None:
        """Skip a message that frames do without, such as a pose."""
        if topic not in self._dispensable:
            self.note([f'first unusable message on {topic}: {err}'])
        self._dispensable[topic] += 1

    def stop_at_damage(self, err: BagError) -> None:
        """Note that later data is lost; raise if `notes` is None or no frame was usable."""
        if not self._lenient or self.frames == 0:
            raise err
        self._notes.append(DamageNote(f'{err}; later data is lost'))

    def note(self, texts: list[str]) -> None:
        """Add notes, each once, on what is left out or assumed, but is no image or depth."""
        self._notes += [text for text in texts if text not in self._notes]

    def check_registration(self, image_frame_id: str, depth_frame_id: str) -> None:
        """Note once if the coordinate frames of image and depth differ."""
        if without_slash(image_frame_id) != without_slash(depth_frame_id):
            self.note([f'depth has frame_id {depth_frame_id!r} and the image has '
                       f'{image_frame_id!r}: is the depth registered to the image?'])

    def finish(self, matcher: StampMatcher, data_loss: str | None) -> None:
        """
        Add the counts to the notes; log them if `notes` is None.

        Parameters
        ----------
        matcher : StampMatcher
            Has matched all images with their depth.
        data_loss : str or None
            See `Bag.data_loss`.

        Raises
        ------
        MarigoldError
            If no frame could be used: the first error.
        """
        if self.frames == 0 and self._errors:
            raise self._errors[0]
        if data_loss is not None:
            self._notes.append(DamageNote(data_loss))
        for number, kind in zip(matcher.unmatched,
                                ('images have no depth', 'depth maps have no image')):
            self._counts[f'{kind} within {matcher.tolerance_ms:g} ms (`tolerance_ms`)'] = number
        for number, kind in zip(matcher.repeated, ('images', 'depth maps')):
            self._counts[f'{kind} with the time of an earlier one are left out'] = number
        self._notes += [f'{number} {what}' for what, number in self._counts.items() if number]
        self._notes += [f'{number} messages on {topic} cannot be used'
                        for topic, number in self._dispensable.items()]
        if not self._lenient:
            for note in self._notes:
                logger.warning('%s', note)
