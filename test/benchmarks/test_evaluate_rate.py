"""The benchmark of the rate of `evaluate` on short bags."""

from __future__ import annotations

import json

from benchmarks import evaluate_rate
from benchmarks.bag_reading import TOPICS, write_long_bag
from benchmarks.evaluate_rate import main
from marigold_ros.data.datasets.bag import bag_data_set


def test_a_short_bag_and_the_drive_are_compared(tmp_path, monkeypatch, capsys):
    """With a shorter one in the place of the drive, which is only opened."""
    assert bag_data_set(evaluate_rate.SAMPLE, evaluate_rate.DRIVE).count == 80
    write_long_bag(tmp_path / 'drive', 0.05, 2)
    monkeypatch.setattr(evaluate_rate, 'SAMPLE', tmp_path / 'drive')
    monkeypatch.setattr(evaluate_rate, 'DRIVE', TOPICS)
    assert main(['--minutes', '0.02', '--hz', '2', '--rounds', '1', '--policies', 'fixed-1',
                 '--out', str(tmp_path)]) == 0
    rows = json.loads((tmp_path / 'evaluate_rate.json').read_text())['rows']
    assert [row['frames'] for row in rows] == [2, 6]
    for row in rows:
        assert 0.0 < float(row['evaluate (frames/s)']) < 1.5 * float(
            row['engine alone (frames/s)'])
        assert row['share'] in (tmp_path / 'evaluate_rate.md').read_text()
    assert 'AbsRel' not in capsys.readouterr().out  # of the evaluations


def test_an_unknown_policy_is_reported(tmp_path, capsys):
    assert main(['--minutes', '0.02', '--policies', 'fastest', '--out', str(tmp_path)]) == 2
    assert 'fastest' in capsys.readouterr().err
