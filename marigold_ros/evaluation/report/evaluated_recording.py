"""Read the results of the recordings of a fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from marigold_ros.depth.errors import InputError
from marigold_ros.evaluation.fleet.recordings import FleetRecording
from marigold_ros.evaluation.report.summary import SCHEMA_VERSION

SUMMARY, PER_FRAME = 'summary.json', 'per_frame.csv'


@dataclass(frozen=True)
class Basis:
    """What numbers of two recordings must have in common to be averaged or ranked."""

    policy: str
    protocol: str
    compared_range: str


@dataclass(frozen=True)
class EvaluatedRecording:
    """
    A recording of a fleet that was evaluated, maybe in part.

    Attributes
    ----------
    recording : FleetRecording
    summary : mapping
        See `report.summary.SCHEMA`.
    """

    recording: FleetRecording
    summary: Mapping[str, Any]

    @property
    def basis(self) -> Basis:
        """Return the primary policy and how its depth is compared."""
        return Basis(self.summary['verdict']['policy'], self.summary['protocol'],
                     self.summary['compared_range'])

    @property
    def errors(self) -> dict[Basis, float]:
        """Return AbsRel of relative and of metric depth, where they are known."""
        errors = {self.basis: self.values['abs_rel']}
        if self.summary['metric']:
            metric = Basis(self.basis.policy, 'metric', self.summary['metric']['range'])
            errors[metric] = self.values['metric_abs_rel']
        return {basis: value for basis, value in errors.items() if value is not None}

    @property
    def _policy(self) -> Mapping[str, Any]:
        row: Mapping[str, Any] = self.summary['policies'][self.basis.policy]
        return row

    @property
    def _metric(self) -> Mapping[str, Any]:
        row: Mapping[str, Any] = self.summary['metric'].get('policies', {}).get(
            self.basis.policy, {})
        return row

    @property
    def values(self) -> dict[str, float | None]:
        """Return the numbers of the primary policy that decide; None where unknown."""
        policy, metric = self._policy, self._metric
        obstacles = metric.get('obstacles', {})
        return {
            'abs_rel': policy['metrics'].get('abs_rel'),
            'delta1': policy['metrics'].get('delta1'),
            'metric_abs_rel': metric.get('abs_rel'),
            'share_with_metric_depth': metric.get('share_with_metric_depth'),
            'obstacle_recall': obstacles.get('recall'),
            'obstacle_precision': obstacles.get('precision'),
            'saved': policy['saved'][self.summary['engine']['fastest_policy']]['share'],
            'latency_p95_ms': policy['simulated']['latency_p95_ms']}

    @property
    def intervals(self) -> dict[str, Sequence[float | None]]:
        """Return the 95 % intervals over the blocks of the recording, by metric."""
        return {'abs_rel': self._policy['abs_rel_interval'],
                'metric_abs_rel': self._metric.get('abs_rel_interval', (None, None))}

    @property
    def settings(self) -> dict[str, Any]:
        """Return all that may change the numbers of the same recording."""
        return {**self.summary['settings'], **self.summary['engine'],
                'compared_range': self.summary['compared_range'],
                'scale_sources': self.summary['metric'].get('sources', []),
                'commit': self.summary['environment']['commit']}

    def primary_rows(self) -> list[dict[str, str]]:
        """Read the rows of the primary policy from per_frame.csv."""
        with (self.recording.folder / PER_FRAME).open(newline='', encoding='utf-8') as file:
            return [row for row in csv.DictReader(file) if row['policy'] == self.basis.policy]


def read_recordings(recordings: Sequence[FleetRecording]) -> dict[str, EvaluatedRecording]:
    """
    Read the results of all recordings that have any, by name.

    Raises
    ------
    InputError
        If results are missing or written by another version.
    """
    evaluated = {}
    for recording in recordings:
        if recording.state == 'failed':
            continue
        summary = read_summary(recording.folder, SCHEMA_VERSION, f'recording {recording.name}')
        if not (recording.folder / PER_FRAME).is_file():
            raise InputError(f'recording {recording.name} must have the file '
                             f'{recording.folder / PER_FRAME}; it is missing')
        evaluated[recording.name] = EvaluatedRecording(recording, summary)
    return evaluated


def read_summary(folder: Path, version: int, name: str,
                 report: str | None = None) -> dict[str, Any]:
    """
    Read a summary.json of a version.

    Parameters
    ----------
    folder : Path
    version : int
        Value of `schema_version`.
    name : str
        What the folder is, for messages.
    report : str or None
        Value of `report`; None for the summary of one recording.

    Raises
    ------
    InputError
        If there is none, or it is of another kind or version.
    """
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding='utf-8'))
    except OSError as err:
        raise InputError(f'{name} must have a readable file {path}: {err.strerror}') from err
    except ValueError as err:
        raise InputError(f'{name}: {path} must be JSON: {err}') from err
    if not isinstance(summary, dict) or summary.get('report') != report:
        raise InputError(f'{name}: {path} must be the summary of '
                         f'{"one recording" if report is None else f"a {report}"}; it is not')
    if summary.get('schema_version') != version:
        raise InputError(f'{name}: {path} must have `schema_version` {version}; got '
                         f'{summary.get("schema_version")!r}: evaluate again with this version')
    return summary
