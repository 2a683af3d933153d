"""
Does the node run for a long time without leaks while everything that can fail fails?

    python -m benchmarks.soak --minutes 20      # or: make soak

Three cameras of different sizes and rates pan over a scene, or send cuts or invalid images.  The
engine takes 0.3 s a run, and some runs fail or hang.  Every few seconds a camera is restarted, is
killed, or changes its reliability, size or content; the metric reference of one camera, or the
transforms to it, pause until its metres expire; a valid or invalid parameter is set; the node is
disabled and enabled, or goes through its lifecycle.

In the end every frame must be processed or dropped with a reason, every reply must be as expected,
frames must be published soon after their receipt, depth must not be old unless it is said to be
stale, metres must go and come back, cameras must get runs evenly, and memory and latency must not
grow: a line through the medians of twenty slices of time, without the first tenth, must rise by
less than a bound.  Frames into which depth is carried and those that wait for a run of their own
have a latency of their own each.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import itertools
import os
from pathlib import Path
import sys
import time
from typing import Any, NamedTuple

from lifecycle_msgs.msg import Transition
from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np
from numpy.typing import ArrayLike, NDArray
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from benchmarks.node_rig import (
    depth_node_under_test,
    last_counters,
    processed_statuses,
    Rig,
    stamped_statuses,
)
from benchmarks.timing import format_markdown_table, write_benchmark_report
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.ros.tools.command_line import parse_positive
from marigold_ros.stop_flag import StopFlag

CYCLE = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
         Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
BAD_IMAGES = ('short_data', 'bad_encoding', 'truncated_jpeg')
# /diagnostics is published once a second; the last message has the final counts.
LAST_COUNTS_S = 3.0
SLICES = 20
# Ignored at the start, until allocators and the step policy's statistics have settled.
SETTLING_SHARE = 0.1
# Largest change over the observed time, relative to the median.
MEMORY_BOUND, LATENCY_BOUND = 0.05, 0.25
# Of the engine: least time of a run, and what every n-th run does.
SLOWED = ('--run-s', '0.3', '--fail-every', '47', '--hang-every', '101', '--hang-s', '5')
# 99 % of the frames are published so soon after their receipt.
AGE_BOUND_MS = 500.0
# Of depth that is not stale: max_carry_s; most runs take less than half of it.
CARRY_BOUND_S = 2.0
# Cameras get runs evenly if none has a smaller share of those of another.
FAIR_SHARE = 0.5
# Of so many bad images at least one must be decoded, although most frames are superseded.
MIN_BAD_IMAGES = 20
METRIC_TOPICS = ('depth/image_rect', 'points')
OUTPUTS = ('depth/image_rect:Image', 'points:PointCloud2', 'confidence:Image')
# Options of synthetic_camera, by camera.
CAMERAS: dict[str, dict[str, str]] = {
    'front': {'--size': '640x480', '--rate': '15', '--reliability': 'reliable',
              '--content': 'moving', '--fault-every': '20'},
    'left': {'--size': '320x240', '--rate': '10', '--reliability': 'best_effort',
             '--content': 'moving'},
    'rear': {'--size': '1280x720', '--rate': '6', '--reliability': 'reliable',
             '--content': 'moving', '--fault-every': '15', '--compressed': ''}}
# Whose depth has a metric reference, the time after which metres expire without it, and that for
# which it pauses.
MEASURED_CAMERA, EXPIRE_S, PAUSE_S = 'front', 2.0, 5.0
ALTERNATIVES = {'reliable': 'best_effort', 'best_effort': 'reliable',
                'moving': 'cuts', 'cuts': 'moving',
                '640x480': '320x240', '320x240': '640x480',
                '1280x720': '960x540', '960x540': '1280x720'}


class SoakEvents:
    """
    Events of a soak; after each the node is active and all cameras run.

    Parameters
    ----------
    rig : Rig
        Its node must be active.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._options = {name: dict(words) for name, words in CAMERAS.items()}
        self._turn = itertools.cycle(CAMERAS)
        self._values = itertools.cycle([1, 2, 4])
        self._sources = itertools.cycle([['cloud'], ['fixed']])
        self.sent: Counter[str] = Counter()
        self.bad_images: Counter[str] = Counter()
        self.replies = [0, 0]
        self.cycles = [0, 0]
        self.events: dict[str, Callable[[], None]] = {
            'camera restarts': self._restart,
            'parameter is set': lambda: self._set('max_inference_steps', next(self._values), True),
            'scale source changes': lambda: self._set('scale.sources', next(self._sources), True),
            'reference pauses': lambda: self._pause('cloud'),
            'camera is killed and restarted': self._kill,
            'transforms pause': lambda: self._pause('tf'),
            'parameter is rejected': lambda: self._set('point_stride', 0, False),
            'reliability changes': lambda: self._restart('--reliability'),
            'lifecycle cycle': self._cycle,
            'content changes': lambda: self._restart('--content'),
            'size changes': lambda: self._restart('--size'),
            'disabled and enabled': self._disable,
        }

    def start(self) -> None:
        """Start all cameras, and the reference of one with its transforms."""
        for name in CAMERAS:
            self._start(name)
        for what in ('cloud', 'tf'):
            self._rig.toggle_reference(MEASURED_CAMERA, what)

    def finish(self) -> None:
        """Stop all cameras."""
        for name in list(self._rig.cameras):
            self._stop(name)

    def _start(self, name: str) -> None:
        self._rig.start_camera(name, *(word for pair in self._options[name].items()
                                       for word in pair if word))

    def _stop(self, name: str) -> None:
        sent = self._rig.stop_camera(name)
        self.sent[name] += sent['frames']
        self.bad_images[name] += sum(sent.get(fault, 0) for fault in BAD_IMAGES)

    def _restart(self, changed: str = '') -> None:
        name = next(self._turn)
        self._stop(name)
        if changed:
            self._options[name][changed] = ALTERNATIVES[self._options[name][changed]]
        self._start(name)

    def _kill(self) -> None:
        name = next(self._turn)
        self._rig.kill_camera(name)
        self._start(name)

    def _pause(self, what: str) -> None:
        for _ in ('off', 'on'):
            self._rig.toggle_reference(MEASURED_CAMERA, what)
            self._rig.observe(PAUSE_S)

    def _set(self, name: str, value: Any, expected: bool) -> None:
        message = ParameterMessage(
            name=name, value=Parameter(name, value=value).get_parameter_value())
        reply = self._rig.call(SetParameters, 'set_parameters',
                               SetParameters.Request(parameters=[message]))
        self.replies[0] += 1
        self.replies[1] += reply.results[0].successful == expected

    def _cycle(self) -> None:
        self.cycles[0] += 1
        self.cycles[1] += all(self._rig.change_state(each) for each in CYCLE)

    def _disable(self) -> None:
        for enabled in (False, True):
            self._rig.call(SetBool, 'enable', SetBool.Request(data=enabled))
            self._rig.observe(0.5)


