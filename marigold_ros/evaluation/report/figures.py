"""The plots of the report as SVG, with a colour-blind safe palette."""

from __future__ import annotations

import io
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np
from scipy.stats import spearmanr

from marigold_ros.evaluation.analysis import Analysis, StreamResult
from marigold_ros.evaluation.config import fixed_steps, period
from marigold_ros.evaluation.statistics import ABS_REL, BOUNDARY_F1, FrameResults, STEPS, TOTAL_S

# Palette of Okabe and Ito; every kind of policy also has its own marker.
BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK, GREY = (
    '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#777777')
STYLES = {
    'novelty': (RED, 'D'), 'complexity-gradient_energy': (BLUE, 's'),
    'complexity-entropy': (SKY, 'v'), 'random': (GREY, 'x'), 'oracle': (PINK, '*'),
    'every': (GREEN, '^')}
STYLE: dict[Any, Any] = {
    'svg.hashsalt': 'marigold_ros', 'font.size': 9, 'legend.fontsize': 8, 'axes.spines.top': False,
    'axes.spines.right': False, 'axes.grid': True, 'grid.color': '#dddddd', 'grid.linewidth': 0.6,
    'axes.axisbelow': True, 'axes.titlesize': 9.5, 'axes.titlelocation': 'left',
    'legend.frameon': False, 'axes.edgecolor': '#555555', 'figure.facecolor': 'white'}
# Figure sizes in inches: half or full width of the report.
HALF, WIDE = (4.9, 3.7), (7.2, 3.2)
# More frames than this are drawn as pixels: as vectors, 18 000 have 12 MB.
MAX_VECTOR_MARKS, DPI = 1000, 200


def plot_frontier(analysis: Analysis, abs_rel: str) -> list[str]:
    """
    Plot AbsRel and boundary F1 of each policy over the time per frame.

    Parameters
    ----------
    analysis : Analysis
    abs_rel : str
        Label of AbsRel with protocol and range.
    """
    plots = []
    with rc_context(STYLE):
        for metric, name, title in ((ABS_REL, abs_rel, 'lower is better'),
                                    (BOUNDARY_F1, 'boundary F1', 'higher is better')):
            figure, axis = _figure(HALF)
            _draw_blind(axis, analysis, metric)
            for policy, result in analysis.policies.items():
                if not fixed_steps(policy):
                    color, marker = STYLES['every' if period(policy) else policy]
                    axis.plot(*_point(analysis, result.frame_results, metric), marker,
                              color=color, label=policy, zorder=3,
                              markersize=9 if marker == '*' else 6)
            axis.margins(0.08, 0.18)
            _clip_axis_at_0(axis)
            axis.set_title(title)
            axis.set_xlabel('time per frame, ms')
            axis.set_ylabel(name)
            _legend_below(figure, axis, columns=2)
            plots.append(_svg(figure))
    return plots


def plot_complexity(analysis: Analysis, abs_rel: str) -> list[str]:
    """Plot T of the primary policy, and its error, over C; see `plot_frontier`."""
    result = analysis.policies[analysis.primary]
    frame_results = result.frame_results
    values = np.array([each.complexity for each in result.frames])
    plots = []
    with rc_context(STYLE):
        for column, name, title in (
                (STEPS, 'steps T', f'T of {analysis.primary}'),
                (ABS_REL, abs_rel, _rank_correlation(values, frame_results[:, ABS_REL]))):
            figure, axis = _figure(HALF)
            axis.plot(values, frame_results[:, column], 'o', color=BLUE, alpha=0.5, markersize=5,
                      rasterized=len(values) > MAX_VECTOR_MARKS)
            axis.margins(0.06, 0.12)
            if column == STEPS:
                _set_step_ticks(axis, analysis)
            axis.set_title(title)
            axis.set_xlabel(f'complexity C of {analysis.primary}')
            axis.set_ylabel(name)
            plots.append(_svg(figure))
    return plots


def plot_latency_histogram(analysis: Analysis) -> list[str]:
    """Plot the latency histograms of the primary and the slowest policy."""
    primary, slowest = analysis.policies[analysis.primary], analysis.policies[analysis.slowest]
    rows = [(analysis.primary, primary.simulated, BLUE)]
    if slowest is not primary:
        rows.append((analysis.slowest, slowest.simulated, ORANGE))
    if primary.live is not None:
        rows.append((f'{analysis.primary}, live', primary.live, GREEN))
    with rc_context(STYLE):
        figure, axis = _figure(WIDE)
        latencies_ms = np.concatenate([1e3 * np.array(stream.latency_s) for _, stream, _ in rows])
        if latencies_ms.size:
            bins = np.histogram_bin_edges(latencies_ms, 30)
            for name, stream, color in rows:
                axis.hist(1e3 * np.array(stream.latency_s), bins, histtype='stepfilled',
                          facecolor=f'{color}55', edgecolor=color, linewidth=1.4, label=name)
        _draw_cap(axis.axvline, primary.simulated)
        axis.set_xlabel('latency from arrival to depth, ms')
        axis.set_ylabel('frames')
        axis.set_xlim(left=0)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        _legend_below(figure, axis, columns=3)
        return [_svg(figure)]


