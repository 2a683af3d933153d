"""Bring the messages of topics together by their stamps, while they are being read."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bags.messages import stamp_ns
from marigold_ros.data.bags.reader import Bag

# Depth follows its image within a second or two, whatever the camera's rate.
MATCH_WINDOW = 64

Stamped = tuple[int, Any]


def matched_by_stamp(bag: Bag, topics: Sequence[str], *,
                     stamps_ns: Collection[int] | None = None) -> Iterator[tuple[int, list[Any]]]:
    """
    Bring the messages of several topics together that have the same stamp.

    Parameters
    ----------
    bag : Bag
    topics : sequence of str
        Topics whose messages have a header.
    stamps_ns : collection of int or None
        Only these stamps; all, if None.

    Yields
    ------
    stamp_ns : int
    messages : list
        Decoded, one per topic in the order of `topics`.  A message waits for its partners until
        MATCH_WINDOW younger stamps have come, so memory stays bounded.
    """
    waiting: dict[int, dict[str, Any]] = {}
    for message in bag.messages(topics):
        decoded = bag.decode(message)
        stamp = stamp_ns(decoded)
        if stamps_ns is not None and stamp not in stamps_ns:
            continue
        partners = waiting.setdefault(stamp, {})
        partners[message.topic] = decoded
        if len(partners) == len(topics):
            del waiting[stamp]
            yield stamp, [partners[topic] for topic in topics]
        elif len(waiting) > MATCH_WINDOW:
            del waiting[next(iter(waiting))]


class StampMatcher:
    """
    Match images with depth one to one; of two images nearest to one depth the nearer gets it.

    A pair is given as soon as no later message can be nearer, and a message that has waited for
    `MATCH_WINDOW` others of its topic is dropped, so that memory stays bounded.

    Parameters
    ----------
    tolerance_ns : int
        Stamps that are farther apart do not match.
    """

    IMAGE, DEPTH = 0, 1

    def __init__(self, tolerance_ns: int) -> None:
        self._tolerance_ns = tolerance_ns
        self._waiting: tuple[list[Stamped], list[Stamped]] = ([], [])
        self._stamps_ns: tuple[list[int], list[int]] = ([], [])
        self.pairs = 0

    def add(self, side: int, stamp_ns: int, item: Any) -> Iterator[tuple[int, Any, Any]]:
        """
        Take one message, and give the pairs that it completes.

        Parameters
        ----------
        side : int
            `IMAGE` or `DEPTH`.
        stamp_ns : int
            Its time, ns.
        item : object

        Yields
        ------
        stamp_ns : int
            Of the image.
        image, depth : object
        """
        self._stamps_ns[side].append(stamp_ns)
        insort(self._waiting[side], (stamp_ns, item), key=itemgetter(0))
        yield from self._match_oldest(ended=False)
        if len(self._waiting[side]) > MATCH_WINDOW:
            del self._waiting[side][0]

    def finish(self) -> Iterator[tuple[int, Any, Any]]:
        """Give the pairs that waited for something nearer, once nothing comes any more."""
        yield from self._match_oldest(ended=True)

    @property
    def unmatched(self) -> tuple[int, int]:
        """Count images and depth maps so far that are in no pair."""
        images, depths = map(len, self._stamps_ns)
        return images - self.pairs, depths - self.pairs

    def offsets_ns(self) -> NDArray[np.int64]:
        """
        Tell how far off the depth nearest to each image is.

        Returns
        -------
        int64 [images]
            Stamp of the depth minus that of the image, ns; empty without any depth.
        """
        images, depths = (np.sort(np.array(each, np.int64)) for each in self._stamps_ns)
        if depths.size == 0:
            return depths
        after = np.searchsorted(depths, images).clip(max=depths.size - 1)
        offsets = np.stack([depths[np.maximum(after - 1, 0)], depths[after]]) - images
        nearest = np.argmin(np.abs(offsets), axis=0)
        return np.asarray(offsets[nearest, np.arange(images.size)], np.int64)

    def _match_oldest(self, *, ended: bool) -> Iterator[tuple[int, Any, Any]]:
        """Pair or drop the oldest messages until more must come to tell."""
        images, depths = self._waiting
        while images and depths:
            offset = depths[0][0] - images[0][0]
            # Only what comes later in the older one's topic can be nearer to the younger.
            older = images if offset > 0 else depths
            if abs(offset) > self._tolerance_ns:
                del older[0]
            elif offset and len(older) < 2 and not ended:
                return
            elif offset and len(older) > 1 and abs(
                    older[1][0] - older[0][0] - abs(offset)) < abs(offset):
                del older[0]
            else:
                self.pairs += 1
                (stamp_ns, image), (_, depth) = images.pop(0), depths.pop(0)
                yield stamp_ns, image, depth
