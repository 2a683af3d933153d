"""Tell the times of messages: their stamps, or log times where stamps carry no time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from marigold_ros.data.bags.messages import read_stamp_ns
from marigold_ros.data.bags.reader import Bag, BagMessage
from marigold_ros.depth.errors import BagError, MarigoldError
from marigold_ros.messages.header import carry_time, EXAMINED_STAMPS, peek_header


class MessageTimes:
    """
    Times of the messages of topics that are compared with each other in time.

    If the stamps of one of the topics carry no time, log times are used for all of them: times
    of one clock; see `carry_time`.

    Parameters
    ----------
    bag : Bag
    topics : sequence of str
        Topics of messages with a header; their first ten messages are examined.

    Attributes
    ----------
    unstamped : tuple of str
        Those of the topics whose stamps carry no time.

    Raises
    ------
    BagError
        If the log times, which are needed, carry no time either.
    """

    def __init__(self, bag: Bag, topics: Sequence[str]) -> None:
        first = {topic: first_times(bag, topic) for topic in topics}
        self.unstamped = tuple(
            topic for topic, times in first.items()
            if times and not carry_time([stamp for _, stamp in times]))
        for topic, times in first.items() if self.unstamped else ():
            if times and not carry_time([log_time for log_time, _ in times]):
                raise BagError(f'{bag.path}: the stamps on {self.unstamped[0]} and the log times '
                               f'on {topic} carry no time (0, or repeated)')

    @property
    def notes(self) -> list[str]:
        """Return a text for the user if log times are used."""
        return [f'the stamps on {" and ".join(self.unstamped)} carry no time (0, or repeated); '
                'log times are used instead'] if self.unstamped else []

    def time_ns(self, message: BagMessage, decoded: Any) -> int:
        """Return the time of a message, decoded with a header, ns."""
        return message.log_time_ns if self.unstamped else read_stamp_ns(decoded)

    def log_time_ns(self, message: BagMessage) -> int | None:
        """Return the log time of a message, ns; None if stamps are used."""
        return message.log_time_ns if self.unstamped else None


def first_times(bag: Bag, topic: str, start_ns: int | None = None) -> list[tuple[int, int]]:
    """
    Read the times of the first messages of a topic, without those that cannot be read.

    Parameters
    ----------
    bag : Bag
    topic : str
        Topic of messages with a header.
    start_ns : int or None
        Log time of the first message, ns.

    Returns
    -------
    list of (int, int)
        Log time and stamp of at most ten messages, ns.
    """
    times: list[tuple[int, int]] = []
    with suppress(MarigoldError):  # damage; who reads the whole topic reports it
        for message in islice(bag.messages([topic], start_ns=start_ns, on_error=lambda *_: None),
                              EXAMINED_STAMPS):
            with suppress(MarigoldError):
                times.append((message.log_time_ns, peek_header(message.data)[0]))
    return times
