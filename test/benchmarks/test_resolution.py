"""The benchmark of processing resolutions: one row each, compared with the last."""

from __future__ import annotations

from benchmarks import resolution


def test_each_resolution_has_a_row_and_the_last_is_the_reference(tmp_path, monkeypatch, capsys):
    frames = list(resolution.bag_data_set(resolution.SAMPLE).frames())[:2]

    class TwoFrames:
        def frames(self):
            return iter(frames)

    monkeypatch.setattr(resolution, 'bag_data_set', lambda path: TwoFrames())
    monkeypatch.setattr(resolution, 'RESOLUTIONS_PX', (64, 192))
    assert resolution.main(['--rounds', '2', '--out', str(tmp_path)]) == 0
    _, _, small, own = ([cell.strip() for cell in line.split('|')[1:-1]]
                        for line in capsys.readouterr().out.splitlines())
    assert (small[0], own[0]) == ('64', '192')
    assert own[2] == '1.00 [1.00, 1.00]'
    assert float(small[3]) > float(own[3])
