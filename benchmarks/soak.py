"""
Let the node run for long beside everything that goes wrong on a robot, and judge the end.

    python -m benchmarks.soak --minutes 20      # or: make soak

Three cameras of different sizes and rates send good and bad images; every few seconds one is
restarted, dies, changes its reliability or its size, a parameter is set or refused, the node is
disabled, or taken through its lifecycle.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
import itertools
import os
from pathlib import Path
import sys
import time
from typing import Any

from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from benchmarks.node import METRES
from benchmarks.node_report import last_counters
from benchmarks.rig import own_node, Rig
from benchmarks.soak_report import Bounds, draw, judge
from benchmarks.timing import write_report
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.environment import environment
from marigold_ros.ros.tools.command_line import positive
from marigold_ros.stop_flag import StopFlag

CYCLE = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
         Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
BAD_IMAGES = ('short_data', 'bad_encoding', 'truncated_jpeg')
# /diagnostics comes once a second: the last one counts all that arrived.
LAST_COUNTS_S = 3.0


@dataclass(frozen=True)
class CameraPlan:
    """How a camera sends; see fake_camera."""

    name: str
    size: str
    rate_hz: float
    reliability: str
    compressed: bool = False
    fault_every: int = 0

    def arguments(self) -> list[object]:
        """Words for fake_camera."""
        return ['--size', self.size, '--rate', self.rate_hz, '--reliability', self.reliability,
                '--fault-every', self.fault_every, *['--compressed'] * self.compressed]


PLANS = (CameraPlan('front', '640x480', 15.0, 'reliable', fault_every=20),
         CameraPlan('left', '320x240', 10.0, 'best_effort'),
         CameraPlan('rear', '1280x720', 6.0, 'reliable', compressed=True, fault_every=15))
OTHER = {'reliable': 'best_effort', 'best_effort': 'reliable',
         '640x480': '320x240', '320x240': '640x480', '1280x720': '960x540', '960x540': '1280x720'}


class Soak:
    """
    The events of a soak, each of which leaves the node active and all cameras running.

    Parameters
    ----------
    rig : Rig
        With an active node.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._plans = {plan.name: plan for plan in PLANS}
        self._turn = itertools.cycle(self._plans)
        self._values = itertools.cycle([1, 2, 4])
        self.sent: Counter[str] = Counter()
        self.bad_images: Counter[str] = Counter()
        self.answers = [0, 0]
        self.cycles = [0, 0]
        self.events: dict[str, Callable[[], None]] = {
            'camera restarts': lambda: self._restart(),
            'parameter is set': lambda: self._set('max_inference_steps', next(self._values), True),
            'camera dies and comes back': self._kill,
            'parameter is refused': lambda: self._set('point_stride', 0, False),
            'reliability changes': lambda: self._restart('reliability'),
            'lifecycle cycle': self._cycle,
            'size changes': lambda: self._restart('size'),
            'disabled and enabled': self._disable,
        }

    def start(self) -> None:
        """Start all cameras."""
        for plan in self._plans.values():
            self._rig.start_camera(plan.name, *plan.arguments())

    def finish(self) -> None:
        """Stop all cameras."""
        for name in list(self._rig.cameras):
            self._stop(name)

    def _stop(self, name: str) -> None:
        sent = self._rig.stop_camera(name)
        self.sent[name] += sent['frames']
        self.bad_images[name] += sum(sent.get(fault, 0) for fault in BAD_IMAGES)

    def _restart(self, changed: str = '') -> None:
        name = next(self._turn)
        self._stop(name)
        if changed:
            plan = self._plans[name]
            self._plans[name] = replace(plan, **{changed: OTHER[getattr(plan, changed)]})
        self._rig.start_camera(name, *self._plans[name].arguments())

    def _kill(self) -> None:
        name = next(self._turn)
        self._rig.kill_camera(name)
        self._rig.start_camera(name, *self._plans[name].arguments())

    def _set(self, name: str, value: Any, expected: bool) -> None:
        message = ParameterMessage(
            name=name, value=Parameter(name, value=value).get_parameter_value())
        reply = self._rig.call(SetParameters, 'set_parameters',
                               SetParameters.Request(parameters=[message]))
        self.answers[0] += 1
        self.answers[1] += reply.results[0].successful == expected

    def _cycle(self) -> None:
        self.cycles[0] += 1
        self.cycles[1] += all([self._rig.change_state(each) for each in CYCLE])

    def _disable(self) -> None:
        for enabled in (False, True):
            self._rig.call(SetBool, 'enable', SetBool.Request(data=enabled))
            self._rig.observe(0.5)


