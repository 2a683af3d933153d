"""The time of /clock while a bag is played: of one time base with the stamps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from statistics import median

from rosbags.interfaces import Nodetype

from marigold_ros.data.bags.message_times import first_times
from marigold_ros.data.bags.messages import COMPRESSED_IMAGE, IMAGE
from marigold_ros.data.bags.reader import Bag, BagTopic
from marigold_ros.depth.errors import MessageError
from marigold_ros.messages.header import carry_time, peek_header

# No transport delays a message this long: other stamps are of another time base than log times.
MAX_DELAY_NS = 10 ** 9
HEADER = (Nodetype.NAME, 'std_msgs/msg/Header')


@dataclass(frozen=True)
class ClockSource:
    """
    Topic whose stamps the clock follows.

    Attributes
    ----------
    topic : BagTopic
    log_time_ns, stamp_ns : int
        Of the first message that is played.
    """

    topic: BagTopic
    log_time_ns: int
    stamp_ns: int


class BagClock:
    """
    Convert log times to the time base of the stamps.

    A robot's stamps and log times have one time base, and the clock shows log times.  In a
    recording of a simulation, or of another recording, they differ; then the clock follows the
    stamps of one topic, between its messages at the mean rate of the stamps so far.  It steps
    back only where the stamps do.

    Parameters
    ----------
    source : ClockSource or None
        None shows log times.
    """

    def __init__(self, source: ClockSource | None) -> None:
        # Log time and stamp of a message, ns.
        self._first = self._last = (None if source is None
                                    else (source.log_time_ns, source.stamp_ns))
        self._newest_ns = 0

    def time_ns(self, log_time_ns: int) -> int:
        """Return the time of the clock at a log time, ns; 0 before the epoch of the stamps."""
        if self._first is None or self._last is None:
            return log_time_ns
        elapsed_ns = self._last[0] - self._first[0]
        # A burst of messages after a pause must not make the clock overtake the next stamp.
        rate = min(1.0, (self._last[1] - self._first[1]) / elapsed_ns) if elapsed_ns > 0 else 1.0
        self._newest_ns = max(self._newest_ns, 0, self._last[1] + round(
            rate * (log_time_ns - self._last[0])))
        return self._newest_ns

    def follow(self, log_time_ns: int, message: bytes) -> None:
        """Take over the stamp of a message of the topic that the clock follows."""
        if self._last is None:
            return
        try:
            stamp_ns, _, _ = peek_header(message)
        except MessageError:
            return  # played as it is, but its stamp is no time
        step_ns = stamp_ns - self._last[1]
        if step_ns < -MAX_DELAY_NS:  # the simulation was reset
            self._first, self._newest_ns = (log_time_ns, stamp_ns), 0
        elif step_ns < 0:
            return  # messages out of order
        self._last = (log_time_ns, stamp_ns)


def find_clock_source(bag: Bag, topics: Collection[BagTopic],
                      start_ns: int) -> ClockSource | None:
    """
    Find the topic whose stamps the clock must follow: the first of images, or else of others.

    Parameters
    ----------
    bag : Bag
    topics : collection of BagTopic
        Topics that are played.
    start_ns : int
        Log time of the start, ns.

    Returns
    -------
    ClockSource or None
        None if its stamps have the time base of the log times, or no topic has stamps that carry
        time.
    """
    stamped = [topic for topic in topics if _has_header(bag, topic)]
    stamped.sort(key=lambda topic: topic.msgtype not in (IMAGE, COMPRESSED_IMAGE))
    for topic in stamped:
        times = first_times(bag, topic.name, start_ns)
        if carry_time([stamp for _, stamp in times]):
            delay_ns = median(log_time - stamp for log_time, stamp in times)
            return ClockSource(topic, *times[0]) if abs(delay_ns) > MAX_DELAY_NS else None
    return None


def _has_header(bag: Bag, topic: BagTopic) -> bool:
    known = bag.typestore(topic.name, topic.msgtype).fielddefs.get(topic.msgtype)
    return known is not None and bool(known[1]) and known[1][0][1] == HEADER
