"""The report's plots as SVG, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
import io
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np
from scipy.stats import spearmanr

from marigold_ros.evaluation.analysis import Analysis, Clocked
from marigold_ros.evaluation.config import COMPLEXITY_POLICIES, fixed_steps
from marigold_ros.evaluation.statistics import ABS_REL, BOUNDARY_F1, Outcomes, STEPS, TOTAL_S

# Okabe and Ito's palette; every policy has a marker of its own as well.
BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK, GREY = (
    '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#777777')
STYLES = {
    'complexity-gradient_energy': (BLUE, 's'), 'complexity-entropy': (SKY, 'D'),
    'random': (GREY, 'x'),
    'oracle': (PINK, '*'), 'fixed': (BLACK, 'o')}
STYLE: dict[Any, Any] = {
    'svg.hashsalt': 'marigold_ros', 'font.size': 9, 'legend.fontsize': 8, 'axes.spines.top': False,
    'axes.spines.right': False, 'axes.grid': True, 'grid.color': '#dddddd', 'grid.linewidth': 0.6,
    'axes.axisbelow': True, 'axes.titlesize': 9.5, 'axes.titlelocation': 'left',
    'legend.frameon': False, 'axes.edgecolor': '#555555', 'figure.facecolor': 'white'}
# Inches: two side by side on a wide screen, one below the other on a narrow one; or one alone.
HALF, WIDE = (4.9, 3.7), (7.2, 3.2)


def frontier(analysis: Analysis, abs_rel: str) -> list[str]:
    """
    Draw time against AbsRel and against boundary F1: one curve a policy, by its Tmax.

    Parameters
    ----------
    analysis : Analysis
    abs_rel : str
        Name of AbsRel with its protocol and range.
    """
    plots = []
    with rc_context(STYLE):
        for metric, name, title in ((ABS_REL, abs_rel, 'lower is better'),
                                    (BOUNDARY_F1, 'boundary F1', 'higher is better')):
            figure, axis = _figure(HALF)
            _draw_curve(axis, analysis, 'fixed', list(analysis.by_steps.values()), metric)
            for policy, result in analysis.policies.items():
                if not fixed_steps(policy):
                    _draw_curve(axis, analysis, policy, result.curve, metric)
            for steps, outcomes in analysis.by_steps.items():
                axis.annotate(f'T={steps}', _point(analysis, outcomes, metric), xytext=(0, 7),
                              textcoords='offset points', ha='center', fontsize=8)
            axis.margins(0.08, 0.18)
            _not_below_0(axis)
            axis.set_title(title)
            axis.set_xlabel('time of a frame, ms')
            axis.set_ylabel(name)
            _legend_below(figure, axis, columns=2)
            plots.append(_svg(figure))
    return plots


def complexity(analysis: Analysis, abs_rel: str) -> list[str]:
    """Draw the judged policy's T, and the error, against C; see `frontier`."""
    measure = COMPLEXITY_POLICIES.get(analysis.judged, 'gradient_energy')
    outcomes = analysis.policies[analysis.judged].outcomes
    values = np.array([frame.complexity[measure] for frame in analysis.frames])
    plots = []
    with rc_context(STYLE):
        for column, name, title in (
                (STEPS, 'steps T', f'T of {analysis.judged}'),
                (ABS_REL, abs_rel, _rank_correlation(values, outcomes[:, ABS_REL]))):
            figure, axis = _figure(HALF)
            axis.plot(values, outcomes[:, column], 'o', color=BLUE, alpha=0.5, markersize=5)
            axis.margins(0.06, 0.12)
            if column == STEPS:
                _whole_steps(axis, analysis)
            axis.set_title(title)
            axis.set_xlabel(f'complexity C ({measure.replace("_", " ")})')
            axis.set_ylabel(name)
            plots.append(_svg(figure))
    return plots


def latency_histogram(analysis: Analysis) -> list[str]:
    """Draw how long frames took by the clock, for the judged and the slowest policy."""
    judged, slowest = analysis.policies[analysis.judged], analysis.policies[analysis.slowest]
    rows = [(analysis.judged, judged.clock, BLUE)]
    if slowest is not judged:
        rows.append((analysis.slowest, slowest.clock, ORANGE))
    if judged.live is not None:
        rows.append((f'{analysis.judged}, live', judged.live, GREEN))
    with rc_context(STYLE):
        figure, axis = _figure(WIDE)
        everything = np.concatenate([1e3 * np.array(clock.latency_s) for _, clock, _ in rows])
        if everything.size:
            bins = np.histogram_bin_edges(everything, 30)
            for name, clock, color in rows:
                axis.hist(1e3 * np.array(clock.latency_s), bins, histtype='stepfilled',
                          facecolor=f'{color}55', edgecolor=color, linewidth=1.4, label=name)
        _draw_cap(axis.axvline, judged.clock)
        axis.set_xlabel('latency from arrival to depth, ms')
        axis.set_ylabel('frames')
        axis.set_xlim(left=0)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        _legend_below(figure, axis, columns=3)
        return [_svg(figure)]


