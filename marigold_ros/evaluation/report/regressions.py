"""Compare the recordings of a fleet with an earlier evaluation of them, frame by frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_ros.evaluation.fleet.recordings import FleetRecording
from marigold_ros.evaluation.report.evaluated_recording import EvaluatedRecording
from marigold_ros.evaluation.report.summary import UNCAPPED_METRICS
from marigold_ros.evaluation.statistics import Blocks, compare_metric, Difference
from marigold_ros.progress import progress_bar

# With fewer blocks, their differences have one sign by chance too often: of six, in 3 % of cases.
BLOCKS_TO_DECIDE = 6
# The worst first.
VERDICTS = ('worse', 'better', 'no difference', 'unknown', 'not compared')

Row = Mapping[str, str]
Columns = dict[str, NDArray[np.float64]]


def find_regressions(recordings: Sequence[FleetRecording],
                     now: Mapping[str, EvaluatedRecording],
                     baseline: Sequence[FleetRecording],
                     earlier: Mapping[str, EvaluatedRecording]) -> dict[str, Any]:
    """
    Find the recordings that became worse or better.

    Parameters
    ----------
    recordings, baseline : sequence of FleetRecording
        All of this fleet, and of the earlier one.
    now, earlier : mapping of str to EvaluatedRecording
        Those that have results, by name.

    Returns
    -------
    dict
        `recordings`, `all`, `changed`, `only_here` and `only_in_baseline` of `regressions` in
        `fleet.SCHEMA`; NaN where unknown.
    """
    names, earlier_names = ([each.name for each in fleet] for fleet in (recordings, baseline))
    shared = [name for name in names if name in earlier_names]
    rows, ratios = [], {}
    for name in progress_bar(shared, 'comparison', unit='recording'):
        if name in now and name in earlier:
            row, ratios[name] = _compare_recording(now[name], earlier[name])
        else:
            failed = [text for text, fleet in (('now', now), ('in the baseline', earlier))
                      if name not in fleet]
            row = {'verdict': 'not compared', 'reason': f'failed {" and ".join(failed)}',
                   'frames': 0, 'frames_now': 0, 'blocks': 0, 'metrics': {}}
        rows.append({'name': name, **row})
    return {
        'recordings': sorted(rows, key=lambda row: VERDICTS.index(row['verdict'])),
        # Relative to the baseline, as recordings may differ in protocol and range.
        'all': {metric: asdict(_compare_metric(
            metric, np.array([ratio[metric] for ratio in ratios.values()]), np.ones(len(ratios)),
            Blocks([*ratios], mean_of_blocks=False))) for metric in UNCAPPED_METRICS},
        'changed': _describe_changes([(now[name], earlier[name]) for name in ratios]),
        'only_here': [name for name in names if name not in earlier_names],
        'only_in_baseline': [name for name in earlier_names if name not in names]}


def _compare_recording(now: EvaluatedRecording, earlier: EvaluatedRecording
                       ) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the row of a recording, and by metric the ratio to the baseline, NaN if unknown."""
    rows, earlier_rows = ({_frame_key(row): row for row in each.primary_rows()}
                          for each in (now, earlier))
    keys = [key for key in rows if key in earlier_rows]
    blocks = Blocks([rows[key]['block'] for key in keys],
                    mean_of_blocks=now.summary['data']['mean_of_blocks'])
    one, other = (_columns([each[key] for key in keys]) for each in (rows, earlier_rows))
    comparable = UNCAPPED_METRICS if _same_protocol(now, earlier) else ('metric_abs_rel',)
    metrics = {metric: _compare_metric(metric, one[metric], other[metric], blocks)
               for metric in comparable if np.isfinite(one[metric] - other[metric]).any()}
    reason = '' if comparable is UNCAPPED_METRICS else 'other protocol or depth range'
    if not keys:
        reason = 'no frame in common'
    elif len(set(blocks.names)) < BLOCKS_TO_DECIDE:
        reason = reason or f'fewer than {BLOCKS_TO_DECIDE} blocks'
    found = {difference.verdict for difference in metrics.values()} or {'not compared'}
    return {'verdict': next(each for each in VERDICTS if each in found),
            'reason': reason, 'frames': len(keys), 'frames_now': len(rows),
            'blocks': len(set(blocks.names)),
            'metrics': {metric: asdict(each) for metric, each in metrics.items()}}, {
                metric: 1 + metrics[metric].relative if metric in metrics else np.nan
                for metric in UNCAPPED_METRICS}


def _compare_metric(metric: str, one: NDArray[np.float64], other: NDArray[np.float64],
                    blocks: Blocks) -> Difference:
    """Compare a metric as `compare_metric` does, but decide only with enough blocks."""
    difference = compare_metric(metric, one, other, blocks)
    paired = np.isfinite(one - other)
    if len({name for name, known in zip(blocks.names, paired) if known}) < BLOCKS_TO_DECIDE:
        return replace(difference, verdict='unknown')
    return difference


def _frame_key(row: Row) -> Hashable:
    """Return what a frame has in common in two evaluations, wherever the files lay."""
    return row['stamp_ns'] or (row['frame'], row['block'], Path(row['name']).name)


def _columns(rows: Sequence[Row]) -> Columns:
    return {metric: np.array([float(row[f'{metric}_without_cap'] or 'nan') for row in rows])
            for metric in UNCAPPED_METRICS}


def _same_protocol(now: EvaluatedRecording, earlier: EvaluatedRecording) -> bool:
    return ((now.basis.protocol, now.basis.compared_range)
            == (earlier.basis.protocol, earlier.basis.compared_range))


def _describe_changes(pairs: Sequence[tuple[EvaluatedRecording, EvaluatedRecording]]
                      ) -> list[str]:
    """Describe the settings that differ, and in how many recordings."""
    changes: Counter[str] = Counter()
    for now, earlier in pairs:
        changes.update(
            f'{key.replace("_", " ")}: {_format(earlier.settings.get(key))} in the baseline, '
            f'{_format(now.settings.get(key))} now'
            for key in {**now.settings, **earlier.settings}
            if now.settings.get(key) != earlier.settings.get(key))
    return [text + ('' if count == len(pairs) else f' ({count} of {len(pairs)} recordings)')
            for text, count in changes.items()]


def _format(value: Any) -> str:
    return ', '.join(map(str, value)) or 'none' if isinstance(value, list) else str(value)
