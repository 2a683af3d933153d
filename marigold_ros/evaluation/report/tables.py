"""The tables of a report, made from its summary, for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any, TypeAlias

from tabulate import tabulate

from marigold_ros.evaluation.config import fixed_steps
from marigold_ros.evaluation.metrics.protocols import abs_rel_label, describe_protocol
from marigold_ros.evaluation.statistics import DECISIVE

# Lower and upper end; None or NaN without an interval.
Interval: TypeAlias = Sequence[float | None]

# All metrics but AbsRel, whose label includes protocol and range.
LABELS = {
    'sq_rel': 'SqRel, m', 'rmse': 'RMSE, m', 'rmse_log': 'RMSElog',
    'log10': 'log10', 'silog': 'SILog', 'delta1': 'delta1', 'delta2': 'delta2',
    'delta3': 'delta3', 'boundary_f1': 'boundary F1',
    'published_delta1': 'published delta1',
    'edge_accuracy_px': 'edge accuracy, px', 'edge_completeness_px': 'edge completeness, px'}
METRIC_DEPTH_LABELS = {
    'rmse': 'RMSE, m', 'delta1': 'delta1', 'tae': 'temporal alignment error (TAE)',
    'published_share': 'share of measured pixels published',
    'jitter': 'mean change of the scale per frame',
    'largest_step': 'largest change of the scale between frames',
    'floor_error': 'error of the camera height above the floor',
    'outages': 'outages of the reference', 'recovery_s': 'longest recovery after an outage, s'}
OBSTACLE_LABELS = {
    'clouds': 'clouds', 'recall': 'visible obstacles marked',
    'cell_recall': 'cells of visible obstacles marked',
    'precision': 'marked cells in an obstacle or wall', 'floor_free': 'visible floor free',
    'distance_m': 'mean error of the distance to an obstacle, m'}
TEMPORAL_LABELS = {
    'tae': 'temporal alignment error (TAE)',
    'flicker': "flicker with the first frame's scale and shift",
    'flicker_aligned': "flicker with each frame's own scale and shift",
    'first_fit_abs_rel': "{abs_rel} with the first frame's scale and shift",
    'first_fit_delta1': "delta1 with the first frame's scale and shift"}
STAGE_LABELS = {'complexity': 'what is new, and C', 'carry': 'carrying depth',
                'step': 'one denoising step'}


@dataclass(frozen=True)
class Table:
    """
    One table.

    Attributes
    ----------
    name : str
        Short and unique; the template of the report refers to it.
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
        """Format the table as Markdown, without its title."""
        return tabulate(self.rows, self.header, 'github', disable_numparse=True)