def run(seconds: float, event_every_s: float, folder: Path, stop: StopFlag) -> dict[str, Any]:
    """
    Run the node for `seconds`, but at least until every event has occurred once.

    Returns
    -------
    dict
        The input of `check_soak`, and the events.

    Raises
    ------
    ProcessError
        If the node or the listener ends early, or the node does not reply.
    """
    rig = Rig(depth_node_under_test(
        list(CAMERAS), OUTPUTS, [f'scale.expire_s:={EXPIRE_S}'], slowed=SLOWED),
        folder, stop)
    ticks, events = [], []
    try:
        rig.wait_until_active()
        soak = SoakEvents(rig)
        soak.start()
        start_s, start_ns = time.monotonic(), time.time_ns()
        for number, (event, act) in enumerate(itertools.cycle(soak.events.items())):
            ticks += rig.observe(event_every_s).ticks
            left_s = seconds - (time.monotonic() - start_s)
            if left_s <= 2 * event_every_s and number >= len(soak.events):
                break
            elapsed_s = time.monotonic() - start_s
            print(f'{elapsed_s:6.0f} s  {event}', file=sys.stderr, flush=True)
            events.append((elapsed_s, event))
            act()
        ticks += rig.observe(max(left_s, 1.0)).ticks
        lasted_s = time.monotonic() - start_s
        soak.finish()
        stop.sleep_until(time.monotonic() + LAST_COUNTS_S)
    finally:
        rig.close()
    lines = rig.lines()
    return {
        'seconds': lasted_s, 'events': events, 'sent': dict(soak.sent),
        'bad_images_sent': dict(soak.bad_images), 'replies': soak.replies,
        'cycles': soak.cycles, 'counters': last_counters(lines),
        'exit_codes': {each.name: each.exit_code for each in (rig.node, rig.listener)},
        'ticks': [{**tick, 'time_s': (tick['time_ns'] - start_ns) / 1e9} for tick in ticks],
        'frames': [ShownFrame((received_ns - start_ns) / 1e9, status['camera'],
                              status['depth_state'], float(status['carried_s']),
                              float(status['latency_ms']))
                   for received_ns, status in processed_statuses(lines)],
        'scale_states': [(status['scale_state'], bool(status['scale']))
                         for _, status in processed_statuses(lines)
                         if status['camera'] == MEASURED_CAMERA],
        'metric_stamps': {camera: [line['stamp_ns'] for line in lines if line['topic'] in
                                   [f'/{camera}/{topic}' for topic in METRIC_TOPICS]]
                          for camera in CAMERAS},
        'stale_stamps': {camera: [status_ns for status_ns, status in stamped_statuses(lines)
                                  if status['camera'] == camera
                                  and status['depth_state'] == 'stale']
                         for camera in CAMERAS}}


