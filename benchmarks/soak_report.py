"""What a soak must show: every frame accounted for, memory and latency flat; and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

import matplotlib
import numpy as np
from numpy.typing import ArrayLike, NDArray

matplotlib.use('agg')
from matplotlib import pyplot  # noqa: E402, I100, I202, the backend is chosen first

SLICES = 20
# The allocators, and the step policy's statistics, settle first.
SETTLING_PART = 0.1
# Of so many bad images at least one is decoded, though most frames are superseded.
SURELY_MET = 20


@dataclass(frozen=True)
class Bounds:
    """Largest change over the observed time, relative to the median."""

    memory: float = 0.05
    latency: float = 0.25


@dataclass(frozen=True)
class Trend:
    """
    A straight line through the medians of equal slices of time.

    Attributes
    ----------
    times_s, medians : float64 [slices]
        Middle of each slice and the median of the values in it; slices without values are left
        out.
    change : float
        Of the line from the first to the last slice, relative to the median of all values.
    """

    times_s: NDArray[np.float64]
    medians: NDArray[np.float64]
    change: float


def trend(times_s: ArrayLike, values: ArrayLike, end_s: float) -> Trend:
    """
    Fit a trend to values over time, without the first tenth of it.

    Parameters
    ----------
    times_s, values : array_like [n]
        Times since the start.
    end_s : float

    Raises
    ------
    ValueError
        If fewer than two slices have values.
    """
    edges = np.linspace(SETTLING_PART * end_s, end_s, SLICES + 1)
    number = np.digitize(np.asarray(times_s, np.float64), edges) - 1
    table = np.asarray(values, np.float64)
    filled = [i for i in range(SLICES) if (number == i).any()]
    if len(filled) < 2:
        raise ValueError(f'a trend needs values in two slices of time; got {len(filled)}')
    middles = (edges[:-1] + edges[1:])[filled] / 2
    medians = np.array([np.median(table[number == i]) for i in filled])
    slope = np.polyfit(middles, medians, 1)[0]
    return Trend(middles, medians, float(slope * (middles[-1] - middles[0]) / np.median(medians)))


def trend_of_rate(times_s: NDArray[np.float64], sums: NDArray[np.float64], end_s: float) -> Trend:
    """Fit a trend to how fast a sum grows."""
    return trend(times_s[1:], np.diff(sums) / np.diff(times_s), end_s)


def _columns(ticks: Sequence[Mapping[str, float]], *keys: str) -> list[NDArray[np.float64]]:
    return [np.array([tick[key] for tick in ticks], np.float64) for key in keys]


def unaccounted(counters: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return, by camera, frames that came in but were neither processed nor dropped."""
    return {camera: counts.get('frames_in', 0) - counts.get('frames_processed', 0)
            - sum(n for name, n in counts.items() if name.startswith('dropped_'))
            for camera, counts in counters.items()}


