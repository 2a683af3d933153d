"""The tables of the report over many recordings, made from its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from marigold_ros.evaluation.metrics.metric_depth import COMPARED_RANGE
from marigold_ros.evaluation.metrics.protocols import abs_rel_label
from marigold_ros.evaluation.report.summary import UNCAPPED_METRICS
from marigold_ros.evaluation.report.tables import (
    format_difference,
    format_number,
    format_percent,
    Interval,
    LABELS,
    OBSTACLE_LABELS,
    Table,
)

METRIC_LABEL = abs_rel_label('metric', COMPARED_RANGE)
COLUMNS = {
    'abs_rel': 'AbsRel by this protocol and range', 'delta1': 'delta1',
    'metric_abs_rel': METRIC_LABEL, 'share_with_metric_depth': 'frames with metric depth',
    'obstacle_recall': OBSTACLE_LABELS['recall'],
    'obstacle_precision': OBSTACLE_LABELS['precision'],
    'saved': 'network time saved against {fastest}', 'latency_p95_ms': 'simulated p95 latency, ms'}
SHARES = ('share_with_metric_depth', 'obstacle_recall', 'obstacle_precision', 'saved')
BASIS = 'policy, protocol and range'
# Instead of the interval of a median.
ONLY_ONE = '[only one]'

Row = Mapping[str, Any]


def fleet_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Return all tables for which the summary has data; those of problems come first."""
    tables = [group_table(summary), recording_table(summary)]
    if summary['worst_recordings']:
        tables.insert(0, worst_table(summary))
    if summary['regressions']:
        tables.insert(0, regression_table(summary))
    if any(each['state'] != 'complete' for each in summary['recordings']):
        tables.insert(0, problem_table(summary))
    return tables


def problem_table(summary: Mapping[str, Any]) -> Table:
    """Show the recordings that failed or were evaluated only in part."""
    return Table('problems', 'Failed and partial recordings', ('recording', 'state', 'reason'),
                 tuple((each['name'], each['state'], each['detail'] or 'not given')
                       for state in ('failed', 'partial')
                       for each in summary['recordings'] if each['state'] == state))


def regression_table(summary: Mapping[str, Any]) -> Table:
    """Show how each recording changed since the baseline, the worst first."""
    found = summary['regressions']
    metrics = [metric for metric in UNCAPPED_METRICS
               if any(metric in each['metrics'] for each in found['recordings'])]
    labels = {**LABELS, 'metric_abs_rel': METRIC_LABEL,
              'abs_rel': basis_label(summary) or 'AbsRel by the protocol and range of each'}
    rows = [(each['name'], each['verdict'] + (f' [{each["reason"]}]' if each['reason'] else ''),
             *(_format_change(each['metrics'].get(metric)) for metric in metrics),
             f'{each["frames"]} of {each["frames_now"]}', str(each['blocks']))
            for each in found['recordings']]
    if len(rows) > 1:
        rows.append(('mean of the recordings', '',
                     *(_format_change(found['all'][metric]) for metric in metrics), '', ''))
    return Table('regressions', 'Change since the baseline',
                 ('recording', 'verdict', *(labels[metric] for metric in metrics),
                  'frames in both', 'blocks'), tuple(rows))


def worst_table(summary: Mapping[str, Any]) -> Table:
    """Rank the worst recordings by AbsRel of relative and of metric depth."""
    recordings = {each['name']: each for each in summary['recordings']}
    columns = {}
    for ranking in summary['worst_recordings']:
        metric = 'metric_abs_rel' if ranking['protocol'] == 'metric' else 'abs_rel'
        columns[describe_basis(ranking)] = [f'{name}: {_format_value(recordings[name], metric)}'
                                            for name in ranking['recordings']]
    return Table('worst', 'Worst recordings', tuple(columns),
                 tuple(zip_longest(*columns.values(), fillvalue='-')))


def group_table(summary: Mapping[str, Any]) -> Table:
    """Show the medians over all recordings, and over those with each value of each tag."""
    basis = basis_label(summary)
    metrics = _metrics(summary)
    rows = [(name_group(each), *(() if basis else (describe_basis(each),)),
             _format_counts(each),
             *(_format_median(each['medians'].get(metric), metric) for metric in metrics),
             str(each['frames']))
            for each in summary['groups']]
    return Table('groups', 'Medians over the recordings with each tag',
                 ('tag', *(() if basis else (BASIS,)), 'recordings', *_labels(summary, metrics),
                  'frames'), tuple(rows))


def recording_table(summary: Mapping[str, Any]) -> Table:
    """Show the numbers of each recording, in the order of the list."""
    basis = basis_label(summary)
    metrics = _metrics(summary)
    rows = [(each['name'], each['state'], *(() if basis else (describe_basis(each),)),
             *(_format_value(each, metric) for metric in metrics),
             '-' if each['frames'] is None else str(each['frames']),
             ', '.join(f'{tag}: {value}' for tag, value in each['tags'].items()) or '-')
            for each in summary['recordings']]
    return Table('recordings', 'Recordings',
                 ('recording', 'state', *(() if basis else (BASIS,)), *_labels(summary, metrics),
                  'frames', 'tags'), tuple(rows))


def basis_label(summary: Mapping[str, Any]) -> str:
    """Return the label of AbsRel if all recordings share policy, protocol and range, else ''."""
    bases = {describe_basis(each) for each in summary['recordings'] if each['policy'] is not None}
    return next(iter(bases)).partition(', ')[2] if len(bases) == 1 else ''


def describe_basis(row: Row) -> str:
    """Return policy, protocol and range of a row; '-' if all its recordings failed."""
    return '-' if row['policy'] is None else (
        f'{row["policy"]}, {abs_rel_label(row["protocol"], row["compared_range"])}')


def name_group(group: Row) -> str:
    """Return the name of a group, such as 'weather: rain'."""
    return f'{group["tag"]}: {group["value"] or "not set"}' if group['tag'] else 'all'


def _format_change(change: Row | None) -> str:
    same = change is not None and change['relative'] == change['low'] == change['high'] == 0
    return 'the same' if same else format_difference(change)


def _metrics(summary: Mapping[str, Any]) -> list[str]:
    """List the metrics that any recording has."""
    return [metric for metric in COLUMNS
            if any(each['values'].get(metric) is not None for each in summary['recordings'])]


def _labels(summary: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    fastest = sorted({each['fastest_policy'] for each in summary['recordings']} - {None})
    labels = {**COLUMNS, 'abs_rel': basis_label(summary) or COLUMNS['abs_rel']}
    return [labels[metric].format(fastest=' or '.join(fastest)) for metric in metrics]


def _format_counts(group: Row) -> str:
    counts = f'{group["recordings"]} of {group["of"]}' if (
        group['recordings'] < group['of']) else str(group['of'])
    states = ', '.join(f'{group[state]} {state}' for state in ('partial', 'failed')
                       if group[state])
    return counts + (f' [{states}]' if states else '')


def _format_median(median: Row | None, metric: str) -> str:
    if median is None:
        return '-'
    alone = f' {ONLY_ONE}' if median['recordings'] == 1 else ''
    return _format(median['median'], (median['low'], median['high']), metric) + alone


def _format_value(recording: Row, metric: str) -> str:
    return _format(recording['values'].get(metric),
                   recording['intervals'].get(metric, (None, None)), metric)


def _format(value: float | None, interval: Interval, metric: str) -> str:
    """Format a value with its unit and interval."""
    if metric in SHARES:
        return format_percent(value, '.0f', interval)
    return format_number(value, '.0f' if metric == 'latency_p95_ms' else '.3f', interval)