class ShownFrame(NamedTuple):
    """A frame that was processed: when, and the state and age of its depth."""

    time_s: float
    camera: str
    state: str
    carried_s: float
    latency_ms: float


@dataclass(frozen=True)
class Trend:
    """
    A line fitted to the medians of equal slices of time.

    Attributes
    ----------
    times_s, medians : float64 [slices]
        Middle of each slice and median of its values; slices without values are omitted.
    change : float
        Change of the line from the first to the last slice, relative to the median value.
    """

    times_s: NDArray[np.float64]
    medians: NDArray[np.float64]
    change: float


def fit_trend(times_s: ArrayLike, values: ArrayLike, end_s: float) -> Trend:
    """
    Fit a trend to values over time, without the first tenth of the time.

    Parameters
    ----------
    times_s, values : array_like [n]
        Times since the start, s, and values.
    end_s : float

    Raises
    ------
    ValueError
        If fewer than two slices have values.
    """
    edges = np.linspace(SETTLING_SHARE * end_s, end_s, SLICES + 1)
    number = np.digitize(np.asarray(times_s, np.float64), edges) - 1
    table = np.asarray(values, np.float64)
    filled = [i for i in range(SLICES) if (number == i).any()]
    if len(filled) < 2:
        raise ValueError(f'a trend needs values in two slices of time; got {len(filled)}')
    middles = (edges[:-1] + edges[1:])[filled] / 2
    medians = np.array([np.median(table[number == i]) for i in filled])
    slope = np.polyfit(middles, medians, 1)[0]
    return Trend(middles, medians, float(slope * (middles[-1] - middles[0]) / np.median(medians)))


def fit_rate_trend(times_s: NDArray[np.float64], sums: NDArray[np.float64], end_s: float) -> Trend:
    """Fit a trend to the rate at which a sum grows."""
    return fit_trend(times_s[1:], np.diff(sums) / np.diff(times_s), end_s)


def tick_columns(ticks: Sequence[Mapping[str, float]], *keys: str) -> list[NDArray[np.float64]]:
    """Return the values of each key over all ticks."""
    return [np.array([tick[key] for tick in ticks], np.float64) for key in keys]


