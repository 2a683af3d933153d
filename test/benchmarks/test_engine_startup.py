"""Start-up times: a process of its own, with empty caches and with those it has filled."""

from __future__ import annotations

import json

import torch

from benchmarks import engine_startup
from benchmarks.engine_candidates import EngineCandidate


def test_the_second_start_finds_the_caches_of_the_first(monkeypatch):
    """And every round begins with an empty folder."""
    def start(settings, caches):
        filled = any(caches.iterdir())
        (caches / 'blob').touch()
        starts.append((caches, filled))
        return {'import': 1.0, 'load': 2.0, 'first depth': 0.5 if filled else 10.0 + len(starts),
                'total': 3.5}

    starts = []
    monkeypatch.setattr(engine_startup, '_start', start)
    times_s = engine_startup.measure_start_up({}, rounds=3)
    assert [filled for _, filled in starts] == [False, True] * 3
    assert len({caches for caches, _ in starts}) == 3
    assert times_s['cold']['first depth'] == 13.0
    assert times_s['cached'] == {'import': 1.0, 'load': 2.0, 'first depth': 0.5, 'total': 3.5}


def test_a_start_compiles_into_the_given_folder_and_is_timed_as_a_whole(tmp_path):
    candidate = EngineCandidate('tiny', 64, torch.device('cpu'), 'float32', 'OpenVINO')
    seconds = engine_startup._start(candidate.settings, tmp_path)
    compiled = list((tmp_path / 'XDG_CACHE_HOME' / 'marigold_ros').iterdir())
    assert len(compiled) == 4 + 4  # encode, step, decode, its head: converted and compiled
    assert all(seconds[phase] > 0.0 for phase in engine_startup.PHASES)
    assert abs(seconds['total'] - sum(seconds[phase] for phase in engine_startup.PHASES)) < 1e-6


def test_each_engine_has_a_row(tmp_path, monkeypatch, capsys):
    times_s = {state: {'import': 1.0, 'load': 2.0, 'first depth': 0.25, 'total': 3.25}
               for state in engine_startup.STATES}
    monkeypatch.setattr(engine_startup, 'measure_start_up', lambda settings, rounds: times_s)
    engine_startup.main(['--device', 'cpu', '--out', str(tmp_path)])
    text = capsys.readouterr().out
    assert '| engine, torch eager, float32 ' in text
    assert 'stock' not in text
    assert text.count('1.0 + 2.0 + 0.2') >= 2
    report = json.loads((tmp_path / 'engine_startup_tiny.json').read_text())
    assert report['seconds']['engine, torch eager, float32'] == times_s