def all_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Return all tables for which the summary has data."""
    tables = [accuracy_table(summary), policy_table(summary), arrivals_table(summary),
              stage_table(summary)]
    if summary['sets']:
        tables.insert(1, sets_table(summary))
    if any(row['temporal'] for row in summary['policies'].values()):
        tables.insert(1, temporal_table(summary))
    if summary['metric']:
        tables.insert(-3, metric_depth_table(summary['metric']))
    if any('obstacles' in each for each in summary['metric'].get('policies', {}).values()):
        tables[-3:-3] = obstacle_tables(summary['metric'])
    return tables


def summary_abs_rel_label(summary: Mapping[str, Any]) -> str:
    """Return the label of AbsRel with the protocol and range of a summary."""
    return abs_rel_label(summary['protocol'], summary['compared_range'])


def accuracy_table(summary: Mapping[str, Any]) -> Table:
    """Compare primary policy, fixed policies and baselines in all metrics."""
    primary = summary['verdict']['policy']
    columns = {name: summary['policies'][name]['metrics'] for name in summary['policies']
               if name == primary or fixed_steps(name)} | dict(summary['baselines'])
    metrics = list(summary['policies'][primary]['metrics'])
    labels = {'abs_rel': summary_abs_rel_label(summary), **LABELS}
    rows = [(labels.get(metric, metric.replace('_', ' ')),
             *(format_number(values.get(metric)) for values in columns.values()))
            for metric in metrics]
    title = describe_protocol(summary['protocol'], summary['compared_range'])
    return Table('accuracy', f'Accuracy without latency cap; {title}', ('metric', *columns),
                 tuple(rows))


def sets_table(summary: Mapping[str, Any]) -> Table:
    """Show AbsRel and delta1 for every set of a folder, and their mean over the sets."""
    sets = summary['sets']
    primary = summary['verdict']['policy']
    names = [name for name in next(iter(sets.values()))['abs_rel']
             if name == primary or fixed_steps(name) or name in summary['baselines']]
    rows = []
    for name in names:
        means = (summary['baselines'][name] if name in summary['baselines'] else
                 summary['policies'][name]['metrics'])
        pairs = [(means['abs_rel'], means['delta1']),
                 *((each['abs_rel'][name], each['delta1'][name]) for each in sets.values())]
        rows.append((name, *(f'{format_number(abs_rel)} / {format_number(delta1)}'
                             for abs_rel, delta1 in pairs)))
    header = (f'{summary_abs_rel_label(summary)} / delta1', 'mean of sets',
              *(f'{name} ({each["frames"]})' for name, each in sets.items()))
    return Table('sets', 'Sets of the folder (number of frames)', header, tuple(rows))


def temporal_table(summary: Mapping[str, Any]) -> Table:
    """Show the temporal consistency."""
    columns = {name: row['temporal'] for name, row in summary['policies'].items()
               if row['temporal']}
    return Table('temporal', 'Temporal consistency without latency cap', ('', *columns), tuple(
        (label.format(abs_rel=summary_abs_rel_label(summary)),
         *(format_number(values.get(metric)) for values in columns.values()))
        for metric, label in TEMPORAL_LABELS.items()))


def metric_depth_table(metric: Mapping[str, Any]) -> Table:
    """Show the accuracy of metric depth."""
    policies = metric['policies']
    rows = [
        ('frames with metric depth', *(
            f'{row["frames_with_metric_depth"]} of {row["frames"]}' for row in policies.values())),
        (abs_rel_label('metric', metric['range']), *(
            format_number(row['abs_rel'], '.3f', row['abs_rel_interval'])
            for row in policies.values())),
        *((label, *(_format_share_or_number(row, key) for row in policies.values()))
          for key, label in METRIC_DEPTH_LABELS.items())]
    return Table('metric_depth', f'Metric depth from {" and ".join(metric["sources"])}, without '
                 f'latency cap and without alignment, {metric["range"]}', ('', *policies),
                 tuple(rows))


def obstacle_tables(metric: Mapping[str, Any]) -> list[Table]:
    """Show the scores of the obstacles in Nav2's obstacle layer, and which are found."""
    columns = {name: row['obstacles'] for name, row in metric['policies'].items()}
    primary, row = next(iter(metric['policies'].items()))
    for source, costmaps in row['sensors'].items():
        columns |= {f'{source} itself': costmaps['alone'],
                    f'{source} itself, and {primary}': costmaps['with_cloud']}
    names = sorted({name for each in columns.values() for name in each['found']})
    return [
        Table('obstacles', "Obstacles in Nav2's obstacle layer, mean over the frames",
              ('', *columns),
              tuple((label, *(_format_share_or_number(each, key) if key in each else 'unknown'
                              for each in columns.values()))
                    for key, label in OBSTACLE_LABELS.items())),
        Table('found_obstacles', 'Frames in which each obstacle is marked, of those in which it '
              'is visible', ('', *columns),
              tuple((name, *(_format_found(each['found'].get(name))
                             for each in columns.values())) for name in names))]


def _format_found(each: Mapping[str, int] | None) -> str:
    return 'never visible' if each is None else f'{each["found"]} of {each["visible"]}'


def _format_share_or_number(values: Mapping[str, Any], key: str) -> str:
    """Format a share in %, a count as an integer, and other values as numbers."""
    value = values[key]
    if isinstance(value, int):
        return str(value)
    if value is None or key in ('rmse', 'delta1', 'tae', 'recovery_s', 'distance_m'):
        return format_number(value)
    return format_percent(value, '.2f' if value < 0.1 else '.1f')


