"""What cannot be read of a bag: counted, said in words, and too much of it an error."""

from __future__ import annotations

from collections import Counter
import logging

from marigold_ros.depth.errors import BagError, MarigoldError

# If none of so many frames can be used, no frame of the bag will.
MAX_REFUSED_FIRST = 10

logger = logging.getLogger(__name__)


class DamageNote(str):
    """A note that says that a part of the data cannot be read."""


class ReadIssues:
    """
    Counts what is left out of a bag, and says so at the end.

    Parameters
    ----------
    notes : list of str or None
        Is emptied, and filled with what was left out.  None makes what cannot be read an error,
        and the rest goes to the log.

    Attributes
    ----------
    frames : int
        Frames that could be used; for the reader to count.
    """

    def __init__(self, notes: list[str] | None) -> None:
        self._lenient = notes is not None
        self._notes: list[str] = [] if notes is None else notes
        self._notes.clear()
        self._counts: Counter[str] = Counter()
        self._refused: list[MarigoldError] = []
        self._registration: str | None = None
        self.frames = 0

    def count(self, what: str) -> None:
        """Count one more of a kind that is left out without being wrong."""
        self._counts[what] += 1

    def leave_out(self, err: MarigoldError) -> None:
        """Leave something out, or raise if that was not agreed on or nothing could be used yet."""
        self.count('messages or frames cannot be used')
        if not self._refused:
            self._refused.append(err)
            self._notes.append(f'first that cannot be used: {err}')
        if not self._lenient or (self.frames == 0 and self._counts.total() >= MAX_REFUSED_FIRST):
            raise self._refused[0]

    def lose_rest(self, err: BagError) -> None:
        """Go on without what comes after damage, or raise if there is nothing to go on with."""
        if not self._lenient or self.frames == 0:
            raise err
        self._notes.append(DamageNote(f'{err}; what comes after is lost'))

    def check_registration(self, image_frame_id: str, depth_frame_id: str) -> None:
        """Say once that depth of another coordinate frame may not be registered to the image."""
        if image_frame_id != depth_frame_id and self._registration is None:
            self._registration = (f'depth is in the frame {depth_frame_id!r} and the image in '
                                  f'{image_frame_id!r}: is it registered to the image?')
            self._notes.append(self._registration)

    def report(self, unmatched: tuple[int, int], loss: str | None) -> None:
        """
        Write everything down.

        Parameters
        ----------
        unmatched : (int, int)
            Images and depth maps without partner.
        loss : str or None
            What is missing of the whole bag.

        Raises
        ------
        MarigoldError
            If no frame could be used: what the first of them broke.
        """
        if self.frames == 0 and self._refused:
            raise self._refused[0]
        if loss is not None:
            self._notes.append(DamageNote(loss))
        for number, kind in zip(unmatched, ('images have no depth', 'depth maps have no image')):
            self._counts[f'{kind} within the tolerance'] = number
        self._notes += [f'{number} {what}' for what, number in self._counts.items() if number]
        if not self._lenient:
            for note in self._notes:
                logger.warning('%s', note)
