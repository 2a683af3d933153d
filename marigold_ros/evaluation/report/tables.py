"""The tables of a report, from its summary alone, as HTML and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from marigold_ros.evaluation.config import fixed_steps
from marigold_ros.evaluation.metrics.protocols import abs_rel_label, describe_protocol
from marigold_ros.evaluation.statistics import CHANCE

# Beside AbsRel, which says its protocol and range.
LABELS = {
    'sq_rel': 'SqRel, m', 'rmse': 'RMSE, m', 'rmse_log': 'RMSElog',
    'log10': 'log10', 'silog': 'SILog', 'delta1': 'delta1', 'delta2': 'delta2',
    'delta3': 'delta3', 'boundary_f1': 'boundary F1',
    'edge_accuracy_px': 'edge accuracy, px', 'edge_completeness_px': 'edge completeness, px'}
METRIC_LABELS = {
    'rmse': 'RMSE, m', 'delta1': 'delta1', 'published_share': 'share of pixels published',
    'jitter': 'scale jitter, a frame', 'largest_step': 'largest step of the scale',
    'floor_error': 'floor height error', 'outages': 'outages of the reference',
    'recovery_s': 'longest recovery, s'}
OBSTACLE_LABELS = {
    'clouds': 'clouds', 'recall': 'obstacles in view marked', 'precision': 'marks that are right',
    'floor_free': 'floor free', 'distance_m': 'error of the distance, m'}
TEMPORAL_LABELS = {
    'tae': 'TAE, reprojected by the true motion',
    'flicker': "flicker on static pixels, the first frame's scale",
    'flicker_aligned': 'flicker on static pixels, each frame aligned',
    'first_fit_abs_rel': "{abs_rel} by the first frame's scale",
    'first_fit_delta1': "delta1 by the first frame's scale"}


@dataclass(frozen=True)
class Table:
    """
    One table.

    Attributes
    ----------
    name : str
        Short and unique, for those who quote it.
    title : str
    header : tuple of str
    rows : tuple of tuples of str
        The first column names the row.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table alone, without its title."""
        return tabulate(self.rows, self.header, 'github', disable_numparse=True)


def all_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Make every table that the summary has something for."""
    tables = [accuracy_table(summary), policy_table(summary), clock_table(summary),
              stage_table(summary)]
    if summary['sets']:
        tables.insert(1, set_table(summary))
    if any(row['temporal'] for row in summary['policies'].values()):
        tables.insert(1, temporal_table(summary))
    if summary['metric']:
        tables.insert(-3, metric_table(summary['metric']))
    if 'obstacles' in summary['metric']:
        tables.insert(-3, obstacle_table(summary['metric']))
    return tables


def summary_abs_rel_label(summary: Mapping[str, Any]) -> str:
    """Name AbsRel with the protocol and range of all that a summary holds."""
    return abs_rel_label(summary['protocol'], summary['compared_range'])


def accuracy_table(summary: Mapping[str, Any]) -> Table:
    """Set the judged and the fixed policies beside the baselines, in every metric."""
    judged = summary['verdict']['policy']
    columns = {name: summary['policies'][name]['metrics'] for name in summary['policies']
               if name == judged or fixed_steps(name)} | dict(summary['baselines'])
    metrics = list(summary['policies'][judged]['metrics'])
    labels = {'abs_rel': summary_abs_rel_label(summary), **LABELS}
    rows = [(labels.get(metric, metric.replace('_', ' ')),
             *(_number(values.get(metric)) for values in columns.values()))
            for metric in metrics]
    title = describe_protocol(summary['protocol'], summary['compared_range'])
    return Table('accuracy', f'Accuracy by {title}, each frame alone', ('metric', *columns),
                 tuple(rows))


def set_table(summary: Mapping[str, Any]) -> Table:
    """Show AbsRel and delta1 of every set of a folder, and their mean over the sets."""
    sets = summary['sets']
    judged = summary['verdict']['policy']
    names = [name for name in next(iter(sets.values()))['abs_rel']
             if name == judged or fixed_steps(name) or name in summary['baselines']]
    rows = []
    for name in names:
        means = (summary['baselines'][name] if name in summary['baselines'] else
                 summary['policies'][name]['metrics'])
        cells = [f'{_number(each["abs_rel"][name])} / {_number(each["delta1"][name])}'
                 for each in sets.values()]
        rows.append((name, f'{_number(means["abs_rel"])} / {_number(means["delta1"])}', *cells))
    header = (f'{summary_abs_rel_label(summary)} / delta1', 'mean of sets',
              *(f'{name} ({each["frames"]})' for name, each in sets.items()))
    return Table('sets', 'Every set of the folder (frames)', header, tuple(rows))


def temporal_table(summary: Mapping[str, Any]) -> Table:
    """Show how steady depth is from frame to frame."""
    columns = {name: row['temporal'] for name, row in summary['policies'].items()
               if row['temporal']}
    return Table('temporal', 'Over time, each frame alone', ('', *columns), tuple(
        (label.format(abs_rel=summary_abs_rel_label(summary)),
         *(_number(values.get(metric)) for values in columns.values()))
        for metric, label in TEMPORAL_LABELS.items()))