def timeline(analysis: Analysis, abs_rel: str) -> list[str]:
    """Draw error, steps, latency and drops of the judged policy by frame; see `frontier`."""
    result = analysis.policies[analysis.judged]
    clock = result.live or result.clock
    place, label = _places(analysis)
    fates = np.array([each.fate for each in clock.frames])
    place = place[:len(fates)]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 5.0), layout='constrained')
        axes = figure.subplots(3, 1, sharex=True)
        errors = [each.frame.quality.get(each.run, {}).get('abs_rel', np.nan)
                  for each in clock.frames]
        rows = [
            (abs_rel, errors),
            ('steps T', [each.num_inference_steps or np.nan for each in clock.frames]),
            ('latency, ms', [1e3 * each.latency_s for each in clock.frames])]
        for axis, (name, values) in zip(axes, rows):
            axis.plot(place, values, '.-', color=BLUE, linewidth=0.8, markersize=4)
            axis.set_title(name)
            axis.margins(0.01, 0.15)
        _whole_steps(axes[1], analysis)
        _draw_cap(axes[2].axhline, clock)
        axes[2].set_ylim(bottom=0)
        for fate, color in (('superseded', ORANGE), ('late', RED)):
            dropped = place[fates == fate]
            if dropped.size:
                axes[2].plot(dropped, np.zeros(dropped.size), '|', color=color, markersize=12,
                             markeredgewidth=1.5, label=fate, clip_on=False)
        axes[2].set_xlabel(label)
        _legend_below(figure, axes[2], columns=3)
        return [_svg(figure)]


def _draw_curve(axis: Any, analysis: Analysis, name: str, curve: Sequence[Outcomes],
                metric: int) -> None:
    color, marker = STYLES[name]
    points = np.array([_point(analysis, outcomes, metric) for outcomes in curve])
    axis.plot(points[:, 0], points[:, 1], marker=marker, color=color, label=name, linewidth=1.3,
              markersize=8 if marker == '*' else 5.5, markerfacecolor='white', zorder=3)


def _point(analysis: Analysis, outcomes: Outcomes, metric: int) -> tuple[float, float]:
    return (1e3 * float(outcomes[:, TOTAL_S].mean()),
            analysis.blocks.mean(outcomes[:, metric]))


def _places(analysis: Analysis) -> tuple[Any, str]:
    """Return where each frame lies on a time axis."""
    stamps = [frame.stamp_ns for frame in analysis.frames]
    if any(stamp is None for stamp in stamps):
        return np.arange(len(stamps)), 'frame'
    first = stamps[0] or 0
    return np.array([((stamp or 0) - first) * 1e-9 for stamp in stamps]), 'time in the bag, s'


def _rank_correlation(values: Any, abs_rel: Any) -> str:
    """Say how well one ranks the other."""
    known = np.isfinite(abs_rel)
    if known.sum() < 3 or np.ptp(values[known]) == 0 or np.ptp(abs_rel[known]) == 0:
        return 'too few frames to correlate'
    return f'rank correlation {spearmanr(values[known], abs_rel[known]).statistic:+.2f}'


def _draw_cap(line: Any, clock: Clocked) -> None:
    if clock.cap_s is not None:
        line(1e3 * clock.cap_s, color=RED, linewidth=1.6, linestyle='--',
             label=f'cap {1e3 * clock.cap_s:.0f} ms')


def _figure(size_in: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size_in, layout='constrained')
    return figure, figure.subplots()


def _legend_below(figure: Figure, axis: Any, *, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc='outside lower center', ncols=columns)


def _whole_steps(axis: Any, analysis: Analysis) -> None:
    """Show every T from 1 on, or some of many."""
    most = max(analysis.by_steps)
    axis.set_ylim(0.5, most + 0.5)
    axis.set_yticks(range(1, most + 1, max(1, most // 8)))


def _not_below_0(axis: Any) -> None:
    """Cut what the margins add to a quantity that is never negative."""
    low, high = axis.get_ylim()
    if low < 0:
        axis.set_ylim(0, high)


def _svg(figure: Figure) -> str:
    """Return the element alone, without the declarations that HTML does not know."""
    stream = io.StringIO()
    figure.savefig(stream, format='svg', metadata={'Date': None})
    text = stream.getvalue()
    return text[text.index('<svg'):]
