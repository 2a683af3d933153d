"""The timing method: what is timed, in which order, and the statistics."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest

from benchmarks.timing import quartiles_ms, speedup, time_interleaved, write_benchmark_report
from marigold_ros.evaluation.environment import describe_environment


def test_every_round_calls_every_candidate_in_another_order():
    calls = []
    candidates = {name: lambda name=name: calls.append(name) for name in 'abc'}
    time_interleaved(candidates, rounds=20, warm_up=1)
    rounds = [tuple(calls[start:start + 3]) for start in range(0, len(calls), 3)]
    assert len(rounds) == 21
    assert all(sorted(order) == ['a', 'b', 'c'] for order in rounds)
    assert len(set(rounds)) > 1


def test_warm_up_rounds_are_neither_timed_nor_returned():
    numbers = iter(range(10))
    runs = time_interleaved({'count': lambda: next(numbers)}, rounds=4, warm_up=3)['count']
    assert runs.returned == [3, 4, 5, 6]
    assert runs.seconds.shape == (4,)


def test_time_is_that_of_the_call_itself():
    runs = time_interleaved({'sleeper': lambda: time.sleep(0.02), 'idle': lambda: None}, rounds=3)
    assert (runs['sleeper'].seconds >= 0.02).all()
    assert np.median(runs['idle'].seconds) < 0.01


def test_quartiles_are_in_milliseconds():
    figures = quartiles_ms(np.array([0.001, 0.002, 0.003, 0.004, 0.005]))
    assert figures == pytest.approx(
        {'median_ms': 3.0, 'q25_ms': 2.0, 'q75_ms': 4.0, 'rounds': 5})


def test_speedup_is_the_ratio_of_medians_with_an_interval():
    rng = np.random.default_rng(0)
    candidate = rng.uniform(0.9, 1.1, 40)
    figures = speedup(3.0 * candidate[rng.permutation(40)], candidate)
    assert figures['ratio'] == pytest.approx(3.0)
    assert figures['low'] < 3.0 < figures['high']
    assert figures['high'] - figures['low'] < 0.6


def test_interval_is_paired_so_shared_slowness_does_not_matter():
    """Half of the rounds ten times slower for both: in every draw the ratio is exactly 2."""
    candidate = np.array([1.0, 10.0] * 10)
    assert speedup(2.0 * candidate, candidate) == pytest.approx(
        {'ratio': 2.0, 'low': 2.0, 'high': 2.0})


def test_report_says_command_machine_and_commit(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'orig_argv', ['/usr/bin/python3', '-m', 'benchmarks.bench', '-n 3'])
    facts = describe_environment()
    assert set(facts) >= {'date_utc', 'commit', 'python', 'torch', 'diffusers', 'cpu', 'cores',
                          'torch_threads', 'device'}
    write_benchmark_report(tmp_path / 'out', 'bench', facts, {'n': 1}, '| a |')
    figures = json.loads((tmp_path / 'out' / 'bench.json').read_text())
    assert figures['environment'] == facts and figures['n'] == 1
    text = (tmp_path / 'out' / 'bench.md').read_text()
    assert figures['command'] == "python -m benchmarks.bench '-n 3'"
    assert f'`{figures["command"]}`' in text
    assert all(str(facts[key]) in text for key in ('commit', 'date_utc', 'cpu', 'torch'))
    assert text.endswith('\n\n| a |\n')
    assert capsys.readouterr().out == '| a |\n'


def test_a_figure_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match='not JSON compliant'):
        write_benchmark_report(tmp_path, 'bench', describe_environment(),
                               {'median_ms': float('nan')}, '')
