"""The reading benchmark on a second of bag: what it reads and reports."""

from __future__ import annotations

import json

from benchmarks import bag_reading
from benchmarks.bag_reading import main, TOPICS
from marigold_ros.data.datasets.bag import bag_data_set


def test_it_writes_a_bag_of_vga_at_30_hz_and_reads_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_reading, 'ROUNDS', 1)
    assert main(['--bag', str(tmp_path / 'bag'), '--minutes', '0.02', '--frames', '1',
                 '--out', str(tmp_path / 'out')]) == 0
    result = json.loads((tmp_path / 'out' / 'bag_reading.json').read_text())
    assert result['frames'] == 36    # 1.2 s
    assert result['peak_mib'] >= result['peak_before_mib'] > 100
    assert set(result['share_of_engine_rate']) == {'ratio', 'low', 'high'}
    frames = list(bag_data_set(tmp_path / 'bag', TOPICS).frames())
    assert frames[0].rgb.shape == (480, 640, 3)
    assert frames[1].stamp_ns - frames[0].stamp_ns == 10 ** 9 // 30


def test_a_bag_too_short_for_its_rounds_is_named(tmp_path, capsys):
    assert main(['--bag', str(tmp_path / 'bag'), '--minutes', '0.01', '--frames', '3',
                 '--out', str(tmp_path / 'out')]) == 2
    assert '`frames` must be few enough for 6 rounds in 18 frames; got 3' in (
        capsys.readouterr().err)


def test_an_unreadable_bag_is_reported(tmp_path, capsys):
    (tmp_path / 'bag').mkdir()
    assert main(['--bag', str(tmp_path / 'bag'), '--out', str(tmp_path / 'out')]) == 2
    assert 'unreadable or truncated' in capsys.readouterr().err