def plot_timeline(analysis: Analysis, abs_rel: str) -> list[str]:
    """Plot error, steps, latency and drops of the primary policy by frame; see `plot_frontier`."""
    result = analysis.policies[analysis.primary]
    stream = result.live or result.simulated
    times, label = _time_axis(analysis)
    outcomes = np.array([each.outcome for each in stream.frames])
    times = times[:len(outcomes)]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 5.0), layout='constrained')
        axes = figure.subplots(3, 1, sharex=True)
        rows = [
            (abs_rel, [each.quality.get('abs_rel', np.nan) for each in stream.frames]),
            ('steps T', [each.num_inference_steps if each.outcome == 'processed' else np.nan
                         for each in stream.frames]),
            ('latency, ms', [1e3 * each.latency_s for each in stream.frames])]
        for axis, (name, values) in zip(axes, rows):
            axis.plot(times, values, '.-', color=BLUE, linewidth=0.8, markersize=4,
                      rasterized=len(times) > MAX_VECTOR_MARKS)
            axis.set_title(name)
            axis.margins(0.01, 0.15)
        _set_step_ticks(axes[1], analysis)
        _draw_cap(axes[2].axhline, stream)
        axes[2].set_ylim(bottom=0)
        dropped = times[outcomes == 'superseded']
        if dropped.size:
            axes[2].plot(dropped, np.zeros(dropped.size), '|', color=ORANGE, markersize=12,
                         markeredgewidth=1.5, label='superseded', clip_on=False,
                         rasterized=len(times) > MAX_VECTOR_MARKS)
        axes[2].set_xlabel(label)
        _legend_below(figure, axes[2], columns=3)
        return [_svg(figure)]


def _draw_blind(axis: Any, analysis: Analysis, metric: int) -> None:
    """Draw the policies that do not look at the frames as one curve over their time."""
    points = np.array([_point(analysis, results, metric) for results in analysis.blind.values()])
    axis.plot(points[:, 0], points[:, 1], marker='o', color=BLACK, linewidth=1.3, markersize=5,
              markerfacecolor='white', label='without a look at the frame')
    for name, point in zip(analysis.blind, points):
        axis.annotate(name, point, xytext=(3, 3), textcoords='offset points', rotation=45,
                      rotation_mode='anchor', fontsize=7)


def _point(analysis: Analysis, frame_results: FrameResults, metric: int) -> tuple[float, float]:
    return (1e3 * float(frame_results[:, TOTAL_S].mean()),
            analysis.blocks.mean(frame_results[:, metric]))


def _time_axis(analysis: Analysis) -> tuple[Any, str]:
    """Return the time of each frame, or its number without stamps, and the axis label."""
    stamps = [frame.stamp_ns for frame in analysis.frames]
    if any(stamp is None for stamp in stamps):
        return np.arange(len(stamps)), 'frame'
    first = stamps[0] or 0
    return np.array([((stamp or 0) - first) * 1e-9 for stamp in stamps]), 'time in the bag, s'


def _rank_correlation(values: Any, abs_rel: Any) -> str:
    """Format the rank correlation of complexity and error."""
    known = np.isfinite(abs_rel)
    if known.sum() < 3 or np.ptp(values[known]) == 0 or np.ptp(abs_rel[known]) == 0:
        return 'too few frames to correlate'
    return f'rank correlation {spearmanr(values[known], abs_rel[known]).statistic:+.2f}'


def _draw_cap(line: Any, stream: StreamResult) -> None:
    if stream.cap_s is not None:
        line(1e3 * stream.cap_s, color=RED, linewidth=1.6, linestyle='--',
             label=f'latency cap {1e3 * stream.cap_s:.0f} ms')


def _figure(size_in: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size_in, layout='constrained')
    return figure, figure.subplots()


def _legend_below(figure: Figure, axis: Any, *, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc='outside lower center', ncols=columns)


def _set_step_ticks(axis: Any, analysis: Analysis) -> None:
    """Set ticks at every T, or at some of them if there are many."""
    most = max(each.num_inference_steps for result in analysis.policies.values()
               for each in result.frames)
    axis.set_ylim(-0.5, most + 0.5)
    axis.set_yticks(range(0, most + 1, max(1, most // 8)))


def _clip_axis_at_0(axis: Any) -> None:
    """Start the axis of a non-negative quantity at 0 instead of below."""
    low, high = axis.get_ylim()
    if low < 0:
        axis.set_ylim(0, high)


def _svg(figure: Figure) -> str:
    """Return the svg element without the XML declarations, which HTML does not allow."""
    stream = io.StringIO()
    figure.savefig(stream, format='svg', dpi=DPI, metadata={'Date': None})
    text = stream.getvalue()
    return text[text.index('<svg'):]
