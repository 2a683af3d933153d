"""Play any bag of ROS 2 or ROS 1 on live ROS 2 topics, with its recorded timing."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
import os
from pathlib import Path
import re
import sys
import time

from builtin_interfaces.msg import Time
import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_topic_name import validate_topic_name
from rosbags.interfaces import QosDurability
from rosgraph_msgs.msg import Clock

from marigold_ros.data.bags.messages import (
    COMPRESSED_IMAGE,
    decompress_message,
    find_transport,
    IMAGE,
)
from marigold_ros.data.bags.reader import Bag, BagMessage, BagTopic, open_bag
from marigold_ros.data.read_ahead import read_ahead
from marigold_ros.depth.errors import BagError, MarigoldError
from marigold_ros.messages.image_transport import base_topic
from marigold_ros.progress import progress_bar
from marigold_ros.ros.startup import init_rclpy
from marigold_ros.ros.tools.bag_clock import BagClock, ClockSource, find_clock_source
from marigold_ros.ros.tools.bag_qos import choose_playback_qos
from marigold_ros.ros.tools.command_line import (
    parse_non_negative,
    parse_positive,
    split_ros_arguments,
)
from marigold_ros.ros.tools.message_types import find_message_class, read_installed_typestore
from marigold_ros.ros.tools.share_files import select_large_image_profile
from marigold_ros.stop_flag import ignore_signals, StopFlag

CLOCK, CLOCK_TYPE = '/clock', 'rosgraph_msgs/msg/Clock'
CLOCK_HZ = 100.0
# Nodes receive /clock and messages in any order.  They must know the new time before the first
# message, which in a loop would seem as old as the bag is long.
CLOCK_LEAD_S = 0.1
# Messages prepared before they are due: enough to hide slow decompression, in bounded memory.
AHEAD_MESSAGES = 64
# Discovery counts as complete after this time without a new subscriber, if all or some topics
# have one.
SETTLE_ALL_S, SETTLE_SOME_S = 1.0, 3.0
ACKNOWLEDGE_S = 2.0
TOPIC_NAME = re.compile(r'(/[A-Za-z_]\w*)+')


@dataclass(frozen=True)
class Route:
    """
    Mapping of a recorded topic to a live one.

    Attributes
    ----------
    recorded : BagTopic
        Recorded topic.
    topic, msgtype : str
        Live topic; the type of a decompressed image differs from the recorded one.
    """

    recorded: BagTopic
    topic: str
    msgtype: str

    @property
    def decompresses(self) -> bool:
        """Check whether compressed images are published raw."""
        return self.msgtype != self.recorded.msgtype

    @property
    def latched(self) -> bool:
        """Check whether late subscribers also receive the last messages (transient local)."""
        return any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in self.recorded.qos)


def plan_routes(topics: Collection[BagTopic], *, chosen: Collection[str] = (),
                remap: Mapping[str, str] | None = None, decompress: bool = True) -> list[Route]:
    """
    Plan which topics are published under which names.

    A compressed image '<name>/compressed' or '<name>/compressedDepth' is published raw on
    '<name>', unless '<name>' itself has messages.  `chosen` and `remap` may use either name.

    Parameters
    ----------
    topics : collection of BagTopic
        Topics of the bag.
    chosen : collection of str
        Topics to play; all if empty.
    remap : mapping of str to str
        Mapping of old to new names.
    decompress : bool
        False publishes compressed images unchanged.

    Raises
    ------
    BagError
        If a name in `chosen` or `remap` is not in the bag; the text lists its topics.
    """
    remap = remap or {}
    filled = {topic.name for topic in topics if topic.message_count and topic.unreadable is None}
    routes: list[Route] = []
    known: set[str] = set()
    for recorded in topics:
        raw_name = base_topic(recorded.name)
        to_raw = (decompress and recorded.msgtype == COMPRESSED_IMAGE
                  and raw_name not in filled
                  and find_transport(topics, raw_name) == recorded.name)
        name, msgtype = (raw_name, IMAGE) if to_raw else (recorded.name, recorded.msgtype)
        known |= {recorded.name, name}
        replaced = (decompress and not recorded.message_count
                    and find_transport(topics, recorded.name) != recorded.name)
        if not replaced and (not chosen or {recorded.name, name} & set(chosen)):
            topic = remap.get(name, remap.get(recorded.name, name))
            routes.append(Route(recorded, topic, msgtype))
    if unknown := sorted({*chosen, *remap} - known):
        raise BagError(f'no topic {", ".join(unknown)} in the bag; it has '
                       + ', '.join(f'{topic.name} ({topic.msgtype})' for topic in topics))
    return routes


def split_playable_routes(bag: Bag, routes: Sequence[Route]) -> tuple[list[Route], list[str]]:
    """
    Split routes into those that can be published here and those that cannot.

    A live topic has one type: that of the first route to it.

    Returns
    -------
    routes : list of Route
        Routes whose type is installed.
    skipped : list of str
        Other topics, each with type, message count and reason.
    """
    playable, skipped = [], []
    types = {CLOCK: CLOCK_TYPE}
    for route in routes:
        reason = _reason_to_skip(bag, route)
        if reason is None and types.setdefault(route.topic, route.msgtype) != route.msgtype:
            reason = f'{types[route.topic]} is published on {route.topic}'
        if reason is None:
            playable.append(route)
        else:
            skipped.append(route.recorded.describe(reason))
    return playable, skipped


def _reason_to_skip(bag: Bag, route: Route) -> str | None:
    if route.recorded.unreadable is not None:
        return route.recorded.unreadable
    try:
        validate_topic_name(route.topic)
    except InvalidTopicNameException:
        return 'invalid topic name in ROS 2'
    if find_message_class(route.msgtype) is None:
        return 'message type not installed'
    try:
        installed = read_installed_typestore(route.msgtype).hash_rihs01(route.msgtype)
    except BagError as err:
        return str(err)
    types = bag.typestore(route.recorded.name, route.msgtype)
    if route.msgtype in types.fielddefs and types.hash_rihs01(route.msgtype) != installed:
        return 'installed definition differs'
    return None


def schedule_messages(bag: Bag, routes: Collection[Route], start_ns: int,
                      on_error: Callable[[BagError, str], None] | None = None
                      ) -> Iterator[tuple[int, Route, BagMessage]]:
    """
    Read the messages of the routes, each with the bag time at which it is due.

    Latched messages from before `start_ns`, such as static transforms, are due at `start_ns`.
    For `on_error` see `Bag.messages`.
    """
    by_recorded = {(route.recorded.name, route.recorded.msgtype): route for route in routes}

    def read(names: Collection[str], start: int | None,
             stop: int | None) -> Iterator[tuple[int, Route, BagMessage]]:
        for message in bag.messages(names, start_ns=start, stop_ns=stop,
                                    on_error=on_error) if names else ():
            if route := by_recorded.get((message.topic, message.msgtype)):
                yield max(message.log_time_ns, start_ns), route, message

    yield from read({route.recorded.name for route in routes if route.latched}, None, start_ns)
    yield from read({route.recorded.name for route in routes}, start_ns, None)


def ticks_until(next_tick_ns: int, period_ns: int, time_ns: int) -> range:
    """
    Return the clock ticks that are due up to a bag time.

    Returns
    -------
    range
        next_tick_ns, next_tick_ns + period_ns ... <= time_ns.
    """
    return range(next_tick_ns, time_ns + 1, period_ns)


class Player:
    """
    Publish the messages of a bag when they are due.

    Parameters
    ----------
    node : Node
        Creates the publishers.
    bag : Bag
    routes : sequence of Route
        Topics to publish.
    reliability : {'reliable', 'best_effort'} or None
        Overrides what the recorded publishers offered.
    clock_hz : float or None
        Rate of /clock, Hz of the monotonic clock; None publishes none but a recorded one.
    clock_source : ClockSource or None
        What /clock follows; None shows log times.

    Attributes
    ----------
    published : int
    skipped : Counter of str
        Numbers of messages that could not be read, by topic.
    max_lateness_s : float
    """

    def __init__(self, node: Node, bag: Bag, routes: Sequence[Route], *,
                 reliability: str | None = None, clock_hz: float | None = None,
                 clock_source: ClockSource | None = None) -> None:
        self.bag = bag
        self.routes = routes
        self.publishers: dict[str, Publisher] = {
            route.topic: node.create_publisher(
                find_message_class(route.msgtype), route.topic,
                choose_playback_qos(route.recorded.qos, reliability))
            for route in routes}
        self.clock_hz = clock_hz
        self.clock_source = clock_source
        self.clock_publisher = node.create_publisher(Clock, CLOCK, 10) if clock_hz else None
        self.published = 0
        self.skipped: Counter[str] = Counter()
        self.max_lateness_s = 0.0

    def wait_for_subscribers(self, timeout_s: float, stop: StopFlag) -> list[str]:
        """
        Wait until a topic has a subscriber and no new subscriber appears for a while.

        Returns
        -------
        list of str
            Topics without a subscriber.
        """
        end_s = time.monotonic() + timeout_s
        changed_s = time.monotonic()
        before: list[int] = []
        while True:
            counts = [publisher.get_subscription_count() for publisher in self.publishers.values()]
            now_s = time.monotonic()
            if counts != before or not any(counts):
                changed_s, before = now_s, counts
            settled_s = changed_s + (SETTLE_ALL_S if all(counts) else SETTLE_SOME_S)
            if now_s >= min(settled_s, end_s) or not stop.sleep_until(now_s + 0.05):
                return [topic for topic, count in zip(self.publishers, counts) if not count]

    def play(self, start_ns: int, rate: float, stop: StopFlag) -> None:
        """
        Play the bag once, from a bag time to its end or until a stop is requested.

        Parameters
        ----------
        start_ns : int
            Log time of the start, ns.
        rate : float
            Seconds of the bag per second of the monotonic clock.
        stop : StopFlag
        """
        progress = progress_bar(
            desc=self.bag.path.name, total=round((self.bag.end_ns - start_ns) * 1e-9, 1), unit='s',
            bar_format='{desc}: {bar} {n:.1f}/{total:.1f} s of the bag [{elapsed}<{remaining}]')
        begin_s = None
        with closing(self._events(start_ns, rate)) as events, progress:
            for time_ns, publisher, message in events:
                if begin_s is None:
                    begin_s = time.monotonic()
                    if publisher is self.clock_publisher:
                        publisher.publish(message)
                        begin_s += CLOCK_LEAD_S
                        continue
                offset_s = (time_ns - start_ns) * 1e-9
                due_s = begin_s + offset_s / rate
                if not stop.sleep_until(due_s):
                    break
                publisher.publish(message)
                self.published += publisher is not self.clock_publisher
                self.max_lateness_s = max(self.max_lateness_s, time.monotonic() - due_s)
                progress.update(offset_s - progress.n)

    def finish(self) -> None:
        """Wait until the subscribers have acknowledged the published messages."""
        end_s = time.monotonic() + ACKNOWLEDGE_S
        for publisher in self.publishers.values():
            remaining_s = max(0.0, end_s - time.monotonic())
            publisher.wait_for_all_acked(Duration(seconds=remaining_s))

    def _messages(self, start_ns: int) -> Iterator[tuple[int, str, bytes]]:
        # Reading ahead keeps the time of decompression out of the time of publication.
        scheduled = schedule_messages(self.bag, self.routes, start_ns, self._skip)
        with closing(read_ahead(map(self._prepare, scheduled), AHEAD_MESSAGES)) as ready:
            for time_ns, topic, data in ready:
                if data is not None:
                    yield time_ns, topic, data

    def _prepare(self, item: tuple[int, Route, BagMessage]) -> tuple[int, str, bytes | None]:
        time_ns, route, message = item
        if not route.decompresses:
            return time_ns, route.topic, message.data
        try:
            return time_ns, route.topic, decompress_message(self.bag, message)
        except MarigoldError as err:
            self._skip(err, message.topic)
            return time_ns, route.topic, None

    def _skip(self, err: MarigoldError, topic: str) -> None:
        if topic not in self.skipped:
            print(f'Skipped a message on {topic}: {err}', file=sys.stderr)
        self.skipped[topic] += 1

    def _events(self, start_ns: int, rate: float
                ) -> Generator[tuple[int, Publisher, bytes | Clock], None, None]:
        """Insert /clock ticks between the messages, up to the bag time of each."""
        messages = self._messages(start_ns)
        if not self.clock_hz or not self.clock_publisher:
            for time_ns, topic, data in messages:
                yield time_ns, self.publishers[topic], data
            return
        clock = BagClock(self.clock_source)
        followed = {route.topic for route in self.routes
                    if self.clock_source and route.recorded == self.clock_source.topic}
        next_tick_ns, period_ns = start_ns, max(1, round(1e9 * rate / self.clock_hz))
        for time_ns, topic, data in messages:
            ticks = ticks_until(next_tick_ns, period_ns, time_ns)
            next_tick_ns += len(ticks) * period_ns
            for tick_ns in ticks:
                yield tick_ns, self.clock_publisher, _clock_message(clock.time_ns(tick_ns))
            if topic in followed:
                clock.follow(time_ns, data)
                yield time_ns, self.clock_publisher, _clock_message(clock.time_ns(time_ns))
            yield time_ns, self.publishers[topic], data


def _clock_message(time_ns: int) -> Clock:
    sec, nanosec = divmod(time_ns, 10 ** 9)
    return Clock(clock=Time(sec=sec, nanosec=nanosec))


def _parse_remapping(text: str) -> tuple[str, str]:
    old, separator, new = text.partition(':=')
    if not separator or not TOPIC_NAME.fullmatch(new):
        raise argparse.ArgumentTypeError(f'must be /old:=/new; got {text}')
    return old, new


def make_parser() -> argparse.ArgumentParser:
    """Create the parser of the command line."""
    parser = argparse.ArgumentParser(prog='play_bag', description=__doc__)
    parser.add_argument('path', type=Path,
                        help='ROS 2 bag folder (MCAP, sqlite3), .mcap or .db3 file, ROS 1 .bag')
    parser.add_argument('--topics', nargs='+', default=[], metavar='TOPIC',
                        help='play only these (default: all)')
    parser.add_argument('--remap', nargs='+', default=[], type=_parse_remapping,
                        metavar='OLD:=NEW', help='publish under other names')
    parser.add_argument('--decompress', action=argparse.BooleanOptionalAction, default=True,
                        help='publish compressed images raw on <name> (default: yes)')
    parser.add_argument('--rate', type=parse_positive, default=1.0, metavar='FACTOR',
                        help='playback speed (default: 1)')
    parser.add_argument('--loop', action='store_true', help='restart at the end')
    parser.add_argument('--start-offset', type=parse_non_negative, default=0.0, metavar='SECONDS',
                        help='start this far into the bag (default: 0)')
    parser.add_argument('--clock', type=parse_positive, nargs='?', const=CLOCK_HZ, metavar='HZ',
                        help='publish /clock: the recorded one, or else one of the stamps '
                        f'(default rate: {CLOCK_HZ:g} Hz)')
    parser.add_argument('--reliability', choices=['reliable', 'best_effort'],
                        help='override the recorded reliability, except of latched topics')
    parser.add_argument('--wait-for-subscribers', type=parse_non_negative, metavar='SECONDS',
                        help='wait at most this long for subscribers, until no new ones appear')
    return parser


def _plan_playback(bag: Bag, arguments: argparse.Namespace) -> list[Route]:
    chosen = arguments.topics
    if chosen and arguments.clock and any(topic.name == CLOCK for topic in bag.topics):
        chosen = [*chosen, CLOCK]
    routes, skipped = split_playable_routes(bag, plan_routes(
        bag.topics, chosen=chosen, remap=dict(arguments.remap), decompress=arguments.decompress))
    if skipped:
        print('Skipped ' + ', '.join(skipped))
    if not routes:
        raise BagError(f'nothing to play: no topic of {bag.path} can be published here')
    return routes


def _choose_clock(bag: Bag, routes: Sequence[Route], clock_hz: float | None,
                  start_ns: int) -> tuple[float | None, ClockSource | None]:
    """Return the rate of an own /clock, which a recorded one replaces, and what it follows."""
    if clock_hz is None:
        return None, None
    if any((route.topic, route.msgtype) == (CLOCK, CLOCK_TYPE) and route.recorded.message_count
           for route in routes):
        print(f'{CLOCK} is the recorded one', flush=True)
        return None, None
    source = find_clock_source(bag, [route.recorded for route in routes], start_ns)
    if source is not None:
        offset_s = (source.stamp_ns - source.log_time_ns) * 1e-9
        print(f'{CLOCK} follows the stamps on {source.topic.name}, {offset_s:+.0f} s from their '
              'log times', flush=True)
    return clock_hz, source


def play(arguments: argparse.Namespace, stop: StopFlag) -> None:
    """
    Play a bag with the options of the command line.

    Raises
    ------
    BagError
        If the bag cannot be read, a topic does not exist or there is nothing to play.
    """
    with open_bag(arguments.path) as bag:
        start_ns = bag.start_ns + round(arguments.start_offset * 1e9)
        if start_ns >= bag.end_ns:
            raise BagError(f'nothing to play: {bag.path} lasts {bag.duration_s:.1f} s and '
                           f'`start_offset` is {arguments.start_offset:g} s')
        routes = _plan_playback(bag, arguments)
        clock_hz, source = _choose_clock(bag, routes, arguments.clock, start_ns)
        node = rclpy.create_node('bag_player', enable_rosout=False, start_parameter_services=False)
        player = Player(node, bag, routes, reliability=arguments.reliability,
                        clock_hz=clock_hz, clock_source=source)
        if arguments.wait_for_subscribers is not None:
            unsubscribed = player.wait_for_subscribers(arguments.wait_for_subscribers, stop)
            if unsubscribed and not stop.requested:
                print('No subscriber on ' + ', '.join(unsubscribed))
        _play_loops(player, start_ns, arguments, stop)
        node.destroy_node()


def _play_loops(player: Player, start_ns: int, arguments: argparse.Namespace,
                stop: StopFlag) -> None:
    begin_s = time.monotonic()
    while not stop.requested:
        player.play(start_ns, arguments.rate, stop)
        if not arguments.loop:
            break
    if not stop.requested:
        player.finish()
    skipped = ''.join(f', {count} on {topic} skipped' for topic, count in player.skipped.items())
    print(f'Played {player.published} messages on {len(player.publishers)} topics in '
          f'{time.monotonic() - begin_s:.1f} s, at most {player.max_lateness_s * 1e3:.1f} ms late'
          + skipped, flush=True)


def main() -> int:
    """Play a bag; exit code 0 at its end or on Ctrl-C, 1 if it cannot be played."""
    stop = StopFlag()
    own, ros = split_ros_arguments(sys.argv[1:])
    arguments = make_parser().parse_args(own)
    try:
        os.environ.update(select_large_image_profile(os.environ))
        init_rclpy(ros, signal_handler_options=SignalHandlerOptions.NO)
        play(arguments, stop)
    except MarigoldError as err:
        print(f'play_bag: {err}', file=sys.stderr)
        return 1
    finally:
        ignore_signals()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
