"""The benchmark of a fleet on two short bags: what it runs, where, and what it reports."""

from __future__ import annotations

import json
import os

from fleet_fixtures import PoolWithoutProcesses
import pytest

from benchmarks import fleet
from marigold_ros.evaluation import evaluate
from marigold_ros.evaluation.fleet import command

needs_two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason='needs two cores')


@needs_two_cores
def test_one_and_two_workers_evaluate_the_same_frames(tmp_path, monkeypatch):
    """In this process; the command itself is tested with `evaluate fleet`."""
    def evaluate_here(path, out, cores):
        assert evaluate.main(['fleet', str(path), '--out', str(out)]) == 0
        done = json.loads((out / 'summary.json').read_text())['recordings']
        runs.append((len(cores), [each['frames'] for each in done]))

    runs = []
    monkeypatch.setattr(command, '_open_pool', lambda address, runs: PoolWithoutProcesses())
    monkeypatch.setattr(fleet, 'evaluate_fleet', evaluate_here)
    assert fleet.main(['--bags', '2', '--minutes', '0.05', '--hz', '1', '--policies', 'fixed-1',
                       '--rounds', '1', '--out', str(tmp_path)]) == 0
    assert runs[0] == (1, [3])  # the latency table is measured on one bag
    assert sorted(runs[1:]) == [(1, [3, 3]), (2, [3, 3])]
    result = json.loads((tmp_path / 'fleet.json').read_text())
    assert result['frames'] == 6 and set(result['rounds_s']) == {'1', '2'}
    table = (tmp_path / 'fleet.md').read_text()
    assert 'share of the time of one' in table and '| 2' in table


@needs_two_cores
def test_the_command_runs_on_the_given_cores_and_into_an_empty_folder(tmp_path, monkeypatch):
    (tmp_path / 'told.py').write_text(
        'import json, os, pathlib, sys\n'
        'words = [*sys.argv[1:], pathlib.Path(sys.argv[-1]).exists()]\n'
        "json.dump([words, list(os.sched_getaffinity(0))], open('told.json', 'w'))\n"
        "sys.exit('a list' not in sys.argv)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fleet, 'MODULE', 'told')
    (tmp_path / 'out').mkdir()
    core = max(os.sched_getaffinity(0))
    fleet.evaluate_fleet('a list', tmp_path / 'out', [core])
    assert json.loads((tmp_path / 'told.json').read_text()) == [
        ['fleet', 'a list', '--out', str(tmp_path / 'out'), False], [core]]
    with pytest.raises(fleet.subprocess.CalledProcessError):
        fleet.evaluate_fleet('another', tmp_path / 'out', [core])