def run(seconds: float, event_every_s: float, folder: Path, stop: StopFlag) -> dict[str, Any]:
    """
    Soak the node for so long, but at least until every event has come once.

    Returns
    -------
    dict
        What `judge` wants, and the events.

    Raises
    ------
    ProcessError
        If the node or the listener ends before it should, or stops answering.
    """
    names = [plan.name for plan in PLANS]
    outputs = [f'/{name}/{topic}' for name in names
               for topic in ('depth/image_rect:Image', 'points:PointCloud2', 'confidence:Image')]
    node = own_node(['/depth_node/status:DiagnosticArray', '/diagnostics:DiagnosticArray',
                     *outputs], [f'cameras:=[{",".join(names)}]', *METRES])
    rig = Rig(node, folder, stop)
    ticks, events = [], []
    try:
        rig.wait_until_active()
        soak = Soak(rig)
        soak.start()
        start_s, start_ns = time.monotonic(), time.time_ns()
        for number, (event, act) in enumerate(itertools.cycle(soak.events.items())):
            ticks += rig.observe(event_every_s).ticks
            left_s = seconds - (time.monotonic() - start_s)
            if left_s <= 2 * event_every_s and number >= len(soak.events):
                break
            print(f'{time.monotonic() - start_s:6.0f} s  {event}', flush=True)
            events.append((time.monotonic() - start_s, event))
            act()
        ticks += rig.observe(max(left_s, 1.0)).ticks
        lasted_s = time.monotonic() - start_s
        soak.finish()
        stop.sleep_until(time.monotonic() + LAST_COUNTS_S)
    finally:
        rig.close()
    lines = list(rig.lines())
    return {
        'seconds': lasted_s, 'events': events, 'sent': dict(soak.sent),
        'bad_images_sent': dict(soak.bad_images), 'answers': soak.answers,
        'cycles': soak.cycles, 'counters': last_counters(lines),
        'exit_codes': {each.name: each.exit_code for each in (rig.node, rig.bystander)},
        'ticks': [{**tick, 'time_s': (tick['time_ns'] - start_ns) / 1e9} for tick in ticks],
        'latencies': latencies(lines, start_ns)}


def latencies(lines: list[dict[str, Any]], start_ns: int) -> list[tuple[float, str, float]]:
    """Return (seconds since the start, camera, latency in ms) of every processed frame."""
    return [((line['received_ns'] - start_ns) / 1e9, status['camera'],
             float(status['latency_ms']))
            for line in lines if line['topic'] == '/depth_node/status'
            for status in line['statuses'] if status['outcome'] == 'processed']


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog='soak', description=__doc__.splitlines()[1])
    parser.add_argument('--minutes', type=positive, default=20.0)
    parser.add_argument('--event-every', type=positive, default=8.0, metavar='SECONDS')
    parser.add_argument('--memory-change', type=positive, default=Bounds.memory,
                        help='largest relative change over the run that is accepted')
    parser.add_argument('--latency-change', type=positive, default=Bounds.latency)
    parser.add_argument('--out', type=Path, default=Path('out/soak'))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Soak, draw and judge; 0 if all is well, else 1."""
    stop = StopFlag()
    options = make_parser().parse_args(arguments)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    facts = environment()
    try:
        soak = run(60 * options.minutes, options.event_every, options.out, stop)
    except MarigoldError as err:
        print(f'soak: {err}', file=sys.stderr)
        return 1
    soak['title'] = (f'{soak["seconds"] / 60:.1f} min, {len(PLANS)} cameras, '
                     f'{len(soak["events"])} events; {facts["cores"]} cores, commit '
                     f'{facts["commit"]}')
    checks = judge(soak, Bounds(options.memory_change, options.latency_change))
    draw(soak, options.out / 'soak.png')
    text = '\n'.join([soak['title'], *(
        f'{"ok    " if check["ok"] else "FAILED"}  {check["what"]}: {check["found"]}'
        for check in checks)])
    print(text)
    write_report(options.out, 'soak', {'environment': facts, 'checks': checks, **soak}, text)
    return 0 if all(check['ok'] for check in checks) else 1


if __name__ == '__main__':
    sys.exit(main())