def policy_table(summary: Mapping[str, Any]) -> Table:
    """Show cost and quality of each policy without latency cap."""
    fixed = list(dict.fromkeys(summary['engine'][f'{rank}_policy']
                               for rank in ('fastest', 'slowest')))
    rows = []
    for name, row in summary['policies'].items():
        rows.append((
            name, f'{row["mean_steps"]:.2f}',
            format_percent(row['steps'].get('0', 0) / summary['data']['frames'], '.0f'),
            format_percent(row['covered_share']), f'{row["frame_ms"]:.1f}',
            *(format_percent(saved['share'], '.1f', (saved['low'], saved['high']))
              for saved in (row['saved'][other] for other in fixed)),
            format_number(row['metrics']['abs_rel'], '.3f', row['abs_rel_interval']),
            *(format_number(row['metrics'][metric])
              for metric in ('published_delta1', 'boundary_f1')),
            *(format_difference(row['against_blind'].get(metric)) for metric in DECISIVE)))
    abs_rel = summary_abs_rel_label(summary)
    return Table(
        'policies', 'Step policies without latency cap',
        ('policy', 'mean T', 'carried frames', 'covered', 'ms per frame',
         *(f'network time saved against {other}' for other in fixed), abs_rel,
         'published delta1', 'boundary F1', f'{abs_rel} against blind',
         'published delta1 against blind', 'boundary F1 against blind'), tuple(rows))


def arrivals_table(summary: Mapping[str, Any]) -> Table:
    """Show outcomes and latency of the frames under the latency cap."""
    rows = []
    for name, row in summary['policies'].items():
        for kind in ('simulated', 'live'):
            if kind in row:
                title = name + (', live' if kind == 'live' else '')
                rows.append((title, *_stream_cells(row[kind])))
    title = ('Step policies with frames arriving at their recorded times'
             if summary['data']['simulated_arrivals'] else
             'Step policies under the latency cap, one frame at a time')
    return Table('arrivals', title, (
        'policy', 'processed', 'superseded', 'p50, ms', 'p95, ms', 'p99, ms', 'max, ms',
        'frames over cap', 'mean T', summary_abs_rel_label(summary)), tuple(rows))


def stage_table(summary: Mapping[str, Any]) -> Table:
    """Show the median time of each stage, by processing size."""
    sizes = summary['latency_table']['sizes']
    stages = [key for key in next(iter(sizes.values()), {}) if key != 'samples']
    return Table(
        'stages', 'Measured time per stage, median, ms', (
            'processing size, px',
            *(STAGE_LABELS.get(stage.removesuffix('_ms'), stage.removesuffix('_ms'))
              for stage in stages), 'samples'),
        tuple((size, *(f'{row[stage]:.2f}' for stage in stages), str(row['samples']))
              for size, row in sizes.items()))


def _stream_cells(stream: Mapping[str, Any]) -> tuple[str, ...]:
    counts = stream['outcomes']
    return (*(str(counts[outcome]) for outcome in ('processed', 'superseded')),
            *(format_number(stream[f'latency_{rank}_ms'], '.1f')
              for rank in ('p50', 'p95', 'p99', 'max')),
            str(stream['over_cap']), format_number(stream['mean_steps'], '.2f'),
            format_number(stream['metrics']['abs_rel']))


def format_difference(difference: Mapping[str, Any] | None) -> str:
    """Format a relative difference in % with its interval and verdict; '-' without one."""
    if difference is None:
        return '-'
    if difference['relative'] is None or difference['low'] is None:
        return ('unknown (too few blocks)' if difference['verdict'] == 'unknown' else
                str(difference['verdict']))
    interval = difference['low'], difference['high']
    return (f'{format_percent(difference["relative"], "+.1f", interval)}: '
            f'{difference["verdict"]}')


def format_number(value: float | None, form: str = '', interval: Interval = (None, None)) -> str:
    """Format with three decimals, or two significant digits for small numbers; '-' unknown."""
    if value is None or math.isnan(value):
        return '-'
    form = form or ('.3f' if abs(value) >= 0.0095 or value == 0 else '.2g')
    return f'{value:{form}}{format_interval(interval, form)}'


def format_percent(share: float | None, form: str = '.1f',
                   interval: Interval = (None, None)) -> str:
    """Format a share or a relative difference in %; '-' unknown."""
    if share is None or math.isnan(share):
        return '-'
    return f'{100 * share:{form}} %{format_interval(interval, form, 100)}'


def format_interval(interval: Interval, form: str, factor: float = 1) -> str:
    """Format an interval to follow its value; '' without an interval."""
    low, high = interval
    if low is None or high is None or math.isnan(low):
        return ''
    return f' [{factor * low:{form}}, {factor * high:{form}}]'
