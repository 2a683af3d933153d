"""Checks of the frames' stamps: missing, too old, from a recording, or back in time."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import cast

from rclpy.clock import ROSClock
from rclpy.node import Node

from marigold_ros.messages.header import carry_time, EXAMINED_STAMPS
from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.frame_buffer import ReceivedFrame

# No queue holds an image this long: an older stamp comes from a recording or another epoch.
HISTORICAL_AGE_S = 60.0
# A larger step back is a recording that starts again; a smaller one is messages out of order.
BACKWARD_JUMP_NS = 1_000_000_000


class StampMonitor:
    """
    Check the stamps of every camera's frames.

    Parameters
    ----------
    node : Node
        Supplies the clock, which is simulated if `use_sim_time` is set.
    reporter : Reporter
    """

    def __init__(self, node: Node, reporter: Reporter) -> None:
        """Start without stamps."""
        self._clock = cast(ROSClock, node.get_clock())  # rclpy annotates the base class Clock
        self._reporter = reporter
        self._last_ns: dict[str, int] = {}
        self._recent_ns: defaultdict[str, deque[int]] = defaultdict(
            lambda: deque(maxlen=EXAMINED_STAMPS))
        self._reported: set[tuple[str, str]] = set()

    def reset(self) -> None:
        """Discard the last stamps, for example after a jump of the clock."""
        self._last_ns.clear()
        self._recent_ns.clear()

    def has_time(self, frame: ReceivedFrame) -> bool:
        """Tell whether stamps up to that of a frame carry time; if not, report it once."""
        recent_ns = self._recent_ns[frame.camera]
        recent_ns.append(frame.stamp_ns)
        if frame.stamp_ns and carry_time(recent_ns):
            return True
        self._report_once(
            frame.camera, 'unstamped', 'image stamps carry no time (0, or repeated); times of '
            'receipt are used instead, so max_age_s is not applied')
        return False

    def jumped_back(self, frame: ReceivedFrame) -> bool:
        """Check whether a frame is much older than its camera's previous one, and report it."""
        if not frame.stamp_ns:
            return False
        last_ns = self._last_ns.get(frame.camera, frame.stamp_ns)
        self._last_ns[frame.camera] = frame.stamp_ns
        if frame.stamp_ns >= last_ns - BACKWARD_JUMP_NS:
            return False
        jump_s = (last_ns - frame.stamp_ns) / 1e9
        self._reporter.report_event(
            frame.camera, 'stamp_jumped_back', f'image stamps jumped back by {jump_s:.1f} s; the '
            'state from earlier frames is reset')
        return True

    def age_s(self, frame: ReceivedFrame) -> float:
        """Return the time since a frame's stamp by the node's clock, s."""
        return (self._clock.now().nanoseconds - frame.stamp_ns) / 1e9

    def too_old_reason(self, camera: str, age_s: float, max_age_s: float) -> str:
        """Return why a frame of this age is too old; '' if it is not, or is of a recording."""
        if age_s <= max_age_s:
            return ''
        if age_s > HISTORICAL_AGE_S:
            self._report_once(
                camera, 'historical_stamps', f'image stamps are {age_s:.0f} s old, as in a '
                'recording or simulation, so max_age_s is not applied; set use_sim_time, with a '
                '/clock of the stamps, as play_bag --clock publishes it')
            return ''
        return (f'the image stamp is {age_s:.2f} s old; max_age_s is {max_age_s:g} s. If images '
                'arrive without delay, synchronize the clocks of camera and node')

    def _report_once(self, camera: str, name: str, text: str) -> None:
        if (camera, name) not in self._reported:
            self._reported.add((camera, name))
            self._reporter.report_event(camera, name, text)