def count_unaccounted_frames(counters: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return the number of frames neither processed nor dropped, by camera."""
    return {camera: counts.get('frames_in', 0) - counts.get('frames_processed', 0)
            - sum(n for name, n in counts.items() if name.startswith('dropped_'))
            for camera, counts in counters.items()}


def count_metre_changes(scale_states: Sequence[tuple[str, bool]]) -> dict[str, int]:
    """
    Count how often metres expired and were measured again after that.

    Parameters
    ----------
    scale_states : sequence of (str, bool)
        Of each frame of a camera: state of the scale, and whether it is known.
    """
    lost = regained = 0
    are_measured = are_lost = False
    for state, known in scale_states:
        # A state of 'none' says nothing, and 'waiting' follows a reset.
        if are_measured and not known and state in ('expired', 'rejected'):
            lost, are_lost = lost + 1, True
        elif are_lost and state == 'tracking':
            regained, are_lost = regained + 1, False
        if state != 'none':
            are_measured = known and state != 'assumed'
    return {'lost': lost, 'regained': regained}


def check_soak(soak: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Check the results of a soak.

    Parameters
    ----------
    soak : mapping
        `seconds`; `counters` by camera, the last ones; `exit_codes` by process; `ticks` with
        `time_s`, `memory_bytes`, `busy_s` and `cpu_s`; `frames`, each a ShownFrame;
        `metric_stamps` and `stale_stamps` by camera, of metric outputs and of stale frames;
        `scale_states`, see `count_metre_changes`; `bad_images_sent` by camera; `replies` to
        set_parameters and lifecycle `cycles`, each the number attempted and the number as
        expected.

    Returns
    -------
    list of dict
        `what`, `found` and `ok`.
    """
    end_s, counters, frames = soak['seconds'], soak['counters'], soak['frames']
    checks: list[dict[str, Any]] = []

    def check(what: str, found: object, ok: bool) -> None:
        checks.append({'what': what, 'found': found, 'ok': bool(ok)})

    check('every process ended with exit code 0', soak['exit_codes'],
          not any(soak['exit_codes'].values()))
    left = count_unaccounted_frames(counters)
    check('frames in = processed + dropped with a reason; difference', left,
          bool(left) and not any(left.values()))
    for camera, sent in soak['bad_images_sent'].items():
        counted = counters.get(camera, {}).get('dropped_bad_image', 0)
        check(f'{camera}: bad images counted, of {sent} sent', counted,
              counted > 0 or sent < MIN_BAD_IMAGES)
    for what, name in (('replies', 'parameters accepted or rejected'),
                       ('cycles', 'lifecycle cycles')):
        attempted, as_expected = soak[what]
        check(f'{name} as expected, of {attempted}', as_expected, attempted == as_expected)
    for camera in counters:
        late = sum(each.time_s > 0.8 * end_s for each in frames if each.camera == camera)
        check(f'{camera}: frames processed in the last fifth', late, late > 0)
    p99_ms = float(np.quantile([each.latency_ms for each in frames], 0.99))
    check(f'99 % of the frames are published within {AGE_BOUND_MS:.0f} ms', f'{p99_ms:.0f} ms',
          p99_ms <= AGE_BOUND_MS)
    stale = sum(each.state == 'stale' for each in frames)
    check('depth gets stale while runs hang; frames', stale, stale > 0)
    oldest_s = max((each.carried_s for each in frames if each.state != 'stale'), default=0.0)
    check(f'depth that is not stale is carried for at most {CARRY_BOUND_S:.0f} s',
          f'{oldest_s:.1f} s', oldest_s <= CARRY_BOUND_S)
    hidden = {camera: len(set(soak['metric_stamps'][camera]) & set(stamps))
              for camera, stamps in soak['stale_stamps'].items()}
    check('no metric output of stale frames', hidden, not any(hidden.values()))
    changes = count_metre_changes(soak['scale_states'])
    check(f'{MEASURED_CAMERA}: metres go without reference and transforms, and come back', changes,
          all(changes.values()))
    runs = Counter(each.camera for each in frames if each.state == 'run')
    check('runs are shared evenly', dict(runs),
          all(runs[camera] >= FAIR_SHARE * max(runs.values(), default=0) for camera in counters))
    times_s, memory = tick_columns(soak['ticks'], 'time_s', 'memory_bytes')
    trends = {'memory': fit_trend(times_s, memory, end_s), **fit_latencies(frames, end_s)}
    for what, fit in trends.items():
        bound = MEMORY_BOUND if what == 'memory' else LATENCY_BOUND
        check(f'{what} rises by less than {bound:.0%}', f'{fit.change:+.2%}', fit.change < bound)
    return checks


def fit_latencies(frames: Sequence[ShownFrame], end_s: float) -> dict[str, Trend]:
    """Fit the latency of frames with carried depth, and of those that waited; NaN of too few."""
    kinds = {'latency of carried depth': [each for each in frames if each.carried_s],
             'latency of frames that waited': [each for each in frames if not each.carried_s]}
    trends: dict[str, Trend] = {}
    for kind, mine in kinds.items():
        try:
            trends[kind] = fit_trend([each.time_s for each in mine],
                                     [each.latency_ms for each in mine], end_s)
        except ValueError:  # so the check fails
            trends[kind] = Trend(np.empty(0), np.empty(0), np.nan)
    return trends


def draw(soak: Mapping[str, Any], path: Path) -> None:
    """Plot memory, latency and CPU load of the machine over time as a PNG."""
    figure = Figure(figsize=(13, 11), layout='constrained')
    above, below, carried, load = figure.subplots(4, 1, sharex=True, height_ratios=(3, 3, 3, 2))
    end_s = soak['seconds']
    times_s, memory = tick_columns(soak['ticks'], 'time_s', 'memory_bytes')
    fit = fit_trend(times_s, memory, end_s)
    above.plot(times_s / 60, memory / 2 ** 20, color='0.6', linewidth=0.8, label='every second')
    above.plot(fit.times_s / 60, fit.medians / 2 ** 20, 'o-', color='C0',
               label=f'medians, {fit.change:+.1%} over the run')
    above.set(ylabel='resident memory of the node, MiB',
              ylim=(0, 1.15 * float(memory.max()) / 2 ** 20))
    for i, camera in enumerate(sorted(soak['counters'])):
        mine = [each for each in soak['frames'] if each.camera == camera]
        below.plot([each.time_s / 60 for each in mine], [each.latency_ms for each in mine], '.',
                   markersize=2, alpha=0.4, color=f'C{i + 1}')
        below.plot([], [], 'o', color=f'C{i + 1}', label=f'{camera}, each frame')
    for (kind, fit), style in zip(fit_latencies(soak['frames'], end_s).items(), ('o-', 's--')):
        below.plot(fit.times_s / 60, fit.medians, style, color='black', markersize=4,
                   label=f'{kind}, {fit.change:+.1%}')
    below.set(ylabel='receipt to publication, ms',
              ylim=(0, 1.2 * float(np.quantile([each.latency_ms for each in soak['frames']],
                                               0.995))))
    draw_depths(soak, carried)
    for key, label in (('busy_s', 'all processes of the machine'), ('cpu_s', 'the node')):
        rate = fit_rate_trend(times_s, tick_columns(soak['ticks'], key)[0], end_s)
        load.plot(rate.times_s / 60, rate.medians, 'o-', label=label)
    load.set(xlabel='min', ylabel='busy CPU cores', ylim=(0, None))
    for time_s, event in soak['events']:
        if event == 'lifecycle cycle':
            for axes in (above, below, carried, load):
                axes.axvline(time_s / 60, color='C3', linewidth=0.6, alpha=0.5)
    above.plot([], [], color='C3', linewidth=0.6, label='lifecycle cycle')
    for axes in (above, below, carried, load):
        axes.legend(loc='upper left', bbox_to_anchor=(1, 1), fontsize='small')
    figure.suptitle(soak['title'])
    figure.savefig(path, dpi=110)


def draw_depths(soak: Mapping[str, Any], axes: Axes) -> None:
    """Plot for how long depth has been carried, and where it is stale."""
    for i, camera in enumerate(sorted(soak['counters'])):
        mine = [each for each in soak['frames'] if each.camera == camera]
        for state, marker in (('carried', '.'), ('stale', 'x')):
            points = [(each.time_s / 60, each.carried_s) for each in mine if each.state == state]
            axes.plot(*zip(*points) if points else ([], []), marker, markersize=2 if
                      state == 'carried' else 4, color=f'C{i + 1}', alpha=0.5)
        runs = sum(each.state == 'run' for each in mine)
        axes.plot([], [], 'o', color=f'C{i + 1}', label=f'{camera}, {runs} runs (x: stale)')
    axes.set(ylabel='age of the run shown, s', ylim=(0, None))


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--minutes', type=parse_positive, default=20.0)
    parser.add_argument('--event-every', type=parse_positive, default=8.0, metavar='SECONDS')
    parser.add_argument('--out', type=Path, default=Path('out/soak'))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak, plot and check it; the exit code is 0 if all checks pass, else 1."""
    options = make_parser().parse_args(arguments)
    stop = StopFlag()
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    facts = describe_environment()
    try:
        soak = run(60 * options.minutes, options.event_every, options.out, stop)
    except MarigoldError as err:
        print(f'soak: {err}', file=sys.stderr)
        return 1
    if not soak['frames']:
        print('soak: no frame was processed', file=sys.stderr)
        return 1
    soak['title'] = (f'{soak["seconds"] / 60:.1f} min, {len(CAMERAS)} cameras, '
                     f'{len(soak["events"])} events; {facts["cores"]} cores, commit '
                     f'{facts["commit"]}')
    checks = check_soak(soak)
    draw(soak, options.out / 'soak.png')
    rows = [{'': 'ok' if check['ok'] else 'FAILED', 'what': check['what'],
             'found': check['found']} for check in checks]
    write_benchmark_report(options.out, 'soak', facts, {'checks': checks, **soak},
                           f'{soak["title"]}\n\n{format_markdown_table(rows)}')
    return 0 if all(check['ok'] for check in checks) else 1


if __name__ == '__main__':
    sys.exit(main())
