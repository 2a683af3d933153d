"""What the stamps of frames say: nothing, too old, from a recording, or back in time."""

from __future__ import annotations

from typing import cast

from rclpy.clock import ROSClock
from rclpy.node import Node

from marigold_ros.ros.diagnostics import Reporter
from marigold_ros.ros.frame_buffer import ReceivedFrame

# No queue holds an image this long: such a stamp comes from a recording or another epoch.
HISTORICAL_AGE_S = 60.0
# Stamps that step back further than that are a recording that starts again, not disorder.
BACKWARD_JUMP_NS = 1_000_000_000


class StampWatch:
    """
    Watch the stamps of every camera's frames.

    Parameters
    ----------
    node : Node
        Whose clock is asked, simulated if it uses simulated time.
    reporter : Reporter
        Is told of jumps and recordings.
    """

    def __init__(self, node: Node, reporter: Reporter) -> None:
        """Start with nothing seen."""
        self._clock = cast(ROSClock, node.get_clock())  # rclpy says Clock
        self._reporter = reporter
        self._last_ns: dict[str, int] = {}
        self._said: set[tuple[str, str]] = set()

    def reset(self) -> None:
        """Forget the last stamps, as after a jump of the clock."""
        self._last_ns.clear()

    def jumped_back(self, frame: ReceivedFrame) -> bool:
        """Return whether a frame lies well before its camera's last one."""
        if not frame.stamp_ns:
            return False
        last_ns = self._last_ns.get(frame.camera, frame.stamp_ns)
        self._last_ns[frame.camera] = frame.stamp_ns
        if frame.stamp_ns >= last_ns - BACKWARD_JUMP_NS:
            return False
        self._reporter.event(frame.camera, 'stamp_jumped_back',
                             f'by {(last_ns - frame.stamp_ns) / 1e9:.1f} s; starting afresh')
        return True

    def age_s(self, frame: ReceivedFrame) -> float:
        """Return the time since a frame's stamp, by the node's clock."""
        return (self._clock.now().nanoseconds - frame.stamp_ns) / 1e9

    def too_old(self, frame: ReceivedFrame, max_age_s: float) -> str:
        """Say how old a frame is, if that is too old and the age can be trusted; else ''."""
        age_s = self.age_s(frame)
        if age_s <= max_age_s:
            return ''
        if not frame.stamp_ns:
            self._say_once(frame.camera, 'unstamped', 'stamps are 0: their age cannot be checked')
            return ''
        if age_s > HISTORICAL_AGE_S and not self._clock.ros_time_is_active:
            self._say_once(
                frame.camera, 'historical_stamps', f'stamps are {age_s:.0f} s old: their age '
                'is not checked; for a recording, play it with --clock and set use_sim_time')
            return ''
        return (f'stamp is {age_s:.2f} s old, max_age_s is {max_age_s:g}; are the clocks of '
                'camera and node the same?')

    def _say_once(self, camera: str, name: str, text: str) -> None:
        if (camera, name) not in self._said:
            self._said.add((camera, name))
            self._reporter.event(camera, name, text)
