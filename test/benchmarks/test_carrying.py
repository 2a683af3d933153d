"""The time of carrying: every part is measured at every size, and the sums are right."""

from __future__ import annotations

import json

from benchmarks import carrying


def test_every_part_is_timed_at_every_size(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(carrying, 'SIZES', ((120, 160), (96, 128)))
    monkeypatch.setattr(carrying, 'FRAMES', 3)
    carrying.main(['--rounds', '2', '--out', str(tmp_path)])
    parts = json.loads((tmp_path / 'carrying.json').read_text())['parts']
    assert list(parts) == ['160x120', '128x96']
    for each in parts.values():
        assert list(each) == ['look', 'carry', 'carry with pose', 'run']
        assert all(0.0 < part['q25_ms'] <= part['median_ms'] <= part['q75_ms']
                   for part in each.values())
    assert capsys.readouterr().out.count('\n') >= 4


def test_a_row_adds_what_a_carried_frame_takes():
    parts = {name: {'median_ms': ms, 'q25_ms': ms - 0.5, 'q75_ms': ms + 0.5}
             for name, ms in (('look', 3.0), ('carry', 2.0), ('carry with pose', 2.5),
                              ('run', 40.0))}
    row = carrying.format_row(480, 640, parts)
    assert (row['size'], row['look + carry, ms'], row['run / (look + carry)']) == (
        '640x480', '5.0', '8.0')
    assert row['carry with pose, ms'] == '2.5 (2.0..3.0)'
