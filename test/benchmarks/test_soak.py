"""Checks of the soak, and a short soak of the real node."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import soak as soak_tool
from benchmarks.soak import (
    check_soak,
    count_metre_changes,
    count_unaccounted_frames,
    fit_trend,
    ShownFrame,
)


def ticks(memory):
    """Return a tick per second for 100 s."""
    return [{'time_s': float(time_s), 'memory_bytes': memory(time_s)} for time_s in range(100)]


def shown(count=100, camera='front', state='run', carried_s=0.3, latency_ms=lambda time_s: 40.0):
    """Return a frame per second."""
    return [ShownFrame(float(time_s), camera, state, carried_s, latency_ms(time_s))
            for time_s in range(count)]


STALE = ShownFrame(50.0, 'front', 'stale', 3.0, 40.0)
WAITED = shown(50, carried_s=0.0, latency_ms=lambda _: 300.0)


def a_soak(**changes):
    """Return a run of 100 s without errors: memory 200, latency 40 ms, or 300 for a run."""
    return {
        'seconds': 100.0, 'exit_codes': {'node': 0, 'listener': 0},
        'counters': {'front': {'frames_in': 100, 'frames_processed': 90, 'dropped_late': 7,
                               'dropped_bad_image': 3, 'no_calibration': 50}},
        'bad_images_sent': {'front': 4}, 'replies': (5, 5), 'cycles': (2, 2),
        'ticks': ticks(lambda time_s: 200),
        'frames': [*shown(), *WAITED, STALE],
        'scale_states': [('tracking', True), ('expired', False), ('tracking', True)],
        'metric_stamps': {'front': [1, 2]}, 'stale_stamps': {'front': [3]}, **changes}


def failed(**changes):
    return [check['what'] for check in check_soak(a_soak(**changes)) if not check['ok']]


def test_a_run_without_a_fault_passes():
    assert failed() == []


def test_unaccounted_frames_fail_and_other_counters_are_ignored():
    assert count_unaccounted_frames({'a': {
        'frames_in': 9, 'frames_processed': 5, 'dropped_late': 1,
        'no_calibration': 3}}) == {'a': 3}
    counters = {'front': {'frames_in': 101, 'frames_processed': 97, 'dropped_bad_image': 3}}
    assert failed(counters=counters) == [
        'frames in = processed + dropped with a reason; difference']


def test_metres_are_lost_when_they_expire_not_when_the_scale_is_reset_or_unknown():
    states = [('assumed', True), ('rejected', False), ('tracking', True), ('none', False),
              ('holding', True), ('none', False), ('expired', False), ('none', False),
              ('rejected', False), ('tracking', True), ('waiting', False), ('tracking', True)]
    assert count_metre_changes(states) == {'lost': 1, 'regained': 1}


@pytest.mark.parametrize('changes, word', [
    ({'exit_codes': {'node': -11, 'listener': 0}}, 'exit code'),
    ({'replies': (5, 4)}, 'parameters'),
    ({'cycles': (2, 1)}, 'lifecycle'),
    ({'counters': {'front': {'frames_in': 90, 'frames_processed': 90}},
      'bad_images_sent': {'front': 20}}, 'bad images'),
    ({'frames': [*shown(70), *WAITED, STALE]}, 'last fifth'),
    ({'frames': [*shown(latency_ms=lambda time_s: 40.0 + 0.2 * time_s), *WAITED, STALE]},
     'latency of carried'),
    ({'frames': [*shown(), STALE]}, 'latency of frames that waited'),
    ({'frames': [*shown(), *shown(carried_s=0.0, latency_ms=lambda time_s: 300.0 + 2 * time_s),
                 STALE]},
     'latency of frames that waited'),
    ({'ticks': ticks(lambda time_s: 200 + 0.2 * time_s)}, 'memory'),
    ({'frames': [*shown(latency_ms=lambda time_s: 900.0 if time_s % 50 == 0 else 40.0), *WAITED,
                 STALE]}, 'within 500 ms'),
    ({'frames': [*shown(), *WAITED, STALE._replace(state='carried'), STALE]}, 'not stale'),
    ({'frames': shown() + WAITED}, 'gets stale'),
    ({'stale_stamps': {'front': [2]}}, 'no metric output of stale frames'),
    ({'scale_states': [('waiting', False), ('tracking', True)]}, 'metres'),
    ({'scale_states': [('tracking', True), ('rejected', False)]}, 'metres'),
    ({'frames': shown(state='carried') + shown(1, camera='rear')
      + [each._replace(state='carried') for each in WAITED] + [STALE]}, 'shared evenly'),
])
def test_each_rule_fails_alone(changes, word):
    what, = failed(**changes)
    assert word in what


def test_a_trend_ignores_the_start_and_single_spikes():
    """Grows from 100 to 110 between 10 and 100 s; doubled before; one value in a slice off."""
    times_s = np.arange(0.0, 100.0, 0.5)
    values = np.where(times_s < 10, 300.0, 100.0 + (times_s - 10) / 9)
    values[[50, 120, 190]] = 9999.0
    found = fit_trend(times_s.tolist(), values.tolist(), 100.0)
    # The 20 slices' middles lie 85.5 s apart: 85.5 / 9 = 9.5, over a median of 105.
    assert found.change == pytest.approx(9.5 / 105, rel=0.02)
    with pytest.raises(ValueError, match='two slices'):
        fit_trend([1.0, 50.0], [1.0, 1.0], 100.0)


@pytest.mark.node
@pytest.mark.slow
def test_a_short_soak_of_the_real_node_passes(tmp_path, monkeypatch):
    """Every event once; too short for memory and latency to settle, so their bounds are wide."""
    monkeypatch.setattr(soak_tool, 'MEMORY_BOUND', 1.0)
    monkeypatch.setattr(soak_tool, 'LATENCY_BOUND', 5.0)
    code = soak_tool.main(['--minutes', '0.2', '--event-every', '1', '--out', str(tmp_path)])
    soak = json.loads((tmp_path / 'soak.json').read_text())
    failed = [check for check in soak['checks'] if not check['ok']]
    # In so short a time no run may hang, and too few frames for a trend may wait for their run.
    assert [check for check in failed
            if check['found'] != '+nan%' and 'gets stale' not in check['what']] == []
    assert code == bool(failed)
    assert len({event for _, event in soak['events']}) == 12
    assert set(soak['counters']) == {'front', 'left', 'rear'}
    assert (tmp_path / 'soak.png').read_bytes()[:4] == b'\x89PNG'
