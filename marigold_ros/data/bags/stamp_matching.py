"""Match messages of several topics by their times while they are being read."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.data.bags.message_times import MessageTimes
from marigold_ros.data.bags.messages import read_stamp_ns
from marigold_ros.data.bags.reader import Bag

# Two seconds at 30 Hz; the depth of an image is recorded sooner than that.
MATCH_WINDOW = 64

Timed = tuple[int, Any]


def match_by_stamp(bag: Bag, topics: Sequence[str], *,
                   stamps_ns: Collection[int] | None = None) -> Iterator[tuple[int, list[Any]]]:
    """
    Group the messages of several topics that have exactly the same stamp.

    Parameters
    ----------
    bag : Bag
    topics : sequence of str
        Topics of messages with a header.
    stamps_ns : collection of int or None
        Stamps to return; None returns all.

    Yields
    ------
    stamp_ns : int
    messages : list
        Decoded, one per topic in the order of `topics`.  An incomplete group is dropped when
        MATCH_WINDOW other groups are waiting, so memory stays bounded.  Nothing is returned if
        the stamps of a topic carry no time.

    Examples
    --------
    >>> from marigold_ros.data.bags.reader import open_bag
    >>> topics = ['/camera/camera_info', '/lidar/points']
    >>> with open_bag('sample/living_room') as bag:
    ...     stamp, (info, cloud) = next(match_by_stamp(bag, topics))
    >>> stamp, info.header.frame_id, cloud.header.frame_id
    (1750000000000000000, 'camera_optical_frame', 'lidar_link')
    """
    if MessageTimes(bag, topics).unstamped:
        return
    waiting: dict[int, dict[str, Any]] = {}
    for message in bag.messages(topics):
        decoded = bag.decode(message)
        stamp = read_stamp_ns(decoded)
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
    Match images with depth one to one; if two images compete for one depth, the nearer wins.

    A pair is returned as soon as no later message can be nearer.  Per topic, at most
    `MATCH_WINDOW` messages wait; older ones are dropped, so that memory stays bounded.  A message
    with the time of an earlier one, as from a clock that stands still, is dropped: its partner
    cannot be told.

    Parameters
    ----------
    tolerance_ns : int
        Largest difference between the times of a pair, ns.
    """

    IMAGE, DEPTH = 0, 1

    def __init__(self, tolerance_ns: int) -> None:
        self._tolerance_ns = tolerance_ns
        self._waiting: tuple[list[Timed], list[Timed]] = ([], [])
        self._times_ns: tuple[set[int], set[int]] = (set(), set())
        self._repeated = [0, 0]
        self.pairs = 0

    def add(self, side: int, time_ns: int, item: Any) -> Iterator[tuple[int, Any, Any]]:
        """
        Add one message and return the pairs that it completes.

        Parameters
        ----------
        side : int
            `IMAGE` or `DEPTH`.
        time_ns : int
            Time of the message, ns.
        item : object
            The message.

        Yields
        ------
        time_ns : int
            Time of the image, ns.
        image, depth : object
        """
        if time_ns in self._times_ns[side]:
            self._repeated[side] += 1
            return
        self._times_ns[side].add(time_ns)
        insort(self._waiting[side], (time_ns, item), key=itemgetter(0))
        yield from self._match_oldest(ended=False)
        if len(self._waiting[side]) > MATCH_WINDOW:
            del self._waiting[side][0]

    def flush(self) -> Iterator[tuple[int, Any, Any]]:
        """Return the remaining pairs after the last message."""
        yield from self._match_oldest(ended=True)

    @property
    def tolerance_ms(self) -> float:
        """Return the largest difference between the times of a pair, ms."""
        return self._tolerance_ns / 1e6

    @property
    def unmatched(self) -> tuple[int, int]:
        """Return the numbers of images and of depth maps that are in no pair so far."""
        images, depths = map(len, self._times_ns)
        return images - self.pairs, depths - self.pairs

    @property
    def repeated(self) -> tuple[int, int]:
        """Return the numbers of images and of depth maps with the time of an earlier one."""
        images, depths = self._repeated
        return images, depths

    def offsets_ns(self) -> NDArray[np.int64]:
        """
        Return the time offset between each image and its nearest depth.

        Returns
        -------
        int64 [images]
            Time of the depth minus time of the image, ns; empty if there is no depth.
        """
        images, depths = (np.array(sorted(each), np.int64) for each in self._times_ns)
        if depths.size == 0:
            return depths
        after = np.searchsorted(depths, images).clip(max=depths.size - 1)
        offsets = np.stack([depths[np.maximum(after - 1, 0)], depths[after]]) - images
        nearest = np.argmin(np.abs(offsets), axis=0)
        return np.asarray(offsets[nearest, np.arange(images.size)], np.int64)

    def _match_oldest(self, *, ended: bool) -> Iterator[tuple[int, Any, Any]]:
        """Match or drop the oldest messages until a later message could change the result."""
        images, depths = self._waiting
        while images and depths:
            offset = depths[0][0] - images[0][0]
            # Only a later message on the topic of the older one can be nearer to the newer one.
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
                (time_ns, image), (_, depth) = images.pop(0), depths.pop(0)
                yield time_ns, image, depth
