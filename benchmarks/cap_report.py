"""What bench_cap measured, summed up, held against its targets and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from benchmarks.cap_load import load_is_on
from benchmarks.cap_run import Outcome

CAPPED_UNDER_LOAD = 'cap, load'
PERCENTILES = (50, 95, 99, 100)
MAX_SKIPPED = 0.05
COLORS = {'published': 'tab:blue', 'late': 'tab:red', 'superseded': 'tab:orange'}


def summarize(outcomes: Sequence[Outcome], cap_s: float, load_period_s: float,
              *, loaded: bool) -> dict[str, Any]:
    """
    Sum a run up.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of all frames delivered.
    cap_s : float
    load_period_s : float
        The load is off, then on, for so long.
    loaded : bool
        Whether there was a load at all.

    Returns
    -------
    dict
        Latency percentiles in ms and shares of the frames delivered; mean T without and with
        the load; and per stretch of constant load its frames over the cap and skipped.
    """
    published = [each for each in outcomes if each.latency_s is not None]
    latencies_s = np.array([each.latency_s for each in published], np.float64)
    steps = {on: [each.steps_run for each in published
                  if (loaded and load_is_on(each.received_s, load_period_s)) == on]
             for on in (False, True)}
    return {
        'frames': len(outcomes),
        'published': len(published),
        'latency_ms': {f'p{q}': 1e3 * float(np.percentile(latencies_s, q)) for q in PERCENTILES},
        'over_cap': int((latencies_s > cap_s).sum()),
        'skipped': _share(outcomes, 'late'),
        'superseded': _share(outcomes, 'superseded'),
        'cut': sum(each.cut for each in published) / len(published),
        'mean_steps_free': _mean(steps[False]),
        'mean_steps_loaded': _mean(steps[True]),
        'stretches': _stretches(outcomes, cap_s, load_period_s, loaded),
    }


def _share(outcomes: Sequence[Outcome], fate: str) -> float:
    return sum(each.fate == fate for each in outcomes) / len(outcomes)


def _mean(values: Sequence[int]) -> float | None:
    return float(np.mean(values)) if values else None


def _stretches(outcomes: Sequence[Outcome], cap_s: float, period_s: float,
               loaded: bool) -> list[dict[str, Any]]:
    """
    Count per stretch of constant load, from one change to the next.

    `other_cores` is how many cores all other processes kept busy, the load's among them: where
    it is more than the load, or less, the machine was not what the scenario says.
    """
    numbers = sorted({int(each.received_s // period_s) for each in outcomes})
    table = []
    for number in numbers:
        inside = [each for each in outcomes if int(each.received_s // period_s) == number]
        table.append({
            'from_s': number * period_s,
            'load': loaded and load_is_on(number * period_s, period_s),
            'frames': len(inside),
            'over_cap': sum(each.latency_s is not None and each.latency_s > cap_s
                            for each in inside),
            'skipped': sum(each.fate == 'late' for each in inside),
            'other_cores': _other_cores(inside[0], inside[-1]),
        })
    return table


def _other_cores(first: Outcome, last: Outcome) -> float:
    elapsed_s = last.received_s - first.received_s
    (busy, own), (busy_later, own_later) = first.work_s, last.work_s
    return (busy_later - busy - own_later + own) / elapsed_s if elapsed_s else 0.0


def judge(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hold the capped run under load to its goals: p99 within the cap, few frames skipped."""
    summary = result['summaries'][CAPPED_UNDER_LOAD]
    p99_ms, cap_ms = summary['latency_ms']['p99'], 1e3 * result['cap_s']
    return [
        {'what': 'p99 of the latency under load, ms', 'goal': cap_ms, 'measured': p99_ms,
         'met': p99_ms <= cap_ms},
        {'what': 'part of the frames skipped under load', 'goal': MAX_SKIPPED,
         'measured': summary['skipped'], 'met': summary['skipped'] <= MAX_SKIPPED},
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """Lay the runs out as a table, with late frames per change of load below."""
    facts = result['environment']
    compiled = ', compiled' if result['compile'] else ''
    lines = [
        f'# The cap: {result["checkpoint"]}{compiled}', '',
        f'{facts["cpu"]}, {facts["cores"]} cores (load average {facts["load_average_1min"]} '
        f'before), torch {facts["torch"]} with {facts["torch_threads"]} thread(s), '
        f'commit {facts["commit"]}, {facts["date_utc"]}', '',
        f'Policy {result["policy"]["policy"]}; cap {1e3 * result["cap_s"]:.1f} ms = unloaded p95 '
        f'at T = {result["policy"]["max_inference_steps"]}; {1.0 / result["period_s"]:.1f} '
        f'frames/s; load: {result["load_processes"]} busy process(es), on and off every '
        f'{result["load_period_s"]:g} s', '',
        '| run | p50 | p95 | p99 | max ms | over cap | skipped | superseded | cut by the cap '
        '| mean T free | mean T loaded |', '|---' * 11 + '|']
    for name, summary in result['summaries'].items():
        latencies = ' | '.join(f'{ms:.1f}' for ms in summary['latency_ms'].values())
        steps = ' | '.join('-' if mean is None else f'{mean:.2f}' for mean in (
            summary['mean_steps_free'], summary['mean_steps_loaded']))
        lines.append(
            f'| {name} | {latencies} | {summary["over_cap"]} of {summary["published"]} '
            f'| {100 * summary["skipped"]:.1f} % | {100 * summary["superseded"]:.1f} % '
            f'| {100 * summary["cut"]:.0f} % | {steps} |')
    lines += ['', 'From one change of load to the next: frames over the cap + skipped (cores that '
              'other processes kept busy)', '']
    for name, summary in result['summaries'].items():
        lines.append(f'- {name}: ' + ', '.join(
            f'{"on" if each["load"] else "off"} {each["over_cap"]}+{each["skipped"]} '
            f'({each["other_cores"]:.1f})' for each in summary['stretches']))
    lines.append('')
    for target in result['targets']:
        lines.append(f'- {target["what"]}: {target["measured"]:.3g}, goal at most '
                     f'{target["goal"]:.3g}: {"met" if target["met"] else "MISSED"}')
    return '\n'.join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw latency and T over time, the load shaded, one row per run."""
    figure = Figure(figsize=(12, 3.2 * len(result['timelines'])), layout='constrained')
    axes = figure.subplots(len(result['timelines']), 1, sharex=True, squeeze=False)[:, 0]
    top_ms = 2.5e3 * result['cap_s']
    for axis, (name, timeline) in zip(axes, result['timelines'].items()):
        _draw_run(axis, timeline, top_ms)
        axis.axhline(1e3 * result['cap_s'], color='black', linewidth=0.8, label='cap')
        for stretch in result['summaries'][name]['stretches']:
            if stretch['load']:
                axis.axvspan(stretch['from_s'], stretch['from_s'] + result['load_period_s'],
                             color='0.9')
        axis.set(title=name, ylabel='latency, ms', ylim=(0, top_ms))
        axis.legend(loc='upper right', ncols=4, fontsize='small')
    axes[-1].set_xlabel('time of receipt, s (shaded: half of the processor is taken)')
    figure.savefig(path, dpi=100)
    print(f'written: {path}')


def _draw_run(axis: Axes, timeline: Sequence[Mapping[str, Any]], top_ms: float) -> None:
    """Draw each frame by its fate, what is above the axis at its edge, and T on a second axis."""
    for fate, color in COLORS.items():
        some = [each for each in timeline if each['fate'] == fate]
        height = [top_ms * 0.98 if each['latency_s'] is None
                  else min(1e3 * each['latency_s'], top_ms * 0.98) for each in some]
        axis.plot([each['received_s'] for each in some], height, '.', color=color,
                  markersize=4, label=f'{fate} ({len(some)})')
    run = [each for each in timeline if each['steps_run']]
    steps = axis.twinx()
    steps.step([each['received_s'] for each in run], [each['steps_run'] for each in run],
               where='post', color='tab:green', alpha=0.5, linewidth=0.8)
    steps.set(ylabel='T (green)', ylim=(0, 12), yticks=range(0, 5))
