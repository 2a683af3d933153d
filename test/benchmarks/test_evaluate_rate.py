"""The benchmark of the rate of `evaluate` on a short bag."""

from __future__ import annotations

import json

from benchmarks.evaluate_rate import main


def test_the_rate_of_a_short_bag_is_compared(tmp_path):
    assert main(['--minutes', '0.02', '--hz', '2', '--policies', 'fixed-1',
                 '--out', str(tmp_path)]) == 0
    row, = json.loads((tmp_path / 'evaluate_rate.json').read_text())['rows']
    assert row['frames'] == 2
    assert 0.0 < float(row['evaluate (frames/s)']) < 1.5 * float(row['engine alone (frames/s)'])
    assert row['share'] in (tmp_path / 'evaluate_rate.md').read_text()


def test_an_unknown_policy_is_reported(tmp_path, capsys):
    assert main(['--minutes', '0.02', '--policies', 'fastest', '--out', str(tmp_path)]) == 2
    assert 'fastest' in capsys.readouterr().err
