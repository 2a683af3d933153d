"""What of a bag is played, under which names, and when: everything but the live topics."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from rosbags.interfaces import QosDurability

from marigold_ros.data.bags.messages import COMPRESSED_IMAGE, IMAGE
from marigold_ros.data.bags.reader import Bag, BagMessage, BagTopic
from marigold_ros.depth.errors import BagError

COMPRESSED_SUFFIX = '/compressed'
# Messages made ready before they are due: enough to hide a slow image, little enough to hold.
AHEAD_MESSAGES = 64

Item = TypeVar('Item')
Ready = TypeVar('Ready')


@dataclass(frozen=True)
class Route:
    """
    The way of one recorded topic to a live one.

    Attributes
    ----------
    source : BagTopic
        Where its messages come from.
    topic, msgtype : str
        What is published; a decompressed image has another type than its source.
    """

    source: BagTopic
    topic: str
    msgtype: str

    @property
    def decompresses(self) -> bool:
        """Whether compressed images are published raw."""
        return self.msgtype != self.source.msgtype

    @property
    def latched(self) -> bool:
        """Whether late subscribers get the last messages too."""
        return any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in self.source.qos)


def plan_routes(topics: Collection[BagTopic], *, chosen: Collection[str] = (),
                remap: Mapping[str, str] | None = None, decompress: bool = True) -> list[Route]:
    """
    Decide what is published where.

    A compressed image '<name>/compressed' is published raw on '<name>', unless the bag holds
    '<name>' itself.  `chosen` and `remap` may use either name.

    Parameters
    ----------
    topics : collection of BagTopic
        Of the bag.
    chosen : collection of str
        Topics to play; all, if empty.
    remap : mapping of str to str
        New names by old ones.
    decompress : bool
        False keeps compressed images as they are.

    Raises
    ------
    BagError
        If a name in `chosen` or `remap` is not in the bag; its text lists those that are.
    """
    remap = remap or {}
    recorded = {topic.name for topic in topics}
    routes: list[Route] = []
    known: set[str] = set()
    for source in topics:
        raw_name = source.name.removesuffix(COMPRESSED_SUFFIX)
        to_raw = (decompress and source.msgtype == COMPRESSED_IMAGE
                  and raw_name not in recorded)
        name, msgtype = (raw_name, IMAGE) if to_raw else (source.name, source.msgtype)
        known |= {source.name, name}
        if not chosen or {source.name, name} & set(chosen):
            topic = remap.get(name, remap.get(source.name, name))
            routes.append(Route(source, topic, msgtype))
    if unknown := sorted({*chosen, *remap} - known):
        raise BagError(f'no topic {", ".join(unknown)} in the bag; it has '
                       + ', '.join(f'{topic.name} ({topic.msgtype})' for topic in topics))
    return routes


def scheduled(bag: Bag, routes: Collection[Route],
              start_ns: int) -> Iterator[tuple[int, Route, BagMessage]]:
    """
    Read the messages of the routes with the bag time at which each is due.

    Latched messages from before `start_ns`, such as static transforms, are due at `start_ns`.
    """
    by_source = {(route.source.name, route.source.msgtype): route for route in routes}

    def read(names: Collection[str], start: int | None,
             stop: int | None) -> Iterator[tuple[int, Route, BagMessage]]:
        for message in bag.messages(names, start_ns=start, stop_ns=stop) if names else ():
            if route := by_source.get((message.topic, message.msgtype)):
                yield max(message.log_time_ns, start_ns), route, message

    yield from read({route.source.name for route in routes if route.latched}, None, start_ns)
    yield from read({route.source.name for route in routes}, start_ns, None)


def prepared_ahead(items: Iterable[Item], prepare: Callable[[Item], Ready]) -> Iterator[Ready]:
    """
    Apply `prepare` in one thread, some items ahead of the consumer and in the same order.

    So the time that an image takes to decompress does not delay its own publication.
    """
    pool = ThreadPoolExecutor(max_workers=1)
    pending: deque[Future[Ready]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(prepare, item))
            if len(pending) > AHEAD_MESSAGES:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def ticks_until(next_tick_ns: int, period_ns: int, time_ns: int) -> range:
    """
    List the clock ticks that are due up to a bag time.

    Returns
    -------
    range
        next_tick_ns, next_tick_ns + period_ns ... <= time_ns.
    """
    return range(next_tick_ns, time_ns + 1, period_ns)