def judge(soak: Mapping[str, Any], bounds: Bounds) -> list[dict[str, Any]]:
    """
    Judge a soak.

    Parameters
    ----------
    soak : mapping
        `seconds`; `counters` by camera, the last ones; `exit_codes` by process; `ticks` with
        `time_s`, `memory_bytes`, `busy_s` and `processor_s`; `latencies` of (seconds, camera,
        ms); `bad_images_sent` by camera; `answers` to set_parameters and lifecycle `cycles`,
        each the number attempted and that of them which went as expected.
    bounds : Bounds

    Returns
    -------
    list of dict
        `what`, `found` and `ok`.
    """
    end_s, counters = soak['seconds'], soak['counters']
    checks: list[tuple[str, object, bool]] = []
    codes = soak['exit_codes']
    checks.append(('every process ended with exit code 0', codes, not any(codes.values())))
    left = unaccounted(counters)
    checks.append(('frames in = processed + dropped with a reason; the rest', left,
                   bool(left) and not any(left.values())))
    for camera, sent in soak['bad_images_sent'].items():
        counted = counters[camera].get('dropped_bad_image', 0)
        checks.append((f'{camera}: bad images counted, of {sent} sent', counted,
                       counted > 0 or sent < SURELY_MET))
    for what, name in (('answers', 'parameters set or refused'), ('cycles', 'lifecycle cycles')):
        attempted, as_expected = soak[what]
        checks.append((f'{name} as expected, of {attempted}', as_expected,
                       attempted == as_expected))
    for camera in counters:
        late = sum(time_s > 0.8 * end_s for time_s, name, _ in soak['latencies']
                   if name == camera)
        checks.append((f'{camera}: frames processed in the last fifth', late, late > 0))
    times_s, memory = _columns(soak['ticks'], 'time_s', 'memory_bytes')
    grown = trend(times_s, memory, end_s).change
    checks.append((f'memory changes by less than {bounds.memory:.0%}', f'{grown:+.2%}',
                   grown < bounds.memory))
    taken_s, _, latency = zip(*soak['latencies'])
    slower = trend(taken_s, latency, end_s).change
    checks.append((f'latency changes by less than {bounds.latency:.0%}', f'{slower:+.2%}',
                   slower < bounds.latency))
    return [{'what': what, 'found': found, 'ok': bool(ok)} for what, found, ok in checks]


def draw(soak: Mapping[str, Any], path: Path) -> None:
    """Draw memory, latency and the load of the machine over time as a PNG."""
    figure, (above, below, load) = pyplot.subplots(
        3, 1, figsize=(11, 9), sharex=True, layout='constrained', height_ratios=(3, 3, 2))
    end_s = soak['seconds']
    times_s, memory = _columns(soak['ticks'], 'time_s', 'memory_bytes')
    fit = trend(times_s, memory, end_s)
    above.plot(times_s / 60, memory / 2 ** 20, color='0.6', linewidth=0.8, label='every second')
    above.plot(fit.times_s / 60, fit.medians / 2 ** 20, 'o-', color='C0',
               label=f'medians, {fit.change:+.1%} over the run')
    above.set(ylabel='resident memory of the node, MiB',
              ylim=(0, 1.15 * float(memory.max()) / 2 ** 20))
    all_times_s = np.array([time_s for time_s, _, _ in soak['latencies']])
    names = np.array([camera for _, camera, _ in soak['latencies']])
    latency = np.array([ms for _, _, ms in soak['latencies']])
    for i, camera in enumerate(sorted(soak['counters'])):
        mine = names == camera
        below.plot(all_times_s[mine] / 60, latency[mine], '.', markersize=2, alpha=0.4,
                   color=f'C{i + 1}')
        below.plot([], [], 'o', color=f'C{i + 1}', label=f'{camera}, each frame')
    fit = trend(all_times_s, latency, end_s)
    below.plot(fit.times_s / 60, fit.medians, 'o-', color='black',
               label=f'medians, {fit.change:+.1%} over the run')
    below.set(ylabel='receipt to publication, ms',
              ylim=(0, 1.2 * float(np.quantile(latency, 0.995))))
    for key, label in (('busy_s', 'all processes of the machine'), ('processor_s', 'the node')):
        rate = trend_of_rate(times_s, _columns(soak['ticks'], key)[0], end_s)
        load.plot(rate.times_s / 60, rate.medians, 'o-', label=label)
    load.set(xlabel='min', ylabel='processor cores at work', ylim=(0, None))
    for time_s, event in soak['events']:
        if event == 'lifecycle cycle':
            for axes in (above, below, load):
                axes.axvline(time_s / 60, color='C3', linewidth=0.6, alpha=0.5)
    above.plot([], [], color='C3', linewidth=0.6, label='lifecycle cycle')
    for axes in (above, below, load):
        axes.legend(loc='lower right', fontsize='small')
    figure.suptitle(soak['title'])
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
