"""The benchmark of a fleet on two short bags: what it runs and reports."""

from __future__ import annotations

import json
import os

import pytest

from benchmarks.fleet import main


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason='needs two cores')
def test_one_and_two_workers_evaluate_the_same_frames(tmp_path):
    assert main(['--bags', '2', '--minutes', '0.05', '--hz', '1', '--policies', 'fixed-1',
                 '--rounds', '1', '--out', str(tmp_path)]) == 0
    result = json.loads((tmp_path / 'fleet.json').read_text())
    assert result['frames'] == 6 and set(result['rounds_s']) == {'1', '2'}
    table = (tmp_path / 'fleet.md').read_text()
    assert 'share of the time of one' in table and '| 2' in table