def metric_table(metric: Mapping[str, Any]) -> Table:
    """Show how good metric depth is without any alignment."""
    rows = [('frames with metres', f'{metric["frames_with_metres"]} of {metric["frames"]}'),
            (abs_rel_label('metric', metric['range']), _number(metric['abs_rel'])
             + _interval(metric['abs_rel_interval'], 1, '.3f')),
            *((label, _share_or_number(metric, key)) for key, label in METRIC_LABELS.items())]
    title = describe_protocol('metric', metric['range'])
    return Table('metric', f'Metric depth, each frame alone; {title}',
                 ('', metric['source']), tuple(rows))


def obstacle_table(metric: Mapping[str, Any]) -> Table:
    """Show what Nav2's obstacle layer makes of the clouds."""
    obstacles = metric['obstacles']
    return Table('obstacles', "Obstacles in Nav2's obstacle layer, mean over the frames", (
        '', metric['source']), tuple((label, _share_or_number(obstacles, key))
                                     for key, label in OBSTACLE_LABELS.items()))


def _share_or_number(values: Mapping[str, Any], key: str) -> str:
    """Write a share in %, a count as it is, and else a number."""
    value = values[key]
    if isinstance(value, int):
        return str(value)
    if value is None or key in ('rmse', 'delta1', 'recovery_s', 'distance_m'):
        return _number(value)
    return f'{100 * value:.2f} %' if value < 0.1 else f'{100 * value:.1f} %'


def policy_table(summary: Mapping[str, Any]) -> Table:
    """Show what each policy costs and gives, each frame alone."""
    rows = []
    for name, row in summary['policies'].items():
        chance = row['equal_budget'].get(CHANCE, {})
        rows.append((
            name, f'{row["mean_steps"]:.2f}', f'{row["frame_ms"]:.1f}',
            f'{100 * row["time_saved"]:.1f} %{_interval(row["time_saved_interval"], 100, ".1f")}',
            _number(row['metrics']['abs_rel']) + _interval(row['abs_rel_interval'], 1, '.3f'),
            _number(row['metrics']['delta1']), _number(row['metrics']['boundary_f1']),
            *(_against(chance.get(metric)) for metric in ('abs_rel', 'boundary_f1'))))
    name = summary_abs_rel_label(summary)
    return Table(
        'policies', 'Policies, each frame alone, without a cap',
        ('policy', 'mean T', 'ms a frame', 'time saved', name, 'delta1', 'boundary F1',
         f'{name} beside chance', 'F1 beside chance'), tuple(rows))


def clock_table(summary: Mapping[str, Any]) -> Table:
    """Show what happens to the frames by the clock."""
    rows = []
    for name, row in summary['policies'].items():
        for kind in ('clock', 'live'):
            if kind in row:
                title = name + (', live' if kind == 'live' else '')
                rows.append((title, *_clock_cells(row[kind])))
    simulated = summary['data']['simulated_arrivals']
    title = 'By the clock of the bag' if simulated else 'One frame at a time, under the cap'
    return Table('clock', title, (
        'policy', 'processed', 'superseded', 'late', 'p50, ms', 'p95, ms', 'p99, ms', 'max, ms',
        'over cap', 'mean T', summary_abs_rel_label(summary)), tuple(rows))


def stage_table(summary: Mapping[str, Any]) -> Table:
    """Show what each stage takes, by processing size."""
    sizes = summary['latency_table']['sizes']
    stages = [key for key in next(iter(sizes.values())) if key != 'samples']
    return Table(
        'stages', 'Latency by stage: median of the table, ms', (
            'size', *(stage.removesuffix('_ms') for stage in stages), 'samples'),
        tuple((size, *(f'{row[stage]:.2f}' for stage in stages), str(row['samples']))
              for size, row in sizes.items()))


def _clock_cells(clock: Mapping[str, Any]) -> tuple[str, ...]:
    fates = clock['fates']
    return (*(str(fates[fate]) for fate in ('processed', 'superseded', 'late')),
            *(_number(clock[f'latency_{rank}_ms'], '.1f')
              for rank in ('p50', 'p95', 'p99', 'max')),
            str(clock['over_cap']), _number(clock['mean_steps'], '.2f'),
            _number(clock['metrics']['abs_rel']))


def _against(difference: Mapping[str, Any] | None) -> str:
    if difference is None:
        return '-'
    if difference['relative'] is None or difference['low'] is None:
        return str(difference['verdict'])
    interval = [difference['low'], difference['high']]
    return (f'{100 * difference["relative"]:+.1f} %{_interval(interval, 100, "+.1f")}: '
            f'{difference["verdict"]}')


def _number(value: float | None, form: str = '') -> str:
    """Write three decimals, or as many as show two digits of a small number."""
    if value is None:
        return '-'
    if form:
        return f'{value:{form}}'
    return f'{value:.3f}' if abs(value) >= 0.0095 or value == 0 else f'{value:.2g}'


def _interval(bounds: Sequence[float | None], factor: float, form: str) -> str:
    low, high = bounds
    if low is None or high is None:
        return ''
    return f' [{factor * low:{form}}, {factor * high:{form}}]'
