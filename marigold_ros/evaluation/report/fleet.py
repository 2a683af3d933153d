"""
Write the report over many recordings: report.html, tables.md and summary.json (`SCHEMA`).

`python -m marigold_ros.evaluation.report.fleet` prints the keys of `summary.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
import os
from pathlib import Path
from typing import Any

import numpy as np

from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.environment import describe_commit
from marigold_ros.evaluation.fleet.recordings import FleetRecording
from marigold_ros.evaluation.report.evaluated_recording import (
    Basis,
    EvaluatedRecording,
    read_recordings,
    read_summary,
    SUMMARY,
)
from marigold_ros.evaluation.report.fleet_page import write_fleet_page
from marigold_ros.evaluation.report.fleet_tables import fleet_tables
from marigold_ros.evaluation.report.regressions import find_regressions
from marigold_ros.evaluation.report.summary import print_schema, without_nan, write_summary
from marigold_ros.evaluation.statistics import median_interval

SHOWN_RECORDINGS, SHOWN_SECONDS = 5, 6

SCHEMA_VERSION = 1
BASIS_SCHEMA = {
    'policy': 'string or null: the primary policy; null without results',
    'protocol': 'string or null: as in the summary of a recording',
    'compared_range': 'string or null',
}
CHANGE_SCHEMA = {
    'relative': 'number or null: relative difference of the means, (now - before) / before',
    'low': 'number or null: lower end of its 95 % confidence interval',
    'high': 'number or null: upper end',
    'verdict': 'string: better, worse, no difference, or unknown with fewer than six blocks',
}
SCHEMA = {
    'schema_version': 'int: changes if the meaning of a key changes',
    'report': 'string: fleet',
    'written_utc': 'string',
    'commit': 'string: of the code that wrote the report',
    'settings.<name>': 'any: settings that all evaluated recordings share',
    'recordings[].name': 'string',
    'recordings[].folder': 'string: what evaluate wrote, relative to this file',
    'recordings[].tags.<tag>': 'string',
    'recordings[].state': 'string: complete, partial or failed',
    'recordings[].detail': 'string: why it is not complete',
    'recordings[].frames': 'int or null: evaluated frames; null if it failed',
    **{f'recordings[].{key}': text for key, text in BASIS_SCHEMA.items()},
    'recordings[].fastest_policy': 'string or null: the fixed policy that `saved` refers to',
    'recordings[].values.abs_rel': 'number or null: of the primary policy, without latency cap',
    'recordings[].values.delta1': 'number or null',
    'recordings[].values.metric_abs_rel': 'number or null: of metric depth, without alignment',
    'recordings[].values.share_with_metric_depth': 'number or null: share of the frames',
    'recordings[].values.obstacle_recall': 'number or null: visible obstacles marked; with a '
                                           'scene',
    'recordings[].values.obstacle_precision': 'number or null: marked cells in an obstacle or '
                                              'wall',
    'recordings[].values.saved': 'number or null: share of the network time of the fastest fixed '
                                 'policy that is saved',
    'recordings[].values.latency_p95_ms': 'number or null: in the simulation of frame arrivals',
    'recordings[].intervals.<metric>[]': 'number or null: lower and upper end, 95 %, over the '
                                         'blocks of the recording',
    # Recordings with the same value of a tag, and the same policy, protocol and range.
    'groups[].tag': "string: '' is all recordings",
    'groups[].value': "string: '' has no value",
    **{f'groups[].{key}': text for key, text in BASIS_SCHEMA.items()},
    'groups[].recordings': 'int: recordings with results',
    'groups[].partial': 'int: of these, those that are partial',
    'groups[].failed': 'int: recordings with this value that failed',
    'groups[].of': 'int: all recordings with this value',
    'groups[].frames': 'int',
    'groups[].medians.<metric>.median': 'number: over recordings',
    'groups[].medians.<metric>.low': 'number or null: lower end of its 95 % confidence interval; '
                                     'null with one recording',
    'groups[].medians.<metric>.high': 'number or null: upper end',
    'groups[].medians.<metric>.recordings': 'int: recordings with this metric',
    # For each policy, protocol and range; protocol metric is AbsRel of metric depth.
    **{f'worst_recordings[].{key}': text for key, text in BASIS_SCHEMA.items()},
    'worst_recordings[].recordings[]': 'string: names, the worst first',
    'worst_seconds[].recording': 'string',
    **{f'worst_seconds[].{key}': text for key, text in BASIS_SCHEMA.items()},
    **{f'worst_seconds[].{key}': 'any: as in the summary of the recording; the picture relative '
       'to this file' for key in ('name', 'abs_rel', 'frames', 'frame', 'frame_abs_rel',
                                  'num_inference_steps', 'depth_colors_m[]', 'picture')},
    # Only with a baseline.
    'regressions.baseline': 'string: folder of the earlier report',
    'regressions.written_utc': 'string: when it was written',
    'regressions.changed[]': 'string: settings that differ in recordings of both',
    'regressions.only_here[]': 'string: recordings that the baseline does not have',
    'regressions.only_in_baseline[]': 'string',
    'regressions.recordings[].name': 'string: in both',
    'regressions.recordings[].verdict': 'string: worse if any metric is worse, else better if any '
                                        'is better, else no difference, unknown, or not compared',
    'regressions.recordings[].reason': 'string: why not everything was compared',
    'regressions.recordings[].frames': 'int: frames that both have',
    'regressions.recordings[].frames_now': 'int: frames of this recording',
    'regressions.recordings[].blocks': 'int: blocks of these frames that the bootstrap resamples',
    **{f'regressions.recordings[].metrics.<metric>.{key}': text
       for key, text in CHANGE_SCHEMA.items()},
    **{f'regressions.all.<metric>.{key}': f'{text}; mean and interval over recordings'
       for key, text in CHANGE_SCHEMA.items()},
}


def write_fleet_report(out: Path, recordings: Sequence[FleetRecording],
                       baseline: Path | None) -> None:
    """
    Write the report over all recordings of a fleet.

    Parameters
    ----------
    out : Path
        Folder for report.html, summary.json and tables.md.
    recordings : sequence of FleetRecording
        All, also those that failed.
    baseline : Path or None
        Folder of an earlier report of a fleet to compare with.

    Raises
    ------
    InputError
        If there are no recordings, or results of one are missing; see also `read_baseline`.
    """
    if not recordings:
        raise InputError('`recordings` must be at least one; got none')
    evaluated = read_recordings(recordings)
    summary = summarize_fleet(out, recordings, evaluated)
    if baseline is not None:
        written_utc, earlier = read_baseline(baseline)
        summary['regressions'] = {
            'baseline': str(baseline), 'written_utc': written_utc,
            **find_regressions(recordings, evaluated, earlier, read_recordings(earlier))}
    summary = without_nan(summary)
    write_summary(out / SUMMARY, summary)
    (out / 'tables.md').write_text('\n'.join(
        f'## {table.title}\n\n{table.markdown()}\n' for table in fleet_tables(summary)),
        encoding='utf-8')
    write_fleet_page(out / 'report.html', summary)


def read_baseline(folder: Path) -> tuple[str, list[FleetRecording]]:
    """
    Read when an earlier report of a fleet was written, and its recordings.

    Raises
    ------
    InputError
        If the folder holds no report of a fleet, or one of another version, or results of a
        recording are missing.
    """
    summary = read_summary(folder, SCHEMA_VERSION, '`baseline`', report='fleet')
    recordings = [FleetRecording(each['name'], folder / each['folder'], each['tags'],
                                 each['state'], each['detail'])
                  for each in summary['recordings']]
    read_recordings(recordings)
    return str(summary['written_utc']), recordings


def summarize_fleet(out: Path, recordings: Sequence[FleetRecording],
                    evaluated: Mapping[str, EvaluatedRecording]) -> dict[str, Any]:
    """
    Combine the results of all recordings in one dictionary for JSON.

    Parameters
    ----------
    out : Path
        Folder that paths are relative to.
    recordings : sequence of FleetRecording
    evaluated : mapping of str to EvaluatedRecording
        Those that have results, by name.

    Returns
    -------
    dict
        With the keys of `SCHEMA`, NaN where unknown, without `regressions`.
    """
    bases = list(dict.fromkeys(each.basis for each in evaluated.values()))
    return {
        'schema_version': SCHEMA_VERSION, 'report': 'fleet',
        'written_utc': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'commit': describe_commit(),
        'settings': _shared_settings([each.settings for each in evaluated.values()]),
        'recordings': [_summarize_recording(out, each, evaluated.get(each.name))
                       for each in recordings],
        'groups': [row for tag, value in _list_groups(recordings)
                   for row in _summarize_group(tag, value, recordings, evaluated)],
        'worst_recordings': [{**_describe_basis(basis), 'recordings': _rank(evaluated, basis)}
                             for basis in dict.fromkeys(
                                 basis for each in evaluated.values() for basis in each.errors)],
        'worst_seconds': [row for basis in bases
                          for row in _worst_seconds(out, evaluated, basis)],
        'regressions': {}}


def _shared_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in settings[0].items()
            if all(each.get(key) == value for each in settings)} if settings else {}


def _describe_basis(basis: Basis | None) -> dict[str, str | None]:
    return {key: None if basis is None else getattr(basis, key) for key in BASIS_SCHEMA}


def _summarize_recording(out: Path, recording: FleetRecording,
                         evaluated: EvaluatedRecording | None) -> dict[str, Any]:
    row = {'name': recording.name, 'folder': _relative(recording.folder, out),
           'tags': dict(recording.tags), 'state': recording.state, 'detail': recording.detail}
    if evaluated is None:
        return {**row, 'frames': None, **_describe_basis(None), 'fastest_policy': None,
                'values': {}, 'intervals': {}}
    return {**row, 'frames': evaluated.summary['data']['frames'],
            **_describe_basis(evaluated.basis),
            'fastest_policy': evaluated.summary['engine']['fastest_policy'],
            'values': evaluated.values, 'intervals': evaluated.intervals}


def _list_groups(recordings: Sequence[FleetRecording]) -> list[tuple[str, str]]:
    """List all pairs of tag and value; the first, ('', ''), is all recordings."""
    tags = dict.fromkeys(tag for each in recordings for tag in each.tags)
    return [('', ''), *((tag, value) for tag in tags
                        for value in sorted({each.tags.get(tag, '') for each in recordings}))]


def _summarize_group(tag: str, value: str, recordings: Sequence[FleetRecording],
                     evaluated: Mapping[str, EvaluatedRecording]) -> list[dict[str, Any]]:
    """Summarize a group by policy, protocol and range, which cannot be mixed."""
    group = [each for each in recordings if each.tags.get(tag, '') == value]
    results = [evaluated[each.name] for each in group if each.name in evaluated]
    rows = []
    for basis in dict.fromkeys(each.basis for each in results) or [None]:
        members = [each for each in results if each.basis == basis]
        values = [each.values for each in members]
        rows.append({
            'tag': tag, 'value': value, **_describe_basis(basis), 'recordings': len(members),
            'partial': sum(each.recording.state == 'partial' for each in members),
            'failed': len(group) - len(results), 'of': len(group),
            'frames': sum(each.summary['data']['frames'] for each in members),
            'medians': {metric: _summarize_median([each[metric] for each in values])
                        for metric in (values[0] if values else ())
                        if any(each[metric] is not None for each in values)}})
    return rows


def _summarize_median(values: Sequence[float | None]) -> dict[str, float | int]:
    known = np.array([value for value in values if value is not None], np.float64)
    low, high = median_interval(known)
    return {'median': float(np.median(known)), 'low': low, 'high': high,
            'recordings': len(known)}


def _rank(evaluated: Mapping[str, EvaluatedRecording], basis: Basis) -> list[str]:
    """List the worst recordings, the worst first."""
    errors = {name: each.errors[basis] for name, each in evaluated.items() if basis in each.errors}
    return sorted(errors, key=lambda name: -errors[name])[:SHOWN_RECORDINGS]


def _worst_seconds(out: Path, evaluated: Mapping[str, EvaluatedRecording],
                   basis: Basis) -> list[dict[str, Any]]:
    rows = [{'recording': name, **_describe_basis(basis), **second,
             'picture': _relative(each.recording.folder / second['picture'], out)}
            for name, each in evaluated.items() if each.basis == basis
            for second in each.summary['worst_seconds']]
    return sorted(rows, key=lambda row: -row['abs_rel'])[:SHOWN_SECONDS]


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


if __name__ == '__main__':
    print_schema(SCHEMA)
